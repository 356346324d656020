//! foldlog's queries beside those who compute them elsewhere, in one run: Flink on NEXMark's q15 to q17, Kafka Streams on count and sum
//! by key, exactly once, `DuckDB` on one aggregate of a file.
//!
//! Flink and `DuckDB` run in virtual environments of Python, whose interpreters `FLINK` and `DUCKDB` name; Kafka Streams is Kafka's own
//! (`kafka/kafka.sh`, with `DIR`, the folder of its packages). Flink keeps its state in memory and writes nothing, foldlog's answers
//! are durable: what is compared is more than fair to Flink.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    bench::Bench,
    nexmark,
    peers::output,
    report::{Bound, Report, short},
    sums,
};

/// Queries that Flink answers, too, and how many times as fast foldlog is to be.
const OF_FLINK: [&str; 3] = ["q15", "q16", "q17"];
const TIMES_FLINK: f64 = 2.5;
/// And Kafka Streams.
const TIMES_STREAMS: f64 = 8.0;
/// Bids that Flink reads.
const BIDS: usize = 2_000_000;

/// Flink beside foldlog on the same bids.
pub async fn flink(bench: &Bench, drivers: &Path, report: &mut Report) -> anyhow::Result<()> {
    let python = python("FLINK")?;
    let folder = bench.folder.join("flink");
    write_bids(&folder)?;
    let before = ours(bench, report).await?;
    let mut command = Command::new(python);
    command.arg(drivers.join("flinkpeer.py")).arg(&folder).args(["1", "2", &OF_FLINK.map(|name| format!("json {name}")).join(",")]);
    let said = flink_figures(&output(command).await?);
    let after = ours(bench, report).await?;
    for (goal, name) in ["q15-FLINK", "q16-FLINK", "q17-FLINK"].into_iter().zip(OF_FLINK) {
        let of = |figures: &BTreeMap<&str, f64>| figures.get(name).copied().unwrap_or(f64::NAN);
        match said.iter().find(|(query, _)| query.starts_with(&format!("json {name} "))) {
            None => report.failed(goal, &anyhow::anyhow!("its driver did not say {name}")),
            Some((_, theirs)) => {
                let (one, other) = (of(&before), of(&after));
                let what = format!(
                    "bids of JSON a second, {} before and {} after; Flink, nothing durable: {}",
                    short(one),
                    short(other),
                    short(*theirs)
                );
                report.goal(goal, Bound::Times(f64::midpoint(one, other) / theirs, TIMES_FLINK), None, &what);
            }
        }
    }
    Ok(())
}

/// Kafka Streams beside foldlog on the same load.
pub async fn streams(bench: &Bench, drivers: &Path, report: &mut Report) -> anyhow::Result<()> {
    let kafka = |verb: &str| {
        let mut command = Command::new("bash");
        command.arg(drivers.join("kafka/kafka.sh")).arg(verb);
        command
    };
    let before = sums::run(bench).await?;
    output(kafka("up")).await?;
    let said = output(kafka("streams")).await;
    output(kafka("down")).await?;
    let after = sums::run(bench).await?;
    let said = said?;
    let figures = streams_figures(&said);
    let of = |named: &str| figures.iter().filter(|(name, _)| name.contains(named)).map(|(_, rate)| *rate).fold(f64::NAN, f64::max);
    let (theirs, at_least_once) = (of("exactly_once_v2"), of("at_least_once"));
    anyhow::ensure!(theirs.is_finite(), "its driver did not say exactly_once_v2");
    #[expect(clippy::cast_precision_loss, reason = "a count of records")]
    let rate = |seconds: f64| sums::RECORDS as f64 / seconds;
    let (one, other) = (rate(before.seconds), rate(after.seconds));
    let what = format!(
        "records of JSON a second into COUNT and SUM of 10k keys, exactly once, {} before and {} after; Kafka Streams: {}, {} at least once",
        short(one),
        short(other),
        short(theirs),
        short(at_least_once)
    );
    report.goal("G20k-STREAMS", Bound::Times(f64::midpoint(one, other) / theirs, TIMES_STREAMS), None, &what);
    Ok(())
}

/// What `DuckDB` and `DataFusion` take for aggregates of the same bids from a file, for whoever reads the report.
pub async fn duckdb(bench: &Bench, drivers: &Path, report: &Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("duckdb");
    write_bids(&folder)?;
    let mut command = Command::new(python("DUCKDB")?);
    command.arg(drivers.join("sqlpeers.py")).arg(&folder).arg("1");
    let said = output(command).await?;
    for line in said.lines().filter(|line| line.contains("group by auction") || line.contains("filter q2")) {
        report.note(line);
    }
    Ok(())
}

/// The interpreter of Python that a variable of the environment names.
pub fn python(variable: &str) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os(variable).with_context(|| format!("{variable} does not name an interpreter of Python"))?;
    Ok(PathBuf::from(named))
}

/// One bid a line; no auctions and persons, which these queries do not read.
fn write_bids(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join("bids.json"))?);
    for bid in nexmark::bids(BIDS) {
        writeln!(file, "{}", bid.json())?;
    }
    file.flush()?;
    for empty in ["auctions.json", "persons.json"] {
        std::fs::write(folder.join(empty), "")?;
    }
    Ok(())
}

/// foldlog's rates of the queries, durable and exactly once, each answer checked.
async fn ours(bench: &Bench, report: &Report) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let rates = nexmark::rates(bench, &OF_FLINK).await?;
    for (name, rate) in &rates {
        report.note(&format!("{name}: {}/s", short(*rate)));
    }
    Ok(rates)
}

/// Of lines `flink QUERY | Mevents_s MEDIAN [...`: events a second.
fn flink_figures(text: &str) -> Vec<(String, f64)> {
    let figure = |line: &str| {
        let (query, said) = line.strip_prefix("flink ")?.split_once(" | Mevents_s ")?;
        Some((query.to_owned(), said.split(' ').next()?.parse::<f64>().ok()? * 1e6))
    };
    text.lines().filter_map(figure).collect()
}

/// Of lines `STORE GUARANTEE: N records, K keys: RATE records/s from the first, ...`.
fn streams_figures(text: &str) -> Vec<(String, f64)> {
    let figure = |line: &str| {
        let (name, said) = line.split_once(": ")?;
        let rate = said.split(" keys: ").nth(1)?.split(' ').next()?.parse().ok()?;
        Some((name.to_owned(), rate))
    };
    text.lines().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_drivers_say() {
        let flink = "# flink 2.3.0 parallelism 2\nflink json q15 bids of a day | Mevents_s 0.412 [0.400-0.420] n3\nother\n";
        assert_eq!(flink_figures(flink), [("json q15 bids of a day".to_owned(), 412_000.0)]);
        let streams = "memory exactly_once_v2: 2000000 records, 10000 keys: 153000 records/s from the first, 140000 with start\nready: 1\n";
        assert_eq!(streams_figures(streams), [("memory exactly_once_v2".to_owned(), 153_000.0)]);
    }
}
