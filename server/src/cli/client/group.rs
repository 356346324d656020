//! `foldlog group create | list | show | alter | reset | delete`, and `foldlog group parked list | replay | discard`.

use std::time::Duration;

use clap::Subcommand;
use foldlog_sdk::{
    EventQuery, GroupChanges, GroupLoss, GroupPlace, GroupSettings, GroupStatus, OnExhausted, Ordering, Parked as SdkParked,
};

use super::{Connection, Stop, event::data_cell, read::Filter};
use crate::{
    cli::output::{
        Cell, Head, OutputArgs, Record, note,
        text::{json_string, parse_time, time},
    },
    config::duration,
};

/// Create, list, show, alter, move and delete consumer groups
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Create a group over a topic; one that exists with the same settings is left as it is
    Create {
        /// Name: 1 to 249 characters of A-Z a-z 0-9 . _ -
        name: String,
        /// Topic
        topic: String,
        #[command(flatten)]
        settings: Settings,
        /// Begin there: beginning, end or a position
        #[arg(long, value_name = "PLACE", default_value = "beginning", value_parser = parse_place)]
        from: GroupPlace,
        /// Begin with the first event that the server recorded at this time (2013-01-01T10:15:00Z) or later
        #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_time_of_place)]
        from_time: Option<GroupPlace>,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List groups by name: how far each is
    List {
        /// Only groups of this topic
        #[arg(long)]
        topic: Option<String>,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a group: its settings, its members, and its place in each partition
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Alter a group; what is not named stays as it is. Ordering and filter can be altered while it has no member
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true).args(CHANGES))]
    Alter {
        /// Name
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Every event is the group's again, from where it is
        #[arg(long, conflicts_with_all = ["types", "tags"])]
        no_filter: bool,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move a group without members to another place; parked events stay parked
    Reset {
        /// Name
        name: String,
        /// Go there: beginning, end or a position
        #[arg(long, value_name = "PLACE", required_unless_present = "to_time", value_parser = parse_place)]
        to: Option<GroupPlace>,
        /// Go to the first event that the server recorded at this time (2013-01-01T10:15:00Z) or later
        #[arg(long, value_name = "TIME", conflicts_with = "to", value_parser = parse_time_of_place)]
        to_time: Option<GroupPlace>,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a group without members, with everything that it kept
    Delete {
        /// Name
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// List, replay and discard the events that a group put aside
    #[command(subcommand)]
    Parked(Parked),
}

/// What can be altered, one of which must be named.
const CHANGES: [&str; 10] = [
    "ordering",
    "max_attempts",
    "backoff_first",
    "backoff_max",
    "ack_timeout",
    "on_exhausted",
    "max_in_flight",
    "types",
    "tags",
    "no_filter",
];

/// How a group delivers.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Which events wait for which: per-stream, per-partition or none [default: per-stream]
    #[arg(long)]
    ordering: Option<Ordering>,
    /// Deliveries of an event before its attempts are used up, 1 to 1,000 [default: 10]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Pause before the second attempt, which doubles with each, up to 1h [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    backoff_first: Option<Duration>,
    /// Longest such pause, up to 24h [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    backoff_max: Option<Duration>,
    /// How long a delivery may stay unacknowledged, 100ms to 12h [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ack_timeout: Option<Duration>,
    /// What becomes of an event whose attempts are used up: park, skip or block-stream [default: park]
    #[arg(long, value_name = "ACTION")]
    on_exhausted: Option<OnExhausted>,
    /// Most deliveries that are not acknowledged, over all members, 1 to 10,000 [default: 1000]
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    #[command(flatten)]
    filter: Filter,
}

/// List, replay and discard the events that a group put aside
#[derive(Debug, Subcommand)]
pub enum Parked {
    /// List parked events, by partition and offset
    List {
        /// Group
        name: String,
        /// Most events
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give parked events back to the group, which delivers them again
    Replay {
        /// Group
        name: String,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        connection: Connection,
    },
    /// Forget parked events: they count as done
    Discard {
        /// Group
        name: String,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Which parked events.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// All of them
    #[arg(long, required_unless_present = "at", conflicts_with = "at")]
    all: bool,
    /// The one in this partition at this offset; may be given more than once
    #[arg(long, value_name = "PARTITION:OFFSET", value_parser = parse_at)]
    at: Vec<(u32, u64)>,
}

impl Which {
    fn places(&self) -> Option<&[(u32, u64)]> {
        (!self.all).then_some(&self.at)
    }
}

fn parse_place(text: &str) -> Result<GroupPlace, &'static str> {
    match text {
        "beginning" => Ok(GroupPlace::Beginning),
        "end" => Ok(GroupPlace::End),
        position => position.parse().map(GroupPlace::Position).map_err(|_| "beginning, end or a position"),
    }
}

fn parse_time_of_place(text: &str) -> Result<GroupPlace, &'static str> {
    parse_time(text).map(GroupPlace::Time).ok_or("a time is RFC 3339, like 2013-01-01T10:15:00Z")
}

fn parse_at(text: &str) -> Result<(u32, u64), &'static str> {
    let parts = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    parts.ok_or("a partition and an offset, like 0:42")
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    duration(text, 0, 24 * 3600).ok_or("a time up to 24h, like 500ms, 30s or 5m")
}

