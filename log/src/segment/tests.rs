//! Segments, whole: what was appended is read back, from every place, after every cut, or the damage is named.

mod blanks;
mod compression;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;

use super::*;
use crate::{
    batch::{BatchBuilder, Encoded},
    compaction::Cleaned,
    disk::Disk,
    error::LogError,
    ids::{FolderId, Offset, PartitionId, Position, StreamVersion, Timestamp, TopicId},
    life::{RedactionAt, SnapshotAt, Standing},
    record::{NewEvent, Run},
    testing::{CallKind, Fault, Random, SimDisk},
    topic::{Compression, Topic, TopicKind, TopicSettings},
};

const FOLDER: &str = "/data/t/0";

/// (offset, position, server time, stream, version, payload) of a record.
type Stored = (u64, u64, i64, String, u64, Vec<u8>);

/// What was appended, and what a reader must find.
#[derive(Clone, Default)]
struct Model {
    records: Vec<Stored>,
    versions: BTreeMap<String, u64>,
    position: u64,
}

fn topic(compression: Compression) -> Arc<Topic> {
    let settings = TopicSettings { compression, ..TopicSettings::new(TopicKind::Events, 1) };
    Arc::new(Topic { name: "t".parse().expect("a valid name"), id: TopicId::new([3; 16]), settings })
}

fn hasher() -> StreamHasher {
    StreamHasher::new(FolderId::new([5; 16]))
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// The runs of one group: a batch of several units, between which other partitions took positions.
    fn group(&mut self, random: &mut Random) -> Vec<Run> {
        self.group_with(random, |random| vec![b'x'; usize::try_from(random.below(60)).expect("small")])
    }

    /// As [`Model::group`], with what payloads are told.
    fn group_with(&mut self, random: &mut Random, payload: impl Fn(&mut Random) -> Vec<u8>) -> Vec<Run> {
        let base = Offset::new(self.end());
        let mut builder = BatchBuilder::new(base);
        let mut runs = Vec::new();
        let now = Timestamp::new(1_000 + i64::try_from(self.position).expect("small") * 2);
        for _ in 0..=random.below(3) {
            self.position += random.below(3);
            let stream = format!("stream-{}", random.below(6));
            let id = stream.parse().expect("a valid id");
            let version = self.versions.get(&stream).copied().unwrap_or(0);
            let mut encoded = Encoded::default();
            let first = self.end();
            for place in 0..=random.below(4) {
                let data = payload(random);
                let event = NewEvent { kind: "Happened".into(), data: Bytes::from(data.clone()), ..NewEvent::default() };
                encoded.push_event(&id, &event).expect("within limits");
                self.records.push((first + place, self.position + place, now.get(), stream.clone(), version + 1 + place, data));
            }
            let start = builder.push(&encoded, StreamVersion::new(version + 1), now);
            self.versions.insert(stream, version + u64::from(encoded.count()));
            runs.push(Run {
                topic: topic(Compression::None),
                partition: PartitionId::new(0),
                first_offset: Offset::new(first),
                first_position: Position::new(self.position),
                count: encoded.count(),
                recorded_at: now,
                batch: Bytes::new(),
                start,
            });
            self.position += u64::from(encoded.count());
        }
        let batch = builder.finish(1);
        runs.iter_mut().for_each(|run| run.batch = batch.clone());
        runs
    }
}

/// A disk on which the data folder is there.
fn new_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_folder(Path::new("/data")).expect("no fault");
    disk.sync_folder(Path::new("/")).expect("no fault");
    disk
}

const SMALL: u64 = 4_000;

fn layout(segments: &Segments) -> Layout {
    Layout { compression: segments.topic().settings.compression, max_log_bytes: SMALL }
}

/// Opens what is there, whole or not, and changes nothing. What is appended is compressed in another way each time.
fn look_at(disk: &SimDisk, mark: Option<&PartitionMark>) -> Result<Arc<Segments>, LogError> {
    let place = usize::try_from(mark.map_or(1, |mark| mark.end.get()) % 3).expect("small");
    look_as(disk, mark, Compression::ALL[place])
}

fn look_as(disk: &SimDisk, mark: Option<&PartitionMark>, compression: Compression) -> Result<Arc<Segments>, LogError> {
    let files = OpenFiles::new(Arc::new(disk.clone()), 4);
    let known = mark.map(|mark| Checkpointed {
        mark: *mark,
        below: Position::new(u64::MAX),
        removed: Position::default(),
        rewritten: Vec::new(),
        cleaned: Cleaned::default(),
    });
    Segments::open(files, FOLDER.into(), topic(compression), PartitionId::new(0), hasher(), known)
}

