//! Consumer groups over gRPC: shared, acknowledged, delivered again, parked, moved; and what is refused.

use std::collections::BTreeSet;

use crate::support::*;
use foldlog_proto::v1::{self as pb, consume_request as say, consume_response::Message, group_place};
use futures::{StreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status, Streaming};

/// One side of a membership.
pub struct Member {
    line: mpsc::Sender<pb::ConsumeRequest>,
    answers: Streaming<pb::ConsumeResponse>,
    sequence: u64,
    pub partitions: Vec<u32>,
    ready: Vec<pb::Delivered>,
    behind: usize,
    pub lost: Vec<pb::consume_response::PartitionLost>,
}

fn request(message: say::Message) -> pb::ConsumeRequest {
    pb::ConsumeRequest { message: Some(message) }
}

fn open(group: &str, events: u32) -> pb::ConsumeRequest {
    let credit = Some(say::Credit { events, bytes: 64 << 20 });
    request(say::Message::Open(say::Open { group: group.into(), consumer: "tester".into(), credit }))
}

async fn consume(world: &World, first: pb::ConsumeRequest) -> Result<Member, Status> {
    let (line, receiver) = mpsc::channel(64);
    line.send(first).await.unwrap();
    let requests = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|next| (next, receiver)) });
    let answers = world.groups.clone().consume(requests.boxed()).await?.into_inner();
    Ok(Member { line, answers, sequence: 0, partitions: Vec::new(), ready: Vec::new(), behind: 0, lost: Vec::new() })
}

impl Member {
    pub async fn join(world: &World, group: &str, events: u32) -> Self {
        consume(world, open(group, events)).await.unwrap()
    }

    async fn say(&mut self, message: say::Message) {
        self.line.send(request(message)).await.unwrap();
    }

    pub async fn message(&mut self) -> Result<Message, Status> {
        let answer = timeout(LONG, self.answers.message()).await.expect("an answer in time")?;
        let message = answer.and_then(|answer| answer.message).ok_or_else(|| Status::cancelled("the end"))?;
        match &message {
            Message::Deliveries(deliveries) => self.ready.extend(deliveries.events.iter().cloned()),
            Message::Assigned(assigned) => self.partitions.clone_from(&assigned.partitions),
            Message::FellBehind(_) => self.behind += 1,
            Message::Lost(lost) => self.lost.push(*lost),
            Message::Settled(_) | Message::CaughtUp(_) => {}
        }
        Ok(message)
    }

    /// Takes so many more.
    pub async fn more(&mut self, events: u32) {
        self.say(say::Message::Credit(say::Credit { events, bytes: 64 << 20 })).await;
    }

    /// The next events.
    pub async fn take(&mut self, count: usize) -> Vec<pb::Delivered> {
        while self.ready.len() < count {
            self.message().await.unwrap();
        }
        self.ready.drain(..count).collect()
    }

    pub async fn next(&mut self) -> pb::Delivered {
        self.take(1).await.remove(0)
    }

    /// Waits until what was said last is synced; leases that had ended.
    async fn settled(&mut self) -> Vec<pb::Delivery> {
        let mut stale = Vec::new();
        loop {
            if let Message::Settled(settled) = self.message().await.unwrap() {
                stale.extend(settled.stale);
                if settled.sequence == self.sequence {
                    return stale;
                }
            }
        }
    }

    pub async fn ack(&mut self, delivered: &[pb::Delivered]) -> Vec<pb::Delivery> {
        self.sequence += 1;
        let ack = say::Ack { deliveries: delivered.iter().map(named).collect(), cumulative: false, sequence: self.sequence };
        self.say(say::Message::Ack(ack)).await;
        self.settled().await
    }

    pub async fn nack(&mut self, delivered: &pb::Delivered, action: pb::NackAction, reason: &str) {
        self.sequence += 1;
        let (deliveries, reason) = (vec![named(delivered)], reason.to_owned());
        let delay = Some(prost_types::Duration::default()).filter(|_| action == pb::NackAction::Retry);
        self.say(say::Message::Nack(say::Nack { deliveries, action: action.into(), reason, delay, sequence: self.sequence })).await;
        assert_eq!(self.settled().await, []);
    }

    /// Leaves, and hears the end.
    pub async fn leave(mut self) {
        self.say(say::Message::Leave(say::Leave {})).await;
        while let Ok(Some(_)) = timeout(LONG, self.answers.message()).await.unwrap() {}
    }
}

fn named(delivered: &pb::Delivered) -> pb::Delivery {
    let event = delivered.event.as_ref().unwrap();
    pb::Delivery { partition: event.partition, offset: event.offset, lease: delivered.lease }
}

