//! Query conditions under fire: many writers at once, whose log proves every verdict afterwards, and files of postings that rot.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    Append, EmbeddedLog, EventQuery, Found, LogBackend, LogConfig, LogError, NewEvent, Position, Precondition, QueryAbsent, QueryItem,
    ReadLimits, Scope, Selection, Tag, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::{ManualClock, SystemClock},
    testing::{Random, SimDisk, conformance::block_on},
};

const TOPICS: [&str; 2] = ["a", "b"];
const WRITERS: u64 = 16;
const APPENDS: u64 = 150;

fn config() -> LogConfig {
    LogConfig {
        journal_file_bytes: 128 << 10,
        first_journal_file_bytes: 64 << 10,
        tail_bytes: 64 << 10,
        tidy_bytes: 16 << 10,
        segment_bytes: 32 << 10,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk) -> EmbeddedLog {
    let log = EmbeddedLog::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/data"), config()).unwrap();
    for topic in TOPICS {
        log.create_topic(topic.parse().unwrap(), TopicSettings::new(TopicKind::Events, 3)).unwrap();
    }
    log
}

fn tag(number: u64) -> Tag {
    format!("tag{number}").parse().unwrap()
}

fn event(kind: u64, tags: Vec<Tag>, data: String) -> NewEvent {
    NewEvent { kind: format!("K{kind}").into(), tags, data: data.into(), ..NewEvent::default() }
}

fn of(topic: &str, stream: u64, events: Vec<NewEvent>) -> Write {
    Write::Stream { topic: topic.parse().unwrap(), stream: format!("s{stream}").parse().unwrap(), events }
}

/// What a writer asked, and what it was told: the first position it was given, or the first event that was in its way.
struct Asked {
    query: QueryAbsent,
    told: Result<Position, Position>,
    /// The end of the log that the verdict rests on.
    seen: Position,
}

fn condition(random: &mut Random, end: Position) -> QueryAbsent {
    let scope = match random.below(4) {
        0 => Scope::Everything,
        1 => Scope::Topics(TOPICS.map(|topic| topic.parse().unwrap()).into()),
        one => Scope::Topics(vec![TOPICS[(one % 2) as usize].parse().unwrap()]),
    };
    let mut items = Vec::new();
    for _ in 0..=random.below(2) {
        let types = (0..random.below(3)).map(|_| format!("K{}", random.below(6)).into()).collect();
        let tags = (0..random.below(3)).map(|_| tag(random.below(20))).collect();
        items.push(QueryItem { types, tags });
    }
    let back = random.below(40);
    QueryAbsent { scope, query: EventQuery::Items(items), after: end.get().checked_sub(1 + back).map(Position::new) }
}

/// Half of it after tidy has been there, so that much is looked up in files.
fn write(log: &EmbeddedLog, writer: u64, checkpoints_before: u64) -> Vec<Asked> {
    let mut random = Random::new(writer);
    let mut asked = Vec::new();
    for number in 0..APPENDS {
        while number == APPENDS / 2 && log.metrics().checkpoints == checkpoints_before {
            std::thread::yield_now();
        }
        let query = condition(&mut random, log.head().position);
        let mut events = Vec::new();
        for _ in 0..=random.below(2) {
            let tags = [random.below(10), 10 + random.below(10)].map(tag).into();
            events.push(event(random.below(6), tags, format!("{writer}/{number}")));
        }
        let writes = vec![of(TOPICS[random.below(2) as usize], random.below(9), events)];
        let append = Append { writes, preconditions: vec![Precondition::QueryAbsent(query.clone())], ..Append::default() };
        match block_on(log.append(append).unwrap()) {
            Ok(answer) => asked.push(Asked { query, told: Ok(answer.first), seen: answer.first }),
            Err(LogError::Conflict { violations, seen }) => {
                let Found::Event { first } = violations[0].found else { panic!("not about a query") };
                assert!(first < seen && seen <= log.head().position, "what beat it is durable");
                asked.push(Asked { query, told: Err(first), seen });
            }
            Err(error) => panic!("{error}"),
        }
    }
    asked
}

/// An event as read: its topic, type and tags, at the position that is its place.
type Read = (TopicName, String, Vec<String>);

fn read_all(log: &EmbeddedLog) -> Vec<Read> {
    let mut reader = log.reader(Selection::All(Position::new(0))).unwrap();
    let mut all = Vec::new();
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
        if chunk.runs.is_empty() {
            return all;
        }
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.unwrap();
                let event = record.event().unwrap();
                assert_eq!(record.position.get(), all.len() as u64);
                all.push((run.topic.name.clone(), event.kind.to_owned(), event.tags().map(ToOwned::to_owned).collect()));
            }
        }
    }
}

