//! What every part of the core works with: configuration, time, randomness, timers, outputs, counts,
//! and what is under way outside.
//!
//! Parts get at each other through `Protocol`; this they all have. Nothing in here decides anything.
//!
//! Tested by: `protocol::tests::gates`, `sim::tests::faults`.

use std::collections::{BTreeMap, VecDeque};

use crate::config::{Config, Shares, SignaturePolicy};
use crate::types::{
    AddressScope, Counters, Event, Header, LinkId, MonoTime, PeerId, Piece, Signature, Transaction,
    TransactionId, WallTime,
};

use super::clock::Clock;
use super::deliveries::Deliveries;
use super::gate::Gate;
use super::io::{Output, Ticket};
use super::rng::Rng;
use super::timers::Timers;

/// Maximum number of transactions being checked; above it no more input from peers should be read.
pub(super) const MAX_VERIFYING: u64 = 4096;
/// Maximum number of entries on their way to the store; above it no more input from peers should be
/// read.
pub(super) const MAX_STORING: u64 = 8192;

/// Work that a ticket stands for.
#[derive(Debug)]
pub(super) enum Task {
    Verify { link: Option<LinkId>, from: PeerId, transaction: Transaction, hop: u16 },
    Records { source: PeerId, scope: AddressScope, relays: Vec<PeerId> },
    StoreOwn { transactions: Vec<Transaction>, renews: Option<TransactionId> },
    StoreForeign { id: TransactionId, origin: PeerId, size: u64 },
    Load { ids: Vec<TransactionId> },
    Head { link: LinkId, from: PeerId, id: TransactionId, signature: Signature },
    Piece { link: LinkId, from: PeerId, piece: Piece },
    Prove { id: TransactionId },
    Spill { id: TransactionId, size: u64 },
    Unspill { id: TransactionId },
    Request { link: LinkId, id: u64 },
}

/// The surroundings of a part.
#[derive(Debug)]
pub(super) struct Env {
    pub(super) config: Config,
    /// Bytes that the owners of memory may hold.
    pub(super) shares: Shares,
    pub(super) me: PeerId,
    pub(super) incarnation: u64,
    pub(super) now: MonoTime,
    /// Time by which things are admissible, signed and published: see `clock`.
    pub(super) wall: WallTime,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) timers: Timers,
    pub(super) out: VecDeque<Output>,
    pub(super) counters: Counters,
    pub(super) deliveries: Deliveries,
    pub(super) tickets: BTreeMap<Ticket, Task>,
    next_ticket: u64,
    /// Checks under way, and their bytes.
    pub(super) verifying: Gate,
    pub(super) verifying_bytes: Gate,
    /// Entries on their way to the store, and the bytes of their payloads.
    pub(super) storing: Gate,
    pub(super) storing_bytes: Gate,
    pub(super) shutting_down: bool,
    /// The host judges payloads before they are passed on.
    pub(super) validating: bool,
    /// Number of bytes that the store may take, if it has a bound.
    pub(super) store_max_bytes: Option<u64>,
}

impl Env {
    pub(super) fn new(config: &Config, me: PeerId, incarnation: u64, rng: Rng) -> Self {
        Self {
            config: config.clone(),
            shares: config.shares(),
            me,
            incarnation,
            now: MonoTime::ZERO,
            wall: WallTime::default(),
            clock: Clock::new(config),
            rng,
            timers: Timers::default(),
            out: VecDeque::new(),
            counters: Counters::default(),
            deliveries: Deliveries::default(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            verifying: Gate::default(),
            verifying_bytes: Gate::default(),
            storing: Gate::default(),
            storing_bytes: Gate::default(),
            shutting_down: false,
            validating: false,
            store_max_bytes: None,
        }
    }

    /// Takes over the times of an input; `true` when the wall clock has leapt.
    pub(super) fn note_time(&mut self, now: MonoTime, reading: WallTime) -> bool {
        self.now = self.now.max(now);
        let has_leapt = self.clock.read(self.now, reading);
        self.wall = self.clock.wall();
        has_leapt
    }

    /// Reports whether there was no input yet.
    pub(super) fn is_first(&self) -> bool {
        !self.clock.is_started()
    }

    /// Returns the time by which transactions are forgotten; never ahead of `wall`.
    pub(super) fn settled(&self) -> WallTime {
        self.clock.settled()
    }

    /// Returns the time by which bans end; never ahead of `wall`.
    pub(super) fn corroborated(&self) -> WallTime {
        self.clock.corroborated()
    }

    /// Returns the time when every node may forget a transaction.
    pub(super) fn keep_until(&self, header: &Header) -> WallTime {
        header.expires.min(header.created.plus(self.config.gossip.retention))
    }

    /// Reports whether headers and pieces may be passed on before the whole payload is here.
    pub(super) fn relays_ahead(&self) -> bool {
        !self.validating && self.config.network.signatures == SignaturePolicy::Required
    }

    /// Adds something to be done outside.
    pub(super) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    /// Tells the host of something.
    pub(super) fn emit(&mut self, event: Event) {
        self.push(Output::Emit(event));
    }

    /// Remembers what a completion is about.
    pub(super) fn ticket(&mut self, task: Task) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, task);
        ticket
    }

    /// Reports whether checks and stores keep up, so that more may be taken from peers, while
    /// buffers for `assembling` bytes are taken. What is being stored may have the room that no buffer
    /// takes: payloads go from one to the other.
    pub(super) fn has_room(&self, assembling: u64) -> bool {
        let arriving = self.storing_bytes.level().saturating_add(assembling);
        self.verifying.level() < MAX_VERIFYING
            && self.verifying_bytes.level() < self.bound(self.shares.checks)
            && self.storing.level() < MAX_STORING
            && arriving < self.bound(self.shares.assemblies.saturating_add(self.shares.storing))
    }

    /// Reports whether a buffer of `size` bytes may be taken beside those for `assembling` bytes, as far
    /// as the store keeps up. Large payloads wait before all else does, so that a slow store keeps no
    /// peer from being heard.
    pub(super) fn may_assemble(&self, size: u64, assembling: u64) -> bool {
        let arriving = self.storing_bytes.level().saturating_add(assembling);
        let most = self.shares.assemblies.saturating_add(self.shares.storing / 2);
        arriving == 0 || arriving.saturating_add(size) <= most
    }

    /// Returns the bytes at which an owner of memory is full: one payload alone fills no share, or
    /// a slow check of it would keep all peers waiting.
    pub(super) fn bound(&self, share: u64) -> u64 {
        share.max(self.config.gossip.max_transaction_size.saturating_add(1))
    }
}
