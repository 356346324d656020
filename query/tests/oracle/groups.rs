//! Groups of a stream, with every aggregate that is kept in one row, over a log in memory and over a disk that loses power.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use foldlog_log::{
    Append, LogBackend, NewRecord, Position, Timestamp, TopicKind, Write,
    clock::SystemClock,
    config::LogConfig,
    disk::Disk,
    embedded::EmbeddedLog,
    testing::{MemoryLog, Random, SimDisk},
};
use foldlog_query::{stream::view::Pinned, supervisor::Supervisor};
use serde_json::{Value, json};

use super::{
    common::{PATIENCE, append, create, definition, everything_by_key, read_all, topic},
    engine::{self, Follower, Rows, check_log, compare, compare_pinned, scan},
};

/// One fact as the test appended it.
#[derive(Clone, Debug)]
struct Fact {
    position: u64,
    time: i64,
    payload: Option<String>,
}

/// What every row of the view must be after folding the facts below `end`.
fn evaluate(facts: &[Fact], end: u64) -> Rows {
    let mut groups: BTreeMap<String, Vec<(&Fact, Value)>> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.position < end) {
        let Some(payload) = fact.payload.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) else { continue };
        if let Some(key) = payload.get("k").and_then(Value::as_str).map(str::to_owned) {
            groups.entry(key).or_default().push((fact, payload));
        }
    }
    groups.into_iter().map(|(key, group)| (key, evaluate_group(&group))).collect()
}

fn evaluate_group(group: &[(&Fact, Value)]) -> Value {
    let longs: Vec<i64> = group.iter().filter_map(|(_, payload)| payload.get("n")?.as_i64()).collect();
    let doubles: Vec<f64> = group.iter().filter_map(|(_, payload)| payload.get("d")?.as_f64()).collect();
    let texts: Vec<&str> = group.iter().filter_map(|(_, payload)| payload.get("s")?.as_str()).collect();
    let exact: i128 = longs.iter().map(|n| i128::from(*n)).sum();
    let sum = doubles.iter().fold(0.0, |sum, d| sum + d);
    json!({
        "rows": group.len(),
        "n_count": longs.len(),
        "n_sum": if longs.is_empty() { None } else { i64::try_from(exact).ok() },
        "n_min": longs.iter().min(),
        "n_max": longs.iter().max(),
        "n_avg": if longs.is_empty() { None } else { Some(exact as f64 / longs.len() as f64) },
        "d_sum": if doubles.is_empty() { None } else { Some(sum) },
        "d_avg": if doubles.is_empty() { None } else { Some(sum / doubles.len() as f64) },
        "s_min": texts.iter().min(),
        "s_max": texts.iter().max(),
        "rowtime": group.iter().map(|(fact, _)| fact.time).max(),
    })
}

fn payload(random: &mut Random) -> Option<String> {
    let key = format!("key{}", random.below(12) * random.below(3));
    Some(match random.below(30) {
        0 => return None,
        1 => "{\"k\": \"key1\", \"n\": 3".to_owned(),
        2 => "[1, 2]".to_owned(),
        3 => json!({ "n": 1, "d": 0.5, "s": "no key" }).to_string(),
        4 => json!({ "k": null, "n": 1 }).to_string(),
        5 => json!({ "k": key, "n": "seven", "d": "x", "s": 7.5 }).to_string().replace("7.5", "null"),
        6 => json!({ "k": key, "n": i64::MAX, "d": 1e300, "s": "" }).to_string(),
        7 => json!({ "k": key, "n": i64::MIN }).to_string(),
        8 => json!({ "k": key, "n": null, "d": null, "s": null, "other": [1, { "k": "x" }] }).to_string(),
        _ => {
            let n = random.below(2000).cast_signed() - 1000;
            let d = (random.below(2_000_000) as f64 - 1_000_000.0) / 3.0;
            json!({ "k": key, "n": n, "d": d, "s": format!("s{}é", random.below(50)) }).to_string()
        }
    })
}

struct World {
    place: Place,
    log: Arc<dyn LogBackend>,
    facts: Vec<Fact>,
    partitions: u32,
    random: Random,
    /// Bytes of the sink's records, by position, as they were when first seen.
    shown: HashMap<u64, Option<Vec<u8>>>,
}

