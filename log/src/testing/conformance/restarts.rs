//! What is still there after a stop and a start.

use super::*;
use crate::{
    ids::{RequestId, StreamHead},
    record::{Identity, RequestKey},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "everything is there after a restart", needs: Needs::Restart, run: everything_is_there },
    Case { name: "versions, offsets, positions and repeats go on after a restart", needs: Needs::Restart, run: it_goes_on },
];

fn everything_is_there(subject: &mut dyn Subject) {
    for round in 0..4 {
        let log = subject.log();
        create(&*log, &format!("e{round}"), TopicKind::Events, 3);
        for number in 0..40 {
            let id = format!("s{}", number % 4);
            let all = (0..=round).map(|topic| events_of(&format!("e{topic}"), &id, &[&format!("{round}.{number}")]));
            put(&*log, writes(all.collect::<Vec<_>>()));
        }
        let snapshot = |log: &dyn LogBackend| {
            let all = log.capabilities().commit_order.then(|| read(log, Selection::All(Position::new(0))));
            let topics = log.topics();
            let ends = topics.iter().map(|topic| log.ends(&topic.name).expect("it is listed")).collect::<Vec<_>>();
            let streams = (0..4).flat_map(|number| (0..=round).map(move |topic| (format!("e{topic}"), format!("s{number}"))));
            let streams = streams.map(|(topic, id)| {
                let head = log.stream_head(&name(&topic), &stream(&id)).expect("it has streams");
                (head, read(log, from_version(&topic, &id, 1)))
            });
            (log.head(), all, topics, ends, streams.collect::<Vec<_>>())
        };
        let before = snapshot(&*log);
        drop(log);
        assert!(subject.restart());
        assert_eq!(snapshot(&*subject.log()), before, "round {round}");
    }
}

fn it_goes_on(subject: &mut dyn Subject) {
    let ask = |round: u8, digest| {
        let key = RequestKey { principal: "ann".into(), id: RequestId::new([round; 16]) };
        Append { identity: Some(Identity { key, digest, first_attempt: None }), ..writes([events_of("e", "s", &["x", "y"])]) }
    };
    create(&*subject.log(), "e", TopicKind::Events, 1);
    let mut answers: Vec<Appended> = Vec::new();
    for round in 0..6 {
        let log = subject.log();
        for (earlier, answer) in (0..).zip(&answers) {
            assert_eq!(&put(&*log, ask(earlier, 7)), &Appended { deduplicated: true, ..answer.clone() });
            assert!(matches!(append(&*log, ask(earlier, 8)), Err(LogError::RequestIdReused { .. })));
        }
        let answer = put(&*log, ask(round, 7));
        let before = u64::from(round) * 2;
        assert_eq!((answer.ranges[0].first.get(), answer.versions[0].version.get()), (before, before + 2));
        if let Some(last) = answers.last() {
            assert!(answer.first >= last.end, "a position is never given again");
        }
        answers.push(answer);
        let stale = Append {
            preconditions: vec![expect("e", "s", Expected::Version(StreamVersion::new(before)))],
            ..writes([events_of("e", "s", &["z"])])
        };
        match append(&*log, stale) {
            Err(LogError::Conflict { violations, .. }) => {
                assert_eq!(stands(&violations[0]).1, StreamHead::At(StreamVersion::new(before + 2)))
            }
            other => panic!("the stream has moved on: {other:?}"),
        }
        drop(log);
        assert!(subject.restart());
    }
}
