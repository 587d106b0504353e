//! A log in memory that a test can make do otherwise, and a node that meets nobody.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sorcha_peer::error::StoreError;
use sorcha_peer::ports::{IndexEntry, NewEntry, Page, StoreLease, TransactionStore, Usage};
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::types::WallTime;
use sorcha_peer::{
    Cursor, Identity, Item, PeerNode, PeerNodeBuilder, StartAt, Storage, Topic, Transaction,
    TransactionId,
};

/// A node that meets nobody.
pub(crate) fn alone(identity: &Identity) -> PeerNodeBuilder {
    let transport = MemoryNetwork::new().transport(identity.peer_id());
    PeerNode::builder().transport(Arc::new(transport)).identity(identity.clone()).dial_only()
}

/// Payloads of a subscription from the start, `count` of them.
pub(crate) async fn delivered(node: &PeerNode, count: usize) -> Vec<String> {
    let mut all = node.subscribe("t", StartAt::Earliest).await.unwrap();
    let mut texts = Vec::new();
    while texts.len() < count {
        match all.next().await {
            Some(Item::Delivery(d)) => {
                texts.push(String::from_utf8(d.transaction.payload().to_vec()).unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
    texts
}

/// Behaviour in which a [`Hooked`] log differs.
#[async_trait]
pub(crate) trait Hooks: fmt::Debug + Send + Sync + 'static {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        log.append(entries).await
    }

    async fn read(
        &self,
        log: &dyn TransactionStore,
        topic: Option<&Topic>,
        after: Cursor,
        room: (usize, usize),
    ) -> Result<Page, StoreError> {
        log.read(topic, after, room.0, room.1).await
    }

    async fn get(
        &self,
        log: &dyn TransactionStore,
        id: &TransactionId,
    ) -> Result<Option<Transaction>, StoreError> {
        log.get(id).await
    }

    async fn expire(&self, log: &dyn TransactionStore, now: WallTime) -> Result<u64, StoreError> {
        log.expire(now).await
    }
}

/// A log in memory with hooks.
#[derive(Debug)]
pub(crate) struct Hooked<H> {
    pub(crate) inner: Arc<dyn TransactionStore>,
    pub(crate) hooks: H,
}

impl<H> Hooked<H> {
    pub(crate) fn new(hooks: H) -> Arc<Self> {
        Self::bounded(hooks, None)
    }

    pub(crate) fn bounded(hooks: H, max_bytes: Option<u64>) -> Arc<Self> {
        Arc::new(Self { inner: Storage::memory_transactions(max_bytes), hooks })
    }
}

#[async_trait]
impl<H: Hooks> TransactionStore for Hooked<H> {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        self.hooks.append(&*self.inner, entries).await
    }
    async fn probe(&self) -> Result<bool, StoreError> {
        self.hooks.append(&*self.inner, &[]).await.map(|_| true)
    }
    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.hooks.get(&*self.inner, id).await
    }
    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.hooks.read(&*self.inner, topic, after, (max_entries, max_bytes)).await
    }
    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        self.inner.index(after, limit).await
    }
    async fn newest(&self) -> Result<Cursor, StoreError> {
        self.inner.newest().await
    }
    fn lease(&self) -> Option<&StoreLease> {
        self.inner.lease()
    }
    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }
    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        self.hooks.expire(&*self.inner, now).await
    }
    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        self.inner.load_cursor(name).await
    }
    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.inner.save_cursor(name, cursor).await
    }
    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove_cursor(name).await
    }
}
