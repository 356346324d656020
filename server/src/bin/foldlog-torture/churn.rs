//! Topics that are created, altered, written to and deleted without end, under few names.
//!
//! Whatever the kill met: a topic whose deletion was acknowledged is gone, another one of its name has another id and nothing of it, and settings are
//! what they were altered to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use foldlog_proto::v1::{
    AlterTopicRequest, AppendRequest, Compression, CreateTopicRequest, DeleteTopicRequest, Durability, Event, ListTopicsRequest, Topic,
    TopicKind, Write, topics_client::TopicsClient,
};
use parking_lot::Mutex;
use prost::bytes::Bytes;
use tonic::{Code, Status, transport::Channel};

use crate::{
    check::Verdict,
    child::event_log,
    line::{number_of, payload},
    random::Random,
    removals::read_topic,
};

const NAMES: u64 = 3;
/// Producer of request ids, beside those of [`crate::line`].
const NUMBER: u128 = 1 << 32;

/// Id of a topic.
type Id = Bytes;

/// A topic that was created, and what was acknowledged in it: position and number.
#[derive(Clone, Debug)]
struct Made {
    topic: Topic,
    rows: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
enum Asked {
    Create(CreateTopicRequest),
    Alter(AlterTopicRequest),
    Append(AppendRequest, u64),
    Delete(String),
}

/// See the module.
#[derive(Debug)]
pub struct Churn {
    random: Random,
    /// All there ever were.
    made: BTreeMap<Id, Made>,
    /// Those that are there, by name.
    there: BTreeMap<String, Id>,
    asked: Option<Asked>,
    numbers: u64,
    turns: u64,
    altered: u64,
    deleted: u64,
    verdict: Verdict,
}

/// Which topics were there, and which had been deleted, at some time.
#[derive(Clone, Debug, Default)]
pub struct Then {
    there: BTreeSet<Id>,
    gone: BTreeSet<Id>,
}

/// Topics that are there, with the positions and numbers that were read of them.
pub type Found = Vec<(Topic, Vec<(u64, Option<u64>)>)>;

impl Churn {
    /// Nothing was asked yet.
    pub fn new(random: Random) -> Arc<Mutex<Self>> {
        let (made, there) = (BTreeMap::new(), BTreeMap::new());
        let churn = Self { random, made, there, asked: None, numbers: 0, turns: 0, altered: 0, deleted: 0, verdict: Verdict::default() };
        Arc::new(Mutex::new(churn))
    }

    /// How many alterations and deletions were acknowledged.
    pub const fn done(&self) -> (u64, u64) {
        (self.altered, self.deleted)
    }

    /// What was acknowledged by now.
    pub fn now(&self) -> Then {
        let there: BTreeSet<Id> = self.there.values().cloned().collect();
        let gone = self.made.keys().filter(|id| !there.contains(*id)).cloned().collect();
        Then { there, gone }
    }

    fn ask(&mut self) -> Asked {
        if let Some(asked) = &self.asked {
            return asked.clone();
        }
        let asked = self.next();
        self.asked = Some(asked.clone());
        asked
    }

    fn next(&mut self) -> Asked {
        let name = format!("churn-{}", self.random.below(NAMES));
        let Some(topic) = self.there.get(&name).and_then(|id| self.made.get(id)).map(|made| &made.topic) else {
            let partitions = u32::try_from(1 + self.random.below(3)).ok();
            return Asked::Create(CreateTopicRequest {
                name,
                kind: TopicKind::Records.into(),
                partitions,
                ..CreateTopicRequest::default()
            });
        };
        self.turns += 1;
        match self.turns % 10 {
            0 => Asked::Delete(name),
            1 if topic.partitions < 6 => {
                let partitions = Some(topic.partitions + 1);
                Asked::Alter(AlterTopicRequest { name, partitions, ..AlterTopicRequest::default() })
            }
            1 | 2 => {
                let all = [Compression::None, Compression::Lz4, Compression::Zstd];
                let others: Vec<_> = all.into_iter().filter(|one| i32::from(*one) != topic.compression).collect();
                let place = usize::try_from(self.random.below(others.len() as u64)).unwrap_or(0);
                let compression = others.get(place).copied().unwrap_or(Compression::None).into();
                Asked::Alter(AlterTopicRequest { name, compression, ..AlterTopicRequest::default() })
            }
            _ => {
                self.numbers += 1;
                let id = NUMBER << 64 | u128::from(self.numbers);
                let event = Event { data: Some(payload(self.numbers)), ..Event::default() };
                let partition = u32::try_from(self.random.below(topic.partitions.into())).ok();
                let request = AppendRequest {
                    topic: name,
                    request_id: id.to_be_bytes().to_vec().into(),
                    writes: vec![Write { partition, events: vec![event], ..Write::default() }],
                    durability: Durability::Synced.into(),
                    ..AppendRequest::default()
                };
                Asked::Append(request, self.numbers)
            }
        }
    }

