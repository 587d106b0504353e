//! What is known of ids that are not in the log yet: types only.
//!
//! Tested by: `protocol::tests::greedy`.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::id_map::IdMap;
use crate::protocol::large::Large;
use crate::protocol::outbox::Deferred;
use crate::protocol::rng::Rng;
use crate::types::{LinkId, MonoTime, PeerId, Refusal, TransactionId};

use super::store_retry::StoreRetry;

/// Maximum number of refused ids remembered, so that they are not fetched once per neighbour.
pub(in crate::protocol) const MAX_REFUSED: usize = 4096;

/// Transactions on their way in.
#[derive(Debug)]
pub(in crate::protocol) struct Intake {
    /// Ids that are not in the log yet.
    pub(in crate::protocol) pending: IdMap<Pending>,
    /// Number of pending ids that were first heard from each peer.
    pub(super) heard: BTreeMap<PeerId, usize>,
    /// Refused a moment ago, so that no neighbour is asked for them again.
    pub(super) refused: RecentIds,
    /// Ids of topics that are not wanted; peers downstream may send them all the same.
    pub(in crate::protocol) unwanted: RecentIds,
    pub(in crate::protocol) retry: StoreRetry,
}

impl Intake {
    pub(in crate::protocol) fn new(rng: &mut Rng) -> Self {
        Self {
            pending: IdMap::new(rng),
            heard: BTreeMap::new(),
            refused: RecentIds::new(rng),
            unwanted: RecentIds::new(rng),
            retry: StoreRetry::default(),
        }
    }

    /// Returns why an id was refused lately.
    pub(in crate::protocol) fn refusal(&self, id: &TransactionId) -> Option<Refusal> {
        self.refused.reason(id).or_else(|| self.unwanted.reason(id))
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn refused_len(&self) -> usize {
        self.refused.len().max(self.unwanted.len())
    }
}

/// Stage of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Stage {
    /// Known by id: somebody has the transaction.
    Heard,
    /// Checking: the bytes are here.
    Verifying,
    /// Waiting for others of the same origin that come first, after the bytes proved good.
    Deferred,
    /// Storing a transaction of our own.
    Storing,
}

/// Way in which an id was heard of, from the weakest sign of something new to the surest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::protocol) enum Arrival {
    /// Found by a comparison, or replayed by its origin: of any age.
    Found,
    /// Announced: new to the announcer, which may have found it by a comparison.
    Announced,
    /// Pushed unasked: what is old never is.
    Pushed,
}

/// Share of a payload that a source says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::protocol) enum Holds {
    /// Only the header.
    Nothing,
    /// The first piece, and more as they come.
    Some,
    /// All pieces of the payload.
    All,
}

#[derive(Debug)]
pub(in crate::protocol) struct Source {
    pub(in crate::protocol) link: LinkId,
    pub(in crate::protocol) at: MonoTime,
    pub(in crate::protocol) tried: bool,
    /// Rank in the order of reservations (`place` on the wire), if the source told it.
    pub(in crate::protocol) rank: Option<u32>,
    pub(in crate::protocol) holds: Holds,
    /// Time until which the source serves others.
    pub(in crate::protocol) busy: Option<MonoTime>,
    /// True: the source did not say that it has the payload, and probably does since others have
    /// had it for a while.
    pub(super) guessed: bool,
}

/// An id that is not in the log yet.
#[derive(Debug)]
pub(in crate::protocol) struct Pending {
    pub(in crate::protocol) stage: Stage,
    pub(in crate::protocol) size: u64,
    pub(in crate::protocol) heard_at: MonoTime,
    pub(in crate::protocol) arrival: Arrival,
    /// Peer whose share of the table the id takes up.
    pub(in crate::protocol) heard_from: Option<PeerId>,
    pub(in crate::protocol) sources: Vec<Source>,
    /// Link that was asked for the id as a small transaction.
    pub(in crate::protocol) asked_of: Option<LinkId>,
    /// Number of the question among those to that link.
    pub(super) question: u64,
    pub(in crate::protocol) turns: u32,
    /// Number of times the validator did not answer.
    pub(super) timed_out: u8,
    pub(in crate::protocol) large: Option<Box<Large>>,
    /// The link in whose replay the transaction has its turn.
    pub(in crate::protocol) ordered: Option<LinkId>,
    /// Set while the transaction waits for its turn in a replay.
    pub(in crate::protocol) deferred: Option<Box<Deferred>>,
}

impl Pending {
    pub(in crate::protocol) fn new(stage: Stage, size: u64, now: MonoTime) -> Self {
        Self {
            stage,
            size,
            heard_at: now,
            arrival: Arrival::Found,
            heard_from: None,
            sources: Vec::new(),
            asked_of: None,
            question: 0,
            turns: 0,
            timed_out: 0,
            large: None,
            ordered: None,
            deferred: None,
        }
    }

    /// Notes in which way the id was heard of once more.
    pub(in crate::protocol) fn note_arrival(&mut self, arrival: Arrival) {
        self.arrival = self.arrival.max(arrival);
    }

    /// Returns the origin, as far as it is known and not only said.
    pub(in crate::protocol) fn origin(&self) -> Option<PeerId> {
        let deferred = self.deferred.as_ref().map(|deferred| deferred.transaction.origin());
        let head = || self.large.as_ref().filter(|large| large.trusted)?.head.as_ref();
        deferred.or_else(|| head().map(|head| head.header().origin))
    }

    /// A peer that said nothing, but probably has all of it.
    pub(in crate::protocol) fn guess_source(&mut self, link: LinkId, at: MonoTime) {
        if self.sources.iter().all(|s| s.link != link) {
            self.add_source(link, at, None, Holds::All);
            if let Some(source) = self.sources.last_mut() {
                source.guessed = true;
            }
        }
    }

    /// Notes what a source says; what it said before still counts.
    pub(in crate::protocol) fn add_source(
        &mut self,
        link: LinkId,
        at: MonoTime,
        rank: Option<u32>,
        holds: Holds,
    ) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.link == link) {
            source.holds = source.holds.max(holds);
            source.rank = source.rank.max(rank);
            source.guessed = false;
            // It has more than when it failed or was busy.
            if holds == Holds::All && self.large.is_some() {
                (source.busy, source.tried) = (None, false);
            }
            return;
        }
        let guessed = false;
        self.sources.push(Source { link, at, tried: false, rank, holds, busy: None, guessed });
    }
}

/// The latest few ids that were refused, and why.
#[derive(Debug)]
pub(in crate::protocol) struct RecentIds {
    ids: IdMap<Refusal>,
    /// Ids in the order in which they came, the oldest first.
    order: VecDeque<TransactionId>,
}

impl RecentIds {
    pub(in crate::protocol) fn new(rng: &mut Rng) -> Self {
        Self { ids: IdMap::new(rng), order: VecDeque::new() }
    }

    pub(in crate::protocol) fn add(&mut self, id: TransactionId, reason: Refusal) {
        if self.ids.insert(id, reason).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_REFUSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, id: &TransactionId) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn reason(&self, id: &TransactionId) -> Option<Refusal> {
        self.ids.get(id).copied()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.order.len()
    }

    pub(in crate::protocol) fn clear(&mut self) {
        for id in self.order.drain(..) {
            self.ids.remove(&id);
        }
    }
}
