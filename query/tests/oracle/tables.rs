//! Tables of a table: its rows picked, grouped, and grouped with HAVING. The plain side keeps the newest row of each key in a map.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::datatypes::DataType;
use bytes::Bytes;
use foldlog_log::{
    LogBackend, NewRecord, Position, Timestamp, TopicKind,
    clock::SystemClock,
    testing::{MemoryLog, Random, SimDisk},
};
use foldlog_query::{
    catalog::{Source, SourceKind},
    plan::{
        Expressions, StreamPlan,
        chance::Chance,
        select::{self, Scope},
    },
    sql::{self, Dialect, Statement, dialect::Changelog},
    stream::view::Pinned,
    supervisor::Supervisor,
};
use serde_json::{Value, json};

use super::{
    common::{PATIENCE, append, column, create, definition, read_all, table},
    engine::{self, Follower, Rows, check_log, compare_pinned},
};

const PICKED: &str = "CREATE TABLE picked AS SELECT id, n * 2 AS twice, s FROM rows WHERE n > 0";
const GROUPED: &str = "CREATE TABLE grouped AS SELECT g, COUNT(*) AS rows, COUNT(n) AS n_count, SUM(n) AS n_sum, AVG(n) AS n_avg, MIN(n) AS low, \
     MAX(s) AS last_text, COLLECT_LIST(n) AS list, COLLECT_SET(n) AS different, LATEST_BY_OFFSET(n) AS latest, EARLIEST_BY_OFFSET(n, 2) AS earliest, \
     TOPK(n, 3) AS top, COUNT(DISTINCT s) AS texts, ATTR(s) AS same FROM rows GROUP BY g";
const BUSY: &str = "CREATE TABLE busy AS SELECT g, COUNT(*) AS rows FROM rows WHERE n IS NOT NULL GROUP BY g HAVING COUNT(*) > 2";

/// One record as the test appended it.
#[derive(Clone, Debug)]
struct Fact {
    position: u64,
    time: i64,
    key: Option<String>,
    payload: Option<String>,
}

/// The newest row of a key.
#[derive(Clone)]
struct Row {
    position: u64,
    time: i64,
    group: Option<String>,
    n: Option<i64>,
    s: Option<String>,
}

/// What every row must be after the records below `end`.
fn evaluate(name: &str, facts: &[Fact], end: u64) -> Rows {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut groups = BTreeSet::new();
    let mut touched: BTreeMap<String, i64> = BTreeMap::new();
    let is_in = |row: &Row| name != "busy" || row.n.is_some();
    for fact in facts.iter().filter(|fact| fact.position < end) {
        let Some(key) = &fact.key else { continue };
        let row = match &fact.payload {
            None => None,
            Some(text) => match serde_json::from_str::<Value>(text) {
                Ok(Value::Object(fields)) => Some(Row {
                    position: fact.position,
                    time: fact.time,
                    group: fields.get("g").and_then(Value::as_str).map(str::to_owned),
                    n: fields.get("n").and_then(Value::as_i64),
                    s: fields.get("s").and_then(Value::as_str).map(str::to_owned),
                }),
                // Left out, as if it had not come.
                _ => continue,
            },
        };
        let before = match &row {
            Some(row) => rows.insert(key.clone(), row.clone()),
            None => rows.remove(key),
        };
        for group in before.iter().chain(&row).filter(|row| is_in(row)).filter_map(|row| row.group.clone()) {
            let time = touched.entry(group.clone()).or_insert(fact.time);
            *time = (*time).max(fact.time);
            groups.insert(group);
        }
    }
    if name == "picked" {
        let kept = rows.into_iter().filter(|(_, row)| row.n.is_some_and(|n| n > 0));
        return kept.map(|(key, row)| (key, json!({ "twice": row.n.map(|n| n * 2), "s": row.s, "rowtime": row.time }))).collect();
    }
    let of_group = |group: &String| {
        let mut of: Vec<&Row> = rows.values().filter(|row| row.group.as_ref() == Some(group) && is_in(row)).collect();
        of.sort_by_key(|row| row.position);
        of
    };
    let each = groups.iter().map(|group| (group.clone(), of_group(group)));
    each.filter_map(|(group, of)| {
        let mut row = if name == "busy" { (of.len() > 2).then(|| json!({ "rows": of.len() }))? } else { aggregated(&of) };
        row["rowtime"] = json!(touched[&group]);
        Some((group, row))
    })
    .collect()
}