/// The first of the log's events below `end` that violates a condition.
fn first_match(all: &[Read], asked: &QueryAbsent, end: Position) -> Option<Position> {
    let EventQuery::Items(items) = &asked.query else { panic!("not asked") };
    let matches = |(topic, kind, tags): &Read| {
        let in_scope = match &asked.scope {
            Scope::Topics(topics) => topics.contains(topic),
            Scope::Everything => true,
        };
        let is_of = |item: &QueryItem| {
            let of_type = item.types.is_empty() || item.types.iter().any(|wanted| **wanted == **kind);
            of_type && item.tags.iter().all(|wanted| tags.iter().any(|tag| tag == wanted.as_str()))
        };
        in_scope && items.iter().any(is_of)
    };
    let from = asked.after.map_or(0, |after| after.get() + 1);
    let found = all.iter().zip(0..end.get()).find(|(event, position)| *position >= from && matches(event));
    found.map(|(_, position)| Position::new(position))
}

#[test]
fn the_log_of_sixteen_writers_proves_every_verdict_on_their_queries() {
    let log = open(&SimDisk::new(1));
    let checkpoints_before = log.metrics().checkpoints;
    let asked: Vec<Asked> = std::thread::scope(|scope| {
        let writers = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let log = &log;
                    move || write(log, writer, checkpoints_before)
                })
            })
            .collect::<Vec<_>>();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let all = read_all(&log);
    let (mut committed, mut rejected) = (0, 0);
    for Asked { query, told, seen } in &asked {
        // A commit was right if nothing before it matches; a rejection, if that is the first event that does.
        let expected = first_match(&all, query, *seen);
        match told {
            Ok(first) => {
                assert_eq!(expected, None, "{query:?}, committed at {first}");
                committed += 1;
            }
            Err(first) => {
                assert_eq!(expected, Some(*first), "{query:?}, judged at {seen}");
                rejected += 1;
            }
        }
    }
    assert_eq!(committed + rejected, WRITERS * APPENDS);
    assert!(committed > 300 && rejected > 300, "{committed} committed, {rejected} rejected");
}

#[test]
fn conditions_that_have_nothing_to_do_with_each_other_never_conflict() {
    let log = open(&SimDisk::new(2));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50 {
                    let item = QueryItem { types: vec!["K1".into()], tags: vec![tag(writer * 1000 + number)] };
                    let query = EventQuery::Items(vec![item.clone()]);
                    let absent = QueryAbsent { scope: Scope::Everything, query, after: None };
                    let writes = vec![of("a", writer, vec![event(1, item.tags, String::new())])];
                    let append = Append { writes, preconditions: vec![Precondition::QueryAbsent(absent)], ..Append::default() };
                    block_on(log.append(append).unwrap()).unwrap();
                }
            });
        }
    });
    assert_eq!(log.head().position.get(), WRITERS * 50);
}

/// A log stepped by hand, of which 200 numbered events are in segments and files of postings.
fn written(disk: &SimDisk) {
    let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config(), || 7).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 3)).unwrap();
    for number in 0..200 {
        let write = of("a", number % 7, vec![event(number % 3, vec![tag(number)], String::new())]);
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        block_on(answer).unwrap();
        if number % 40 == 39 {
            stepper.tidy().unwrap();
        }
    }
    stepper.seal().unwrap();
}

