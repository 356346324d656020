//! A sync fails or does not end in the middle of a run: the process ends with its own exit code, nobody is told a lie, and the next start
//! has everything. A disk that is nearly full takes nothing new, and service returns by itself.
//!
//! The server runs in a process of its own: this program again, over a real folder and a disk whose syncs fail on demand.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use foldlog_log::{
    LogConfig,
    disk::{Disk, DiskFile, Entry, RealDisk, Space},
};
use foldlog_proto::v1::{self as pb, event_log_client::EventLogClient, query_client::QueryClient, topics_client::TopicsClient};
use foldlog_server::{Config, testing};
use prost::Message as _;
use tempfile::TempDir;
use tonic::{Code, transport::Channel};

/// In whose environment this is set, that is the server of the story, over this folder.
const SERVER_OF_THE_STORY: &str = "STORY_DATA";

/// A real disk on which no sync succeeds any more once the file `broken` lies beside the data folder, and none ends once `stuck` does.
/// Where the file `free` lies there, that many bytes of it are free.
#[derive(Debug)]
struct Breakable {
    disk: RealDisk,
    broken: PathBuf,
}

#[derive(Debug)]
struct BreakableFile {
    file: Arc<dyn DiskFile>,
    broken: PathBuf,
}

impl Breakable {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(BreakableFile { file, broken: self.broken.clone() })
    }
}

impl Disk for Breakable {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.create(path)?))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        #[expect(clippy::disallowed_methods, reason = "this is how the test tells the other process")]
        let free = std::fs::read_to_string(self.broken.with_file_name("free"));
        let Ok(free) = free else { return self.disk.space(folder) };
        // Read while it is written it tells nothing.
        Ok(Space { total: 100 << 30, free: free.parse().map_err(io::Error::other)? })
    }

    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(folder, owner)
    }
}

impl DiskFile for BreakableFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.broken.exists() {
            return Err(io::Error::other("the device is gone"));
        }
        while self.broken.with_file_name("stuck").exists() {
            thread::park();
        }
        self.file.sync()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// A server in a process of its own, which does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_waited = self.0.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> (Self, String) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let running = Self(child);
        let url = lines.find_map(|line| line.split_once("listening on ").map(|(_, url)| url.to_owned())).unwrap();
        assert!(lines.any(|line| line == "ready"), "it becomes ready");
        (running, url)
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (self.0.wait().unwrap().code(), told)
    }
}

fn append(text: &str) -> pb::AppendRequest {
    let event = pb::Event { r#type: "Said".into(), data: Some(text.to_owned().into()), ..Default::default() };
    let write = pb::Write { topic: "t".into(), stream: "s".into(), events: vec![event], ..Default::default() };
    pb::AppendRequest { writes: vec![write], ..Default::default() }
}

async fn texts(log: &mut EventLogClient<Channel>) -> Vec<String> {
    let source = pb::read_request::Source::Topic(pb::TopicRange { topic: "t".into(), from_position: Some(0) });
    let mut batches = log.read(pb::ReadRequest { source: Some(source), ..Default::default() }).await.unwrap().into_inner();
    let mut texts = Vec::new();
    while let Some(batch) = batches.message().await.unwrap() {
        let data = batch.events.into_iter().map(|event| event.event.unwrap().data.unwrap());
        texts.extend(data.map(|data| String::from_utf8(data.to_vec()).unwrap()));
    }
    texts
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_the_next_start_has_what_was_acknowledged() {
    if let Some(data) = env::var_os(SERVER_OF_THE_STORY) {
        serve(Config::local(data)).await;
    }
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (server, url) = Running::start(story("a_failed_sync_ends_the_process_and_the_next_start_has_what_was_acknowledged", &data));
    create_topic(&url).await;
    let mut log = EventLogClient::connect(url).await.unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        log.append(append(&n.to_string())).await.unwrap();
        acknowledged.push(n.to_string());
    }

    #[expect(clippy::disallowed_methods, reason = "this is how the test tells the other process")]
    std::fs::write(folder.path().join("broken"), "").unwrap();
    let pending = (0..8).map(|n| {
        let mut log = log.clone();
        async move { log.append(append(&format!("pending {n}"))).await }
    });
    let answers = futures::future::join_all(pending.collect::<Vec<_>>()).await;
    let told: Vec<(Code, String)> =
        answers.into_iter().map(|answer| answer.map(|_| ()).unwrap_err()).map(|s| (s.code(), reason(&s))).collect();
    assert!(
        told.iter().any(|(code, reason)| *code == Code::Unknown && reason == "OUTCOME_UNKNOWN"),
        "who waited is told the truth: {told:?}"
    );
    let (code, noted) = server.end();
    assert_eq!(code, Some(74), "{noted}");
    assert!(noted.contains("the device is gone"), "{noted}");

    #[expect(clippy::disallowed_methods, reason = "a new device")]
    std::fs::remove_file(folder.path().join("broken")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldlog"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .envs([("FOLDLOG_LOG_RESERVE_BYTES", "0"), ("FOLDLOG_LOG_RESERVE_PERCENT", "0")]);
    let (_server, url) = Running::start(command);
    let mut log = EventLogClient::connect(url).await.unwrap();
    let found = texts(&mut log).await;
    let (first, rest) = found.split_at(20);
    assert_eq!(first, acknowledged);
    // What was pending may be there, in whatever order it came in, but each once.
    let mut once = rest.to_vec();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), rest.len(), "{rest:?}");
    assert!(rest.iter().all(|text| text.starts_with("pending ")), "{rest:?}");
    log.append(append("after")).await.unwrap();
}

