//! Goal of what a Kafka user runs Kafka Streams for: G20k, count and sum by key from a topic of JSON to a changelog topic, exactly once,
//! everything durable.

use std::collections::HashMap;

use anyhow::Context as _;
use foldlog_log::NewRecord;
use foldlog_proto::v1::RecordedEvent;

use crate::{
    bench::{Bench, Run},
    nexmark,
    records::{self, Records},
    report::{Bound, Report, short},
};

/// Goals of [`goals`].
pub const NAMES: [&str; 1] = ["G20k"];

/// Records and keys.
pub const RECORDS: u64 = 2_000_000;
const KEYS: u64 = 10_000;
/// Of what `serde_json` reads on one core.
const SHARE: f64 = 0.5;

/// Measures it beside what reading the JSON costs.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let baseline = nexmark::baseline()?;
    let run = run(bench).await?;
    let what = format!(
        "records of JSON a second into COUNT and SUM of {} keys and their changelog, durable and exactly once, as computed apart; \
         {SHARE} x the bids of NEXMark that serde_json reads on one core; {:.0} ns of processor time a record",
        short(to_f64(KEYS)),
        run.processor_seconds * 1e9 / to_f64(RECORDS)
    );
    report.goal("G20k", Bound::Rate(to_f64(RECORDS) / run.seconds, SHARE * baseline), None, &what);
    Ok(())
}

/// Fills a topic, folds it, and compares the newest records of the changelog with what they must be.
pub async fn run(bench: &Bench) -> anyhow::Result<Run> {
    let folder = bench.folder.join("sums");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot remove the data of the run before")?;
    }
    let mut filling = Records::open(&folder)?;
    let topic = filling.topic("transfers")?;
    let mut expected: HashMap<String, (u64, u64)> = HashMap::new();
    for number in 0..RECORDS {
        // A large odd step visits all keys in an order that looks like none.
        let account = format!("acct-{}", number.wrapping_mul(7_919) % KEYS);
        let cents = number.wrapping_mul(104_729) % 100_000;
        let json = format!(
            r#"{{"id":{number},"account":"{account}","amount":{}.{:02},"currency":"EUR","note":"transfer {number}"}}"#,
            cents / 100,
            cents % 100
        );
        filling.push(&topic, NewRecord { key: Some(account.clone().into()), value: Some(json.into()), ..NewRecord::default() }).await?;
        let (entries, total) = expected.entry(account).or_default();
        *entries += 1;
        *total += cents;
    }
    filling.finish().await?;
    let mut subject = bench.start("sums", Vec::new()).await?;
    let columns = "account VARCHAR KEY, amount DOUBLE";
    subject.sql(&format!("CREATE STREAM transfers ({columns}) WITH (kafka_topic = 'transfers', value_format = 'json')")).await?;
    subject.at_rest().await?;
    let sql = "CREATE TABLE sums AS SELECT account, COUNT(*) AS entries, SUM(amount) AS total FROM transfers GROUP BY account";
    let run = subject.run(sql, "sums").await?;
    let mut newest: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let take = |record: RecordedEvent| {
        let value = record.event.and_then(|event| event.data).context("a record without a value")?;
        newest.insert(record.key.context("a record without a key")?.to_vec(), value.to_vec());
        Ok(())
    };
    records::read(subject.channel.clone(), "sums", take).await?;
    anyhow::ensure!(newest.len() == expected.len(), "{} keys in the changelog, {} expected", newest.len(), expected.len());
    for (account, (entries, cents)) in &expected {
        let value = newest.get(account.as_bytes()).with_context(|| format!("{account} is not in the changelog"))?;
        let value: serde_json::Value = serde_json::from_slice(value)?;
        let total = value["total"].as_f64().unwrap_or(f64::NAN);
        let is_right = value["entries"].as_u64() == Some(*entries) && (total - to_f64(*cents) / 100.0).abs() < 0.01;
        anyhow::ensure!(is_right, "{account} has {value}, {entries} entries and {cents} cents expected");
    }
    subject.server.kill()?;
    Ok(run)
}

#[expect(clippy::cast_precision_loss, reason = "counts and cents")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}
