//! Programs that use the SDK: appends once in effect, deciders that race, subscriptions over a connection that breaks.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use foldlog_sdk::{
    Append, Appended, Beginning, Class, Client, Decider, Delivery, Durability, Error, EventQuery, ExecuteError, Expected, Mark, NewEvent,
    NewRecord, Pushed, Row, Snapshot, Source, StreamChange, Subscription, Token, TopicKind, TopicSettings,
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};

use crate::{proxy::Proxy, support::Server};

/// Longer than anything takes here; a story that hits it has failed.
const LONG: Duration = Duration::from_secs(30);

async fn connect(server: &Server, topic: &str) -> Client {
    let client = Client::connect(&server.url).await.unwrap();
    client.create_topic(topic, TopicKind::Events, Some(2)).await.unwrap();
    client
}

fn number(n: u64) -> NewEvent {
    NewEvent::json("Counted", &n).unwrap()
}

async fn numbers(client: &Client, topic: &str) -> Vec<u64> {
    let events = client.read(Source::topic(topic)).start().await.unwrap().collect().await.unwrap();
    events.iter().map(|event| serde_json::from_slice(event.data.as_ref().unwrap()).unwrap()).collect()
}

async fn next_number(subscription: &mut Subscription) -> u64 {
    let event = timeout(LONG, subscription.next_event()).await.unwrap().unwrap();
    serde_json::from_slice(&event.data.unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_appended_is_read_as_it_was() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let event = NewEvent {
        content_type: "application/json".into(),
        event_id: Some([3; 16]),
        schema: "counted".into(),
        attributes: BTreeMap::from([("source".into(), "test".into())]),
        correlation_id: b"cause".as_slice().into(),
        ..number(1).at(-5).tagged(["owner:7", "ü"])
    };
    let appended = client.append("t").events("s", [event.clone(), number(2)]).send().await.unwrap();
    assert_eq!((appended.versions[0].version, appended.last_position - appended.first_position), (2, 1));
    let read = client.read(Source::stream("t", "s")).at_least(appended.token, None).start().await.unwrap().collect().await.unwrap();
    let first = &read[0];
    assert_eq!((first.topic.as_str(), first.stream.as_deref(), first.version, first.time_ms), ("t", Some("s"), 1, -5));
    assert_eq!((&first.kind, first.data.as_ref(), first.event_id), (&event.kind, Some(&event.data), event.event_id));
    assert_eq!((&first.schema, &first.attributes, &first.correlation_id), (&event.schema, &event.attributes, &event.correlation_id));
    assert_eq!((&first.tags, &read[1].tags), (&event.tags, &Vec::new()));
    assert_eq!(read[1].time_ms, read[1].recorded_at_ms);
    let newest = client.read(Source::stream("t", "s")).backwards().limit(1).start().await.unwrap().collect().await.unwrap();
    assert_eq!(newest, read[1..]);
    let from = client.read(Source::topic("t")).from_time(first.recorded_at_ms).start().await.unwrap().collect().await.unwrap();
    assert_eq!(from, read);
    let mut subscription = client.subscribe(Source::topic("t")).from_time(first.recorded_at_ms).start().await.unwrap();
    assert_eq!(timeout(LONG, subscription.next_event()).await.unwrap().unwrap(), read[0]);
    let info = client.get_stream("t", "s", None).await.unwrap();
    assert_eq!((info.version, info.partition), (Some(2), first.partition));
    assert_eq!(client.get_stream("t", "none", None).await.unwrap().version, None);
}

#[tokio::test]
async fn one_append_spans_topics_and_kinds() {
    let server = Server::start();
    let client = connect(&server, "a").await;
    connect(&server, "b").await;
    client.create_topic("names", TopicKind::Table, Some(1)).await.unwrap();
    let record = NewRecord { key: Some("k".into()), value: Some("v".into()), ..NewRecord::default() };
    let append = client.append("a").event("s", number(1)).events_in("b", "s", [number(2)]).record_in("names", record);
    assert_eq!(append.len(), 3);
    let appended = append.send().await.unwrap();
    assert_eq!(appended.ranges.iter().map(|range| range.topic.as_str()).collect::<Vec<_>>(), ["a", "b", "names"]);
    let all = client.read(Source::all()).start().await.unwrap().collect().await.unwrap();
    assert_eq!(all.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>(), ["a", "b", "names"]);
    assert_eq!((all[2].key.as_deref(), all[2].data.as_deref(), &all[2].stream), (Some(&b"k"[..]), Some(&b"v"[..]), &None));
}

#[tokio::test]
async fn a_conflict_names_every_belief_that_does_not_hold() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    connect(&server, "other").await;
    client.append("t").event("s", number(1)).send().await.unwrap();
    let append = client.append("t").event("s", number(2)).expect("s", Expected::Version(1));
    let append = append.expect("s", Expected::Absent).expect_in("other", "x", Expected::Exists);
    let error = append.send().await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (Class::Failed, Some("STREAM_VERSION_CONFLICT")));
    let Error::Conflict { violations, token, .. } = error else { panic!("a conflict") };
    let told: Vec<_> = violations.iter().map(|v| (v.index, v.topic.as_str(), v.stream.as_str(), v.expected, v.actual)).collect();
    assert_eq!(told, [(1, "t", "s", Expected::Absent, Some(1)), (2, "other", "x", Expected::Exists, None)]);
    assert!(token.is_some());
    assert_eq!(numbers(&client, "t").await, [1]);
}

