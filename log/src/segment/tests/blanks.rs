//! Segments of events written anew with blanks: what is left stays in its place, streams stand where they stood, and keys say the same,
//! whether they were written with them or made again.

use std::collections::BTreeSet;

use super::*;
use crate::{
    batch::{Kept, StoredRecords, is_mark},
    life::Blank,
};

/// What becomes of each record, by offset; what is not in here stays.
type Decided = BTreeMap<u64, Kept>;

/// Decides by chance; the newest event of a stream leaves something.
fn decide(model: &Model, random: &mut Random) -> Decided {
    let newest: BTreeSet<(&str, u64)> = model.versions.iter().map(|(stream, version)| (stream.as_str(), *version)).collect();
    let of = |record: &Stored| {
        let kept = [Kept::Nothing, Kept::Blank(Blank::Removed), Kept::Blank(Blank::Redacted), Kept::Whole, Kept::Whole];
        let least = u64::from(newest.contains(&(record.3.as_str(), record.4)));
        (record.0, kept[usize::try_from(least + random.below(5 - least)).expect("small")])
    };
    model.records.iter().map(of).collect()
}

/// Writes all sealed segments anew and puts them in place.
fn rewrite(segments: &Segments, decided: &Decided) -> Vec<Rewrite> {
    let mut sources = segments.sources().expect("it is whole");
    let mut rewritten = Vec::new();
    while !sources.is_empty() {
        let done = segments.rewrite(&sources, layout(segments), |batch| {
            let records = StoredRecords::from(&batch.bytes, crate::batch::HEADER_LEN).expect("a batch");
            let kept = records.map(|record| decided[&record.expect("a record").offset.get()]).collect::<Vec<_>>();
            Ok(Fate::of(&batch.bytes, &kept).expect("they are events"))
        });
        let Rewritten { rewrite, count, .. } = done.expect("no fault").expect("there are sources");
        segments.put_in_place(&rewrite, Cleaned::default());
        sources.drain(..count);
        rewritten.push(rewrite);
    }
    rewritten
}

/// What a decision leaves of a record in a segment that begins before `end`.
fn left(decided: &Decided, end: u64, record: &Stored) -> Kept {
    if record.0 < end { decided[&record.0] } else { Kept::Whole }
}

/// Compares with the model what was decided below `end`.
fn compare(segments: &Arc<Segments>, model: &Model, decided: &Decided, end: u64) {
    let expected: Vec<_> = model.records.iter().map(|record| (record, left(decided, end, record))).collect();
    let (mut reader, mut found) = (segments.reader(Start::Offset(Offset::new(0)), true).expect("opens"), Vec::new());
    while let Some(run) = reader.next_run(u32::MAX).expect("it is whole") {
        assert!(run.count == 1 || !run.records().any(|record| record.expect("it is whole").mark().is_some()));
        for record in run.records().map(|record| record.expect("it is whole")) {
            let event = record.posted().expect("it was an event");
            let blank = match (is_mark(&run), event.is_redacted) {
                (true, _) => Kept::Blank(Blank::Removed),
                (false, true) => Kept::Blank(Blank::Redacted),
                (false, false) => Kept::Whole,
            };
            let (stream, data) = (String::from_utf8_lossy(record.key.expect("a key")).into_owned(), record.value.unwrap_or_default());
            let stored: Stored =
                (record.offset.get(), record.position.get(), run.recorded_at.get(), stream, event.version.get(), data.to_vec());
            found.push((stored, blank));
        }
    }
    let as_it_is = |(record, kept): &(&Stored, Kept)| {
        let mut record = (*record).clone();
        if *kept != Kept::Whole {
            record.5.clear();
        }
        (record, *kept)
    };
    let kept = expected.iter().filter(|(_, kept)| *kept != Kept::Nothing).map(as_it_is);
    assert_eq!(found, kept.collect::<Vec<_>>());

    let mut heads = BTreeMap::new();
    segments
        .for_each_stream(|stream, standing, _, _| {
            assert_eq!(standing.life, Standing::default().life);
            let head = heads.entry(stream).or_insert(standing.newest);
            *head = standing.newest.max(*head);
        })
        .expect("it is whole");
    for (stream, newest) in &model.versions {
        let hash = hasher().hash(stream.as_bytes());
        assert_eq!(heads.get(&hash).map(|newest| newest.get()), Some(*newest), "{stream}");
        let read = |(record, kept): &&(&Stored, Kept)| record.3 == *stream && !matches!(kept, Kept::Nothing | Kept::Blank(Blank::Removed));
        let wanted: Vec<_> = expected.iter().filter(read).map(|(record, _)| (record.4, record.0)).collect();
        let found = segments.stream(hash, StreamVersion::FIRST, None, usize::MAX).expect("it is whole");
        assert!(found.iter().map(|(version, offset)| (version.get(), offset.get())).eq(wanted.iter().copied()), "{stream}");
        let found = segments.stream_before(hash, StreamVersion::new(u64::MAX), Offset::new(u64::MAX), usize::MAX).expect("it is whole");
        assert!(found.iter().rev().map(|(version, offset)| (version.get(), offset.get())).eq(wanted.iter().copied()), "{stream}");
        let first = segments.version_at(hash, Offset::new(0)).expect("it is whole");
        assert_eq!(first.map(StreamVersion::get), wanted.first().map(|(version, _)| *version));
    }
}

