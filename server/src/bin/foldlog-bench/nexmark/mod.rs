//! Goals of NEXMark: from JSON in the log to an output topic in the log, each step one durable unit, each answer compared with one that
//! was computed without foldlog.

mod generator;
mod queries;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use foldlog_log::{NewRecord, Timestamp};
use foldlog_proto::v1::{QueryRequest, RecordedEvent, query_batch, query_client::QueryClient};

pub use self::generator::Bid;
use self::{
    generator::{Event, event},
    queries::{ALL, Answer, BID, Query},
};
use crate::{
    bench::{Bench, PATIENCE, Run, Subject},
    records::{self, Records},
    report::{Bound, Report, short},
};

/// Goals of [`goals`]: the queries, and those that are followed.
pub const NAMES: [&str; 11] = ["q0", "q1", "q2", "q14", "G20", "q15", "q16", "q17", "q21", "q22", "G16"];

/// Queries that a client follows from the beginning, and how fast: so much of what `serde_json` reads on one core.
const FOLLOWED: [&str; 3] = ["q0", "q1", "q2"];
const FOLLOWED_SHARE: f64 = 1.0;

/// Events of a run: two million bids and what belongs to them.
pub const EVENTS: u64 = 2_000_000 / generator::BIDS * 50;
/// Bids whose decoding is the baseline.
const BASELINE: usize = 200_000;

/// Measures what is asked for, one query after the other over one log.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let bids = fill(&bench.folder.join("nexmark")).await?;
    let baseline = baseline()?;
    report.note(&format!(
        "NEXMark: {} bids, JSON of {} bytes; serde_json reads {} bids/s into structs on one core",
        short(to_f64(bids.len())),
        bids.iter().take(1_000).map(|bid| bid.json().len()).sum::<usize>() / 1_000,
        short(baseline)
    ));
    let mut subject = bench.start("nexmark", Vec::new()).await?;
    subject.sql(BID).await?;
    for query in ALL.iter().filter(|query| report.wants(query.name)).collect::<Vec<_>>() {
        if let Err(failed) = measure(query, &subject, &bids, baseline, report).await {
            report.failed(query.name, &failed);
        }
    }
    for query in ALL.iter().filter(|query| report.wants("G16") && FOLLOWED.contains(&query.name)).collect::<Vec<_>>() {
        if let Err(failed) = follow(query, &subject, &bids, baseline, report).await {
            report.failed("G16", &failed);
        }
    }
    subject.server.kill()
}

/// A push query over all that is there, and a client that counts its rows.
async fn follow(query: &Query, subject: &Subject, bids: &[Bid], baseline: f64, report: &mut Report) -> anyhow::Result<()> {
    subject.at_rest().await?;
    let expected = query.expected(bids).rows;
    let settings = [("auto.offset.reset".to_owned(), "earliest".to_owned())].into();
    // It ends by itself behind the last row that there is.
    let sql = format!("{} EMIT CHANGES LIMIT {expected}", query.select);
    let (began, before) = (Instant::now(), subject.cpu()?);
    let mut client = QueryClient::new(subject.channel.clone()).max_decoding_message_size(16 << 20);
    let mut batches = client.push(QueryRequest { sql, settings, ..QueryRequest::default() }).await?.into_inner();
    let mut rows = 0;
    while let Some(batch) = tokio::time::timeout(PATIENCE, batches.message()).await.context("no row is pushed")?? {
        if let Some(query_batch::Message::Rows(some)) = batch.message {
            rows += u64::from(some.count);
        }
    }
    anyhow::ensure!(rows == expected, "{rows} rows of {} were pushed, {expected} expected", query.name);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), subject.cpu()?.saturating_sub(before).as_secs_f64());
    let count = to_f64(bids.len());
    let what = format!(
        "bids that {} goes over for a client that counts its {rows} rows; {FOLLOWED_SHARE} x what serde_json reads on one core, here {:.2} x; \
         {:.0} ns of processor time a bid",
        query.name,
        count / seconds / baseline,
        cpu * 1e9 / count
    );
    report.goal("G16", Bound::Rate(count / seconds, FOLLOWED_SHARE * baseline), None, &what);
    Ok(())
}

/// Makes a folder with the events in three topics; gives the bids.
pub async fn fill(folder: &Path) -> anyhow::Result<Vec<Bid>> {
    let mut filling = Records::open(folder)?;
    let [persons, auctions, of_bids] = [filling.topic("person")?, filling.topic("auction")?, filling.topic("bid")?];
    let mut bids = Vec::new();
    for number in 0..EVENTS {
        let (topic, json, at) = match event(number) {
            Event::Person(person) => (&persons, person.json(), person.date_time),
            Event::Auction(auction) => (&auctions, auction.json(), auction.date_time),
            Event::Bid(bid) => {
                let said = (&of_bids, bid.json(), bid.date_time);
                bids.push(bid);
                said
            }
        };
        let record = NewRecord { value: Some(json.into()), time: Some(Timestamp::new(i64::try_from(at)?)), ..NewRecord::default() };
        filling.push(topic, record).await?;
    }
    filling.finish().await?;
    Ok(bids)
}