impl Group {
    pub async fn run(self) -> Result<(), Stop> {
        match self {
            Self::Create { name, topic, settings, from, from_time, connection, output } => {
                let client = connection.open().await?;
                let group = client.create_group(&name, &topic, settings.given(), from_time.unwrap_or(from)).await?;
                print_groups(output, &[client.group(&group.name).await?])
            }
            Self::List { topic, connection, output } => {
                print_groups(output, &connection.open().await?.list_groups(topic.as_deref()).await?)
            }
            Self::Show { name, connection, output } => show(output, &connection.open().await?.group(&name).await?),
            Self::Alter { name, settings, no_filter, connection, output } => {
                let mut changes = settings.changes();
                if no_filter {
                    changes.filter = Some(EventQuery::all());
                }
                show(output, &connection.open().await?.alter_group(&name, changes).await?)
            }
            Self::Reset { name, to, to_time, connection, output } => {
                let to = to_time.or(to).unwrap_or_default();
                print_groups(output, &[connection.open().await?.reset_group(&name, to).await?])
            }
            Self::Delete { name, connection } => {
                connection.open().await?.delete_group(&name).await?;
                note(&format!("group {name} is deleted"));
                Ok(())
            }
            Self::Parked(parked) => parked.run().await,
        }
    }
}

impl Parked {
    async fn run(self) -> Result<(), Stop> {
        match self {
            Self::List { name, limit, connection, output } => {
                let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                print_parked(output, &connection.open().await?.list_parked(&name, limit).await?)
            }
            Self::Replay { name, which, connection } => {
                let count = connection.open().await?.replay_parked(&name, which.places()).await?;
                note(&format!("{count} events were given back to group {name}"));
                Ok(())
            }
            Self::Discard { name, which, connection } => {
                let count = connection.open().await?.discard_parked(&name, which.places()).await?;
                note(&format!("{count} parked events of group {name} were discarded"));
                Ok(())
            }
        }
    }
}

impl Settings {
    fn changes(self) -> GroupChanges {
        GroupChanges {
            filter: self.filter.query(),
            ordering: self.ordering,
            max_attempts: self.max_attempts,
            backoff_first: self.backoff_first,
            backoff_max: self.backoff_max,
            ack_timeout: self.ack_timeout,
            on_exhausted: self.on_exhausted,
            max_in_flight: self.max_in_flight,
        }
    }

    fn given(self) -> GroupSettings {
        let GroupChanges { ordering, max_attempts, backoff_first, backoff_max, ack_timeout, on_exhausted, max_in_flight, filter } =
            self.changes();
        let (ordering, on_exhausted) = (ordering.unwrap_or_default(), on_exhausted.unwrap_or_default());
        GroupSettings { ordering, max_attempts, backoff_first, backoff_max, ack_timeout, on_exhausted, max_in_flight, filter }
    }
}

fn heads() -> Vec<Head> {
    let (text, number) = (Head::text, Head::number);
    vec![
        text("name"),
        text("topic"),
        number("lag"),
        text("oldest_unacknowledged"),
        number("members"),
        number("in_flight"),
        number("parked"),
        number("redeliveries"),
        number("lost"),
        text("topic_deleted"),
    ]
}

fn cells(status: &GroupStatus) -> Vec<Cell> {
    vec![
        status.group.name.as_str().into(),
        status.group.topic.as_str().into(),
        status.lag.into(),
        status.oldest_unacknowledged_ms.map_or(Cell::Null, |ms| Cell::Text(time(ms))),
        u64::from(status.member_count).into(),
        status.in_flight.into(),
        status.parked.into(),
        status.redeliveries.into(),
        status.lost.into(),
        Cell::Json(status.topic_deleted.to_string()),
    ]
}

fn print_groups(output: OutputArgs, groups: &[GroupStatus]) -> Result<(), Stop> {
    let heads = heads();
    let mut printer = output.stdout().printer(&heads);
    for group in groups {
        printer.print(&Record { heads: &heads, cells: cells(group) })?;
    }
    Ok(printer.finish()?)
}

