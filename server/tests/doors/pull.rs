//! SQL over gRPC that ends: statements, views that reflect what was appended, typed columns and Arrow.

use foldlog_proto::v1::{self as pb, query_batch::Message};
use foldlog_query::arrow::{array::AsArray as _, datatypes::Int64Type, ipc::reader::StreamReader};
use tonic::Code;

use crate::support::*;

const STREAM: &str =
    "CREATE STREAM payments (account VARCHAR KEY, amount BIGINT, note VARCHAR) WITH (topic = 'bank', value_format = 'json')";
const VIEW: &str = "CREATE TABLE balances AS SELECT account, SUM(amount) AS total, COUNT(*) AS payments FROM payments GROUP BY account";

async fn bank() -> World {
    let mut world = world().await;
    world.topic("bank").await;
    world.sql(STREAM).await.unwrap();
    world.sql(VIEW).await.unwrap();
    world
}

#[tokio::test]
async fn a_view_reflects_the_append_whose_token_is_given() {
    let mut world = bank().await;
    for n in 1..=20_i64 {
        let amount = format!("{{\"amount\": {n}}}");
        let token = world.append("bank", "a", &[&amount]).await.token;
        let request = pb::QueryRequest { at_least: token, ..statement("SELECT total, payments FROM balances WHERE account = 'a'") };
        let answer = world.answer(request).await.unwrap();
        assert_eq!(answer.rows(), [[Cell::Integer(n * (n + 1) / 2), Cell::Integer(n)]]);
    }
    world.stop().await;
}

#[tokio::test]
async fn an_answer_has_its_schema_first_and_its_position_last() {
    let mut world = bank().await;
    let texts = [r#"{"amount": 5, "note": "x"}"#, r#"{"amount": null}"#, r#"{"amount": -7, "note": "\u00e4"}"#];
    let token = world.append("bank", "a", &texts).await.token;
    let request = pb::QueryRequest {
        at_least: token,
        ..statement("SELECT account, amount, note, amount / 2.0E0 AS half FROM payments ORDER BY amount")
    };
    let answer = world.answer(request).await.unwrap();
    let types: Vec<_> = answer.schema.columns.iter().map(|column| (column.name.as_str(), column.r#type())).collect();
    use pb::ColumnType::{Bigint, Double, Varchar};
    assert_eq!(types, [("account", Varchar), ("amount", Bigint), ("note", Varchar), ("half", Double)]);
    let text = |text: &str| Cell::Text(text.to_owned());
    assert_eq!(
        answer.rows(),
        [
            [text("a"), Cell::Integer(-7), text("ä"), Cell::Double(-3.5)],
            [text("a"), Cell::Integer(5), text("x"), Cell::Double(2.5)],
            [text("a"), Cell::Null, Cell::Null, Cell::Null],
        ]
    );
    let head = world.log.get_head(pb::GetHeadRequest::default()).await.unwrap().into_inner();
    assert!(answer.done.position <= head.position && !answer.done.token.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn the_same_answer_travels_as_arrow() {
    let mut world = bank().await;
    let token = world.append("bank", "a", &[r#"{"amount": 5}"#, r#"{"amount": 6}"#]).await.token;
    let sql = "SELECT amount FROM payments ORDER BY amount";
    let request = pb::QueryRequest { at_least: token, encoding: pb::RowEncoding::ArrowIpc.into(), ..statement(sql) };
    let answer = world.answer(request).await.unwrap();
    let mut bytes = answer.schema.arrow_ipc.to_vec();
    answer.batches.iter().for_each(|rows| bytes.extend_from_slice(&rows.arrow_ipc));
    let mut amounts = Vec::new();
    for batch in StreamReader::try_new(&*bytes, None).unwrap() {
        amounts.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec());
    }
    assert_eq!(amounts, [5, 6]);
    world.stop().await;
}

#[tokio::test]
async fn wrong_statements_are_told_where_and_why() {
    let mut world = bank().await;
    let mut refused = async |sql: &str| {
        let status = world.answer(statement(sql)).await.unwrap_err();
        (status.code(), reason(&status), status.message().to_owned())
    };
    let (code, why, message) = refused("SELECT *\nFRM payments").await;
    assert_eq!((code, why.as_str()), (Code::InvalidArgument, "SQL_SYNTAX"));
    assert!(message.contains("line 2"), "{message}");
    let (code, _, message) = refused("SELECT * FROM balanses").await;
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("balances"), "{message}");
    assert_eq!(refused("SELECT 1; SELECT 2").await.0, Code::InvalidArgument);
    assert_eq!(refused("").await.0, Code::InvalidArgument);
    assert_eq!(refused(STREAM).await.0, Code::AlreadyExists);
    assert_eq!(refused("DROP STREAM payments").await.0, Code::FailedPrecondition);
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(refused(&deep).await.0, Code::InvalidArgument);
    let unknown = pb::QueryRequest { encoding: 99, ..statement("SELECT 1") };
    assert_eq!(world.answer(unknown).await.unwrap_err().code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test]
async fn views_and_their_progress_survive_a_restart() {
    let mut world = bank().await;
    for n in 0..100 {
        world.append("bank", &format!("s{}", n % 3), &[r#"{"amount": 1}"#]).await;
    }
    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let token = world.append("bank", "s0", &[r#"{"amount": 1}"#]).await.token;
    let request = pb::QueryRequest { at_least: token, ..statement("SELECT SUM(total), SUM(payments) FROM balances") };
    let rows = eventually(&mut world, request).await;
    assert_eq!(rows, [[Cell::Integer(101), Cell::Integer(101)]]);
    world.stop().await;
}

/// A view that is being folded again answers UNAVAILABLE with a hint when to retry.
async fn eventually(world: &mut World, request: pb::QueryRequest) -> Vec<Vec<Cell>> {
    let mut tries = 0;
    loop {
        match world.answer(request.clone()).await {
            Ok(answer) => return answer.rows(),
            Err(status) => assert!(status.code() == Code::Unavailable && tries < 1_000, "{status:?}"),
        }
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_message_sequence_is_schema_rows_done() {
    let mut world = bank().await;
    let mut messages = world.query.execute(statement("SELECT 1 AS one")).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(message) = messages.message().await.unwrap() {
        kinds.push(match message.message.unwrap() {
            Message::Schema(_) => "schema",
            Message::Rows(_) => "rows",
            Message::Done(_) => "done",
            Message::Progress(_) => "progress",
        });
    }
    assert_eq!(kinds, ["schema", "rows", "done"]);
    world.stop().await;
}
