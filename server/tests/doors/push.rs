//! SQL over gRPC that does not end: changes as they happen, resumed without loss, ended well.

use foldlog_proto::v1::{self as pb, query_batch::Message};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::support::*;

const STREAM: &str = "CREATE STREAM payments (account VARCHAR KEY, amount BIGINT) WITH (topic = 'bank', value_format = 'json')";
const VIEW: &str = "CREATE TABLE balances AS SELECT account, SUM(amount) AS total FROM payments GROUP BY account";

async fn bank() -> World {
    let mut world = world().await;
    world.topic("bank").await;
    world.sql(STREAM).await.unwrap();
    world
}

async fn next(messages: &mut Streaming<pb::QueryBatch>) -> Message {
    timeout(LONG, messages.message()).await.unwrap().unwrap().unwrap().message.unwrap()
}

async fn pay(world: &mut World, account: &str, amount: i64) -> pb::AppendResponse {
    world.append("bank", account, &[&format!("{{\"amount\": {amount}}}")]).await
}

#[tokio::test]
async fn rows_of_a_stream_come_as_they_are_appended_and_resume_without_loss() {
    const ROWS: i64 = 300;
    let mut world = bank().await;
    let mut request = statement("SELECT account, amount FROM payments EMIT CHANGES");
    let mut messages = world.query.push(request.clone()).await.unwrap().into_inner();
    assert!(matches!(next(&mut messages).await, Message::Schema(_)));
    let mut seen = Vec::new();
    let mut paid = 0;
    while (seen.len() as i64) < ROWS {
        let until = (seen.len() as i64 + 50).min(ROWS);
        while paid < until {
            pay(&mut world, "a", paid).await;
            paid += 1;
        }
        while (seen.len() as i64) < until {
            match next(&mut messages).await {
                Message::Rows(rows) => {
                    assert!(rows.marks.iter().all(|mark| i32::from(*mark) == pb::ChangeMark::Insert as i32));
                    seen.extend(cells(&rows).into_iter().map(|row| row[1].clone()));
                    request.resume = if rows.resume.is_empty() { request.resume } else { rows.resume };
                }
                Message::Progress(progress) => request.resume = progress.resume,
                other => panic!("{other:?}"),
            }
        }
        // Leave, miss some, come back.
        messages = world.query.push(request.clone()).await.unwrap().into_inner();
        assert!(matches!(next(&mut messages).await, Message::Schema(_)));
    }
    assert_eq!(seen, (0..ROWS).map(Cell::Integer).collect::<Vec<_>>());
    drop(messages);
    world.stop().await;
}

#[tokio::test]
async fn a_view_is_followed_from_its_snapshot_on() {
    let mut world = bank().await;
    world.sql(VIEW).await.unwrap();
    let token = pay(&mut world, "a", 1).await.token;
    let request = pb::QueryRequest { at_least: token, ..statement("SELECT account, total FROM balances EMIT CHANGES") };
    let mut messages = world.query.push(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut messages).await, Message::Schema(_)));
    for amount in 2..=10 {
        pay(&mut world, "a", amount).await;
    }
    let last = loop {
        if let Message::Rows(rows) = next(&mut messages).await {
            assert_eq!(rows.marks.len(), rows.count as usize);
            let all = cells(&rows);
            if let Some(row) = all.iter().find(|row| row[1] == Cell::Integer(55)) {
                break row.clone();
            }
        }
    };
    assert_eq!(last[0], Cell::Text("a".into()));
    drop(messages);
    world.stop().await;
}

#[tokio::test]
async fn a_limit_ends_the_query_well() {
    let mut world = bank().await;
    let mut messages = world.query.push(statement("SELECT amount FROM payments EMIT CHANGES LIMIT 2")).await.unwrap().into_inner();
    assert!(matches!(next(&mut messages).await, Message::Schema(_)));
    for amount in 0..4 {
        pay(&mut world, "a", amount).await;
    }
    let (mut rows, mut done) = (0, false);
    while let Some(message) = timeout(LONG, messages.message()).await.unwrap().unwrap() {
        match message.message.unwrap() {
            Message::Rows(batch) => rows += batch.count,
            Message::Done(_) => done = true,
            Message::Schema(_) | Message::Progress(_) => {}
        }
    }
    assert_eq!((rows, done), (2, true));
    world.stop().await;
}

#[tokio::test]
async fn a_push_query_ends_with_its_position_when_the_server_drains() {
    let mut world = bank().await;
    let mut messages = world.query.push(statement("SELECT amount FROM payments EMIT CHANGES")).await.unwrap().into_inner();
    assert!(matches!(next(&mut messages).await, Message::Schema(_)));
    pay(&mut world, "a", 1).await;
    while !matches!(next(&mut messages).await, Message::Rows(_)) {}
    let ending = async {
        loop {
            match timeout(LONG, messages.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it does not end well"),
                Err(status) => break status,
            }
        }
    };
    let (_, status) = tokio::join!(world.stop(), ending);
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(info(&status).metadata.contains_key("position"));
}

#[tokio::test]
async fn a_statement_that_ends_is_not_pushed_and_the_other_way_round() {
    let mut world = bank().await;
    assert_eq!(world.query.push(statement("SELECT 1")).await.unwrap_err().code(), Code::InvalidArgument);
    let status = world.answer(statement("SELECT amount FROM payments EMIT CHANGES")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    world.stop().await;
}