fn aggregated(of: &[&Row]) -> Value {
    let list: Vec<Option<i64>> = of.iter().map(|row| row.n).collect();
    let numbers: Vec<i64> = list.iter().flatten().copied().collect();
    let mut different: Vec<Option<i64>> = Vec::new();
    list.iter().for_each(|n| {
        if !different.contains(n) {
            different.push(*n)
        }
    });
    let mut top = numbers.clone();
    top.sort_by_key(|n| -n);
    let texts: BTreeSet<&String> = of.iter().filter_map(|row| row.s.as_ref()).collect();
    let all_texts: BTreeSet<Option<&String>> = of.iter().map(|row| row.s.as_ref()).collect();
    let sum: i64 = numbers.iter().sum();
    json!({
        "rows": of.len(),
        "n_count": numbers.len(),
        "n_sum": if numbers.is_empty() { None } else { Some(sum) },
        "n_avg": if numbers.is_empty() { None } else { Some(sum as f64 / numbers.len() as f64) },
        "low": numbers.iter().min(),
        "last_text": texts.last(),
        "list": list,
        "different": different,
        "latest": numbers.last(),
        "earliest": numbers.iter().take(2).collect::<Vec<_>>(),
        "top": top.iter().take(3).collect::<Vec<_>>(),
        "texts": texts.len(),
        "same": if all_texts.len() == 1 { all_texts.first().copied().flatten() } else { None },
    })
}

/// The table `rows`: `id VARCHAR PRIMARY KEY, g VARCHAR, n BIGINT, s VARCHAR`.
fn rows() -> Arc<Source> {
    let of = |name| column(name, DataType::Utf8, false);
    let columns = vec![column("id", DataType::Utf8, true), of("g"), column("n", DataType::Int64, false), of("s")];
    Arc::new(Source { query: None, topic_kind: TopicKind::Records, ..Source::clone(&table("rows", columns)) })
}

fn plan(statement: &str, changelog: Changelog) -> StreamPlan {
    let Statement::CreateAs(create) = sql::parse(statement, Dialect::STANDARD).unwrap() else { panic!("{statement}") };
    let (find, expressions) = (|_: &str| Ok(rows()), Expressions::new());
    let chance = Chance::of_query_named("oracle");
    let scope = Scope { find: &find, expressions: &expressions, dialect: Dialect::STANDARD, parameters: &[], chance };
    let mut chain = select::plan(&create.select.query, None, &scope).unwrap();
    chain.changelog = changelog;
    let items = chain.sink_items(SourceKind::Table, &create.name).unwrap();
    let columns = items.iter().map(|item| item.column.clone()).collect();
    chain.into_persistent(items, table(&create.name, columns))
}

fn fact(random: &mut Random) -> (i64, Option<String>, Option<String>) {
    let time = random.below(100_000).cast_signed();
    let key = if random.one_in(40) { None } else { Some(format!("id{}", random.below(14))) };
    let group = format!("g{}", random.below(3));
    let payload = match random.below(20) {
        0..4 => None,
        4 => Some("{\"g\": \"g1\", \"n\":".to_owned()),
        5 => Some(json!({ "n": 1, "s": "in no group" }).to_string()),
        6 => Some(json!({ "g": group, "n": null, "s": null }).to_string()),
        _ => {
            let n = random.below(12).cast_signed() - 4;
            Some(json!({ "g": group, "n": n, "s": format!("s{}", random.below(3)) }).to_string())
        }
    };
    (time, key, payload)
}

struct World {
    log: Arc<dyn LogBackend>,
    facts: Vec<Fact>,
    partitions: u32,
    random: Random,
    changelog: Changelog,
    /// Where checkpoints lie.
    kept: SimDisk,
}

impl World {
    fn new(seed: u64) -> Self {
        let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
        let mut random = Random::new(seed);
        let partitions = 1 + u32::try_from(random.below(4)).unwrap();
        // Plain records, for some are to have no key.
        create(log.as_ref(), "rows", TopicKind::Records, partitions);
        ["picked", "grouped", "busy"].iter().for_each(|name| create(log.as_ref(), name, TopicKind::Table, 1));
        let changelog = if random.one_in(2) { Changelog::Every } else { Changelog::Coalesced };
        Self { log, facts: Vec::new(), partitions, random, changelog, kept: SimDisk::new(seed) }
    }

    fn start(&mut self) -> Supervisor {
        let supervisor = engine::open(&self.log, &mut self.random, &self.kept);
        for (name, statement) in [("picked", PICKED), ("grouped", GROUPED), ("busy", BUSY)] {
            supervisor.start(&definition(name), &plan(statement, self.changelog)).unwrap();
        }
        supervisor
    }