fn postings(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("/data/postings") && path.extension().is_some()).collect()
}

/// Asks for every event by its tag, and by its type and tag from right before it.
fn found_by_tags(disk: &SimDisk) {
    let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config(), || 8).unwrap();
    for number in 0..200_u64 {
        let absent = |types, after| {
            let query = EventQuery::Items(vec![QueryItem { types, tags: vec![tag(number)] }]);
            Precondition::QueryAbsent(QueryAbsent { scope: Scope::Topics(vec!["a".parse().unwrap()]), query, after })
        };
        let kind = vec![format!("K{}", number % 3).into()];
        let after = |number: Option<u64>| number.map(Position::new);
        let preconditions = vec![absent(vec![], None), absent(kind, after(number.checked_sub(1))), absent(vec![], after(Some(number)))];
        let answer = log.append(Append { preconditions, ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        let Err(LogError::Conflict { violations, .. }) = block_on(answer) else { panic!("event {number} is there") };
        let found = violations.iter().map(|violation| (violation.index, violation.found.clone())).collect::<Vec<_>>();
        let first = Found::Event { first: Position::new(number) };
        assert_eq!(found, [(0, first.clone()), (1, first)], "event {number}");
    }
}

#[test]
fn postings_that_are_gone_or_damaged_are_made_again() {
    let disk = SimDisk::new(3);
    written(&disk);
    let files = postings(&disk);
    assert!(!files.is_empty());
    found_by_tags(&disk);
    assert_eq!(postings(&disk), files, "a start that finds them makes none");
    let places: [fn(usize) -> usize; 5] = [|_| 0, |_| 30, |length| length / 3, |length| length - 2000, |length| length - 4090];
    for number in 0..files.len() {
        for place in places {
            // Files behind one that is damaged are made again with it, and perhaps as one.
            let files = postings(&disk);
            let file = files.get(number).unwrap_or(&files[0]);
            let mut bytes = disk.bytes_of(file).unwrap();
            let place = place(bytes.len());
            bytes[place] ^= 1;
            disk.overwrite(file, bytes);
            found_by_tags(&disk);
        }
    }
    for file in postings(&disk) {
        foldlog_log::disk::Disk::remove(&disk, &file).unwrap();
    }
    found_by_tags(&disk);
    assert!(!postings(&disk).is_empty());
}

#[test]
fn a_start_that_meets_damage_while_it_makes_postings_again_tells_it_and_goes_on() {
    let disk = SimDisk::new(4);
    written(&disk);
    for file in postings(&disk) {
        foldlog_log::disk::Disk::remove(&disk, &file).unwrap();
    }
    let log = disk.paths().into_iter().find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap();
    let mut bytes = disk.bytes_of(&log).unwrap();
    bytes[100] ^= 1;
    disk.overwrite(&log, bytes);
    let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config(), || 8).unwrap();
    assert_eq!(log.report().damaged.len(), 1, "{:?}", log.report());
    let append = |stream: u64, preconditions| Append {
        writes: vec![of("a", stream, vec![event(1, vec![], String::new())])],
        preconditions,
        ..Append::default()
    };
    let absent = QueryAbsent { scope: Scope::Everything, query: EventQuery::All, after: None };
    let refused = log.append(append(0, vec![Precondition::QueryAbsent(absent)])).map(drop);
    assert!(matches!(refused, Err(LogError::PartitionReadOnly { .. })), "nobody guesses what it held");
    let answers: Vec<_> = (0..7).filter_map(|stream| log.append(append(stream, vec![])).ok()).collect();
    stepper.commit().unwrap();
    assert!(!answers.is_empty(), "the other partitions go on");
    answers.into_iter().for_each(|answer| drop(block_on(answer).unwrap()));
}
