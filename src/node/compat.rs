//! The node as clients of the original see it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clock::wall_now;
use super::handle::{PeerNode, Request, WeakPeerNode};
use super::handlers::answer;
use super::messages::Command;
use crate::compat::{Backend, HandlerFailure, KnownPeer};
use crate::error::{PublishError, StoreError, StoreErrorKind};
use crate::ports::{Page, TransactionStore};
use crate::types::{
    Cursor, Endpoint, LinkStatus, Mode, PeerId, Stats, Transaction, TransactionId, WallTime,
};

/// A node that is set once it runs, and not kept alive by its clients.
pub(super) struct NodeBackend {
    peer_id: PeerId,
    node: OnceLock<WeakPeerNode>,
}

impl NodeBackend {
    pub(super) fn new(peer_id: PeerId) -> Arc<Self> {
        Arc::new(Self { peer_id, node: OnceLock::new() })
    }

    /// Sets the node. Only the first call counts.
    pub(super) fn attach(&self, node: &PeerNode) {
        let is_first = self.node.set(node.downgrade()).is_ok();
        debug_assert!(is_first, "a service is that of one node");
    }

    fn node(&self) -> Option<PeerNode> {
        self.node.get()?.upgrade()
    }

    fn log(&self) -> Result<Arc<dyn TransactionStore>, StoreError> {
        let closed = || StoreError::new(StoreErrorKind::Closed, "the node is shut down");
        self.node().map(|node| Arc::clone(&node.0.log)).ok_or_else(closed)
    }

    async fn known_peers(node: &PeerNode) -> Option<Vec<KnownPeer>> {
        let (reply, answer) = oneshot::channel();
        node.command(Command::KnownPeers { reply }).await.ok()?;
        let mut links = node.peers().await.ok()?;
        let is_linked = |peer| links.iter().any(|link: &LinkStatus| link.peer == peer);
        let known = answer.await.ok()?.into_iter().map(|(peer, endpoint, seen, is_bootstrap)| {
            let last_seen = seen.unwrap_or_default();
            let is_linked = is_linked(peer);
            KnownPeer { peer, endpoint, is_linked, is_bootstrap, last_seen }
        });
        let mut known: Vec<_> = known.collect();
        // Those that nobody can dial are shown where their connection comes from.
        links.retain(|link| !known.iter().any(|known| known.peer == link.peer));
        let now = node.0.clock.now();
        known.extend(links.into_iter().filter_map(|link| {
            let endpoint = link.address?.parse().ok()?;
            let peer = link.peer;
            Some(KnownPeer { peer, endpoint, is_linked: true, is_bootstrap: false, last_seen: now })
        }));
        Some(known)
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    fn now(&self) -> WallTime {
        self.node().map_or_else(wall_now, |node| node.0.clock.now())
    }

    fn mode(&self) -> Option<Mode> {
        self.node().filter(|node| !node.is_closed()).map(|node| node.mode())
    }

    async fn status(&self) -> Option<(Stats, Vec<LinkStatus>)> {
        self.node()?.overview().await.ok()
    }

    async fn peers(&self) -> Vec<KnownPeer> {
        match self.node() {
            Some(node) => Self::known_peers(&node).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    async fn publish(&self, topic: &str, payload: Bytes) -> Result<TransactionId, PublishError> {
        let node = self.node().ok_or(PublishError::Closed)?;
        Ok(node.publish(topic, payload).await?.id())
    }

    async fn get(&self, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.log()?.get(&id).await
    }

    async fn page(&self, after: Cursor, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        self.log()?.read(None, after, entries, bytes).await
    }

    fn news(&self) -> Option<watch::Receiver<Cursor>> {
        self.node().map(|node| node.0.news.newest.clone())
    }

    fn is_own(&self, endpoint: &Endpoint) -> bool {
        let Some(node) = self.node() else { return false };
        if node.0.config.listen.advertise.iter().any(|own| own.with_pin(None) == *endpoint) {
            return true;
        }
        let own = [node.0.listening, node.0.listening_http];
        let Some(address) = endpoint.socket_addr() else { return false };
        own.into_iter().flatten().any(|own| {
            let is_here = own.ip().is_unspecified() && address.ip().is_loopback();
            own.port() == address.port() && (is_here || own.ip() == address.ip())
        })
    }

    async fn request(
        &self,
        protocol: &str,
        body: Bytes,
        caller: &str,
        within: Duration,
    ) -> Result<Bytes, HandlerFailure> {
        let node = self.node().filter(|node| !node.is_closed()).ok_or(HandlerFailure::Closed)?;
        let handler = node.0.handlers.get(protocol).ok_or(HandlerFailure::NotServed)?;
        let limit = node.0.config.messages.max_bytes;
        if body.len() as u64 > limit {
            return Err(HandlerFailure::TooLarge { limit });
        }
        let within = within.min(node.0.config.messages.timeout);
        let mut ended = node.0.ended.clone();
        drop(node);
        let request = Request::of_client(caller.to_owned(), protocol.to_owned(), body, within);
        // A task of its own, as for peers: a handler that blocks holds up no connection.
        let mut task = JoinSet::new();
        task.spawn(answer(handler, request));
        tokio::select! {
            handled = timeout(within, task.join_next()) => match handled {
                Ok(Some(Ok(Ok(body)))) => Ok(body),
                _ => Err(HandlerFailure::Failed),
            },
            _ = ended.changed() => Err(HandlerFailure::Closed),
        }
    }
}

impl fmt::Debug for NodeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBackend").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}
