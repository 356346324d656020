//! One arithmetic everywhere: random expressions and aggregates over rows of edge values, once by queries that do not end and
//! once by bounded ones, must give the same values in the same types.
//!
//! Both share the kernels of `plan/operation`; what these are wrong about shows in `tests/sql/arithmetic.slt`, worked out by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::SchemaRef};
use common::PATIENCE;
use foldlog_log::{
    LogBackend, Position,
    clock::{Clock, SystemClock},
    testing::{MemoryLog, Random},
};
use foldlog_query::{Engine, PushItem, QueryConfig, QueryError, Request, ScalarValue, Session, arrow::record_batch::RecordBatch};
use futures::StreamExt as _;

const ROWS: usize = 40;

/// Values of the columns `a`, `b` (BIGINT), `i` (INTEGER), `x`, `y` (DOUBLE), `s` (VARCHAR), `d` and `w` (DECIMAL), `t`
/// (TIMESTAMP), as they are inserted.
const INTEGERS: [&str; 9] = ["0", "1", "-1", "2", "-7", "9223372036854775807", "-9223372036854775807 - 1", "NULL", "3000000000"];
const SMALL: [&str; 6] = ["0", "1", "-1", "2147483647", "-2147483648", "NULL"];
const DOUBLES: [&str; 9] = ["0.0", "-0.0", "1.5", "-2.5", "0.1", "1e308", "-1e308", "1e-320", "NULL"];
const TEXTS: [&str; 16] = [
    "''",
    "'abc'",
    "'NaN'",
    "'inf'",
    "'-inf'",
    "'-0.0'",
    "'12'",
    "' 7'",
    "'-9223372036854775808'",
    "'9223372036854775808'",
    "'1e400'",
    "'2013-01-01T10:00:00Z'",
    "'999999-01-01'",
    "'Ünïcode'",
    "'0.5'",
    "NULL",
];
const DECIMALS: [&str; 6] = ["0.00", "1.25", "-0.01", "99999999.99", "-99999999.99", "NULL"];
const WIDE: [&str; 5] = [
    "'0'",
    "'12345678901234567890.123456'",
    "'9999999999999999999999999999999.999999'",
    "'-9999999999999999999999999999999.999999'",
    "NULL",
];
const TIMES: [&str; 6] = [
    "'1970-01-01T00:00:00Z'",
    "'2013-01-01T10:30:15.123Z'",
    "'1677-09-21T00:00:00Z'",
    "'9999-12-31T23:59:59Z'",
    "'0001-01-01T00:00:00Z'",
    "NULL",
];

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Integer,
    Double,
    Text,
    Decimal,
    Time,
    Truth,
}

const TYPES: [Type; 6] = [Type::Integer, Type::Double, Type::Text, Type::Decimal, Type::Time, Type::Truth];

struct Writer {
    random: Random,
}

impl Writer {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// An expression; what it says may be nonsense that the planner refuses.
    fn expression(&mut self, of: Type, depth: usize) -> String {
        if depth == 0 || self.below(8) == 0 {
            return self.leaf(of);
        }
        let depth = depth - 1;
        match self.below(12) {
            0 => {
                let (when, then, other) = (self.expression(Type::Truth, depth), self.expression(of, depth), self.expression(of, depth));
                return format!("CASE WHEN {when} THEN {then} ELSE {other} END");
            }
            1 => return format!("COALESCE({}, {})", self.expression(of, depth), self.expression(of, depth)),
            2 => return format!("NULLIF({}, {})", self.expression(of, depth), self.expression(of, depth)),
            _ => {}
        }
        match of {
            Type::Integer => self.integer(depth),
            Type::Double => self.double(depth),
            Type::Text => self.text(depth),
            Type::Decimal => self.decimal(depth),
            Type::Time => self.time(depth),
            Type::Truth => self.truth(depth),
        }
    }

    fn leaf(&mut self, of: Type) -> String {
        match of {
            Type::Integer => self.one(&["a", "b", "i", "0", "1", "-1", "9223372036854775807", "CAST(NULL AS BIGINT)"]).to_owned(),
            Type::Double => self.one(&["x", "y", "CAST(s AS DOUBLE)", "0.0", "-0.0", "1e308", "CAST('NaN' AS DOUBLE)"]).to_owned(),
            Type::Text => self.one(&["s", "''", "'12'", "'x'"]).to_owned(),
            Type::Decimal => self.one(&["d", "w", "CAST(0 AS DECIMAL(5, 2))", "CAST('1.005' AS DECIMAL(9, 3))"]).to_owned(),
            Type::Time => self.one(&["t", "TIMESTAMP '2013-01-01T00:00:00Z'"]).to_owned(),
            Type::Truth => self.one(&["a > 0", "s IS NULL", "x < y", "true"]).to_owned(),
        }
    }

