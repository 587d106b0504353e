//! A path of TCP connections that counts what both sockets carry, and can stand still or break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes of one end of a path, as its sockets counted them.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What the node at this end has sent.
    sent: AtomicU64,
    /// What the node at this end was given.
    given: AtomicU64,
}

impl End {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

/// What the path does to its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weather {
    is_stalled: bool,
    /// Number of cuts so far.
    cuts: u64,
}

/// One path, from whoever dials it to a fixed address.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) dialler: Arc<End>,
    pub(crate) listener: Arc<End>,
    weather: watch::Sender<Weather>,
    _connections: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let (weather, forecast) = watch::channel(Weather::default());
        let (dialler, listener) = (Arc::<End>::default(), Arc::<End>::default());
        let ends = (Arc::clone(&dialler), Arc::clone(&listener));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = socket.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(client, target, ends.clone(), forecast.clone()));
            }
        });
        Ok(Self { address, dialler, listener, weather, _connections: accepting })
    }

    /// Lets nothing through from now on, or everything again.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.weather.send_modify(|weather| weather.is_stalled = is_stalled);
    }

    /// Breaks every connection there is.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }
}

/// Carries one connection until one side ends it or the path is cut.
async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    (dialler, listener): (Arc<End>, Arc<End>),
    mut forecast: watch::Receiver<Weather>,
) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cuts = forecast.borrow_and_update().cuts;
    let weather = (forecast.clone(), forecast.clone());
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = pass(from_client, &dialler, to_server, &listener, weather.0) => {}
            () = pass(from_server, &listener, to_client, &dialler, weather.1) => {}
            _ = forecast.wait_for(|weather| weather.cuts != cuts) => {}
        }
    }
    // A reset, so that nothing that is under way arrives.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
}

/// Passes on what one end sends to the other.
async fn pass(
    mut from: ReadHalf<'_>,
    sender: &End,
    mut to: WriteHalf<'_>,
    taker: &End,
    mut forecast: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        sender.sent.fetch_add(read as u64, Ordering::Relaxed);
        if forecast.wait_for(|weather| !weather.is_stalled).await.is_err() {
            return;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let Ok(written @ 1..) = to.write(rest).await else { return };
            taker.given.fetch_add(written as u64, Ordering::Relaxed);
            rest = &rest[written..];
        }
    }
    let _ = to.shutdown().await;
}
