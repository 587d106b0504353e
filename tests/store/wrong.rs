//! Stores that each do one thing wrong, and what the suites say to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sorcha_peer::error::{FailureKind, ProbeError, StoreError, StoreErrorKind};
use sorcha_peer::ports::{
    Ban, EntryFilter, EntryState, IndexEntry, NatProber, NewEntry, OutboxEntry, Page, PeerStore,
    QueueSize, StoredPeer, TransactionQueue, TransactionStore, Usage,
};
use sorcha_peer::types::{Header, Signature, WallTime};
use sorcha_peer::{
    Cursor, PeerId, Storage, Topic, Transaction, TransactionId, Validator, Verdict, testing,
};

use crate::hooked_queue::{HookedQueue, QueueHooks};

/// Returns what a suite says, if it says anything.
async fn verdict(suite: impl Future<Output = ()> + Send + 'static) -> Option<String> {
    let panicked = tokio::spawn(suite).await.err()?.into_panic();
    let text = panicked.downcast_ref::<String>().cloned();
    Some(
        text.or_else(|| panicked.downcast_ref::<&str>().map(|&t| t.to_owned())).unwrap_or_default(),
    )
}

#[track_caller]
fn assert_said(what: impl std::fmt::Debug, said: Option<&str>, words: &str) {
    assert!(said.is_some_and(|said| said.contains(words)), "{what:?}: {said:?}, not {words:?}");
}