/// Whoever has the one thread that serves connections waits for the sync: also then the process ends, asked to stop or not.
#[tokio::test]
async fn a_sync_that_does_not_end_ends_the_process_with_its_reason() {
    if let Some(data) = env::var_os(SERVER_OF_THE_STORY) {
        let mut config = Config::local(data);
        config.io_threads = 1;
        config.drain = Duration::from_secs(1);
        config.log.stall_warn_ms = 100;
        config.log.stall_fatal_ms = 500;
        serve(config).await;
    }
    for is_stopped in [false, true] {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let (server, url) = Running::start(story("a_sync_that_does_not_end_ends_the_process_with_its_reason", &data));
        create_topic(&url).await;
        let mut log = EventLogClient::connect(url.clone()).await.unwrap();
        for n in 0..20 {
            log.append(append(&n.to_string())).await.unwrap();
        }
        #[expect(clippy::disallowed_methods, reason = "this is how the test tells the other process")]
        std::fs::write(folder.path().join("stuck"), "").unwrap();
        if is_stopped {
            let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
            assert!(told.success());
        } else {
            assert!(log.append(append("pending")).await.is_err());
        }
        let (code, noted) = server.end();
        assert_eq!(code, Some(74), "{noted}");
        assert!(noted.contains("has not ended for 0.5 s: the disk stalls"), "{noted}");

        let mut command = Command::new(env!("CARGO_BIN_EXE_foldlog"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        let (_server, url) = Running::start(command);
        let found = texts(&mut EventLogClient::connect(url).await.unwrap()).await;
        assert_eq!(found[..20], (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_nearly_full_disk_takes_nothing_new_and_service_returns() {
    if let Some(data) = env::var_os(SERVER_OF_THE_STORY) {
        serve(Config { log: LogConfig::default(), ..Config::local(data) }).await;
    }
    let folder = TempDir::new().unwrap();
    let free = folder.path().join("free");
    #[expect(clippy::disallowed_methods, reason = "this is how the test tells the other process")]
    let set_free = |bytes: u64| std::fs::write(&free, bytes.to_string()).unwrap();
    set_free(50 << 30);
    let (_server, url) = Running::start(story("a_nearly_full_disk_takes_nothing_new_and_service_returns", &folder.path().join("data")));
    create_topic(&url).await;
    let mut log = EventLogClient::connect(url.clone()).await.unwrap();
    log.append(append("1")).await.unwrap();
    let mut sql = QueryClient::connect(url.clone()).await.unwrap();
    execute(&mut sql, "CREATE STREAM said (text VARCHAR) WITH (topic = 't', value_format = 'json')").await.unwrap();
    execute(&mut sql, "CREATE TABLE counted AS SELECT text, COUNT(*) AS n FROM said GROUP BY text").await.unwrap();

    set_free(1 << 30);
    let mut taken = vec!["1".to_owned()];
    let refused = loop {
        // The server looks once a second.
        match log.append(append("more")).await {
            Ok(_) => taken.push("more".into()),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "DISK_FULL"), "{refused}");
    assert!(refused.message().contains("1073741824 bytes are free, 2147483648 are kept"), "{refused}");
    assert_eq!(texts(&mut log).await, taken, "it can be read");
    let refused = execute(&mut sql, "CREATE STREAM again (text VARCHAR) WITH (topic = 't', value_format = 'json')").await.unwrap_err();
    assert_eq!(reason(&refused), "DISK_FULL", "{refused}");
    let refused = TopicsClient::connect(url).await.unwrap().create(pb::CreateTopicRequest { name: "u".into(), ..Default::default() }).await;
    assert_eq!(reason(&refused.unwrap_err()), "DISK_FULL");
    execute(&mut sql, "DROP TABLE counted").await.unwrap();
    let delete = pb::StreamChange { change: Some(pb::stream_change::Change::TruncateBefore(2)) };
    let write = pb::Write { topic: "t".into(), stream: "s".into(), change: Some(delete), ..Default::default() };
    log.append(pb::AppendRequest { writes: vec![write], ..Default::default() }).await.unwrap();

    set_free(50 << 30);
    while let Err(refused) = log.append(append("after")).await {
        assert_eq!(reason(&refused), "DISK_FULL");
    }
    let read = texts(&mut log).await;
    assert_eq!(read.len(), taken.len() + 1);
    assert_eq!(read.last().map(String::as_str), Some("after"));
}

async fn execute(sql: &mut QueryClient<Channel>, statement: &str) -> Result<(), tonic::Status> {
    let mut answer = sql.execute(pb::QueryRequest { sql: statement.into(), ..Default::default() }).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

/// This program again, as the server of a story.
fn story(name: &str, data: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(SERVER_OF_THE_STORY, data);
    command
}

/// Serves until the process ends.
async fn serve(config: Config) -> ! {
    let disk = Arc::new(Breakable { disk: RealDisk, broken: config.data.with_file_name("broken") });
    let serve = move || testing::serve_to_the_end(disk, config);
    process::exit(tokio::task::spawn_blocking(serve).await.unwrap().into());
}

async fn create_topic(url: &str) {
    let request = pb::CreateTopicRequest { name: "t".into(), ..Default::default() };
    TopicsClient::connect(url.to_owned()).await.unwrap().create(request).await.unwrap();
}

/// The reason that a status carries; empty where none does.
fn reason(status: &tonic::Status) -> String {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
    let info = details.first().map(|first| tonic_types::pb::ErrorInfo::decode(&*first.value).unwrap());
    info.map(|info| info.reason).unwrap_or_default()
}
