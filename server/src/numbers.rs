//! Numbers of the log, the queries and the consumer groups, taken when somebody asks for `/metrics`.

use std::{fmt, sync::Arc};

use foldlog_log::{Distribution, EmbeddedLog, LogBackend as _, Timestamp};
use foldlog_query::{
    Engine,
    supervisor::{QueryState, QueryStatus},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{app::Load, groups::Groups};

/// Queries that have numbers of their own; those beyond are summed up as `other`, so that the page stays small.
const LABELLED_QUERIES: usize = 100;
/// The same for consumer groups.
const LABELLED_GROUPS: usize = 100;

/// See the module.
pub struct Numbers {
    log: Arc<EmbeddedLog>,
    engine: Engine,
    groups: Groups,
    load: Load,
}

impl Numbers {
    /// The numbers of these.
    pub const fn new(log: Arc<EmbeddedLog>, engine: Engine, groups: Groups, load: Load) -> Self {
        Self { log, engine, groups, load }
    }

    fn log(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let log = self.log.metrics();
        gauge(encoder, "log_queued", "Appends waiting for the committer", log.queued as f64)?;
        gauge(encoder, "log_queued_bytes", "Bytes of appends waiting for the committer", log.queued_bytes as f64)?;
        histogram(encoder, "log_group_units", "Units in each group", &log.group_units, 1.0)?;
        histogram(encoder, "log_group_bytes", "Bytes of each group's frame", &log.group_bytes, 1.0)?;
        histogram(encoder, "log_sync_duration_seconds", "How long each sync of the journal took", &log.sync_micros, 1e-6)?;
        gauge(encoder, "log_tail_bytes", "Bytes of the newest records that are kept in memory", log.tail_bytes as f64)?;
        gauge(encoder, "log_window_requests", "Requests that are remembered to answer repeats", log.window_requests as f64)?;
        gauge(encoder, "log_window_bytes", "Bytes of their answers", log.window_bytes as f64)?;
        gauge(encoder, "log_segments", "Segments of all partitions", log.segments as f64)?;
        gauge(encoder, "log_segment_bytes", "Bytes of their batches", log.segment_bytes as f64)?;
        counter(encoder, "log_units", "Units committed: appends and query steps", log.appends as f64)?;
        counter(encoder, "log_refused", "Appends answered without writing", log.refused as f64)?;
        counter(encoder, "log_records", "Records written", log.records as f64)?;
        counter(encoder, "log_groups", "Groups written; units per group share a sync", log.groups as f64)?;
        counter(encoder, "log_syncs", "Syncs of the journal", log.syncs as f64)?;
        counter(encoder, "log_sync_seconds", "Time spent in syncs of the journal", log.sync_time.as_secs_f64())?;
        gauge(encoder, "log_slowest_sync_seconds", "The slowest sync of the journal", log.slowest_sync.as_secs_f64())?;
        counter(encoder, "log_slow_syncs", "Syncs of any file that took over a second, or log.stall_warn_ms", log.slow_syncs as f64)?;
        gauge(encoder, "log_sync_under_way_seconds", "Age of the oldest sync that has not ended", log.sync_under_way.as_secs_f64())?;
        let is_off = f64::from(u8::from(!log.follows_clock));
        gauge(encoder, "log_clock_off", "1 while the wall clock is over an hour off and not followed", is_off)?;
        if let Some(free) = log.disk_free {
            gauge(encoder, "log_disk_free_bytes", "Bytes of the data folder's disk that are free", free as f64)?;
        }
        gauge(encoder, "log_disk_reserve_bytes", "Bytes of it that appends leave free", log.disk_reserve as f64)?;
        gauge(encoder, "log_journal_bytes", "Bytes of journal files", log.journal_bytes as f64)?;
        gauge(encoder, "log_untidied_bytes", "Bytes of journal that segments do not hold yet", log.untidied_bytes as f64)?;
        counter(encoder, "log_scrubbed_bytes", "Bytes that the scrubber has read", log.scrubbed_bytes as f64)?;
        counter(encoder, "log_scrub_passes", "Its passes over everything", log.scrub_passes as f64)?;
        counter(encoder, "log_scrub_damages", "Damage that it met", log.scrub_damages as f64)?;
        counter(encoder, "log_checkpoints", "Checkpoints written", log.checkpoints as f64)?;
        counter(
            encoder,
            "log_deleted_segments",
            "Segments deleted after retention removed or compaction replaced them",
            log.deleted_segments as f64,
        )?;
        counter(encoder, "log_deleted_bytes", "Bytes of batches in them", log.deleted_bytes as f64)?;
        counter(encoder, "log_compaction_passes", "Passes of compaction over a partition", log.compaction_passes as f64)?;
        counter(encoder, "log_compaction_read_bytes", "Bytes of segments that compaction read", log.compaction_read_bytes as f64)?;
        counter(encoder, "log_compaction_freed_bytes", "Bytes that compaction left out", log.compaction_freed_bytes as f64)?;
        gauge(encoder, "log_compaction_dirty_bytes", "Bytes of tables not looked at yet", log.compaction_dirty_bytes as f64)?;
        gauge(encoder, "log_removable_bytes", "Bytes of events that streams let go", log.removable_bytes as f64)?;
        gauge(encoder, "log_unsynced_bytes", "Bytes whose appends were answered before their sync", log.unsynced_bytes as f64)?;
        gauge(encoder, "log_unsynced_age_seconds", "How long ago those were written", log.unsynced_age.as_secs_f64())?;
        gauge(encoder, "log_redactions_pending", "Redacted events of which bytes are left", log.redactions_pending as f64)?;
        gauge(encoder, "log_redactions_age_seconds", "How long ago the oldest was redacted", log.redactions_age.as_secs_f64())
    }

    fn queries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // Before the queries are asked, so that none is ahead of it.
        let end = self.log.head().position;
        let queries = self.engine.queries();
        let failed = queries.iter().filter(|query| matches!(query.state, QueryState::Failed(_))).count();
        let folding = queries.iter().filter(|query| matches!(query.state, QueryState::Folding { .. })).count();
        gauge(encoder, "queries", "Persistent queries", queries.len() as f64)?;
        gauge(encoder, "queries_failed", "Persistent queries that stopped with a reason", failed as f64)?;
        gauge(encoder, "queries_folding", "Persistent queries that fold again after a start", folding as f64)?;
        let (own, other) = queries.split_at(queries.len().min(LABELLED_QUERIES));
        let mut rows = encoder.encode_descriptor("query_rows_in", "Rows read since the start", None, MetricType::Counter)?;
        for query in own {
            ConstCounter::new(query.rows_in).encode(rows.encode_family(&[("query", query.id.as_str())])?)?;
        }
        if !other.is_empty() {
            let sum: u64 = other.iter().map(|query| query.rows_in).sum();
            ConstCounter::new(sum).encode(rows.encode_family(&[("query", "other")])?)?;
        }
        let lag = |query: &QueryStatus| end.get().saturating_sub(query.frontier.get());
        let mut lags =
            encoder.encode_descriptor("query_lag_records", "Records of the log that it has not seen", None, MetricType::Gauge)?;
        for query in own {
            ConstGauge::new(lag(query)).encode(lags.encode_family(&[("query", query.id.as_str())])?)?;
        }
        if let Some(most) = other.iter().map(lag).max() {
            ConstGauge::new(most).encode(lags.encode_family(&[("query", "other")])?)?;
        }
        gauge(encoder, "queries_waiting", "Queries that have something to do and wait for a worker", self.engine.waiting() as f64)?;
        let bad: u64 = queries.iter().map(|query| query.bad_rows).sum();
        counter(encoder, "query_bad_rows", "Rows skipped and values nulled since the start", bad as f64)?;
        let decoded = self.engine.decoded() as f64;
        counter(encoder, "query_records_decoded", "Records decoded for queries since the start, shared ones once", decoded)
    }
}

