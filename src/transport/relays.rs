//! Relays in use: what they bring, and dials by way of them.
//!
//! Contract: a direct dial to an address that a relay serves is the relay's. What a relay brings goes to the
//! listener of this moment, of which a few wait; with none, and beyond those, the connection is closed.
//!
//! Tested by: `crate::nat::turn::tests::coturn`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::shared::TARGET;
use super::tcp::Stream;
use crate::error::TransportError;

/// Maximum number of connections that wait for the listener.
const INCOMING: usize = 16;

/// Server that listens for this node and dials for it.
pub(crate) trait Relay: Debug + Send + Sync {
    /// Reports whether addresses of this host may be those that it gives others.
    fn serves(&self, ip: IpAddr) -> bool;

    /// Connects by way of it. Cancel safe.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, Result<Stream, TransportError>>;
}

/// Relays of one transport.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relays(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    relays: BTreeMap<u64, Arc<dyn Relay>>,
    /// The listener of this moment.
    incoming: Option<mpsc::Sender<(Stream, SocketAddr)>>,
}

impl Relays {
    /// Adds a relay, for as long as what is returned lives.
    pub(crate) fn enter(&self, relay: Arc<dyn Relay>) -> RelayEntry {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.relays.insert(number, relay);
        drop(state);
        RelayEntry { relays: self.clone(), number }
    }

    /// Takes a connection that a peer made to a relay. Reports whether there was room for it.
    pub(crate) fn accept(&self, stream: Stream, peer: SocketAddr) -> bool {
        let incoming = self.state().incoming.clone();
        let is_taken = incoming.is_some_and(|incoming| incoming.try_send((stream, peer)).is_ok());
        if !is_taken {
            tracing::debug!(target: TARGET, %peer, "nobody takes what a relay brings");
        }
        is_taken
    }

    /// Where relays bring connections, until the next call.
    pub(super) fn listen(&self) -> mpsc::Receiver<(Stream, SocketAddr)> {
        let (incoming, accepted) = mpsc::channel(INCOMING);
        self.state().incoming = Some(incoming);
        accepted
    }

    /// Reports whether there is a relay for this address.
    pub(super) fn serve(&self, ip: IpAddr) -> bool {
        self.state().relays.values().any(|relay| relay.serves(ip))
    }

    /// Connects by way of the relay for this address; `None`: there is none. Cancel safe.
    pub(super) async fn dial(&self, to: SocketAddr) -> Option<Result<Stream, TransportError>> {
        let relay = self.state().relays.values().find(|relay| relay.serves(to.ip())).cloned()?;
        Some(relay.dial(to).await)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Place of a relay among those of its transport.
#[derive(Debug)]
pub(crate) struct RelayEntry {
    relays: Relays,
    number: u64,
}

impl Drop for RelayEntry {
    fn drop(&mut self) {
        self.relays.state().relays.remove(&self.number);
    }
}
