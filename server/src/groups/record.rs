//! What groups remember, as records of the system topic `_foldlog.offsets`: newest value of each key, none when it is no longer needed.
//!
//! | key | value |
//! |---|---|
//! | `group/NAME` | the group, as JSON |
//! | `low/NAME/GENERATION/PARTITION` | the offset below which everything is done, as text |
//! | `acks/NAME/GENERATION/PARTITION/BUCKET` | what is done among 1,024 offsets, and deliveries of the others |
//! | `parked/NAME/ID/PARTITION/OFFSET` | why an event is put aside, as JSON |
//! | `lost/NAME/GENERATION/PARTITION` | what was removed before it was done, as JSON |
//!
//! Id and generation are 16 hexadecimal digits: a group that is deleted and created again has another id, one that is reset another generation,
//! so that one record ends everything that was kept under the old one. The value of `acks` is a version (1), then unsigned LEB128 numbers:
//! lengths of runs that alternate between done and not done, beginning with done, until 1,024 places are told; then a count, and so many
//! times the distance from the place before (from 0 for the first) and the deliveries of that place.
#![deny(clippy::indexing_slicing)]

use bytes::Bytes;
use foldlog_log::{NewRecord, Timestamp, TopicId, TopicName};
use serde::{Deserialize, Serialize};

use super::{
    config::{GroupConfig, GroupName},
    delivery::{At, Change},
    losses::Lost,
    parked::Parked,
    progress::{BUCKET, Bucket, Changed},
};

/// The topic in which groups lie.
pub const OFFSETS_TOPIC: &str = "_foldlog.offsets";
const VERSION: u8 = 1;

/// A group as it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: GroupName,
    /// Another one after it was deleted and created again.
    pub id: u64,
    /// Another one after each reset.
    pub generation: u64,
    /// Its topic.
    pub topic: TopicName,
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// How it delivers.
    pub config: GroupConfig,
    /// When it was created.
    pub created_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    generation: String,
    topic: String,
    topic_id: String,
    config: GroupConfig,
    created_at_ms: i64,
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A group.
    Group(GroupName),
    /// The low mark of a partition, in a generation.
    Low(GroupName, u64, u32),
    /// A bucket of a partition, in a generation.
    Bucket(GroupName, u64, u32, u64),
    /// A parked event of the group with an id.
    Parked(GroupName, u64, At),
    /// What a partition lost, in a generation.
    Lost(GroupName, u64, u32),
}

impl Key {
    /// The key of a record.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Group(name) => format!("group/{name}"),
            Self::Low(name, generation, partition) => format!("low/{name}/{generation:016x}/{partition}"),
            Self::Bucket(name, generation, partition, bucket) => format!("acks/{name}/{generation:016x}/{partition}/{bucket}"),
            Self::Lost(name, generation, partition) => format!("lost/{name}/{generation:016x}/{partition}"),
            Self::Parked(name, id, (partition, offset)) => format!("parked/{name}/{id:016x}/{partition}/{offset}"),
        }
        .into()
    }

    /// What the key of a record names; none if it is not one of ours.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split('/');
        let mut next = || parts.next();
        let kind = next()?;
        let name: GroupName = next()?.parse().ok()?;
        let key = match kind {
            "group" => Self::Group(name),
            "lost" => Self::Lost(name, u64::from_str_radix(next()?, 16).ok()?, next()?.parse().ok()?),
            "low" => Self::Low(name, u64::from_str_radix(next()?, 16).ok()?, next()?.parse().ok()?),
            "acks" => Self::Bucket(name, u64::from_str_radix(next()?, 16).ok()?, next()?.parse().ok()?, next()?.parse().ok()?),
            "parked" => Self::Parked(name, u64::from_str_radix(next()?, 16).ok()?, (next()?.parse().ok()?, next()?.parse().ok()?)),
            _ => return None,
        };
        next().is_none().then_some(key)
    }

    /// The record that ends it.
    pub fn end(&self) -> NewRecord {
        NewRecord { key: Some(self.encode()), ..NewRecord::default() }
    }

    fn record(&self, value: impl Into<Bytes>) -> NewRecord {
        NewRecord { key: Some(self.encode()), value: Some(value.into()), ..NewRecord::default() }
    }
}

