//! foldlog beside its peers, in one run: each peer is measured by its own driver, with everything synced that it acknowledges (but NATS,
//! which cannot), and foldlog with the same loads right before and right after it.
//!
//! The drivers are scripts that print `NAME<TAB>METRIC<TAB>VALUE`, and Kafka's own tools.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    adhoc, appends,
    bench::{Bench, Subject},
    load, queries,
    report::{Bound, Report, short},
    sessions, streams,
};

/// Who foldlog is compared with, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// UmaDB: `umadb.sh`, with `UMADB`, the server's program.
    Umadb,
    /// PostgreSQL: `pg.sh`.
    Postgresql,
    /// Redis streams, appendfsync always: `redis.sh`.
    Redis,
    /// NATS `JetStream`: `nats.sh`.
    Nats,
    /// Apache Iggy: `iggy.sh`, with `IGGY`, the folder of its programs.
    Iggy,
    /// Apache Kafka with flush.messages=1: `kafka/kafka.sh`, with `DIR`, the folder of its packages.
    Kafka,
    /// Apache Flink: `flinkpeer.py`, with `FLINK`, an interpreter of Python that has it.
    Flink,
    /// Kafka Streams: `kafka/kafka.sh`, with `DIR`.
    Streams,
    /// `DuckDB`: `sqlpeers.py`, with `DUCKDB`, an interpreter of Python that has it.
    Duckdb,
    /// Plain `DataFusion`: with `DATAFUSION`, an interpreter of Python that has it.
    Datafusion,
}

impl Peer {
    /// Whether it answers queries, rather than keeping a log.
    const fn is_of_queries(self) -> bool {
        matches!(self, Self::Flink | Self::Streams | Self::Duckdb | Self::Datafusion)
    }
}

/// Every peer.
pub const ALL: [Peer; 10] = [
    Peer::Umadb,
    Peer::Postgresql,
    Peer::Redis,
    Peer::Nats,
    Peer::Iggy,
    Peer::Kafka,
    Peer::Flink,
    Peer::Streams,
    Peer::Duckdb,
    Peer::Datafusion,
];

/// What foldlog does beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    /// Appends of one event, this many in flight.
    Ones(usize),
    /// Appends of 100 events, this many in flight.
    Hundreds(usize),
    /// Eight sessions, as in the goal of this name.
    Sessions(&'static str),
    /// A read from the beginning.
    Read,
    /// An append until a subscriber has it: microseconds.
    Tail,
}

const LOADS: [Load; 9] = [
    Load::Ones(1),
    Load::Ones(16),
    Load::Ones(256),
    Load::Hundreds(1),
    Load::Hundreds(16),
    Load::Sessions("G8"),
    Load::Sessions("G9"),
    Load::Read,
    Load::Tail,
];

/// One goal against one peer.
struct Comparison {
    goal: &'static str,
    load: Load,
    peer: Peer,
    /// Name and metric of the peer's figure.
    figure: (&'static str, &'static str),
    /// How many times the peer's figure: at least of rates, at most of times.
    times: f64,
}

const fn goal(goal: &'static str, load: Load, peer: Peer, name: &'static str, metric: &'static str, times: f64) -> Comparison {
    Comparison { goal, load, peer, figure: (name, metric), times }
}

/// Most events of a read.
const READ: u64 = 3_000_000;
const EVENTS: &str = "events_s";

