//! Backups of the server while it is tormented, one after the other into the same folder, and folders that are restored of them.
//!
//! A backup has everything that was acknowledged when it began; [`crate::cycle`] holds against that what a server of a restored folder says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use foldlog_proto::v1::{BackupRequest, admin_client::AdminClient};
use serde::Deserialize;
use tokio::sync::watch;
use tonic::{Code, transport::Channel};

use crate::{churn::Then, cycle::Settings};

/// The backup, below the folder of backups.
const NAME: &str = "daily";
/// Between two backups, so that there is time for other things.
const PAUSE: Duration = Duration::from_millis(100);

/// What was acknowledged when something began.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Everything below this position, durably.
    pub position: u64,
    /// Topics.
    pub topics: Then,
}

/// Backups that were answered.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many.
    pub count: u64,
    /// What the last one has at least.
    has: Before,
}

/// See the module.
#[derive(Debug)]
pub struct Backups {
    folder: PathBuf,
    /// Those that were answered.
    pub taken: watch::Sender<Taken>,
}

/// What `foldlog restore` says.
#[derive(Deserialize)]
struct Said {
    position: u64,
}

/// A folder that was restored.
#[derive(Debug)]
pub struct Restored {
    /// The data folder.
    pub data: PathBuf,
    /// It has what lies below this position.
    pub position: u64,
    /// It has at least what was acknowledged then, if it is whole.
    pub has: Before,
}

impl Backups {
    /// In a folder beside the data.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let below = below(folder);
        fs::create_dir(&below).with_context(|| format!("cannot create {}", below.display()))?;
        Ok(Self { folder: folder.to_owned(), taken: watch::Sender::default() })
    }

    /// How many were answered.
    pub fn count(&self) -> u64 {
        self.taken.borrow().count
    }

    /// Position below which the last one has everything.
    pub fn has(&self) -> u64 {
        self.taken.borrow().has.position
    }

    /// Restores the backup that is there, whole or up to a position.
    pub fn restore(&self, foldlog: &Path, settings: Settings, until: Option<u64>) -> anyhow::Result<Restored> {
        let data = self.folder.join("restored");
        let mut command = Command::new(foldlog);
        command.envs(settings.iter().copied()).arg("restore").arg(below(&self.folder).join(NAME)).arg("--data").arg(&data);
        if let Some(until) = until {
            command.args(["--until", &until.to_string()]);
        }
        let output = command.stdin(Stdio::null()).output().context("cannot run foldlog restore")?;
        ensure!(output.status.success(), "foldlog restore ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let Said { position } = serde_json::from_slice(&output.stdout).context("foldlog restore says nothing of its position")?;
        let has = self.taken.borrow().has.clone();
        match until {
            None => ensure!(position >= has.position, "a backup of everything below {} has what is below {position}", has.position),
            Some(until) => ensure!(position <= until, "restored up to {position}, beyond {until}"),
        }
        Ok(Restored { data, position, has })
    }
}

impl Restored {
    /// Removes it.
    pub fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.data).with_context(|| format!("cannot remove {}", self.data.display()))
    }
}

/// Folder of all backups.
pub fn below(folder: &Path) -> PathBuf {
    folder.join("backups")
}

/// Takes backups until the server is gone.
pub async fn run(taken: watch::Sender<Taken>, channel: Channel, before: impl Fn() -> Before) -> anyhow::Result<()> {
    let mut admin = AdminClient::new(channel);
    loop {
        let has = before();
        let answer = match admin.backup(BackupRequest { folder: NAME.to_owned() }).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_refusal(status.code()) => bail!("a backup is refused: {status}"),
            Err(_) => return Ok(()),
        };
        ensure!(answer.position >= has.position, "a backup of everything below {} has what is below {}", has.position, answer.position);
        taken.send_modify(|taken| *taken = Taken { count: taken.count + 1, has });
        tokio::time::sleep(PAUSE).await;
    }
}

const fn is_refusal(code: Code) -> bool {
    matches!(code, Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::DataLoss | Code::Unimplemented)
}