/// Opens what must be whole.
fn open(disk: &SimDisk, mark: Option<&PartitionMark>) -> Result<Arc<Segments>, LogError> {
    let segments = look_at(disk, mark)?;
    segments.settle()?;
    match segments.damage() {
        Some(damage) => Err(damage.report()),
        None => Ok(segments),
    }
}

fn read_all(reader: &mut Reader, most: u32) -> Result<Vec<Stored>, LogError> {
    let mut found = Vec::new();
    while let Some(position) = reader.peek()? {
        let run = reader.next_run(most)?.expect("what was peeked is there");
        assert_eq!(run.first_position, position);
        found.extend(stored_in(&run)?);
    }
    Ok(found)
}

/// What lies before a reader's place, the newest first.
fn read_back(reader: &mut Reader, most: u32) -> Result<Vec<Stored>, LogError> {
    let mut found = Vec::new();
    while let Some(position) = reader.peek_back()? {
        let run = reader.previous_run(most)?.expect("what was peeked is there");
        assert!(run.end_position() == position && run.count <= most);
        found.extend(stored_in(&run)?.into_iter().rev());
    }
    Ok(found)
}

fn stored_in(run: &Run) -> Result<Vec<Stored>, LogError> {
    let mut found = Vec::new();
    for record in run.records() {
        let record = record?;
        let event = record.event().expect("an event");
        let stream = String::from_utf8(record.key.expect("a key").to_vec()).expect("a name");
        let data = record.value.expect("a payload").to_vec();
        found.push((record.offset.get(), record.position.get(), run.recorded_at.get(), stream, event.version.get(), data));
    }
    Ok(found)
}

/// Reads everything in every way and compares it with the model, up to `end`.
fn compare(segments: &Arc<Segments>, model: &Model, end: u64) -> Result<(), LogError> {
    let all = &model.records[..usize::try_from(end).expect("small")];
    assert_eq!(segments.end(), Offset::new(end));
    for from in [0, 1, end / 3, end / 2, end.saturating_sub(1), end, end + 5] {
        let from_place = usize::try_from(from).expect("small").min(all.len());
        let mut reader = segments.reader(Start::Offset(Offset::new(from)), true)?;
        assert_eq!(read_all(&mut reader, u32::MAX)?, all[from_place..], "from offset {from}");
        let mut reader = segments.reader(Start::Offset(Offset::new(from)), false)?;
        assert_eq!(read_all(&mut reader, 2)?, all[from_place..], "from offset {from}, two at a time");
        for (is_sequential, most) in [(true, u32::MAX), (false, 2)] {
            let mut reader = segments.reader(Start::Offset(Offset::new(from)), is_sequential)?;
            let mut backwards = read_back(&mut reader, most)?;
            backwards.reverse();
            assert_eq!(backwards, all[..from_place], "before offset {from}");
        }
    }
    for from in [0, model.position / 4, model.position / 2, model.position] {
        let mut reader = segments.reader(Start::Position(Position::new(from)), true)?;
        let expected = all.iter().filter(|record| record.1 >= from).cloned().collect::<Vec<_>>();
        assert_eq!(read_all(&mut reader, u32::MAX)?, expected, "from position {from}");
    }
    let mut heads = BTreeMap::new();
    segments.for_each_stream(|stream, standing, _, _| {
        let head = heads.entry(stream).or_insert(standing.newest);
        *head = standing.newest.max(*head);
    })?;
    for stream in (0..6).map(|number| format!("stream-{number}")) {
        let hash = hasher().hash(stream.as_bytes());
        let expected = all.iter().filter(|record| record.3 == stream).map(|record| (record.4, record.0)).collect::<Vec<_>>();
        let head = expected.last().map(|(version, _)| StreamVersion::new(*version));
        assert_eq!(heads.get(&hash).copied(), head, "{stream}");
        for (from, most) in [(1, usize::MAX), (expected.len() / 2, usize::MAX), (1, 3), (expected.len(), 2)] {
            let found = segments.stream(hash, StreamVersion::new(from as u64), None, most)?;
            let found = found.into_iter().map(|(version, offset)| (version.get(), offset.get())).collect::<Vec<_>>();
            let wanted = expected.iter().filter(|(version, _)| *version >= from as u64).take(most).copied().collect::<Vec<_>>();
            assert_eq!(found, wanted, "{stream} from {from}");
            // Where to look can be said, and what lies before can be asked for.
            let behind = wanted.first().map(|(_, offset)| Offset::new(*offset));
            let again = segments.stream(hash, StreamVersion::new(from as u64), behind, most)?;
            assert!(again.iter().map(|(version, offset)| (version.get(), offset.get())).eq(wanted), "{stream} from {from}");
            for below in [u64::MAX, expected.get(from.saturating_sub(1)).map_or(end, |(_, offset)| *offset)] {
                let found = segments.stream_before(hash, StreamVersion::new(from as u64), Offset::new(below), most)?;
                let wanted = expected.iter().rev().filter(|(version, _)| *version < from as u64).take(most);
                assert!(found.iter().map(|(version, offset)| (version.get(), offset.get())).eq(wanted.copied()), "{stream} before {from}");
            }
            if let Some(offset) = behind {
                assert_eq!(segments.version_at(hash, offset)?, Some(StreamVersion::new(from.max(1) as u64)));
            }
        }
    }
    for time in all.iter().flat_map(|record| [record.2, record.2 + 1]).step_by(7).chain([0, i64::MAX]) {
        let first = all.iter().find(|record| record.2 >= time).map(|record| (Offset::new(record.0), Position::new(record.1)));
        assert_eq!(segments.at_time(Timestamp::new(time))?, first, "from {time}");
    }
    for time in all.iter().map(|record| record.2).step_by(17) {
        let first = all.iter().find(|record| record.2 >= time).expect("itself").0;
        assert!(segments.offset_before(Timestamp::new(time)).get() <= first);
    }
    assert_eq!(segments.offset_before(Timestamp::new(i64::MAX)), Offset::new(end));
    Ok(())
}

