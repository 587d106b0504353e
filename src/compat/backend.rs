//! The node, as clients of the original see it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::error::{PublishError, StoreError};
use crate::ports::Page;
use crate::types::{
    Cursor, Endpoint, LinkStatus, Mode, PeerId, Stats, Transaction, TransactionId, WallTime,
};

/// Peer that the node knows, with an address.
#[derive(Debug, Clone)]
pub(crate) struct KnownPeer {
    /// Id of the peer.
    pub(crate) peer: PeerId,
    /// Address of the peer.
    pub(crate) endpoint: Endpoint,
    /// True: there is a link to it.
    pub(crate) is_linked: bool,
    /// True: it is one of the configured first contacts.
    pub(crate) is_bootstrap: bool,
    /// Time when it was last heard of.
    pub(crate) last_seen: WallTime,
}

/// Reason why no handler of the host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandlerFailure {
    /// Nobody serves the protocol.
    NotServed,
    /// The body is above what is taken.
    TooLarge {
        /// Number of bytes that are taken.
        limit: u64,
    },
    /// The handler refused, or failed, or was too slow.
    Failed,
    /// The node is shut down.
    Closed,
}

/// What the operations need of the node.
#[async_trait]
pub(crate) trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Id of the node.
    fn peer_id(&self) -> PeerId;

    /// Time by the node's clock.
    fn now(&self) -> WallTime;

    /// Connection of the node to its network; `None` once the node is stopping.
    fn mode(&self) -> Option<Mode>;

    /// Figures of the node and its links; `None` once the node is stopping.
    async fn status(&self) -> Option<(Stats, Vec<LinkStatus>)>;

    /// Peers that are linked, and known ones with an address.
    async fn peers(&self) -> Vec<KnownPeer>;

    /// Publishes a transaction of the node's own, unsigned where the policy allows it.
    async fn publish(&self, topic: &str, payload: Bytes) -> Result<TransactionId, PublishError>;

    /// Transaction by its id.
    async fn get(&self, id: TransactionId) -> Result<Option<Transaction>, StoreError>;

    /// Reads the retained log after a cursor, at most this many transactions; beyond the first, at most
    /// this many bytes of payload.
    async fn page(&self, after: Cursor, entries: usize, bytes: usize) -> Result<Page, StoreError>;

    /// The newest cursor of the log, as it changes; `None` once the node is stopping.
    fn news(&self) -> Option<watch::Receiver<Cursor>>;

    /// Reports whether an endpoint is one of this node's own.
    fn is_own(&self, endpoint: &Endpoint) -> bool;

    /// Hands a request to the host's handler of a protocol.
    async fn request(
        &self,
        protocol: &str,
        body: Bytes,
        caller: &str,
        within: Duration,
    ) -> Result<Bytes, HandlerFailure>;
}
