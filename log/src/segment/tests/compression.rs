//! Segments of compressed batches: smaller, read in every way, and no damage goes unnoticed.

use super::*;

#[test]
fn compressed_segments_are_smaller_and_hold_the_same() {
    let length = |(disk, mark, model): (SimDisk, PartitionMark, Model)| {
        compare(&open(&disk, Some(&mark)).expect("opens"), &model, model.end()).expect("reads");
        let logs = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| disk.bytes_of(&path).expect("it is listed").len()).sum::<usize>()
    };
    let [none, lz4, zstd] = Compression::ALL.map(|compression| length(sample_as(compression)));
    assert!(zstd < lz4 && lz4 * 4 < none * 3, "{none} {lz4} {zstd}");
}

#[test]
fn every_flipped_byte_of_compressed_batches_is_reported() {
    for (disk, mark, model) in [Compression::Lz4, Compression::Zstd].map(sample_as) {
        for path in disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            let bytes = disk.bytes_of(&path).expect("it is listed");
            let segments = open(&disk, Some(&mark)).expect("opens");
            let base = path.file_stem().expect("a name").to_string_lossy().parse().expect("a number");
            for place in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << (place % 8);
                disk.overwrite(&path, damaged);
                let mut reader = segments.reader(Start::Offset(Offset::new(base)), true).expect("opens");
                let Err(LogError::Corrupt { file, from, end, .. }) = read_all(&mut reader, u32::MAX) else {
                    panic!("byte {place} of {}", path.display());
                };
                assert!(file == path && (from..end).contains(&(place as u64)), "byte {place}: {from} to {end} of {}", file.display());
            }
            disk.overwrite(&path, bytes);
        }
        compare(&open(&disk, Some(&mark)).expect("opens"), &model, model.end()).expect("it is whole again");
    }
}

/// Of a segment many windows long: batches smaller and larger than a window, compressed well, badly and not at all.
#[test]
fn compressed_batches_are_found_in_windows_of_every_size() {
    let payload = |random: &mut Random| {
        let length = if random.one_in(9) { random.below(90_000) } else { random.below(300) };
        let noise = (0..length / 2).map(|_| u8::try_from(random.below(256)).expect("below 256"));
        noise.chain(std::iter::repeat_n(b'x', usize::try_from(length / 2).expect("small"))).collect()
    };
    for compression in [Compression::Lz4, Compression::Zstd] {
        let (mut random, mut model) = (Random::new(6), Model::default());
        let disk = new_disk(6);
        let files = OpenFiles::new(Arc::new(disk.clone()), 4);
        let segments = Segments::open(files, FOLDER.into(), topic(compression), PartitionId::new(0), hasher(), None).expect("opens");
        segments.settle().expect("no fault");
        for _ in 0..150 {
            segments
                .append(&model.group_with(&mut random, payload), &[], Layout { compression, max_log_bytes: 64 << 20 })
                .expect("no fault");
        }
        segments.sync().expect("no fault");
        compare(&segments, &model, model.end()).expect("reads");
        let written = disk.bytes_of(&Path::new(FOLDER).join("00000000000000000000.log")).expect("it is there").len();
        let held: usize = model.records.iter().map(|record| record.5.len()).sum();
        assert!(written > 3 << 19 && written * 4 < held * 3, "{compression}: {held} bytes in {written}");
    }
}
