//! Kafka's DumpLogSegments: runs it, and reads what it prints. Its exit code says nothing; every line that is not known is a fault.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A record, as far as the tool shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    /// Milliseconds since 1970.
    pub time: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<String>,
}

/// What the tool says of one file.
#[derive(Debug, Default)]
pub struct Dumped {
    pub records: Vec<Record>,
    /// The codec of each batch.
    pub codecs: Vec<String>,
    /// Lines that speak of damage, or that nobody knows.
    pub faults: Vec<String>,
}

/// Runs the tool over files of one topic.
pub fn dump(files: &[PathBuf]) -> BTreeMap<PathBuf, Dumped> {
    let jars = env::var_os("FOLDLOG_KAFKA_JARS").expect("log/tests/kafka/run sets the folder of Kafka's jars");
    let names = files.iter().map(|file| file.to_str().expect("the test's folder has a plain name")).collect::<Vec<_>>().join(",");
    let output = Command::new("java")
        .arg("-classpath")
        .arg(Path::new(&jars).join("*"))
        .args(["org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", &names])
        .output()
        .expect("java can be run");
    let text = String::from_utf8(output.stdout).expect("the test wrote text alone");
    let mut dumped = BTreeMap::<PathBuf, Dumped>::new();
    let mut file = PathBuf::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Dumping ") {
            file = name.into();
        } else if !line.starts_with("Log starting offset: ") {
            take(dumped.entry(file.clone()).or_default(), line);
        }
    }
    // Whatever ends it early (no such class, not our file) is on standard error alone.
    assert!(!dumped.is_empty(), "the tool said nothing: {}", String::from_utf8_lossy(&output.stderr));
    dumped
}

fn take(dumped: &mut Dumped, line: &str) {
    if let Some(record) = line.strip_prefix("| ").and_then(record) {
        dumped.records.push(record);
    } else if let Some(codec) = whole_batch(line) {
        dumped.codecs.push(codec.into());
    } else {
        dumped.faults.push(line.into());
    }
}

/// The codec of a batch that the tool calls valid.
fn whole_batch(line: &str) -> Option<&str> {
    let is_whole = line.starts_with("baseOffset: ") && line.ends_with(" isvalid: true");
    is_whole.then(|| after(line, "compresscodec: ")).flatten()
}

fn record(line: &str) -> Option<Record> {
    let (facts, rest) = line.split_once(" headerKeys: [")?;
    let (headers, rest) = rest.split_once(']')?;
    let (key, value) = rest.split_once(" payload: ").map_or((rest, None), |(key, value)| (key, Some(value)));
    let key = key.strip_prefix(" key: ");
    let length = |text: Option<&str>| text.map_or(-1, |text| i64::try_from(text.len()).unwrap_or(i64::MAX));
    let size = |name| after(facts, name)?.parse::<i64>().ok();
    let is_told_twice = size("keySize: ")? == length(key) && size("valueSize: ")? == length(value);
    is_told_twice.then_some(Record {
        offset: after(facts, "offset: ")?.parse().ok()?,
        time: after(facts, "CreateTime: ")?.parse().ok()?,
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: headers.split(',').filter(|name| !name.is_empty()).map(Into::into).collect(),
    })
}

/// The word after a label.
fn after<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(label)?;
    rest.split(' ').next()
}
