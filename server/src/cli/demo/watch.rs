//! The view that changes before the eyes: a push query over `airport_board`, and beside it the progress bar.
//!
//! A task takes what is pushed and notes when; on a terminal it also shows the airports as they stand. It ends when everything
//! appended has been pushed, or with the demo.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use foldlog_sdk::{Client, Pushed, Row, Value};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::data::FlightEvent;

const WATCH: &str = "SELECT origin, day, departed, arrived, cancelled, diverted, longest_wait FROM airport_board EMIT CHANGES";
const AIRPORTS: [&str; 3] = ["EWR", "JFK", "LGA"];
/// How long the last change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the view had reached a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// When its changes arrived.
    pub at: Instant,
    /// Exclusive end of what they complete.
    pub position: u64,
}

/// The push query under way. Dropping it ends it.
pub(super) struct Watched {
    task: JoinSet<anyhow::Result<Vec<Shown>>>,
    end: watch::Sender<Option<u64>>,
    bar: ProgressBar,
    board: Board,
}

/// One line an airport below the progress bar; nothing without a terminal.
#[derive(Clone)]
struct Board {
    lines: BTreeMap<String, Line>,
}

/// An airport on its newest day.
#[derive(Clone)]
struct Line {
    day: String,
    bar: ProgressBar,
}

/// Starts to watch.
pub(super) async fn start(client: &Client) -> anyhow::Result<Watched> {
    let pushed = client.push(WATCH).start().await.context("cannot watch the view")?;
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let bar = bars.add(ProgressBar::new(0).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} events  {msg}")?));
    let mut lines = BTreeMap::new();
    for airport in AIRPORTS {
        let bar = bars.add(ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg}")?));
        lines.insert(airport.to_owned(), Line { day: String::new(), bar });
    }
    let board = Board { lines };
    let (end, told_end) = watch::channel(None);
    let mut task = JoinSet::new();
    task.spawn(follow(pushed, told_end, board.clone()));
    Ok(Watched { task, end, bar, board })
}

impl Watched {
    /// Shows how far the replay is: events appended, of how many, and which were the last.
    pub(super) fn progress(&self, appended: usize, of: usize, last: &[FlightEvent]) {
        self.bar.set_length(of as u64);
        self.bar.set_position(appended as u64);
        if let Some(event) = last.last() {
            self.bar.set_message(format!("{} UTC", time_of_day(event.time_ms)));
        }
    }

    /// Waits until everything below `end` has been pushed, and returns what was shown when.
    pub(super) async fn stop_after(mut self, end: u64) -> anyhow::Result<Vec<Shown>> {
        self.end.send_replace(Some(end));
        let joined = tokio::time::timeout(PATIENCE, self.task.join_next()).await.context("the view does not catch up")?;
        let shown = joined.context("the watching task is gone")?.context("the watching task failed")?;
        self.bar.finish_and_clear();
        self.board.clear();
        shown
    }
}

async fn follow(mut pushed: Pushed, mut end: watch::Receiver<Option<u64>>, mut board: Board) -> anyhow::Result<Vec<Shown>> {
    let mut shown: Vec<Shown> = Vec::new();
    loop {
        let reached = shown.last().map_or(0, |shown| shown.position);
        if end.borrow_and_update().is_some_and(|end| reached >= end) {
            return Ok(shown);
        }
        let changes = tokio::select! {
            biased;
            Ok(()) = end.changed() => continue,
            changes = pushed.next() => changes.context("the push query broke off")?,
        };
        let Some(changes) = changes else { bail!("the push query ended by itself") };
        shown.push(Shown { at: Instant::now(), position: changes.position });
        for (mark, row) in &changes.rows {
            if mark.is_present() {
                board.show(row);
            }
        }
    }
}

impl Board {
    fn show(&mut self, row: &Row) {
        let text = |name: &str| match row.get(name) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Integer(number)) => number.to_string(),
            _ => "-".to_owned(),
        };
        let (airport, day) = (text("origin"), text("day"));
        // A flight of yesterday may still land: its row changes too, but it is not today's.
        let Some(line) = self.lines.get_mut(&airport).filter(|line| line.day <= day) else { return };
        line.bar.set_message(format!(
            "{airport} {}  departed {:>3}  arrived {:>3}  cancelled {:>3}  diverted {}  wait {} min",
            day.get(5..).unwrap_or_default(),
            text("departed"),
            text("arrived"),
            text("cancelled"),
            text("diverted"),
            text("longest_wait")
        ));
        line.day = day;
    }

    fn clear(&self) {
        for line in self.lines.values() {
            line.bar.finish_and_clear();
        }
    }
}

/// `2013-02-08 17:05` without the year: day and time.
fn time_of_day(time_ms: i64) -> String {
    let minutes = time_ms.div_euclid(60_000);
    format!("{:02}:{:02}", minutes.div_euclid(60).rem_euclid(24), minutes.rem_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_is_utc() {
        assert_eq!(time_of_day(1_360_058_400_000), "10:00");
        assert_eq!(time_of_day(1_360_058_400_000 + 61_000), "10:01");
    }
}
