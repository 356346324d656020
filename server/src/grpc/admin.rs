//! The service `Admin`: thin.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{ClockState, backup::BackupReport};
use foldlog_proto::v1::{self as pb, admin_server};
use tonic::{Request, Response, Status};

use super::convert;
use crate::{
    app::App,
    failure::{Failure, Kind},
};

/// Answers the calls of `Admin`.
pub struct Admin(pub App);

#[tonic::async_trait]
impl admin_server::Admin for Admin {
    async fn get_clock(&self, _: Request<pb::GetClockRequest>) -> Result<Response<pb::Clock>, Status> {
        self.answer(self.0.stage().and_then(|stage| clock(stage.log.clock())))
    }

    async fn confirm_clock(&self, _: Request<pb::ConfirmClockRequest>) -> Result<Response<pb::Clock>, Status> {
        self.answer(self.0.stage().and_then(|stage| clock(stage.log.confirm_clock())))
    }

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<pb::BackupResponse>, Status> {
        self.answer(back_up(&self.0, &request.into_inner().folder).await)
    }
}

impl Admin {
    fn answer<T>(&self, answer: Result<T, Failure>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|failure| self.0.refuse(failure))
    }
}

async fn back_up(app: &App, asked: &str) -> Result<pb::BackupResponse, Failure> {
    let stage = app.stage()?;
    let folder = backup_folder(app.limits.backups.as_deref(), asked)?;
    let Ok(turn) = Arc::clone(&app.backups).try_acquire_owned() else {
        return Err(Failure::new(Kind::Exhausted, "OVERLOADED", "another backup is being written, and there is one at a time"));
    };
    let log = Arc::clone(&stage.log);
    let write = move || {
        let written = log.back_up(&folder);
        drop(turn);
        written
    };
    let written = tokio::task::spawn_blocking(write).await;
    let written = written.map_err(|_| Failure::new(Kind::Internal, "INTERNAL", "the backup was interrupted"))?;
    let elsewhere = || Failure::new(Kind::Unsupported, "NOT_SUPPORTED", "this log is backed up where it is kept");
    let BackupReport { position, time, files, bytes, copied_bytes, linked_bytes } = written.ok_or_else(elsewhere)??;
    let recorded_at = Some(convert::proto_time(time));
    Ok(pb::BackupResponse { position: position.get(), recorded_at, files, bytes, copied_bytes, linked_bytes })
}

/// Where a backup is written: below the folder that is set for them, by its name there or its whole path.
fn backup_folder(below: Option<&Path>, asked: &str) -> Result<PathBuf, Failure> {
    let Some(below) = below else {
        let message = "no folder is set under which this server writes backups: set `backups` in its configuration, or FOLDLOG_BACKUPS";
        return Err(Failure::new(Kind::Precondition, "NO_BACKUP_FOLDER", message));
    };
    let asked = Path::new(asked);
    let rest = if asked.is_absolute() { asked.strip_prefix(below).ok() } else { Some(asked).filter(|asked| !asked.as_os_str().is_empty()) };
    let rest = rest.filter(|rest| rest.components().all(|part| matches!(part, Component::Normal(_))));
    let rule = || format!("a folder below {}, by its name there or its whole path", below.display());
    Ok(below.join(rest.ok_or_else(|| Failure::invalid("folder", rule()))?))
}

fn clock(state: Option<ClockState>) -> Result<pb::Clock, Failure> {
    let elsewhere = || Failure::new(Kind::Unsupported, "NOT_SUPPORTED", "the time of this log is not the server's");
    let ClockState { server, wall, follows, off_for, removes } = state.ok_or_else(elsewhere)?;
    let off_for = prost_types::Duration { seconds: i64::try_from(off_for.as_secs()).unwrap_or(i64::MAX), nanos: 0 };
    let (server, wall) = (convert::proto_time(server), convert::proto_time(wall));
    Ok(pb::Clock { server_time: Some(server), wall_time: Some(wall), follows, off_for: Some(off_for), removes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_written_below_their_folder_and_nowhere_else() {
        let below = Path::new("/backups");
        for (asked, folder) in
            [("daily", "/backups/daily"), ("a/b", "/backups/a/b"), ("/backups/daily", "/backups/daily"), ("/backups", "/backups")]
        {
            assert_eq!(backup_folder(Some(below), asked).unwrap(), Path::new(folder));
        }
        for asked in ["", "..", "../etc", "a/../../etc", "/etc", "/backups/../etc", "/backupsX", "/"] {
            assert_eq!(backup_folder(Some(below), asked).unwrap_err().reason, "INVALID_REQUEST", "{asked}");
        }
        assert_eq!(backup_folder(None, "daily").unwrap_err().reason, "NO_BACKUP_FOLDER");
    }
}
