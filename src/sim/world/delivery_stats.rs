//! Which nodes hold each transaction, and the figures that follow from it.

use std::time::Duration;

use crate::types::{TopicKey, Transaction, TransactionId, WallTime};

use crate::sim::id_map::IdMap;
use crate::sim::node_set::NodeSet;

/// Nodes that hold one transaction, and what the world knows of it.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pub(super) published_at: Duration,
    pub(super) topic: TopicKey,
    pub(super) size: u64,
    /// Set once a store has it.
    pub(super) keep_until: Option<WallTime>,
    pub(super) holders: NodeSet,
    is_withdrawn: bool,
    /// One copy of its bytes for all disks that hold them: thousands of nodes fit into memory.
    whole: Option<Transaction>,
}

impl Coverage {
    fn is_live(&self, now: WallTime) -> bool {
        !self.is_withdrawn && self.keep_until.is_some_and(|until| until > now)
    }
}

/// Coverage of all transactions that were ever published.
#[derive(Debug, Default)]
pub(super) struct CoverageTable(IdMap<TransactionId, Coverage>);

impl CoverageTable {
    pub(super) fn published(&mut self, transaction: &Transaction, at: Duration) {
        let new = || Coverage {
            published_at: at,
            topic: TopicKey::of(transaction.topic()),
            size: transaction.header().payload_len,
            ..Coverage::default()
        };
        self.0.entry(transaction.id()).or_insert_with(new);
    }

    pub(super) fn published_at(&self, id: &TransactionId) -> Option<Duration> {
        self.0.get(id).map(|s| s.published_at)
    }

    pub(super) fn stored(
        &mut self,
        id: TransactionId,
        size: u64,
        keep_until: WallTime,
        node: usize,
    ) {
        let coverage = self.0.entry(id).or_default();
        coverage.size = size;
        coverage.keep_until = Some(keep_until);
        coverage.holders.insert(node);
    }

    /// Replaces a transaction by the copy that other disks have, if it is the same. The trace context
    /// stays that with which it came.
    pub(super) fn share(&mut self, transaction: &mut Transaction) {
        let coverage = self.0.entry(transaction.id()).or_default();
        let whole = coverage.whole.get_or_insert_with(|| transaction.clone());
        if whole == transaction {
            *transaction = whole.clone().with_trace(transaction.trace());
        }
    }

    pub(super) fn removed(&mut self, id: &TransactionId, node: usize) {
        if let Some(coverage) = self.0.get_mut(id) {
            coverage.holders.remove(node);
            coverage.whole.take_if(|_| coverage.holders.is_empty());
        }
    }

    /// Its publisher has published it anew, under another id: nobody needs it.
    pub(super) fn withdrawn(&mut self, id: &TransactionId) {
        if let Some(coverage) = self.0.get_mut(id) {
            coverage.is_withdrawn = true;
        }
    }

    /// Whether a transaction is to be kept at `now` and was not published anew.
    pub(super) fn is_live(&self, id: &TransactionId, now: WallTime) -> bool {
        self.0.get(id).is_some_and(|coverage| coverage.is_live(now))
    }

    pub(super) fn disk_lost(&mut self, node: usize) {
        self.0.values_mut().for_each(|s| {
            s.holders.remove(node);
        });
    }

    pub(super) fn holders(&self, id: &TransactionId) -> Option<&NodeSet> {
        self.0.get(id).map(|s| &s.holders)
    }

    /// Accepted somewhere, and to be kept at `now`.
    pub(super) fn live(&self, now: WallTime) -> impl Iterator<Item = &Coverage> {
        self.live_by_id(now).map(|(_, coverage)| coverage)
    }

    /// The same with their ids.
    pub(super) fn live_by_id(
        &self,
        now: WallTime,
    ) -> impl Iterator<Item = (&TransactionId, &Coverage)> {
        self.0.iter().filter(move |(_, coverage)| coverage.is_live(now))
    }
}

/// Figures that are counted between two calls of `reset_figures`.
#[derive(Debug, Default)]
pub(in crate::sim) struct Figures {
    pub(in crate::sim) published: u64,
    /// Microseconds from publish to delivery.
    pub(in crate::sim) latencies: Vec<u32>,
    /// The same at nodes that were set aside.
    pub(in crate::sim) aside: Vec<u32>,
    pub(in crate::sim) hops_sum: u64,
    pub(in crate::sim) hops_max: u16,
    pub(in crate::sim) payload_delivered: u64,
    pub(in crate::sim) payload_sent: u64,
    pub(in crate::sim) control_sent: u64,
}

impl Figures {
    pub(super) fn delivered(&mut self, aside: bool, since: Duration, hops: u16, size: u64) {
        let micros = u32::try_from(since.as_micros()).unwrap_or(u32::MAX);
        self.payload_delivered += size;
        if aside {
            self.aside.push(micros);
            return;
        }
        self.latencies.push(micros);
        self.hops_sum += u64::from(hops);
        self.hops_max = self.hops_max.max(hops);
    }
}
