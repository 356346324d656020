//! The queries of NEXMark without windows, each as a statement and, from the bids themselves, as what it must have written in the end.
//!
//! q15 to q17 fold as days go by; nothing of them closes. The answers are computed here with none of foldlog's code.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::{self, Display},
    hash::Hasher as _,
};

use siphasher::sip::SipHasher13;

use super::generator::Bid;

/// One of them.
pub struct Query {
    /// Its name, in small letters also that of what it writes; G20 is the running group-by that a goal is named after.
    pub name: &'static str,
    /// What makes it, without its `CREATE`.
    pub select: &'static str,
    /// Whether it is a table, whose newest records count.
    pub is_table: bool,
    /// How fast it is to be: so much of what `serde_json` reads on one core.
    pub share: f64,
    expected: fn(&[Bid], &mut Answer),
}

/// Rows in whatever order: how many, and the sum of their checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many.
    pub rows: u64,
    sum: u64,
}

/// What the stream of bids is declared with.
pub const BID: &str = "CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, date_time TIMESTAMP, \
     extra VARCHAR) WITH (kafka_topic = 'bid', value_format = 'json')";

const fn stream(name: &'static str, share: f64, select: &'static str, expected: fn(&[Bid], &mut Answer)) -> Query {
    Query { name, select, is_table: false, share, expected }
}

const fn table(name: &'static str, share: f64, select: &'static str, expected: fn(&[Bid], &mut Answer)) -> Query {
    Query { name, select, is_table: true, share, expected }
}

/// Every query.
pub const ALL: [Query; 10] = [
    stream("q0", 0.54, "SELECT auction, bidder, price, date_time, extra FROM bid", q0),
    stream("q1", 0.54, "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid", q1),
    stream("q2", 0.85, "SELECT auction, price FROM bid WHERE auction % 123 = 0", q2),
    stream(
        "q14",
        0.5,
        "SELECT auction, bidder, 0.908 * price AS price, \
         CASE WHEN format_timestamp(date_time, 'HH') BETWEEN '08' AND '18' THEN 'dayTime' \
         WHEN format_timestamp(date_time, 'HH') <= '06' OR format_timestamp(date_time, 'HH') >= '20' THEN 'nightTime' \
         ELSE 'otherTime' END AS bid_time_type, \
         date_time, extra, len(extra) - len(replace(extra, 'c', '')) AS c_counts \
         FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000",
        q14,
    ),
    table("G20", 0.59, "SELECT auction, COUNT(*) AS bids, SUM(price) AS total FROM bid GROUP BY auction", g20),
    table(
        "q15",
        0.3,
        "SELECT format_timestamp(date_time, 'yyyy-MM-dd') AS day, COUNT(*) AS total_bids, \
         COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids, \
         COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
         COUNT(*) FILTER (WHERE price >= 1000000) AS rank3_bids, \
         COUNT(DISTINCT bidder) AS total_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders, \
         COUNT(DISTINCT auction) AS total_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions \
         FROM bid GROUP BY format_timestamp(date_time, 'yyyy-MM-dd')",
        q15,
    ),
    table(
        "q16",
        0.3,
        "SELECT channel, format_timestamp(date_time, 'yyyy-MM-dd') AS day, MAX(format_timestamp(date_time, 'HH:mm')) AS minute, \
         COUNT(*) AS total_bids, \
         COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids, \
         COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
         COUNT(*) FILTER (WHERE price >= 1000000) AS rank3_bids, \
         COUNT(DISTINCT bidder) AS total_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders, \
         COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders, \
         COUNT(DISTINCT auction) AS total_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions, \
         COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions \
         FROM bid GROUP BY channel, format_timestamp(date_time, 'yyyy-MM-dd')",
        q16,
    ),
    table(
        "q17",
        0.5,
        "SELECT auction, format_timestamp(date_time, 'yyyy-MM-dd') AS day, COUNT(*) AS total_bids, \
         COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids, \
         COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
         COUNT(*) FILTER (WHERE price >= 1000000) AS rank3_bids, \
         MIN(price) AS min_price, MAX(price) AS max_price, AVG(price) AS avg_price, SUM(price) AS sum_price \
         FROM bid GROUP BY auction, format_timestamp(date_time, 'yyyy-MM-dd')",
        q17,
    ),
    stream(
        "q21",
        0.3,
        "SELECT auction, bidder, price, channel, \
         CASE WHEN lcase(channel) = 'apple' THEN '0' WHEN lcase(channel) = 'google' THEN '1' \
         WHEN lcase(channel) = 'facebook' THEN '2' WHEN lcase(channel) = 'baidu' THEN '3' \
         ELSE regexp_extract('(&|^)channel_id=([^&]*)', url, 2) END AS channel_id \
         FROM bid WHERE regexp_extract('(&|^)channel_id=([^&]*)', url, 2) IS NOT NULL \
         OR lcase(channel) IN ('apple', 'google', 'facebook', 'baidu')",
        q21,
    ),
    stream(
        "q22",
        0.4,
        "SELECT auction, bidder, price, channel, split(url, '/')[4] AS dir1, split(url, '/')[5] AS dir2, split(url, '/')[6] AS dir3 \
         FROM bid",
        q22,
    ),
];

