//! A node that is made up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::compat::{Backend, HandlerFailure, KnownPeer};
use crate::error::{PublishError, StoreError, StoreErrorKind};
use crate::identity::Identity;
use crate::ports::{Page, Storage, TransactionStore};
use crate::types::{
    Cursor, Endpoint, Header, LinkStatus, Mode, NewEntry, PeerId, Stats, Topic, Transaction,
    TransactionId, WallTime,
};

/// Time by its clock.
pub(super) const NOW: WallTime = WallTime::from_millis(1_700_000_000_123);
const LATER: WallTime = WallTime::from_millis(1_800_000_000_000);

/// A node with a log and one peer, and handlers for status updates.
#[derive(Debug)]
pub(super) struct FakeNode {
    identity: Identity,
    pub(super) log: Arc<dyn TransactionStore>,
    newest: watch::Sender<Cursor>,
    created: AtomicU32,
    /// True: the log cannot be read.
    pub(super) is_broken: AtomicBool,
    /// Requests that the handler got: caller and body.
    pub(super) handled: Mutex<Vec<(String, Bytes)>>,
}

impl FakeNode {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            identity: Identity::from_seed([1; 32]),
            log: Storage::memory_transactions(None),
            newest: watch::Sender::default(),
            created: AtomicU32::new(0),
            is_broken: AtomicBool::new(false),
            handled: Mutex::default(),
        })
    }

    /// The one native peer that it knows.
    pub(super) fn peer() -> PeerId {
        Identity::from_seed([2; 32]).peer_id()
    }

    /// Own address, at which it says it is.
    pub(super) fn own_address() -> Endpoint {
        "203.0.113.1:5001".parse().unwrap()
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Io, "on purpose"));
        }
        Ok(())
    }

    /// Puts a transaction into the log.
    pub(super) async fn put(
        &self,
        topic: &str,
        payload: Bytes,
    ) -> Result<TransactionId, PublishError> {
        self.check()?;
        let topic = Topic::new(topic)?;
        // Two publishes of the same bytes are two transactions.
        let nth = self.created.fetch_add(1, Ordering::Relaxed);
        let created = NOW.plus(Duration::from_millis(nth.into()));
        let header = Header::new(topic, self.peer_id(), created, LATER, &payload);
        let transaction = self.identity.sign_transaction(header, payload).unwrap();
        let id = transaction.id();
        let entry = NewEntry::new(transaction, None, 0, LATER);
        let cursors = self.log.append(&[entry]).await?;
        self.newest.send_replace(cursors[0]);
        Ok(id)
    }
}

#[async_trait]
impl Backend for FakeNode {
    fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    fn now(&self) -> WallTime {
        NOW
    }

    fn mode(&self) -> Option<Mode> {
        Some(Mode::Offline)
    }

    async fn status(&self) -> Option<(Stats, Vec<LinkStatus>)> {
        None
    }

    async fn peers(&self) -> Vec<KnownPeer> {
        vec![KnownPeer {
            peer: Self::peer(),
            endpoint: "[2001:db8::7]:5001".parse().unwrap(),
            is_linked: true,
            is_bootstrap: true,
            last_seen: NOW,
        }]
    }

    async fn publish(&self, topic: &str, payload: Bytes) -> Result<TransactionId, PublishError> {
        let id = self.put(topic, payload).await?;
        // As from a node, the answer comes when others may have seen it in the log.
        tokio::task::yield_now().await;
        Ok(id)
    }

    async fn get(&self, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.check()?;
        self.log.get(&id).await
    }

    async fn page(&self, after: Cursor, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        self.check()?;
        self.log.read(None, after, entries, bytes).await
    }

    fn news(&self) -> Option<watch::Receiver<Cursor>> {
        Some(self.newest.subscribe())
    }

    fn is_own(&self, endpoint: &Endpoint) -> bool {
        *endpoint == Self::own_address()
    }

    async fn request(
        &self,
        protocol: &str,
        body: Bytes,
        caller: &str,
        _within: Duration,
    ) -> Result<Bytes, HandlerFailure> {
        match protocol {
            "sorcha.message.4" => {
                self.handled.lock().unwrap().push((caller.to_owned(), body.clone()));
                Ok(body)
            }
            "sorcha.message.0" => match &body[..] {
                b"large" => Err(HandlerFailure::TooLarge { limit: 4 }),
                b"fail" => Err(HandlerFailure::Failed),
                b"closed" => Err(HandlerFailure::Closed),
                _ => Err(HandlerFailure::NotServed),
            },
            other => panic!("nobody asks for {other}"),
        }
    }
}
