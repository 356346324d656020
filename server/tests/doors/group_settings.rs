//! Settings of consumer groups over gRPC: a filter, and what is altered while a group is in use.

use std::collections::BTreeSet;

use foldlog_proto::v1 as pb;
use tokio::time::timeout;
use tonic::Code;

use crate::{
    groups::{Member, impatient, said},
    support::*,
};

fn meaning(types: &[&str], tags: &[&str]) -> Option<pb::EventQuery> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Some(pb::EventQuery { items: vec![pb::event_query::Item { types: texts(types), tags: texts(tags) }], all: false })
}

fn to_alter(group: &str, settings: pb::GroupSettings) -> pb::AlterGroupRequest {
    pb::AlterGroupRequest { group: group.into(), settings: Some(settings) }
}

impl World {
    /// Asks until the group has counted so many events.
    async fn until_lag(&mut self, lag: u64) {
        let counted = async { while self.group_status("g").await.lag != lag {} };
        timeout(LONG, counted).await.expect("it is counted in time");
    }

    /// Events with their numbers as payloads in three streams, every hundredth with a tag.
    async fn numbers(&mut self, range: std::ops::Range<u32>) {
        let write = |number: u32| {
            let tags = if number.is_multiple_of(100) { vec!["rare".to_owned()] } else { Vec::new() };
            let stream = format!("s{}", number % 3);
            pb::Write { stream, events: vec![pb::Event { tags, ..event(&number.to_string()) }], ..Default::default() }
        };
        let all: Vec<u32> = range.collect();
        for some in all.chunks(500) {
            let writes = some.iter().map(|number| write(*number)).collect();
            self.log.append(pb::AppendRequest { topic: "t".into(), writes, ..Default::default() }).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_group_gets_what_its_filter_means_in_order_and_nothing_else_counts() {
    let mut world = world().await;
    world.topic("t").await;
    world.numbers(0..3_000).await;
    let settings = pb::GroupSettings { filter: meaning(&[], &["rare"]), ..Default::default() };
    world.group("g", "t", settings.clone()).await;
    assert_eq!(world.group_status("g").await.lag, 30, "with nobody in it");
    let mut member = Member::join(&world, "g", 100).await;
    let mut seen: Vec<(String, u32)> = Vec::new();
    while seen.len() < 20 {
        let delivered = member.next().await;
        let event = delivered.event.as_ref().unwrap();
        seen.push((event.stream.clone(), said(&delivered).parse().unwrap()));
        assert_eq!(member.ack(&[delivered]).await, []);
    }
    assert_eq!(world.group_status("g").await.lag, 10);
    drop(member);

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    world.numbers(3_000..3_100).await;
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.group.unwrap().settings.unwrap().filter), (11, settings.filter.clone()), "also after a restart");
    let mut member = Member::join(&world, "g", 100).await;
    while seen.len() < 31 {
        let delivered = member.next().await;
        seen.push((delivered.event.as_ref().unwrap().stream.clone(), said(&delivered).parse().unwrap()));
        assert_eq!(member.ack(&[delivered]).await, []);
    }
    for stream in 0..3 {
        let own: Vec<u32> = seen.iter().filter(|(name, _)| *name == format!("s{stream}")).map(|(_, number)| *number).collect();
        let all: Vec<u32> = (0..3_100).filter(|number| number % 100 == 0 && number % 3 == stream).collect();
        assert_eq!(own, all, "each once, in the stream's order");
    }
    let status = world.group_status("g").await;
    assert_eq!((status.lag, status.oldest_unacknowledged), (0, None));
    assert!(status.partitions.iter().all(|partition| partition.offset == partition.end), "it has moved over all others: {status:?}");
    member.leave().await;

    // Lifted, it goes on from where it is.
    let all = Some(pb::EventQuery { items: vec![], all: true });
    let lifted = world.groups.alter(to_alter("g", pb::GroupSettings { filter: all, ..Default::default() })).await.unwrap().into_inner();
    assert_eq!((lifted.lag, lifted.group.unwrap().settings.unwrap().filter), (0, None));
    world.numbers(3_101..3_103).await;
    let mut member = Member::join(&world, "g", 100).await;
    let came: BTreeSet<String> = member.take(2).await.iter().map(said).collect();
    assert_eq!(came, BTreeSet::from(["3101".into(), "3102".into()]));
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn a_rare_event_is_counted_far_behind_one_that_nobody_acknowledges() {
    let mut world = world().await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings { filter: meaning(&[], &["rare"]), ..Default::default() }).await;
    world.numbers(0..1).await;
    let mut member = Member::join(&world, "g", 1).await;
    let held = member.next().await;
    // More than a group runs ahead of its oldest event.
    let write = pb::Write { stream: "s0".into(), events: vec![event("no"); 10_000], ..Default::default() };
    for _ in 0..7 {
        let request = pb::AppendRequest { topic: "t".into(), writes: vec![write.clone()], ..Default::default() };
        world.log.append(request).await.unwrap();
    }
    world.numbers(300..301).await;
    world.until_lag(2).await;
    assert_eq!(member.ack(&[held]).await, []);
    world.until_lag(1).await;
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn settings_are_altered_while_members_are_there_but_for_what_is_fixed() {
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("r", pb::TopicKind::Records).await;
    world.group("g", "t", pb::GroupSettings { max_in_flight: Some(1), ..impatient() }).await;
    world.group("records", "r", pb::GroupSettings::default()).await;
    for n in 0..3 {
        world.append("t", &format!("s{n}"), &["1", "2"]).await;
    }
    let mut member = Member::join(&world, "g", 100).await;
    let first = member.next().await;
    let settings = pb::GroupSettings { max_in_flight: Some(10), max_attempts: Some(1), ..Default::default() };
    let status = world.groups.alter(to_alter("g", settings)).await.unwrap().into_inner();
    let now = status.group.unwrap().settings.unwrap();
    assert_eq!((now.max_in_flight, now.max_attempts, now.backoff_first), (Some(10), Some(1), impatient().backoff_first));
    let others = member.take(2).await;
    member.nack(&first, pb::NackAction::Retry, "no").await;
    assert_eq!(world.parked("g").await.len(), 1, "one attempt is all it has now");
    assert_eq!(member.ack(&others).await, []);
    for (settings, named) in [
        (pb::GroupSettings { ordering: pb::Ordering::None.into(), ..Default::default() }, "ordering"),
        (pb::GroupSettings { filter: meaning(&["Said"], &[]), max_in_flight: Some(1), ..Default::default() }, "filter"),
    ] {
        let refused = world.groups.alter(to_alter("g", settings)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "GROUP_IN_USE"));
        assert!(refused.message().contains(named), "{}", refused.message());
    }
    assert_eq!(world.group_status("g").await.group.unwrap().settings.unwrap().max_in_flight, Some(10), "nothing of it was done");
    member.leave().await;
    let by_partition = pb::GroupSettings { ordering: pb::Ordering::PerPartition.into(), ..Default::default() };
    world.groups.alter(to_alter("g", by_partition)).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            let folder = world.stop().await;
            world = world_over(folder, |_| {}).await;
        }
        let mut member = Member::join(&world, "g", 100).await;
        let came = member.take(2).await;
        let partitions: BTreeSet<u32> = came.iter().map(|one| one.event.as_ref().unwrap().partition).collect();
        assert_eq!((partitions.len(), world.group_status("g").await.in_flight), (2, 2), "one of each partition at a time");
        member.leave().await;
    }
    for (group, settings, code, name) in [
        ("none", pb::GroupSettings::default(), Code::NotFound, "GROUP_NOT_FOUND"),
        ("g", pb::GroupSettings { max_attempts: Some(0), ..Default::default() }, Code::InvalidArgument, "INVALID_REQUEST"),
        (
            "g",
            pb::GroupSettings { filter: Some(pb::EventQuery::default()), ..Default::default() },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "records",
            pb::GroupSettings { filter: meaning(&["A"], &[]), ..Default::default() },
            Code::FailedPrecondition,
            "TOPIC_KIND_MISMATCH",
        ),
    ] {
        let refused = world.groups.alter(to_alter(group, settings)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, name), "{refused:?}");
    }
    world.stop().await;
}
