-- What the demo asks of SQL: two streams and three views, kept up to date while the flights are appended.

-- The topic of events. The key is the name of an event's stream, here one flight; type, version, position and rowtime are
-- columns of every stream over events and are not declared.
CREATE STREAM flights (
    flight VARCHAR KEY,
    day VARCHAR,
    carrier VARCHAR,
    origin VARCHAR,
    dest VARCHAR,
    distance BIGINT,
    delay BIGINT,
    air_time BIGINT
) WITH (kafka_topic = 'flights', value_format = 'json');

-- Every landing, as a stream of its own that other queries read.
CREATE STREAM landings AS
    SELECT flight, day, carrier, origin, dest, distance, delay, air_time
    FROM flights
    WHERE type = 'FlightArrived';

-- Delays by carrier, in minutes; early arrivals count as negative delays.
CREATE TABLE delays_by_carrier AS
    SELECT carrier,
           COUNT(*) AS landed,
           SUM(CASE WHEN delay > 15 THEN 1 ELSE 0 END) AS late,
           SUM(delay) AS minutes_late,
           AVG(delay) AS average_delay,
           MIN(delay) AS best,
           MAX(delay) AS worst
    FROM landings
    GROUP BY carrier;

-- What happened at each airport on each day.
CREATE TABLE airport_board AS
    SELECT origin,
           day,
           SUM(CASE WHEN type = 'FlightScheduled' THEN 1 ELSE 0 END) AS scheduled,
           SUM(CASE WHEN type = 'FlightDeparted' THEN 1 ELSE 0 END) AS departed,
           SUM(CASE WHEN type = 'FlightArrived' THEN 1 ELSE 0 END) AS arrived,
           SUM(CASE WHEN type = 'FlightCancelled' THEN 1 ELSE 0 END) AS cancelled,
           SUM(CASE WHEN type = 'FlightDiverted' THEN 1 ELSE 0 END) AS diverted,
           MAX(CASE WHEN type = 'FlightDeparted' THEN delay END) AS longest_wait
    FROM flights
    GROUP BY origin, day;

-- Every route flown; the worst are found by asking for them in order.
CREATE TABLE worst_routes AS
    SELECT origin,
           dest,
           COUNT(*) AS landed,
           AVG(delay) AS average_delay,
           MAX(delay) AS worst,
           MIN(air_time) AS fastest,
           SUM(distance) AS miles
    FROM landings
    GROUP BY origin, dest;

-- Who the carriers are; the demo fills this table from carriers.csv.
CREATE TABLE carriers (carrier VARCHAR PRIMARY KEY, name VARCHAR)
    WITH (kafka_topic = 'carriers', value_format = 'json', partitions = 1);