pub fn said(delivered: &pb::Delivered) -> String {
    text(delivered.event.as_ref().unwrap())
}

impl World {
    pub async fn group(&mut self, name: &str, topic: &str, settings: pb::GroupSettings) {
        let request = pb::CreateGroupRequest { group: name.into(), topic: topic.into(), settings: Some(settings), start: None };
        self.groups.create(request).await.unwrap();
    }

    pub async fn group_status(&mut self, name: &str) -> pb::GroupStatus {
        self.groups.get(pb::GetGroupRequest { group: name.into() }).await.unwrap().into_inner()
    }

    pub async fn parked(&mut self, name: &str) -> Vec<pb::ParkedEvent> {
        self.groups.list_parked(pb::ListParkedRequest { group: name.into(), ..Default::default() }).await.unwrap().into_inner().events
    }

    async fn reset(&mut self, name: &str, place: group_place::Place) -> Result<pb::GroupStatus, Status> {
        let to = Some(pb::GroupPlace { place: Some(place) });
        self.groups.reset(pb::ResetGroupRequest { group: name.into(), to }).await.map(tonic::Response::into_inner)
    }
}

pub fn impatient() -> pb::GroupSettings {
    let backoff = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    pb::GroupSettings { max_attempts: Some(2), backoff_first: Some(backoff), ..Default::default() }
}

#[tokio::test]
async fn what_is_acknowledged_never_comes_again_and_what_is_not_comes_also_after_a_restart() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    for n in 0..20 {
        world.append("t", &format!("s{}", n % 5), &[&n.to_string()]).await;
    }
    let mut member = Member::join(&world, "g", 100).await;
    let first = member.take(5).await;
    assert!(first.iter().all(|one| one.attempt == 1 && !one.replayed));
    let streams: BTreeSet<_> = first.iter().map(|one| one.event.as_ref().unwrap().stream.clone()).collect();
    assert_eq!(streams.len(), 5, "one of each stream at a time");
    assert_eq!(member.ack(&first[..3]).await, []);
    let next = member.take(3).await;
    assert_eq!(member.ack(&next[..1]).await, []);
    let done: BTreeSet<String> = first[..3].iter().chain(&next[..1]).map(said).collect();
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.members[0].consumer.as_str(), status.partitions.len()), (16, "tester", 2));
    assert!(status.in_flight >= 4 && status.oldest_unacknowledged.is_some());
    drop(member);

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let mut member = Member::join(&world, "g", 100).await;
    let mut rest = BTreeSet::new();
    while rest.len() < 16 {
        let delivered = member.next().await;
        assert!(rest.insert(said(&delivered)), "once each");
        assert_eq!(member.ack(&[delivered]).await, []);
    }
    assert!(rest.is_disjoint(&done));
    assert_eq!((world.group_status("g").await.lag, world.group_status("g").await.oldest_unacknowledged), (0, None));

    let change = Some(pb::StreamChange { change: Some(pb::stream_change::Change::Delete(pb::stream_change::Delete {})) });
    let write = pb::Write { stream: "s0".into(), change, ..pb::Write::default() };
    world.log.append(pb::AppendRequest { topic: "t".into(), writes: vec![write], ..Default::default() }).await.unwrap();
    world.append("t", "s0", &["anew"]).await;
    let anew = member.next().await;
    assert_eq!((said(&anew), member.ack(&[anew]).await), ("anew".into(), vec![]));
    assert_eq!(world.group_status("g").await.lag, 0, "the mark of a stream's end is nothing to do");
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn the_events_of_a_stream_come_one_after_the_other_in_whatever_member_they_are() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    for n in 0..60 {
        world.append("t", &format!("s{}", n % 6), &[&n.to_string()]).await;
    }
    let mut members = [Member::join(&world, "g", 4).await, Member::join(&world, "g", 4).await];
    let mut seen: Vec<(String, u64)> = Vec::new();
    while seen.len() < 60 {
        for member in &mut members {
            while member.partitions.is_empty() {
                member.message().await.unwrap();
            }
            let delivered = tokio::time::timeout(std::time::Duration::from_millis(200), member.next()).await;
            let Ok(delivered) = delivered else { continue };
            let event = delivered.event.clone().unwrap();
            seen.push((event.stream, event.stream_version));
            assert_eq!(member.ack(&[delivered]).await, []);
            member.say(say::Message::Credit(say::Credit { events: 1, bytes: 1 << 10 })).await;
        }
    }
    for stream in 0..6 {
        let versions: Vec<u64> = seen.iter().filter(|(name, _)| *name == format!("s{stream}")).map(|(_, version)| *version).collect();
        assert_eq!(versions, (1..=10).collect::<Vec<_>>());
    }
    let mut partitions: Vec<u32> = members.iter().flat_map(|member| member.partitions.clone()).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1], "each has its own");
    drop(members);
    world.stop().await;
}

