//! Goals of what does not grow with the log: the cost of an event (FLAT) and the journal (JOURNAL).

use anyhow::Context as _;

use crate::{
    bench::{Bench, Subject},
    load::{self, median},
    report::{Bound, Report},
};

/// Events of a window in which processor time is measured.
const WINDOW: u64 = 400_000;
/// Events before a window of the young server, and before the first of the old one.
const EARLY: u64 = 10_000;
const LATE: u64 = 5_000_000;
/// Most that the journal may take, in MiB: its first file and a pool of 256, however much went through it.
const JOURNAL: f64 = 272.0;
/// Pairs of windows; the median of their ratios counts.
const PAIRS: u64 = 5;

/// Goals of [`goals`].
pub const NAMES: [&str; 2] = ["FLAT", "JOURNAL"];

/// Whether an event costs the same after 5 million as after 10 thousand: appended, folded into the view, copied into segments,
/// all counted. Windows of a server that has 5 million events and of new ones that have 10 thousand take turns, so that what the
/// machine does to one it does to the other.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut old = prepared(bench, "flat-old".to_owned(), LATE).await?;
    let (mut early, mut late, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut journal_early = 0.0;
    for pair in 0..PAIRS {
        let mut young = prepared(bench, format!("flat-young-{pair}"), EARLY).await?;
        let first = window(&young, EARLY).await?;
        journal_early = journal_mebibytes(&young)?;
        young.server.kill()?;
        std::fs::remove_dir_all(&young.data).context("cannot remove the data of a server that has ended")?;
        let last = window(&old, LATE + pair * WINDOW).await?;
        ratios.push(last / first);
        early.push(first);
        late.push(last);
    }
    let journal_late = journal_mebibytes(&old)?;
    old.server.kill()?;
    let (least, most) = ratios.iter().fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
    let what = format!(
        "processor time of an event after 5M events over that after 10k: {:.0} ns over {:.0} ns, append and view together, \
         median of {PAIRS} pairs of windows of 400k, {least:.2} to {most:.2}",
        median(late),
        median(early)
    );
    report.goal("FLAT", Bound::Ratio(median(ratios), 1.2), None, &what);
    let what = format!("files of the journal after 7M events, {journal_early:.0}MiB after 0.4M; the bound of its pool");
    report.goal("JOURNAL", Bound::Mebibytes(journal_late, JOURNAL), None, &what);
    Ok(())
}

/// A server with so many events, folded into the view, and nothing left to do.
async fn prepared(bench: &Bench, name: String, events: u64) -> anyhow::Result<Subject> {
    let subject = bench.subject(&name, Vec::new()).await?;
    subject.declare().await?;
    subject.create_view().await?;
    load::fill(&subject.server.url(), 0, events).await?;
    subject.view_caught_up().await?;
    subject.at_rest().await?;
    Ok(subject)
}

/// Nanoseconds of processor time an event, with everything that follows from it.
async fn window(subject: &Subject, from: u64) -> anyhow::Result<f64> {
    let before = subject.cpu()?;
    load::fill(&subject.server.url(), from, from + WINDOW).await?;
    subject.view_caught_up().await?;
    subject.at_rest().await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    let events = WINDOW as f64;
    Ok(subject.cpu()?.saturating_sub(before).as_secs_f64() * 1e9 / events)
}

#[expect(clippy::cast_precision_loss, reason = "a size")]
fn journal_mebibytes(subject: &Subject) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(subject.data.join("journal")).context("cannot list the journal")? {
        bytes += entry?.metadata()?.len();
    }
    Ok((bytes >> 20) as f64)
}
