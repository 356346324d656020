//! Stories in SQL: each file of `tests/sql` is a list of steps with the rows, messages or errors that were worked out by hand.
//! Each is told twice, over a log in memory and over the embedded log in a folder, which a restart closes and opens again.
//!
//! A step is a directive in a line of its own, what belongs to it, `----`, and what is expected; an empty line ends it. `topic NAME
//! KIND PARTITIONS` creates a topic; `event TOPIC STREAM TYPE MS JSON` appends one event; `ok`, `query`, `error` run a statement, `unawaited` one that no later
//! answer waits for; `query A,B` shows these columns of an answer alone;
//! `later MS` moves the server's clock on;
//! `push N` runs a query until it gave N rows, `push N all` from the beginning of what it reads; `restart` stops the engine and opens it again over the same log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, str::FromStr as _, sync::Arc, time::Duration};

use arrow::{
    array::Array,
    util::display::{ArrayFormatter, FormatOptions},
};
use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, NewEvent, Position, Timestamp, TopicKind, TopicSettings, Write,
    clock::{Clock, ManualClock},
    disk::RealDisk,
    testing::MemoryLog,
};
use foldlog_query::{ChangeOp, Checkpoints, Engine, PushItem, QueryConfig, QueryError, Request, Session, arrow::record_batch::RecordBatch};
use futures::StreamExt as _;

/// Told over both logs; the last ones only over the log in a folder, which alone lets go of what is old.
macro_rules! stories {
    ($($name:ident)* ; $($only_in_a_folder:ident)*) => {
        /// Every file that is told.
        const TOLD: &[&str] = &[$(stringify!($name),)* $(stringify!($only_in_a_folder),)*];

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            Story::in_memory().tell(concat!(stringify!($name), ".slt"), include_str!(concat!("sql/", stringify!($name), ".slt"))).await;
        })*

        mod embedded {
            use super::Story;
            stories! { @in_a_folder $($name)* $($only_in_a_folder)* }
        }
    };
    (@in_a_folder $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            Story::in_a_folder().tell(concat!(stringify!($name), ".slt"), include_str!(concat!("sql/", stringify!($name), ".slt"))).await;
        })*
    };
}
stories! {
    aggregates
    aggregates_ksql
    arithmetic
    catalog
    chains
    chance
    collected
    dates
    declare
    dialects
    explode
    expressions
    faults
    filters
    formats
    function_names
    functions
    functions_by_dialect
    groups
    inserts
    kept_values
    keys
    ksql
    lambdas
    mistakes
    names
    numbers
    paused
    print
    projected_keys
    push
    refused
    replaced
    rowtimes_ksql
    session
    shown
    side_by_side
    sources
    stars
    table_times
    tables
    texts
    times
    types
    views
    written
    ;
    topics
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the files of stories are the test's own")]
fn every_file_of_stories_is_told() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sql");
    let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut told: Vec<String> = TOLD.iter().map(|name| format!("{name}.slt")).collect();
    told.sort();
    assert_eq!(files, told);
}

