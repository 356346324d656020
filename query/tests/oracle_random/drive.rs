//! Lets a world happen: an engine that is stopped, cut off and started again while records come, and at the end everything that
//! it wrote and answered is held against the evaluation.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimestampMillisecondType},
};
use foldlog_log::{
    LogBackend, NewRecord, Position, TopicKind,
    clock::SystemClock,
    config::LogConfig,
    disk::Disk,
    embedded::EmbeddedLog,
    testing::{MemoryLog, Random, SimDisk},
};
use foldlog_query::{Engine, QueryConfig, QueryError, Request, Session, arrow::record_batch::RecordBatch, supervisor::QueryState};
use futures::TryStreamExt as _;

use super::{
    check::{Contents, Counts, PROGRESS, same_view},
    common::{PATIENCE, Stored, append, create, random_steps, read_all, read_from, topic},
    grammar::{Rules, chance},
    kept::Keeping,
    query::{Query, Verb},
    schema::Source,
    value::Value,
    world::World,
};

/// What went wrong, and with which query.
#[derive(Debug)]
pub struct Failure {
    pub query: Option<String>,
    pub what: String,
}

impl Failure {
    fn of(query: &Query, what: impl std::fmt::Display) -> Self {
        Self { query: Some(query.id.clone()), what: format!("{}: {what}", query.id) }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { query: None, what }
    }
}

/// Where the log of a world lies, and what is kept of its queries.
enum Place {
    /// In memory; what is kept is on this disk.
    Memory(SimDisk),
    /// All is on one disk that loses power.
    Disk(SimDisk, Arc<EmbeddedLog>),
}

struct Life<'a> {
    world: &'a World,
    place: Place,
    log: Arc<dyn LogBackend>,
    /// None: a restart folds everything again.
    keeping: Option<Keeping>,
    engine: Option<Engine>,
    session: Session,
    random: Random,
    /// What was acknowledged, by position.
    appended: BTreeMap<u64, (usize, NewRecord)>,
    /// Batches and queries that are still to come.
    batches: usize,
    queries: usize,
    /// What lay in the topics up to here, also what compaction has removed since.
    seen: Vec<Stored>,
    seen_to: Position,
    /// From where on every query has the place that it is to have.
    settled: u64,
    /// What views answered: query, position, rows.
    answers: Vec<(usize, u64, Vec<Answered>)>,
}

/// Key, values and time of a row.
type Answered = (Vec<Value>, Vec<Value>, i64);

/// Lets a world happen and checks it.
pub async fn run(world: &World) -> Result<Counts, Failure> {
    let mut random = Random::new(world.course ^ 0x5eed);
    let disk = SimDisk::new(world.seed);
    let (place, log): (Place, Arc<dyn LogBackend>) = if world.on_disk {
        let log = opened(&disk, world);
        (Place::Disk(disk, Arc::clone(&log)), log)
    } else {
        (Place::Memory(disk), Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))))
    };
    let life = Life {
        world,
        place,
        log,
        keeping: world.keeps.then(|| Keeping::new(&mut random, world.queries.iter().all(|query| query.verb != Verb::Replace))),
        engine: None,
        session: Session::default(),
        random,
        appended: BTreeMap::new(),
        batches: 0,
        queries: 0,
        seen: Vec::new(),
        seen_to: Position::default(),
        settled: u64::MAX,
        answers: Vec::new(),
    };
    life.live().await
}

fn opened(disk: &SimDisk, world: &World) -> Arc<EmbeddedLog> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let small = 4096;
    let config = match world.compacts {
        true => LogConfig { tidy_bytes: small, segment_bytes: small, ..LogConfig::default() },
        false => LogConfig::default(),
    };
    Arc::new(EmbeddedLog::open(disk, Arc::new(SystemClock::new()), Path::new("/data"), config).unwrap())
}