impl Numbers {
    fn groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let groups = self.groups.list();
        gauge(encoder, "groups", "Consumer groups", groups.len() as f64)?;
        let now = self.groups.now();
        let age = |oldest: Option<Timestamp>| oldest.map_or(0.0, |oldest| now.get().saturating_sub(oldest.get()).max(0) as f64 / 1000.0);
        let (own, other) = groups.split_at(groups.len().min(LABELLED_GROUPS));
        let rows: Vec<[f64; 7]> = groups
            .iter()
            .map(|(_, shown)| {
                let lag = shown.lag(&*self.log) as f64;
                let (flight, parked) = (shown.in_flight as f64, shown.parked as f64);
                [lag, age(shown.oldest), shown.members as f64, flight, parked, shown.redeliveries as f64, shown.lost as f64]
            })
            .collect();
        let numbers = [
            ("group_lag", "Events that a group has not done", MetricType::Gauge),
            ("group_oldest_unacknowledged_seconds", "Age of the oldest event that a group has not done", MetricType::Gauge),
            ("group_members", "Members of a group", MetricType::Gauge),
            ("group_in_flight", "Deliveries that are not acknowledged", MetricType::Gauge),
            ("group_parked", "Events that a group has put aside", MetricType::Gauge),
            ("group_redeliveries", "Deliveries of an event beyond its first, since the start", MetricType::Counter),
            ("group_lost", "Offsets that were removed before a group had done them", MetricType::Counter),
        ];
        for (place, (name, help, kind)) in numbers.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            let mut put = |group: &str, value: f64| {
                let labels = [("group", group)];
                let encoder = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(value).encode(encoder),
                    _ => ConstGauge::new(value).encode(encoder),
                }
            };
            for ((definition, _), row) in own.iter().zip(&rows) {
                put(definition.name.as_str(), row[place])?;
            }
            if !other.is_empty() {
                let rest = rows.iter().skip(own.len()).map(|row| row[place]);
                // The age of all is that of the oldest; everything else adds up.
                put("other", if place == 1 { rest.fold(0.0, f64::max) } else { rest.sum() })?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").finish_non_exhaustive()
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.log(&mut encoder)?;
        gauge(&mut encoder, "requests_under_way", "Requests being answered", self.load.requests() as f64)?;
        gauge(&mut encoder, "file_reads_under_way", "Blocking reads of files", self.load.file_reads() as f64)?;
        self.queries(&mut encoder)?;
        self.groups(&mut encoder)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// A distribution with its values times `unit`.
fn histogram(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, values: &Distribution, unit: f64) -> fmt::Result {
    let bound = |bound: u64| if bound == u64::MAX { f64::INFINITY } else { bound as f64 * unit };
    let buckets: Vec<(f64, u64)> = values.buckets.iter().map(|(most, count)| (bound(*most), *count)).collect();
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    encoder.encode_histogram::<NoLabelSet>(values.sum as f64 * unit, values.count(), &buckets, None)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}
