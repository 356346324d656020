//! Every file that the log writes is told part by part, and what is wrong with it is told where it is; no bytes panic.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    LogError,
    disk::{Disk, RealDisk},
    inspect::{Depth, Fact, Part, inspect},
    testing::SimDisk,
};
use proptest::prelude::*;

const DATA: &str = "/data";
const GOLDEN: [&str; 10] =
    ["v1", "blanks", "compaction", "deleted", "manifest-v2", "manifest-v3", "producers", "v2-lz4", "v2-marks", "v2-zstd"];

/// A golden folder on a disk of its own.
fn golden(version: &str) -> SimDisk {
    let disk = SimDisk::new(1);
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version), Path::new(DATA), &disk);
    disk
}

fn copy(from: &Path, to: &Path, disk: &SimDisk) {
    disk.create_folder(to).unwrap();
    for entry in RealDisk.list(from).unwrap() {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_folder {
            copy(&from, &to, disk);
        } else {
            let file = RealDisk.open(&from).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            disk.create(&to).unwrap().write_at(0, &bytes).unwrap();
        }
    }
}

fn told(disk: &SimDisk, path: &Path, depth: Depth) -> Result<Vec<Part>, LogError> {
    let mut parts = Vec::new();
    inspect(Arc::new(disk.clone()), path, depth, &mut |part| {
        parts.push(part);
        ControlFlow::Continue(())
    })?;
    Ok(parts)
}

fn extension(path: &Path) -> &str {
    path.extension().unwrap().to_str().unwrap()
}

/// Outer parts follow each other, up to the end of the file at least.
fn assert_complete(parts: &[Part], length: usize, path: &Path) {
    let mut at = 0;
    for part in parts.iter().filter(|part| !part.is_inner) {
        assert!(part.from == at && part.end >= at, "{}: {part:?} does not begin at {at}", path.display());
        at = part.end;
    }
    assert!(at >= length as u64, "{}: {at} of {length}", path.display());
    let mut outer = 0..0;
    for part in parts {
        let mut names = BTreeSet::from(["part", "from", "end", "damage"]);
        assert!(part.facts.iter().all(|(name, _)| names.insert(name)), "{part:?} says something twice");
        if !part.is_inner {
            outer = part.from..part.end;
        }
        assert!(outer.start <= part.from && part.end <= outer.end, "{}: {part:?} is within {outer:?}", path.display());
    }
}

fn number(part: &Part, name: &str) -> u64 {
    let fact = part.facts.iter().find(|(of, _)| *of == name);
    let Some((_, Fact::Number(number))) = fact else { panic!("no number {name} in {part:?}") };
    *number
}

#[test]
fn every_file_of_a_folder_is_told_whole_from_its_first_byte_to_its_last() {
    for version in GOLDEN {
        let disk = golden(version);
        let mut names = BTreeMap::<&str, usize>::new();
        let (mut records, mut values, mut stored) = (0, 0, 0);
        for path in disk.paths() {
            let bytes = disk.bytes_of(&path).unwrap();
            for depth in [Depth::Parts, Depth::Records] {
                let parts = told(&disk, &path, depth).unwrap();
                assert_complete(&parts, bytes.len(), &path);
                let damaged = parts.iter().find(|part| part.damage.is_some());
                assert_eq!(damaged, None, "{version}: {}", path.display());
                if depth == Depth::Records {
                    parts.iter().for_each(|part| *names.entry(part.name).or_default() += 1);
                    let in_log = parts.iter().filter(|part| part.name == "record" && extension(&path) == "log");
                    records += in_log.clone().count();
                    values += in_log.filter(|part| part.facts.iter().any(|(name, _)| *name == "value")).count();
                    let batches = parts.iter().filter(|part| part.name == "batch" && extension(&path) == "log");
                    stored += batches.map(|part| number(part, "records")).sum::<u64>();
                }
            }
        }
        match version {
            "blanks" | "compaction" => assert!(names["switch"] >= 2 && names["segment"] > 2 && names["seal"] > 2, "{names:?}"),
            "manifest-v3" => assert!(names.contains_key("switch"), "{names:?}"),
            "producers" => assert_eq!(names["entry"], 13, "in the window file and in frames"),
            _ => {}
        }
        // The others hold what they are there for, and not a part of every kind.
        if matches!(version, "v1" | "v2-lz4" | "v2-zstd") {
            for name in ["manifest", "checkpoint", "partition", "frame", "batch", "record", "runs", "run", "entry", "page", "stream"] {
                assert!(names.contains_key(name), "{version} has a {name}: {names:?}");
            }
            assert!(stored > 100 && records as u64 == stored && values > 90, "{values} payloads of {records} records of {stored}");
        }
    }
}