fn show(output: OutputArgs, status: &GroupStatus) -> Result<(), Stop> {
    let (mut heads, mut cells) = (heads(), cells(status));
    let settings = &status.group.settings;
    let milliseconds = |given: Option<Duration>| Cell::from(given.map_or(0, |given| u64::try_from(given.as_millis()).unwrap_or(u64::MAX)));
    let number = |given: Option<u32>| Cell::from(u64::from(given.unwrap_or_default()));
    let partitions = status.partitions.iter().enumerate().map(|(number, partition)| {
        let error = partition.error.as_deref().map_or_else(|| "null".to_owned(), json_string);
        let (offset, end, lag) = (partition.offset, partition.end, partition.lag);
        let lost = partition.lost.map_or_else(|| "null".to_owned(), lost_json);
        format!("{{\"partition\":{number},\"offset\":{offset},\"end\":{end},\"lag\":{lag},\"error\":{error},\"lost\":{lost}}}")
    });
    let members = status.members.iter().map(|member| {
        let partitions = member.partitions.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        format!("{{\"consumer\":{},\"partitions\":[{partitions}],\"in_flight\":{}}}", json_string(&member.consumer), member.in_flight)
    });
    let list = |items: Vec<String>| Cell::Json(format!("[{}]", items.join(",")));
    let more = [
        (Head::text("ordering"), settings.ordering.as_str().into()),
        (Head::number("max_attempts"), number(settings.max_attempts)),
        (Head::number("backoff_first_ms"), milliseconds(settings.backoff_first)),
        (Head::number("backoff_max_ms"), milliseconds(settings.backoff_max)),
        (Head::number("ack_timeout_ms"), milliseconds(settings.ack_timeout)),
        (Head::text("on_exhausted"), settings.on_exhausted.as_str().into()),
        (Head::number("max_in_flight"), number(settings.max_in_flight)),
        (Head::text("filter"), settings.filter.as_ref().map_or(Cell::Null, filter_cell)),
        (Head::text("members_now"), list(members.collect())),
        (Head::text("partitions"), list(partitions.collect())),
    ];
    for (head, cell) in more {
        heads.push(head);
        cells.push(cell);
    }
    let mut printer = output.stdout().printer(&heads);
    printer.print(&Record { heads: &heads, cells })?;
    Ok(printer.finish()?)
}

fn lost_json(lost: GroupLoss) -> String {
    let GroupLoss { total, from, end, count, found_at_ms } = lost;
    let found_at = json_string(&time(found_at_ms));
    format!("{{\"total\":{total},\"from\":{from},\"end\":{end},\"count\":{count},\"found_at\":{found_at}}}")
}

/// A filter as the items of which an event must match one.
fn filter_cell(filter: &EventQuery) -> Cell {
    let list = |texts: &[String]| texts.iter().map(|text| json_string(text)).collect::<Vec<_>>().join(",");
    let item = |(types, tags): (&[String], &[String])| format!("{{\"types\":[{}],\"tags\":[{}]}}", list(types), list(tags));
    Cell::Json(format!("[{}]", filter.items().unwrap_or_default().into_iter().map(item).collect::<Vec<_>>().join(",")))
}

fn print_parked(output: OutputArgs, parked: &[SdkParked]) -> Result<(), Stop> {
    let (text, number) = (Head::text, Head::number);
    let heads = [
        number("partition"),
        number("offset"),
        text("state"),
        number("attempts"),
        text("parked_at"),
        text("reason"),
        text("stream"),
        text("type"),
        text("data"),
    ];
    let mut printer = output.stdout().printer(&heads);
    for one in parked {
        let event = one.event.as_ref();
        let given = |text: &str| if text.is_empty() { Cell::Null } else { text.into() };
        let cells = vec![
            u64::from(one.partition).into(),
            one.offset.into(),
            one.state.as_str().into(),
            u64::from(one.attempts).into(),
            Cell::Text(time(one.parked_at_ms)),
            given(&one.reason),
            event.and_then(|event| event.stream.as_deref()).map_or(Cell::Null, Cell::from),
            event.map_or(Cell::Null, |event| given(&event.kind)),
            event.map_or(Cell::Null, data_cell),
        ];
        printer.print(&Record { heads: &heads, cells })?;
    }
    Ok(printer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_or_positions() {
        assert_eq!(parse_place("end"), Ok(GroupPlace::End));
        assert_eq!(parse_place("42"), Ok(GroupPlace::Position(42)));
        assert!(parse_place("-1").is_err() && parse_place("start").is_err());
        assert_eq!(parse_at("3:42"), Ok((3, 42)));
        assert!(parse_at("42").is_err() && parse_at("a:1").is_err());
    }
}