    fn expected(&self, name: &str) -> impl Fn(u64) -> Rows + '_ {
        let name = name.to_owned();
        move |end| evaluate(&name, &self.facts, end)
    }

    async fn append_some(&mut self) {
        for _ in 0..=self.random.below(5) {
            let partition = u32::try_from(self.random.below(u64::from(self.partitions))).unwrap();
            let count = 1 + self.random.below(12);
            let given: Vec<_> = (0..count).map(|_| fact(&mut self.random)).collect();
            let record = |(time, key, payload): &(i64, Option<String>, Option<String>)| NewRecord {
                key: key.clone().map(Bytes::from),
                value: payload.clone().map(Bytes::from),
                time: Some(Timestamp::new(*time)),
                ..NewRecord::default()
            };
            let appended = append(self.log.as_ref(), "rows", partition, given.iter().map(record).collect()).await;
            for (position, (time, key, payload)) in (appended.first.get()..).zip(given) {
                self.facts.push(Fact { position, time, key, payload });
            }
        }
    }

    fn end(&self) -> Position {
        Position::new(self.facts.last().map_or(0, |fact| fact.position + 1))
    }
}

/// Runs one world; gives the number of commits compared.
async fn run(mut world: World) -> Result<usize, String> {
    let mut commits = 0;
    for _life in 0..3 {
        world.append_some().await;
        let supervisor = world.start();
        let mut followers: Vec<(&str, Follower)> = Vec::new();
        let mut pins: Vec<(&str, Pinned)> = Vec::new();
        let begun = world.log.head().position;
        for name in ["picked", "grouped", "busy"] {
            let view = supervisor.view(name).ok_or("there is no view")?;
            view.wait(begun, PATIENCE).await.map_err(|error| error.to_string())?;
            let listener = supervisor.listen(&view).map_err(|error| error.to_string())?;
            followers.push((name, Follower::new(listener, &world.expected(name))?));
        }
        for _ in 0..8 {
            world.append_some().await;
            let chosen = usize::try_from(world.random.below(3)).unwrap();
            let (name, follower) = &mut followers[chosen];
            let view = supervisor.view(name).unwrap();
            if world.random.one_in(2) {
                pins.push((*name, view.pin().map_err(|error| error.to_string())?));
            }
            if world.random.one_in(2) {
                view.wait(world.end(), PATIENCE).await.map_err(|error| error.to_string())?;
                follower.follow(world.end(), &world.expected(name)).await?;
            }
        }
        for (name, follower) in &mut followers {
            let view = supervisor.view(name).unwrap();
            view.wait(world.end(), PATIENCE).await.map_err(|error| error.to_string())?;
            follower.follow(world.end(), &world.expected(name)).await?;
            pins.push((*name, view.pin().map_err(|error| error.to_string())?));
            commits += follower.commits;
        }
        for (name, pinned) in &pins {
            compare_pinned(name, pinned, &world.expected(name))?;
            commits += 1;
        }
        drop(pins);
        supervisor.shut_down().await;
        for name in ["picked", "grouped", "busy"] {
            commits += check_log(world.log.as_ref(), name, &world.expected(name))?;
        }
    }
    if world.changelog == Changelog::Every {
        check_every_record_was_told(&world)?;
    }
    Ok(commits)
}

/// Of each record that a table takes there is one change, in the order of the records.
fn check_every_record_was_told(world: &World) -> Result<(), String> {
    let taken =
        |fact: &&Fact| fact.payload.as_ref().is_none_or(|text| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()));
    let expected: Vec<&String> = world.facts.iter().filter(taken).filter_map(|fact| fact.key.as_ref()).collect();
    let told: Vec<String> =
        read_all(world.log.as_ref(), &["picked"]).into_iter().map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect();
    let differs = expected.iter().zip(&told).position(|(expected, told)| *expected != told);
    if expected.len() == told.len() && differs.is_none() {
        return Ok(());
    }
    Err(format!("{} changes were told of {} records, the first that differs is {differs:?}", told.len(), expected.len()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_a_table_equals_the_batch_evaluation_of_its_prefix_at_every_commit() {
    let mut commits = 0;
    for seed in 0..10 {
        match run(World::new(seed)).await {
            Ok(compared) => commits += compared,
            Err(difference) => panic!("seed {seed}: {difference}"),
        }
    }
    println!("{commits} commits compared");
    assert!(commits > 3000, "only {commits} commits were compared");
}
