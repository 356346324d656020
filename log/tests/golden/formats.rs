//! Folders of format version 1, and of settings that came with format 2 of manifests.

use super::*;

#[test]
fn what_is_written_today_is_format_version_1() {
    let golden = golden("v1");
    compare(&write(Compression::None, 1), &golden);
    for kind in ["log", "runs", "index", "keys", "keylog", "journal"] {
        let is_there = |path: &PathBuf| path.extension().is_some_and(|extension| extension == kind);
        assert!(listed(&RealDisk, &golden).iter().any(is_there), "the folder has a .{kind}");
    }
}

/// A topic whose manifest needs version 2, and one unit.
fn write_manifest_2() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic("written".parse().expect("a valid name"), manifest_2_settings()).expect("it is new");
    let answer = log.append(to_manifest_2()).expect("there is room");
    stepper.commit().expect("no fault");
    assert_eq!(block_on(answer).expect("nothing speaks against it").durability, Durability::Written);
    stepper.seal().expect("no fault");
    disk
}

fn manifest_2_settings() -> TopicSettings {
    TopicSettings { durability: Durability::Written, ..TopicSettings::new(TopicKind::Records, 1) }
}

fn to_manifest_2() -> Append {
    let record = NewRecord { value: Some(Bytes::from_static(b"v")), ..NewRecord::default() };
    let write = Write::Records { topic: "written".parse().expect("a valid name"), partition: None, records: vec![record] };
    Append { writes: vec![write], ..Append::default() }
}

#[test]
fn a_topic_with_a_durability_of_its_own_has_a_manifest_of_version_2() {
    let golden = golden("manifest-v2");
    compare(&write_manifest_2(), &golden);
    let (_folder, data) = copied(&golden);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    assert_eq!(log.topic(&"written".parse().expect("a valid name")).expect("it is there").settings, manifest_2_settings());
    let answer = block_on(log.append(to_manifest_2()).expect("there is room")).expect("nothing speaks against it");
    assert_eq!((answer.durability, answer.first), (Durability::Written, Position::new(1)));
    log.stop();
}

#[test]
fn compressed_topics_have_manifests_of_format_2() {
    for (compression, version, codec) in [(Compression::Lz4, "v2-lz4", 3), (Compression::Zstd, "v2-zstd", 4)] {
        let disk = write(compression, 6);
        keep(&disk, &golden(version));
        compare_compressed(&disk, version, codec);
    }
}

fn compare_compressed(disk: &SimDisk, version: &str, codec: u8) {
    // How well the libraries compress may change; what says that they did, and the journal, may not.
    let mut codecs = BTreeSet::new();
    for path in listed(&RealDisk, &golden(version)) {
        let is_manifest = path.starts_with("topics") && path.extension().is_some_and(|extension| extension == "json");
        let (today, then) = (disk.bytes_of(&Path::new(DATA).join(&path)), read_file(&RealDisk, &golden(version).join(&path)));
        let (today, then) = (today.expect("it is written"), then.expect("it is listed"));
        if is_manifest || path.starts_with("journal") {
            assert!(today == then, "{} differs", path.display());
        }
        assert!(!is_manifest || today.starts_with(b"{\"format\":2,"));
        if path.extension().is_some_and(|extension| extension == "log") {
            codecs.extend([today[22], then[22]]);
        }
    }
    assert_eq!(codecs, BTreeSet::from([0, codec]), "batches that begin its segments are compressed, and small ones are not");
}

#[test]
fn a_folder_of_version_1_is_read_and_goes_on() {
    is_read_and_goes_on("v1");
}

#[test]
fn a_folder_of_version_2_is_read_and_goes_on() {
    ["v2-lz4", "v2-zstd"].into_iter().for_each(is_read_and_goes_on);
}

fn is_read_and_goes_on(version: &str) {
    let (_folder, data) = copied(&golden(version));
    for round in 0..3 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        assert_eq!(log.report().damage, None);
        for number in 0..40 + round {
            let answer = block_on(log.append(event(number)).expect("there is room")).expect("nothing speaks against it");
            assert!(answer.deduplicated, "request {number} is remembered");
        }
        let one = block_on(log.append(event(40 + round)).expect("there is room")).expect("nothing speaks against it");
        assert_eq!(one.first.get(), 3 * (40 + round));
        let mut reader = log.reader(Selection::All(Position::new(0))).expect("in range");
        let mut values = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("whole records");
                values.push((record.value.map(<[u8]>::to_vec), record.event().map(|event| event.kind.to_owned())));
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        let unit = |number: u64| {
            let event = (Some(format!("{{\"amount\":{number}}}").into_bytes()), Some("Deposited".to_owned()));
            [event.clone(), event, ((!number.is_multiple_of(3)).then(|| b"v".to_vec()), None)]
        };
        assert_eq!(values, (0..=40 + round).flat_map(unit).collect::<Vec<_>>());
        log.stop();
    }
}