    fn is(&mut self, topic: Topic) {
        self.there.insert(topic.name.clone(), topic.id.clone());
        let made = self.made.entry(topic.id.clone()).or_insert_with(|| Made { topic: topic.clone(), rows: BTreeMap::new() });
        made.topic = topic;
    }

    fn answered(&mut self, answer: Answer) {
        match (self.asked.take(), answer) {
            (Some(Asked::Create(_)), Answer::Topic(topic)) => {
                if self.made.contains_key(&topic.id) {
                    self.verdict.repeated(format!("a topic is created with the id of one that was deleted: {topic:?}"));
                }
                self.is(topic);
            }
            (Some(Asked::Alter(asked)), Answer::Topic(topic)) => {
                let is_done = asked.partitions.is_none_or(|partitions| partitions == topic.partitions)
                    && (asked.partitions.is_some() || asked.compression == topic.compression)
                    && self.there.get(&topic.name) == Some(&topic.id);
                if !is_done {
                    self.verdict.lost(format!("{asked:?} was answered with {topic:?}"));
                }
                self.altered += 1;
                self.is(topic);
            }
            (Some(Asked::Delete(name)), Answer::Deleted) => {
                self.there.remove(&name);
                self.deleted += 1;
            }
            (Some(Asked::Append(request, number)), Answer::At(position)) => {
                if let Some(made) = self.there.get(&request.topic).and_then(|id| self.made.get_mut(id)) {
                    made.rows.insert(position, number);
                }
            }
            (asked, _) => self.verdict.gap(format!("{asked:?} was answered with something else")),
        }
    }

    /// What there is to object to since the last call.
    pub fn take_verdict(&mut self) -> Verdict {
        std::mem::take(&mut self.verdict)
    }

    /// Checks what is there against what was acknowledged.
    pub fn check(&self, found: &Found) -> Verdict {
        let mut verdict = Verdict::default();
        for (topic, rows) in found {
            let made = self.there.get(&topic.name).and_then(|id| self.made.get(id));
            if made.map(|made| &made.topic) != Some(topic) {
                verdict.repeated(format!("{topic:?} is there, and should be {made:?}"));
            }
            self.compare(&mut verdict, topic, rows, u64::MAX);
        }
        for name in self.there.keys().filter(|name| found.iter().all(|(topic, _)| topic.name != **name)) {
            verdict.lost(format!("topic {name}, which nobody deleted"));
        }
        verdict
    }

    /// Checks what a log has that ends at a position, and that knows at least of what was acknowledged then.
    pub fn check_then(&self, found: &Found, then: &Then, end: u64) -> Verdict {
        let mut verdict = Verdict::default();
        for (topic, rows) in found {
            if then.gone.contains(&topic.id) || !self.made.contains_key(&topic.id) {
                verdict.repeated(format!("{topic:?}, which was deleted before"));
            }
            self.compare(&mut verdict, topic, rows, end);
        }
        let is_there = |id: &Id| found.iter().any(|(topic, _)| topic.id == *id);
        for id in then.there.iter().filter(|id| self.there.values().any(|there| there == *id) && !is_there(id)) {
            verdict.lost(format!("topic {:?}, which nobody deleted", self.made.get(id)));
        }
        verdict
    }