/// Appends a few groups, syncs, and so on; returns the marks with what each covers.
fn fill(segments: &Segments, model: &mut Model, random: &mut Random, passes: u32) -> Result<Option<(PartitionMark, u64)>, LogError> {
    let mut last = None;
    for _ in 0..passes {
        let mut runs = Vec::new();
        for _ in 0..=random.below(4) {
            runs.extend(model.group(random));
        }
        segments.append(&runs, &[], layout(segments))?;
        last = segments.sync()?.map(|synced| (synced.mark, model.end()));
    }
    Ok(last)
}

#[test]
fn what_was_appended_is_read_from_every_place_across_segments_and_restarts() {
    let (mut random, mut model) = (Random::new(1), Model::default());
    let disk = new_disk(1);
    let mut mark = None;
    for _ in 0..6 {
        let segments = open(&disk, mark.as_ref()).expect("opens");
        compare(&segments, &model, model.end()).expect("reads");
        mark = fill(&segments, &mut model, &mut random, 8).expect("appends").map(|(mark, _)| mark);
        compare(&segments, &model, model.end()).expect("reads");
    }
    let mark = mark.expect("something was appended");
    let mut bytes = Vec::new();
    mark.encode(&mut bytes);
    assert_eq!((bytes.len(), PartitionMark::decode(&bytes)), (PartitionMark::ENCODED_LEN, Some(mark)));
    assert!(disk.paths().len() > 20, "it takes many segments to be a test: {:?}", disk.paths());
}

#[test]
fn a_reader_goes_on_when_there_is_more() {
    let (mut random, mut model) = (Random::new(2), Model::default());
    let segments = open(&new_disk(2), None).expect("opens");
    let mut reader = segments.reader(Start::Offset(Offset::new(0)), true).expect("opens");
    let mut found = Vec::new();
    for _ in 0..40 {
        fill(&segments, &mut model, &mut random, 1).expect("appends");
        found.extend(read_all(&mut reader, 3).expect("reads"));
        assert_eq!(found, model.records);
    }
}

