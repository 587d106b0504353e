//! Answering wants and reservations: whole small transactions, large ones in pieces.
//!
//! What a peer asked for waits in order on its link; what cannot be sent yet, because it is still on
//! its way here or read from the store, is passed over. A piece is queued only when the queue is
//! empty or short enough that no more than one piece waits, so control never stands behind more than
//! that.
//!
//! A payload is served to `MAX_CHILDREN` peers at a time, and a short one to more while all that is owed
//! to peers is little (`ALLOWANCE`, about 130 ms at 50 Mbit/s); the others are told `Busy` and find somebody
//! who has got it from here. Who comes back with `force` is served. What is still on its way here is
//! promised only to peers of a higher rank in the order of reservations (see `large`).
//!
//! What is read from the store for peers is held within a share of the node's memory (see `held`).
//!
//! Tested by: `sim::tests::large`.

mod held;
mod proof_cache;
mod request;
mod work;

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::gate::Gate;
use crate::protocol::id_map::IdMap;
use crate::protocol::io::Ticket;
use crate::protocol::rng::Rng;
use crate::types::{PieceSet, Proofs, TransactionId};

use held::{Claim, HeldPayloads};
use proof_cache::ProofCache;

#[cfg(any(test, feature = "sim"))]
pub(super) use request::MAX_SERVING;

/// State that serving all peers shares.
#[derive(Debug)]
pub(super) struct Serving {
    /// Proofs for peers that ask.
    pub(super) proofs: ProofCache,
    /// Payloads whose proofs are being made.
    proving: BTreeMap<TransactionId, Ticket>,
    /// Payloads read from the store for peers that asked.
    pub(super) held: HeldPayloads,
    /// Transactions that are being read from the store for peers that asked.
    loads: BTreeMap<TransactionId, Ticket>,
    /// Number of peers that are being served pieces of an id.
    children: IdMap<u16>,
    /// Number of pieces that peers reserved and did not get yet.
    reserved: Gate,
}

impl Serving {
    /// `most_proofs`: bytes of proofs that are kept.
    pub(super) fn new(rng: &mut Rng, most_proofs: u64) -> Self {
        Self {
            proofs: ProofCache::new(most_proofs),
            proving: BTreeMap::new(),
            held: HeldPayloads::default(),
            loads: BTreeMap::new(),
            children: IdMap::new(rng),
            reserved: Gate::default(),
        }
    }
}

/// Transactions that one peer asked for, in its order.
#[derive(Debug, Default)]
pub(super) struct ServeQueue {
    pub(super) entries: VecDeque<Serve>,
    /// True: bulk has its turn when the queue has moved.
    pub(super) bulk_first: bool,
}

/// A payload that a peer asked for.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) id: TransactionId,
    /// Pieces that are asked for of a large payload.
    pub(super) parts: Option<Parts>,
    /// Share in a payload that is held for peers, so that it is read once for all of its pieces.
    pub(super) claim: Option<Claim>,
    /// Set while the payload is being read from the store, or its proofs made.
    loading: Option<Ticket>,
}

impl Serve {
    pub(super) fn new(id: TransactionId) -> Self {
        Self { id, parts: None, claim: None, loading: None }
    }
}

/// Pieces of a large payload that a peer gets.
#[derive(Debug)]
pub(super) struct Parts {
    /// Still to be sent.
    pub(super) wanted: PieceSet,
    pub(super) sent: PieceSet,
    /// True: the header is to be sent first.
    pub(super) head: bool,
    pub(super) proofs: Option<Proofs>,
}

impl Parts {
    pub(super) fn new(wanted: PieceSet, head: bool) -> Self {
        let sent = PieceSet::empty(wanted.len());
        Self { wanted, sent, head, proofs: None }
    }
}