    fn compare(&self, verdict: &mut Verdict, topic: &Topic, rows: &[(u64, Option<u64>)], end: u64) {
        let Some(made) = self.made.get(&topic.id) else { return };
        let wanted: Vec<_> = made.rows.range(..end).map(|(position, number)| (*position, Some(*number))).collect();
        if wanted != rows {
            let differs = wanted.iter().zip(rows).find(|(wanted, row)| wanted != row);
            let (name, has) = (&topic.name, (wanted.len(), rows.len()));
            verdict.lost(format!("topic {name} should have as many records as the first of {has:?} says; they differ in {differs:?}"));
        }
    }
}

enum Answer {
    Topic(Topic),
    Deleted,
    At(u64),
}

async fn send(channel: &Channel, asked: Asked) -> Result<Answer, Status> {
    let mut topics = TopicsClient::new(channel.clone());
    Ok(match asked {
        Asked::Create(request) => Answer::Topic(topics.create(request).await?.into_inner()),
        Asked::Alter(request) => Answer::Topic(topics.alter(request).await?.into_inner()),
        Asked::Append(request, _) => Answer::At(event_log(channel.clone()).append(request).await?.into_inner().first_position),
        Asked::Delete(name) => topics.delete(DeleteTopicRequest { name }).await.map(|_| Answer::Deleted)?,
    })
}

/// Goes on until an answer stays out.
pub async fn run(churn: Arc<Mutex<Churn>>, channel: Channel) -> anyhow::Result<()> {
    loop {
        let asked = churn.lock().ask();
        let Ok(answer) = send(&channel, asked).await else { return Ok(()) };
        churn.lock().answered(answer);
    }
}

/// Asks again for what was never answered, until there is an answer; whether there was something.
pub async fn ask_again(churn: &Mutex<Churn>, channel: &Channel) -> anyhow::Result<bool> {
    let asked = churn.lock().asked.clone();
    let Some(asked) = asked else { return Ok(false) };
    let mut failed = None;
    for _ in 0..50 {
        match (send(channel, asked.clone()).await, &asked) {
            (Ok(answer), _) => churn.lock().answered(answer),
            // It was done before the kill.
            (Err(status), Asked::Delete(_)) if status.code() == Code::NotFound => churn.lock().answered(Answer::Deleted),
            (Err(status), _) => {
                failed = Some(status);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        }
        return Ok(true);
    }
    failed.map_or(Ok(false), Err).with_context(|| format!("{asked:?} gets no answer"))
}

/// What there is.
pub async fn found(channel: &Channel) -> anyhow::Result<Found> {
    let topics = TopicsClient::new(channel.clone()).list(ListTopicsRequest::default()).await.context("cannot list topics")?;
    let mut found = Found::new();
    for topic in topics.into_inner().topics.into_iter().filter(|topic| topic.name.starts_with("churn-")) {
        let mut rows = Vec::new();
        for record in read_topic(channel, &topic.name).await? {
            let data = record.event.and_then(|event| event.data);
            rows.push((record.position, data.map(|data| number_of(&data)).transpose()?));
        }
        found.push((topic, rows));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, id: u8) -> Topic {
        Topic { name: name.to_owned(), id: vec![id; 16].into(), partitions: 1, ..Topic::default() }
    }

    /// `a` was deleted and made again, `b` has two records.
    fn sample() -> (Churn, Found) {
        let churn = Churn::new(Random::new(1));
        let mut churn = Arc::into_inner(churn).unwrap().into_inner();
        let mut says = |asked, answer| {
            churn.asked = Some(asked);
            churn.answered(answer);
        };
        let append = |name: &str, number| Asked::Append(AppendRequest { topic: name.to_owned(), ..AppendRequest::default() }, number);
        says(Asked::Create(CreateTopicRequest::default()), Answer::Topic(topic("a", 1)));
        says(append("a", 1), Answer::At(5));
        says(Asked::Delete("a".to_owned()), Answer::Deleted);
        says(Asked::Create(CreateTopicRequest::default()), Answer::Topic(topic("b", 2)));
        says(append("b", 2), Answer::At(6));
        says(append("b", 3), Answer::At(9));
        says(Asked::Create(CreateTopicRequest::default()), Answer::Topic(topic("a", 3)));
        assert_eq!((churn.take_verdict(), churn.done()), (Verdict::default(), (0, 1)));
        (churn, vec![(topic("a", 3), Vec::new()), (topic("b", 2), vec![(6, Some(2)), (9, Some(3))])])
    }

    #[test]
    fn what_is_there_is_what_was_acknowledged() {
        let (churn, found) = sample();
        assert_eq!(churn.check(&found), Verdict::default());
        for corrupt in [
            |found: &mut Found| found[0].0.id = vec![1; 16].into(),
            |found: &mut Found| found[0].0.partitions = 2,
            |found: &mut Found| found[0].1.push((5, Some(1))),
            |found: &mut Found| found[1].1.truncate(1),
            |found: &mut Found| found[1].1[0].1 = Some(9),
            |found: &mut Found| found.truncate(1),
            |found: &mut Found| found.push((topic("c", 4), Vec::new())),
        ] {
            let mut found = found.clone();
            corrupt(&mut found);
            assert!(!churn.check(&found).is_clean(), "{found:?}");
        }
    }

    #[test]
    fn a_log_of_before_has_what_was_there_then() {
        let (churn, found) = sample();
        let then = churn.now();
        assert_eq!(churn.check_then(&found, &then, 99), Verdict::default());
        let mut before = found.clone();
        before[1].1.truncate(1);
        assert_eq!(churn.check_then(&before, &then, 9), Verdict::default());
        assert_eq!(churn.check_then(&before, &then, 10).lost, 1);
        assert_eq!(churn.check_then(&found[..1].to_vec(), &then, 99).lost, 1);
        let deleted = vec![(topic("a", 1), vec![(5, Some(1))]), found[1].clone()];
        assert_eq!(churn.check_then(&deleted, &Then::default(), 99), Verdict::default(), "nobody had deleted it by then");
        assert!(churn.check_then(&deleted, &then, 99).repeated > 0);
    }

    #[test]
    fn an_id_that_is_given_again_and_an_alteration_that_was_not_done_are_objected_to() {
        let (mut churn, _) = sample();
        churn.asked = Some(Asked::Create(CreateTopicRequest::default()));
        churn.answered(Answer::Topic(topic("a", 1)));
        assert_eq!(churn.take_verdict().repeated, 1);
        churn.asked = Some(Asked::Alter(AlterTopicRequest { partitions: Some(2), ..AlterTopicRequest::default() }));
        churn.answered(Answer::Topic(topic("b", 2)));
        assert_eq!(churn.take_verdict().lost, 1);
    }
}
