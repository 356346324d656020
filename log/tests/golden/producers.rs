//! What producers did.

use super::*;

fn producer() -> ProducerKey {
    ProducerKey { principal: "ann".into(), id: ProducerId::new([9; 16]) }
}

/// Unit `number` of the producer; the third one is refused.
fn unit(epoch: ProducerEpoch, number: u64) -> Append {
    let (topic, stream): (TopicName, StreamId) = ("accounts".parse().expect("a valid name"), "account-1".parse().expect("a valid id"));
    let never = Precondition::Stream { topic: topic.clone(), stream: stream.clone(), expected: Expected::Absent };
    let event = NewEvent { kind: "Deposited".into(), data: Bytes::from(number.to_string()), ..NewEvent::default() };
    Append {
        writes: vec![Write::Stream { topic, stream, events: vec![event] }],
        preconditions: if number == 3 { vec![never] } else { Vec::new() },
        sequenced: Some(Sequenced { key: producer(), epoch, sequence: Sequence::new(number) }),
        ..Append::default()
    }
}

/// Requests with ids and units of a producer, some in the window file, some in the journal alone: frames need version 3, the file version 2.
fn write_producers() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let (log, mut stepper) =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock(), Path::new(DATA), config(), random).expect("it opens");
    for (topic, kind, partitions) in [("accounts", TopicKind::Events, 2), ("plain", TopicKind::Records, 1)] {
        log.create_topic(topic.parse().expect("a valid name"), TopicSettings::new(kind, partitions)).expect("it is new");
    }
    let answer = log.append(event(1)).expect("there is room");
    stepper.commit().expect("no fault");
    block_on(answer).expect("nothing speaks against it");
    let opened = log.open_producer(producer(), None).expect("there is room");
    stepper.commit().expect("no fault");
    let epoch = block_on(opened).expect("nothing speaks against it").epoch;
    for number in 1..=5 {
        let answer = log.append(unit(epoch, number)).expect("there is room");
        stepper.commit().expect("no fault");
        assert_eq!(block_on(answer).is_ok(), number != 3);
        if number == 4 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn what_producers_did_is_kept_in_frames_of_version_3_and_a_window_file_of_version_2() {
    let golden = golden("producers");
    compare(&write_producers(), &golden);
    let (_folder, data) = copied(&golden);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    assert!(block_on(log.append(event(1)).expect("there is room")).expect("it is remembered").deduplicated);
    // As the folder has it.
    let epoch = ProducerEpoch::new(1_357_000_000_000);
    let opened = block_on(log.open_producer(producer(), Some(epoch)).expect("there is room")).expect("it is the newest");
    assert_eq!(opened.next, Sequence::new(6));
    for (number, position) in [(1, Some(3)), (2, Some(4)), (3, None), (4, Some(5)), (5, Some(6)), (6, Some(7))] {
        match (block_on(log.append(unit(epoch, number)).expect("there is room")), position) {
            (Ok(answer), Some(position)) => assert_eq!((answer.first.get(), answer.deduplicated), (position, number < 6)),
            (Err(LogError::RefusedBefore { .. }), None) => {}
            other => panic!("unit {number}: {other:?}"),
        }
    }
    log.stop();
}