/// Whether a byte that was changed must be told: one under a checksum, of what nobody has done with.
fn is_covered(parts: &[Part], at: u64) -> bool {
    let Some(part) = parts.iter().find(|part| !part.is_inner && (part.from..part.end).contains(&at)) else { return false };
    if part.name != "frame" {
        return !matches!(part.name, "unused" | "behind" | "lock");
    }
    // A frame that lies in segments, or is the last one, may be one that is written over, or that a crash cut short.
    let proven = parts.iter().filter(|part| part.name == "frame").map(|part| number(part, "durable")).max().unwrap();
    let is_live = part.facts.contains(&("state", Fact::Text("in the journal alone".into())));
    is_live && number(part, "number") <= proven
}

#[test]
fn every_flipped_byte_under_a_checksum_is_told_where_it_is() {
    let (mut flipped, mut passed) = (0, 0);
    for version in GOLDEN {
        let disk = golden(version);
        for path in disk.paths() {
            // What else is in the other folders is the same as in the first.
            let is_new = version == "producers" || matches!(version, "compaction" | "manifest-v3") && path.starts_with("/data/journal");
            if version != "v1" && !is_new && !matches!(extension(&path), "log" | "json" | "a" | "b") {
                continue;
            }
            let bytes = disk.bytes_of(&path).unwrap();
            let whole = told(&disk, &path, Depth::Parts).unwrap();
            for at in 0..bytes.len() {
                let is_covered = is_covered(&whole, at as u64);
                // Of what holds nothing a few are enough.
                if !is_covered && at % 97 != 0 {
                    continue;
                }
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                disk.overwrite(&path, damaged);
                let what = || format!("{version}: byte {at} of {}", path.display());
                let parts = told(&disk, &path, Depth::Records).unwrap_or_else(|error| panic!("{}: {error}", what()));
                assert_complete(&parts, bytes.len(), &path);
                let is_told = parts.iter().any(|part| part.damage.is_some() && (part.from..part.end).contains(&(at as u64)));
                assert!(is_told || !is_covered, "{} in {:?}", what(), whole.iter().find(|part| part.end > at as u64));
                flipped += usize::from(is_told);
                passed += usize::from(!is_told);
            }
            disk.overwrite(&path, bytes);
        }
    }
    assert!(flipped > 15_000 && passed > 100, "{flipped} {passed}");
}

#[test]
fn every_truncation_is_told_and_none_panics() {
    for version in GOLDEN {
        let disk = golden(version);
        for path in disk.paths() {
            let bytes = disk.bytes_of(&path).unwrap();
            let whole = told(&disk, &path, Depth::Parts).unwrap();
            for length in (0..bytes.len()).step_by(if bytes.len() > 8192 { 509 } else { 7 }) {
                disk.overwrite(&path, bytes[..length].to_vec());
                let parts = told(&disk, &path, Depth::Records).unwrap();
                assert_complete(&parts, length, &path);
                let is_told = parts.iter().any(|part| part.damage.is_some());
                // A slot may never have been written; nothing says how long the key index of an active segment is.
                let may_be_short = length == 0 && path.file_stem().unwrap() == "checkpoint" || extension(&path) == "keylog";
                // Or what compaction wrote that only the journal puts in place.
                let is_behind = whole.iter().any(|part| part.name == "behind" && part.from <= length as u64);
                assert!(
                    is_told || may_be_short || matches!(version, "blanks" | "compaction") && is_behind,
                    "{version}: {} cut to {length}",
                    path.display()
                );
            }
            disk.overwrite(&path, bytes);
        }
    }
}

/// Gives a file the format 99, with right checksums; nothing if no format stands in it.
fn of_format_99(path: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let big = |bytes: &mut [u8], crc: u32| bytes.copy_from_slice(&crc.to_be_bytes());
    match extension(path) {
        "json" => {
            let text = String::from_utf8(bytes).unwrap();
            let (content, _) = text.split_once('\n').unwrap();
            let (_, behind) = content.split_once(',').unwrap();
            let content = format!("{{\"format\":99,{behind}");
            return Some(format!("{content}\ncrc32c {:08x}\n", crc32c::crc32c(content.as_bytes())).into());
        }
        "a" | "b" => {
            bytes[4] = 99;
            let body = 16 + usize::try_from(u32::from_le_bytes(bytes[8..12].try_into().unwrap())).unwrap();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..body]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        "window" => bytes[4] = 99,
        "journal" => {
            // The newest frame: so its salt is that of the checkpoint.
            let number = |at: &usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
            let frames = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"FLJ\x01"));
            let at = frames.max_by_key(number)?;
            bytes[at + 4] = 99;
            let crc = crc32c::crc32c(&bytes[at..at + 92]);
            bytes[at + 92..at + 96].copy_from_slice(&crc.to_le_bytes());
        }
        "runs" | "index" | "keys" | "keylog" => {
            bytes[7] = 99;
            let crc = crc32c::crc32c(&bytes[..36]);
            big(&mut bytes[36..40], crc);
            if extension(path) == "index" {
                let end = bytes.len() - 4;
                let crc = crc32c::crc32c(&bytes[..end]);
                big(&mut bytes[end..], crc);
            }
        }
        "postings" => {
            bytes[7] = 99;
            let number = |at: usize| usize::try_from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap();
            let pages_at = 56 + 24 * number(40) + number(44);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..52]), &bytes[56..pages_at]);
            big(&mut bytes[52..56], crc);
        }
        _ => return None,
    }
    Some(bytes)
}

