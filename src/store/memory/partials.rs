//! Partial payloads in memory, in the order in which they were last added to.

use std::collections::{BTreeMap, HashMap};

use crate::error::StoreError;
use crate::ports::{KeptPartial, Partial};
use crate::store::limits::partial_too_large;
use crate::types::{Piece, TransactionId, WallTime};

#[derive(Debug, Default)]
pub(super) struct Partials {
    last_number: u64,
    by_id: HashMap<TransactionId, u64>,
    all: BTreeMap<u64, Stored>,
    bytes: u64,
}

#[derive(Debug)]
struct Stored {
    id: TransactionId,
    keep_until: WallTime,
    pieces: BTreeMap<u32, Piece>,
}

impl Stored {
    fn bytes(&self) -> u64 {
        self.pieces.values().map(|p| (p.bytes.len() + p.proof.len()) as u64).sum()
    }
}

impl Partials {
    pub(super) fn list(&self) -> Vec<KeptPartial> {
        let shown = |stored: &Stored| KeptPartial { id: stored.id, keep_until: stored.keep_until };
        self.all.values().map(shown).collect()
    }

    pub(super) fn put(&mut self, new: &Partial, most: u64) -> Result<(), StoreError> {
        let old = self.by_id.get(&new.id).and_then(|number| self.all.get(number));
        let mut pieces = old.map(|old| old.pieces.clone()).unwrap_or_default();
        for piece in &new.pieces {
            pieces.entry(piece.index).or_insert_with(|| piece.clone());
        }
        let stored = Stored { id: new.id, keep_until: new.keep_until, pieces };
        if stored.bytes() > most {
            return Err(partial_too_large(most));
        }
        self.remove(&new.id);
        self.last_number += 1;
        self.by_id.insert(new.id, self.last_number);
        self.bytes += stored.bytes();
        self.all.insert(self.last_number, stored);
        while self.bytes > most
            && let Some(oldest) = self.all.values().next().map(|stored| stored.id)
        {
            self.remove(&oldest);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &TransactionId) -> Vec<Piece> {
        let stored = self.by_id.get(id).and_then(|number| self.all.get(number));
        stored.map(|stored| stored.pieces.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, id: &TransactionId) {
        let stored = self.by_id.remove(id).and_then(|number| self.all.remove(&number));
        let bytes = stored.map_or(0, |stored| stored.bytes());
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn expire(&mut self, now: WallTime) {
        let ended =
            self.all.values().filter(|stored| stored.keep_until <= now).map(|stored| stored.id);
        for id in ended.collect::<Vec<_>>() {
            self.remove(&id);
        }
    }
}
