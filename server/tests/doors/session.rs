//! Sessions on the wire: units in order, answers in order, credit, and what ends a session.

use foldlog_proto::v1::{
    self as pb, append_session_request::Message as Asked, append_session_response::Message as Told, stream_state::Expect,
};
use prost::{Message as _, bytes::Bytes};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::pb as rpc;

use crate::support::*;

const PRODUCER: &[u8] = &[7; 16];

/// An open session.
struct Session {
    to: mpsc::Sender<pb::AppendSessionRequest>,
    answers: Streaming<pb::AppendSessionResponse>,
    opened: pb::SessionOpened,
}

/// Opens a session with its first message.
async fn begin(world: &World, first: Option<Asked>) -> Result<Session, Status> {
    let (to, from) = mpsc::channel(10_000);
    to.try_send(pb::AppendSessionRequest { message: first }).unwrap();
    let requests = futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
    let mut answers = timeout(LONG, world.log.clone().append_session(requests)).await.unwrap()?.into_inner();
    let Some(Told::Opened(opened)) = answers.message().await?.and_then(|told| told.message) else { panic!("not opened") };
    Ok(Session { to, answers, opened })
}

async fn open(world: &World, epoch: Option<u64>) -> Result<Session, Status> {
    begin(world, Some(Asked::Open(pb::SessionOpen { producer_id: PRODUCER.into(), epoch }))).await
}

impl Session {
    async fn send(&self, first_sequence: u64, appends: Vec<pb::AppendRequest>) {
        let message = Some(Asked::Appends(pb::SessionAppends { first_sequence, appends }));
        self.to.send(pb::AppendSessionRequest { message }).await.unwrap();
    }

    async fn next(&mut self) -> Result<pb::SessionAnswers, Status> {
        match timeout(LONG, self.answers.message()).await.unwrap()?.and_then(|told| told.message) {
            Some(Told::Answers(answers)) => Ok(answers),
            other => panic!("no answers: {other:?}"),
        }
    }

    /// Why it ended.
    async fn ended(mut self) -> (String, Code) {
        loop {
            match timeout(LONG, self.answers.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return (reason(&status), status.code()),
            }
        }
    }
}

/// The reason of an encoded status.
fn why(refusal: &pb::SessionRefusal) -> String {
    let status = rpc::Status::decode(refusal.status.clone()).unwrap();
    rpc::ErrorInfo::decode(&*status.details[0].value).unwrap().reason
}

fn said(text: &str) -> pb::AppendRequest {
    request("said", "s", &[text])
}