/// The first so many bids.
pub fn bids(count: usize) -> impl Iterator<Item = Bid> {
    generator::bids(u64::MAX).take(count)
}

/// What reading bids costs where nothing else is done: how many `serde_json` reads into structs in a second, on one core.
pub fn baseline() -> anyhow::Result<f64> {
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "what is read is not looked at")]
    struct Read {
        auction: i64,
        bidder: i64,
        price: i64,
        channel: String,
        url: String,
        date_time: i64,
        extra: String,
    }
    let texts: Vec<String> = bids(BASELINE).map(|bid| bid.json()).collect();
    let began = Instant::now();
    for text in &texts {
        std::hint::black_box(serde_json::from_str::<Read>(text).context("a bid that is no JSON")?);
    }
    Ok(to_f64(texts.len()) / began.elapsed().as_secs_f64())
}

/// Bids a second of some queries over a log of their own.
pub async fn rates(bench: &Bench, names: &[&str]) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let folder = bench.folder.join("nexmark");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot remove the data of the run before")?;
    }
    let bids = fill(&folder).await?;
    let mut subject = bench.start("nexmark", Vec::new()).await?;
    subject.sql(BID).await?;
    let mut rates = BTreeMap::new();
    for query in ALL.iter().filter(|query| names.contains(&query.name)).collect::<Vec<_>>() {
        let (run, _) = answered(query, &subject, &bids).await?;
        rates.insert(query.name, to_f64(bids.len()) / run.seconds);
    }
    subject.server.kill()?;
    Ok(rates)
}

/// Runs a query and compares what it wrote with what it must have written.
async fn answered(query: &Query, subject: &Subject, bids: &[Bid]) -> anyhow::Result<(Run, Answer)> {
    subject.at_rest().await?;
    let run = subject.run(&query.sql(), &query.sink()).await?;
    let found = found(query, subject).await?;
    let expected = query.expected(bids);
    anyhow::ensure!(found == expected, "its answer is wrong: {found:?} in its topic, {expected:?} expected");
    subject.sql(&format!("TERMINATE {}", run.query)).await?;
    Ok((run, found))
}

async fn measure(query: &Query, subject: &Subject, bids: &[Bid], baseline: f64, report: &mut Report) -> anyhow::Result<()> {
    let (run, found) = answered(query, subject, bids).await?;
    let count = to_f64(bids.len());
    let what = format!(
        "bids from topic to topic, durable and exactly once, {} rows as computed apart; {:.2} x what serde_json reads on one core, here \
         {:.2} x; {:.0} ns of processor time a bid",
        found.rows,
        query.share,
        count / run.seconds / baseline,
        run.processor_seconds * 1e9 / count
    );
    report.goal(query.name, Bound::Rate(count / run.seconds, query.share * baseline), None, &what);
    Ok(())
}

/// What a query has written: all records, or for a table the newest of each key.
async fn found(query: &Query, subject: &Subject) -> anyhow::Result<Answer> {
    let mut answer = Answer::default();
    let mut newest: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let take = |record: RecordedEvent| {
        let value = record.event.and_then(|event| event.data).context("a record without a value")?;
        if query.is_table {
            newest.insert(record.key.context("a record without a key")?.to_vec(), value.to_vec());
        } else {
            answer.record(&fields(&value)?);
        }
        Ok(())
    };
    records::read(subject.channel.clone(), &query.sink(), take).await?;
    for (key, value) in &newest {
        // A key of one column is its value alone.
        let key = fields(key).or_else(|_| serde_json::from_slice(key).map(|value| vec![value]).context("a key that is no JSON"))?;
        answer.record(&[key, fields(value)?].concat());
    }
    Ok(answer)
}

fn fields(json: &[u8]) -> anyhow::Result<Vec<serde_json::Value>> {
    let ordered: Ordered = serde_json::from_slice(json).context("a record that is no JSON object")?;
    Ok(ordered.0)
}

/// The values of an object in the order in which they are written.
struct Ordered(Vec<serde_json::Value>);

impl<'de> serde::Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut values = Vec::new();
                while let Some((_, value)) = map.next_entry::<serde::de::IgnoredAny, serde_json::Value>()? {
                    values.push(value);
                }
                Ok(Ordered(values))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows")]
const fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_a_goal() {
        assert_eq!(ALL.map(|query| query.name), NAMES[..ALL.len()]);
        assert!(FOLLOWED.iter().all(|name| NAMES.contains(name)));
    }

    #[test]
    fn fields_stand_in_the_order_of_their_record() {
        let read = fields(br#"{"z":1,"a":"x","m":null}"#).unwrap();
        assert_eq!(read, [serde_json::json!(1), serde_json::json!("x"), serde_json::Value::Null]);
        assert!(fields(b"[1]").is_err());
    }
}
