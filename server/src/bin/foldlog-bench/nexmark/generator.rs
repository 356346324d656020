//! The events of NEXMark: an auction house as its specification draws it, by number, so that two runs have the same.
//!
//! Of 50 events in a row one is a person, three are auctions, 46 are bids. Half of the bids are for the hot auction of the moment, three
//! quarters come from its hot bidder, half over one of four channels that everybody knows. Nothing in a text needs an escape in JSON.

use std::fmt::Write as _;

/// Events in which the proportions repeat.
const ROUND: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
/// Bids of a round.
pub const BIDS: u64 = ROUND - PERSONS - AUCTIONS;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Among so many one is hot: the person or auction that comes first among them.
const HOT_OF: u64 = 100;
/// The newest persons and auctions, whom events that are not hot are about; and how far one may be ahead of what there is.
const ACTIVE_PERSONS: u64 = 1_000;
const OPEN_AUCTIONS: u64 = 100;
const PERSONS_AHEAD: u64 = 10;
const AUCTIONS_AHEAD: u64 = 10;
const CHANNELS: u64 = 10_000;
/// Channels that everybody knows.
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// When the first event happened, in milliseconds (two minutes before a midnight in UTC), and how many there are in one.
const BEGIN_MS: u64 = 1_700_006_280_000;
const A_MILLISECOND: u64 = 10;

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

/// What happens.
pub enum Event {
    /// Somebody comes.
    Person(Person),
    /// Somebody offers something.
    Auction(Auction),
    /// Somebody wants it.
    Bid(Bid),
}

/// Somebody who may offer and bid.
pub struct Person {
    id: u64,
    name: String,
    email_address: String,
    credit_card: String,
    city: &'static str,
    state: &'static str,
    /// When it happened, in milliseconds.
    pub date_time: u64,
    extra: String,
}

/// Something that is offered.
pub struct Auction {
    id: u64,
    item_name: String,
    description: String,
    initial_bid: u64,
    reserve: u64,
    /// When it happened, in milliseconds.
    pub date_time: u64,
    expires: u64,
    seller: u64,
    category: u64,
    extra: String,
}

/// A bid.
pub struct Bid {
    /// For which auction.
    pub auction: u64,
    /// By whom.
    pub bidder: u64,
    /// In cents.
    pub price: u64,
    /// Over which channel it came.
    pub channel: String,
    /// And from which page.
    pub url: String,
    /// When it happened, in milliseconds.
    pub date_time: u64,
    /// What makes it as long as the specification says.
    pub extra: String,
}

/// The event of a number.
pub fn event(number: u64) -> Event {
    let mut random = Random::of(number);
    let date_time = BEGIN_MS + number / A_MILLISECOND;
    match number % ROUND {
        place if place < PERSONS => Event::Person(person(number, date_time, &mut random)),
        place if place < PERSONS + AUCTIONS => Event::Auction(auction(number, date_time, &mut random)),
        _ => Event::Bid(bid(number, date_time, &mut random)),
    }
}

/// The bids among the first so many events.
pub fn bids(events: u64) -> impl Iterator<Item = Bid> {
    (0..events).filter_map(|number| match event(number) {
        Event::Bid(bid) => Some(bid),
        Event::Person(_) | Event::Auction(_) => None,
    })
}

/// How many persons and auctions there are with the event of this number.
fn persons_by(number: u64) -> u64 {
    number / ROUND * PERSONS + (number % ROUND + 1).min(PERSONS)
}

fn auctions_by(number: u64) -> u64 {
    number / ROUND * AUCTIONS + (number % ROUND + 1).saturating_sub(PERSONS).min(AUCTIONS)
}

fn person(number: u64, date_time: u64, random: &mut Random) -> Person {
    let name = format!("{} {}", random.of_these(&FIRST_NAMES), random.of_these(&LAST_NAMES));
    let email_address = format!("{}@{}.com", random.text(7), random.text(5));
    let credit_card = (0..4).map(|_| format!("{:04}", random.below(10_000))).collect::<Vec<_>>().join(" ");
    let (city, state) = (random.of_these(&CITIES), random.of_these(&STATES));
    let extra = random.filler(200_u64.saturating_sub((8 + name.len() + email_address.len() + credit_card.len() + 20) as u64));
    Person { id: FIRST_PERSON + persons_by(number) - 1, name, email_address, credit_card, city, state, date_time, extra }
}

fn auction(number: u64, date_time: u64, random: &mut Random) -> Auction {
    let (name, description) = (random.below(17) + 3, random.below(97) + 3);
    let (item_name, description) = (random.text(name), random.text(description));
    let initial_bid = random.price();
    let extra = random.filler(500_u64.saturating_sub((item_name.len() + description.len() + 64) as u64));
    Auction {
        id: FIRST_AUCTION + auctions_by(number) - 1,
        initial_bid,
        reserve: initial_bid + random.price(),
        date_time,
        expires: date_time + 1 + random.below(2 * OPEN_AUCTIONS * ROUND / AUCTIONS / A_MILLISECOND),
        seller: if random.below(4) > 0 { hot_person(number) } else { active_person(number, random) },
        category: FIRST_CATEGORY + random.below(CATEGORIES),
        item_name,
        description,
        extra,
    }
}

