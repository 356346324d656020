//! Goal of many who follow one view: FANOUT, every change to each of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use foldlog_proto::v1::{ChangeMark, QueryRequest, Rows, column_values::Values, query_batch, query_client::QueryClient};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    bench::{Bench, Subject},
    child::{connect, event_log},
    load,
    report::{Bound, Report, short},
};

/// Goals of [`goals`].
pub const NAMES: [&str; 1] = ["FANOUT"];

/// Who follows, over so many connections.
const FOLLOWERS: usize = 1_000;
const CONNECTIONS: usize = 20;
/// Events of one append, each to another account of as many.
const EVENTS: u64 = 100;
/// Appends that followers may be behind before the next one is sent.
const AHEAD: u64 = 4;

/// Measures how many changed rows followers get in all.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("fanout", Vec::new()).await?;
    subject.declare().await?;
    subject.create_view().await?;
    let (fed, feed) = watch::channel(0);
    let reached = Arc::new(Reached::default());
    let mut followers = JoinSet::new();
    let url = subject.server.url();
    for _ in 0..CONNECTIONS {
        let channel = connect(&url).await?;
        for _ in 0..FOLLOWERS / CONNECTIONS {
            followers.spawn(follow(channel.clone(), feed.clone(), Arc::clone(&reached)));
        }
    }
    while reached.following.load(Ordering::Relaxed) < FOLLOWERS as u64 {
        anyhow::ensure!(followers.try_join_next().is_none(), "a follower ended at once");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    subject.at_rest().await?;
    let (began, before) = (Instant::now(), subject.cpu()?);
    let appends = feed_all(&subject, bench, &reached).await?;
    let last = subject.head().await?.position;
    fed.send_replace(last);
    let (mut rows, mut states) = (0, Vec::new());
    while let Some(followed) = followers.join_next().await {
        let (count, state) = followed.context("a follower failed")??;
        rows += count;
        states.push(state);
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), subject.cpu()?.saturating_sub(before).as_secs_f64());
    let events = i64::try_from(appends * EVENTS)?;
    for state in &states {
        anyhow::ensure!(state.values().sum::<i64>() == events, "a follower knows of {} of {events} events", state.values().sum::<i64>());
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    let rows = rows as f64;
    let what = format!(
        "changed rows in all that {FOLLOWERS} followers of one view get, every change to each; {} appends of {EVENTS} events in {took:.1} s, \
         {:.0} ns of processor time a row",
        appends,
        cpu * 1e9 / rows
    );
    report.goal("FANOUT", Bound::Rate(rows / took, 500e3), None, &format!("{what}, {} rows", short(rows)));
    subject.server.kill()
}

/// How far followers are.
#[derive(Default)]
struct Reached {
    /// Who has the view's first answer.
    following: AtomicU64,
    /// Messages of changes that were taken by all of them.
    taken: AtomicU64,
}

/// Appends for the time of a loop, at the pace of who follows.
async fn feed_all(subject: &Subject, bench: &Bench, reached: &Reached) -> anyhow::Result<u64> {
    let mut client = event_log(subject.channel.clone());
    let (began, mut appends) = (Instant::now(), 0);
    while began.elapsed() < 2 * bench.time {
        // Where followers do not keep up, several appends are one change: so many messages are the least that is taken of each.
        while appends > AHEAD + reached.taken.load(Ordering::Relaxed) / FOLLOWERS as u64 {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            if began.elapsed() > 3 * bench.time {
                break;
            }
        }
        client.append(load::entries(0, EVENTS)).await.context("an append failed")?;
        appends += 1;
    }
    Ok(appends)
}

/// Follows the view until it is complete up to the position that is told in the end: how many changed rows came, and what they left.
async fn follow(channel: Channel, mut feed: watch::Receiver<u64>, reached: Arc<Reached>) -> anyhow::Result<(u64, HashMap<String, i64>)> {
    let request = QueryRequest { sql: "SELECT account, entries, total FROM totals EMIT CHANGES".to_owned(), ..QueryRequest::default() };
    let mut client = QueryClient::new(channel).max_decoding_message_size(16 << 20);
    let mut batches = client.push(request).await?.into_inner();
    let (mut changed, mut state, mut at, mut last) = (0, HashMap::new(), 0, 0);
    let mut is_following = false;
    while last == 0 || at < last {
        let batch = tokio::select! {
            batch = batches.message() => batch?.context("the push query ended")?,
            told = feed.changed() => {
                told?;
                last = *feed.borrow_and_update();
                continue;
            }
        };
        match batch.message {
            Some(query_batch::Message::Rows(rows)) => {
                at = rows.position;
                changed += apply(&rows, &mut state)?;
                reached.taken.fetch_add(1, Ordering::Relaxed);
            }
            Some(query_batch::Message::Progress(progress)) => at = progress.position,
            Some(query_batch::Message::Schema(_) | query_batch::Message::Done(_)) | None => {}
        }
        if !is_following {
            is_following = true;
            reached.following.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok((changed, state))
}

/// Notes what rows are after a change; how many those are.
fn apply(rows: &Rows, state: &mut HashMap<String, i64>) -> anyhow::Result<u64> {
    let [accounts, entries, _] = rows.columns.as_slice() else { anyhow::bail!("three columns were asked for") };
    let (Some(Values::Texts(accounts)), Some(Values::Integers(entries))) = (&accounts.values, &entries.values) else {
        anyhow::bail!("an account and a count were asked for");
    };
    let mut changed = 0;
    for ((account, entries), mark) in accounts.values.iter().zip(&entries.values).zip(&rows.marks) {
        if [ChangeMark::Insert as u8, ChangeMark::UpdateAfter as u8].contains(mark) {
            changed += 1;
            match state.get_mut(account) {
                Some(known) => *known = *entries,
                None => drop(state.insert(account.clone(), *entries)),
            }
        }
    }
    Ok(changed)
}
