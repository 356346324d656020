-- Tests of a small bank's queries: foldlog test examples/sql/accounts.sql
--
-- What stands before the first test is executed before each of them.

CREATE STREAM moves (account VARCHAR KEY, kind VARCHAR, amount BIGINT) WITH (partitions = 2);
CREATE TABLE balances AS
    SELECT account, SUM(CASE WHEN kind = 'withdrawn' THEN -amount ELSE amount END) AS balance, COUNT(*) AS moves
    FROM moves
    WHERE kind <> 'opened'
    GROUP BY account;

--@test: every move changes the balance of its account
INSERT INTO moves (rowtime, account, kind, amount) VALUES
    (TIMESTAMP '2026-01-01 10:00:00', 'ann', 'opened', 0),
    (TIMESTAMP '2026-01-01 10:01:00', 'ann', 'deposited', 100);
ASSERT VALUES balances (account, balance, moves, rowtime) VALUES ('ann', 100, 1, TIMESTAMP '2026-01-01 10:01:00');
INSERT INTO moves VALUES ('bob', 'deposited', 25);
INSERT INTO moves VALUES ('ann', 'withdrawn', 30);
ASSERT VALUES balances (account, balance, moves) VALUES ('bob', 25, 1), ('ann', 70, 2);

--@test: a query over the view reads what was written before it
INSERT INTO moves VALUES ('ann', 'deposited', 100), ('bob', 'deposited', 25);
CREATE TABLE rich AS SELECT account, balance FROM balances WHERE balance >= 100;
ASSERT VALUES rich VALUES ('ann', 100);
INSERT INTO moves VALUES ('ann', 'withdrawn', 60);
ASSERT NULL VALUES rich (account) KEY ('ann');

--@test: the view is what it is meant to be
ASSERT TABLE balances (account VARCHAR PRIMARY KEY, balance BIGINT, moves BIGINT) WITH (topic = 'balances', value_format = 'json');
ASSERT STREAM moves (account VARCHAR KEY, kind VARCHAR, amount BIGINT) WITH (partitions = 2);
ASSERT TOPIC balances;
ASSERT NOT EXISTS TOPIC rich;

--@test: a view is written by its query alone
--@expected.error: SQL_INVALID
--@expected.message: written by query
INSERT INTO balances VALUES ('ann', 1000000, 1);
