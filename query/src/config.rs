//! What the query engine can be told; `server` reads it from its configuration file as the section `query`.

use serde::{Deserialize, Serialize};

use crate::sql::{DialectKind, dialect::CollectLimits};

/// Settings of the query engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Threads that fold. Default: one a core. 1 to 1,024.
    pub workers: u32,
    /// Pull queries that run at once; more wait in line, then are refused. Default 64: enough to keep every core busy, few enough
    /// that each gets memory. 1 to 10,000.
    pub max_running_queries: u32,
    /// Push queries that run at once; more are refused. Default 10,000: most follow what others have computed, and wait. 1 to
    /// 100,000.
    pub max_push_queries: u32,
    /// Persistent queries of a folder. Default 5,000: one that idles costs its state and no thread. 1 to 10,000.
    pub max_persistent_queries: u32,
    /// Memory for pull queries together, in MiB. Default 256: a sort or join beyond it is refused, appends are not disturbed. 16
    /// to 1,048,576.
    pub memory_mib: u64,
    /// Memory for the state of one query, in MiB; over it the query stops with the reason. Default 4,096. 1 to 1,048,576.
    pub state_mib: u64,
    /// Most rows of a pull query's answer. Default 10,000,000. 1 to 1,000,000,000.
    pub max_answer_rows: u64,
    /// The rules of statements whose session does not choose (`SET 'sql.dialect'`): `standard` or `ksql`. Default `standard`, which is
    /// what SQL says.
    pub dialect: DialectKind,
    /// How many values COLLECT_LIST shows in a query whose session does not say (`SET 'ksql.functions.collect_list.limit'`); it stays with the
    /// query. Default 1,000, as in ksqlDB. 0 to 1,000,000.
    pub collect_list_limit: u32,
    /// The same of COLLECT_SET. Default 1,000. 0 to 1,000,000.
    pub collect_set_limit: u32,
    /// Longest time of a statement, in milliseconds, whatever its request says. Default 300,000. 100 to 86,400,000.
    pub max_timeout_ms: u64,
}

impl Default for QueryConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        Self {
            workers: cores,
            max_running_queries: 64,
            max_push_queries: 10_000,
            max_persistent_queries: 5_000,
            memory_mib: 256,
            state_mib: 4_096,
            max_answer_rows: 10_000_000,
            dialect: DialectKind::Standard,
            collect_list_limit: CollectLimits::DEFAULT.list,
            collect_set_limit: CollectLimits::DEFAULT.set,
            max_timeout_ms: 300_000,
        }
    }
}

impl QueryConfig {
    /// Checks every value against its bounds.
    ///
    /// # Errors
    /// Every fault at once, each with its key and the range allowed.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let fields = [
            ("workers", u64::from(self.workers), 1, 1_024),
            ("max_running_queries", u64::from(self.max_running_queries), 1, 10_000),
            ("max_push_queries", u64::from(self.max_push_queries), 1, 100_000),
            ("max_persistent_queries", u64::from(self.max_persistent_queries), 1, 10_000),
            ("memory_mib", self.memory_mib, 16, 1_048_576),
            ("state_mib", self.state_mib, 1, 1_048_576),
            ("max_answer_rows", self.max_answer_rows, 1, 1_000_000_000),
            ("collect_list_limit", u64::from(self.collect_list_limit), 0, 1_000_000),
            ("collect_set_limit", u64::from(self.collect_set_limit), 0, 1_000_000),
            ("max_timeout_ms", self.max_timeout_ms, 100, 86_400_000),
        ];
        let faults: Vec<String> = fields
            .iter()
            .filter(|(_, value, least, most)| value < least || value > most)
            .map(|(key, value, least, most)| format!("query.{key} = {value}: allowed is {least} to {most}"))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_with_its_key_and_range() {
        assert_eq!(QueryConfig::default().validate(), Ok(()));
        let faults = QueryConfig { workers: 0, memory_mib: 1, ..QueryConfig::default() }.validate().unwrap_err();
        assert_eq!(faults, ["query.workers = 0: allowed is 1 to 1024", "query.memory_mib = 1: allowed is 16 to 1048576"]);
    }
}