#[test]
fn a_file_of_a_newer_format_is_refused_by_name_and_version() {
    let mut kinds = BTreeSet::new();
    for version in GOLDEN {
        let disk = golden(version);
        for path in disk.paths() {
            let bytes = disk.bytes_of(&path).unwrap();
            let Some(newer) = of_format_99(&path, &bytes).filter(|_| !bytes.is_empty()) else { continue };
            // The checkpoint has a checksum of a window file, and holds against it that it is another one.
            let at = if extension(&path) == "window" { PathBuf::from("/copy.window") } else { path.clone() };
            let _ = disk.create(&at);
            disk.overwrite(&at, newer);
            let refused = told(&disk, &at, Depth::Parts);
            assert!(matches!(&refused, Err(LogError::Format { file, found: 99, .. }) if *file == at), "{version}: {at:?}: {refused:?}");
            disk.overwrite(&path, bytes);
            kinds.insert(extension(&path).to_owned());
        }
    }
    assert_eq!(kinds.len(), 10, "{kinds:?}");
}

#[test]
fn a_file_out_of_its_folder_is_known_by_its_name_or_its_first_bytes() {
    let disk = golden("v2-lz4");
    let alone = |from: &str, to: &str| {
        let path = disk.paths().into_iter().find(|path| path.to_string_lossy().ends_with(from)).unwrap();
        disk.create_folder(Path::new("/copy")).unwrap();
        let to = Path::new("/copy").join(to);
        disk.create(&to).unwrap().write_at(0, &disk.bytes_of(&path).unwrap()).unwrap();
        told(&disk, &to, Depth::Parts)
    };
    for (from, to) in [(".runs", "a"), ("1.window", "b"), ("checkpoint.a", "c"), ("1.journal", "d"), (".keylog", "e"), (".log", "f.log")] {
        let parts = alone(from, to).unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.damage.is_none()), "{from}: {parts:?}");
    }
    let Err(LogError::Invalid { reason, .. }) = alone(".log", "g") else { panic!("a batch has no first bytes of its own") };
    assert!(reason.contains("neither its name nor its first bytes"));
    let missing = inspect(Arc::new(disk.clone()), Path::new("/copy/h"), Depth::Parts, &mut |_| ControlFlow::Break(()));
    assert!(matches!(missing, Err(LogError::Io { doing: "open", .. })), "{missing:?}");
}

#[test]
fn whoever_has_enough_is_told_no_more() {
    let disk = golden("v1");
    let path = disk.paths().into_iter().find(|path| extension(path) == "journal").unwrap();
    let mut count = 0;
    inspect(Arc::new(disk), &path, Depth::Records, &mut |_| {
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(count, 3);
}

proptest! {
    #[test]
    fn any_bytes_under_any_name_are_told_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        head in proptest::sample::select(vec![&b""[..], b"FLCK\x01\0\0\0", b"FLWN\x01\0\0\0", b"FLJ\x01\x01\0", b"fRUN\0\0\0\x01", b"fKEY\0\0\0\x01", b"fKLG\0\0\0\x01", b"fIDX\0\0\0\x01", b"fPST\0\0\0\x01"]),
        name in proptest::sample::select(vec![
            "lock", "foldlog.json", "checkpoint.a", "000001.window", "000001.journal", "00000000000000000000.log", "00000000000000000000.runs",
            "00000000000000000000.index", "00000000000000000000.keys", "00000000000000000000.keylog", "0-1.postings", "unknown",
        ]),
    ) {
        let disk = SimDisk::new(1);
        disk.create_folder(Path::new("/a")).unwrap();
        let path = PathBuf::from("/a").join(name);
        let bytes = [head, &bytes].concat();
        disk.create(&path).unwrap().write_at(0, &bytes).unwrap();
        if let Ok(parts) = told(&disk, &path, Depth::Records) {
            assert_complete(&parts, bytes.len(), &path);
        }
    }
}
