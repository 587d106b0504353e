//! Which peers there are and which of them to be linked with.
//!
//! `address_book` knows who is where, `peer_exchange` learns of more, `overlay` decides whom to
//! dial, `ladder` and `dials` how; `outcome` draws the consequences, `breaker` leaves alone for a
//! while who cannot be reached; `reach` is for whom a request needs; `mode` judges what came of it,
//! `notice` says what did not; `dead_ends` are addresses that led nowhere, `nearby` places on the LAN where
//! peers may be.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::worlds`.

mod address_book;
mod breaker;
mod dead_ends;
mod dials;
mod ladder;
mod mode;
mod nearby;
mod notice;
mod outcome;
mod overlay;
mod peer_exchange;
mod reach;

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::gate::Gate;
use crate::protocol::io::DialId;
use crate::protocol::link::Cuts;
use crate::types::{Endpoint, MonoTime, PeerId, PeerRecord, TransportKind};

pub(super) use address_book::AddressBook;
#[cfg(any(test, feature = "sim"))]
pub(super) use breaker::MAX_BREAKERS;
#[cfg(any(test, feature = "sim"))]
pub(super) use dead_ends::{MAX_ADDRESSES, MAX_NAMES, MAX_OWN};
#[cfg(any(test, feature = "sim"))]
pub(super) use ladder::MAX_ENTRIES;
pub(super) use ladder::{PATIENCE, WalkId};
#[cfg(any(test, feature = "sim"))]
pub(super) use nearby::MAX_PLACES;
pub(super) use peer_exchange::{ask_for_peers, policy_allows, scope_of};

use breaker::Breakers;
use dead_ends::DeadEnds;
use dials::Dial;
use ladder::{RetryBudget, Walk};
use mode::Connection;
use nearby::Nearby;
use notice::Notice;

/// Peers that are known and dials under way, and how well this node is connected.
#[derive(Debug)]
pub(super) struct Membership {
    /// The node's own record.
    pub(super) record: PeerRecord,
    pub(super) book: AddressBook,
    pub(super) dials: BTreeMap<DialId, Dial>,
    /// Transports to dial with, the best first; at least one.
    pub(super) rungs: Vec<TransportKind>,
    /// What something on the way cuts connections at.
    pub(super) cuts: Cuts,
    next_dial: u64,
    walks: BTreeMap<WalkId, Walk>,
    next_walk: u64,
    retry_budget: RetryBudget,
    breakers: Breakers,
    pub(super) dead_ends: DeadEnds,
    pub(super) nearby: Nearby,
    /// The highest number of an own record that others hold and this run did not give out, and the
    /// earliest time to sign above it.
    outranked_by: Option<u64>,
    next_outranking: MonoTime,
    /// Peers whose link broke, the latest last.
    dropped_peers: VecDeque<PeerId>,
    pub(super) connection: Connection,
    /// Peers from the book that cannot be linked with while links are missing.
    refusals: Notice,
    /// Number of times peers were asked for because links are missing.
    needy_turns: u32,
    /// Answers whose signatures are being checked.
    checking_records: Gate,
    /// Peers to whom a walk has failed in this turn, and why.
    unreached: Vec<(PeerId, String)>,
    /// True: dials or walks came to an end since somebody who waits for a link looked.
    has_moved: bool,
}

impl Membership {
    pub(super) fn new(record: PeerRecord, book: AddressBook, kinds: Vec<TransportKind>) -> Self {
        let mut rungs = Vec::new();
        for kind in kinds {
            if !rungs.contains(&kind) {
                rungs.push(kind);
            }
        }
        if rungs.is_empty() {
            rungs.push(TransportKind::GrpcStream);
        }
        Self {
            record,
            book,
            dials: BTreeMap::new(),
            rungs,
            cuts: Cuts::default(),
            next_dial: 0,
            walks: BTreeMap::new(),
            next_walk: 0,
            retry_budget: RetryBudget::default(),
            breakers: Breakers::default(),
            dead_ends: DeadEnds::default(),
            nearby: Nearby::default(),
            outranked_by: None,
            next_outranking: MonoTime::ZERO,
            dropped_peers: VecDeque::new(),
            connection: Connection::default(),
            refusals: Notice::default(),
            needy_turns: 0,
            checking_records: Gate::default(),
            unreached: Vec::new(),
            has_moved: false,
        }
    }

    /// Returns how far down the ladder a way is: one whose connections are cut after so many bytes comes
    /// behind the next rung.
    pub(in crate::protocol) fn rank(
        &self,
        rung: TransportKind,
        endpoint: &Endpoint,
        now: MonoTime,
    ) -> Option<usize> {
        let at = self.rungs.iter().position(|known| *known == rung)?;
        let is_cut = self.cuts.bound(endpoint, rung, now).bytes.is_some();
        Some(2 * at + if is_cut { 3 } else { 0 })
    }

    /// Reports whether a walk has ended.
    pub(super) fn is_over(&self, walk: WalkId) -> bool {
        !self.walks.contains_key(&walk)
    }

    /// Number of breakers that are not closed.
    pub(super) fn open_breakers(&self) -> usize {
        self.breakers.open()
    }

    /// Number of breakers that are half-open.
    pub(super) fn half_open_breakers(&self) -> usize {
        self.breakers.half_open()
    }

    /// Numbers of walks and of breakers.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn ladder_sizes(&self) -> [usize; 2] {
        [self.walks.len(), self.breakers.len()]
    }
}
