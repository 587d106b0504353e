//! What a checker is, and what it gets to see.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::protocol::{Gauge, Input, LinkView, Output};
use crate::types::{PeerId, TransactionId};

/// An invariant that looks at everything a node is given and does.
pub trait Checker: fmt::Debug {
    /// Name, as reports print it.
    fn name(&self) -> &'static str;

    /// Looks at something; adds to `found` what must not be, and returns how many checks it made.
    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64;
}

/// Transactions that one running node holds when nothing is under way any more.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Number of the node.
    pub node: usize,
    /// Nodes of the same number are connected over links.
    pub group: usize,
    /// Unexpired transactions in its store.
    pub stored: BTreeSet<TransactionId>,
    /// Live transactions of topics that it does not carry.
    pub not_carried: BTreeSet<TransactionId>,
    /// Unexpired transactions whose publish it answered with Ok and whose disk was not lost since.
    pub promised: BTreeSet<TransactionId>,
}

/// Input, output or moment that a checker gets to see.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Seen<'a> {
    /// A node starts with these transactions on its disk.
    Started {
        /// Number of the node.
        node: usize,
        /// Ids in the store.
        stored: &'a [TransactionId],
        /// True: the disk is empty because the node is new or the disk was lost.
        blank: bool,
    },
    /// Time has passed; what is seen next happens now.
    Time {
        /// Simulated time.
        now: Duration,
    },
    /// A node is given something.
    Input {
        /// Number of the node.
        node: usize,
        /// The input.
        input: &'a Input,
    },
    /// A node does something.
    Output {
        /// Number of the node.
        node: usize,
        /// The output.
        output: &'a Output,
    },
    /// A node has dealt with an input.
    Turn {
        /// Number of the node.
        node: usize,
        /// Links of the node.
        links: &'a [LinkView],
        /// Sizes of the tables and queues of the node.
        gauges: &'a [Gauge],
    },
    /// A peer misbehaves from now on: banning it is just.
    Hostile {
        /// Identity of the peer.
        peer: PeerId,
    },
    /// Nothing is under way.
    Calm {
        /// Holdings of all running nodes.
        nodes: &'a [Holdings],
    },
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the checker.
    pub checker: &'static str,
    /// Simulated time at which it was seen.
    pub at: Duration,
    /// Description of what was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.checker, self.at, self.what)
    }
}
