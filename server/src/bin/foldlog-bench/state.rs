//! Goals of a view with a million keys: what its state takes (STATE, G26), how fast it is folded (G22) and written as a checkpoint
//! (G23), how soon it is back after a kill (G25); and what a server takes that does nothing (G27).

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_log::NewRecord;
use foldlog_proto::v1::{ColumnValues, column_values::Values};

use crate::{
    bench::{Bench, PATIENCE, Subject},
    records::Records,
    report::{Bound, Report, short},
};

/// Goals of [`goals`].
pub const NAMES: [&str; 6] = ["STATE", "G22", "G23", "G25", "G26", "G27"];

/// Keys of 16 bytes, each with a value of 100 bytes, and how often each comes.
const KEYS: u64 = 1_000_000;
const ROUNDS: u64 = 10;
/// Most that the state may take, and the server with it after all rounds, in MiB.
const STATE: f64 = 300.0;
const SERVER: f64 = 700.0;
/// Most that a server may take that does nothing, in MiB.
const IDLE: f64 = 60.0;
/// Of what a hash map takes in on one core.
const SHARE: f64 = 0.25;
/// Places of `state_bytes` and of `checkpoint` in the answer of SHOW QUERIES EXTENDED.
const STATE_BYTES: usize = 9;
const CHECKPOINT: usize = 10;
/// Keys of a checkpoint a second.
const SAVED: f64 = 150_000.0;
/// Seconds until a view answers again.
const BACK: f64 = 1.5;

/// Measures what is asked for.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("state");
    fill(&folder, 0, 1).await?;
    let mut subject = bench.start("state", Vec::new()).await?;
    subject.at_rest().await?;
    let idle = subject.memory()?;
    let empty_stop = stop(&mut subject).await?;
    let mut subject = bench.start("state", Vec::new()).await?;
    report.goal("G27", Bound::Mebibytes(mebibytes(idle), IDLE), None, "memory of a server that does nothing, over a million records");
    subject.sql("CREATE TABLE given (k VARCHAR PRIMARY KEY, v VARCHAR) WITH (kafka_topic = 'given', value_format = 'json')").await?;
    subject.run("CREATE TABLE newest AS SELECT k, v FROM given", "newest").await?;
    subject.at_rest().await?;
    let after_one = subject.memory()?;
    let what = format!(
        "state of a view of 1M keys (16 + 100 bytes) as its query counts it; {:.0} MiB more than an idle server has, with decoded chunks that \
         are kept, and what its records went through",
        mebibytes(after_one.saturating_sub(idle))
    );
    report.goal("STATE", Bound::Mebibytes(mebibytes(state_bytes(&subject).await?), STATE), None, &what);
    anyhow::ensure!(!has_checkpoint(&subject).await?, "there is a checkpoint already: a stop would write less than all keys");
    let stopped = stop(&mut subject).await?.saturating_sub(empty_stop).as_secs_f64();
    let what = format!("keys a second into the checkpoint of a stop: {stopped:.2} s longer than that of a server without a view");
    report.goal("G23", Bound::Rate(to_f64(KEYS) / stopped, SAVED), None, &what);
    fill(&folder, 1, ROUNDS).await?;
    let mut subject = bench.start("state", Vec::new()).await?;
    let (began, before) = (Instant::now(), subject.cpu()?);
    let head = subject.head().await?.position;
    while subject.least_frontier().await? < head {
        anyhow::ensure!(began.elapsed() < PATIENCE, "the view does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cpu = subject.cpu()?.saturating_sub(before).as_secs_f64();
    let (folded, seconds, map) = (to_f64((ROUNDS - 1) * KEYS), began.elapsed().as_secs_f64(), upserts());
    let what = format!(
        "records into a view of 1M keys a second of processor time, read, decoded, folded, written and durable; {SHARE} x the {}/s of a \
         hash map; {:.1} s in all",
        short(map),
        seconds
    );
    report.goal("G22", Bound::Rate(folded / cpu, SHARE * map), None, &what);
    subject.at_rest().await?;
    let what = format!(
        "memory of a server with a view of 1M keys after {ROUNDS} rounds of changes, {:.0} MiB of it the view's; {:.0} MiB after one",
        mebibytes(state_bytes(&subject).await?),
        mebibytes(after_one)
    );
    report.goal("G26", Bound::Mebibytes(mebibytes(subject.memory()?), SERVER), None, &what);
    subject.server.kill()?;
    let began = Instant::now();
    let mut subject = bench.start("state", Vec::new()).await?;
    answers(&subject).await?;
    let took = began.elapsed().as_secs_f64();
    let again = subject.metric("foldlog_query_records_decoded").await?;
    // What lies behind the checkpoint is folded before it answers, as fast as it was the first time.
    let tail = again * seconds / folded;
    let what = format!(
        "seconds from exec to an answer of the view after a kill, beside {tail:.2} s for {} of {} records that are read again",
        short(again),
        short(to_f64(ROUNDS * KEYS))
    );
    report.goal("G25", Bound::Ratio((took - tail).max(0.0), BACK), None, &what);
    subject.server.kill()
}

/// What SHOW QUERIES EXTENDED says in a column.
async fn of_queries(subject: &Subject, place: usize) -> anyhow::Result<ColumnValues> {
    let rows = subject.sql("SHOW QUERIES EXTENDED").await?;
    let columns = rows.into_iter().map(|rows| rows.columns).find(|columns| !columns.is_empty()).context("no queries")?;
    columns.into_iter().nth(place).context("SHOW QUERIES EXTENDED has fewer columns")
}

/// Whether a query has a checkpoint.
async fn has_checkpoint(subject: &Subject) -> anyhow::Result<bool> {
    let Some(Values::Texts(texts)) = of_queries(subject, CHECKPOINT).await?.values else { anyhow::bail!("checkpoint is no text") };
    Ok(texts.values.iter().any(|text| text.contains("below position")))
}

/// Bytes of state that the queries count.
async fn state_bytes(subject: &Subject) -> anyhow::Result<u64> {
    let Some(Values::Integers(bytes)) = of_queries(subject, STATE_BYTES).await?.values else { anyhow::bail!("state_bytes is no number") };
    Ok(bytes.values.iter().map(|bytes| bytes.cast_unsigned()).sum())
}

/// Stops a server in order; tells how long that took.
async fn stop(subject: &mut Subject) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let told = std::process::Command::new("kill").args(["-TERM", &subject.server.pid().to_string()]).status();
    anyhow::ensure!(told.context("cannot send a signal")?.success(), "the server cannot be told to stop");
    subject.server.end(PATIENCE).await?.context("the server does not stop")?;
    Ok(began.elapsed())
}