#[test]
fn a_checkpointed_prefix_survives_every_power_cut() {
    for seed in 0..150 {
        let (mut random, mut model) = (Random::new(seed), Model::default());
        let mut disk = new_disk(seed);
        let mut mark: Option<(PartitionMark, u64)> = None;
        for _ in 0..4 {
            let covered = mark.map_or(0, |(_, end)| end);
            let segments = open(&disk, mark.as_ref().map(|(mark, _)| mark)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            compare(&segments, &model, covered).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            // The journal has what was cut off; here it is other events.
            model.records.truncate(usize::try_from(covered).expect("small"));
            model.versions.clear();
            for record in &model.records {
                model.versions.insert(record.3.clone(), record.4);
            }
            disk.arm(Fault::PowerOff { nth: random.below(150) });
            for _ in 0..12 {
                match fill(&segments, &mut model, &mut random, 1) {
                    Ok(found) => mark = found.or(mark),
                    Err(_) => break,
                }
            }
            disk = disk.power_cut();
        }
    }
}

#[test]
fn a_call_refused_by_a_full_disk_can_be_made_again() {
    let mut failed = 0;
    for nth in 0..60 {
        let (mut random, mut model) = (Random::new(7), Model::default());
        let disk = new_disk(nth);
        let segments = open(&disk, None).expect("opens");
        disk.arm(Fault::Fail { kind: Some(CallKind::Write), nth, errno: 28 });
        let mut mark = None;
        for _ in 0..10 {
            let runs = (0..3).flat_map(|_| model.group(&mut random)).collect::<Vec<_>>();
            if segments.append(&runs, &[], layout(&segments)).is_err() {
                segments.append(&runs, &[], layout(&segments)).expect("there is room again");
            }
            mark = match segments.sync() {
                Err(LogError::Io { source, .. }) if source.raw_os_error() == Some(28) => segments.sync().expect("there is room again"),
                result => result.expect("syncs"),
            };
        }
        failed += usize::from(disk.is_disarmed());
        compare(&segments, &model, model.end()).expect("reads");
        let segments = open(&disk.power_cut(), mark.as_ref().map(|synced| &synced.mark)).expect("opens");
        compare(&segments, &model, model.end()).expect("reads");
    }
    assert!(failed > 30, "{failed}");
}

#[test]
fn runs_that_do_not_follow_are_refused() {
    let (mut random, mut model) = (Random::new(3), Model::default());
    let segments = open(&new_disk(3), None).expect("opens");
    let first = model.group(&mut random);
    let second = model.group(&mut random);
    let third = model.group(&mut random);
    segments.append(&first, &[], layout(&segments)).expect("appends");
    assert!(matches!(segments.append(&third, &[], layout(&segments)), Err(LogError::Invalid { .. })));
    segments.append(&[first, second].concat(), &[], layout(&segments)).expect("what is there already is passed over");
    segments.append(&third, &[], layout(&segments)).expect("appends");
    compare(&segments, &model, model.end()).expect("reads");
}

#[test]
fn open_files_are_bounded() {
    let (mut random, mut model) = (Random::new(4), Model::default());
    let disk = new_disk(4);
    let files = OpenFiles::new(Arc::new(disk), 3);
    let segments =
        Segments::open(files.clone(), FOLDER.into(), topic(Compression::Lz4), PartitionId::new(0), hasher(), None).expect("opens");
    segments.settle().expect("no fault");
    fill(&segments, &mut model, &mut random, 30).expect("appends");
    compare(&segments, &model, model.end()).expect("reads");
    assert!((1..=3).contains(&files.count()));
}

/// A small partition with sealed segments and an active one.
fn sample() -> (SimDisk, PartitionMark, Model) {
    sample_as(Compression::None)
}

fn sample_as(compression: Compression) -> (SimDisk, PartitionMark, Model) {
    let (mut random, mut model) = (Random::new(11), Model::default());
    let disk = new_disk(11);
    let segments = look_as(&disk, None, compression).expect("opens");
    segments.settle().expect("no fault");
    let (mark, _) = fill(&segments, &mut model, &mut random, 12).expect("appends").expect("something was appended");
    assert!(mark.active > Offset::new(0), "there are sealed segments");
    (disk.power_cut(), mark, model)
}

/// Opens and reads everything after a file was changed: equal answers, or a report of that file.
fn answers_or_reports(disk: &SimDisk, mark: &PartitionMark, model: &Model, path: &Path, what: &str) -> bool {
    match open(disk, Some(mark)).and_then(|segments| compare(&segments, model, model.end())) {
        Ok(()) => true,
        Err(LogError::Corrupt { file, .. } | LogError::Format { file, .. }) => {
            let same = file.file_stem() == path.file_stem();
            assert!(same, "{what} in {} is blamed on {}", path.display(), file.display());
            false
        }
        Err(error) => panic!("{what} in {}: {error}", path.display()),
    }
}

fn is_derived(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["index", "keys", "keylog"].iter().any(|derived| extension == *derived))
}

