//! Queries that do not end: streams from now on, views as a snapshot and then changes, resumed without gap or repeat.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "common/shop.rs"]
mod shop;

use std::{collections::BTreeMap, pin::pin, task::Poll, time::Duration};

use foldlog_log::{LogBackend as _, Position};
use foldlog_query::{ChangeOp, PushAnswer, PushItem, QueryConfig, QueryError, Request, Session, SessionChange};
use futures::StreamExt as _;
use shop::{Shop, lines, request};

/// Records that a push query reads at once.
const PART: u64 = 2048;
/// Such parts that are decoded ahead of it, and its own.
const AHEAD: u64 = 3;

/// What one push query has said so far.
struct Heard {
    answer: PushAnswer,
    position: Position,
}

impl Heard {
    fn of(answer: PushAnswer) -> Self {
        Self { answer, position: Position::default() }
    }

    /// The next message: marked rows, none for mere progress. None at the end.
    async fn message(&mut self) -> Option<Vec<String>> {
        let next = tokio::time::timeout(common::PATIENCE, self.answer.items.next()).await.expect("a message in time");
        match next?.unwrap() {
            PushItem::Changes { rows, ops, position } => {
                assert_eq!(rows.num_rows(), ops.len());
                assert_eq!(rows.schema().fields(), self.answer.schema.fields());
                assert!(position >= self.position);
                self.position = position;
                Some(lines(&rows).iter().zip(ops).map(|(row, op)| format!("{} {row}", mark(op))).collect())
            }
            PushItem::Progress(position) => {
                assert!(position >= self.position);
                self.position = position;
                Some(Vec::new())
            }
        }
    }

    /// The next `count` rows.
    async fn rows(&mut self, count: usize) -> Vec<String> {
        let mut rows = Vec::new();
        while rows.len() < count {
            rows.extend(self.message().await.expect("more rows"));
        }
        assert_eq!(rows.len(), count, "{rows:?}");
        rows
    }