/// Appends every key so many times.
async fn fill(folder: &Path, from: u64, to: u64) -> anyhow::Result<()> {
    let mut filling = Records::open(folder)?;
    let topic = filling.topic("given")?;
    for round in from..to {
        for number in 0..KEYS {
            // A large odd step visits all keys in an order that looks like none.
            let key = key(number.wrapping_mul(7_919 + 2 * round) % KEYS);
            let json = format!(r#"{{"v":"{:0100}"}}"#, number * ROUNDS + round);
            filling.push(&topic, NewRecord { key: Some(key.into()), value: Some(json.into()), ..NewRecord::default() }).await?;
        }
    }
    filling.finish().await
}

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// Waits until the view answers, whatever it says until then.
async fn answers(subject: &Subject) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let answer = subject.sql(&format!("SELECT v FROM newest WHERE k = '{}'", key(7))).await;
        match answer {
            Ok(rows) if rows.iter().map(|rows| rows.count).sum::<u32>() == 1 => return Ok(()),
            Err(failed) if began.elapsed() > PATIENCE => return Err(failed.context("the view does not answer")),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// What a hash map takes in a second: the same keys, in the same order, with a number each.
fn upserts() -> f64 {
    let keys: Vec<String> = (0..KEYS).map(|number| key(number.wrapping_mul(7_919) % KEYS)).collect();
    let mut map: HashMap<String, u64> = HashMap::new();
    let began = Instant::now();
    for _ in 0..2 {
        for key in &keys {
            match map.get_mut(key) {
                Some(count) => *count += 1,
                None => drop(map.insert(key.clone(), 1)),
            }
        }
    }
    2.0 * to_f64(KEYS) / began.elapsed().as_secs_f64()
}

fn mebibytes(bytes: u64) -> f64 {
    to_f64(bytes) / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}
