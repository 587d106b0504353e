//! The checkers of logs: what was accepted is kept, once, and a publish is answered truthfully.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::{Checker, Seen};
use super::marks::{Marks, Waiting};
use crate::protocol::{CallId, Input, Output};
use crate::sim::id_map::IdMap;
use crate::types::TransactionId;

/// Checks that what is accepted and unexpired is at every node that is connected to a holder and
/// carries its topic, and that what was promised is somewhere.
#[derive(Debug)]
pub struct NoLoss;

impl Checker for NoLoss {
    fn name(&self) -> &'static str {
        "no_loss"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Calm { nodes } = seen else { return 0 };
        let mut groups: BTreeMap<usize, BTreeSet<TransactionId>> = BTreeMap::new();
        for node in *nodes {
            groups.entry(node.group).or_default().extend(&node.stored);
        }
        for node in *nodes {
            let missing = groups[&node.group].difference(&node.stored);
            let missing: Vec<_> = missing.filter(|id| !node.not_carried.contains(*id)).collect();
            if let Some(first) = missing.first() {
                let count = missing.len();
                found.push(format!("node {} misses {count}, for instance {first}", node.node));
            }
            if let Some(first) = node.promised.difference(&node.stored).next() {
                found.push(format!("node {} promised {first} and has it no more", node.node));
            }
        }
        nodes.len() as u64
    }
}

/// Each id is put into a node's log at most once.
#[derive(Debug, Default)]
pub struct AtMostOnce {
    under_way: Waiting,
    /// Stored or about to be.
    in_log: Marks,
}

impl Checker for AtMostOnce {
    fn name(&self) -> &'static str {
        "at_most_once"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, stored, .. } => {
                self.under_way.retain(|(n, _), _| n != node);
                self.in_log.restart(*node, stored);
                0
            }
            Seen::Output { node, output: Output::Store { ticket, entry, own } } => {
                let id = entry.transaction.id();
                // Publishing what also came back from peers is stored again to be in the outbox.
                if !self.in_log.insert(*node, id) && !own {
                    found.push(format!("node {node} stores {id} again"));
                }
                self.under_way.insert((*node, *ticket), id);
                1
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                if let Some(id) = self.under_way.remove(&(*node, *ticket))
                    && result.is_err()
                {
                    self.in_log.remove(*node, &id);
                }
                0
            }
            _ => 0,
        }
    }
}

/// `publish` is answered with Ok only for what the store has; what it was refused is not stored.
#[derive(Debug, Default)]
pub struct StoreBeforePublished {
    calls: IdMap<(usize, CallId), TransactionId>,
    under_way: Waiting,
    stored: Marks,
}

impl Checker for StoreBeforePublished {
    fn name(&self) -> &'static str {
        "store_before_published"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, stored, .. } => {
                self.calls.retain(|(n, _), _| n != node);
                self.under_way.retain(|(n, _), _| n != node);
                self.stored.restart(*node, stored);
            }
            Seen::Input { node, input: Input::Publish { call, transaction, .. } } => {
                self.calls.insert((*node, *call), transaction.id());
            }
            Seen::Output { node, output: Output::Store { ticket, entry, .. } } => {
                self.under_way.insert((*node, *ticket), entry.transaction.id());
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                if let Some(id) = self.under_way.remove(&(*node, *ticket))
                    && result.is_ok()
                {
                    self.stored.insert(*node, id);
                }
            }
            Seen::Output { node, output: Output::Published { call, result } } => {
                let Some(id) = self.calls.remove(&(*node, *call)) else {
                    found.push(format!("node {node} answers {call:?}, which nobody asked"));
                    return 1;
                };
                if result.is_ok() && !self.stored.contains(*node, &id) {
                    found.push(format!("node {node} said Ok to {id}, which is not stored"));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}