#[tokio::test]
async fn a_topic_or_an_append_asks_for_its_durability_and_the_answer_names_it() {
    let server = Server::start();
    let client = connect(&server, "strong").await;
    let settings = TopicSettings { durability: Some(Durability::Written), ..TopicSettings::default() };
    assert_eq!(client.create_topic_with("weak", settings).await.unwrap().durability, Durability::Written);
    assert_eq!(client.describe_topic("strong").await.unwrap().topic.durability, Durability::Synced);
    let weak = client.append("weak").event("s", number(1)).send().await.unwrap();
    assert_eq!(weak.durability, Durability::Written);
    let read = client.read(Source::topic("weak")).at_least(weak.token, None).start().await.unwrap().collect().await.unwrap();
    assert_eq!(read.len(), 1, "the token waits for the sync");
    let asked = client.append("strong").event("s", number(1)).durability(Durability::Written).send().await.unwrap();
    assert_eq!(asked.durability, Durability::Written);
    let mixed = client.append("weak").event("s", number(2)).events_in("strong", "s", [number(2)]).send().await.unwrap();
    assert_eq!(mixed.durability, Durability::Synced);
}

#[tokio::test]
async fn the_same_request_id_takes_effect_once() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let append = |n| client.append("t").request_id([9; 16]).event("s", number(n)).send();
    let first = append(1).await.unwrap();
    let again = append(1).await.unwrap();
    assert_eq!((first.deduplicated, again.deduplicated, again.first_position), (false, true, first.first_position));
    let error = append(2).await.unwrap_err();
    assert_eq!((error.reason(), error.class()), (Some("REQUEST_ID_REUSED"), Class::Failed));
    assert_eq!(numbers(&client, "t").await, [1]);
}

