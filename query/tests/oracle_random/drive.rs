//! Lets a world happen: an engine that is stopped, cut off and started again while records come, and at the end everything that
//! it wrote and answered is held against the evaluation.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimestampMillisecondType},
};
use foldlog_log::{
    LogBackend, NewRecord, Position, ReadLimits, TopicKind,
    clock::SystemClock,
    config::LogConfig,
    disk::Disk,
    embedded::EmbeddedLog,
    testing::{MemoryLog, Random, SimDisk},
};
use foldlog_query::{
    Engine, QueryConfig, QueryError, Request, Session, arrow::record_batch::RecordBatch, stream::pace::StepLimits, supervisor::QueryState,
};
use futures::TryStreamExt as _;

use super::{
    check::{Contents, Counts, same_view},
    common::{PATIENCE, SteppingClock, append, create},
    grammar::{Rules, chance, one_of},
    query::Query,
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

/// Where the log of a world lies.
enum Place {
    Memory,
    Disk(SimDisk),
}

struct Life<'a> {
    world: &'a World,
    place: Place,
    log: Arc<dyn LogBackend>,
    engine: Option<Engine>,
    session: Session,
    random: Random,
    /// What was acknowledged, by position.
    appended: BTreeMap<u64, (usize, NewRecord)>,
    /// Batches and queries that are still to come.
    batches: usize,
    queries: usize,
    /// What views answered: query, position, rows.
    answers: Vec<(usize, u64, Vec<Answered>)>,
}

/// Key, values and time of a row.
type Answered = (Vec<Value>, Vec<Value>, i64);

/// Lets a world happen and checks it.
pub async fn run(world: &World) -> Result<Counts, Failure> {
    let (place, log): (Place, Arc<dyn LogBackend>) = if world.on_disk {
        let disk = SimDisk::new(world.seed);
        (Place::Disk(disk.clone()), opened(&disk))
    } else {
        (Place::Memory, Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))))
    };
    let (session, random, appended) = (Session::default(), Random::new(world.course ^ 0x5eed), BTreeMap::new());
    let life = Life { world, place, log, engine: None, session, random, appended, batches: 0, queries: 0, answers: Vec::new() };
    life.live().await
}

fn opened(disk: &SimDisk) -> Arc<dyn LogBackend> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Arc::new(EmbeddedLog::open(disk, Arc::new(SystemClock::new()), Path::new("/data"), LogConfig::default()).unwrap())
}

impl Life<'_> {
    async fn live(mut self) -> Result<Counts, Failure> {
        for at in &self.world.declared {
            let source = &self.world.sources[*at];
            create(self.log.as_ref(), &source.topic, TopicKind::Records, source.partitions);
        }
        self.open();
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
                self.open();
            }
        }
        self.settle().await?;
        let again = self.rebuild().await?;
        self.pull_all().await?;
        self.engine.take().unwrap().stop().await;
        self.check(again)
    }

    /// Starts the engine with steps of some size.
    fn open(&mut self) {
        let records = *one_of(&mut self.random, &[1, 2, 7, 64, 8192]);
        // A clock that steps at every look ends steps at any row.
        let clock = Arc::new(SteppingClock::new(Duration::from_millis(self.random.below(3))));
        let look = if self.random.one_in(3) { usize::try_from(1 + self.random.below(8)).unwrap() } else { 1024 };
        let limits = StepLimits { read: ReadLimits { records, ..ReadLimits::default() }, look, ..StepLimits::default() };
        let config = QueryConfig { workers: 1 + u32::try_from(self.random.below(2)).unwrap(), ..QueryConfig::default() };
        self.engine = Some(Engine::open_with(Arc::clone(&self.log), clock, config, limits, None).unwrap());
    }

    /// Half of the lives on a disk are cut off with steps under way. In memory nothing would keep what is left of an engine from
    /// writing beside the next one.
    async fn end_life(&mut self) {
        let engine = self.engine.take().unwrap();
        if matches!(self.place, Place::Memory) || self.random.one_in(2) {
            engine.stop().await;
        }
        if let Place::Disk(disk) = &mut self.place {
            *disk = disk.power_cut();
            drop(engine);
            self.log = opened(disk);
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
                let statement = query.statement(&self.world.sources[query.into].name, &query.id);
                self.execute(&statement).await.map_err(|error| Failure::of(query, error))?;
                self.queries += 1;
            } else if self.batches < batches {
                self.append().await;
            }
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
            let into = &self.world.sources[query.into];
            if query.verb == "INSERT INTO" || !self.random.one_in(4) {
                continue;
            }
            let (name, id) = (self.world.rules.name(&format!("again_{}", into.name)), format!("again_{}", query.id));
            self.execute(&query.statement(&name, &id)).await.map_err(|error| Failure::of(query, error))?;
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
        let mut sources = self.world.sources.clone();
        sources.retain(|source| {
            self.world.declared.iter().any(|at| self.world.sources[*at].name == source.name)
                || self.world.queries.iter().any(|query| self.world.sources[query.into].name == source.name)
        });
        sources.extend(again.iter().map(|(_, source)| source.clone()));
        let contents = Contents::read(self.log.as_ref(), &sources, &|position| self.appended.contains_key(&position));
        self.check_appended(&contents)?;
        let mut counts = Counts::default();
        for query in &self.world.queries {
            let (from, into) = (&self.world.sources[query.from], &self.world.sources[query.into]);
            counts += contents.check(query, from, into).map_err(|difference| Failure::of(query, difference))?;
        }
        for (query, into) in &again {
            let from = &self.world.sources[query.from];
            let found = contents.check(query, from, into).map_err(|difference| {
                let original = query.id.trim_start_matches("again_").to_owned();
                Failure { query: Some(original), what: format!("built anew, {}: {difference}", query.id) }
            })?;
            counts += Counts { cases: 0, ..found };
        }
        for (at, position, rows) in &self.answers {
            let query = &self.world.queries[*at];
            let (from, into) = (&self.world.sources[query.from], &self.world.sources[query.into]);
            // At the end everything is read, whatever its position.
            let end = if self.world.declared.contains(&query.from) && !self.is_fed(query.from) { *position } else { u64::MAX };
            let expected = contents.expected(query, from, into, end);
            same_view(rows, &expected).map_err(|difference| Failure::of(query, format!("the view at {position}: {difference}")))?;
            counts.rows += rows.len();
            counts.commits += 1;
        }
        Ok(counts)
    }

    /// What was acknowledged is there.
    fn check_appended(&self, contents: &Contents) -> Result<(), Failure> {
        for (position, (source, record)) in &self.appended {
            let topic = &self.world.sources[*source].topic;
            let found = contents.of_topic(topic).iter().find(|stored| stored.position == *position);
            let is_it = |stored: &super::common::Stored| {
                stored.value.as_deref() == record.value.as_deref() && stored.key.as_deref() == record.key.as_deref()
            };
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
