//! One case: its statements, what goes in, and whether what must come out does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use foldlog_log::{
    Append, LogBackend, NewRecord, PartitionId, Position, ReadLimits, Selection, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::{Clock, ManualClock},
    testing::MemoryLog,
};
use foldlog_query::{
    Answer, ChangeOp, DialectKind, Engine, PushAnswer, PushItem, QueryConfig, Request, Session, SessionChange,
    arrow::{array::ArrayRef, datatypes::DataType, record_batch::RecordBatch},
    catalog::{self, Catalog, SourceKind},
    codec,
    supervisor::QueryState,
};
use futures::StreamExt as _;

use crate::{
    compare::differ,
    json::Json,
    wire::{Side, undeclared},
};

/// Longest time for one statement, or for the queries to follow one record.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a SELECT that does not end is given for its next row.
const NEXT_ROW: Duration = Duration::from_millis(1_500);

pub struct Case {
    json: Json,
}

/// A case under way.
struct Run<'a> {
    case: &'a Case,
    log: Arc<dyn LogBackend>,
    engine: Engine,
    session: Session,
    end: Position,
    /// Topics whose inputs were fed.
    fed: BTreeSet<String>,
    /// Topic and offset of what was fed.
    inputs: BTreeSet<(String, u64)>,
}

impl Case {
    pub fn parse(line: &str) -> Result<Self, String> {
        Ok(Self { json: Json::parse(line)? })
    }

    pub fn id(&self) -> &str {
        self.json.get("id").text().unwrap_or_default()
    }

    pub fn tier(&self) -> &str {
        self.json.get("tier").text().unwrap_or_default()
    }

    pub fn is_negative(&self) -> bool {
        self.json.get("negative").is_true()
    }

    pub fn is_derived(&self) -> bool {
        self.json.get("derived").is_true()
    }

    /// Whether a window or a join of streams is asked for, which do not exist yet.
    pub fn needs_window_or_stream_join(&self) -> bool {
        let tags = self.json.get("tags").list().iter().filter_map(Json::text);
        let (mut needs, tier) = (false, self.tier());
        for tag in tags {
            needs |= tag.contains("window") || tag.starts_with("join") || tag == "suppress";
        }
        needs || tier.starts_with("t3") || tier.starts_with("t4") || tier.starts_with("t5")
    }

    fn statements(&self) -> impl Iterator<Item = &str> {
        self.json.get("statements").list().iter().filter_map(Json::text)
    }

    fn is_rest(&self) -> bool {
        self.json.get("suite").text() == Some("rest")
    }

    /// Runs the case; what went wrong, if something did.
    pub async fn run(&self) -> Result<(), String> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
        let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::clone(&clock)));
        let config = QueryConfig { workers: 1, dialect: DialectKind::Ksql, ..QueryConfig::default() };
        let engine = Engine::open(Arc::clone(&log), clock, config).map_err(|error| error.to_string())?;
        let mut session = Session::default();
        let set = |name: &str, value: &str| SessionChange::Set { name: name.to_owned(), value: value.to_owned() };
        session.apply(set("auto.offset.reset", "earliest")).map_err(|error| error.to_string())?;
        for (name, value) in self.json.get("properties").fields() {
            let value = value.text().map_or_else(|| value.to_string(), str::to_owned);
            // A property of their runner is none of ours.
            let _ = session.apply(set(name, &value));
        }
        let mut run = Run { case: self, log, engine, session, end: Position::default(), fed: BTreeSet::new(), inputs: BTreeSet::new() };
        let outcome = run.go().await;
        run.engine.stop().await;
        match (self.is_negative(), outcome) {
            (false, outcome) => outcome.map_err(|failed| failed.why),
            (true, Err(failed)) if failed.is_expected => Ok(()),
            (true, Err(failed)) => Err(format!("failed too early: {}", failed.why)),
            (true, Ok(())) => Err("an error was expected, there was none".to_owned()),
        }
    }
}

struct Failed {
    why: String,
    /// Whether it is where a negative case must fail.
    is_expected: bool,
}

fn failed<T>(why: impl Into<String>) -> Result<T, Failed> {
    Err(Failed { why: why.into(), is_expected: false })
}

