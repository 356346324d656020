//! The service `Admin`: thin.

use foldlog_log::ClockState;
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
}

impl Admin {
    fn answer<T>(&self, answer: Result<T, Failure>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|failure| self.0.refuse(failure))
    }
}

fn clock(state: Option<ClockState>) -> Result<pb::Clock, Failure> {
    let elsewhere = || Failure::new(Kind::Unsupported, "NOT_SUPPORTED", "the time of this log is not the server's");
    let ClockState { server, wall, follows, off_for, removes } = state.ok_or_else(elsewhere)?;
    let off_for = prost_types::Duration { seconds: i64::try_from(off_for.as_secs()).unwrap_or(i64::MAX), nanos: 0 };
    let (server, wall) = (convert::proto_time(server), convert::proto_time(wall));
    Ok(pb::Clock { server_time: Some(server), wall_time: Some(wall), follows, off_for: Some(off_for), removes })
}
