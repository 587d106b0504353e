//! The checkers of bounds: tables, queues, and bulk ahead of control.

use std::collections::VecDeque;

use super::checker::{Checker, Seen};
use super::per_link::PerLink;
use crate::protocol::{Input, Output};
use crate::types::{Message, PIECE_BYTES};

/// Every queue and table stays within its bound.
#[derive(Debug)]
pub struct Bounded;

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let Seen::Turn { node, gauges, .. } = seen else { return 0 };
        for g in gauges.iter().filter(|g| g.value > g.bound) {
            found.push(format!("node {node}: {} is {}, bound {}", g.name, g.value, g.bound));
        }
        gauges.len() as u64
    }
}

/// Checks that no link has more bulk bytes waiting than one piece.
#[derive(Debug, Default)]
pub struct ControlFirst {
    queues: PerLink<Waits>,
}

/// Weights that wait on a link, counted since it opened.
#[derive(Debug, Default)]
struct Waits {
    enqueued: usize,
    sent: usize,
    /// Messages with bulk, each by what must have been sent for it to be gone, and its bulk.
    bulk: VecDeque<(usize, usize)>,
}

impl Checker for ControlFirst {
    fn name(&self) -> &'static str {
        "control_first"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        self.queues.follow(seen);
        match seen {
            Seen::Output { node, output: Output::Send { link, message } } => {
                let Some(waits) = self.queues.get_mut(*node, *link) else { return 0 };
                waits.enqueued += message.weight();
                if let Message::Piece(piece) = message {
                    waits.bulk.push_back((waits.enqueued, piece.bytes.len()));
                    let bulk: usize = waits.bulk.iter().map(|(_, bulk)| bulk).sum();
                    if bulk > PIECE_BYTES {
                        found.push(format!("node {node}: {bulk} bytes of bulk wait on {link:?}"));
                    }
                }
                return 1;
            }
            Seen::Input { node, input: Input::Sent { link, weight, .. } } => {
                let Some(waits) = self.queues.get_mut(*node, *link) else { return 0 };
                waits.sent = (waits.sent + weight).min(waits.enqueued);
                while waits.bulk.front().is_some_and(|(end, _)| *end <= waits.sent) {
                    waits.bulk.pop_front();
                }
            }
            _ => {}
        }
        0
    }
}
