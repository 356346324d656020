//! Consumer groups for programs and on the command line: a natural loop, a killed server, the operator's verbs.

use std::{collections::BTreeSet, time::Duration};

use foldlog_sdk::{
    Client, Consumer, Delivered, EventQuery, GroupChanges, GroupPlace, GroupSettings, Nack, NewEvent, ParkedState, TopicKind,
};
use serde_json::json;
use tokio::time::timeout;

use crate::support::Server;

const LONG: Duration = Duration::from_secs(30);

async fn connect(server: &Server, events: u64) -> Client {
    let client = Client::connect(&server.url).await.unwrap();
    client.create_topic("t", TopicKind::Events, Some(2)).await.unwrap();
    for n in 0..events {
        client.append("t").event(format!("s{}", n % 3), NewEvent::json("Counted", &n).unwrap()).send().await.unwrap();
    }
    client
}

async fn next(consumer: &mut Consumer) -> Delivered {
    timeout(LONG, consumer.next()).await.unwrap().unwrap()
}

fn number(delivered: &Delivered) -> u64 {
    serde_json::from_slice(delivered.event.data.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn a_loop_takes_every_event_once_with_less_credit_than_there_are_events() {
    let server = Server::start();
    let client = connect(&server, 50).await;
    client.create_group("g", "t", GroupSettings::default(), GroupPlace::Beginning).await.unwrap();
    let mut consumer = client.consume("g").named("worker").credit(4, 600).start().await.unwrap();
    let mut seen = BTreeSet::new();
    for round in 0..50 {
        let delivered = next(&mut consumer).await;
        assert!(seen.insert(number(&delivered)));
        if round % 2 == 0 {
            consumer.ack(&delivered).await.unwrap();
        } else {
            let settler = consumer.settler();
            tokio::task::JoinSet::from_iter([async move { settler.ack_up_to(&delivered).await.unwrap() }]).join_all().await;
        }
    }
    assert_eq!(consumer.flush().await.unwrap(), []);
    assert_eq!((seen, consumer.partitions()), ((0..50).collect(), &[0, 1][..]));
    let status = client.group("g").await.unwrap();
    assert_eq!((status.lag, status.in_flight, status.members[0].consumer.as_str()), (0, 0, "worker"));
    consumer.close().await.unwrap();
    assert_eq!(client.group("g").await.unwrap().member_count, 0);
}

#[tokio::test]
async fn a_member_gets_what_the_filter_of_its_group_means() {
    let server = Server::start();
    let client = connect(&server, 3).await;
    for n in [10, 11] {
        let tagged = NewEvent::json("Counted", &n).unwrap().tagged(["even"]);
        client.append("t").event("s", if n == 10 { tagged } else { NewEvent::json("Counted", &n).unwrap() }).send().await.unwrap();
    }
    let filter = Some(EventQuery::of(["Counted"], ["even"]));
    client.create_group("g", "t", GroupSettings { filter: filter.clone(), ..Default::default() }, GroupPlace::Beginning).await.unwrap();
    let status = client.group("g").await.unwrap();
    assert_eq!((status.lag, status.group.settings.filter), (1, filter));
    let mut consumer = client.consume("g").start().await.unwrap();
    let delivered = next(&mut consumer).await;
    assert_eq!(number(&delivered), 10);
    consumer.ack(&delivered).await.unwrap();
    consumer.close().await.unwrap();
    let changes = GroupChanges { filter: Some(EventQuery::all()), max_attempts: Some(3), ..GroupChanges::default() };
    let altered = client.alter_group("g", changes).await.unwrap();
    assert_eq!((altered.lag, altered.group.settings.filter, altered.group.settings.max_attempts), (0, None, Some(3)));
}

#[tokio::test]
async fn delivery_counts_and_acknowledgements_survive_a_killed_server() {
    let mut server = Server::start();
    let mut client = connect(&server, 3).await;
    client
        .create_group("g", "t", GroupSettings { max_attempts: Some(4), ..GroupSettings::default() }, GroupPlace::Beginning)
        .await
        .unwrap();
    let mut done = None;
    for attempt in 1..=4 {
        let mut consumer = client.consume("g").start().await.unwrap();
        let count = if attempt == 1 { 3 } else { 2 };
        let mut came = Vec::new();
        while came.len() < count {
            came.push(next(&mut consumer).await);
        }
        assert!(came.iter().all(|delivered| delivered.attempt == attempt), "the counts outlive the process: {came:?}");
        assert!(came.iter().all(|delivered| Some(number(delivered)) != done), "what was acknowledged does not come again");
        if attempt == 1 {
            done = Some(number(&came[0]));
            consumer.ack(&came[0]).await.unwrap();
            assert_eq!(consumer.flush().await.unwrap(), []);
        }
        if attempt == 4 {
            // The last attempt: the server counts it, whatever becomes of the member.
            for delivered in &came {
                consumer.nack(delivered, Nack::Retry(None), "still broken").await.unwrap();
            }
            consumer.flush().await.unwrap();
        }
        server = server.killed_and_started();
        client = Client::connect(&server.url).await.unwrap();
    }
    let parked = client.list_parked("g", None).await.unwrap();
    assert_eq!(parked.len(), 2);
    assert!(parked.iter().all(|one| (one.attempts, one.state, one.reason.as_str()) == (4, ParkedState::Parked, "still broken")));
    assert_eq!(client.group("g").await.unwrap().lag, 0);
}

#[test]
fn groups_are_managed_on_the_command_line() {
    let server = Server::start();
    server.rows(&["topic", "create", "t", "--partitions", "1"]);
    server.rows_with(&["append", "t", "--stream", "s", "--type", "Said"], "{\"data\":\"a\"}\n{\"data\":\"b\"}\n");
    let created = server.rows(&["group", "create", "mail", "t", "--ack-timeout", "5m", "--ordering", "none", "--from", "1"]);
    assert_eq!((&created[0]["name"], &created[0]["lag"], &created[0]["members"]), (&json!("mail"), &json!(1), &json!(0)));
    assert_eq!(server.rows(&["group", "list"])[0]["topic"], "t");
    let moved = server.rows(&["group", "reset", "mail", "--to", "beginning"]);
    assert_eq!(moved[0]["lag"], 2);
    let shown = &server.rows(&["group", "show", "mail"])[0];
    assert_eq!((&shown["ack_timeout_ms"], &shown["ordering"], &shown["on_exhausted"]), (&json!(300_000), &json!("none"), &json!("park")));
    assert_eq!(shown["partitions"], json!([{ "partition": 0, "offset": 0, "end": 2, "lag": 2, "error": null, "lost": null }]));

    let altered = &server.rows(&["group", "alter", "mail", "--ack-timeout", "10m", "--type", "Said", "--tag", "x"])[0];
    assert_eq!((&altered["ack_timeout_ms"], &altered["ordering"], &altered["lag"]), (&json!(600_000), &json!("none"), &json!(0)));
    assert_eq!(altered["filter"], json!([{ "types": ["Said"], "tags": ["x"] }]));
    assert_eq!(server.rows(&["group", "alter", "mail", "--no-filter"])[0]["filter"], json!(null));
    assert_eq!(server.run(&["group", "alter", "mail"]).code, Some(2), "something must be named");
    server.rows(&["group", "reset", "mail", "--to", "beginning"]);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut consumer = Client::connect(&server.url).await.unwrap().consume("mail").start().await.unwrap();
        for _ in 0..2 {
            let delivered = next(&mut consumer).await;
            consumer.nack(&delivered, Nack::Park, "no address").await.unwrap();
        }
        let busy = server.run(&["group", "delete", "mail"]);
        assert!(busy.code == Some(1) && busy.notes.contains("has members (1)"), "{}", busy.notes);
        consumer.close().await.unwrap();
    });
    let parked = server.rows(&["group", "parked", "list", "mail"]);
    assert_eq!((parked.len(), &parked[0]["reason"], &parked[0]["data"]), (2, &json!("no address"), &json!("a")));
    assert_eq!(server.rows(&["group", "parked", "list", "mail", "--limit", "1"]).len(), 1);
    let replayed = server.run(&["group", "parked", "replay", "mail", "--at", "0:0"]);
    assert!(replayed.code == Some(0) && replayed.notes.starts_with("1 events"), "{}", replayed.notes);
    let discarded = server.run(&["group", "parked", "discard", "mail", "--all"]);
    assert!(discarded.notes.starts_with("2 parked"), "{}", discarded.notes);
    assert_eq!(server.rows(&["group", "parked", "list", "mail"]), Vec::<serde_json::Value>::new());
    assert_eq!(server.run(&["group", "parked", "discard", "mail"]).code, Some(2), "all must be said");
    assert_eq!(server.run(&["group", "delete", "mail"]).code, Some(0));
    let gone = server.run(&["group", "show", "mail"]);
    assert!(gone.code == Some(1) && gone.notes.contains("foldlog group create mail"), "{}", gone.notes);
}