impl Run<'_> {
    async fn go(&mut self) -> Result<(), Failed> {
        self.create_topics();
        let statements: Vec<String> = self.split()?;
        let (selects, others): (Vec<_>, Vec<_>) = statements.iter().partition(|text| self.case.is_rest() && is_select(text));
        let last = statements.len() - 1;
        for (place, text) in others.iter().enumerate() {
            let is_last = selects.is_empty() && place == last;
            self.execute(text).await.map_err(|why| Failed { why: format!("{why}: {text}"), is_expected: is_last })?;
        }
        let active = self.case.json.get("input_conditions").get("waitForActivePushQuery").is_true();
        if !active {
            self.feed_all().await?;
        }
        for (place, text) in selects.iter().enumerate() {
            let is_last = place + 1 == selects.len();
            let answered = self.select(text, active && is_last).await;
            let rows = answered.map_err(|why| Failed { why: format!("{why}: {text}"), is_expected: is_last })?;
            let response = self.case.json.get("responses").list().get(others.len() + place).map(|one| one.get("query"));
            if let Some(expected) = response.filter(|expected| !expected.is_null()) {
                compare_rows(expected.list(), &rows).or_else(|why| failed(format!("{why}: {text}")))?;
            }
        }
        if self.case.is_negative() {
            return self.bad_record();
        }
        self.compare_topics()?;
        self.compare_sources()
    }

    fn split(&self) -> Result<Vec<String>, Failed> {
        let mut pieces = Vec::new();
        for text in self.case.statements() {
            match self.engine.split(text) {
                Ok(split) => pieces.extend(split.into_iter().map(|piece| piece.text)),
                Err(_) => pieces.push(text.to_owned()),
            }
        }
        if pieces.is_empty() { failed("no statements") } else { Ok(pieces) }
    }

    /// Topics that exist beforehand: those told, those of records, and those that a declaration names without their partitions.
    fn create_topics(&self) {
        let json = &self.case.json;
        let told = json.get("topics").list().iter().filter_map(|topic| {
            let partitions = topic.get("partitions").integer().and_then(|number| u32::try_from(number).ok()).unwrap_or(1);
            Some((topic.get("name").text()?.to_owned(), partitions))
        });
        let records = json.get("inputs").list().iter().filter_map(|record| Some((record.get("topic").text()?.to_owned(), 1)));
        let mut names: Vec<(String, u32)> = told.collect();
        let mut made = Vec::new();
        for text in self.case.statements() {
            let upper = text.to_uppercase();
            let declares = !upper.contains(" AS SELECT") && !upper.contains(" AS\nSELECT");
            if let Some(at) = upper.find("KAFKA_TOPIC").filter(|_| declares) {
                let name = text[at..].split('\'').nth(1).unwrap_or_default().to_owned();
                if upper.contains("PARTITIONS") { made.push(name) } else { names.push((name, 1)) }
            }
        }
        names.extend(records.filter(|(name, _)| !made.contains(name)));
        for (name, partitions) in names {
            if let Ok(name) = name.parse::<TopicName>() {
                // One that is there already was named twice.
                let _ = self.log.create_topic(name, TopicSettings::new(TopicKind::Records, partitions));
            }
        }
    }

    fn request(&self, sql: &str) -> Request {
        let at_least = Some(self.end).filter(|end| *end > Position::default());
        Request { sql: sql.to_owned(), parameters: Vec::new(), at_least, resume: None, timeout: PATIENCE, session: self.session.clone() }
    }

    async fn execute(&mut self, text: &str) -> Result<(), String> {
        let answer = self.engine.execute(self.request(text)).await.map_err(|error| error.to_string())?;
        self.end = self.end.max(answer.position);
        if let Some(change) = answer.session {
            self.session.apply(change).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn catalog(&self) -> Result<Catalog, Failed> {
        catalog::fold(self.log.as_ref()).or_else(|error| failed(error.to_string()))
    }

    /// Query by query: the inputs of its sources, in the order of the case, each followed to its end.
    async fn feed_all(&mut self) -> Result<(), Failed> {
        let catalog = self.catalog()?;
        for query in catalog.queries() {
            let topics: Vec<String> =
                query.sources.iter().filter_map(|name| catalog.source(name).ok()).map(|source| source.topic.to_string()).collect();
            self.feed(&catalog, |topic| topics.iter().any(|one| one == topic)).await?;
        }
        self.feed(&catalog, |_| true).await?;
        self.settle().await
    }

    async fn feed(&mut self, catalog: &Catalog, wanted: impl Fn(&str) -> bool) -> Result<(), Failed> {
        let inputs: Vec<&Json> = self.case.json.get("inputs").list().iter().collect();
        let mut fed = Vec::new();
        for input in inputs {
            let topic = input.get("topic").text().unwrap_or_default();
            if !wanted(topic) || self.fed.contains(topic) {
                continue;
            }
            fed.push(topic.to_owned());
            self.append(catalog, topic, input).await?;
            self.settle().await?;
        }
        self.fed.extend(fed);
        Ok(())
    }

    async fn append(&mut self, catalog: &Catalog, topic: &str, input: &Json) -> Result<(), Failed> {
        let source = catalog.sources().find(|source| source.topic.as_str() == topic);
        let (key, value) = (input.get("key"), input.get("value"));
        let key = source.map_or_else(|| undeclared(key), |source| Side::key(source).encode(key));
        let value = source.map_or_else(|| undeclared(value), |source| Side::value(source).encode(value));
        let headers = input.get("headers").list().iter().map(|header| {
            let bytes = header.get("value").text().and_then(|text| BASE64_STANDARD.decode(text).ok());
            (header.get("key").text().unwrap_or_default().into(), bytes.map(Into::into))
        });
        let time = Timestamp::new(input.get("timestamp").integer().unwrap_or(0));
        let record = NewRecord { key, value, headers: headers.collect(), time: Some(time) };
        let Ok(name) = topic.parse::<TopicName>() else { return failed(format!("no topic name: {topic}")) };
        let end = self.log.ends(&name).or_else(|error| failed(error.to_string()))?.first().map_or(0, |end| end.get());
        let write = Write::Records { topic: name, partition: Some(PartitionId::new(0)), records: vec![record] };
        let appended = self.log.append(Append { writes: vec![write], ..Append::default() });
        let appended = appended.or_else(|error| failed(error.to_string()))?.await.or_else(|error| failed(error.to_string()))?;
        self.inputs.insert((topic.to_owned(), end));
        self.end = self.end.max(appended.end);
        Ok(())
    }

    /// Waits until every query has followed all that was written.
    async fn settle(&self) -> Result<(), Failed> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let follows = |state: &QueryState| matches!(state, QueryState::Running | QueryState::Folding { .. });
        loop {
            let head = self.log.head().position;
            let behind = self.engine.queries().into_iter().find(|status| follows(&status.state) && status.frontier < head);
            match behind {
                None if self.log.head().position == head => return Ok(()),
                None => {}
                Some(status) if tokio::time::Instant::now() > deadline => {
                    return failed(format!("query {} stays at {} of {head}", status.id, status.frontier));
                }
                Some(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
    }

    /// A negative case without a statement that failed: a query must have stopped at a record.
    fn bad_record(&self) -> Result<(), Failed> {
        let stopped = self.engine.queries().into_iter().find(|status| matches!(status.state, QueryState::Failed(_)));
        match stopped {
            Some(status) => Err(Failed { why: format!("query {} stopped", status.id), is_expected: true }),
            None => Ok(()),
        }
    }

    async fn select(&mut self, text: &str, feed_meanwhile: bool) -> Result<Vec<Json>, String> {
        if !text.to_uppercase().contains("EMIT ") {
            let answer = self.engine.execute(self.request(text)).await.map_err(|error| error.to_string())?;
            return rows_of(answer).await;
        }
        let earliest = self.session.setting("auto.offset.reset") != Some("latest");
        let mut request = self.request(text);
        request.at_least = None;
        request.resume = earliest.then(|| Position::default().into());
        let answer = self.engine.push(request).await.map_err(|error| error.to_string())?;
        if feed_meanwhile {
            self.feed_all().await.map_err(|failed| failed.why)?;
        }
        let most = self.expected_pushed(text);
        pushed(answer, most).await
    }

    /// How many rows a SELECT that does not end is expected to give.
    fn expected_pushed(&self, _text: &str) -> usize {
        let responses = self.case.json.get("responses").list();
        let rows = |response: &Json| response.get("query").list().iter().filter(|one| !one.get("row").is_null()).count();
        responses.iter().map(rows).max().unwrap_or(0)
    }

    fn compare_topics(&self) -> Result<(), Failed> {
        let outputs = self.case.json.get("outputs").list();
        let topics: BTreeSet<&str> = outputs.iter().filter_map(|output| output.get("topic").text()).collect();
        let catalog = self.catalog()?;
        for topic in topics {
            let expected: Vec<&Json> = outputs.iter().filter(|output| output.get("topic").text() == Some(topic)).collect();
            let actual = self.records(topic)?;
            let source = catalog.sources().find(|source| source.topic.as_str() == topic);
            let shown = |record: &Record| {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                match source {
                    Some(source) => (Side::key(source).decode(key), Side::value(source).decode(value)),
                    None => {
                        let text = |bytes: Option<&[u8]>| {
                            bytes.map_or(Json::Null, |bytes| Json::Text(String::from_utf8_lossy(bytes).into_owned()))
                        };
                        (text(key), text(value))
                    }
                }
            };
            if expected.len() != actual.len() {
                let all: Vec<String> = actual.iter().map(shown).map(|(key, value)| format!("{key} {value}")).collect();
                return failed(format!(
                    "topic {topic}: {} records expected, {} found: {:.300}",
                    expected.len(),
                    actual.len(),
                    all.join(" | ")
                ));
            }
            for (place, (expected, record)) in expected.iter().zip(&actual).enumerate() {
                let (key, value) = shown(record);
                let is_object = |json: &Json| matches!(json, Json::Object(_));
                let types = |side: Side<'_>, json: &Json| side.data_type(is_object(json));
                let key_type = source.and_then(|source| types(Side::key(source), &key));
                let value_type = source.and_then(|source| types(Side::value(source), &value));
                let difference = differ(expected.get("key"), &key, key_type.as_ref())
                    .map(|why| format!("key: {why}"))
                    .or_else(|| differ(expected.get("value"), &value, value_type.as_ref()).map(|why| format!("value: {why}")))
                    .or_else(|| record.differs(expected));
                if let Some(difference) = difference {
                    return failed(format!("topic {topic}, record {place}: {difference}"));
                }
            }
        }
        Ok(())
    }

    /// Records of a topic that were not fed, in their order.
    fn records(&self, topic: &str) -> Result<Vec<Record>, Failed> {
        let Ok(name) = topic.parse::<TopicName>() else { return failed(format!("no topic name: {topic}")) };
        if self.log.topic(&name).is_err() {
            return failed(format!("there is no topic {topic}"));
        }
        let head = self.log.head().position;
        let reader = self.log.reader(Selection::Topics(vec![name], Position::default()));
        let mut reader = reader.or_else(|error| failed(error.to_string()))?;
        let mut records = Vec::new();
        let mut at = Position::default();
        while at < head {
            let chunk = reader.read(head, ReadLimits { records: 1_000, bytes: 1 << 20 }).or_else(|error| failed(error.to_string()))?;
            for run in &chunk.runs {
                for record in run.records() {
                    let record = record.or_else(|error| failed(error.to_string()))?;
                    if self.inputs.contains(&(topic.to_owned(), record.offset.get())) {
                        continue;
                    }
                    records.push(Record {
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        time: record.timestamp.get(),
                        headers: record.headers().count(),
                    });
                }
            }
            at = chunk.scanned_to;
        }
        Ok(records)
    }

    fn compare_sources(&self) -> Result<(), Failed> {
        let catalog = self.catalog()?;
        for expected in self.case.json.get("post_sources").list() {
            let name = expected.get("name").text().unwrap_or_default();
            let Ok(source) = catalog.source(name) else { return failed(format!("there is no source {name}")) };
            let kind = match source.kind {
                SourceKind::Stream => "stream",
                SourceKind::Table => "table",
            };
            if expected.get("type").text().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(kind)) {
                return failed(format!("{name} is a {kind}"));
            }
            if let Some(wanted) = expected.get("schema").text() {
                let mark = |key: bool| if key { " KEY" } else { "" };
                let columns = source.columns.iter().map(|one| format!("`{}` {}{}", one.name, type_text(&one.data_type), mark(one.key)));
                let given = columns.collect::<Vec<_>>().join(", ");
                if normal(wanted) != normal(&given) {
                    return failed(format!("{name} has {given}, expected {wanted}"));
                }
            }
            let format = expected.get("keyFormat");
            let format = format.text().or_else(|| format.get("format").text());
            if let Some(wanted) = format.filter(|wanted| !wanted.eq_ignore_ascii_case(source.key_format.as_str())) {
                return failed(format!("{name} has key format {}, expected {wanted}", source.key_format.as_str()));
            }
        }
        Ok(())
    }
}

struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: i64,
    headers: usize,
}

impl Record {
    fn differs(&self, expected: &Json) -> Option<String> {
        if let Some(wanted) = expected.get("timestamp").integer().filter(|wanted| *wanted != self.time) {
            return Some(format!("timestamp {} instead of {wanted}", self.time));
        }
        let wanted = expected.get("headers").list().len();
        (wanted != self.headers).then(|| format!("{} headers instead of {wanted}", self.headers))
    }
}

fn is_select(text: &str) -> bool {
    text.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
}

/// A schema in one way of writing: no quotes, one space, short names of types.
fn normal(schema: &str) -> String {
    let upper = schema.replace('`', "").to_uppercase();
    let words = upper
        .replace("< >", "<>")
        .replace("PRIMARY KEY", "KEY")
        .replace("VARCHAR", "STRING")
        .replace("INTEGER", "INT")
        .replace(", ", ",")
        .replace(" ,", ",")
        .replace("< >", "<>");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn type_text(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::Binary => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) => "TIME".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::List(field) => format!("ARRAY<{}>", type_text(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => entry.iter().map(|field| type_text(field.data_type())).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        }
        .split_once(", ")
        .map_or_else(String::new, |(key, value)| format!("MAP<{key}, {value}>")),
        DataType::Struct(fields) => {
            let each: Vec<String> = fields.iter().map(|field| format!("`{}` {}", field.name(), type_text(field.data_type()))).collect();
            format!("STRUCT<{}>", each.join(", "))
        }
        other => other.to_string(),
    }
}

fn header(schema: &foldlog_query::arrow::datatypes::Schema, keys: &[usize]) -> Json {
    let columns = schema.fields().iter().enumerate().map(|(place, field)| {
        let mark = if keys.contains(&place) { " KEY" } else { "" };
        format!("`{}` {}{mark}", field.name(), type_text(field.data_type()))
    });
    let schema = Json::Text(columns.collect::<Vec<_>>().join(", "));
    Json::Object(vec![("header".to_owned(), Json::Object(vec![("schema".to_owned(), schema)]))])
}

fn row(columns: &[ArrayRef], row: usize, is_gone: bool) -> Result<Json, String> {
    let mut values = Vec::new();
    for column in columns {
        let text = codec::json_of(column, row).map_err(|error| error.to_string())?;
        values.push(Json::parse(&text)?);
    }
    let mut fields = vec![("columns".to_owned(), Json::List(values))];
    if is_gone {
        fields.push(("tombstone".to_owned(), Json::Bool(true)));
    }
    Ok(Json::Object(vec![("row".to_owned(), Json::Object(fields))]))
}

fn rows(batch: &RecordBatch, ops: &[ChangeOp]) -> Result<Vec<Json>, String> {
    let shown = |at: usize| ops.get(at) != Some(&ChangeOp::UpdateBefore);
    (0..batch.num_rows()).filter(|at| shown(*at)).map(|at| row(batch.columns(), at, ops.get(at) == Some(&ChangeOp::Delete))).collect()
}

async fn rows_of(mut answer: Answer) -> Result<Vec<Json>, String> {
    let mut all = vec![header(&answer.schema, &answer.keys)];
    while let Some(batch) = answer.batches.next().await {
        all.extend(rows(&batch.map_err(|error| error.to_string())?, &[])?);
    }
    Ok(all)
}

async fn pushed(mut answer: PushAnswer, most: usize) -> Result<Vec<Json>, String> {
    let mut all = vec![header(&answer.schema, &[])];
    while all.len() <= most {
        match tokio::time::timeout(NEXT_ROW, answer.items.next()).await {
            Ok(Some(Ok(PushItem::Changes { rows: batch, ops, .. }))) => all.extend(rows(&batch, &ops)?),
            Ok(Some(Ok(PushItem::Progress(_)))) => {}
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(all)
}

/// Rows in any order; what is listed must be equal.
fn compare_rows(expected: &[Json], actual: &[Json]) -> Result<(), String> {
    let is_told = |one: &&Json| one.get("finalMessage").is_null();
    let expected: Vec<&Json> = expected.iter().filter(is_told).collect();
    let all = || actual.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if expected.len() != actual.len() {
        return Err(format!("{} rows expected, {} found: {:.400}", expected.len(), actual.len(), all()));
    }
    let mut left: Vec<&Json> = actual.iter().collect();
    for wanted in expected {
        let found = left.iter().position(|given| listed_differ(wanted, given).is_none());
        match found {
            Some(place) => drop(left.remove(place)),
            None => return Err(format!("no row is {wanted}: {:.400}", all())),
        }
    }
    Ok(())
}

/// What differs among the fields that are listed.
fn listed_differ(expected: &Json, actual: &Json) -> Option<String> {
    match (expected, actual) {
        (Json::Object(wanted), Json::Object(_)) => {
            let listed = wanted.iter().filter(|(name, _)| !name.contains("queryId"));
            listed
                .filter_map(|(name, value)| match (name.as_str(), value, actual.get(name)) {
                    ("schema", Json::Text(wanted), Json::Text(given)) => {
                        (normal(wanted) != normal(given)).then(|| format!("schema {given}"))
                    }
                    ("columns", wanted, given) => differ(wanted, given, None),
                    (_, wanted, given) => listed_differ(wanted, given),
                })
                .next()
        }
        _ => differ(expected, actual, None),
    }
}