/// Appends an event over a connection that is cut when the append has taken effect and its answer is on the way. Returns what the sender
/// is told, and what stands in the log.
async fn when_its_answer_is_lost(append: impl FnOnce(Append) -> Append) -> (Result<Appended, Error>, Vec<u64>) {
    let server = Server::start();
    let direct = connect(&server, "t").await;
    let proxy = Proxy::to(&server.url).await;
    let client = Client::connect(&proxy.url).await.unwrap();
    client.head(None).await.unwrap();
    let mut seen = direct.subscribe(Source::topic("t")).start().await.unwrap();

    proxy.hold_answers();
    let mut appending = JoinSet::new();
    appending.spawn(append(client.append("t").event("s", number(1))).send());
    assert_eq!(next_number(&mut seen).await, 1, "the append took effect");
    proxy.cut();
    let answer = timeout(LONG, appending.join_next()).await.unwrap().unwrap().unwrap();
    (answer, numbers(&direct, "t").await)
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_repeated_and_takes_effect_once() {
    let (answer, numbers) = when_its_answer_is_lost(|append| append).await;
    assert!(answer.unwrap().deduplicated);
    assert_eq!(numbers, [1]);
}

#[tokio::test]
async fn an_append_without_an_id_is_not_repeated_when_its_answer_is_lost() {
    let (answer, numbers) = when_its_answer_is_lost(Append::without_request_id).await;
    assert_eq!(answer.unwrap_err().class(), Class::Unknown);
    assert_eq!(numbers, [1]);
}

#[tokio::test]
async fn a_subscription_goes_on_behind_its_last_event_when_the_connection_breaks() {
    let server = Server::start();
    let direct = connect(&server, "t").await;
    let proxy = Proxy::to(&server.url).await;
    let client = Client::connect(&proxy.url).await.unwrap();
    let partition = direct.append("t").events("s", (0..5).map(number)).send().await.unwrap().ranges[0].partition;
    let sources = [Source::topic("t"), Source::stream("t", "s"), Source::partition("t", partition), Source::all()];
    for source in sources {
        let before = numbers(&direct, "t").await.len() as u64;
        let mut subscription = client.subscribe(source.clone()).start().await.unwrap();
        for n in 0..before {
            assert_eq!(next_number(&mut subscription).await, n, "{source:?}");
            if n == 2 {
                proxy.cut();
            }
        }
        proxy.cut();
        direct.append("t").events("s", (before..before + 3).map(number)).send().await.unwrap();
        for n in before..before + 3 {
            assert_eq!(next_number(&mut subscription).await, n, "{source:?}");
        }
    }
}

#[tokio::test]
async fn a_subscription_from_now_says_when_it_is_live() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    client.append("t").event("s", number(1)).send().await.unwrap();
    let mut subscription = client.subscribe(Source::topic("t")).from_now().start().await.unwrap();
    assert_eq!(timeout(LONG, subscription.next()).await.unwrap().unwrap(), Delivery::CaughtUp(client.head(None).await.unwrap().position));
    client.append("t").event("s", number(2)).send().await.unwrap();
    assert_eq!(next_number(&mut subscription).await, 2);
    let token = subscription.token().unwrap().clone();
    client.append("t").event("s", number(3)).send().await.unwrap();
    let mut resumed = client.subscribe(Source::topic("t")).after(token).start().await.unwrap();
    assert_eq!(next_number(&mut resumed).await, 3);
}

#[tokio::test]
async fn errors_are_told_by_name_and_class() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let error = client.append("nowhere").event("s", number(1)).send().await.unwrap_err();
    assert_eq!((error.reason(), error.class()), (Some("TOPIC_NOT_FOUND"), Class::Failed));
    let error = client.append("t").send().await.unwrap_err();
    assert_eq!((error.reason(), error.class()), (Some("EMPTY_EVENTS"), Class::Failed));
    let error = client.query("SELEC 1").execute().await.unwrap_err();
    let Error::Server(told) = &error else { panic!("{error}") };
    assert_eq!((told.reason.as_str(), told.field.as_deref()), ("SQL_SYNTAX", Some("sql:1:1")));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Sold {
    Ticket { seat: u32 },
}

/// Says that a decision is made, and waits until the other end is used or gone.
#[derive(Debug)]
struct Pause {
    decided: tokio::sync::oneshot::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

/// Asks for a ticket; the first decision can be stopped until a test lets it go on.
#[derive(Debug, Default)]
struct Buy {
    pause: Mutex<Option<Pause>>,
}

/// A flight with so many seats; none is sold twice.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Flight {
    sold: u32,
}

const SEATS: u32 = 12;

impl Decider for Flight {
    type Command = Buy;
    type Event = Sold;
    type Refusal = &'static str;

    fn evolve(&mut self, Sold::Ticket { .. }: &Sold) {
        self.sold += 1;
    }

    fn decide(&self, command: &Buy) -> Result<Vec<Sold>, &'static str> {
        if let Some(pause) = command.pause.lock().unwrap().take() {
            pause.decided.send(()).unwrap();
            tokio::task::block_in_place(|| pause.go_on.recv()).unwrap();
        }
        if self.sold == SEATS { Err("sold out") } else { Ok(vec![Sold::Ticket { seat: self.sold + 1 }]) }
    }
}