#[test]
fn every_flipped_byte_gives_the_same_answer_or_an_exact_report() {
    let (disk, mark, model) = sample();
    let (mut same, mut reported) = (0, 0);
    for path in disk.paths() {
        let bytes = disk.bytes_of(&path).expect("it is listed");
        // Every byte of the small files, every seventh of the batches.
        let step = if path.extension().is_some_and(|extension| extension == "log") { 7 } else { 1 };
        for place in (0..bytes.len()).step_by(step) {
            let disk = disk.fork();
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            disk.overwrite(&path, damaged);
            let is_same = answers_or_reports(&disk, &mark, &model, &path, &format!("byte {place} flipped"));
            assert_eq!(is_same, is_derived(&path), "byte {place} of {}", path.display());
            if is_same { same += 1 } else { reported += 1 }
        }
    }
    assert!(same > 500 && reported > 500, "{same} {reported}");
}

#[test]
fn every_truncation_gives_the_same_answer_or_an_exact_report() {
    let (disk, mark, model) = sample();
    for path in disk.paths() {
        let bytes = disk.bytes_of(&path).expect("it is listed");
        for length in (0..bytes.len()).step_by(5) {
            let disk = disk.fork();
            disk.overwrite(&path, bytes[..length].to_vec());
            let is_same = answers_or_reports(&disk, &mark, &model, &path, &format!("cut to {length}"));
            assert_eq!(is_same, is_derived(&path), "{} cut to {length}", path.display());
        }
    }
}

#[test]
fn missing_swapped_and_foreign_files_are_named() {
    let (disk, mark, model) = sample();
    for path in disk.paths() {
        let missing = disk.fork();
        missing.remove(&path).expect("no fault");
        let named = match open(&missing, Some(&mark)).and_then(|segments| compare(&segments, &model, model.end())) {
            Ok(()) => is_derived(&path),
            Err(LogError::Corrupt { .. }) => !is_derived(&path),
            Err(error) => panic!("{}: {error}", path.display()),
        };
        assert!(named, "{} missing", path.display());
        // Another file of the same kind in its place.
        let like = |other: &&std::path::PathBuf| other.extension() == path.extension() && **other != path;
        if let Some(other) = disk.paths().iter().find(like) {
            let swapped = disk.fork();
            swapped.overwrite(&path, disk.bytes_of(other).expect("it is listed"));
            let is_same = answers_or_reports(&swapped, &mark, &model, &path, "another segment's file");
            assert_eq!(is_same, is_derived(&path), "{}", path.display());
        }
    }
    let stray = disk.fork();
    for name in ["lost+found.txt", "00000000000000000000.log~", "0.log"] {
        stray.create(&Path::new(FOLDER).join(name)).expect("no fault");
    }
    assert!(answers_or_reports(&stray, &mark, &model, Path::new(FOLDER), "stray files"));
    assert!(stray.bytes_of(&Path::new(FOLDER).join("0.log")).is_some(), "none of ours is left alone");
}

#[test]
fn a_folder_without_a_mark_is_emptied_and_filled_again() {
    let (disk, ..) = sample();
    let (mut random, mut model) = (Random::new(12), Model::default());
    let segments = open(&disk, None).expect("opens");
    assert_eq!(segments.end(), Offset::new(0));
    fill(&segments, &mut model, &mut random, 10).expect("appends");
    compare(&segments, &model, model.end()).expect("reads");
}

