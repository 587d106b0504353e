//! What checkers note of transactions.

use crate::protocol::Ticket;
use crate::sim::id_map::IdMap;
use crate::sim::node_set::NodeSet;
use crate::types::{NewEntry, RangeContent, Reconcile, TransactionId};

/// Pairs of node and transaction, one bit each.
#[derive(Debug, Default)]
pub(super) struct Marks(IdMap<TransactionId, NodeSet>);

impl Marks {
    pub(super) fn insert(&mut self, node: usize, id: TransactionId) -> bool {
        self.0.entry(id).or_default().insert(node)
    }

    pub(super) fn remove(&mut self, node: usize, id: &TransactionId) {
        if let Some(nodes) = self.0.get_mut(id) {
            nodes.remove(node);
        }
    }

    pub(super) fn contains(&self, node: usize, id: &TransactionId) -> bool {
        self.0.get(id).is_some_and(|nodes| nodes.contains(node))
    }

    /// A node starts with these and no others.
    pub(super) fn restart(&mut self, node: usize, stored: &[TransactionId]) {
        self.0.values_mut().for_each(|nodes| {
            nodes.remove(node);
        });
        for id in stored {
            self.insert(node, *id);
        }
    }
}

/// Transactions that completions will come back for.
pub(super) type Waiting = IdMap<(usize, Ticket), TransactionId>;

/// Transactions that the store is taking, all of a ticket together.
pub(super) type Storing = IdMap<(usize, Ticket), Vec<TransactionId>>;

/// Ids of own transactions that the store is to take.
pub(super) fn ids_of(entries: &[NewEntry]) -> Vec<TransactionId> {
    entries.iter().map(|entry| entry.transaction.id()).collect()
}

/// Ids that a reconciliation message lists.
pub(super) fn listed(ranges: &Reconcile) -> Vec<TransactionId> {
    let ids = ranges.ranges.iter().filter_map(|range| match &range.content {
        RangeContent::All(ids) | RangeContent::Rest(ids) => Some(ids),
        _ => None,
    });
    ids.flatten().map(|(id, _)| *id).collect()
}
