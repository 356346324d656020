//! A cable between client and server that can be cut, and that can keep answers back.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What the cable does to the connections that began under this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Connections of an older generation are cut.
    generation: u32,
    /// Nothing from the server comes through.
    answers_held: bool,
    /// Where new connections lead.
    server: SocketAddr,
}

/// The cable; its connections end with it.
pub struct Proxy {
    /// Where clients connect.
    pub url: String,
    state: watch::Sender<State>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// A cable to the server at `url`.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State { generation: 0, answers_held: false, server: address_of(url) });
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, watched.clone()));
            }
        });
        Self { url: format!("http://{address}"), state, _accepting: accepting }
    }

    /// Keeps back what the server says, on all connections.
    pub fn hold_answers(&self) {
        self.state.send_modify(|state| state.answers_held = true);
    }

    /// Cuts all connections; new ones work.
    pub fn cut(&self) {
        self.state.send_modify(|state| *state = State { generation: state.generation + 1, answers_held: false, ..*state });
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, url: &str) {
        let server = address_of(url);
        self.state.send_modify(|state| state.server = server);
    }
}

fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

async fn connect(mut client: TcpStream, state: watch::Receiver<State>) {
    let mut cut = state.clone();
    let State { generation, server, .. } = *state.borrow();
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let answers = async {
        let mut bytes = [0; 4096];
        loop {
            let count = from_server.read(&mut bytes).await?;
            // What is held here is lost with the connection.
            if count == 0 || state.clone().wait_for(|state| !state.answers_held || state.generation > generation).await.is_err() {
                return Ok::<(), io::Error>(());
            }
            to_client.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|state| state.generation > generation) => {}
        _ = requests => {}
        _ = answers => {}
    }
}
