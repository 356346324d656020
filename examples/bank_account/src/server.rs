//! Which foldlog the example talks to: the one at FOLDLOG_URL, or one that it starts and ends.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use foldlog_sdk::Client;

/// A server, ended with the value if it was started for it.
pub struct Server {
    child: Option<Child>,
    /// A connection to it.
    pub client: Client,
}

impl Server {
    /// `bank_account` connects to FOLDLOG_URL or the default; `bank_account --foldlog PROGRAM` starts `PROGRAM dev`.
    pub async fn from_arguments() -> anyhow::Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => {
                let hint = "start a server with `foldlog dev`, or let the example do it: --foldlog PROGRAM";
                Ok(Self { child: None, client: Client::from_env().await.context(hint)? })
            }
            ["--foldlog", program] => Self::start(program).await,
            _ => bail!("usage: bank_account [--foldlog PROGRAM]"),
        }
    }

    async fn start(program: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["dev", "--listen", "127.0.0.1:0", "--log-level", "warn"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to start {program}"))?;
        let lines = child.stdout.take().context("the server has no output")?;
        let mut url = None;
        for line in BufReader::new(lines).lines() {
            match line?.as_str() {
                "ready" => break,
                line => url = line.strip_prefix("listening on ").map(ToOwned::to_owned).or(url),
            }
        }
        let url = url.context("the server did not say where it listens")?;
        Ok(Self { child: Some(child), client: Client::connect(&url).await? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Asked to stop, it removes its temporary folder; where it cannot be asked, it is ended.
            let asked = cfg!(unix) && Command::new("kill").arg(child.id().to_string()).status().is_ok_and(|status| status.success());
            if !asked {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}