fn refused() -> StoreError {
    StoreError::new(StoreErrorKind::Io, "told to")
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum QueueFlaw {
    /// Old entries go to make room.
    DropsOld,
    /// There is no bound.
    NoBound,
    /// What fits of a call that does not fit is taken.
    TakesPart,
    /// An id that is there is an error.
    RefusesRepeats,
    /// A repeated id gets a new number.
    RenumbersRepeats,
    /// A call that is dropped has done a part.
    DropsHalf,
    /// Pages have any number of bytes.
    LargePages,
    /// Dead letters are listed as waiting.
    OneKind,
    /// The order is that of the latest change.
    OrderOfStates,
    /// An unknown id is an error.
    RefusesUnknown,
}

const MAX_ENTRIES: usize = 20;

#[async_trait]
impl QueueHooks for QueueFlaw {
    async fn append(
        &self,
        queue: &dyn TransactionQueue,
        transactions: &[Transaction],
    ) -> Result<Vec<u64>, StoreError> {
        match *self {
            QueueFlaw::RefusesRepeats | QueueFlaw::RenumbersRepeats => {
                for transaction in transactions {
                    if queue.get(&transaction.id()).await?.is_some() {
                        if *self == QueueFlaw::RefusesRepeats {
                            return Err(refused());
                        }
                        queue.remove(&[transaction.id()]).await?;
                    }
                }
            }
            QueueFlaw::DropsHalf => {
                let mut seqs = Vec::new();
                for transaction in transactions {
                    seqs.extend(queue.append(std::slice::from_ref(transaction)).await?);
                    tokio::task::yield_now().await;
                }
                return Ok(seqs);
            }
            _ => {}
        }
        let result = queue.append(transactions).await;
        match *self {
            QueueFlaw::DropsOld if result.is_err() => {
                let old = queue.load(EntryFilter::All, None, transactions.len(), 1 << 20).await?;
                let old: Vec<_> = old.iter().map(|entry| entry.transaction.id()).collect();
                queue.remove(&old).await?;
                queue.append(transactions).await
            }
            QueueFlaw::TakesPart if result.is_err() => {
                for transaction in transactions {
                    let _ = queue.append(std::slice::from_ref(transaction)).await;
                }
                result
            }
            _ => result,
        }
    }
    async fn update(
        &self,
        queue: &dyn TransactionQueue,
        states: &[(TransactionId, EntryState)],
    ) -> Result<(), StoreError> {
        if *self == QueueFlaw::RefusesUnknown {
            for (id, _) in states {
                queue.get(id).await?.ok_or_else(refused)?;
            }
        }
        queue.update(states).await
    }
    async fn load(
        &self,
        queue: &dyn TransactionQueue,
        filter: EntryFilter,
        after: Option<u64>,
        room: (usize, usize),
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let filter = match (*self, filter) {
            (QueueFlaw::OneKind, EntryFilter::Waiting) => EntryFilter::All,
            _ => filter,
        };
        let max_bytes = if *self == QueueFlaw::LargePages { usize::MAX } else { room.1 };
        let mut found = queue.load(filter, after, room.0, max_bytes).await?;
        if *self == QueueFlaw::OrderOfStates {
            found.sort_by_key(|entry| matches!(entry.state, EntryState::Dead { .. }));
        }
        Ok(found)
    }
    async fn size(&self, queue: &dyn TransactionQueue) -> Result<QueueSize, StoreError> {
        let size = queue.size().await?;
        Ok(QueueSize::new(size.waiting, size.dead, MAX_ENTRIES as u64))
    }
}

#[tokio::test]
async fn wrong_queues_are_found() {
    for (flaw, words) in [
        (QueueFlaw::DropsOld, "the bound holds"),
        (QueueFlaw::NoBound, "the bound holds"),
        (QueueFlaw::TakesPart, "refused is refused"),
        (QueueFlaw::RefusesRepeats, "repeats are fine"),
        (QueueFlaw::RenumbersRepeats, "a repeated id keeps its number"),
        (QueueFlaw::DropsHalf, "that was dropped did 1 of 3"),
        (QueueFlaw::LargePages, "bytes beyond the first"),
        (QueueFlaw::OneKind, "left: "),
        (QueueFlaw::OrderOfStates, "entries come in order"),
        (QueueFlaw::RefusesUnknown, "an unknown id is no error"),
    ] {
        let room = if flaw == QueueFlaw::NoBound { 1000 } else { MAX_ENTRIES };
        let queue = HookedQueue::new(room, flaw);
        let said = verdict(async move { testing::transaction_queue(&queue, MAX_ENTRIES).await });
        assert_said(flaw, said.await.as_deref(), words);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LogFlaw {
    /// Entries go before their time.
    ExpiresEarly,
    /// Entries never go.
    NeverExpires,
    /// A loss is not told.
    SilentLoss,
    /// The loss of one topic is told for all.
    LossOfOthers,
    /// A full page is said to be the end.
    EndsEarly,
    /// `next` stays behind what was read.
    NextBehind,
    /// The newest cursor goes with its entry.
    ForgetsNewest,
    /// An id that is there is an error.
    RefusesRepeats,
    /// Transactions come in any order.
    AnyOrder,
    /// A call that is dropped has done a part.
    DropsHalf,
    /// A named cursor goes back.
    CursorGoesBack,
    /// Any number of names is kept.
    NoBoundOfNames,
}

#[derive(Debug)]
struct WrongLog(Arc<dyn TransactionStore>, LogFlaw);

#[async_trait]
impl TransactionStore for WrongLog {
    async fn append(&self, entries: &[NewEntry]) -> Result<Vec<Cursor>, StoreError> {
        match self.1 {
            LogFlaw::RefusesRepeats => {
                for entry in entries {
                    if self.0.get(&entry.transaction.id()).await?.is_some() {
                        return Err(refused());
                    }
                }
            }
            LogFlaw::DropsHalf => {
                let mut cursors = Vec::new();
                for entry in entries {
                    cursors.extend(self.0.append(std::slice::from_ref(entry)).await?);
                    tokio::task::yield_now().await;
                }
                return Ok(cursors);
            }
            _ => {}
        }
        self.0.append(entries).await
    }
    async fn get(&self, id: &TransactionId) -> Result<Option<Transaction>, StoreError> {
        self.0.get(id).await
    }
    async fn get_many(
        &self,
        ids: &[TransactionId],
    ) -> Result<Vec<Option<Transaction>>, StoreError> {
        let mut found = self.0.get_many(ids).await?;
        if self.1 == LogFlaw::AnyOrder {
            found.reverse();
        }
        Ok(found)
    }
    async fn read(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let mut page = self.0.read(topic, after, max_entries, max_bytes).await?;
        match self.1 {
            LogFlaw::SilentLoss => page.gap_until = None,
            LogFlaw::LossOfOthers => {
                page.gap_until = self.0.read(None, after, usize::MAX, usize::MAX).await?.gap_until;
            }
            LogFlaw::EndsEarly
                if after > Cursor::default() && page.entries.len() == max_entries =>
            {
                page = Page::new(Vec::new(), after);
            }
            LogFlaw::NextBehind => page.next = Cursor(page.next.0.saturating_sub(1)).max(after),
            _ => {}
        }
        Ok(page)
    }
    async fn index(&self, after: Cursor, limit: usize) -> Result<Vec<IndexEntry>, StoreError> {
        self.0.index(after, limit).await
    }
    async fn newest(&self) -> Result<Cursor, StoreError> {
        if self.1 == LogFlaw::ForgetsNewest && self.0.usage().await?.entries == 0 {
            return Ok(Cursor::default());
        }
        self.0.newest().await
    }
    async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.usage().await
    }
    async fn expire(&self, now: WallTime) -> Result<u64, StoreError> {
        match self.1 {
            LogFlaw::ExpiresEarly => self.0.expire(now.plus(Duration::from_secs(1))).await,
            LogFlaw::NeverExpires => Ok(0),
            _ => self.0.expire(now).await,
        }
    }
    async fn load_cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        self.0.load_cursor(name).await
    }
    async fn save_cursor(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        if self.1 == LogFlaw::CursorGoesBack {
            self.0.remove_cursor(name).await?;
        }
        match self.0.save_cursor(name, cursor).await {
            Err(_) if self.1 == LogFlaw::NoBoundOfNames => Ok(()),
            result => result,
        }
    }
    async fn remove_cursor(&self, name: &str) -> Result<(), StoreError> {
        self.0.remove_cursor(name).await
    }
}

#[tokio::test]
async fn wrong_logs_are_found() {
    for (flaw, words) in [
        (LogFlaw::ExpiresEarly, "nothing goes before its time"),
        (LogFlaw::NeverExpires, "entries go when they may"),
        (LogFlaw::SilentLoss, "the loss is reported"),
        (LogFlaw::LossOfOthers, "and no other"),
        (LogFlaw::EndsEarly, "in pages of"),
        (LogFlaw::NextBehind, "`next` is not before what was read"),
        (LogFlaw::ForgetsNewest, "`newest` survives its entry"),
        (LogFlaw::RefusesRepeats, "repeats are fine"),
        (LogFlaw::AnyOrder, "one for each id, in their order"),
        (LogFlaw::DropsHalf, "that was dropped did 1 of 3"),
        (LogFlaw::CursorGoesBack, "cursors only move forward"),
        (LogFlaw::NoBoundOfNames, "the bound holds"),
    ] {
        let log = WrongLog(Storage::memory_transactions(None), flaw);
        let said = verdict(async move { testing::transaction_store(&log, Duration::ZERO).await });
        assert_said(flaw, said.await.as_deref(), words);
    }
}

#[tokio::test]
async fn stores_that_forget_are_found() {
    let said = verdict(testing::durability(async || Storage::memory_queue(9)));
    assert_said("outbox", said.await.as_deref(), "left: 0");
    let said = verdict(testing::durability(async || Storage::memory_transactions(None)));
    assert_said("log", said.await.as_deref(), "the newest cursor survives");
    let said = verdict(testing::durability(async || Storage::memory_peers()));
    assert_said("peers", said.await.as_deref(), "peers are kept as they were stored");
    let said = verdict(testing::durability(async || Storage::default()));
    assert_said("none", said.await.as_deref(), "there is a store");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum PeerFlaw {
    /// The first write wins.
    KeepsFirst,
    /// Peers come in any order.
    AnyOrder,
    /// A call that is dropped has done a part.
    DropsHalf,
    /// A lifted ban stays.
    KeepsBans,
}

#[derive(Debug)]
struct WrongPeers(Arc<dyn PeerStore>, PeerFlaw);

#[async_trait]
impl PeerStore for WrongPeers {
    async fn load(&self) -> Result<(Vec<StoredPeer>, Vec<Ban>), StoreError> {
        let (mut peers, bans) = self.0.load().await?;
        if self.1 == PeerFlaw::AnyOrder {
            peers.reverse();
        }
        Ok((peers, bans))
    }
    async fn upsert(&self, peers: &[StoredPeer]) -> Result<(), StoreError> {
        let known = self.0.load().await?.0;
        for peer in peers {
            if self.1 == PeerFlaw::KeepsFirst && known.iter().any(|k| k.peer == peer.peer) {
                continue;
            }
            self.0.upsert(std::slice::from_ref(peer)).await?;
            if self.1 == PeerFlaw::DropsHalf {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
    async fn remove(&self, peers: &[PeerId]) -> Result<(), StoreError> {
        self.0.remove(peers).await
    }
    async fn put_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        self.0.put_ban(ban).await
    }
    async fn remove_ban(&self, peer: &PeerId) -> Result<(), StoreError> {
        if self.1 == PeerFlaw::KeepsBans { Ok(()) } else { self.0.remove_ban(peer).await }
    }
}

#[tokio::test]
async fn wrong_peer_stores_are_found() {
    for (flaw, words) in [
        (PeerFlaw::KeepsFirst, "peers are kept as they were stored"),
        (PeerFlaw::AnyOrder, "most recently up first"),
        (PeerFlaw::DropsHalf, "that was dropped did 1 of 3"),
        (PeerFlaw::KeepsBans, "one ban was lifted"),
    ] {
        let store = WrongPeers(Storage::memory_peers(), flaw);
        let said = verdict(async move { testing::peer_store(&store).await }).await;
        assert_said(flaw, said.as_deref(), words);
    }
}

/// Judges by whom a transaction comes from, or by how many came before.
#[derive(Debug, Default)]
struct Moody(AtomicU64);

#[async_trait]
impl Validator for Moody {
    async fn validate(&self, _: &Transaction, _: &PeerId) -> Verdict {
        let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Verdict::Accept } else { Verdict::Reject }
    }
}

/// Takes a probe that was dropped for one that is still under way.
#[derive(Debug, Default)]
struct Once(tokio::sync::Mutex<bool>);

#[async_trait]
impl NatProber for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    async fn probe(&self) -> Result<std::net::SocketAddr, ProbeError> {
        if std::mem::replace(&mut *self.0.lock().await, true) {
            return Err(ProbeError::new(FailureKind::Unreachable, "another one is under way"));
        }
        tokio::task::yield_now().await;
        *self.0.lock().await = false;
        Ok("192.0.2.1:7".parse().unwrap())
    }
}

#[tokio::test]
async fn wrong_validators_and_probers_are_found() {
    let payload = Bytes::from_static(b"text");
    let (at, topic) = (WallTime::from_millis(1), Topic::new("t").unwrap());
    let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
    let transaction = Transaction::new(header, Signature::None, payload).unwrap();
    let said = verdict(async move { testing::validator(&Moody::default(), &transaction).await });
    assert_said("validator", said.await.as_deref(), "one verdict");
    let said = verdict(async { testing::nat_prober(&Once::default()).await }).await;
    assert_said("prober", said.as_deref(), "a reachable server answers");
}