/// Reads from an offset until the end or the damage.
fn read_up_to_damage(segments: &Arc<Segments>, from: u64) -> (Vec<u64>, Option<String>) {
    let mut reader = segments.reader(Start::Offset(Offset::new(from)), true).expect("opens");
    let mut found = Vec::new();
    loop {
        match reader.next_run(u32::MAX) {
            Ok(Some(run)) => found.extend((0..u64::from(run.count)).map(|place| run.first_offset.get() + place)),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
}

/// Reads backwards from an offset until the beginning or the damage.
fn read_down_to_damage(segments: &Arc<Segments>, before: u64) -> (Vec<u64>, Option<String>) {
    let mut reader = segments.reader(Start::Offset(Offset::new(before)), true).expect("opens");
    let mut found = Vec::new();
    loop {
        match reader.previous_run(u32::MAX) {
            Ok(Some(run)) => found.extend((0..u64::from(run.count)).rev().map(|place| run.first_offset.get() + place)),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
}

#[test]
fn around_a_lost_segment_everything_is_read_and_in_it_the_report() {
    let (disk, mark, model) = sample();
    let logs: Vec<_> = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let base = |path: &Path| path.file_stem().expect("a name").to_string_lossy().parse::<u64>().expect("a number");
    let mut read = 0;
    for (place, path) in logs.iter().enumerate() {
        let (first, end) = (base(path), logs.get(place + 1).map_or(model.end(), |next| base(next)));
        for whole in [false, true] {
            let damaged = disk.fork();
            damaged.remove(path).expect("no fault");
            if whole {
                for extension in ["runs", "index", "keys", "keylog"] {
                    let _ = damaged.remove(&path.with_extension(extension));
                }
            }
            let changes = damaged.changes();
            let segments = look_at(&damaged, Some(&mark)).expect("opens");
            let report = segments.damage().expect("it is noticed").report().to_string();
            assert!(report.contains(&path.display().to_string()), "{report}");
            assert!(report.contains(&format!("offsets from {first} to {end} (exclusive) of topic t partition 0")), "{report}");
            assert_eq!(read_up_to_damage(&segments, 0), ((0..first).collect(), Some(report.clone())));
            assert_eq!(read_up_to_damage(&segments, end), ((end..model.end()).collect(), None));
            assert_eq!(read_down_to_damage(&segments, first), ((0..first).rev().collect(), None));
            assert_eq!(read_down_to_damage(&segments, model.end()), ((end..model.end()).rev().collect(), Some(report.clone())));
            for (offset, _, time, ..) in &model.records {
                match segments.at_time(Timestamp::new(*time)) {
                    Ok(found) => assert!(found.is_some_and(|(found, _)| !(first..end).contains(&found.get()) && found.get() <= *offset)),
                    Err(error) => assert_eq!(error.to_string(), report),
                }
                let is_told = segments.at_time(Timestamp::new(*time)).is_err();
                assert!(is_told || !(first..end).contains(offset), "no neighbour is taken for what is lost");
            }
            assert_eq!(segments.end(), Offset::new(model.end()));
            let next = model.records.get(usize::try_from(end).expect("small")).map_or(u64::MAX, |record| record.1);
            assert!(segments.reader(Start::Position(Position::new(next - 1)), true).is_err());
            if end < model.end() {
                let reader = segments.reader(Start::Position(Position::new(next)), true).expect("it lies behind");
                assert_eq!(reader.offset(), Offset::new(end));
            }
            read += streams_around(&segments, &model, first..end, &report);
            assert_eq!(damaged.changes(), changes, "opening changes nothing");
        }
    }
    assert!(logs.len() > 2 && read > 100, "{} segments, {read} events of streams", logs.len());
}

/// Follows each stream through its versions: those before and behind the lost offsets are found, and between them the report.
fn streams_around(segments: &Segments, model: &Model, lost: std::ops::Range<u64>, report: &str) -> usize {
    let mut heads = BTreeMap::new();
    let newest = |stream, standing: Standing, _: &[SnapshotAt], _: &[RedactionAt]| {
        let head = heads.entry(stream).or_insert(standing.newest);
        *head = standing.newest.max(*head);
    };
    segments.for_each_stream(newest).expect("no fault");
    let mut count = 0;
    for stream in (0..6).map(|number| format!("stream-{number}")) {
        let hash = hasher().hash(stream.as_bytes());
        let all: Vec<_> = model.records.iter().filter(|record| record.3 == stream).map(|record| (record.4, record.0)).collect();
        let newest_behind = all.last().filter(|(_, offset)| *offset >= lost.end).map(|(version, _)| StreamVersion::new(*version));
        assert_eq!(heads.get(&hash).copied(), newest_behind, "a head before the damage says nothing");
        for (version, offset) in &all {
            match segments.stream(hash, StreamVersion::new(*version), None, 1) {
                Ok(found) => assert_eq!(found, [(StreamVersion::new(*version), Offset::new(*offset))]),
                Err(error) => assert!(lost.contains(offset) && error.to_string() == report, "{stream} at {version}: {error}"),
            }
            assert_eq!(segments.stream(hash, StreamVersion::new(*version), None, 1).is_err(), lost.contains(offset));
            match segments.stream_before(hash, StreamVersion::new(version + 1), Offset::new(u64::MAX), 1) {
                Ok(found) => assert_eq!(found, [(StreamVersion::new(*version), Offset::new(*offset))]),
                Err(error) => assert!(lost.contains(offset) && error.to_string() == report, "{stream} at {version}: {error}"),
            }
            count += 1;
        }
    }
    count
}
