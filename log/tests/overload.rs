//! What is too much is refused at once and by name, nothing of it is written, and service returns by itself.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, AppendFuture, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, Position, Stepper, Timestamp, TopicKind, TopicSettings,
    Write,
    clock::{Clock, ManualClock, SystemClock},
    testing::{Random, SimDisk},
};
use futures::FutureExt;

fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        tidy_bytes: 16 << 10,
        untidied_bytes: 100 << 10,
        ..LogConfig::default()
    }
}

fn open_stepped(disk: &SimDisk, config: LogConfig) -> (EmbeddedLog, Stepper) {
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    let mut draw = Random::new(3);
    let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
    let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, random).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    (log, stepper)
}

fn append(log: &EmbeddedLog, bytes: usize) -> Result<AppendFuture, LogError> {
    let event = NewEvent { kind: "E".into(), data: vec![b'x'; bytes].into(), ..NewEvent::default() };
    let write = Write::Stream { topic: "a".parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
    log.append(Append { writes: vec![write], ..Append::default() })
}

/// Appends and commits until the log says that it is too much; returns how many went well.
fn fill(log: &EmbeddedLog, stepper: &mut Stepper) -> u64 {
    for count in 0..1000 {
        match append(log, 3000) {
            Ok(answer) => {
                stepper.commit().unwrap();
                answer.now_or_never().unwrap().unwrap();
            }
            Err(LogError::Overloaded { what }) => {
                assert!(what.contains("segments"), "{what}");
                return count;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nothing was refused");
}

#[test]
fn appends_are_refused_while_segments_are_too_far_behind_and_taken_again_afterwards() {
    let (log, mut stepper) = open_stepped(&SimDisk::new(1), config());
    for _ in 0..3 {
        let before = log.head().position.get();
        let taken = fill(&log, &mut stepper);
        assert!((20..=30).contains(&taken), "{taken} frames of 4 KiB against 100 KiB");
        assert_eq!(log.head().position, Position::new(before + taken), "what was refused is not there");
        assert!(log.metrics().untidied_bytes > 100 << 10);
        stepper.tidy().unwrap();
        assert_eq!(log.metrics().untidied_bytes, 0);
    }
}

#[tokio::test]
async fn a_start_behind_too_much_journal_takes_appends_again_by_itself() {
    let disk = SimDisk::new(2);
    let (log, mut stepper) = open_stepped(&disk, config());
    fill(&log, &mut stepper);
    drop((log, stepper));
    let clock = Arc::new(SystemClock::new());
    let log = EmbeddedLog::open(Arc::new(disk.power_cut()), clock.clone(), Path::new("/data"), config()).unwrap();
    // Nothing is committed meanwhile, so nothing but the start can have woken tidy.
    let answer = loop {
        match append(&log, 10) {
            Ok(answer) => break answer,
            Err(LogError::Overloaded { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(clock.monotonic() < Duration::from_secs(20), "appends are refused for ever");
    };
    answer.await.unwrap();
    log.stop();
}

#[test]
fn a_full_line_refuses_at_once_and_answers_who_is_in_it() {
    let by_count = LogConfig { queue_requests: 3, ..config() };
    let by_bytes = LogConfig { queue_bytes: 4096, ..config() };
    for (config, bytes) in [(by_count, 10), (by_bytes, 1000)] {
        let (log, mut stepper) = open_stepped(&SimDisk::new(3), config);
        for round in 1..4 {
            let waiting: Vec<_> = (0..3).map(|_| append(&log, bytes).unwrap()).collect();
            let Err(LogError::Overloaded { what }) = append(&log, bytes) else { panic!("a fourth one was taken") };
            assert!(what.contains("waiting"), "{what}");
            stepper.commit().unwrap();
            for answer in waiting {
                answer.now_or_never().unwrap().unwrap();
            }
            assert_eq!(log.head().position, Position::new(3 * round), "three are there, and not the refused one");
        }
    }
}