#[tokio::test]
async fn deciders_that_race_sell_each_seat_once() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let flights = client.aggregates::<Flight>("t");
    let mut buyers = JoinSet::new();
    for _ in 0..4 {
        let flights = flights.clone();
        buyers.spawn(async move {
            let (mut bought, mut decisions) = (0, 0);
            loop {
                match flights.execute("UA1", &Buy::default()).await {
                    Ok(done) => {
                        bought += 1;
                        decisions += done.decisions;
                    }
                    Err(ExecuteError::Log(Error::Conflict { .. })) => {}
                    Err(ExecuteError::Refused(_)) => return (bought, decisions),
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    let (mut bought, mut decisions) = (0, 0);
    while let Some(buyer) = timeout(LONG, buyers.join_next()).await.unwrap() {
        let (seats, tries) = buyer.unwrap();
        bought += seats;
        decisions += tries;
    }
    assert_eq!(bought, SEATS);
    assert!(decisions >= SEATS);
    let events = client.read(Source::stream("t", "UA1")).start().await.unwrap().collect().await.unwrap();
    let seats: Vec<Sold> = events.iter().map(|event| event.decode().unwrap()).collect();
    assert_eq!(seats, (1..=SEATS).map(|seat| Sold::Ticket { seat }).collect::<Vec<_>>());
    assert_eq!(flights.load("UA1").await.unwrap().version, Some(u64::from(SEATS)));
}

#[tokio::test]
async fn a_decider_goes_on_from_where_its_stream_began_anew() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let flights = client.aggregates::<Flight>("t");
    for _ in 0..3 {
        flights.execute("UA1", &Buy::default()).await.unwrap();
    }
    let delete = |version| client.append("t").expect("UA1", Expected::Version(version)).change("UA1", StreamChange::Delete);
    let deleted = delete(3).send().await.unwrap();
    assert_eq!((deleted.ranges.len(), deleted.versions[0].version), (1, 3));
    assert!(delete(3).send().await.unwrap().ranges.is_empty(), "it is so already");
    let loaded = flights.load("UA1").await.unwrap();
    assert_eq!((loaded.state.sold, loaded.version), (0, None));
    let done = flights.execute("UA1", &Buy::default()).await.unwrap();
    assert_eq!((done.after.state.sold, done.after.version, done.decisions), (1, Some(4), 1), "versions go on, the state begins anew");
    let done = flights.execute("UA1", &Buy::default()).await.unwrap();
    assert_eq!((done.after.state.sold, done.after.version), (2, Some(5)));
    let mut reading = client.read(Source::stream("t", "UA1")).start().await.unwrap();
    assert_eq!(reading.next().await.unwrap().unwrap().version, 4);
    assert_eq!(reading.beginning(), Some(Beginning { first_version: 4, anew_version: 4, retained_version: 1 }));

    // What is left of a truncated stream is not folded as if it were all.
    client.append("t").change("UA1", StreamChange::TruncateBefore(5)).send().await.unwrap();
    for error in [flights.load("UA1").await.unwrap_err(), flights.execute("UA1", &Buy::default()).await.map(drop).unwrap_err().into_log()] {
        assert_eq!(error.class(), Class::Failed);
        assert!(error.to_string().contains("truncated before version 5"), "{error}");
    }
    client.append("t").change("UA1", StreamChange::Tombstone).send().await.unwrap();
    let info = client.get_stream("t", "UA1", None).await.unwrap();
    assert_eq!((info.version, info.tombstoned, info.beginning.first_version), (None, true, 6));
    let error = flights.execute("UA1", &Buy::default()).await.map(drop).unwrap_err();
    assert_eq!(error.into_log().reason(), Some("STREAM_TOMBSTONED"));
}

#[tokio::test]
async fn aggregates_go_on_from_snapshots_that_they_know() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let every = 4.try_into().unwrap();
    let flights = client.aggregates::<Flight>("t").with_snapshots("flight.v1", every);
    for sold in 1..=6 {
        let done = flights.execute("UA1", &Buy::default()).await.unwrap();
        assert_eq!((done.after.state.sold, done.after.version), (sold, Some(u64::from(sold))));
    }
    let found = client.get_snapshot("t", "UA1", None, None).await.unwrap().unwrap().snapshot;
    assert_eq!((found.version, found.schema.as_str(), found.decode::<Flight>().unwrap().sold), (4, "flight.v1", 4));
    assert_eq!(client.get_snapshot("t", "UA1", Some(3), None).await.unwrap(), None);

    // The snapshot is what the state is folded from: one that says something else is believed, and of another schema ignored.
    let put = |schema: &str, sold| Snapshot::json(4, schema, &Flight { sold }).unwrap();
    client.append("t").snapshot("UA1", put("flight.v1", 7)).send().await.unwrap();
    assert_eq!(flights.load("UA1").await.unwrap().state.sold, 9);
    client.append("t").snapshot("UA1", put("flight.v2", 7)).send().await.unwrap();
    assert_eq!(flights.load("UA1").await.unwrap().state.sold, 6);
    client.append("t").snapshot("UA1", put("flight.v1", 4)).send().await.unwrap();

    // What is truncated up to a snapshot is folded from there, and without it not at all.
    client.append("t").change("UA1", StreamChange::TruncateBefore(5)).send().await.unwrap();
    let loaded = flights.load("UA1").await.unwrap();
    assert_eq!((loaded.state.sold, loaded.version), (6, Some(6)));
    assert!(client.aggregates::<Flight>("t").load("UA1").await.is_err());
    client.append("t").change("UA1", StreamChange::Delete).send().await.unwrap();
    let loaded = flights.load("UA1").await.unwrap();
    assert_eq!((loaded.state.sold, loaded.version), (0, None));
}

trait IntoLog {
    fn into_log(self) -> Error;
}

impl IntoLog for ExecuteError<&'static str> {
    fn into_log(self) -> Error {
        let Self::Log(error) = self else { panic!("the domain refused") };
        error
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_lost_is_made_again_on_what_happened() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    let flights = client.aggregates::<Flight>("t");
    assert_eq!(flights.execute("UA1", &Buy::default()).await.unwrap().decisions, 1);
    // The first decision is made and not yet appended; meanwhile another one sells the next seat.
    let (decided, is_decided) = tokio::sync::oneshot::channel();
    let (let_go_on, go_on) = std::sync::mpsc::channel();
    let slow = Buy { pause: Mutex::new(Some(Pause { decided, go_on })) };
    let mut buying = JoinSet::new();
    buying.spawn({
        let flights = flights.clone();
        async move { flights.execute("UA1", &slow).await }
    });
    timeout(LONG, is_decided).await.unwrap().unwrap();
    client.append("t").event("UA1", NewEvent::typed(&Sold::Ticket { seat: 2 }).unwrap()).send().await.unwrap();
    let_go_on.send(()).unwrap();
    let done = timeout(LONG, buying.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!((done.decisions, done.events.as_slice()), (2, &[Sold::Ticket { seat: 3 }][..]));
    assert_eq!((done.after.version, done.after.state.sold), (Some(3), 3));
}

#[tokio::test]
async fn an_event_that_the_decider_does_not_know_stops_it() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    client.append("t").event("UA1", NewEvent::new("Refunded", "{}")).send().await.unwrap();
    let Err(ExecuteError::Log(error)) = client.aggregates::<Flight>("t").execute("UA1", &Buy::default()).await else { panic!("an error") };
    let text = error.to_string();
    assert!(text.contains("version 1 of stream UA1 in topic t") && text.contains("Refunded"), "{text}");
}

#[derive(Debug, PartialEq, Deserialize)]
struct Sum {
    key: String,
    n: i64,
    total: Option<f64>,
}

/// Numbers by stream, as a view.
async fn with_sums(client: &Client) {
    client.query("CREATE STREAM numbers (key VARCHAR KEY, x DOUBLE) WITH (topic = 't', value_format = 'json')").execute().await.unwrap();
    let done = client.query("CREATE TABLE sums AS SELECT key, COUNT(*) AS n, SUM(x) AS total FROM numbers GROUP BY key").execute();
    assert!(done.await.unwrap().message.contains("sums"));
}

fn x(value: &str) -> NewEvent {
    NewEvent::new("Measured", format!("{{\"x\":{value}}}"))
}

#[tokio::test]
async fn rows_are_read_as_types_and_never_older_than_the_token() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    with_sums(&client).await;
    for round in 1..=20_i64 {
        let appended = client.append("t").event("a", x("0.5")).event("b", x("null")).send().await.unwrap();
        let query = client.query("SELECT key, n, total FROM sums ORDER BY key").at_least(appended.token);
        let sums: Vec<Sum> = query.all().await.unwrap();
        let half = f64::from(i32::try_from(round).unwrap()) / 2.0;
        let expected = [Sum { key: "a".into(), n: round, total: Some(half) }, Sum { key: "b".into(), n: round, total: None }];
        assert_eq!(sums, expected);
    }
    let n: i64 = client.query("SELECT n FROM sums WHERE key = $1 AND n > $2").bind("a").bind(3_i64).one().await.unwrap();
    assert_eq!(n, 20);
    assert_eq!(client.query("SELECT n FROM sums WHERE key = 'c'").optional::<i64>().await.unwrap(), None);
    assert!(matches!(client.query("SELECT n FROM sums").one::<i64>().await, Err(Error::Invalid(_))));
    let error = client.query("SELECT key FROM sums WHERE key = 'a'").one::<i64>().await.unwrap_err().to_string();
    assert!(error.contains("column key"), "{error}");
}

#[tokio::test]
async fn a_push_query_over_a_stream_goes_on_behind_its_token() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    with_sums(&client).await;
    let sql = "SELECT key, CAST(x AS BIGINT) AS n FROM numbers EMIT CHANGES";
    let mut pushed = client.push(sql).start().await.unwrap();
    client.append("t").event("a", x("1")).send().await.unwrap();
    let (rows, resume) = next_rows(&mut pushed).await;
    assert_eq!(rows, [(Mark::Insert, "a".to_owned(), 1)]);
    drop(pushed);
    client.append("t").event("a", x("2")).send().await.unwrap();
    let mut pushed = client.push(sql).resume(resume).start().await.unwrap();
    let (rows, _) = next_rows(&mut pushed).await;
    assert_eq!(rows, [(Mark::Insert, "a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_push_query_over_a_view_shows_each_change() {
    let server = Server::start();
    let client = connect(&server, "t").await;
    with_sums(&client).await;
    let appended = client.append("t").event("a", x("1")).send().await.unwrap();
    let sql = "SELECT key, n FROM sums EMIT CHANGES";
    let mut pushed = client.push(sql).at_least(appended.token).start().await.unwrap();
    let (rows, _) = next_rows(&mut pushed).await;
    assert_eq!(rows, [(Mark::Insert, "a".to_owned(), 1)]);
    client.append("t").event("a", x("1")).send().await.unwrap();
    let (rows, resume) = next_rows(&mut pushed).await;
    assert_eq!(rows, [(Mark::UpdateBefore, "a".to_owned(), 1), (Mark::UpdateAfter, "a".to_owned(), 2)]);
    drop(pushed);
    let mut pushed = client.push(sql).resume(resume).start().await.unwrap();
    let (rows, _) = next_rows(&mut pushed).await;
    assert_eq!(rows, [(Mark::Insert, "a".to_owned(), 2)], "a snapshot again");
}

/// The next changed rows, and where to go on behind them.
async fn next_rows(pushed: &mut Pushed) -> (Vec<(Mark, String, i64)>, Token) {
    loop {
        let changes = timeout(LONG, pushed.next()).await.unwrap().unwrap().unwrap();
        if !changes.rows.is_empty() {
            let row = |(mark, row): &(Mark, Row)| {
                let (key, n) = row.to().unwrap();
                (*mark, key, n)
            };
            return (changes.rows.iter().map(row).collect(), changes.resume.unwrap());
        }
    }
}

#[tokio::test]
async fn of_two_that_claim_a_name_one_is_told_who_was_first() {
    let server = Server::start();
    let client = connect(&server, "users").await;
    let claim = |stream: &str| {
        let event = NewEvent::new("Registered", "{}").tagged(["name:ada"]);
        client.append("users").absent(EventQuery::of(["Registered"], ["name:ada"]), None).event(stream, event)
    };
    let first = claim("user-1").send().await.unwrap();
    let error = claim("user-2").send().await.unwrap_err();
    assert_eq!(error.reason(), Some("QUERY_CONDITION_FAILED"));
    let Error::Conflict { violations, .. } = error else { panic!("a conflict") };
    assert_eq!((violations[0].topic.as_str(), violations[0].first_conflicting_position), ("users", Some(first.first_position)));
    // After that position nothing matches, in this topic or any.
    let since = Some(first.last_position);
    let query = EventQuery::of(["Renamed"], ["name:ada"]).or(["Registered"], Vec::<String>::new());
    let append = client.append("users").absent_in(["users"], query.clone(), since).absent_everywhere(EventQuery::all(), since);
    append.event("user-1", NewEvent::new("Seen", "{}")).send().await.unwrap();
    let append = client.append("users").absent_everywhere(query, since).absent(EventQuery::all(), since);
    let Error::Conflict { violations, .. } = append.event("user-1", NewEvent::new("Seen", "{}")).send().await.unwrap_err() else {
        panic!("an event came since")
    };
    assert_eq!(violations.iter().map(|one| one.index).collect::<Vec<_>>(), [1]);
}