const GOALS: [Comparison; 24] = [
    goal("G2-UMADB", Load::Ones(1), Peer::Umadb, "umadb append writers=1 per_req=1", EVENTS, 2.0),
    goal("G3-UMADB", Load::Ones(16), Peer::Umadb, "umadb append writers=16 per_req=1", EVENTS, 2.0),
    goal("G4-UMADB", Load::Ones(256), Peer::Umadb, "umadb append writers=256 per_req=1", EVENTS, 2.0),
    goal("G6-UMADB", Load::Hundreds(16), Peer::Umadb, "umadb append writers=16 per_req=100", EVENTS, 2.5),
    goal("G7-UMADB", Load::Hundreds(1), Peer::Umadb, "umadb append writers=1 per_req=100", EVENTS, 2.5),
    goal("G8-UMADB", Load::Sessions("G8"), Peer::Umadb, "umadb append writers=256 per_req=100", EVENTS, 4.0),
    goal("G11-UMADB", Load::Read, Peer::Umadb, "umadb read 100B", EVENTS, 3.0),
    goal("G12-UMADB", Load::Tail, Peer::Umadb, "umadb live tail append->subscriber", "p50_us", 0.45),
    goal("G2-POSTGRESQL", Load::Ones(1), Peer::Postgresql, "pg15 one-row insert commit clients=1", EVENTS, 0.85),
    goal("G3-POSTGRESQL", Load::Ones(16), Peer::Postgresql, "pg15 one-row insert commit clients=16", EVENTS, 1.45),
    goal("G4-POSTGRESQL", Load::Ones(256), Peer::Postgresql, "pg15 one-row insert commit clients=64", EVENTS, 2.5),
    goal("G6-POSTGRESQL", Load::Hundreds(16), Peer::Postgresql, "pg15 hundred-row insert commit clients=16", EVENTS, 4.0),
    goal("G7-POSTGRESQL", Load::Hundreds(1), Peer::Postgresql, "pg15 hundred-row insert commit clients=1", EVENTS, 2.0),
    goal("G11-POSTGRESQL", Load::Read, Peer::Postgresql, "pg15 read all by pos (copy binary)", EVENTS, 1.3),
    goal("G2-REDIS", Load::Ones(1), Peer::Redis, "redis xadd always clients=1 pipeline=1", EVENTS, 0.8),
    goal("G3-REDIS", Load::Ones(16), Peer::Redis, "redis xadd always clients=16 pipeline=1", EVENTS, 0.85),
    goal("G4-REDIS", Load::Ones(256), Peer::Redis, "redis xadd always clients=256 pipeline=1", EVENTS, 0.7),
    goal("G6-REDIS", Load::Hundreds(16), Peer::Redis, "redis xadd always clients=16 pipeline=100", EVENTS, 2.0),
    goal("G9-NATS", Load::Sessions("G9"), Peer::Nats, "nats js async window=1000 1024B", EVENTS, 6.0),
    goal("G11-NATS", Load::Read, Peer::Nats, "nats js ordered consumer", EVENTS, 5.0),
    goal("G8-IGGY", Load::Sessions("G8"), Peer::Iggy, "iggy produce p=8 100Bx1000 fsync", EVENTS, 0.55),
    goal("G9-IGGY", Load::Sessions("G9"), Peer::Iggy, "iggy produce p=8 1000Bx1000 fsync", EVENTS, 1.5),
    goal("G8-KAFKA", Load::Sessions("G8"), Peer::Kafka, "f8 100 B", EVENTS, 4.5),
    goal("G12-KAFKA", Load::Tail, Peer::Kafka, "end to end f1", "p50_us", 0.35),
];

/// Figures of a driver, of a name and a metric each.
type Figures = BTreeMap<(String, String), Vec<f64>>;

/// Measures foldlog and the peers by turns. `drivers` is the folder of their scripts.
pub async fn goals(bench: &Bench, drivers: &Path, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let (of_queries, of_logs): (Vec<Peer>, Vec<Peer>) = peers.iter().partition(|peer| peer.is_of_queries());
    for peer in of_queries {
        let compared = match peer {
            Peer::Flink => streams::flink(bench, drivers, report).await,
            Peer::Streams => streams::streams(bench, drivers, report).await,
            Peer::Datafusion => adhoc::datafusion(bench, report).await,
            _ => streams::duckdb(bench, drivers, report).await,
        };
        if let Err(failed) = compared {
            report.failed("PEER", &failed.context(format!("{peer:?}")));
        }
    }
    if of_logs.is_empty() {
        return Ok(());
    }
    let subject = bench.subject("peers", Vec::new()).await?;
    let mut before = round(bench, &subject).await?;
    for peer in &of_logs {
        let driven = drive(*peer, drivers, &bench.folder).await;
        let after = round(bench, &subject).await?;
        match driven {
            Err(failed) => report.failed("PEER", &failed.context(format!("{peer:?}"))),
            Ok(figures) => {
                for goal in GOALS.iter().filter(|goal| goal.peer == *peer) {
                    compare(goal, &figures, [&before, &after], report);
                }
            }
        }
        before = after;
    }
    Ok(())
}

fn compare(goal: &Comparison, figures: &Figures, rounds: [&BTreeMap<Load, f64>; 2], report: &mut Report) {
    let (name, metric) = goal.figure;
    let Some(theirs) = figures.get(&(name.to_owned(), metric.to_owned())).map(|all| load::median(all.clone())) else {
        return report.failed(goal.goal, &anyhow::anyhow!("its driver did not say {name}, {metric}"));
    };
    let of = |round: &BTreeMap<Load, f64>| round.get(&goal.load).copied().unwrap_or(f64::NAN);
    let ours = f64::midpoint(of(rounds[0]), of(rounds[1]));
    let what = format!("{:?}: {} before and {} after; {name}: {}", goal.load, short(of(rounds[0])), short(of(rounds[1])), short(theirs));
    let bound = match goal.load {
        Load::Tail => Bound::Ratio(ours / theirs, goal.times),
        _ => Bound::Times(ours / theirs, goal.times),
    };
    report.goal(goal.goal, bound, None, &what);
}

/// Every load once: events a second, or microseconds.
async fn round(bench: &Bench, subject: &Subject) -> anyhow::Result<BTreeMap<Load, f64>> {
    let (url, time) = (subject.server.url(), bench.time);
    let mut figures = BTreeMap::new();
    for load in LOADS {
        subject.at_rest().await?;
        let figure = match load {
            Load::Ones(in_flight) => load::appends(&url, in_flight.min(8), in_flight, 1, time).await?.rate(),
            Load::Hundreds(in_flight) => 100.0 * load::appends(&url, in_flight.min(4), in_flight, 100, time).await?.rate(),
            Load::Sessions(name) => sessions::events(&url, name, time).await?,
            Load::Read => {
                let (events, took) = queries::read(&url, READ).await?;
                #[expect(clippy::cast_precision_loss, reason = "a count of events")]
                let events = events as f64;
                events / took.as_secs_f64()
            }
            Load::Tail => appends::live_tail(&url, time).await?.p50(),
        };
        figures.insert(load, figure);
    }
    Ok(figures)
}