#[tokio::test]
async fn when_a_member_dies_another_has_its_partitions_and_its_events() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    for n in 0..10 {
        world.append("t", &format!("s{n}"), &[&n.to_string()]).await;
    }
    let mut first = Member::join(&world, "g", 100).await;
    let held: BTreeSet<String> = first.take(10).await.iter().map(said).collect();
    let mut second = Member::join(&world, "g", 100).await;
    while second.partitions.len() != 1 {
        second.message().await.unwrap();
    }
    assert_eq!(second.ready, [], "the first still holds them");
    drop(first);
    let again = second.take(10).await;
    assert_eq!((again.iter().map(said).collect::<BTreeSet<_>>(), second.partitions.len()), (held, 2));
    assert!(again.iter().all(|one| one.attempt == 2));
    assert_eq!(world.group_status("g").await.redeliveries, 10);
    let metrics = get(&world, "/metrics").await;
    for (name, value) in [("lag", 10), ("in_flight", 10), ("members", 1), ("parked", 0), ("redeliveries_total", 10)] {
        let line = format!("foldlog_group_{name}{{group=\"g\"}} {value}.0");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    second.leave().await;
    let mut third = Member::join(&world, "g", 1).await;
    assert_eq!(third.next().await.attempt, 2, "who leaves hands back, as if nothing had been delivered");
    drop(third);
    world.stop().await;
}

