//! What an append requires, and queries of types and tags.

use std::sync::Arc;

use foldlog_log::{EventQuery, Expected, NewEvent, Position, Precondition, QueryAbsent, QueryItem, Scope, StreamVersion, Tag};
use foldlog_proto::v1 as pb;

use super::{Topics, stream, topic};
use crate::failure::Failure;

pub(super) fn precondition(place: usize, given: pb::Precondition, topics: &mut Topics<'_>) -> Result<Precondition, Failure> {
    use pb::stream_state::Expect;
    let field = |name: &str| format!("preconditions[{place}].{name}");
    let state = match given.kind {
        Some(pb::precondition::Kind::Stream(state)) => state,
        Some(pb::precondition::Kind::Query(query)) => return query_absent(query, topics, field),
        None => return Err(Failure::invalid(field("kind"), "is required")),
    };
    let expected = match state.expect {
        None => return Err(Failure::invalid(field("stream.expect"), "is required: version, absent, exists or any")),
        Some(Expect::Version(0)) => {
            return Err(Failure::invalid(field("stream.version"), "versions begin at 1; say absent for a stream without events"));
        }
        Some(Expect::Version(version)) => Expected::Version(StreamVersion::new(version)),
        Some(Expect::Absent(_)) => Expected::Absent,
        Some(Expect::Exists(_)) => Expected::Exists,
        Some(Expect::Deleted(_)) => Expected::Deleted,
        Some(Expect::Any(_)) => Expected::Any,
    };
    Ok(Precondition::Stream {
        topic: topics.named(&state.topic, || field("stream.topic"))?,
        stream: stream(&state.stream, || field("stream.stream"))?,
        expected,
    })
}

fn query_absent(given: pb::EventQueryAbsent, topics: &mut Topics<'_>, field: impl Fn(&str) -> String) -> Result<Precondition, Failure> {
    let scope = match (given.all_topics, given.topics.is_empty()) {
        (true, true) => Scope::Everything,
        (true, false) => return Err(Failure::invalid(field("query.topics"), "means nothing with all_topics")),
        (false, true) => Scope::Topics(vec![topics.named("", || field("query.topics"))?]),
        (false, false) => {
            let named = |(place, name): (usize, &String)| topic(name, || field(&format!("query.topics[{place}]")));
            Scope::Topics(given.topics.iter().enumerate().map(named).collect::<Result<_, _>>()?)
        }
    };
    let query = event_query(given.query.unwrap_or_default(), |name| field(&format!("query.query.{name}")))?;
    Ok(Precondition::QueryAbsent(QueryAbsent { scope, query, after: given.after.map(Position::new) }))
}

/// Which events are meant; `field` names a part of it.
pub fn event_query(given: pb::EventQuery, field: impl Fn(&str) -> String) -> Result<EventQuery, Failure> {
    match (given.all, given.items.is_empty()) {
        (true, true) => return Ok(EventQuery::All),
        (true, false) => return Err(Failure::invalid(field("items"), "means nothing with all")),
        (false, true) => return Err(Failure::invalid(field("items"), "at least one is needed, or all")),
        (false, false) => {}
    }
    let mut items = Vec::with_capacity(given.items.len());
    for (place, item) in given.items.into_iter().enumerate() {
        let at = |name: &str| field(&format!("items[{place}].{name}"));
        if item.types.iter().any(|kind| !(1..=255).contains(&kind.len())) {
            return Err(Failure::invalid(at("types"), "a type has 1 to 255 bytes"));
        }
        items.push(QueryItem { types: item.types.into_iter().map(Arc::from).collect(), tags: tags(&item.tags, at)? });
    }
    Ok(EventQuery::Items(items))
}

/// A query as it travels.
pub fn proto_query(query: &EventQuery) -> pb::EventQuery {
    let EventQuery::Items(items) = query else { return pb::EventQuery { all: true, items: Vec::new() } };
    let item = |item: &QueryItem| pb::event_query::Item {
        types: item.types.iter().map(ToString::to_string).collect(),
        tags: item.tags.iter().map(ToString::to_string).collect(),
    };
    pb::EventQuery { all: false, items: items.iter().map(item).collect() }
}

pub(super) fn tags(given: &[String], field: impl Fn(&str) -> String) -> Result<Vec<Tag>, Failure> {
    if given.len() > NewEvent::MAX_TAGS {
        return Err(Failure::invalid(field("tags"), format_args!("at most {} are taken", NewEvent::MAX_TAGS)));
    }
    let mut tags = Vec::with_capacity(given.len());
    for (place, tag) in given.iter().enumerate() {
        let at = || field(&format!("tags[{place}]"));
        let tag = tag.parse::<Tag>().map_err(|error| Failure::name(at(), &error))?;
        if tags.contains(&tag) {
            return Err(Failure::invalid(at(), "a tag is given once"));
        }
        tags.push(tag);
    }
    Ok(tags)
}