    fn operator(&mut self) -> &'static str {
        self.one(&["+", "-", "*", "/", "%"])
    }

    fn integer(&mut self, depth: usize) -> String {
        match self.below(10) {
            0 => format!("- ({})", self.expression(Type::Integer, depth)),
            1 => format!("CAST({} AS BIGINT)", self.expression(Type::Text, depth)),
            2 => format!("CAST({} AS INTEGER)", self.expression(Type::Double, depth)),
            3 => format!("CAST({} AS INTEGER)", self.expression(Type::Integer, depth)),
            4 => format!("CAST({} AS BIGINT)", self.expression(Type::Decimal, depth)),
            5 => format!("length({})", self.expression(Type::Text, depth)),
            6 => {
                let function = self.one(&["abs", "factorial", "signum"]);
                format!("{function}({})", self.expression(Type::Integer, depth))
            }
            _ => format!("({} {} {})", self.expression(Type::Integer, depth), self.operator(), self.expression(Type::Integer, depth)),
        }
    }

    fn double(&mut self, depth: usize) -> String {
        match self.below(7) {
            0 => format!("- ({})", self.expression(Type::Double, depth)),
            1 => format!("CAST({} AS DOUBLE)", self.expression(Type::Text, depth)),
            2 => format!("CAST({} AS DOUBLE)", self.expression(Type::Integer, depth)),
            3 => {
                let function = self.one(&["sqrt", "ln", "floor", "exp", "abs"]);
                format!("{function}({})", self.expression(Type::Double, depth))
            }
            _ => format!("({} {} {})", self.expression(Type::Double, depth), self.operator(), self.expression(Type::Double, depth)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        match self.below(6) {
            0 => format!("({} || {})", self.expression(Type::Text, depth), self.expression(Type::Text, depth)),
            1 => format!("upper({})", self.expression(Type::Text, depth)),
            2 => format!("substr({}, {})", self.expression(Type::Text, depth), self.expression(Type::Integer, depth)),
            3 => format!("CAST({} AS VARCHAR)", self.expression(Type::Time, depth)),
            4 => format!("CAST({} AS VARCHAR)", self.expression(Type::Decimal, depth)),
            _ => format!("CAST({} AS VARCHAR)", self.expression(Type::Integer, depth)),
        }
    }

    fn decimal(&mut self, depth: usize) -> String {
        match self.below(5) {
            0 => format!("CAST({} AS DECIMAL(10, 2))", self.expression(Type::Integer, depth)),
            1 => format!("CAST({} AS DECIMAL(8, 3))", self.expression(Type::Text, depth)),
            2 => format!("CAST({} AS DECIMAL(20, 4))", self.expression(Type::Double, depth)),
            _ => format!("({} {} {})", self.expression(Type::Decimal, depth), self.operator(), self.expression(Type::Decimal, depth)),
        }
    }

    fn time(&mut self, depth: usize) -> String {
        match self.below(4) {
            0 => format!("CAST({} AS TIMESTAMP)", self.expression(Type::Text, depth)),
            1 => format!("to_timestamp({})", self.expression(Type::Text, depth)),
            2 => format!("date_trunc('day', {})", self.expression(Type::Time, depth)),
            _ => format!("({} + INTERVAL '36' HOUR)", self.expression(Type::Time, depth)),
        }
    }

    fn truth(&mut self, depth: usize) -> String {
        match self.below(5) {
            0 => format!("({} AND {})", self.expression(Type::Truth, depth), self.expression(Type::Truth, depth)),
            1 => format!("({} OR NOT ({}))", self.expression(Type::Truth, depth), self.expression(Type::Truth, depth)),
            2 => {
                let of = self.one(&TYPES);
                format!("({} IS NULL)", self.expression(of, depth))
            }
            _ => {
                let of = self.one(&TYPES);
                let operator = self.one(&["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
                format!("({} {operator} {})", self.expression(of, depth), self.expression(of, depth))
            }
        }
    }

    fn aggregate(&mut self) -> String {
        let numbers = self.one(&[Type::Integer, Type::Double, Type::Decimal]);
        let any = self.one(&TYPES);
        match self.below(5) {
            0 => format!("SUM({})", self.expression(numbers, 1)),
            1 => format!("AVG({})", self.expression(numbers, 1)),
            2 => format!("MIN({})", self.expression(any, 1)),
            3 => format!("MAX({})", self.expression(any, 1)),
            _ => format!("COUNT({})", self.expression(any, 1)),
        }
    }
}

struct Bench {
    engine: Engine,
    log: MemoryLog,
}

impl Bench {
    async fn new(writer: &mut Writer) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let log = MemoryLog::new(Arc::clone(&clock));
        let bench = Self { engine: Engine::open(Arc::new(log.clone()), clock, QueryConfig::default()).unwrap(), log };
        bench
            .pull(
                "CREATE STREAM rows (id BIGINT, g VARCHAR, a BIGINT, b BIGINT, i INTEGER, x DOUBLE, y DOUBLE, s VARCHAR,
                 d DECIMAL(10, 2), w DECIMAL(38, 6), t TIMESTAMP) WITH (partitions = 3)",
            )
            .await
            .unwrap();
        let mut rows = Vec::new();
        for id in 0..ROWS {
            let group = writer.below(5);
            let values = [
                writer.one(&INTEGERS),
                writer.one(&INTEGERS),
                writer.one(&SMALL),
                writer.one(&DOUBLES),
                writer.one(&DOUBLES),
                writer.one(&TEXTS),
                writer.one(&DECIMALS),
                writer.one(&WIDE),
                writer.one(&TIMES),
            ];
            rows.push(format!("({id}, 'g{group}', {})", values.join(", ")));
        }
        bench.pull(&format!("INSERT INTO rows VALUES {}", rows.join(", "))).await.unwrap();
        bench
    }

    fn request(&self, sql: &str) -> Request {
        let at_least = Some(self.log.head().position);
        Request {
            sql: sql.to_owned(),
            parameters: Vec::new(),
            at_least,
            resume: Some(Position::default().into()),
            timeout: PATIENCE,
            session: Session::default(),
        }
    }

    async fn pull(&self, sql: &str) -> Result<Rows, QueryError> {
        let answer = self.engine.execute(self.request(sql)).await?;
        let schema = Arc::clone(&answer.schema);
        let mut rows = Rows::new(schema);
        let mut batches = answer.batches;
        while let Some(batch) = batches.next().await {
            rows.add(&batch?);
        }
        Ok(rows.sorted())
    }

    /// The rows of a push query over all that the stream has.
    async fn push(&self, sql: &str) -> Result<Rows, QueryError> {
        let mut answer = self.engine.push(self.request(sql)).await?;
        let mut rows = Rows::new(Arc::clone(&answer.schema));
        let end = self.log.head().position;
        loop {
            let next = tokio::time::timeout(PATIENCE, answer.items.next()).await.expect("rows in time");
            let position = match next.expect("it does not end")? {
                PushItem::Changes { rows: changed, position, .. } => {
                    rows.add(&changed);
                    position
                }
                PushItem::Progress(position) => position,
            };
            if position >= end {
                return Ok(rows.sorted());
            }
        }
    }
}

/// An answer: its columns' names and types, and its rows as text that tells every value from every other.
#[derive(Debug, PartialEq)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    fn new(schema: SchemaRef) -> Self {
        Self { columns: schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect(), rows: Vec::new() }
    }

    fn add(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| format!("{:?}", ScalarValue::try_from_array(column, row).unwrap());
            self.rows.push(batch.columns().iter().map(cell).collect());
        }
    }

    fn sorted(mut self) -> Self {
        self.rows.sort();
        self
    }
}

