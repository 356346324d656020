//! One cycle: load, kill, perhaps kill again while it starts, start, ask again what was left open, check everything.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{
    backups::{self, Backups, Before, Restored},
    check::{self, Output, Seen, Verdict, ViewAt},
    child::{self, Server, Start},
    client,
    deliveries::Deliveries,
    kill::{self, Moment, Plan},
    ledger::{Ledger, State},
    members::{self, Manner},
    random::Random,
    removals::{Gone, Removals},
    sessions::{self, SessionWriter},
    writer::{Load, Writer},
};

/// How long a server may take to answer after a kill, and the load to show.
const PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledged operations without which a cycle has shown nothing.
const ENOUGH_ACKED: u64 = 20;

/// The same of appends to topics from which something goes, so that segments fill.
const ENOUGH_WRITTEN: u64 = 45;

/// Settings of the server, by the names of their environment variables.
pub type Settings = &'static [(&'static str, &'static str)];

/// A run of cycles over one data folder.
pub struct Torture {
    folder: PathBuf,
    settings: Settings,
    foldlog: PathBuf,
    random: Random,
    strace: bool,
    writers: u64,
    ledger: Arc<Mutex<Ledger>>,
    deliveries: Arc<Mutex<Deliveries>>,
    removals: Removals,
    backups: Backups,
    server: Server,
    channel: Channel,
    /// Every event, as the last check read it.
    events: Vec<Seen>,
    outputs: usize,
    kills: Kills,
    restored: u64,
}

/// How often the server was killed, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kills {
    random: u64,
    at_ack: u64,
    at_call: u64,
    at_start: u64,
    call_not_met: u64,
}

/// What one cycle showed.
#[derive(Debug)]
pub struct Report {
    moment: Moment,
    met: bool,
    acked: u64,
    settled: u64,
    committed: usize,
    gone: Gone,
    starts: Vec<String>,
    asked_again: usize,
    back_after: Duration,
    events: usize,
    /// What the checks object to.
    pub verdict: Verdict,
}

/// What the tasks beside the writers saw before the kill.
struct Shown {
    outputs: Vec<Output>,
    view: Option<ViewAt>,
    acked: u64,
    /// Whether the kill came at the planned moment.
    met: bool,
}

impl Torture {
    /// Starts the first server and prepares topics and queries.
    pub async fn begin(folder: &Path, settings: Settings, seed: u64, writers: u64, strace: bool) -> anyhow::Result<Self> {
        let foldlog = child::foldlog()?;
        let backups = Backups::new(folder)?;
        let mut server = Server::start(&start(folder, settings, vec![foldlog.clone().into()]))?;
        let channel = server.answers(PATIENCE).await?;
        client::prepare(&channel).await?;
        members::prepare(&channel, client::EVENTS).await?;
        let deliveries = Arc::new(Mutex::new(Deliveries::default()));
        let ledger = Arc::new(Mutex::new(Ledger::create(&folder.join("ledger"))?));
        let folder = folder.to_owned();
        let mut random = Random::new(seed);
        let removals = Removals::prepare(&channel, &mut random).await?;
        Ok(Self {
            folder,
            settings,
            foldlog,
            random,
            strace,
            writers,
            ledger,
            deliveries,
            removals,
            backups,
            server,
            channel,
            events: Vec::new(),
            outputs: 0,
            kills: Kills::default(),
            restored: 0,
        })
    }

