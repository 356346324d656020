//! What a consumer group is called, and how it delivers. A leaf: values that exist are valid.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use foldlog_log::{EventQuery, InvalidName, Position, Timestamp};
use serde::{Deserialize, Serialize};

/// Name of a group: 1 to 249 bytes of `[A-Za-z0-9._-]`, as topics are named.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=249).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !matches!(text, "." | "..");
        if !fits {
            let allowed = "1 to 249 characters of A-Z a-z 0-9 . _ -, and not . or ..";
            return Err(InvalidName { what: "group name", given: text.chars().take(64).collect(), allowed });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which events wait for which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// One event of a stream (record of a key) at a time; streams in parallel.
    #[default]
    PerStream,
    /// One event of a partition at a time.
    PerPartition,
    /// None waits for another.
    None,
}

/// What becomes of an event whose attempts are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It is put aside; what follows goes on.
    #[default]
    Park,
    /// It counts as done.
    Skip,
    /// It is put aside, and what is ordered behind it waits.
    BlockStream,
}

/// How a group delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Order.
    pub ordering: Ordering,
    /// Deliveries of an event before it counts as exhausted. 10: a minute and a half of trying with the default pauses.
    pub max_attempts: u32,
    /// Pause before the second attempt; doubles with each.
    #[serde(rename = "backoff_first_ms", with = "ms")]
    pub backoff_first: Duration,
    /// Longest such pause.
    #[serde(rename = "backoff_max_ms", with = "ms")]
    pub backoff_max: Duration,
    /// How long a delivery may stay unacknowledged.
    #[serde(rename = "ack_timeout_ms", with = "ms")]
    pub ack_timeout: Duration,
    /// What becomes of an event whose attempts are used up.
    pub on_exhausted: OnExhausted,
    /// Most deliveries that are not acknowledged, over all members.
    pub max_in_flight: u32,
    /// Which events are the group's; none: all. Left out where there is none, as older builds know no such setting.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "items")]
    pub filter: Option<EventQuery>,
}

/// What to alter; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    /// [`GroupConfig::ordering`].
    pub ordering: Option<Ordering>,
    /// [`GroupConfig::max_attempts`].
    pub max_attempts: Option<u32>,
    /// [`GroupConfig::backoff_first`].
    pub backoff_first: Option<Duration>,
    /// [`GroupConfig::backoff_max`].
    pub backoff_max: Option<Duration>,
    /// [`GroupConfig::ack_timeout`].
    pub ack_timeout: Option<Duration>,
    /// [`GroupConfig::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
    /// [`GroupConfig::max_in_flight`].
    pub max_in_flight: Option<u32>,
    /// [`GroupConfig::filter`]; [`EventQuery::All`]: there is none any more.
    pub filter: Option<EventQuery>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            ordering: Ordering::default(),
            max_attempts: 10,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(30),
            on_exhausted: OnExhausted::default(),
            max_in_flight: 1_000,
            filter: None,
        }
    }
}

impl GroupConfig {
    /// The settings with these changes.
    #[must_use]
    pub fn altered(&self, changes: GroupChanges) -> Self {
        let filter = changes.filter.map(|given| Some(given).filter(|given| *given != EventQuery::All));
        Self {
            ordering: changes.ordering.unwrap_or(self.ordering),
            max_attempts: changes.max_attempts.unwrap_or(self.max_attempts),
            backoff_first: changes.backoff_first.unwrap_or(self.backoff_first),
            backoff_max: changes.backoff_max.unwrap_or(self.backoff_max),
            ack_timeout: changes.ack_timeout.unwrap_or(self.ack_timeout),
            on_exhausted: changes.on_exhausted.unwrap_or(self.on_exhausted),
            max_in_flight: changes.max_in_flight.unwrap_or(self.max_in_flight),
            filter: filter.unwrap_or_else(|| self.filter.clone()),
        }
    }

