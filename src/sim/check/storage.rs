//! The checkers of logs: what was accepted is kept, once, and a publish is answered truthfully.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::{Checker, Seen};
use super::marks::{Marks, Storing, ids_of};
use crate::protocol::{CallId, Input, Output};
use crate::sim::id_map::IdMap;
use crate::types::{Transaction, TransactionId};

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
    under_way: Storing,
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
            Seen::Output { node, output: Output::Store { ticket, entry, .. } } => {
                let id = entry.transaction.id();
                if !self.in_log.insert(*node, id) {
                    found.push(format!("node {node} stores {id} again"));
                }
                self.under_way.insert((*node, *ticket), vec![id]);
                1
            }
            Seen::Output { node, output: Output::StoreOwn { ticket, entries } } => {
                let ids = ids_of(entries);
                for id in &ids {
                    // Publishing what also came back from peers stores it again, for the outbox.
                    self.in_log.insert(*node, *id);
                }
                self.under_way.insert((*node, *ticket), ids);
                1
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                let ids = self.under_way.remove(&(*node, *ticket)).unwrap_or_default();
                for id in ids.iter().filter(|_| result.is_err()) {
                    self.in_log.remove(*node, id);
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
    calls: IdMap<(usize, CallId), Vec<TransactionId>>,
    under_way: Storing,
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
            Seen::Input { node, input: Input::Publish { call, transactions, .. } } => {
                let ids = transactions.iter().map(Transaction::id).collect();
                self.calls.insert((*node, *call), ids);
            }
            Seen::Output { node, output: Output::Store { ticket, entry, .. } } => {
                self.under_way.insert((*node, *ticket), vec![entry.transaction.id()]);
            }
            Seen::Output { node, output: Output::StoreOwn { ticket, entries } } => {
                self.under_way.insert((*node, *ticket), ids_of(entries));
            }
            Seen::Input { node, input: Input::Stored { ticket, result } } => {
                let ids = self.under_way.remove(&(*node, *ticket)).unwrap_or_default();
                for id in ids.into_iter().filter(|_| result.is_ok()) {
                    self.stored.insert(*node, id);
                }
            }
            Seen::Output { node, output: Output::Published { call, result } } => {
                let Some(ids) = self.calls.remove(&(*node, *call)) else {
                    found.push(format!("node {node} answers {call:?}, which nobody asked"));
                    return 1;
                };
                // Ok(false) is about one of them.
                let is_stored = |id: &TransactionId| self.stored.contains(*node, id);
                let is_true = match result {
                    Ok(true) => ids.iter().all(is_stored),
                    Ok(false) => ids.iter().any(is_stored),
                    Err(_) => true,
                };
                if !is_true {
                    found.push(format!("node {node} said Ok to {ids:?}, which is not stored"));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}