    /// Whether nothing but progress comes for a moment.
    async fn is_silent(&mut self) -> bool {
        let rows = async {
            while let Some(rows) = self.message().await {
                if !rows.is_empty() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(50), pin!(rows)).await.is_err()
    }
}

fn mark(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Insert => "+I",
        ChangeOp::UpdateBefore => "-U",
        ChangeOp::UpdateAfter => "+U",
        ChangeOp::Delete => "-D",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_followed_from_now_on_and_ends_at_its_limit() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 1)]).await;
    let mut heard =
        Heard::of(shop.push("SELECT stream, item, amount * 2 AS twice FROM orders WHERE amount > 2 EMIT CHANGES LIMIT 3").await);
    assert!(heard.is_silent().await);
    shop.order("bob", &[("tea", 2), ("pen", 3)]).await;
    assert_eq!(heard.rows(1).await, ["+I bob|pen|6"]);
    shop.order("ann", &[("ink", 4), ("tea", 5), ("tea", 6)]).await;
    assert_eq!(heard.rows(2).await, ["+I ann|ink|8", "+I ann|tea|10"]);
    assert_eq!(heard.message().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_behind_the_last_message_without_gap_or_repeat() {
    let shop = Shop::open().await;
    let sql = "SELECT amount FROM orders EMIT CHANGES";
    let mut position = shop.push(sql).await.schema.fields().len().checked_sub(1).map(|_| shop.log.head().position).unwrap();
    let mut seen = Vec::new();
    for round in 0..20_i64 {
        let orders: Vec<(&str, i64)> = (0..10).map(|number| ("tea", round * 10 + number)).collect();
        shop.order(&format!("c{round}"), &orders).await;
        let mut heard = Heard::of(shop.resume(sql, position).await);
        // Ends in the middle of what there is, wherever a message ends.
        while seen.len() < usize::try_from(round).unwrap() * 10 + 5 {
            seen.extend(heard.message().await.unwrap());
        }
        position = heard.position;
    }
    let mut heard = Heard::of(shop.resume(sql, position).await);
    while seen.len() < 200 {
        seen.extend(heard.message().await.unwrap());
    }
    assert_eq!(seen, (0..200).map(|number| format!("+I {number}")).collect::<Vec<_>>());
    assert!(shop.engine.push(foldlog_query::Request { resume: Some(Position::new(1 << 40).into()), ..request(sql) }).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_behind_its_limit_without_gap_or_repeat() {
    let shop = Shop::open().await;
    let mut position = shop.log.head().position;
    let orders: Vec<(&str, i64)> = (0..20).map(|number| ("tea", number)).collect();
    shop.order("ann", &orders).await;
    let sql = "SELECT amount FROM orders WHERE amount % 2 = 1 EMIT CHANGES LIMIT 4";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut heard = Heard::of(shop.resume(sql, position).await);
        seen.extend(heard.rows(4).await);
        assert_eq!(heard.message().await, None);
        position = heard.position;
    }
    assert_eq!(seen, [1, 3, 5, 7, 9, 11, 13, 15].map(|number| format!("+I {number}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_gets_every_row_once() {
    let shop = Shop::open().await;
    let mut heard = Heard::of(shop.push("SELECT amount FROM orders EMIT CHANGES").await);
    for round in 0..100_i64 {
        let orders: Vec<(&str, i64)> = (0..200).map(|number| ("tea", round * 200 + number)).collect();
        shop.order("ann", &orders).await;
    }
    let rows = heard.rows(20_000).await;
    assert_eq!(rows, (0..20_000).map(|number| format!("+I {number}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_left_out_and_does_not_end_the_query() {
    let shop = Shop::open().await;
    let mut heard = Heard::of(shop.push("SELECT item, 10 / amount AS share FROM orders EMIT CHANGES").await);
    shop.order("ann", &[("tea\\", 0), ("pen", 0), ("ink", 5)]).await;
    assert_eq!(heard.rows(2).await, ["+I pen|-", "+I ink|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_a_snapshot_and_then_every_change() {
    let shop = Shop::open().await;
    for customer in 0..50 {
        shop.order(&format!("c{customer}"), &[("tea", 1)]).await;
    }
    shop.settled("SELECT COUNT(*) FROM totals").await;
    let mut heard = Heard::of(shop.push("SELECT customer, n, total FROM totals EMIT CHANGES").await);
    assert_eq!(heard.answer.keys, [0]);
    for round in 0..200_i64 {
        shop.order(&format!("c{}", round % 70), &[("tea", round)]).await;
    }
    let expected: Vec<String> = shop.settled("SELECT customer, n, total FROM totals ORDER BY customer").await;
    let mut table: BTreeMap<String, String> = BTreeMap::new();
    while table.values().cloned().collect::<Vec<_>>() != expected {
        for row in heard.message().await.unwrap() {
            let (mark, row) = row.split_once(' ').unwrap();
            let key = row.split('|').next().unwrap().to_owned();
            let before = match mark {
                "+I" | "+U" => table.insert(key, row.to_owned()).filter(|_| mark == "+I"),
                "-U" => table.get(&key).cloned().filter(|known| known != row),
                _ => table.remove(&key).filter(|known| known != row),
            };
            assert_eq!(before, None, "{mark} {row}");
        }
    }
    assert!(heard.is_silent().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_before_the_snapshot_holds_no_state() {
    let shop = Shop::with(QueryConfig { state_mib: 1, ..QueryConfig::default() }).await;
    let items: Vec<String> = (0..8000).map(|n| format!("item{n:04}")).collect();
    let orders: Vec<(&str, i64)> = items.iter().map(|item| (item.as_str(), 1)).collect();
    shop.order("ann", &orders).await;
    shop.settled("SELECT COUNT(*) FROM items").await;
    let mut heard = Heard::of(shop.push("SELECT item, total FROM items EMIT CHANGES").await);
    // Every row changes, which with a pinned version would be more than the state's budget.
    shop.order("ann", &orders).await;
    assert_eq!(shop.settled("SELECT SUM(total) FROM items").await, ["16000"]);
    let snapshot = heard.rows(8000).await;
    assert!(snapshot.iter().zip(&items).all(|(row, item)| *row == format!("+I {item}|1")), "{snapshot:?}");
    let mut changes = Vec::new();
    while changes.len() < 16_000 {
        changes.extend(heard.message().await.unwrap());
    }
    assert_eq!(changes[..2], ["-U item0000|1", "+U item0000|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_over_a_view_shows_rows_that_enter_and_leave() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 5)]).await;
    shop.settled("SELECT COUNT(*) FROM totals").await;
    let mut heard = Heard::of(shop.push("SELECT customer, total FROM totals WHERE total BETWEEN 10 AND 20 EMIT CHANGES").await);
    assert!(heard.is_silent().await);
    shop.order("ann", &[("tea", 6)]).await;
    assert_eq!(heard.rows(1).await, ["+I ann|11"]);
    shop.order("ann", &[("tea", 7)]).await;
    assert_eq!(heard.rows(2).await, ["-U ann|11", "+U ann|18"]);
    shop.order("ann", &[("tea", 7)]).await;
    assert_eq!(heard.rows(1).await, ["-D ann|18"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_query_may_fold() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 5)]).await;
    let sql = "SELECT item, SUM(amount) AS total FROM orders GROUP BY item EMIT CHANGES";
    let mut heard = Heard::of(shop.push(sql).await);
    shop.order("ann", &[("tea", 1)]).await;
    assert_eq!(heard.rows(1).await, ["+I tea|1"]);
    shop.order("bob", &[("tea", 2)]).await;
    assert_eq!(heard.rows(2).await, ["-U tea|1", "+U tea|3"]);
    let again = shop.engine.push(foldlog_query::Request { resume: Some(heard.position.into()), ..request(sql) }).await;
    assert!(matches!(again.as_ref().map_err(QueryError::bare), Err(QueryError::Unsupported(_))));
    let mut whole = Heard::of(shop.resume(sql, Position::default()).await);
    let mut last = String::new();
    while last != "+U tea|8" && last != "+I tea|8" {
        last = whole.message().await.unwrap().pop().unwrap_or(last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_says_earliest_begins_with_the_first_record() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 1), ("salt", 2)]).await;
    let mut session = Session::default();
    session.apply(SessionChange::Set { name: "auto.offset.reset".to_owned(), value: "earliest".to_owned() }).unwrap();
    for sql in ["SELECT item FROM orders EMIT CHANGES LIMIT 2", "SELECT item, COUNT(*) AS n FROM orders GROUP BY item EMIT CHANGES LIMIT 2"]
    {
        let answer = shop.engine.push(Request { session: session.clone(), ..request(sql) }).await.unwrap();
        let mut heard = Heard::of(answer);
        let (mut rows, mut messages) = (Vec::new(), 0);
        while rows.len() < 2 && messages < 100 {
            rows.extend(heard.message().await.unwrap());
            messages += 1;
        }
        let items: Vec<&str> = rows.iter().map(|row| row.split('|').next().unwrap_or_default()).collect();
        assert_eq!(items, ["+I tea", "+I salt"], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_an_answer_gives_its_place_back() {
    let shop = Shop::with(QueryConfig { max_push_queries: 2, ..QueryConfig::default() }).await;
    let sql = "SELECT item FROM orders EMIT CHANGES";
    let held = (shop.push(sql).await, shop.push(sql).await);
    assert!(matches!(shop.engine.push(request(sql)).await, Err(QueryError::ResourceExhausted(_))));
    drop(held);
    shop.push(sql).await;
}

#[tokio::test]
async fn others_have_their_turn_while_nothing_passes_a_filter() {
    let shop = Shop::open().await;
    let orders = [("tea", 1); 256];
    for _ in 0..64 {
        shop.order("ann", &orders).await;
    }
    shop.order("ann", &[("gold", 1)]).await;
    // Nothing is decoded for the views any more.
    shop.settled("SELECT COUNT(*) FROM totals, items").await;
    let mut answer = shop.resume("SELECT item, version FROM orders WHERE item = 'gold' EMIT CHANGES", Position::default()).await;
    let (mut turns, mut decoded) = (0, shop.engine.decoded());
    let item = loop {
        let item = futures::poll!(answer.items.next());
        let now = shop.engine.decoded();
        // What it takes, and what workers decode ahead of it.
        assert!(now - decoded <= AHEAD * (PART + 256), "{} records in one turn", now - decoded);
        decoded = now;
        match item {
            Poll::Ready(Some(Ok(PushItem::Progress(_)))) => {}
            Poll::Ready(item) => break item,
            Poll::Pending => tokio::task::yield_now().await,
        }
        turns += 1;
    };
    let Some(Ok(PushItem::Changes { rows, .. })) = item else { panic!("{item:?}") };
    assert_eq!(lines(&rows), [format!("gold|{}", 64 * 256 + 1)]);
    assert!(turns >= 64 * 256 / PART, "{turns}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_begins_now_unless_told() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 1)]).await;
    let mut heard = Heard::of(shop.push("PRINT orders LIMIT 2").await);
    assert!(heard.is_silent().await);
    shop.order("bob", &[("pen", 2), ("ink", 3), ("tea", 4)]).await;
    let rows = heard.rows(2).await;
    assert!(rows[0].ends_with(r#"|bob|1|Ordered|{"item":"pen","amount":2}"#), "{rows:?}");
    assert!(rows[1].ends_with(r#"|bob|2|Ordered|{"item":"ink","amount":3}"#), "{rows:?}");
    assert_eq!(heard.message().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_query_over_a_table_ends_when_another_takes_its_place() {
    let shop = Shop::open().await;
    shop.order("ann", &[("tea", 5)]).await;
    shop.settled("SELECT COUNT(*) FROM items").await;
    let mut items = shop.push("SELECT item, total FROM items EMIT CHANGES").await.items;
    let Some(Ok(PushItem::Changes { .. })) = items.next().await else { panic!("no snapshot") };
    shop.execute("CREATE OR REPLACE TABLE items AS SELECT item, SUM(amount) AS total FROM orders WHERE amount > 1 GROUP BY item").await;
    let end = async {
        loop {
            match items.next().await {
                Some(Ok(_)) => {}
                other => break other.map(|item| item.map(|_| ())),
            }
        }
    };
    let end = tokio::time::timeout(common::PATIENCE, end).await.expect("an end in time");
    assert!(end.is_none_or(|end| end.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_waited_for_a_second_unless_told() {
    let shop = Shop::open().await;
    let soon = Duration::from_millis(900);
    let asked = "ASSERT TOPIC later";
    // A second unless told.
    assert!(tokio::time::timeout(soon, shop.ask(request(asked))).await.is_err());
    let refused = tokio::time::timeout(Duration::from_millis(1_900), shop.refusal(asked)).await;
    assert_eq!(refused.unwrap(), "topic later does not exist");
    let waits = shop.ask(request("ASSERT TOPIC later TIMEOUT 1 MINUTE"));
    let made = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shop.execute("CREATE STREAM s (a INT) WITH (topic = 'later', partitions = 1)").await;
    };
    let (answer, ()) = tokio::join!(waits, made);
    assert_eq!(answer.unwrap().done.as_deref(), Some("topic later exists"));
    let waits = shop.ask(request("ASSERT NOT EXISTS TOPIC later TIMEOUT 60 SECONDS"));
    let dropped = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shop.execute("DROP STREAM s DELETE TOPIC").await;
    };
    let (answer, ()) = tokio::join!(waits, dropped);
    assert_eq!(answer.unwrap().done.as_deref(), Some("topic later does not exist"));
}
