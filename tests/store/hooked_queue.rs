//! An outbox in memory that a test can make do otherwise.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sorcha_peer::error::StoreError;
use sorcha_peer::ports::{EntryFilter, EntryState, OutboxEntry, QueueSize, TransactionQueue};
use sorcha_peer::{Storage, Transaction, TransactionId};

/// Behaviour in which a [`HookedQueue`] differs.
#[async_trait]
pub(crate) trait QueueHooks: fmt::Debug + Send + Sync + 'static {
    async fn append(
        &self,
        queue: &dyn TransactionQueue,
        transactions: &[Transaction],
    ) -> Result<Vec<u64>, StoreError> {
        queue.append(transactions).await
    }

    async fn update(
        &self,
        queue: &dyn TransactionQueue,
        states: &[(TransactionId, EntryState)],
    ) -> Result<(), StoreError> {
        queue.update(states).await
    }

    async fn remove(
        &self,
        queue: &dyn TransactionQueue,
        ids: &[TransactionId],
    ) -> Result<(), StoreError> {
        queue.remove(ids).await
    }

    async fn get(
        &self,
        queue: &dyn TransactionQueue,
        id: &TransactionId,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        queue.get(id).await
    }

    async fn load(
        &self,
        queue: &dyn TransactionQueue,
        filter: EntryFilter,
        after: Option<u64>,
        room: (usize, usize),
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        queue.load(filter, after, room.0, room.1).await
    }

    async fn size(&self, queue: &dyn TransactionQueue) -> Result<QueueSize, StoreError> {
        queue.size().await
    }
}

/// An outbox in memory with hooks.
#[derive(Debug)]
pub(crate) struct HookedQueue<H> {
    pub(crate) inner: Arc<dyn TransactionQueue>,
    pub(crate) hooks: H,
}

impl<H> HookedQueue<H> {
    pub(crate) fn new(max_entries: usize, hooks: H) -> Self {
        Self { inner: Storage::memory_queue(max_entries), hooks }
    }
}

#[async_trait]
impl<H: QueueHooks> TransactionQueue for HookedQueue<H> {
    async fn append(&self, transactions: &[Transaction]) -> Result<Vec<u64>, StoreError> {
        self.hooks.append(&*self.inner, transactions).await
    }
    async fn update(&self, states: &[(TransactionId, EntryState)]) -> Result<(), StoreError> {
        self.hooks.update(&*self.inner, states).await
    }
    async fn remove(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        self.hooks.remove(&*self.inner, ids).await
    }
    async fn get(&self, id: &TransactionId) -> Result<Option<OutboxEntry>, StoreError> {
        self.hooks.get(&*self.inner, id).await
    }
    async fn load(
        &self,
        filter: EntryFilter,
        after: Option<u64>,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        self.hooks.load(&*self.inner, filter, after, (max_entries, max_bytes)).await
    }
    async fn size(&self) -> Result<QueueSize, StoreError> {
        self.hooks.size(&*self.inner).await
    }
}