impl Query {
    /// What it writes.
    pub fn sink(&self) -> String {
        self.name.to_lowercase()
    }

    /// The statement.
    pub fn sql(&self) -> String {
        let kind = if self.is_table { "TABLE" } else { "STREAM" };
        // A key as JSON says its columns' names, whatever their number.
        let with = if self.is_table { " WITH (key_format = 'json', value_format = 'json')" } else { "" };
        format!("CREATE {kind} {}{with} AS {}", self.sink(), self.select)
    }

    /// What it must have written in the end.
    pub fn expected(&self, bids: &[Bid]) -> Answer {
        let mut answer = Answer::default();
        (self.expected)(bids, &mut answer);
        answer
    }
}

impl Answer {
    /// Adds a row of these fields.
    pub fn row(&mut self, fields: &[&dyn Display]) {
        use fmt::Write as _;
        let mut text = String::with_capacity(128);
        for field in fields {
            write!(text, "{field}\u{1f}").expect("a String takes whatever is written to it");
        }
        let mut hasher = SipHasher13::new();
        hasher.write(text.as_bytes());
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }

    /// Adds a row that stands in a record: the fields of its JSON objects, in their order.
    pub fn record(&mut self, fields: &[serde_json::Value]) {
        let texts: Vec<String> = fields.iter().map(text_of).collect();
        let texts: Vec<&dyn Display> = texts.iter().map(|text| text as &dyn Display).collect();
        self.row(&texts);
    }
}

fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, |number| Real(number).to_string()),
        other => other.to_string(),
    }
}

/// A number with a fraction.
struct Real(f64);

impl Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "up to a hundred million")]
fn in_dollars(bid: &Bid) -> Real {
    Real(0.908 * bid.price as f64)
}

fn q0(bids: &[Bid], answer: &mut Answer) {
    for bid in bids {
        answer.row(&[&bid.auction, &bid.bidder, &bid.price, &bid.date_time, &bid.extra]);
    }
}

fn q1(bids: &[Bid], answer: &mut Answer) {
    for bid in bids {
        answer.row(&[&bid.auction, &bid.bidder, &in_dollars(bid), &bid.date_time, &bid.extra]);
    }
}

fn q2(bids: &[Bid], answer: &mut Answer) {
    for bid in bids.iter().filter(|bid| bid.auction % 123 == 0) {
        answer.row(&[&bid.auction, &bid.price]);
    }
}

fn q14(bids: &[Bid], answer: &mut Answer) {
    for bid in bids.iter().filter(|bid| in_dollars(bid).0 > 1e6 && in_dollars(bid).0 < 5e7) {
        let time = match bid.date_time / 3_600_000 % 24 {
            8..=18 => "dayTime",
            0..=6 | 20.. => "nightTime",
            7 | 19 => "otherTime",
        };
        let c_counts = bid.extra.bytes().filter(|letter| *letter == b'c').count();
        answer.row(&[&bid.auction, &bid.bidder, &in_dollars(bid), &time, &bid.date_time, &bid.extra, &c_counts]);
    }
}

fn g20(bids: &[Bid], answer: &mut Answer) {
    let mut auctions: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for bid in bids {
        let (count, total) = auctions.entry(bid.auction).or_default();
        *count += 1;
        *total += bid.price;
    }
    for (auction, (count, total)) in &auctions {
        answer.row(&[auction, count, total]);
    }
}

/// Bids of all prices, and of low, middle and high ones.
#[derive(Default)]
struct Ranks {
    bids: [u64; 4],
    bidders: [HashSet<u64>; 4],
    auctions: [HashSet<u64>; 4],
}

fn rank(price: u64) -> usize {
    match price {
        0..10_000 => 1,
        10_000..1_000_000 => 2,
        1_000_000.. => 3,
    }
}

impl Ranks {
    fn add(&mut self, bid: &Bid) {
        for place in [0, rank(bid.price)] {
            self.bids[place] += 1;
            self.bidders[place].insert(bid.bidder);
            self.auctions[place].insert(bid.auction);
        }
    }

