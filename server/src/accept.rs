//! Accepts connections: as many as allowed, and none that sits there without saying a word.
//!
//! Answers that are ready at the same time leave together: each by itself would be a call of the system here, and one more where
//! it arrives.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::app::App;

/// Bytes after which a connection has said what it speaks: the preface of HTTP/2. From there on the protocol has limits of its own.
const PREFACE_BYTES: usize = 24;

/// Requests from which on answers wait for each other. Where there are fewer, a thread of the runtime may be asleep, and to wake it for
/// the turn of another costs more than a call of the system.
const MANY: usize = 32;

/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Connections as they come, for ever.
pub fn connections(listener: TcpListener, app: App) -> impl Stream<Item = io::Result<Connection>> {
    let open = Arc::new(Open { app, by_address: Mutex::default() });
    stream::unfold((listener, open), |(listener, open)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(connection) = Connection::begin(stream, peer, &open) {
                        return Some((Ok(connection), (listener, open)));
                    }
                }
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    })
}

struct Open {
    app: App,
    by_address: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the open connections.
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Place {
    fn take(open: &Arc<Open>, address: IpAddr) -> Option<Self> {
        let limits = &open.app.limits;
        let mut counts = open.by_address.lock();
        let from_there = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= limits.connections || (from_there >= limits.connections_per_address && !address.is_loopback()) {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, from_there + 1);
        open.app.metrics.connections.inc();
        Some(Self { open: Arc::clone(open), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.by_address.lock();
        counts.all -= 1;
        if let Some(from_there) = counts.by_address.get_mut(&self.address) {
            *from_there -= 1;
            if *from_there == 0 {
                counts.by_address.remove(&self.address);
            }
        }
        self.open.app.metrics.connections.dec();
    }
}

/// An accepted connection.
pub struct Connection {
    stream: TcpStream,
    /// Until [`PREFACE_BYTES`] have come.
    silence: Option<Pin<Box<Sleep>>>,
    arrived: usize,
    /// Whether what is to be written has waited for its turn.
    has_waited: bool,
    place: Place,
}

impl Connection {
    fn begin(stream: TcpStream, peer: SocketAddr, open: &Arc<Open>) -> Option<Self> {
        let Some(place) = Place::take(open, peer.ip()) else {
            debug!(%peer, "connection refused: too many are open");
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "connection lost at once");
            return None;
        }
        let silence = Some(Box::pin(tokio::time::sleep(open.app.limits.arrival)));
        Some(Self { stream, silence, arrived: 0, has_waited: false, place })
    }

    /// Whether what is to be written has to wait for its next turn. While many requests are being answered, some others are mostly about to write
    /// here: the runtime comes back behind all that are ready now.
    fn waits(&mut self, context: &Context<'_>) -> bool {
        let waits = !self.has_waited && self.place.open.app.answering() >= MANY;
        self.has_waited = true;
        if waits {
            context.waker().wake_by_ref();
        }
        waits
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.silence.is_none() {
            return Pin::new(&mut self.stream).poll_read(context, buf);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buf);
        if read.is_ready() {
            self.arrived += buf.filled().len() - before;
            if self.arrived >= PREFACE_BYTES {
                self.silence = None;
            }
        } else if let Some(silence) = self.silence.as_mut()
            && silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said next to nothing")));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.waits(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that was to be written is.
        self.has_waited = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.waits(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::{Wake, Waker},
    };

    use foldlog_log::{Timestamp, clock::ManualClock};

    use super::*;
    use crate::{config::Limits, shutdown::Tasks};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_next_turn_once_while_others_are_being_answered() {
        let app = App::new(Arc::new(ManualClock::at(Timestamp::new(0))), Limits::default(), Tasks::default());
        let open = Arc::new(Open { app: app.clone(), by_address: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        stream.writable().await.unwrap();
        let mut connection = Connection::begin(stream, address, &open).unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut write = || Pin::new(&mut connection).poll_write(&mut context, b"x").is_ready();
        assert!(write(), "nobody else is being answered");
        let _few = app.requests.try_acquire_many(31).unwrap();
        assert!(write(), "few are");
        let one_more = app.requests.try_acquire().unwrap();
        assert!(write(), "it is not over yet");
        let flush = |connection: &mut Connection| Pin::new(connection).poll_flush(&mut Context::from_waker(&waker)).is_ready();
        assert!(flush(&mut connection));
        let mut write = || Pin::new(&mut connection).poll_write(&mut Context::from_waker(&waker), b"x").is_ready();
        assert!(!write());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it asks for its turn");
        assert!(write() && write(), "all that is to be written goes then");
        assert!(flush(&mut connection));
        drop(one_more);
        assert!(Pin::new(&mut connection).poll_write(&mut Context::from_waker(&waker), b"x").is_ready());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_address_gets_only_its_share_and_loopback_is_free() {
        let limits = Limits { connections: 5, connections_per_address: 2, ..Limits::default() };
        let app = App::new(Arc::new(ManualClock::at(Timestamp::new(0))), limits, Tasks::default());
        let open = Arc::new(Open { app, by_address: Mutex::default() });
        let take = |address: &str| Place::take(&open, address.parse().unwrap());
        let first = take("10.0.0.1").unwrap();
        let _second = take("10.0.0.1").unwrap();
        assert!(take("10.0.0.1").is_none(), "its share is used up");
        let _other = take("10.0.0.2").unwrap();
        drop(first);
        let _again = take("10.0.0.1").unwrap();
        let _local = [take("127.0.0.1").unwrap(), take("127.0.0.1").unwrap()];
        assert!(take("127.0.0.1").is_none(), "but nobody gets more than there is");
    }
}