impl Definition {
    /// The record of the group.
    ///
    /// # Errors
    /// In words; it would be a fault of ours.
    pub fn record(&self) -> Result<NewRecord, String> {
        let stored = Stored {
            id: format!("{:016x}", self.id),
            generation: format!("{:016x}", self.generation),
            topic: self.topic.to_string(),
            topic_id: format!("{:032x}", u128::from_be_bytes(*self.topic_id.as_bytes())),
            config: self.config.clone(),
            created_at_ms: self.created_at.get(),
        };
        let value = serde_json::to_vec(&stored).map_err(|error| error.to_string())?;
        Ok(Key::Group(self.name.clone()).record(value))
    }

    /// The group of a record.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn decode(name: GroupName, value: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).map_err(|error| error.to_string());
        Ok(Self {
            name,
            id: hexadecimal(&stored.id)?,
            generation: hexadecimal(&stored.generation)?,
            topic: stored.topic.parse().map_err(|error: foldlog_log::InvalidName| error.to_string())?,
            topic_id: TopicId::new(u128::from_str_radix(&stored.topic_id, 16).map_err(|error| error.to_string())?.to_be_bytes()),
            config: stored.config,
            created_at: Timestamp::new(stored.created_at_ms),
        })
    }

    /// The record of a low mark.
    pub fn low(&self, partition: u32, low: u64) -> NewRecord {
        Key::Low(self.name.clone(), self.generation, partition).record(low.to_string())
    }

    /// The record of a change.
    ///
    /// # Errors
    /// In words; it would be a fault of ours.
    pub fn change(&self, change: &Change) -> Result<NewRecord, String> {
        let bucket = |partition, number| Key::Bucket(self.name.clone(), self.generation, partition, number);
        Ok(match change {
            Change::Progress(partition, Changed::Low(low)) => self.low(*partition, *low),
            Change::Progress(partition, Changed::Bucket(number, None)) => bucket(*partition, *number).end(),
            Change::Progress(partition, Changed::Bucket(number, Some(changed))) => bucket(*partition, *number).record(encode(changed)),
            Change::Lost(partition, lost) => {
                let value = serde_json::to_vec(lost).map_err(|error| error.to_string())?;
                Key::Lost(self.name.clone(), self.generation, *partition).record(value)
            }
            Change::Parked(at, parked) => {
                let key = Key::Parked(self.name.clone(), self.id, *at);
                match parked {
                    Some(parked) => key.record(serde_json::to_vec(parked).map_err(|error| error.to_string())?),
                    None => key.end(),
                }
            }
        })
    }
}