    /// Operations acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.ledger.lock().acked()
    }

    /// Acknowledgements of members that were confirmed so far.
    pub fn settled(&self) -> u64 {
        self.deliveries.lock().confirmed()
    }

    /// What had gone from topics by the last check.
    pub fn gone(&self) -> Gone {
        self.removals.gone()
    }

    /// How many backups were taken, and how many restored.
    pub fn backed_up(&self) -> (u64, u64) {
        (self.backups.count(), self.restored)
    }

    /// How often the server was killed, and how.
    pub const fn kills(&self) -> Kills {
        self.kills
    }

    /// Runs one cycle.
    pub async fn cycle(&mut self) -> anyhow::Result<Report> {
        let settled = self.settled();
        let plan = Plan::draw(&mut self.random, self.strace);
        let shown = self.load_and_kill(plan.moment).await?;
        let starts = self.kill_starts(&plan).await?;
        let began = Instant::now();
        self.start().await?;
        let back_after = began.elapsed();
        let asked_again = self.ask_again().await?;
        let mut verdict = self.check().await?;
        verdict.add(self.deliveries.lock().take_verdict());
        let outputs = client::outputs(&self.channel).await?;
        verdict.add(check::shown(&shown.outputs, &outputs));
        if let Some(view) = &shown.view {
            verdict.add(check::view(&self.events, view));
        }
        let (met, acked, committed, events) = (shown.met, shown.acked, shown.outputs.len(), self.events.len());
        let (settled, gone) = (self.settled() - settled, self.gone());
        Ok(Report { moment: plan.moment, met, acked, settled, committed, gone, starts, asked_again, back_after, events, verdict })
    }

    /// Stops the server as an operator does, starts it again and checks once more.
    pub async fn finish(&mut self) -> anyhow::Result<Verdict> {
        kill::signal("TERM", &self.server.pid().to_string())?;
        let status = self.server.end(PATIENCE).await?.context("the server does not stop when it is asked to")?;
        ensure!(status.success(), "the server ended with {status} when it was asked to stop:\n{}", self.server.last_words());
        self.start().await?;
        let mut verdict = self.check().await?;
        members::drain(&self.members(), PATIENCE, self.random.split()).await?;
        {
            let mut deliveries = self.deliveries.lock();
            verdict.add(deliveries.take_verdict());
            verdict.add(deliveries.all(&self.events));
        }
        verdict.add(self.restore(None).await?);
        let until = self.random.below(self.backups.has());
        verdict.add(self.restore(Some(until)).await?);
        Ok(verdict)
    }

    /// Restores the newest backup, and checks what a server says of it: whole, or as far as it was restored.
    pub async fn restore(&mut self, until: Option<u64>) -> anyhow::Result<Verdict> {
        if self.backups.count() == 0 {
            return Ok(Verdict::default());
        }
        let restored = self.backups.restore(&self.foldlog, self.settings, until)?;
        let command = vec![self.foldlog.clone().into()];
        let (settings, log) = (self.settings, self.folder.join("restored.log"));
        let mut server = Server::start(&Start { command, settings, backups: None, data: restored.data.clone(), log })?;
        let channel = server.answers(PATIENCE).await?;
        let verdict = self.check_restored(&channel, &restored, until.is_none()).await?;
        server.kill()?;
        if verdict.is_clean() {
            restored.remove()?;
        }
        self.restored += 1;
        Ok(verdict)
    }

    async fn check_restored(&self, channel: &Channel, restored: &Restored, is_whole: bool) -> anyhow::Result<Verdict> {
        let end = restored.position;
        let (ops, last) = {
            let ledger = self.ledger.lock();
            (ledger.ops_then(end), ledger.last_below(end))
        };
        let events = client::events(channel).await.context("of what was restored")?;
        let mut verdict = check::events(&ops, &events);
        let (token, _) = client::head(channel).await?;
        verdict.add(check::view(&events, &client::view(channel, token).await?));
        if let Some((id, op)) = last {
            let (state, failed) = client::append(channel, id, &op.writes).await;
            if state != op.state {
                verdict.repeated(format!("operation {id}, acknowledged as {:?}, is {state:?} where it was restored: {failed:?}", op.state));
            }
        }
        if is_whole {
            verdict.add(check::output(&events, &all_outputs(channel, &events).await?));
            verdict.add(self.removals.check_then(channel, &restored.has.topics, end).await?);
        }
        Ok(verdict)
    }

    /// What members of this server share.
    fn members(&self) -> members::Shared {
        let (channel, deliveries) = (self.channel.clone(), Arc::clone(&self.deliveries));
        members::Shared { channel, deliveries, confirmed: watch::channel(self.settled()).0 }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.server = Server::start(&start(&self.folder, self.settings, vec![self.foldlog.clone().into()]))?;
        self.channel = self.server.answers(PATIENCE).await?;
        Ok(())
    }

    async fn load_and_kill(&mut self, moment: Moment) -> anyhow::Result<Shown> {
        let mut versions: HashMap<String, u64> = HashMap::new();
        for event in &self.events {
            versions.insert(event.stream.clone(), event.version);
        }
        let (acked, mut acks) = watch::channel(0);
        let (shown, mut outputs) = watch::channel(Vec::new());
        let (view, last_view) = watch::channel(None);
        let (_, end) = client::head(&self.channel).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..self.writers {
            let load = Load { channel: child::connect(&self.server.url()).await?, ledger: self.ledger.clone(), acked: acked.clone() };
            tasks.spawn(Writer::new(number, self.random.split(), &versions).run(load.clone()));
            tasks.spawn(SessionWriter::new(number, self.random.split(), &versions).run(load));
        }
        let shared = members::Shared { channel: child::connect(&self.server.url()).await?, ..self.members() };
        let (mut confirmed, settled) = (shared.confirmed.subscribe(), self.settled());
        for _ in 0..members::MEMBERS {
            tasks.spawn(members::run(shared.clone(), Manner::Careless, self.random.split()));
        }
        drop(shared);
        let channel = child::connect(&self.server.url()).await?;
        let (removing, mut written) = watch::channel(0);
        self.removals.spawn(&mut tasks, &channel, &removing);
        drop(removing);
        let (mut taken, backups) = (self.backups.taken.subscribe(), self.backups.count());
        let (ledger, removals) = (Arc::clone(&self.ledger), self.removals.clone());
        let before = move || Before { position: ledger.lock().synced_end(), topics: removals.topics() };
        tasks.spawn(backups::run(self.backups.taken.clone(), channel, before));
        tasks.spawn(client::follow_outputs(self.channel.clone(), end, shown));
        tasks.spawn(watch_view(self.channel.clone(), view));

        let progress = async {
            acks.wait_for(|acked| *acked >= ENOUGH_ACKED).await.context("no writer is left")?;
            outputs.wait_for(|outputs| !outputs.is_empty()).await.context("nobody follows the output")?;
            confirmed.wait_for(|confirmed| *confirmed > settled).await.context("no member is left")?;
            written.wait_for(|written| *written >= ENOUGH_WRITTEN).await.context("nobody writes to what is removed")?;
            taken.wait_for(|taken| taken.count > backups).await.context("nobody takes backups")?;
            anyhow::Ok(())
        };
        if let Ok(progressed) = tokio::time::timeout(PATIENCE, progress).await {
            progressed?
        } else {
            let (acked, committed) = (*acks.borrow(), outputs.borrow().len());
            let words = self.server.last_words();
            let (settled, written, backups) = (self.settled() - settled, *written.borrow(), self.backups.count() - backups);
            bail!(
                "the cycle shows nothing: {acked} operations acknowledged, {committed} outputs committed, {settled} deliveries settled, \
                 {written} appends to what is removed, {backups} backups:\n{words}"
            );
        }
        if let Some(status) = self.server.ended()? {
            bail!("the server ended by itself ({status}):\n{}", self.server.last_words());
        }
        let met = self.kill_at(moment, &mut acks).await?;
        drop(acked);
        while let Some(task) = tasks.join_next().await {
            task.context("a task of the load failed")??;
        }
        let (outputs, view, acked) = (outputs.borrow().clone(), last_view.borrow().clone(), *acks.borrow());
        Ok(Shown { outputs, view, acked, met })
    }

    async fn kill_at(&mut self, moment: Moment, acks: &mut watch::Receiver<u64>) -> anyhow::Result<bool> {
        match moment {
            Moment::After(delay) => {
                tokio::time::sleep(delay).await;
                self.server.kill()?;
                self.kills.random += 1;
            }
            Moment::Ack(count) => {
                let target = *acks.borrow() + count;
                let waited = tokio::time::timeout(PATIENCE, acks.wait_for(|acked| *acked >= target)).await;
                waited.context("the writers stand still")?.context("no writer is left")?;
                self.server.kill()?;
                self.kills.at_ack += 1;
            }
            Moment::Running(call) => {
                if kill::at_running(&mut self.server, call, &self.folder.join("strace.log")).await? {
                    self.kills.at_call += 1;
                } else {
                    self.kills.call_not_met += 1;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn kill_starts(&mut self, plan: &Plan) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        for call in plan.starts.into_iter().flatten() {
            let command = kill::command_of_start(call, &self.folder.join("strace.log"), &self.foldlog);
            let mut server = Server::start(&start(&self.folder, self.settings, command))?;
            if kill::at_start(&mut server).await? {
                self.kills.at_start += 1;
                told.push(call.to_string());
            } else {
                self.kills.call_not_met += 1;
                told.push(format!("{call} (not met)"));
            }
        }
        Ok(told)
    }

    /// Sends again what was never answered, under the same id, until there is an answer.
    async fn ask_again(&self) -> anyhow::Result<usize> {
        let (unknown, of_sessions) = {
            let ledger = self.ledger.lock();
            (ledger.unknown(), ledger.unknown_of_sessions())
        };
        for units in &of_sessions {
            for (id, state) in sessions::ask_again(&self.channel, units).await? {
                self.ledger.lock().answered(id, state)?;
            }
        }
        for (id, writes) in &unknown {
            let mut last = None;
            for _ in 0..50 {
                let (state, failed) = client::append(&self.channel, *id, writes).await;
                last = failed;
                if state != State::Unknown {
                    self.ledger.lock().answered(*id, state)?;
                    last = None;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if let Some(status) = last {
                bail!("operation {id} gets no answer: {status}");
            }
        }
        let of_lines = self.removals.ask_again(&self.channel).await?;
        Ok(unknown.len() + of_sessions.iter().map(Vec::len).sum::<usize>() + of_lines)
    }

    async fn check(&mut self) -> anyhow::Result<Verdict> {
        let (token, end) = self.shown_head().await?;
        self.events = client::events(&self.channel).await?;
        let mut verdict = check::events(self.ledger.lock().ops(), &self.events);
        let view = client::view(&self.channel, token).await.context("cannot read the view")?;
        ensure!(view.position >= end, "the view was asked for position {end} and answers at {}", view.position);
        verdict.add(check::view(&self.events, &view));
        let outputs = all_outputs(&self.channel, &self.events).await?;
        verdict.add(check::output(&self.events, &outputs));
        ensure!(outputs.len() >= self.outputs, "the output topic has shrunk from {} to {}", self.outputs, outputs.len());
        self.outputs = outputs.len();
        verdict.add(self.removals.check(&self.channel).await?);
        Ok(verdict)
    }

    /// The end of the log once it shows what was answered, or what it comes to: an answer that asked for `written` comes before the sync, and
    /// nothing is read before that.
    async fn shown_head(&self) -> anyhow::Result<(prost::bytes::Bytes, u64)> {
        let acked = self.ledger.lock().acked_end().max(self.removals.acked_end());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let head = client::head(&self.channel).await?;
            if head.1 >= acked || Instant::now() > deadline {
                return Ok(head);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The output topic when its query has caught up, or as far as it comes.
async fn all_outputs(channel: &Channel, events: &[Seen]) -> anyhow::Result<Vec<Output>> {
    let wanted = events.iter().filter(|event| event.amount >= check::LARGE).count();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let outputs = client::outputs(channel).await?;
        if outputs.len() >= wanted || Instant::now() > deadline {
            return Ok(outputs);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn start(folder: &Path, settings: Settings, command: Vec<std::ffi::OsString>) -> Start {
    let backups = Some(backups::below(folder));
    Start { command, settings, backups, data: folder.join("data"), log: folder.join("server.log") }
}

/// Asks for the view until the server is gone; the last answer is kept.
async fn watch_view(channel: Channel, last: watch::Sender<Option<ViewAt>>) -> anyhow::Result<()> {
    while let Ok(view) = client::view(&channel, prost::bytes::Bytes::new()).await {
        last.send_replace(Some(view));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moment, acked, settled, committed, gone, asked_again, events, back_after, .. } = self;
        let not_met = if self.met { "" } else { " (not met)" };
        write!(f, "killed {moment}{not_met}, {acked} acked, {committed} outputs committed, {settled} deliveries settled, {gone}; ")?;
        for start in &self.starts {
            write!(f, "killed starting at {start}; ")?;
        }
        let ms = back_after.as_millis();
        let word = if self.verdict.is_clean() { "all there" } else { "NOT ALL THERE" };
        write!(f, "back after {ms} ms, {asked_again} asked again, {events} events checked, {word}")
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { random, at_ack, at_call, at_start, call_not_met } = self;
        write!(
            f,
            "kills: {random} at random moments, {at_ack} at acknowledgements, {at_call} at exact system calls under load, \
             {at_start} at exact system calls while starting; {call_not_met} calls were not met and the kill came anyway"
        )
    }
}