/// Runs a peer's driver once, in a scratch folder.
async fn drive(peer: Peer, drivers: &Path, folder: &Path) -> anyhow::Result<Figures> {
    let beside = folder.parent().context("the data lies nowhere")?;
    // Servers that run as a user of their own must get to it.
    let scratch = tempfile::Builder::new().prefix("foldlog-peer-").permissions(fs::Permissions::from_mode(0o755)).tempdir_in(beside)?;
    let scratch = scratch.path();
    let script = |name: &str| {
        let mut command = Command::new("bash");
        command.arg(drivers.join(name)).env("PERF", scratch).env("REPS", "1");
        command
    };
    let figures = match peer {
        Peer::Umadb => scripted(script("umadb.sh"), scratch.join("logs/umadb.tsv")).await,
        Peer::Postgresql => scripted(script("pg.sh"), scratch.join("logs/pg.tsv")).await,
        Peer::Redis => scripted(script("redis.sh"), scratch.join("logs/redis.tsv")).await,
        Peer::Nats => scripted(script("nats.sh"), scratch.join("logs/nats.tsv")).await,
        Peer::Iggy => scripted(script("iggy.sh"), scratch.join("logs/iggy.tsv")).await,
        Peer::Kafka => {
            let verb = |verb| {
                let mut command = script("kafka/kafka.sh");
                command.arg(verb);
                command
            };
            output(verb("up")).await?;
            let figures = output(verb("bench")).await.map(|text| kafka_figures(&text));
            output(verb("down")).await?;
            figures
        }
        Peer::Flink | Peer::Streams | Peer::Duckdb | Peer::Datafusion => anyhow::bail!("it keeps no log"),
    }?;
    anyhow::ensure!(!figures.is_empty(), "its driver measured nothing");
    Ok(figures)
}

async fn scripted(command: Command, figures: PathBuf) -> anyhow::Result<Figures> {
    output(command).await?;
    let text = fs::read_to_string(&figures).with_context(|| format!("cannot read {}", figures.display()))?;
    Ok(tabbed_figures(&text))
}

/// What a driver says.
pub async fn output(mut command: Command) -> anyhow::Result<String> {
    let done = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run bash")?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    anyhow::ensure!(done.status.success(), "its driver failed: {}", err.lines().last().unwrap_or_default());
    Ok(out.into_owned())
}

fn tabbed_figures(text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines() {
        let mut parts = line.split('\t');
        if let (Some(name), Some(metric), Some(Ok(value)), None) = (parts.next(), parts.next(), parts.next().map(str::parse), parts.next())
        {
            figures.entry((name.to_owned(), metric.to_owned())).or_default().push(value);
        }
    }
    figures
}

/// Of Kafka's producer (`NAME: 2000000 records sent, 380000.5 records/sec ...`) and of its end-to-end tool (`... 50th=1, 99th=2 ...` in
/// milliseconds or fractions of them).
fn kafka_figures(text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines() {
        let Some((name, said)) = line.split_once(": ") else { continue };
        let number_before = |unit: &str| -> Option<f64> {
            let before = said.split(unit).next().filter(|before| before.len() < said.len())?;
            before.split([' ', ',']).next_back()?.parse().ok()
        };
        if let Some(rate) = number_before(" records/sec") {
            figures.entry((name.to_owned(), EVENTS.to_owned())).or_default().push(rate);
        }
        let average = said.split("Avg latency: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        if let Some(milliseconds) = average {
            figures.entry((name.to_owned(), "p50_us".to_owned())).or_default().push(milliseconds * 1e3);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(figures: &Figures, name: &str, metric: &str) -> Vec<f64> {
        figures.get(&(name.to_owned(), metric.to_owned())).cloned().unwrap_or_default()
    }

    #[test]
    fn figures_of_scripts_are_lines_of_three_fields() {
        let figures = tabbed_figures("# rss 12 MB\na b=1\tevents_s\t10.5\na b=1\tevents_s\t12\na b=1\tp50_us\t-\n");
        assert_eq!(figure(&figures, "a b=1", EVENTS), [10.5, 12.0]);
        assert_eq!(figures.len(), 1);
    }

    #[test]
    fn figures_of_kafka_are_rates_and_times() {
        let text = "f8 100 B: 2000000 records sent, 381025.9 records/sec (36.34 MB/sec), 12.1 ms avg latency\n\
                    end to end f1: Avg latency: 0.9375 ms Percentiles: 50th = 0, 99th = 2, 99.9th = 5 \nready: 1\n";
        let figures = kafka_figures(text);
        assert_eq!(figure(&figures, "f8 100 B", EVENTS), [381_025.9]);
        assert_eq!(figure(&figures, "end to end f1", "p50_us"), [937.5]);
        assert_eq!(figures.len(), 2);
    }
}
