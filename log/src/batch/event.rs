//! Header `f`: what an event needs beyond key and value, in one Kafka record header.
//!
//! Encoded on the caller's thread but for the eight bytes of the version, which the committer fills in.
//! Format: `log/FORMAT.md`, "Header f".
#![deny(clippy::indexing_slicing)]

use super::{EventView, MarkView, varint::Cursor};
use crate::{
    ids::{EventId, StreamVersion},
    life::{Blank, Mark},
    record::{NewEvent, Snapshot},
};

/// Name of the header.
pub(crate) const NAME: &str = "f";
/// Length from which on a field's length stands in bytes of its own.
const LONG: u8 = 31;

/// Kinds of fields, the upper three bits of a field's first byte.
mod field {
    /// The record is no event but a mark, or a blank.
    pub(super) const MARK: u8 = 0;
    pub(super) const CONTENT_TYPE: u8 = 1;
    pub(super) const EVENT_ID: u8 = 2;
    pub(super) const CORRELATION_ID: u8 = 3;
    pub(super) const CAUSATION_ID: u8 = 4;
    pub(super) const SCHEMA: u8 = 5;
    pub(super) const ATTRIBUTE: u8 = 6;
    pub(super) const TAG: u8 = 7;
}

/// Appends the header's value, version left at 0: it lies at the front.
pub(crate) fn encode(out: &mut Vec<u8>, event: &NewEvent) {
    out.extend_from_slice(&[0; 8]);
    out.push(u8::try_from(event.kind.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(event.kind.as_bytes());
    let fields = [
        (field::CONTENT_TYPE, event.content_type.as_deref().map(str::as_bytes)),
        (field::EVENT_ID, event.event_id.as_ref().map(|id| id.as_bytes().as_slice())),
        (field::CORRELATION_ID, event.correlation_id.as_deref()),
        (field::CAUSATION_ID, event.causation_id.as_deref()),
        (field::SCHEMA, event.schema.as_deref().map(str::as_bytes)),
    ];
    for (kind, value) in fields {
        if let Some(value) = value {
            put(out, kind, &[value]);
        }
    }
    for tag in &event.tags {
        put(out, field::TAG, &[tag.as_str().as_bytes()]);
    }
    for (name, value) in &event.attributes {
        put_attribute(out, name, value);
    }
}

/// Name of the header in which a snapshot's data lies.
pub(crate) const SNAPSHOT: &str = "s";

/// What a mark says beside its kind, its version and who wanted it.
#[derive(Clone, Copy, Debug)]
pub enum MarkWith<'a> {
    /// Nothing.
    Nothing,
    /// The snapshot that it is.
    Snapshot(&'a Snapshot),
    /// Why it was wanted.
    Reason(&'a str),
}

/// Name of the attribute in which a mark's reason lies.
const REASON: &str = "reason";

/// Appends the header's value of a mark; its version is left at 0, as an event's is.
pub(crate) fn encode_mark(out: &mut Vec<u8>, mark: Mark, by: &str, with: MarkWith<'_>) {
    out.extend_from_slice(&[0; 9]);
    put(out, field::MARK, &[&[mark.code()], by.as_bytes()]);
    match with {
        MarkWith::Nothing => {}
        MarkWith::Snapshot(snapshot) => {
            for (kind, value) in [(field::CONTENT_TYPE, &snapshot.content_type), (field::SCHEMA, &snapshot.schema)] {
                if let Some(value) = value {
                    put(out, kind, &[value.as_bytes()]);
                }
            }
        }
        MarkWith::Reason(reason) => put_attribute(out, REASON, reason),
    }
}

fn put_attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = [u8::try_from(name.len()).unwrap_or(u8::MAX)];
    put(out, field::ATTRIBUTE, &[&length, name.as_bytes(), value.as_bytes()]);
}

/// Appends the header's value of what is left of an event: version, type and tags. None if `value` is no event's.
pub(crate) fn encode_blank(out: &mut Vec<u8>, value: &[u8], blank: Blank) -> Option<()> {
    let (event, _) = decode_any(value)?;
    out.extend_from_slice(value.get(..9 + event.kind.len())?);
    put(out, field::MARK, &[&[blank.code()]]);
    event.tags().for_each(|tag| put(out, field::TAG, &[tag.as_bytes()]));
    Some(())
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    match u8::try_from(length) {
        Ok(short) if short < LONG => out.push(kind << 5 | short),
        _ => {
            out.push(kind << 5 | LONG);
            super::varint::put_unsigned(out, length as u64);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Reads the header's value; none if it is not an event's that can be read.
pub(crate) fn decode(value: &[u8]) -> Option<EventView<'_>> {
    let (event, blank) = decode_any(value)?;
    (blank != Some(Blank::Removed)).then_some(event)
}

/// The same, also of an event that was removed; with what kind of blank it is.
pub(crate) fn decode_any(value: &[u8]) -> Option<(EventView<'_>, Option<Blank>)> {
    let mut blank = None;
    let mut cursor = Cursor::new(value);
    let version = StreamVersion::new(u64::from_be_bytes(cursor.array()?));
    let kind_len = cursor.byte()?;
    let kind = text(cursor.take(kind_len.into())?)?;
    let mut view = EventView {
        version,
        kind,
        content_type: None,
        event_id: None,
        correlation_id: None,
        causation_id: None,
        schema: None,
        tags: &[],
        attributes: &[],
        is_redacted: false,
    };
    while !cursor.is_empty() {
        let from = cursor.rest();
        let (kind, value) = take(&mut cursor)?;
        match kind {
            field::MARK => blank = Some(Blank::from_code(*value.first()?)?),
            field::CONTENT_TYPE => view.content_type = Some(text(value)?),
            field::EVENT_ID => view.event_id = Some(EventId::new(value.try_into().ok()?)),
            field::CORRELATION_ID => view.correlation_id = Some(value),
            field::CAUSATION_ID => view.causation_id = Some(value),
            field::SCHEMA => view.schema = Some(text(value)?),
            field::TAG => {
                text(value)?;
                if view.tags.is_empty() {
                    view.tags = from;
                }
            }
            field::ATTRIBUTE => {
                attribute(value)?;
                if view.attributes.is_empty() {
                    view.attributes = from;
                }
            }
            _ => {}
        }
    }
    view.is_redacted = blank == Some(Blank::Redacted);
    Some((view, blank))
}

/// Reads the header's value of a mark; none if it is not one.
pub(crate) fn decode_mark(value: &[u8]) -> Option<MarkView<'_>> {
    let mut cursor = Cursor::new(value);
    let version = StreamVersion::new(u64::from_be_bytes(cursor.array()?));
    let kind_len = cursor.byte()?;
    cursor.take(kind_len.into())?;
    let (mut said, mut content_type, mut schema, mut reason) = (None, None, None, None);
    while !cursor.is_empty() {
        let (kind, value) = take(&mut cursor)?;
        match kind {
            field::MARK => said = value.split_first(),
            field::CONTENT_TYPE => content_type = Some(text(value)?),
            field::SCHEMA => schema = Some(text(value)?),
            field::ATTRIBUTE => reason = reason.or(attribute(value).filter(|(name, _)| *name == REASON).map(|(_, reason)| reason)),
            _ => {}
        }
    }
    let (code, by) = said.filter(|(code, _)| Blank::from_code(**code) != Some(Blank::Redacted))?;
    Some(MarkView { mark: Mark::of(*code, version), by: text(by)?, content_type, schema, reason })
}

fn take<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let first = cursor.byte()?;
    let length = match first & LONG {
        LONG => usize::try_from(cursor.unsigned()?).ok()?,
        short => short.into(),
    };
    Some((first >> 5, cursor.take(length)?))
}

fn attribute(value: &[u8]) -> Option<(&str, &str)> {
    let mut cursor = Cursor::new(value);
    let key_len = cursor.byte()?;
    let key = text(cursor.take(key_len.into())?)?;
    Some((key, text(cursor.rest())?))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The attributes among encoded fields.
pub(crate) fn attributes(fields: &[u8]) -> impl Iterator<Item = (&str, &str)> + use<'_> {
    fields_of(fields, field::ATTRIBUTE).map_while(attribute)
}

/// The tags among encoded fields.
pub(crate) fn tags(fields: &[u8]) -> impl Iterator<Item = &str> + use<'_> {
    fields_of(fields, field::TAG).map_while(text)
}

fn fields_of(fields: &[u8], wanted: u8) -> impl Iterator<Item = &[u8]> + use<'_> {
    let mut cursor = Cursor::new(fields);
    std::iter::from_fn(move || take(&mut cursor)).filter(move |(kind, _)| *kind == wanted).map(|(_, value)| value)
}
