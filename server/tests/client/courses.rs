//! Two courses and the students who run for them: decisions on events of several streams, kept safe by a filtered read and an append
//! that holds if nothing that matches came since.

use std::collections::BTreeMap;

use foldlog_sdk::{Client, Error, EventQuery, NewEvent, Source, TopicKind};
use tokio::task::JoinSet;

use crate::support::Server;

const STUDENTS: usize = 12;
const COURSES: usize = 5;
/// Students that fit into a course.
const CAPACITY: usize = 4;
/// Courses that a student may take.
const LOAD: usize = 2;

/// What was decided for a student who wants a course.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Subscribed,
    CourseIsFull,
    StudentHasEnough,
}

/// All that the decision rests on: who subscribed to the course, and to what the student did.
fn context(course: &str, student: &str) -> EventQuery {
    EventQuery::of(["Subscribed"], [course]).or(["Subscribed"], [student])
}

/// Reads, decides, appends; again if something that matters came between. Tells also how often.
async fn subscribe(client: &Client, course: &str, student: &str) -> Result<(Decision, usize), Error> {
    for tries in 1.. {
        let mut reading = client.read(Source::topic("courses")).matching(context(course, student)).start().await?;
        let (mut taken, mut load) = (0, 0);
        while let Some(event) = reading.next().await? {
            taken += usize::from(event.tags.iter().any(|tag| tag == course));
            load += usize::from(event.tags.iter().any(|tag| tag == student));
        }
        if load >= LOAD {
            return Ok((Decision::StudentHasEnough, tries));
        }
        if taken >= CAPACITY {
            return Ok((Decision::CourseIsFull, tries));
        }
        let event = NewEvent::new("Subscribed", "{}").tagged([course, student]);
        let append = client.append("courses").absent(context(course, student), reading.seen());
        match append.event(format!("{student}-{course}"), event).send().await {
            Ok(_) => return Ok((Decision::Subscribed, tries)),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("it tries for ever")
}

#[tokio::test]
async fn no_course_is_overbooked_and_no_student_overloaded_whoever_races() {
    let server = Server::start();
    let client = Client::connect(&server.url).await.unwrap();
    client.create_topic("courses", TopicKind::Events, Some(4)).await.unwrap();
    // Other events between them, which are nobody's business here.
    let noise = (0..1500).map(|number| NewEvent::new("Noted", "{}").tagged([format!("note:{number}")]));
    client.append("courses").events("notes", noise).send().await.unwrap();
    let mut racing = JoinSet::new();
    for student in 0..STUDENTS {
        let client = client.clone();
        racing.spawn(async move {
            let mut decided = Vec::new();
            for turn in 0..COURSES {
                // All begin with the same course.
                let course = format!("course:{}", if turn < 2 { turn } else { (turn + student) % COURSES });
                decided.push(subscribe(&client, &course, &format!("student:{student}")).await.unwrap());
            }
            decided
        });
    }
    let decided: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
    let count = |wanted: Decision| decided.iter().filter(|(decision, _)| *decision == wanted).count();

    let all = client.read(Source::all()).matching(EventQuery::of(["Subscribed"], Vec::<String>::new())).start().await.unwrap();
    let mut by_tag = BTreeMap::<String, usize>::new();
    let all = all.collect().await.unwrap();
    for tag in all.iter().flat_map(|event| &event.tags) {
        *by_tag.entry(tag.clone()).or_default() += 1;
    }
    for (tag, count) in &by_tag {
        let most = if tag.starts_with("course") { CAPACITY } else { LOAD };
        assert!(*count <= most, "{tag}: {count}");
    }
    assert_eq!(by_tag["course:0"], CAPACITY, "nobody was turned away without need");
    assert_eq!(all.len(), count(Decision::Subscribed));
    assert!(count(Decision::CourseIsFull) > 0 && count(Decision::StudentHasEnough) > 0, "{decided:?}");
    let tries: usize = decided.iter().map(|(_, tries)| tries).sum();
    assert!(tries > decided.len(), "they did race");
    // The position that a read tells is good for an append also when nothing matched, or when it went backwards.
    for backwards in [false, true] {
        let nothing = EventQuery::of(["Graduated"], ["student:0"]);
        let mut read = client.read(Source::topic("courses")).matching(nothing.clone());
        if backwards {
            read = read.backwards();
        }
        let mut reading = read.start().await.unwrap();
        assert_eq!((reading.next().await.unwrap(), reading.seen().is_some()), (None, true));
        client.append("courses").absent(nothing, reading.seen()).event("x", NewEvent::new("Noted", "{}")).send().await.unwrap();
    }
}

#[tokio::test]
async fn a_filtered_subscription_delivers_what_matches_of_past_and_present() {
    let server = Server::start();
    let client = Client::connect(&server.url).await.unwrap();
    client.create_topic("t", TopicKind::Events, Some(2)).await.unwrap();
    let put = async |number: u32| {
        let event = NewEvent::json("Counted", &number).unwrap().tagged([if number.is_multiple_of(4) { "four" } else { "other" }]);
        client.append("t").event(format!("s{}", number % 3), event).send().await.unwrap();
    };
    for number in 0..20 {
        put(number).await;
    }
    let fours = EventQuery::of(["Counted"], ["four"]);
    let mut subscription = client.subscribe(Source::topic("t")).matching(fours).start().await.unwrap();
    let mut found = Vec::new();
    for number in 20..40 {
        put(number).await;
    }
    while found.len() < 10 {
        let event = tokio::time::timeout(std::time::Duration::from_secs(30), subscription.next_event()).await.unwrap().unwrap();
        found.push(serde_json::from_slice::<u32>(&event.data.unwrap()).unwrap());
    }
    assert_eq!(found, (0..40).step_by(4).collect::<Vec<_>>());
}