fn bid(number: u64, date_time: u64, random: &mut Random) -> Bid {
    let newest = auctions_by(number).saturating_sub(1);
    let auction = if random.below(2) > 0 {
        newest / HOT_OF * HOT_OF
    } else {
        let oldest = newest.saturating_sub(OPEN_AUCTIONS);
        oldest + random.below(newest - oldest + 1 + AUCTIONS_AHEAD)
    };
    let bidder = if random.below(4) > 0 { hot_person(number) + 1 } else { active_person(number, random) };
    let price = random.price();
    let (channel, url) = if random.below(2) > 0 {
        let channel = random.below(4);
        (Random::pick(&HOT_CHANNELS, channel).to_owned(), page(&mut Random::of(!channel)))
    } else {
        let channel = random.below(CHANNELS);
        // A channel has the same page each time, and nine of ten say in it which they are.
        let mut own = Random::of(u64::MAX / 2 + channel);
        let mut url = page(&mut own);
        if own.below(10) > 0 {
            write!(url, "&channel_id={}", own.below(1 << 30)).expect("a String takes whatever is written to it");
        }
        (format!("channel-{channel}"), url)
    };
    Bid { auction: FIRST_AUCTION + auction, bidder, price, channel, url, date_time, extra: random.filler(68) }
}

fn page(random: &mut Random) -> String {
    let [one, other, third] = [random.text(5), random.text(5), random.text(5)];
    format!("https://www.nexmark.com/{one}/{other}/{third}/item.htm?query=1")
}

fn hot_person(number: u64) -> u64 {
    FIRST_PERSON + persons_by(number).saturating_sub(1) / HOT_OF * HOT_OF
}

fn active_person(number: u64, random: &mut Random) -> u64 {
    let persons = persons_by(number);
    let active = persons.min(ACTIVE_PERSONS);
    FIRST_PERSON + persons - active + random.below(active + PERSONS_AHEAD)
}

impl Person {
    /// As JSON.
    pub fn json(&self) -> String {
        let Self { id, name, email_address, credit_card, city, state, date_time, extra } = self;
        format!(
            r#"{{"id":{id},"name":"{name}","email_address":"{email_address}","credit_card":"{credit_card}","city":"{city}","state":"{state}","date_time":{date_time},"extra":"{extra}"}}"#
        )
    }
}

impl Auction {
    /// As JSON.
    pub fn json(&self) -> String {
        let Self { id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra } = self;
        format!(
            r#"{{"id":{id},"item_name":"{item_name}","description":"{description}","initial_bid":{initial_bid},"reserve":{reserve},"date_time":{date_time},"expires":{expires},"seller":{seller},"category":{category},"extra":"{extra}"}}"#
        )
    }
}

impl Bid {
    /// As JSON.
    pub fn json(&self) -> String {
        let Self { auction, bidder, price, channel, url, date_time, extra } = self;
        format!(
            r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"channel":"{channel}","url":"{url}","date_time":{date_time},"extra":"{extra}"}}"#
        )
    }
}

/// Numbers that look like chance and are the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a>(words: &[&'a str], place: u64) -> &'a str {
        usize::try_from(place).ok().and_then(|place| words.get(place)).copied().unwrap_or_default()
    }

    fn of_these<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let place = self.below(words.len() as u64);
        Self::pick(words, place)
    }

    /// Small letters.
    fn text(&mut self, length: u64) -> String {
        let mut text = String::with_capacity(usize::try_from(length).unwrap_or_default());
        let mut left = length;
        while left > 0 {
            // Twelve letters of one number.
            let mut letters = self.next();
            for _ in 0..left.min(12) {
                text.push(char::from(b'a' + u8::try_from(letters % 26).unwrap_or_default()));
                letters /= 26;
            }
            left -= left.min(12);
        }
        text
    }

    /// A text of about this length, a fifth more or less.
    fn filler(&mut self, about: u64) -> String {
        let fifth = about / 5;
        let length = about - fifth + self.below(2 * fifth + 1);
        self.text(length)
    }

    /// From 1 to a million dollars, in cents; each magnitude is as likely as the others.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "up to a hundred million")]
    fn price(&mut self) -> u64 {
        let part = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        (10_f64.powf(part * 6.0) * 100.0).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_in_the_proportions_of_the_specification() {
        let (mut persons, mut auctions, mut bids, mut bytes) = (0, 0, 0, 0);
        for number in 0..5_000 {
            let json = match event(number) {
                Event::Person(person) => {
                    persons += 1;
                    assert_eq!(person.id, 999 + persons);
                    person.json()
                }
                Event::Auction(auction) => {
                    auctions += 1;
                    assert_eq!(auction.id, 999 + auctions);
                    auction.json()
                }
                Event::Bid(bid) => {
                    bids += 1;
                    bytes += bid.json().len();
                    assert!((1_000..=1_000 + auctions + AUCTIONS_AHEAD).contains(&bid.auction), "{} of {auctions}", bid.auction);
                    assert!((1_000..=1_000 + persons + PERSONS_AHEAD).contains(&bid.bidder), "{} of {persons}", bid.bidder);
                    assert!((100..=100_000_000).contains(&bid.price));
                    bid.json()
                }
            };
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert!(value["date_time"].is_u64() && value["extra"].is_string());
        }
        assert_eq!((persons, auctions, bids), (100, 300, 4_600));
        assert!((200..280).contains(&(bytes / 4_600)), "{}", bytes / 4_600);
    }

    #[test]
    fn two_runs_have_the_same_events() {
        let run = || bids(1_000).map(|bid| bid.json()).collect::<Vec<_>>();
        assert_eq!(run(), run());
        assert_eq!(run().len(), 920);
    }

    #[test]
    fn half_of_the_bids_are_for_hot_auctions_and_over_known_channels() {
        let all: Vec<Bid> = bids(50_000).skip(20_000).collect();
        let part = |of: fn(&Bid) -> bool| all.iter().filter(|bid| of(bid)).count() * 100 / all.len();
        assert!((48..=54).contains(&part(|bid| bid.auction % HOT_OF == 0)));
        assert!((48..=52).contains(&part(|bid| !bid.channel.starts_with("channel-"))));
        assert!((43..=47).contains(&part(|bid| bid.url.contains("channel_id="))));
    }
}