#[tokio::test]
async fn units_are_answered_in_order_and_a_refused_one_holds_up_none() {
    let mut world = world().await;
    world.topic("said").await;
    let mut session = open(&world, None).await.unwrap();
    assert_eq!((session.opened.next_sequence, &session.opened.producer_id[..]), (1, PRODUCER));
    let two_events = request("said", "s", &["b", "c"]);
    let stale = pb::AppendRequest { preconditions: vec![expect("s", Expect::Version(9))], ..said("stale") };
    let nowhere = request("nowhere", "s", &["x"]);
    let empty = pb::AppendRequest { topic: "said".into(), ..Default::default() };
    let with_id = pb::AppendRequest { request_id: Bytes::from_static(&[1; 16]), ..said("x") };
    session.send(1, vec![said("a"), stale, two_events, nowhere, empty, with_id, said("d")]).await;
    let answers = session.next().await.unwrap();
    assert_eq!((answers.first_sequence, answers.deduplicated, answers.durability()), (1, false, pb::Durability::Synced));
    let first = answers.first_positions[0];
    assert_eq!(answers.first_positions, [first, 0, first + 1, 0, 0, 0, first + 3]);
    assert_eq!(answers.records, [1, 0, 2, 0, 0, 0, 1]);
    let refused: Vec<_> = answers.refused.iter().map(|refusal| (refusal.sequence, why(refusal))).collect();
    let expected = [(2, "STREAM_VERSION_CONFLICT"), (4, "TOPIC_NOT_FOUND"), (5, "EMPTY_EVENTS"), (6, "INVALID_REQUEST")];
    assert_eq!(refused, expected.map(|(sequence, reason)| (sequence, reason.to_owned())));
    assert!(answers.answered_bytes > 0);
    let read = pb::ReadRequest { source: Some(topic_from("said", 0)), at_least: answers.token, ..Default::default() };
    assert_eq!(texts(&world.read_with(read).await.unwrap()), ["a", "b", "c", "d"]);
    // The end of what is sent is the end of the session.
    let Session { to, mut answers, .. } = session;
    drop(to);
    assert!(timeout(LONG, answers.message()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn what_is_sent_again_gets_its_first_answer_and_what_was_refused_stays_so() {
    let mut world = world().await;
    world.topic("said").await;
    let mut session = open(&world, None).await.unwrap();
    let stale = || pb::AppendRequest { preconditions: vec![expect("s", Expect::Version(1))], ..said("stale") };
    session.send(1, vec![stale(), said("a")]).await;
    let first = session.next().await.unwrap();
    let epoch = session.opened.epoch;
    drop(session);
    let mut again = open(&world, Some(epoch)).await.unwrap();
    assert_eq!((again.opened.next_sequence, again.opened.epoch), (3, epoch));
    again.send(1, vec![stale(), said("a"), said("b")]).await;
    let repeats = again.next().await.unwrap();
    assert_eq!((&repeats.first_positions, repeats.deduplicated, repeats.answered_bytes), (&first.first_positions, true, 0));
    assert_eq!(repeats.refused.iter().map(why).collect::<Vec<_>>(), ["REFUSED_BEFORE"]);
    let new = again.next().await.unwrap();
    assert_eq!((new.first_sequence, new.first_positions, new.deduplicated), (3, vec![first.first_positions[1] + 1], false));
    assert!(new.answered_bytes > 0, "the message is answered whole");
    assert_eq!(texts(&world.read(topic_from("said", 0)).await), ["a", "b"]);
}

#[tokio::test]
async fn a_later_epoch_ends_the_earlier() {
    let mut world = world().await;
    world.topic("said").await;
    let mut old = open(&world, None).await.unwrap();
    old.send(1, vec![said("a")]).await;
    old.next().await.unwrap();
    let new = open(&world, None).await.unwrap();
    assert!(new.opened.epoch > old.opened.epoch);
    assert_eq!(new.opened.next_sequence, 2);
    let old_epoch = old.opened.epoch;
    old.send(2, vec![said("x")]).await;
    assert_eq!(old.ended().await.0, "PRODUCER_FENCED");
    assert_eq!(reason(&open(&world, Some(old_epoch)).await.err().unwrap()), "PRODUCER_FENCED");
    let unknown = pb::SessionOpen { producer_id: Bytes::from_static(&[8; 16]), epoch: Some(old_epoch) };
    assert_eq!(reason(&begin(&world, Some(Asked::Open(unknown))).await.err().unwrap()), "UNKNOWN_PRODUCER");
    let drawn = begin(&world, Some(Asked::Open(pb::SessionOpen::default()))).await.unwrap();
    assert_eq!(drawn.opened.producer_id.len(), 16);
    assert_eq!(texts(&world.read(topic_from("said", 0)).await), ["a"]);
}

#[tokio::test]
async fn what_is_against_the_rules_ends_a_session_and_names_the_rule() {
    let mut world = world_with(|config| config.limits.session_bytes = 64 << 10).await;
    world.topic("said").await;
    let opened = |id: &'static [u8], epoch| Some(Asked::Open(pb::SessionOpen { producer_id: Bytes::from_static(id), epoch }));
    let appends = Some(Asked::Appends(pb::SessionAppends { first_sequence: 1, appends: vec![said("x")] }));
    for wrong in [None, appends, opened(&[1; 15], None), opened(&[], Some(1))] {
        let refused = begin(&world, wrong.clone()).await.err().unwrap();
        assert_eq!((reason(&refused).as_str(), refused.code()), ("INVALID_REQUEST", Code::InvalidArgument), "{wrong:?}");
    }
    for first in [0, 2] {
        let session = begin(&world, opened(&[], None)).await.unwrap();
        session.send(first, vec![said("x")]).await;
        assert_eq!(session.ended().await, ("OUT_OF_ORDER_SEQUENCE".to_owned(), Code::FailedPrecondition), "{first}");
    }
    let session = begin(&world, opened(&[], None)).await.unwrap();
    session.send(1, vec![said("a")]).await;
    session.send(3, vec![said("x")]).await;
    assert_eq!(session.ended().await.0, "OUT_OF_ORDER_SEQUENCE");
    let session = begin(&world, opened(&[], None)).await.unwrap();
    session.send(1, Vec::new()).await;
    assert_eq!(session.ended().await.0, "EMPTY_EVENTS");
    let session = begin(&world, opened(&[], None)).await.unwrap();
    session.to.send(pb::AppendSessionRequest { message: opened(&[], None) }).await.unwrap();
    assert_eq!(session.ended().await.0, "INVALID_REQUEST");
    let session = begin(&world, opened(&[], None)).await.unwrap();
    let many = pb::AppendSessionRequest {
        message: Some(Asked::Appends(pb::SessionAppends { first_sequence: 1, appends: vec![pb::AppendRequest::default(); 10_001] })),
    };
    session.to.send(many).await.unwrap();
    assert_eq!(session.ended().await.1, Code::InvalidArgument);
    let session = begin(&world, opened(&[], None)).await.unwrap();
    session.send(1, vec![said("x"); session.opened.credit_units as usize + 1]).await;
    assert_eq!(session.ended().await, ("CREDIT_EXCEEDED".to_owned(), Code::ResourceExhausted));
    assert_eq!(texts(&world.read(topic_from("said", 0)).await), ["a"]);
}

#[tokio::test]
async fn one_message_is_taken_whatever_the_credit() {
    let mut world = world_with(|config| config.limits.session_bytes = 64 << 10).await;
    world.topic("said").await;
    let mut session = open(&world, None).await.unwrap();
    assert_eq!(session.opened.credit_bytes, 64 << 10);
    for sequence in 1..4 {
        session.send(sequence, vec![said(&"x".repeat(200 << 10))]).await;
        let answers = session.next().await.unwrap();
        assert!(answers.answered_bytes > 200 << 10, "{answers:?}");
    }
}

#[tokio::test]
async fn answers_name_the_durability_of_their_units() {
    let mut world = world().await;
    world.topic("said").await;
    let mut session = open(&world, None).await.unwrap();
    let with = |durability: pb::Durability, text: &str| pb::AppendRequest { durability: durability.into(), ..said(text) };
    let (synced, written) = (pb::Durability::Synced, pb::Durability::Written);
    session.send(1, vec![with(written, "a"), with(written, "b"), with(synced, "c"), with(written, "d")]).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let answers = session.next().await.unwrap();
        told.push((answers.first_sequence, answers.first_positions.len(), answers.durability()));
    }
    assert_eq!(told, [(1, 2, written), (3, 1, synced), (4, 1, written)]);
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused_fast_and_a_stopping_server_ends_them() {
    let world = world_with(|config| config.limits.sessions = 2).await;
    let first = begin(&world, Some(Asked::Open(pb::SessionOpen::default()))).await.unwrap();
    let second = begin(&world, Some(Asked::Open(pb::SessionOpen::default()))).await.unwrap();
    let refused = begin(&world, Some(Asked::Open(pb::SessionOpen::default()))).await.err().unwrap();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("OVERLOADED", Code::ResourceExhausted));
    let Session { to, mut answers, .. } = second;
    drop(to);
    assert!(timeout(LONG, answers.message()).await.unwrap().unwrap().is_none());
    drop(answers);
    let World { server, log, topics, query, .. } = world;
    drop((log, topics, query));
    let (ended, stopped) = timeout(LONG, async { tokio::join!(first.ended(), server.stop()) }).await.unwrap();
    assert_eq!(ended, ("DRAINING".to_owned(), Code::Unavailable));
    assert!(stopped.unwrap(), "nobody held it up");
}
