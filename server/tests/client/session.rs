//! Programs that append over sessions: in order, once in effect, over connections that break and servers that are killed.

use std::time::Duration;

use foldlog_sdk::{AppendSession, Client, Error, Expected, NewEvent, Source, Ticket, TopicKind, UnitAppended};
use tokio::time::timeout;

use crate::{proxy::Proxy, support::Server};

/// Longer than anything takes here; a story that hits it has failed.
const LONG: Duration = Duration::from_secs(60);

async fn connect(server: &Server) -> Client {
    let client = Client::connect(&server.url).await.unwrap();
    client.create_topic("t", TopicKind::Events, Some(2)).await.unwrap();
    client
}

/// Sends unit after unit, each a number that its stream must stand at, so that a second effect would be refused.
async fn send(session: &mut AppendSession, client: &Client, numbers: std::ops::Range<u64>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in numbers {
        let event = NewEvent::json("Counted", &number).unwrap();
        let expected = Expected::seen((number > 0).then_some(number));
        tickets.push(session.send(client.append("t").expect("s", expected).event("s", event)).await.unwrap());
    }
    tickets
}

async fn answers(tickets: Vec<Ticket>) -> Vec<UnitAppended> {
    let mut answers = Vec::new();
    for ticket in tickets {
        let sequence = ticket.sequence();
        let answer = timeout(LONG, ticket).await.unwrap().unwrap();
        assert_eq!(answer.sequence, sequence);
        answers.push(answer);
    }
    assert!(answers.is_sorted_by_key(|answer| answer.first_position));
    answers
}

async fn numbers(client: &Client) -> Vec<u64> {
    let events = client.read(Source::stream("t", "s")).start().await.unwrap().collect().await.unwrap();
    events.iter().map(|event| serde_json::from_slice(event.data.as_ref().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn units_are_sent_without_waiting_and_a_refused_one_holds_up_none() {
    let server = Server::start();
    let client = connect(&server).await;
    let mut session = client.append_session().await.unwrap();
    assert_eq!(session.next_sequence(), 1);
    let before = send(&mut session, &client, 0..500).await;
    let stale = client.append("t").expect("s", Expected::Version(7)).event("s", NewEvent::json("Counted", &7).unwrap());
    let refused = session.send(stale).await.unwrap();
    let behind = send(&mut session, &client, 500..1000).await;
    answers(before).await;
    match timeout(LONG, refused).await.unwrap() {
        Err(Error::Conflict { violations, .. }) => assert_eq!((violations[0].topic.as_str(), violations[0].actual), ("t", Some(500))),
        other => panic!("it was stale: {other:?}"),
    }
    let last = answers(behind).await.pop().unwrap();
    session.close().await.unwrap();
    assert!(!last.deduplicated);
    let read = client.read(Source::stream("t", "s")).at_least(last.token, None).start().await.unwrap().collect().await.unwrap();
    assert_eq!(read.len(), 1000);
    assert_eq!(numbers(&client).await, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_not_answered_when_the_connection_breaks_is_sent_again_and_takes_effect_once() {
    let server = Server::start();
    let direct = connect(&server).await;
    let proxy = Proxy::to(&server.url).await;
    let client = Client::connect(&proxy.url).await.unwrap();
    let mut session = client.append_session().await.unwrap();
    answers(send(&mut session, &client, 0..10).await).await;
    let mut seen = direct.subscribe(Source::topic("t")).start().await.unwrap();
    proxy.hold_answers();
    let tickets = send(&mut session, &client, 10..200).await;
    for _ in 0..150 {
        timeout(LONG, seen.next_event()).await.unwrap().unwrap();
    }
    // They took effect, and their answers are lost.
    proxy.cut();
    let again = answers(tickets).await;
    assert!(again.iter().filter(|answer| answer.deduplicated).count() >= 140);
    session.close().await.unwrap();
    assert_eq!(numbers(&direct).await, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_session_goes_on_when_its_server_is_killed_and_started_again() {
    let mut server = Server::start();
    connect(&server).await;
    let proxy = Proxy::to(&server.url).await;
    let client = Client::connect(&proxy.url).await.unwrap();
    let mut session = client.append_session().await.unwrap();
    let mut tickets = Vec::new();
    for round in 0..3 {
        tickets.extend(send(&mut session, &client, round * 300..(round + 1) * 300).await);
        server = server.killed_and_started();
        proxy.lead_to(&server.url);
        proxy.cut();
    }
    let answers = answers(tickets).await;
    session.close().await.unwrap();
    assert_eq!(answers.len(), 900);
    assert_eq!(numbers(&client).await, (0..900).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_later_session_of_a_producer_goes_on_behind_the_earlier_and_ends_it() {
    let server = Server::start();
    let client = connect(&server).await;
    let mut earlier = client.append_session_of([7; 16]).await.unwrap();
    answers(send(&mut earlier, &client, 0..5).await).await;
    let mut later = client.append_session_of([7; 16]).await.unwrap();
    assert_eq!((later.next_sequence(), later.producer()), (6, [7; 16]));
    let ticket = send(&mut earlier, &client, 5..6).await.pop().unwrap();
    match timeout(LONG, ticket).await.unwrap() {
        Err(error @ Error::SessionEnded { sequence: 6, .. }) => assert_eq!(error.reason(), Some("PRODUCER_FENCED")),
        other => panic!("a later one goes on: {other:?}"),
    }
    let refused = earlier.send(client.append("t").event("s", NewEvent::json("Counted", &5).unwrap())).await;
    assert!(matches!(refused, Err(Error::SessionEnded { .. })));
    assert!(matches!(earlier.close().await, Err(Error::SessionEnded { .. })));
    answers(send(&mut later, &client, 5..8).await).await;
    later.close().await.unwrap();
    assert_eq!(numbers(&client).await, (0..8).collect::<Vec<_>>());
}