    fn counts(&self) -> Vec<u64> {
        let sizes = |sets: &[HashSet<u64>; 4]| sets.each_ref().map(|set| set.len() as u64);
        [self.bids, sizes(&self.bidders), sizes(&self.auctions)].concat()
    }
}

/// The day of a time, as its date: those of the bids lie in the second half of November 2023.
fn day(date_time: u64) -> String {
    // 2023-11-14 began then.
    let days = (date_time - 1_699_920_000_000) / 86_400_000;
    format!("2023-11-{:02}", 14 + days)
}

fn q15(bids: &[Bid], answer: &mut Answer) {
    let mut days: BTreeMap<String, Ranks> = BTreeMap::new();
    for bid in bids {
        days.entry(day(bid.date_time)).or_default().add(bid);
    }
    for (day, ranks) in &days {
        let counts = ranks.counts();
        let mut fields: Vec<&dyn Display> = vec![day];
        fields.extend(counts.iter().map(|count| count as &dyn Display));
        answer.row(&fields);
    }
}

fn q16(bids: &[Bid], answer: &mut Answer) {
    let mut channels: BTreeMap<(&str, String), (String, Ranks)> = BTreeMap::new();
    for bid in bids {
        let (minute, ranks) = channels.entry((&bid.channel, day(bid.date_time))).or_default();
        let at = format!("{:02}:{:02}", bid.date_time / 3_600_000 % 24, bid.date_time / 60_000 % 60);
        *minute = at.max(std::mem::take(minute));
        ranks.add(bid);
    }
    for ((channel, day), (minute, ranks)) in &channels {
        let counts = ranks.counts();
        let mut fields: Vec<&dyn Display> = vec![channel, day, minute];
        fields.extend(counts.iter().map(|count| count as &dyn Display));
        answer.row(&fields);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums of far less than 2^53")]
fn q17(bids: &[Bid], answer: &mut Answer) {
    let mut auctions: BTreeMap<(u64, String), Vec<u64>> = BTreeMap::new();
    for bid in bids {
        auctions.entry((bid.auction, day(bid.date_time))).or_default().push(bid.price);
    }
    for ((auction, day), prices) in &auctions {
        let of_rank = |wanted| prices.iter().filter(|price| rank(**price) == wanted).count();
        let (least, most) = (prices.iter().min().unwrap_or(&0), prices.iter().max().unwrap_or(&0));
        let sum: u64 = prices.iter().sum();
        let average = Real(sum as f64 / prices.len() as f64);
        answer.row(&[auction, day, &prices.len(), &of_rank(1), &of_rank(2), &of_rank(3), least, most, &average, &sum]);
    }
}

fn q21(bids: &[Bid], answer: &mut Answer) {
    for bid in bids {
        let known = ["Apple", "Google", "Facebook", "Baidu"].iter().position(|known| *known == bid.channel);
        let channel_id = match (known, bid.url.split_once("&channel_id=")) {
            (Some(known), _) => known.to_string(),
            (None, Some((_, id))) => id.to_owned(),
            (None, None) => continue,
        };
        answer.row(&[&bid.auction, &bid.bidder, &bid.price, &bid.channel, &channel_id]);
    }
}

fn q22(bids: &[Bid], answer: &mut Answer) {
    for bid in bids {
        let parts: Vec<&str> = bid.url.split('/').collect();
        let part = |place: usize| parts.get(place).copied().unwrap_or_default();
        answer.row(&[&bid.auction, &bid.bidder, &bid.price, &bid.channel, &part(3), &part(4), &part(5)]);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::generator::bids, *};

    #[test]
    fn an_answer_knows_its_rows_and_not_their_order() {
        let (mut one, mut other) = (Answer::default(), Answer::default());
        one.row(&[&1, &"a"]);
        one.row(&[&2, &Real(2.5)]);
        other.record(&[2.into(), 2.5.into()]);
        assert_ne!(one, other);
        other.record(&[1.into(), "a".into()]);
        assert_eq!(one, other);
    }

    #[test]
    fn every_query_has_an_answer_that_follows_from_the_bids() {
        let all: Vec<Bid> = bids(20_000).collect();
        for query in &ALL {
            let (of_all, of_fewer) = (query.expected(&all), query.expected(&all[..all.len() / 2]));
            assert!(of_all.rows > 0 && of_all != of_fewer, "{}", query.name);
        }
        let rows = |name: &str| ALL.iter().find(|query| query.name == name).map(|query| query.expected(&all).rows);
        assert_eq!(rows("q0"), Some(all.len() as u64));
        assert!(rows("q2") < rows("q21") && rows("q21") < rows("q22"));
        assert_eq!(rows("q15"), Some(1));
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(day(1_700_000_000_000), "2023-11-14");
        assert_eq!(day(1_700_006_400_000), "2023-11-15");
    }
}