#[test]
fn what_is_left_of_events_stays_in_its_place_and_streams_stand_where_they_stood() {
    for (seed, compression) in (0..24).zip(Compression::ALL.into_iter().cycle()) {
        let (mut random, mut model, disk) = (Random::new(seed), Model::default(), new_disk(seed));
        let segments = look_as(&disk, None, compression).expect("opens");
        segments.settle().expect("no fault");
        fill(&segments, &mut model, &mut random, 12).expect("no fault");
        let synced = segments.sync().expect("no fault").expect("something was appended");
        segments.checkpointed(&synced);
        let end = synced.mark.active.get();
        let mut decided = decide(&model, &mut random);
        let mut rewritten = rewrite(&segments, &decided);
        compare(&segments, &model, &decided, end);
        // Once more: of what is left less may be left.
        let again = decide(&model, &mut random);
        for (offset, kept) in &mut decided {
            *kept = match (*kept, again[offset]) {
                (Kept::Nothing, _) | (_, Kept::Nothing) => Kept::Nothing,
                (Kept::Blank(Blank::Removed), _) | (_, Kept::Blank(Blank::Removed)) => Kept::Blank(Blank::Removed),
                (Kept::Whole, other) | (other, _) => other,
            };
        }
        segments.checkpointed(&segments.sync().expect("no fault").expect("something was appended"));
        rewritten = [rewritten, rewrite(&segments, &again)].concat();
        compare(&segments, &model, &decided, end);
        let synced = segments.sync().expect("no fault").expect("something was appended");
        assert!(synced.rewritten.iter().all(|one| rewritten.contains(one)), "{rewritten:?}");

        for are_keys_there in [true, false] {
            if !are_keys_there {
                disk.paths()
                    .iter()
                    .filter(|path| path.extension().is_some_and(|one| one == "keys"))
                    .for_each(|path| disk.remove(path).expect("no fault"));
            }
            let known = Checkpointed {
                mark: synced.mark,
                below: Position::new(u64::MAX),
                removed: Position::default(),
                rewritten: synced.rewritten.clone(),
                cleaned: Cleaned::default(),
            };
            let files = OpenFiles::new(Arc::new(disk.clone()), 4);
            let opened =
                Segments::open(files, FOLDER.into(), topic(compression), PartitionId::new(0), hasher(), Some(known)).expect("opens");
            opened.settle().expect("no fault");
            assert_eq!(opened.damage(), None);
            compare(&opened, &model, &decided, end);
        }
    }
}
