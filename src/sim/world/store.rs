//! A node's disk: what survives a crash.

use std::collections::BTreeMap;

use crate::protocol::{GivenUp, Queued, Restored};
use crate::types::{
    Ban, Cursor, Endpoint, EntryState, IndexEntry, KeptPartial, NewEntry, Partial, PeerId, Piece,
    StoredPeer, TopicKey, Transaction, TransactionId, WallTime,
};

use crate::sim::id_map::IdMap;

/// An entry of the outbox.
#[derive(Debug)]
struct OutboxEntry {
    seq: u64,
    queued: Queued,
    transaction: Transaction,
}

/// Everything a node has written.
#[derive(Debug, Default)]
pub(super) struct Store {
    log: BTreeMap<u64, NewEntry>,
    by_id: IdMap<TransactionId, u64>,
    newest: u64,
    outbox: BTreeMap<TransactionId, OutboxEntry>,
    /// Entries that the outbox has ever had.
    appended: u64,
    peers: BTreeMap<PeerId, StoredPeer>,
    bans: BTreeMap<PeerId, Ban>,
    /// Times since which and until which the node was whole.
    past: (Option<WallTime>, Option<WallTime>),
    /// Partial payloads, oldest first.
    partials: Vec<Partial>,
}

impl Store {
    /// Appends an entry; `None` when its id is there already.
    pub(super) fn append(&mut self, entry: NewEntry, own: bool) -> Option<Cursor> {
        let id = entry.transaction.id();
        if own {
            self.appended += 1;
            self.outbox.entry(id).or_insert_with(|| OutboxEntry {
                seq: self.appended,
                queued: Queued {
                    id,
                    created: entry.transaction.header().created,
                    attempts: 0,
                    dead: None,
                    unlogged: false,
                },
                transaction: entry.transaction.clone(),
            });
        }
        if self.by_id.contains_key(&id) {
            return None;
        }
        self.newest += 1;
        self.by_id.insert(id, self.newest);
        self.log.insert(self.newest, entry);
        Some(Cursor(self.newest))
    }

    /// Payload bytes kept, of all or of one origin.
    pub(super) fn bytes(&self, of: Option<&PeerId>) -> u64 {
        let wanted = self.log.values().map(|e| &e.transaction);
        let wanted = wanted.filter(|t| of.is_none_or(|origin| t.origin() == *origin));
        wanted.map(|t| t.header().payload_len).sum()
    }

    pub(super) fn get(&self, id: &TransactionId) -> Option<&Transaction> {
        Some(&self.log.get(self.by_id.get(id)?)?.transaction)
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Ids that may not be forgotten at `now`.
    pub(super) fn unexpired(&self, now: WallTime) -> impl Iterator<Item = TransactionId> + '_ {
        self.log.values().filter(move |e| e.keep_until > now).map(|e| e.transaction.id())
    }

    /// Forgets what may go at `now`; returns what that was.
    pub(super) fn expire(&mut self, now: WallTime) -> Vec<TransactionId> {
        let expired = self.log.values().filter(|e| e.keep_until <= now).map(|e| e.transaction.id());
        let expired: Vec<_> = expired.collect();
        self.partials.retain(|partial| partial.keep_until > now);
        self.log.retain(|_, entry| entry.keep_until > now);
        for id in &expired {
            self.by_id.remove(id);
        }
        expired
    }

    pub(super) fn put_partial(&mut self, mut new: Partial, max_bytes: u64) {
        if let Some(at) = self.partials.iter().position(|p| p.id == new.id) {
            let old = self.partials.remove(at);
            new.pieces.extend(old.pieces);
        }
        self.partials.push(new);
        let bytes = |p: &Partial| p.pieces.iter().map(|p| p.bytes.len() as u64).sum::<u64>();
        while self.partials.iter().map(bytes).sum::<u64>() > max_bytes {
            self.partials.remove(0);
        }
    }

    pub(super) fn partial(&self, id: &TransactionId) -> Vec<Piece> {
        let found = self.partials.iter().find(|p| p.id == *id);
        found.map(|p| p.pieces.clone()).unwrap_or_default()
    }

    pub(super) fn drop_partials(&mut self, ids: &[TransactionId]) {
        self.partials.retain(|p| !ids.contains(&p.id));
    }

    pub(super) fn forget_partials(&mut self) {
        self.partials.clear();
    }

    /// Partial payloads kept.
    pub(super) fn partials(&self) -> usize {
        self.partials.len()
    }

    pub(super) fn confirm(&mut self, ids: &[TransactionId]) {
        for id in ids {
            self.outbox.remove(id);
        }
    }

    pub(super) fn update(&mut self, states: &[(TransactionId, EntryState)]) {
        for (id, state) in states {
            let Some(OutboxEntry { queued, .. }) = self.outbox.get_mut(id) else { continue };
            (queued.attempts, queued.dead) = match state {
                EntryState::Waiting { attempts, .. } => (*attempts, None),
                EntryState::Dead { reason, .. } => (queued.attempts, Some(GivenUp::of(reason))),
            };
        }
    }

    pub(super) fn save_past(&mut self, since: WallTime, until: Option<WallTime>) {
        self.past = (Some(since), until);
    }

    pub(super) fn save_peer(&mut self, peer: StoredPeer) {
        self.peers.insert(peer.peer, peer);
    }

    pub(super) fn record_seq(&self, peer: &PeerId) -> Option<u64> {
        Some(self.peers.get(peer)?.record.as_ref()?.draft.seq)
    }

    pub(super) fn record_endpoints(&self, peer: &PeerId) -> Vec<Endpoint> {
        let record = self.peers.get(peer).and_then(|stored| stored.record.as_ref());
        record.map(|record| record.draft.endpoints.clone()).unwrap_or_default()
    }

    pub(super) fn forget_peer(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    pub(super) fn save_ban(&mut self, ban: Ban) {
        self.bans.insert(ban.peer, ban);
    }

    pub(super) fn lift_ban(&mut self, peer: &PeerId) {
        self.bans.remove(peer);
    }

    /// Transaction that waits for copies under this id.
    pub(super) fn queued(&self, id: &TransactionId) -> Option<&Transaction> {
        self.outbox.get(id).map(|kept| &kept.transaction)
    }

    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// State that a node which starts on this disk is given.
    pub(super) fn restored(&self, max_bytes: Option<u64>) -> Restored {
        let entry = |(cursor, e): (&u64, &NewEntry)| IndexEntry {
            cursor: Cursor(*cursor),
            id: e.transaction.id(),
            origin: e.transaction.origin(),
            topic: TopicKey::of(e.transaction.topic()),
            size: e.transaction.header().payload_len,
            hops: e.hops,
            created: e.transaction.header().created,
            keep_until: e.keep_until,
        };
        let mut outbox: Vec<_> = self.outbox.values().collect();
        outbox.sort_unstable_by_key(|kept| kept.seq);
        Restored {
            peers: self.peers.values().cloned().collect(),
            bans: self.bans.values().cloned().collect(),
            index: self.log.iter().map(entry).collect(),
            outbox: outbox.into_iter().map(|kept| kept.queued).collect(),
            max_bytes,
            whole_since: self.past.0,
            whole_until: self.past.1,
            partials: Some(
                self.partials
                    .iter()
                    .map(|p| KeptPartial { id: p.id, keep_until: p.keep_until })
                    .collect(),
            ),
            ..Restored::default()
        }
    }
}
