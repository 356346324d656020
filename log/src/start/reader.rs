//! A frame of the journal, decoded once: its group, what its records say of streams, and what they are posted under.
//!
//! [`Replay`](super::replay::Replay) reads frames ahead with it. Invariant: it finds in the records what admission knew when it
//! wrote them; nothing is changed but the offsets that are next.

use hashbrown::HashMap;

use crate::{
    batch::{Said, StoredRecords},
    error::LogError,
    ids::{Offset, TopicId},
    journal::{frame::FrameBody, recovery::Accepted},
    partition::{
        group::{Group, Slice, SliceRun},
        streams::{StreamKey, StreamMark, StreamSpan},
    },
    postings::{Poster, Posting},
    segment::StreamHasher,
    topic::TopicKind,
    topic_store::TopicStore,
};

/// A frame, ready to be folded: its group is unloaded, since tidy goes on with it before long, and nobody may ask for it.
pub(super) struct ReadFrame {
    pub(super) accepted: Accepted,
    pub(super) group: Group,
    /// Of each key in order of position.
    pub(super) postings: Vec<Posting>,
}

/// Reads one frame after another.
pub(super) struct FrameReader<'a> {
    topics: &'a TopicStore,
    hasher: &'a StreamHasher,
    /// Next offset by index of the partition.
    offsets: &'a mut [Offset],
    /// Spans of the frame that is read.
    spans: Vec<StreamSpan>,
}

impl<'a> FrameReader<'a> {
    pub(super) const fn new(topics: &'a TopicStore, hasher: &'a StreamHasher, offsets: &'a mut [Offset]) -> Self {
        Self { topics, hasher, offsets, spans: Vec::new() }
    }

    /// # Errors
    /// [`LogError::Corrupt`] where the frame contradicts the ones before or itself.
    pub(super) fn read(&mut self, accepted: Accepted, body: FrameBody) -> Result<ReadFrame, LogError> {
        let mut missing = None;
        let group = Group::from_frame(&accepted.header, accepted.place, body, |topic, partition| {
            let partition = self.topics.partition(topic, partition);
            if partition.is_none() {
                missing = Some(topic);
            }
            partition
        });
        if let Some(topic) = missing {
            return Err(self.topics.missing(topic));
        }
        let mut group = group.ok_or_else(|| accepted.damage("its tables contradict each other"))?;
        for slice in &group.slices {
            let next = &mut self.offsets[slice.partition.index];
            if slice.base != *next {
                return Err(accepted.damage("its offsets do not follow on those before"));
            }
            *next = slice.end();
        }
        let postings = self.follow(&mut group).ok_or_else(|| accepted.damage("its records cannot be followed"))?;
        Ok(ReadFrame { accepted, group: group.unloaded(), postings })
    }

    /// Gives a group its spans and marks, and finds its postings: record by record in order of position, as admission did.
    fn follow(&mut self, group: &mut Group) -> Option<Vec<Posting>> {
        let mut posters: HashMap<TopicId, Poster<'a>> = HashMap::new();
        self.spans.clear();
        for (slice, run) in &group.order {
            let slice = group.slices.get(*slice as usize)?;
            let topic = &slice.partition.topic;
            if topic.settings.kind != TopicKind::Events || slice.partition.is_gone() {
                continue;
            }
            let run = slice.runs.get(*run as usize)?;
            let poster = posters.entry(topic.id).or_insert_with(|| Poster::new(self.hasher, topic.id));
            follow_run(self.hasher, slice, run, poster, &mut self.spans, &mut group.marks)?;
        }
        group.spans = self.spans.as_slice().into();
        Some(posters.into_values().flat_map(Poster::finish).collect())
    }
}

/// Takes up what the records of a run say. A span lies within one run, so that its positions follow each other.
fn follow_run(
    hasher: &StreamHasher,
    slice: &Slice,
    run: &SliceRun,
    poster: &mut Poster<'_>,
    spans: &mut Vec<StreamSpan>,
    marks: &mut Vec<StreamMark>,
) -> Option<()> {
    let before = spans.len();
    let mut last_name: &[u8] = &[];
    let mut records = StoredRecords::from(&slice.batch, run.start as usize).ok()?;
    for place in 0..u64::from(run.count) {
        let record = records.next()?.ok()?;
        (record.offset == run.first_offset.plus(place)).then_some(())?;
        let name = record.key?;
        match record.said()? {
            Said::Event(event) => {
                poster.post(run.first_position.plus(place).get(), event.kind, event.tags());
                let of_run = spans.get_mut(before..)?.last_mut();
                match of_run.filter(|span| name == last_name && span.last_version().plus(1) == event.version) {
                    Some(span) => span.count += 1,
                    None => spans.push(StreamSpan {
                        key: StreamKey::of(hasher, &slice.partition, name),
                        first_version: event.version,
                        offset: record.offset,
                        count: 1,
                        start: u32::try_from(record.start).ok()?,
                    }),
                }
                last_name = name;
            }
            Said::Mark(mark) => {
                marks.push(StreamMark::of(StreamKey::of(hasher, &slice.partition, name), mark, record.offset));
                last_name = &[];
            }
        }
    }
    Some(())
}