#[tokio::test]
async fn a_lease_that_ends_is_told_and_its_event_comes_again_until_it_is_parked() {
    let mut world = world().await;
    world.topic("t").await;
    let ack_timeout = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    world.group("g", "t", pb::GroupSettings { ack_timeout, ..impatient() }).await;
    world.append("t", "s", &["late"]).await;
    world.append("t", "other", &["fine"]).await;
    let mut member = Member::join(&world, "g", 100).await;
    let mut late = Vec::new();
    while late.len() < 2 {
        let delivered = member.next().await;
        if said(&delivered) == "late" {
            late.push(delivered);
        } else {
            member.ack(&[delivered]).await;
        }
    }
    assert_eq!(late.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(member.ack(&late[..1]).await, [named(&late[0])], "another delivery holds the event now");
    let parked = loop {
        if let Some(parked) = world.parked("g").await.pop() {
            break parked;
        }
    };
    assert_eq!((parked.attempts, parked.state(), text(parked.event.as_ref().unwrap())), (2, pb::ParkedState::Parked, "late".into()));
    assert!(parked.reason.contains("in time"), "{}", parked.reason);
    drop(member);
    world.stop().await;
}

#[tokio::test]
async fn parked_events_are_listed_replayed_and_discarded_and_survive_a_restart() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", impatient()).await;
    world.append("t", "a", &["a1", "a2"]).await;
    world.append("t", "b", &["b1", "b2"]).await;
    let mut member = Member::join(&world, "g", 100).await;
    let firsts = member.take(2).await;
    let of = |name: &str| firsts.iter().find(|one| said(one) == name).unwrap().clone();
    member.nack(&of("a1"), pb::NackAction::Park, "no such address").await;
    member.nack(&of("b1"), pb::NackAction::BlockStream, "poison").await;
    let a2 = member.next().await;
    assert_eq!(said(&a2), "a2", "what follows a parked event goes on, what follows a blocking one waits");
    member.nack(&a2, pb::NackAction::Retry, "once").await;
    let a2 = member.next().await;
    assert_eq!((said(&a2), a2.attempt), ("a2".into(), 2));
    member.nack(&a2, pb::NackAction::Retry, "twice").await;
    member.leave().await;

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let parked = world.parked("g").await;
    let told: BTreeSet<(String, String, i32)> =
        parked.iter().map(|one| (text(one.event.as_ref().unwrap()), one.reason.clone(), one.state)).collect();
    let expect = |data: &str, reason: &str, state: pb::ParkedState| (data.to_owned(), reason.to_owned(), i32::from(state));
    let all = [
        expect("a1", "no such address", pb::ParkedState::Parked),
        expect("a2", "twice", pb::ParkedState::Parked),
        expect("b1", "poison", pb::ParkedState::Blocking),
    ];
    assert_eq!(told, BTreeSet::from(all));
    let place = |data: &str| parked.iter().find(|one| text(one.event.as_ref().unwrap()) == data).unwrap().place;
    let first = pb::ListParkedRequest { group: "g".into(), limit: 1, after: None };
    let page = world.groups.list_parked(first).await.unwrap().into_inner();
    assert_eq!((page.events.len(), page.more), (1, true));
    let discard = pb::DiscardParkedRequest { group: "g".into(), places: vec![place("a2").unwrap()] };
    assert_eq!(world.groups.discard_parked(discard).await.unwrap().into_inner().count, 1);
    let replay = pb::ReplayParkedRequest { group: "g".into(), places: vec![] };
    assert_eq!(world.groups.replay_parked(replay).await.unwrap().into_inner().count, 2);
    let mut member = Member::join(&world, "g", 100).await;
    let mut came = BTreeSet::new();
    while came.len() < 3 {
        let delivered = member.next().await;
        assert_eq!(delivered.attempt, 1);
        came.insert((said(&delivered), delivered.replayed));
        member.ack(&[delivered]).await;
    }
    assert_eq!(came, BTreeSet::from([("a1".into(), true), ("b1".into(), false), ("b2".into(), false)]));
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.parked, world.parked("g").await), (0, 0, vec![]));
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn a_group_begins_and_is_reset_at_any_place() {
    use group_place::Place;
    let mut world = world().await;
    world.topic("t").await;
    for n in 0..6 {
        world.append("t", &format!("s{n}"), &[&n.to_string()]).await;
    }
    let events = world.read(topic_from("t", 0)).await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    assert_eq!(world.group_status("g").await.lag, 6);
    for (n, event) in events.iter().enumerate() {
        let at = world.reset("g", Place::Position(event.position)).await.unwrap();
        assert_eq!(at.lag, 6 - n as u64);
        let mut member = Member::join(&world, "g", 10).await;
        let came: BTreeSet<String> = member.take(6 - n).await.iter().map(said).collect();
        assert_eq!(came, (n..6).map(|n| n.to_string()).collect());
        let refused = world.reset("g", Place::End(group_place::End {})).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "GROUP_IN_USE"));
        member.leave().await;
    }
    assert_eq!(world.reset("g", Place::End(group_place::End {})).await.unwrap().lag, 0);
    assert_eq!(world.reset("g", Place::Beginning(group_place::Beginning {})).await.unwrap().lag, 6);
    assert_eq!(world.reset("g", Place::Time(events[0].recorded_at.unwrap())).await.unwrap().lag, 6);
    let later = prost_types::Timestamp { seconds: events[5].recorded_at.unwrap().seconds + 60, nanos: 0 };
    assert_eq!(world.reset("g", Place::Time(later)).await.unwrap().lag, 0);
    let beyond = world.reset("g", Place::Position(1 << 40)).await.unwrap_err();
    assert_eq!((beyond.code(), reason(&beyond).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    assert_eq!(world.group_status("g").await.lag, 0, "the last reset is kept");
    world.append("t", "new", &["new"]).await;
    let mut member = Member::join(&world, "g", 10).await;
    assert_eq!(said(&member.next().await), "new");
    member.leave().await;
    world.groups.delete(pb::DeleteGroupRequest { group: "g".into() }).await.unwrap();
    world.group("g", "t", pb::GroupSettings::default()).await;
    assert_eq!(world.group_status("g").await.lag, 7, "a group that is created again remembers nothing");
    world.stop().await;
}

#[tokio::test]
async fn a_group_that_falls_behind_the_memory_is_told_and_misses_nothing() {
    const APPENDS: usize = 200;
    let mut world = world_with(|config| config.log.tail_bytes = 64 << 10).await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings { ordering: pb::Ordering::None.into(), ..Default::default() }).await;
    let mut member = Member::join(&world, "g", 0).await;
    let mut caught_up = 0;
    while caught_up < 2 {
        caught_up += usize::from(matches!(member.message().await.unwrap(), Message::CaughtUp(_)));
    }
    let large = "x".repeat(20_000);
    for n in 0..APPENDS {
        world.append("t", &format!("s{}", n % 5), &[&format!("{n} {large}")]).await;
    }
    let mut seen = BTreeSet::new();
    member.say(say::Message::Credit(say::Credit { events: 1_000, bytes: 64 << 20 })).await;
    while seen.len() < APPENDS {
        let delivered = member.next().await;
        assert!(seen.insert(said(&delivered).split(' ').next().unwrap().parse::<usize>().unwrap()), "once each");
        member.ack(&[delivered]).await;
    }
    assert_eq!(seen, (0..APPENDS).collect());
    assert!(member.behind >= 1, "4 MB do not fit into 64 KiB of memory");
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn members_share_partitions_that_were_added_and_get_what_comes_into_them() {
    let mut world = world().await;
    world.topic_of("r", pb::TopicKind::Records).await;
    world.group("g", "r", pb::GroupSettings::default()).await;
    let mut members = [Member::join(&world, "g", 100).await, Member::join(&world, "g", 100).await];
    world.topics.alter(pb::AlterTopicRequest { name: "r".into(), partitions: Some(4), ..Default::default() }).await.unwrap();
    for partition in 0..4 {
        let record = pb::Event { data: Some(partition.to_string().into()), ..Default::default() };
        let write = pb::Write { partition: Some(partition), events: vec![record], ..Default::default() };
        world.log.append(pb::AppendRequest { topic: "r".into(), writes: vec![write], ..Default::default() }).await.unwrap();
    }
    let mut seen = Vec::new();
    for member in &mut members {
        let delivered = member.take(2).await;
        assert_eq!(member.ack(&delivered).await, []);
        assert_eq!(member.partitions.len(), 2);
        seen.extend(delivered.iter().map(said));
    }
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3"]);
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.partitions.len()), (0, 4));
    drop(members);
    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.partitions.len()), (0, 4), "also after a restart");
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    let create = |group: &str, topic: &str, settings: pb::GroupSettings| pb::CreateGroupRequest {
        group: group.into(),
        topic: topic.into(),
        settings: Some(settings),
        start: None,
    };
    let settings = pb::GroupSettings::default;
    let too_short = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    for (request, code, name) in [
        (create("x", "_foldlog.offsets", settings()), Code::InvalidArgument, "RESERVED_NAME"),
        (create("x", "nowhere", settings()), Code::NotFound, "TOPIC_NOT_FOUND"),
        (create("a/b", "t", settings()), Code::InvalidArgument, "INVALID_NAME"),
        (create("x", "t", pb::GroupSettings { max_attempts: Some(0), ..settings() }), Code::InvalidArgument, "INVALID_REQUEST"),
        (create("x", "t", pb::GroupSettings { ack_timeout: too_short, ..settings() }), Code::InvalidArgument, "INVALID_REQUEST"),
        (create("x", "t", pb::GroupSettings { ordering: 9, ..settings() }), Code::InvalidArgument, "INVALID_REQUEST"),
        (create("g", "t", pb::GroupSettings { max_attempts: Some(3), ..settings() }), Code::AlreadyExists, "GROUP_EXISTS"),
    ] {
        let refused = world.groups.create(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, name), "{refused:?}");
    }
    world.groups.create(create("g", "t", settings())).await.unwrap();
    let none = world.groups.get(pb::GetGroupRequest { group: "none".into() }).await.unwrap_err();
    assert_eq!((none.code(), reason(&none).as_str()), (Code::NotFound, "GROUP_NOT_FOUND"));
    let refused = |outcome: Result<Member, Status>| outcome.err().map(|status| (status.code(), reason(&status)));
    assert_eq!(refused(consume(&world, open("none", 1)).await), Some((Code::NotFound, "GROUP_NOT_FOUND".into())));
    let invalid = Some((Code::InvalidArgument, "INVALID_REQUEST".to_owned()));
    assert_eq!(refused(consume(&world, request(say::Message::Leave(say::Leave {}))).await), invalid);
    let named = say::Open { group: "g".into(), consumer: "x".repeat(256), credit: None };
    assert_eq!(refused(consume(&world, request(say::Message::Open(named))).await), invalid);

    let many = say::Ack { deliveries: vec![pb::Delivery::default(); 10_001], ..Default::default() };
    let unknown = say::Nack { action: 9, ..Default::default() };
    let long = say::Nack { reason: "x".repeat(1_025), ..Default::default() };
    let twice = open("g", 1).message.unwrap();
    for wrong in [say::Message::Ack(many), say::Message::Nack(unknown), say::Message::Nack(long), twice] {
        let mut member = Member::join(&world, "g", 1).await;
        member.say(wrong).await;
        let status = loop {
            if let Err(status) = member.message().await {
                break status;
            }
        };
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    }
    let listed = world.groups.list(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
    assert_eq!(listed.iter().map(|status| status.group.as_ref().unwrap().group.as_str()).collect::<Vec<_>>(), ["g"]);
    world.stop().await;
}