impl Life<'_> {
    async fn live(mut self) -> Result<Counts, Failure> {
        for at in &self.world.declared {
            let source = &self.world.sources[*at];
            create(self.log.as_ref(), &source.topic, TopicKind::Records, source.partitions);
        }
        self.open()?;
        self.declare().await?;
        let lives = 2 + self.random.below(2);
        let batches = self.world.batches.len();
        for life in 1..=lives {
            let until = batches * usize::try_from(life).unwrap() / usize::try_from(lives).unwrap();
            // All queries are there in the middle of all lives.
            let started = if life * 2 >= lives { self.world.queries.len() } else { self.world.queries.len() / 2 };
            self.go_on(until, started).await?;
            if life < lives {
                self.end_life().await;
                self.open()?;
            }
        }
        self.settle().await?;
        self.settled = self.log.head().position.get();
        self.check_read_again()?;
        // What compaction has removed is not folded by who comes later.
        let again = if self.world.compacts { Vec::new() } else { self.rebuild().await? };
        self.pull_all().await?;
        self.engine.take().unwrap().stop().await;
        self.see();
        self.check(again)
    }

    /// Starts the engine with steps of some size.
    fn open(&mut self) -> Result<(), Failure> {
        let (clock, limits) = random_steps(&mut self.random);
        let config = QueryConfig { workers: 1 + u32::try_from(self.random.below(2)).unwrap(), ..QueryConfig::default() };
        let checkpoints = self.keeping.as_ref().map(|keeping| match &self.place {
            Place::Memory(disk) | Place::Disk(disk, _) => keeping.checkpoints(disk),
        });
        let engine = Engine::open_with(Arc::clone(&self.log), clock, config, limits, checkpoints.as_ref()).unwrap();
        if let Some(keeping) = &mut self.keeping {
            keeping.begun(&engine)?;
            // What is behind it must stay until it is read.
            for (id, from) in keeping.went_on() {
                let query = self.world.queries.iter().find(|query| query.id == *id).unwrap();
                let holders = self.log.holders(&topic(&self.world.sources[query.from].topic)).unwrap();
                if !holders.iter().any(|holder| holder.owner == *id && holder.from <= *from) {
                    return Err(Failure::of(query, format!("nothing holds what it reads behind {from}")));
                }
            }
        }
        self.engine = Some(engine);
        self.compact();
        Ok(())
    }

    /// Lets compaction remove what was seen, and nobody needs any more. Who comes later would miss it: all queries are there.
    fn compact(&mut self) {
        if let Place::Disk(_, log) = &self.place
            && self.world.compacts
            && self.queries == self.world.queries.len()
        {
            let log = Arc::clone(log);
            self.see();
            log.allow_removal();
        }
    }

    /// Remembers what lies in the topics by now, and needs nothing before any more.
    fn see(&mut self) {
        let used = self.world.used().map(|source| source.topic.as_str());
        let topics: Vec<&str> = used.chain([PROGRESS]).filter(|name| self.log.topic(&topic(name)).is_ok()).collect();
        let end = self.log.head().position;
        self.seen.extend(read_from(self.log.as_ref(), &topics, self.seen_to).into_iter().filter(|record| record.position < end.get()));
        self.seen_to = end;
        for name in topics {
            self.log.hold("the oracle", &topic(name), end).unwrap();
        }
    }

    /// Half of the lives on a disk are cut off with steps under way, some with a checkpoint. In memory nothing would keep what is left
    /// of an engine from writing beside the next one.
    async fn end_life(&mut self) {
        let engine = self.engine.take().unwrap();
        let mut keeping = self.keeping.as_mut();
        match &mut self.place {
            Place::Memory(disk) => {
                engine.stop().await;
                if let Some(keeping) = keeping {
                    *disk = keeping.left(&mut self.random, disk);
                }
            }
            Place::Disk(disk, log) => {
                if self.random.one_in(2) {
                    engine.stop().await;
                } else if let Some(keeping) = keeping.as_mut().filter(|_| self.random.one_in(2)) {
                    keeping.cut_amid(&mut self.random, &engine, disk);
                }
                *disk = disk.power_cut();
                drop(engine);
                // Behind a damaged one a query folds what the log still has.
                if let Some(keeping) = keeping.filter(|_| !self.world.compacts && chance(&mut self.random, 30)) {
                    keeping.damage(&mut self.random, disk);
                }
                *log = opened(disk, self.world);
                self.log = Arc::<EmbeddedLog>::clone(log);
            }
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), String> {
        let answer = self.engine.as_ref().unwrap().execute(self.request(sql, None)).await.map_err(|error| format!("{sql}\n{error}"))?;
        if let Some(change) = answer.session {
            self.session.apply(change).unwrap();
        }
        Ok(())
    }

    fn request(&self, sql: &str, at_least: Option<Position>) -> Request {
        Request { sql: sql.to_owned(), parameters: Vec::new(), at_least, resume: None, timeout: PATIENCE, session: self.session.clone() }
    }

    async fn declare(&mut self) -> Result<(), Failure> {
        if self.world.rules == Rules::Ksql {
            self.execute("SET 'sql.dialect' = 'ksql'").await?;
            self.execute("SET 'auto.offset.reset' = 'earliest'").await?;
        }
        for at in &self.world.declared {
            self.execute(&self.world.sources[*at].declaration()).await?;
        }
        Ok(())
    }

    /// Appends batches and starts queries up to these numbers, in some order, and looks at views meanwhile.
    async fn go_on(&mut self, batches: usize, queries: usize) -> Result<(), Failure> {
        while self.batches < batches || self.queries < queries {
            let starts = self.batches == batches || chance(&mut self.random, 40);
            if self.queries < queries && starts {
                let query = &self.world.queries[self.queries];
                let statement = self.world.statement(query);
                self.execute(&statement).await.map_err(|error| Failure::of(query, error))?;
                self.queries += 1;
            } else if self.batches < batches {
                self.append().await;
            }
            self.keep();
            if self.queries > 0 && chance(&mut self.random, 10) {
                let at = usize::try_from(self.random.below(self.queries as u64)).unwrap();
                // Only what reads a declared source answers for a prefix of it.
                if self.world.declared.contains(&self.world.queries[at].from) && !self.is_fed(self.world.queries[at].from) {
                    self.pull(at).await?;
                }
            }
        }
        Ok(())
    }

    /// What happens to checkpoints meanwhile.
    fn keep(&mut self) {
        let own = if let Place::Memory(disk) = &self.place { Some(disk) } else { None };
        if let (Some(keeping), Some(engine)) = (&mut self.keeping, &self.engine) {
            keeping.happen(&mut self.random, engine, own);
        }
        if chance(&mut self.random, 15) {
            self.compact();
        }
    }

    /// Who went on from a checkpoint reads what came behind it, and no more.
    fn check_read_again(&mut self) -> Result<(), Failure> {
        let Some(keeping) = self.keeping.as_mut() else { return Ok(()) };
        let engine = self.engine.as_ref().unwrap();
        keeping.look(engine);
        for (id, from) in keeping.went_on() {
            let query = self.world.queries.iter().find(|query| query.id == *id).unwrap();
            let topic = self.world.sources[query.from].topic.as_str();
            let behind = read_from(self.log.as_ref(), &[topic], *from).len() as u64;
            let read = engine.queries().iter().find(|status| status.id == *id).map_or(0, |status| status.rows_in);
            if read > behind {
                return Err(Failure::of(query, format!("{read} records were read behind a checkpoint at {from}, where {behind} are")));
            }
        }
        Ok(())
    }

    /// Whether queries write into a source.
    fn is_fed(&self, source: usize) -> bool {
        self.world.queries.iter().any(|query| query.into == source)
    }

    async fn append(&mut self) {
        let batch = &self.world.batches[self.batches];
        let topic = &self.world.sources[batch.source].topic;
        let appended = append(self.log.as_ref(), topic, batch.partition, batch.records.clone()).await;
        for (position, record) in (appended.first.get()..).zip(&batch.records) {
            self.appended.insert(position, (batch.source, record.clone()));
        }
        self.batches += 1;
    }

    fn end(&self) -> Position {
        Position::new(self.appended.keys().next_back().map_or(0, |position| position + 1))
    }

    /// Waits until every query has folded everything.
    async fn settle(&self) -> Result<(), Failure> {
        let (engine, end) = (self.engine.as_ref().unwrap(), self.end());
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let queries = engine.queries();
                for status in &queries {
                    if let QueryState::Failed(reason) = &status.state {
                        return Err(Failure { query: Some(status.id.clone()), what: format!("{} failed: {reason}", status.id) });
                    }
                }
                if queries.iter().all(|status| status.frontier >= end && status.state == QueryState::Running) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.map_err(|_| format!("not settled at {end}: {:?}", engine.queries()))?
    }

    /// Starts some of the queries again, as others: they fold everything at once.
    async fn rebuild(&mut self) -> Result<Vec<(Query, Source)>, Failure> {
        let mut again = Vec::new();
        for query in &self.world.queries {
            let (from, into) = (&self.world.sources[query.from], &self.world.sources[query.into]);
            if query.verb == Verb::Insert || !self.world.is_last(query) || !self.random.one_in(4) {
                continue;
            }
            let (name, id) = (self.world.rules.name(&format!("again_{}", into.name)), format!("again_{}", query.id));
            self.execute(&query.statement(from, into, &name, &id)).await.map_err(|error| Failure::of(query, error))?;
            again.push((Query { id, ..query.clone() }, Source { topic: name.clone(), name, ..into.clone() }));
        }
        self.settle().await?;
        Ok(again)
    }

    async fn pull_all(&mut self) -> Result<(), Failure> {
        for at in 0..self.world.queries.len() {
            self.pull(at).await?;
        }
        Ok(())
    }

    /// Asks for the rows of a view as it is.
    async fn pull(&mut self, at: usize) -> Result<(), Failure> {
        let query = &self.world.queries[at];
        let into = &self.world.sources[query.into];
        if !into.is_table {
            return Ok(());
        }
        let at_least = chance(&mut self.random, 50).then(|| self.end());
        let sql = format!("SELECT *, ROWTIME FROM {}", into.name);
        let answer = match self.engine.as_ref().unwrap().execute(self.request(&sql, at_least)).await {
            Ok(answer) => answer,
            // Behind a restart a view cannot be read until it is there again.
            Err(QueryError::Folding { .. }) => return Ok(()),
            // Nor while another one takes its place.
            Err(QueryError::NotAligned { .. }) if self.world.line(query).count() > 1 => return Ok(()),
            Err(error) => return Err(Failure::of(query, error)),
        };
        let position = answer.position;
        if at_least.is_some_and(|least| position < least) {
            return Err(Failure::of(query, format!("an answer at {position} where {at_least:?} was asked for")));
        }
        let batches: Vec<RecordBatch> = answer.batches.try_collect().await.map_err(|error| Failure::of(query, error))?;
        let rows = batches.iter().flat_map(|batch| {
            (0..batch.num_rows()).map(|row| {
                let mut key: Vec<Value> = batch.columns().iter().map(|column| value_of(column, row)).collect();
                let time = key.pop().and_then(|time| time.whole()).unwrap_or(-1);
                let values = key.split_off(into.keys());
                (key, values, time)
            })
        });
        let rows = rows.collect();
        self.answers.push((at, position.get(), rows));
        Ok(())
    }

    fn check(self, again: Vec<(Query, Source)>) -> Result<Counts, Failure> {
        let mut records = self.seen.clone();
        let topics: Vec<&str> = again.iter().map(|(_, source)| source.topic.as_str()).collect();
        if !topics.is_empty() {
            records.extend(read_all(self.log.as_ref(), &topics));
            records.sort_by_key(|record| record.position);
        }
        let into = |query: &Query| (query.id.clone(), self.world.sources[query.into].topic.clone());
        let mut sinks: BTreeMap<String, String> = self.world.queries.iter().map(into).collect();
        sinks.extend(again.iter().map(|(query, source)| (query.id.clone(), source.topic.clone())));
        let contents = Contents::new(&records, &sinks, &|position| self.appended.contains_key(&position));
        self.check_appended(&contents)?;
        let mut counts = self.keeping.as_ref().map_or_else(Counts::default, Keeping::counts);
        counts.removed = self.check_left()?;
        for query in self.world.queries.iter().filter(|query| self.world.is_last(query)) {
            let (from, into) = (&self.world.sources[query.from], &self.world.sources[query.into]);
            let line: Vec<&Query> = self.world.line(query).collect();
            let different = |(id, what)| Failure { what: format!("{id}: {what}"), query: Some(id) };
            counts += contents.check(&line, from, into).map_err(different)?;
        }
        for (query, into) in &again {
            let from = &self.world.sources[query.from];
            let found = contents.check(&[query], from, into).map_err(|(id, difference)| {
                let original = id.trim_start_matches("again_").to_owned();
                Failure { query: Some(original), what: format!("built anew, {id}: {difference}") }
            })?;
            counts += Counts { cases: 0, ..found };
        }
        for (at, position, rows) in &self.answers {
            let query = &self.world.queries[*at];
            let (from, into) = (&self.world.sources[query.from], &self.world.sources[query.into]);
            // At the end everything is read, whatever its position.
            let end = if self.world.declared.contains(&query.from) && !self.is_fed(query.from) { *position } else { u64::MAX };
            // Until another one has taken its place it answers as before.
            let is_settled = *position >= self.settled;
            let mut answering = self.world.line(query).filter(|one| !is_settled || self.world.is_last(one));
            let answers = |one: &Query| same_view(rows, &contents.expected(one, from, into, end));
            let first = answering.next().map_or(Ok(()), &answers);
            if let Err(difference) = first
                && answering.all(|other| answers(other).is_err())
            {
                return Err(Failure::of(query, format!("the view at {position}: {difference}")));
            }
            counts.rows += rows.len();
            counts.commits += 1;
        }
        Ok(counts)
    }

    /// What the log holds is what was seen, but for what compaction removed: gives how much.
    fn check_left(&self) -> Result<usize, Failure> {
        let topics: Vec<&str> = self.world.used().map(|source| source.topic.as_str()).chain([PROGRESS]).collect();
        let left = read_all(self.log.as_ref(), &topics);
        let removed = self.seen.len() - left.len();
        let mut seen = self.seen.iter();
        match left.iter().find(|record| !seen.any(|other| other == *record)) {
            Some(record) => Err(format!("the record at {} is not as it was seen", record.position).into()),
            None if removed > 0 && !self.world.compacts => Err(format!("{removed} records are gone").into()),
            None => Ok(removed),
        }
    }

    /// What was acknowledged is there.
    fn check_appended(&self, contents: &Contents) -> Result<(), Failure> {
        for (position, (source, record)) in &self.appended {
            let topic = &self.world.sources[*source].topic;
            let found = contents.of_topic(topic).iter().find(|stored| stored.position == *position);
            let is_it =
                |stored: &Stored| stored.value.as_deref() == record.value.as_deref() && stored.key.as_deref() == record.key.as_deref();
            if !found.is_some_and(is_it) {
                return Err(format!("the record at {position} of {topic} was acknowledged and is gone").into());
            }
        }
        Ok(())
    }
}

/// A value of an answer.
fn value_of(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let items = |list: ArrayRef| (0..list.len()).map(|at| value_of(&list, at)).collect::<Vec<_>>();
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Value::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Whole(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::Date32 => Value::Whole(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time32(_) => Value::Whole(array.as_primitive::<Time32MillisecondType>().value(row).into()),
        DataType::Timestamp(..) => Value::Whole(array.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::List(_) => Value::List(items(array.as_list::<i32>().value(row))),
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (items(Arc::clone(entries.column(0))), items(Arc::clone(entries.column(1))));
            let keys = keys.iter().map(|key| key.text().unwrap().to_owned());
            Value::Map(keys.zip(values).collect())
        }
        DataType::Struct(_) => Value::Struct(array.as_struct().columns().iter().map(|column| value_of(column, row)).collect()),
        other => panic!("an answer has {other}"),
    }
}