/// Where the log of a world lies.
enum Place {
    /// In memory: it outlives its queries. Their checkpoints are on this disk.
    Memory(SimDisk),
    /// On a disk that loses power at the end of every life.
    Disk(SimDisk),
}

fn open(disk: &SimDisk) -> Arc<dyn LogBackend> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Arc::new(EmbeddedLog::open(disk, Arc::new(SystemClock::new()), Path::new("/data"), LogConfig::default()).unwrap())
}

impl World {
    fn in_memory(seed: u64) -> Self {
        Self::new(seed, Place::Memory(SimDisk::new(seed)), Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))))
    }

    fn on_disk(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        Self::new(seed, Place::Disk(disk), log)
    }

    fn new(seed: u64, place: Place, log: Arc<dyn LogBackend>) -> Self {
        let mut random = Random::new(seed);
        let partitions = 1 + u32::try_from(random.below(5)).unwrap();
        create(log.as_ref(), "facts", TopicKind::Records, partitions);
        create(log.as_ref(), "noise", TopicKind::Records, 1);
        create(log.as_ref(), "totals", TopicKind::Table, 1 + u32::try_from(random.below(3)).unwrap());
        Self { place, log, facts: Vec::new(), partitions, random, shown: HashMap::new() }
    }

    fn start(&mut self) -> Supervisor {
        let (Place::Memory(kept) | Place::Disk(kept)) = &self.place;
        let supervisor = engine::open(&self.log, &mut self.random, kept);
        supervisor.start(&definition("totals"), &everything_by_key("totals")).unwrap();
        supervisor
    }

    fn expected(&self) -> impl Fn(u64) -> Rows + '_ {
        |end| evaluate(&self.facts, end)
    }

    async fn append_some(&mut self) {
        for _ in 0..=self.random.below(4) {
            if self.random.one_in(4) {
                append(self.log.as_ref(), "noise", 0, vec![NewRecord { value: Some(Bytes::from_static(b"{}")), ..NewRecord::default() }])
                    .await;
            }
            let partition = u32::try_from(self.random.below(u64::from(self.partitions))).unwrap();
            let count = 1 + self.random.below(12);
            let given: Vec<(i64, Option<String>)> =
                (0..count).map(|_| (self.random.below(100_000).cast_signed(), payload(&mut self.random))).collect();
            let record = |(time, payload): &(i64, Option<String>)| NewRecord {
                value: payload.clone().map(Bytes::from),
                time: Some(Timestamp::new(*time)),
                ..NewRecord::default()
            };
            let appended = append(self.log.as_ref(), "facts", partition, given.iter().map(record).collect()).await;
            for (position, (time, payload)) in (appended.first.get()..).zip(given) {
                self.facts.push(Fact { position, time, payload });
            }
        }
    }

    /// Half of the lives end in order, the others are cut off, with steps under way; then the power goes.
    async fn end_life(&mut self, supervisor: Supervisor) {
        if self.random.one_in(2) {
            supervisor.shut_down().await;
        } else {
            self.append_some().await;
        }
        if let Place::Disk(disk) = &mut self.place {
            *disk = disk.power_cut();
            drop(supervisor);
            self.log = open(disk);
        }
    }

    /// What the sink showed once stays as it was.
    fn check_nothing_moved(&mut self) -> Result<(), String> {
        for record in read_all(self.log.as_ref(), &["totals"]) {
            let before = self.shown.entry(record.position).or_insert_with(|| record.value.clone());
            if *before != record.value {
                return Err(format!("position {} changed", record.position));
            }
        }
        Ok(())
    }
}

