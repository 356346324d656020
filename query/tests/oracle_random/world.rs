//! A world: sources, records, queries and what happens to them, all from one number.

use bytes::Bytes;
use foldlog_log::{NewRecord, testing::Random};

use super::{
    data::Pools,
    grammar::{Rules, chance},
    query::{Query, Verb, any_query, inserts},
    schema::{Source, declared},
};

/// Records that are appended at once.
#[derive(Clone, Debug)]
pub struct Batch {
    pub source: usize,
    pub partition: u32,
    pub records: Vec<NewRecord>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    /// How it happens: steps, restarts, and what is asked when.
    pub course: u64,
    pub rules: Rules,
    /// Those that are declared come with `declared`; the others are made by queries.
    pub sources: Vec<Source>,
    pub declared: Vec<usize>,
    pub batches: Vec<Batch>,
    pub queries: Vec<Query>,
    /// Whether the log lies on a disk that loses power.
    pub on_disk: bool,
    /// Whether the state of its queries is kept over restarts.
    pub keeps: bool,
    /// Whether what is replaced in a table's topic goes when nobody needs it any more.
    pub compacts: bool,
}

/// Most queries that lie between a result and what was declared.
const DEPTH: u32 = 3;

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rules = if random.one_in(2) { Rules::Standard } else { Rules::Ksql };
        let mut world = Self {
            seed,
            course: seed,
            rules,
            sources: Vec::new(),
            declared: Vec::new(),
            batches: Vec::new(),
            queries: Vec::new(),
            on_disk: random.one_in(3),
            keeps: chance(&mut random, 60),
            compacts: random.one_in(2),
        };
        world.compacts &= world.on_disk && world.keeps;
        for (name, is_table) in [("s", false), ("u", chance(&mut random, 30)), ("t", true)] {
            world.declared.push(world.sources.len());
            world.sources.push(declared(&mut random, name, is_table, rules));
        }
        if random.one_in(2) {
            world.add_inserts(&mut random);
        }
        while world.queries.len() < 10 {
            let readable: Vec<usize> = (0..world.sources.len()).filter(|at| world.sources[*at].depth < DEPTH).collect();
            // Declared ones are read as often as all others together.
            let among = if chance(&mut random, 50) { &world.declared } else { &readable };
            let from = *super::grammar::one_of(&mut random, among);
            let name = format!("r{}", world.queries.len());
            let (query, into) = any_query(&mut random, &name, from, &world.sources[from]);
            world.queries.push(Query { into: world.sources.len(), ..query });
            world.sources.push(into);
        }
        world.replace(&mut random);
        world.fill(&mut random);
        world
    }

    /// Has others take the place of some queries later.
    fn replace(&mut self, random: &mut Random) {
        for _ in 0..random.below(5) {
            let at = usize::try_from(random.below(self.queries.len() as u64)).unwrap();
            let old = &self.queries[at];
            let is_newest = self.queries[at + 1..].iter().all(|query| query.into != old.into);
            if old.verb == Verb::Insert || !is_newest {
                continue;
            }
            let other = old.replaced(random, &self.sources[old.from], &self.sources[old.into]);
            let place = at + 1 + usize::try_from(random.below((self.queries.len() - at) as u64)).unwrap();
            self.queries.insert(place, other);
        }
    }

    /// The statement that starts a query.
    pub fn statement(&self, query: &Query) -> String {
        let into = &self.sources[query.into];
        query.statement(&self.sources[query.from], into, &into.name, &query.id)
    }

    /// All queries that write what this one writes, one in place of the other.
    pub fn line<'a>(&'a self, query: &'a Query) -> impl Iterator<Item = &'a Query> {
        self.queries.iter().filter(move |other| other.id == query.id || query.verb != Verb::Insert && other.into == query.into)
    }

    /// Whether no other one takes its place.
    pub fn is_last(&self, query: &Query) -> bool {
        self.line(query).last().is_none_or(|last| last.id == query.id)
    }

    fn add_inserts(&mut self, random: &mut Random) {
        let from: Vec<(usize, &Source)> = (0..2).map(|at| (at, &self.sources[at])).filter(|(_, source)| !source.is_table).collect();
        let (target, queries) = inserts(random, "x", &from);
        let into = self.sources.len();
        self.declared.push(into);
        self.sources.push(target);
        self.queries.extend(queries.into_iter().map(|query| Query { into, ..query }));
    }

    fn fill(&mut self, random: &mut Random) {
        let pools: Vec<Pools> = self.declared.iter().map(|at| Pools::new(random, &self.sources[*at])).collect();
        for _ in 0..14 + random.below(10) {
            let at = usize::try_from(random.below(self.declared.len() as u64)).unwrap();
            let source = self.declared[at];
            let partition = u32::try_from(random.below(self.sources[source].partitions.into())).unwrap();
            let most = if random.one_in(8) { 30 } else { 6 };
            let count = 1 + random.below(most);
            let records = (0..count).map(|_| pools[at].record(random, &self.sources[source])).collect();
            self.batches.push(Batch { source, partition, records });
        }
    }

    /// Statements that declare and start everything, and the records, for whoever wants to see it happen.
    pub fn script(&self) -> String {
        let mut lines = Vec::new();
        if self.rules == Rules::Ksql {
            lines.push("SET 'sql.dialect' = 'ksql';\nSET 'auto.offset.reset' = 'earliest';".to_owned());
        }
        let is_used = |at: usize| self.queries.iter().any(|query| query.from == at || query.into == at);
        for at in self.declared.iter().filter(|at| is_used(**at)) {
            let source = &self.sources[*at];
            let statement = source.declaration();
            lines.push(format!("{}, partitions = {});", statement.trim_end_matches(')'), source.partitions));
        }
        lines.extend(self.queries.iter().map(|query| format!("{};", self.statement(query))));
        let text = |bytes: &Option<Bytes>| bytes.as_ref().map_or("none".to_owned(), |bytes| bytes.escape_ascii().to_string());
        for batch in &self.batches {
            lines.push(format!("-- into topic {}, partition {}: time, key, value", self.sources[batch.source].topic, batch.partition));
            lines.extend(
                batch.records.iter().map(|record| {
                    format!("--   {} {} {}", record.time.map_or(0, |time| time.get()), text(&record.key), text(&record.value))
                }),
            );
        }
        lines.join("\n")
    }

    /// Sources that queries read or write.
    pub fn used(&self) -> impl Iterator<Item = &Source> {
        let is_used = |at: &usize| self.declared.contains(at) || self.queries.iter().any(|query| query.into == *at);
        (0..self.sources.len()).filter(is_used).map(|at| &self.sources[at])
    }

    /// The same world with one query alone, and those that it reads from.
    pub fn with_only(&self, id: &str) -> Self {
        let Some(query) = self.queries.iter().find(|query| query.id == id) else { return self.clone() };
        let mut kept: Vec<&Query> = self.line(query).collect();
        let mut wanted = vec![query.from];
        while let Some(writer) =
            self.queries.iter().find(|query| wanted.contains(&query.into) && kept.iter().all(|other| other.id != query.id))
        {
            wanted.push(writer.from);
            kept.push(writer);
        }
        let is_kept = |query: &&Query| kept.iter().any(|other| other.id == query.id);
        let kept = self.queries.iter().filter(is_kept).cloned().collect();
        Self { queries: kept, ..self.clone() }
    }
}