/// The low mark of a record.
pub fn decode_low(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The parked event of a record.
pub fn decode_parked(value: &[u8]) -> Option<Parked> {
    serde_json::from_slice(value).ok()
}

/// The loss of a record.
pub fn decode_lost(value: &[u8]) -> Option<Lost> {
    serde_json::from_slice(value).ok()
}

fn encode(bucket: &Bucket) -> Vec<u8> {
    let mut out = vec![VERSION];
    let mut done = bucket.done.iter().map(|place| u64::from(*place)).peekable();
    let mut place = 0;
    while place < BUCKET {
        let from = place;
        while done.next_if_eq(&place).is_some() {
            place += 1;
        }
        put(place - from, &mut out);
        let until = done.peek().copied().unwrap_or(BUCKET);
        if place < BUCKET {
            put(until - place, &mut out);
            place = until;
        }
    }
    put(bucket.attempts.len() as u64, &mut out);
    let mut before = 0;
    for (place, attempts) in &bucket.attempts {
        put(u64::from(*place - before), &mut out);
        put(u64::from(*attempts), &mut out);
        before = *place;
    }
    out
}

/// The bucket of a record; none for bytes that are none.
pub fn decode(value: &[u8]) -> Option<Bucket> {
    let (&version, mut rest) = value.split_first()?;
    if version != VERSION {
        return None;
    }
    let mut bucket = Bucket::default();
    let (mut place, mut is_done) = (0_u64, true);
    while place < BUCKET {
        let end = place.checked_add(take(&mut rest)?).filter(|end| *end <= BUCKET)?;
        if is_done {
            bucket.done.extend((place..end).filter_map(|place| u16::try_from(place).ok()));
        } else if end == place {
            // No run but the first is empty.
            return None;
        }
        (place, is_done) = (end, !is_done);
    }
    let mut before = 0_u64;
    for number in 0..take(&mut rest)? {
        let distance = take(&mut rest)?;
        before = before.checked_add(distance).filter(|place| *place < BUCKET && (number == 0 || distance > 0))?;
        bucket.attempts.push((u16::try_from(before).ok()?, u32::try_from(take(&mut rest)?).ok()?));
    }
    rest.is_empty().then_some(bucket)
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use foldlog_log::{EventQuery, QueryItem, testing::Random};

    use super::*;

    fn definition() -> Definition {
        Definition {
            name: "mail".parse().unwrap(),
            id: 7,
            generation: u64::MAX,
            topic: "orders".parse().unwrap(),
            topic_id: TopicId::new([0xfe; 16]),
            config: GroupConfig::default(),
            created_at: Timestamp::new(-5),
        }
    }

    #[test]
    fn a_group_is_read_as_it_was_written() {
        let record = definition().record().unwrap();
        assert_eq!(Key::decode(&record.key.unwrap()), Some(Key::Group("mail".parse().unwrap())));
        let value = record.value.unwrap();
        assert_eq!(Definition::decode("mail".parse().unwrap(), &value), Ok(definition()));
        assert!(Definition::decode("mail".parse().unwrap(), &value[1..]).is_err());
        let newer = String::from_utf8(value.to_vec()).unwrap().replace("\"max_attempts\"", "\"fliter\":1,\"max_attempts\"");
        assert!(Definition::decode("mail".parse().unwrap(), newer.as_bytes()).unwrap_err().contains("fliter"), "refused by name");
        assert!(!newer.contains("filter"), "what older builds do not know is left out where it is not used");
        let tagged = EventQuery::Items(vec![QueryItem { types: vec!["A".into(), "B".into()], tags: vec!["t:1".parse().unwrap()] }]);
        let config = GroupConfig { filter: Some(tagged), ..GroupConfig::default() };
        let filtered = Definition { config, ..definition() };
        let value = filtered.record().unwrap().value.unwrap();
        assert_eq!(Definition::decode("mail".parse().unwrap(), &value), Ok(filtered));
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let name: GroupName = "a.b".parse().unwrap();
        for key in [
            Key::Group(name.clone()),
            Key::Low(name.clone(), 1, 2),
            Key::Bucket(name.clone(), u64::MAX, 1_023, u64::MAX),
            Key::Parked(name.clone(), 3, (4, 5)),
            Key::Lost(name, 1, 2),
        ] {
            assert_eq!(Key::decode(&key.encode()), Some(key));
        }
        for bad in ["", "group", "group/", "group/a/b", "low/a/1", "acks/a/x/1/1", "acks/a/1/1/1/1", "parked/a/1/1/-1", "other/a"] {
            assert_eq!(Key::decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Key::decode(&[0xff]), None);
    }

    #[test]
    fn a_bucket_is_read_as_it_was_written_and_damage_is_an_error_or_another_bucket() {
        let mut random = Random::new(3);
        let all = |bucket: &Bucket| assert_eq!(decode(&encode(bucket)).as_ref(), Some(bucket));
        all(&Bucket::default());
        all(&Bucket { done: (0..1_024).collect(), attempts: vec![] });
        all(&Bucket { done: vec![1_023], attempts: vec![(0, 1), (1_022, u32::MAX)] });
        for _ in 0..500 {
            let mut bucket = Bucket::default();
            let share = 1 + random.below(20);
            for place in 0..1_024 {
                match random.below(share + 2) {
                    0 => bucket.done.push(place),
                    1 => bucket.attempts.push((place, 1 + u32::try_from(random.below(300)).unwrap())),
                    _ => {}
                }
            }
            all(&bucket);
            let bytes = encode(&bucket);
            let cut = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            assert_eq!(decode(&bytes[..cut]), None);
            let mut flipped = bytes;
            flipped[cut] ^= 1 << random.below(8);
            let _ = decode(&flipped);
        }
    }

    #[test]
    fn what_is_done_in_order_takes_next_to_nothing() {
        let bucket = Bucket { done: (0..700).collect(), attempts: vec![(700, 1)] };
        assert_eq!(encode(&bucket), [1, 0xbc, 5, 0xc4, 2, 1, 0xbc, 5, 1], "and these bytes are read for ever");
    }
}