    /// The setting in which it differs from another so that one cannot follow the other while deliveries are under way: what waits for
    /// what, and what is meant, was decided for them.
    #[must_use]
    pub fn differs_in_what_is_fixed(&self, other: &Self) -> Option<&'static str> {
        if self.ordering != other.ordering {
            return Some("ordering");
        }
        (self.filter != other.filter).then_some("filter")
    }

    /// The pause after so many deliveries, at least one.
    #[must_use]
    pub fn backoff(&self, attempts: u32) -> Duration {
        let doubled = self.backoff_first.saturating_mul(1_u32 << attempts.saturating_sub(1).min(30));
        doubled.min(self.backoff_max)
    }

    /// Every value that is out of range: its name and what is allowed.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let hour = Duration::from_secs(3600);
        let rules = [
            ("max_attempts", "1 to 1000", (1..=1_000).contains(&self.max_attempts)),
            ("backoff_first", "up to 1 h", self.backoff_first <= hour),
            ("backoff_max", "up to 24 h", self.backoff_max <= 24 * hour),
            ("ack_timeout", "100 ms to 12 h", (Duration::from_millis(100)..=12 * hour).contains(&self.ack_timeout)),
            ("max_in_flight", "1 to 10000", (1..=10_000).contains(&self.max_in_flight)),
        ];
        rules.into_iter().filter(|(_, _, holds)| !holds).map(|(name, rule, _)| (name, rule)).collect()
    }
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With the first event there is.
    Beginning,
    /// With what is appended from now on.
    End,
    /// With the first event at this position or behind it.
    Position(Position),
    /// With the first event recorded by the server at this time or later.
    Time(Timestamp),
}

/// Durations as whole milliseconds.
mod ms {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// A filter as its items.
mod items {
    use foldlog_log::{EventQuery, QueryItem, Tag};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        types: Vec<String>,
        tags: Vec<String>,
    }

    pub fn serialize<S: Serializer>(filter: &Option<EventQuery>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(EventQuery::Items(items)) = filter else { return serializer.serialize_none() };
        let stored = |item: &QueryItem| Item {
            types: item.types.iter().map(ToString::to_string).collect(),
            tags: item.tags.iter().map(ToString::to_string).collect(),
        };
        serializer.collect_seq(items.iter().map(stored))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventQuery>, D::Error> {
        let Some(stored) = Option::<Vec<Item>>::deserialize(deserializer)? else { return Ok(None) };
        let item = |Item { types, tags }: Item| {
            let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Tag>, _>>();
            Ok(QueryItem { types: types.into_iter().map(Into::into).collect(), tags: tags.map_err(D::Error::custom)? })
        };
        stored.into_iter().map(item).collect::<Result<_, D::Error>>().map(|items| Some(EventQuery::Items(items)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_a_filter_can_be_lifted() {
        let config = GroupConfig { max_attempts: 3, ..GroupConfig::default() };
        assert_eq!(config.altered(GroupChanges::default()), config);
        let query = EventQuery::Items(vec![Default::default()]);
        let filtered = config.altered(GroupChanges { filter: Some(query.clone()), max_in_flight: Some(7), ..GroupChanges::default() });
        assert_eq!((filtered.max_attempts, filtered.max_in_flight, &filtered.filter), (3, 7, &Some(query)));
        assert_eq!(config.differs_in_what_is_fixed(&filtered), Some("filter"));
        let lifted = filtered.altered(GroupChanges { filter: Some(EventQuery::All), ..GroupChanges::default() });
        assert_eq!((&lifted.filter, config.differs_in_what_is_fixed(&lifted)), (&None, None));
        let by_partition = config.altered(GroupChanges { ordering: Some(Ordering::PerPartition), ..GroupChanges::default() });
        assert_eq!(config.differs_in_what_is_fixed(&by_partition), Some("ordering"));
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let config = GroupConfig::default();
        let pauses = [1, 2, 3, 7, 1_000].map(|attempts| config.backoff(attempts).as_secs());
        assert_eq!(pauses, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn every_value_out_of_range_is_told() {
        assert_eq!(GroupConfig::default().faults(), []);
        let bad = GroupConfig { max_attempts: 0, ack_timeout: Duration::from_millis(99), max_in_flight: 10_001, ..GroupConfig::default() };
        assert_eq!(bad.faults().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["max_attempts", "ack_timeout", "max_in_flight"]);
    }

    #[test]
    fn a_group_is_named_as_topics_are() {
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
        assert_eq!("mail.v2_a-b".parse::<GroupName>().unwrap().as_str(), "mail.v2_a-b");
    }
}