/// Both answers, or none if both are refused.
fn same(sql: &str, folded: Result<Rows, QueryError>, pulled: Result<Rows, QueryError>) -> Option<Rows> {
    match (folded, pulled) {
        (Ok(folded), Ok(pulled)) => {
            assert_eq!(folded.columns, pulled.columns, "{sql}");
            assert_eq!(folded.rows.len(), pulled.rows.len(), "{sql}");
            for (folded, pulled) in folded.rows.iter().zip(&pulled.rows) {
                assert_eq!(folded, pulled, "{sql}: folded, pulled");
            }
            Some(pulled)
        }
        (Err(_), Err(_)) => None,
        (folded, pulled) => panic!("{sql}: one refuses it\nfolded {:?}\npulled {:?}", folded.err(), pulled.err()),
    }
}

fn nulls(rows: &Rows) -> usize {
    rows.rows.iter().flatten().filter(|value| value.contains("NULL")).count()
}

fn writer() -> Writer {
    let seed = std::env::var("FOLDLOG_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_130_101);
    println!("seed {seed} (FOLDLOG_TEST_SEED)");
    Writer { random: Random::new(seed) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_have_the_same_values_in_push_and_pull_queries() {
    let mut writer = writer();
    let (mut compared, mut failed, mut refused) = (0, 0, 0);
    let bench = Bench::new(&mut writer).await;
    for _ in 0..300 {
        let of = writer.one(&TYPES);
        let expression = writer.expression(of, 3);
        let sql = format!("SELECT id, {expression} AS value FROM rows");
        match same(&sql, bench.push(&format!("{sql} EMIT CHANGES")).await, bench.pull(&sql).await) {
            Some(rows) => {
                assert_eq!(rows.rows.len(), ROWS, "{sql}");
                compared += ROWS;
                failed += nulls(&rows);
            }
            None => refused += 1,
        }
    }
    for _ in 0..100 {
        // One row always passes: a push query says nothing of rows that do not.
        let sql = format!("SELECT id FROM rows WHERE ({}) OR id = 0", writer.expression(Type::Truth, 3));
        match same(&sql, bench.push(&format!("{sql} EMIT CHANGES")).await, bench.pull(&sql).await) {
            Some(rows) => compared += rows.rows.len(),
            None => refused += 1,
        }
    }
    println!("{compared} values compared, {failed} of them NULL, {refused} statements refused by both");
    assert!(compared > 8_000 && failed > 2_000 && failed < compared - 2_000 && refused < 120, "{compared} {failed} {refused}");
    bench.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_have_the_same_values_in_views_and_pull_queries() {
    let mut writer = writer();
    let (mut compared, mut refused) = (0, 0);
    for round in 0..4 {
        let bench = Bench::new(&mut writer).await;
        for number in 0..15 {
            let aggregates: Vec<String> = (0..3).map(|place| format!("{} AS v{place}", writer.aggregate())).collect();
            // NULL is no group of a view.
            let sql = format!("SELECT g, {} FROM rows GROUP BY g", aggregates.join(", "));
            let created = bench.pull(&format!("CREATE TABLE view{number} AS {sql}")).await;
            let folded = match created {
                Ok(_) => bench.pull(&format!("SELECT * FROM view{number}")).await,
                Err(error) => Err(error),
            };
            match same(&sql, folded, bench.pull(&sql).await) {
                Some(rows) => compared += rows.rows.len() * 3,
                None => refused += 1,
            }
            // Over all rows: without groups DataFusion takes another way.
            let whole = format!("SELECT {} FROM rows", aggregates.join(", "));
            let keyed = format!("SELECT 'all' AS k, {} FROM rows GROUP BY k", aggregates.join(", "));
            if let Ok(pulled) = bench.pull(&whole).await {
                let grouped = bench.pull(&keyed).await.unwrap();
                let unkeyed: Vec<_> = grouped.rows.iter().map(|row| row[1..].to_vec()).collect();
                assert_eq!(pulled.rows, unkeyed, "{whole}");
            }
        }
        bench.engine.stop().await;
        println!("round {round}: {compared} values compared, {refused} statements refused by both");
    }
    assert!(compared > 400 && refused < 30, "{compared} {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_the_same_in_views_and_pull_queries() {
    let mut writer = writer();
    let bench = Bench::new(&mut writer).await;
    for (number, key) in ["CAST(s AS DOUBLE)", "x", "x * y", "d", "a % 3"].into_iter().enumerate() {
        // A row without a key joins no group of a view.
        let sql = format!("SELECT {key} AS k, COUNT(*) AS n FROM rows WHERE {key} IS NOT NULL GROUP BY {key}");
        bench.pull(&format!("CREATE TABLE v{number} AS {sql}")).await.unwrap();
        let rows = same(&sql, bench.pull(&format!("SELECT * FROM v{number}")).await, bench.pull(&sql).await).unwrap();
        assert!(number > 0 || rows.rows.iter().any(|row| row[0].contains("NaN")), "{rows:?}");
        assert!(number != 1 || rows.rows.iter().filter(|row| row[0].contains("(0)") || row[0].contains("(-0)")).count() == 1, "{rows:?}");
    }
    bench.engine.stop().await;
}