/// The texts of all files of a kind below a folder.
#[expect(clippy::disallowed_methods, reason = "these files are the project's own")]
fn texts_below(folder: &Path, kind: &str, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts_below(&path, kind, texts);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_semantics_names_is_there() {
    let (query, server) = (Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../server")));
    let mut sources = Vec::new();
    for folder in [query.join("src"), query.join("tests"), server.join("src"), server.join("tests")] {
        texts_below(&folder, "rs", &mut sources);
    }
    let is_there = |name: &str| {
        let places = [query.join("src"), query.join("tests"), query.to_path_buf(), query.join("..")];
        let is_path = places.iter().any(|place| place.join(name).exists() || place.join(format!("{name}.rs")).exists());
        let head = format!("fn {name}(");
        TOLD.contains(&name) || is_path || sources.iter().any(|source| source.contains(&head))
    };
    let text = include_str!("../SEMANTICS.md");
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|one| one.is_ascii_lowercase() || "_/.".contains(one) || one.is_ascii_digit());
    let (mut named, mut missing) = (0, Vec::new());
    for part in text.split('[').skip(1).filter_map(|behind| behind.split_once(']')).map(|(part, _)| part) {
        // What is no list of names is an example of SQL.
        let names: Vec<&str> = part.split(',').map(str::trim).collect();
        if names.iter().all(is_name) && names.iter().any(|name| name.len() > 3) {
            named += names.len();
            missing.extend(names.into_iter().filter(|name| !is_there(name)));
        }
    }
    assert!(missing.is_empty() && named > 80, "{named} names, not there: {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_aggregate_does_what_its_example_says() {
    let mut story = Story::in_memory();
    story.step("ok", "CREATE STREAM s (v INT) WITH (partitions = 1)").await;
    story.step("ok", "INSERT INTO s VALUES (1), (3), (3)").await;
    for aggregate in foldlog_query::plan::aggregates::all() {
        let (name, (call, result)) = (aggregate.name, aggregate.example);
        story.step("ok", &format!("CREATE TABLE {name}_example AS SELECT 'all' AS k, {call} AS result FROM s GROUP BY k")).await;
        let got = story.step("query", &format!("SELECT result FROM {name}_example")).await;
        assert_eq!(got, ["result", result], "{call}");
    }
    story.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_of_the_demo_are_understood() {
    let mut story = Story::in_memory();
    story.step("topic flights events 8", "").await;
    let script = include_str!("../../server/demo/flights/views.sql");
    let pieces = story.engine.split(script).unwrap();
    assert!(pieces.len() >= 5, "{pieces:?}");
    for piece in pieces {
        story.step("ok", &piece.text).await;
    }
    story.step(r#"event flights UA1-0101 FlightArrived 1000 {"day":"2013-01-01","carrier":"UA","origin":"EWR","dest":"IAH","distance":1400,"delay":11,"air_time":227}"#, "").await;
    story.step("ok", "INSERT INTO carriers VALUES ('UA', 'United')").await;
    let got = story
        .step("query", "SELECT d.landed, d.late, d.average_delay, c.name FROM delays_by_carrier d JOIN carriers c ON c.carrier = d.carrier")
        .await;
    assert_eq!(got, ["landed|late|average_delay|name", "1|0|11.0|United"]);
    story.step("query", include_str!("../../server/demo/flights/report.sql")).await;
    story.engine.stop().await;
}

struct Story {
    place: Place,
    log: Arc<dyn LogBackend>,
    clock: Arc<ManualClock>,
    engine: Engine,
    /// End of what this story has written: every answer must reflect it.
    seen: Option<Position>,
    /// What SET and DEFINE made of it so far.
    session: Session,
}

/// Where the log lies.
enum Place {
    Memory(MemoryLog),
    Folder(tempfile::TempDir, Arc<EmbeddedLog>),
}

impl Place {
    fn folder(folder: tempfile::TempDir, clock: &Arc<dyn Clock>) -> Self {
        let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::clone(clock), folder.path(), LogConfig::default().without_reserve()).unwrap();
        Self::Folder(folder, Arc::new(log))
    }

    /// The log after the end of the process that had it.
    fn reopened(self, clock: &Arc<dyn Clock>) -> Self {
        match self {
            Self::Memory(log) => Self::Memory(log),
            Self::Folder(folder, log) => {
                log.stop();
                Self::folder(folder, clock)
            }
        }
    }

    /// What is in memory folds again after a restart; what is in a folder goes on from checkpoints there.
    fn checkpoints(&self) -> Option<Checkpoints> {
        match self {
            Self::Memory(_) => None,
            Self::Folder(folder, _) => Some(Checkpoints::in_pages(Arc::new(RealDisk), folder.path().join("state"))),
        }
    }

    fn log(&self) -> Arc<dyn LogBackend> {
        match self {
            Self::Memory(log) => Arc::new(log.clone()),
            Self::Folder(_, log) => Arc::clone(log) as Arc<dyn LogBackend>,
        }
    }
}

impl Story {
    fn in_memory() -> Self {
        Self::over(|clock| Place::Memory(MemoryLog::new(Arc::clone(clock))))
    }

    fn in_a_folder() -> Self {
        Self::over(|clock| Place::folder(tempfile::tempdir().unwrap(), clock))
    }

    fn over(place: impl FnOnce(&Arc<dyn Clock>) -> Place) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_000)));
        let shown: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let place = place(&shown);
        let log = place.log();
        let engine = open(&log, &shown, place.checkpoints().as_ref());
        Self { place, log, clock, engine, seen: None, session: Session::default() }
    }

    async fn tell(mut self, file: &str, text: &str) {
        let mut steps = 0;
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            if line.trim().is_empty() || line.starts_with("--") {
                continue;
            }
            let mut statement = Vec::new();
            let mut expected = Vec::new();
            let mut is_answer = false;
            for (_, line) in lines.by_ref().take_while(|(_, line)| !line.trim().is_empty()) {
                match line {
                    "----" => is_answer = true,
                    line if is_answer => expected.push(line.to_owned()),
                    line => statement.push(line),
                }
            }
            let got = self.step(line, &statement.join("\n")).await;
            assert_eq!(got, expected, "{file}, line {}: {line}\n{}", number + 1, statement.join("\n"));
            steps += 1;
        }
        assert!(steps > 0, "{file} has no steps");
        self.engine.stop().await;
    }

    async fn step(&mut self, directive: &str, text: &str) -> Vec<String> {
        let words: Vec<&str> = directive.splitn(6, ' ').collect();
        match words.as_slice() {
            ["topic", name, kind, partitions] => {
                let settings = TopicSettings::new(TopicKind::from_str(kind).unwrap(), partitions.parse().unwrap());
                self.log.create_topic(name.parse().unwrap(), settings).unwrap();
                Vec::new()
            }
            ["event", topic, stream, kind, ms, json] => {
                let event = NewEvent {
                    kind: (*kind).into(),
                    data: (*json).to_owned().into(),
                    time: Some(Timestamp::new(ms.parse().unwrap())),
                    ..NewEvent::default()
                };
                let write = Write::Stream { topic: topic.parse().unwrap(), stream: stream.parse().unwrap(), events: vec![event] };
                let appended = self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
                self.seen = Some(appended.end);
                Vec::new()
            }
            ["later", ms] => {
                self.clock.advance(Duration::from_millis(ms.parse().unwrap()));
                Vec::new()
            }
            ["restart"] => {
                self.engine.stop().await;
                let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
                let memory = Place::Memory(MemoryLog::new(Arc::clone(&clock)));
                self.place = std::mem::replace(&mut self.place, memory).reopened(&clock);
                self.log = self.place.log();
                self.engine = open(&self.log, &clock, self.place.checkpoints().as_ref());
                Vec::new()
            }
            ["ok" | "unawaited"] => {
                let answer = self.engine.execute(self.request(text)).await.unwrap_or_else(|error| panic!("{text}: {error}"));
                // What a paused query would have to reflect is not waited for.
                if directive == "ok" {
                    self.seen = Some(answer.position).max(self.seen);
                }
                if let Some(change) = answer.session {
                    self.session.apply(change).unwrap();
                }
                answer.done.into_iter().collect()
            }
            ["query"] => {
                let answer = self.engine.execute(self.request(text)).await.unwrap_or_else(|error| panic!("{text}: {error}"));
                let batches: Vec<RecordBatch> = answer.batches.map(Result::unwrap).collect().await;
                let names = answer.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join("|");
                std::iter::once(names).chain(batches.iter().flat_map(rendered)).collect()
            }
            ["query", wanted] => {
                let answer = self.engine.execute(self.request(text)).await.unwrap_or_else(|error| panic!("{text}: {error}"));
                let places: Vec<usize> = wanted.split(',').map(|name| answer.schema.index_of(name).unwrap()).collect();
                let batches: Vec<RecordBatch> = answer.batches.map(|batch| batch.unwrap().project(&places).unwrap()).collect().await;
                std::iter::once(wanted.replace(',', "|")).chain(batches.iter().flat_map(rendered)).collect()
            }
            ["error"] => vec![self.failure(text).await.to_string()],
            ["push", count] => self.pushed(self.request(text), count.parse().unwrap()).await,
            ["push", count, "all"] => {
                let request = Request { resume: Some(Position::default().into()), ..self.request(text) };
                self.pushed(request, count.parse().unwrap()).await
            }
            _ => panic!("no such step: {directive}"),
        }
    }

    fn request(&self, sql: &str) -> Request {
        let timeout = Duration::from_secs(20);
        Request { sql: sql.to_owned(), parameters: Vec::new(), at_least: self.seen, resume: None, timeout, session: self.session.clone() }
    }

    async fn failure(&self, sql: &str) -> QueryError {
        if sql.contains("EMIT CHANGES") && sql.starts_with("SELECT") || sql.starts_with("PRINT") {
            return self.engine.push(self.request(sql)).await.err().unwrap_or_else(|| panic!("{sql}: no error"));
        }
        let answer = match self.engine.execute(self.request(sql)).await {
            Ok(answer) => answer,
            Err(error) => return error,
        };
        let mut batches = answer.batches;
        while let Some(batch) = batches.next().await {
            if let Err(error) = batch {
                return error;
            }
        }
        panic!("{sql}: no error")
    }

    async fn pushed(&self, request: Request, count: usize) -> Vec<String> {
        let sql = request.sql.clone();
        let mut answer = self.engine.push(request).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut got = vec![answer.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join("|")];
        while got.len() <= count {
            let next = tokio::time::timeout(Duration::from_secs(20), answer.items.next()).await;
            match next.unwrap_or_else(|_| panic!("{sql}: only {got:?}")) {
                Some(Ok(PushItem::Changes { rows, ops, .. })) => {
                    got.extend(rendered(&rows).into_iter().zip(ops).map(|(row, op)| format!("{}|{row}", mark(op))));
                }
                Some(Ok(PushItem::Progress(_))) => {}
                Some(Err(error)) => panic!("{sql}: {error}"),
                None => break,
            }
        }
        got
    }
}

fn open(log: &Arc<dyn LogBackend>, clock: &Arc<dyn Clock>, checkpoints: Option<&Checkpoints>) -> Engine {
    let config = QueryConfig { workers: 2, ..QueryConfig::default() };
    Engine::open_keeping(Arc::clone(log), Arc::clone(clock), config, checkpoints).unwrap()
}

fn rendered(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref() as &dyn Array, &options).unwrap()).collect();
    let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    // A value of several lines has as many here.
    (0..batch.num_rows()).map(row).flat_map(|row| row.split('\n').map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn mark(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Insert => "+I",
        ChangeOp::UpdateBefore => "-U",
        ChangeOp::UpdateAfter => "+U",
        ChangeOp::Delete => "-D",
    }
}
