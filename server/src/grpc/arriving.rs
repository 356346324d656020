//! A request's body that has to arrive in time: whoever sends a byte now and then holds a place only so long.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::{Status, body::Body};

use crate::failure::{Failure, Kind};

use super::status::status;

/// See the module. The clock runs from the first time that something is missing.
pub struct Arriving {
    body: Body,
    within: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    /// The same body, if it arrives within that time.
    pub fn within(within: Duration, body: Body) -> Body {
        Body::new(Self { body, within, deadline: None })
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            return frame;
        }
        let within = self.within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        if deadline.as_mut().poll(context).is_ready() {
            let message = format!("the request did not arrive within {} s", within.as_secs_f32());
            return Poll::Ready(Some(Err(status(Failure::new(Kind::Timeout, "REQUEST_TIMEOUT", message), None))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
