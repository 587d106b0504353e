//! Which peers there are and which of them to be linked with.
//!
//! `address_book` knows who is where, `peer_exchange` learns of more, `overlay` dials, `mode` judges what
//! came of it, `notice` says what did not.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::worlds`.

mod address_book;
mod mode;
mod notice;
mod overlay;
mod peer_exchange;

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::gate::Gate;
use crate::protocol::io::DialId;
use crate::types::{PeerId, PeerRecord};

pub(super) use address_book::AddressBook;
use mode::Connection;
use notice::Notice;
pub(super) use overlay::Dial;
pub(super) use peer_exchange::ask_for_peers;

/// Peers that are known and dials under way, and how well this node is connected.
#[derive(Debug)]
pub(super) struct Membership {
    /// The node's own record.
    pub(super) record: PeerRecord,
    pub(super) book: AddressBook,
    pub(super) dials: BTreeMap<DialId, Dial>,
    next_dial: u64,
    /// Peers whose link broke, the latest last.
    dropped_peers: VecDeque<PeerId>,
    pub(super) connection: Connection,
    /// Peers from the book that cannot be linked with while links are missing.
    refusals: Notice,
    /// Number of times peers were asked for because links are missing.
    needy_turns: u32,
    /// Answers whose signatures are being checked.
    checking_records: Gate,
}

impl Membership {
    pub(super) fn new(record: PeerRecord, book: AddressBook) -> Self {
        Self {
            record,
            book,
            dials: BTreeMap::new(),
            next_dial: 0,
            dropped_peers: VecDeque::new(),
            connection: Connection::default(),
            refusals: Notice::default(),
            needy_turns: 0,
            checking_records: Gate::default(),
        }
    }
}