/// Runs one world; gives the number of commits compared.
async fn run(mut world: World) -> Result<usize, String> {
    let mut commits = 0;
    for _life in 0..3 {
        world.append_some().await;
        let supervisor = world.start();
        let view = supervisor.view("totals").ok_or("there is no view")?;
        let begun = world.log.head().position;
        view.wait(begun, PATIENCE).await.map_err(|error| error.to_string())?;
        let mut follower = Follower::new(supervisor.listen(&view).map_err(|error| error.to_string())?, &world.expected())?;
        let mut pins: Vec<Pinned> = Vec::new();
        for _ in 0..8 {
            world.append_some().await;
            let end = Position::new(world.facts.last().map_or(0, |fact| fact.position + 1));
            if world.random.one_in(2) {
                pins.push(view.pin().map_err(|error| error.to_string())?);
            }
            if world.random.one_in(3) {
                view.wait(end, PATIENCE).await.map_err(|error| error.to_string())?;
                follower.follow(end, &world.expected()).await?;
            }
        }
        let end = Position::new(world.facts.last().map_or(0, |fact| fact.position + 1));
        view.wait(end, PATIENCE).await.map_err(|error| error.to_string())?;
        pins.push(view.pin().map_err(|error| error.to_string())?);
        for pinned in &pins {
            compare_pinned("totals", pinned, &world.expected())?;
            commits += 1;
        }
        commits += follower.commits;
        world.end_life(supervisor).await;
        commits += check_log(world.log.as_ref(), "totals", &world.expected())?;
        world.check_nothing_moved()?;
    }
    Ok(commits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_equals_the_batch_evaluation_of_its_prefix_at_every_commit() {
    let mut commits = 0;
    for seed in 0..20 {
        match run(World::in_memory(seed)).await {
            Ok(compared) => commits += compared,
            Err(difference) => panic!("seed {seed}: {difference}"),
        }
    }
    println!("{commits} commits compared");
    assert!(commits > 2000, "only {commits} commits were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_equals_the_batch_evaluation_of_its_prefix_after_every_power_cut() {
    let mut commits = 0;
    for seed in 100..110 {
        match run(World::on_disk(seed)).await {
            Ok(compared) => commits += compared,
            Err(difference) => panic!("seed {seed}: {difference}"),
        }
    }
    println!("{commits} commits compared");
    assert!(commits > 500, "only {commits} commits were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_objects_to_one_wrong_row() {
    let mut world = World::in_memory(7);
    world.append_some().await;
    let supervisor = world.start();
    let view = supervisor.view("totals").unwrap();
    view.wait(world.log.head().position, PATIENCE).await.unwrap();
    check_log(world.log.as_ref(), "totals", &world.expected()).unwrap();
    let mut rows = scan(&view.pin().unwrap());
    let at = view.frontier().get();
    let expected = evaluate(&world.facts, at);
    compare("the view", at, &rows, &expected).unwrap();

    // A row of the view is changed: one in the last digit, one left out, one too many.
    let key = rows.keys().next().unwrap().clone();
    let right = rows.get(&key).unwrap().clone();
    rows.get_mut(&key).unwrap()["rows"] = json!(right["rows"].as_u64().unwrap() + 1);
    compare("the view", at, &rows, &expected).unwrap_err();
    rows.remove(&key);
    compare("the view", at, &rows, &expected).unwrap_err();
    rows.insert(key.clone(), right.clone());
    compare("the view", at, &rows, &expected).unwrap();
    rows.insert("nobody".to_owned(), right.clone());
    compare("the view", at, &rows, &expected).unwrap_err();

    // A record in the sink's topic is wrong: the next commit shows it.
    let wrong = NewRecord { key: Some(Bytes::from(key)), value: Some(Bytes::from(r#"{"rows":0}"#)), ..NewRecord::default() };
    let write = Write::Records { topic: topic("totals"), partition: None, records: vec![wrong] };
    world.log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
    let fact = json!({ "k": "another key", "n": 1 }).to_string();
    let record = NewRecord { value: Some(Bytes::from(fact.clone())), time: Some(Timestamp::new(5)), ..NewRecord::default() };
    let appended = append(world.log.as_ref(), "facts", 0, vec![record]).await;
    world.facts.push(Fact { position: appended.first.get(), time: 5, payload: Some(fact) });
    view.wait(appended.end, PATIENCE).await.unwrap();
    let objection = check_log(world.log.as_ref(), "totals", &world.expected()).unwrap_err();
    assert!(objection.contains("the topic totals"), "{objection}");
}
