//! The checkers of bounds: tables, queues, and bulk ahead of control.

use std::collections::VecDeque;
use std::time::Duration;

use super::checker::{Checker, Seen};
use super::per_link::PerLink;
use crate::protocol::{Input, Output};
use crate::sim::id_map::IdMap;
use crate::sim::link_id::{link_of, pipe_of};
use crate::types::{LinkId, Message, PIECE_BYTES, TransactionId};

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

/// Maximum age of bulk under way on top of which more is handed out.
const MAX_AGE: Duration = Duration::from_secs(3);

/// Checks that control is never behind more than one piece of bulk: no link has more waiting for the
/// wire, and none is handed more while what it was handed is long under way.
#[derive(Debug, Default)]
pub struct ControlFirst {
    now: Duration,
    queues: PerLink<Waits>,
    /// The node at the end of a link that has handed out bulk.
    senders: IdMap<LinkId, usize>,
}

/// Weights that wait on a link, counted since it opened.
#[derive(Debug, Default)]
struct Waits {
    enqueued: usize,
    sent: usize,
    /// Messages with bulk, each by what must have been sent for it to be gone, and its bulk.
    bulk: VecDeque<(usize, usize)>,
    /// Pieces and pings that the peer has not got, by the time when they were handed out.
    under_way: VecDeque<(Duration, Handed)>,
}

/// Message on its way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handed {
    Piece(TransactionId, u32),
    /// Bytes of the body of a request, or of the answer to it.
    Part(u64, bool),
    Ping(u64),
}

impl Waits {
    /// What was handed out up to this has arrived, or is lost.
    fn arrived(&mut self, what: Handed) {
        if let Some(at) = self.under_way.iter().position(|(_, handed)| *handed == what) {
            self.under_way.drain(..=at);
        }
    }

    /// Returns the time when the oldest piece or part that is under way was handed out.
    fn oldest_piece(&self) -> Option<Duration> {
        let piece = |handed: &Handed| !matches!(handed, Handed::Ping(_));
        self.under_way.iter().find(|(_, handed)| piece(handed)).map(|(at, _)| *at)
    }
}

/// Returns what a message with bulk is told by, and the bytes of bulk in it.
fn bulk_of(message: &Message) -> Option<(Handed, usize)> {
    let (handed, bulk) = match message {
        Message::Piece(piece) => (Handed::Piece(piece.id, piece.index), &piece.bytes),
        Message::Request { id, body, .. } => (Handed::Part(*id, false), body),
        Message::Response { id, body, .. } => (Handed::Part(*id, true), body),
        Message::BodyPart { id, of_answer, data } => (Handed::Part(*id, *of_answer), data),
        _ => return None,
    };
    (!bulk.is_empty()).then_some((handed, bulk.len()))
}

impl ControlFirst {
    fn on_send(&mut self, node: usize, link: LinkId, message: &Message) -> Option<String> {
        let now = self.now;
        let waits = self.queues.get_mut(node, link)?;
        waits.enqueued += message.weight();
        match message {
            Message::Ping { nonce } => waits.under_way.push_back((now, Handed::Ping(*nonce))),
            message if let Some((handed, bytes)) = bulk_of(message) => {
                let oldest = waits.oldest_piece();
                waits.under_way.push_back((now, handed));
                waits.bulk.push_back((waits.enqueued, bytes));
                self.senders.insert(link, node);
                let bulk: usize = waits.bulk.iter().map(|(_, bulk)| bulk).sum();
                if bulk > PIECE_BYTES {
                    return Some(format!("node {node}: {bulk} bytes of bulk wait on {link:?}"));
                }
                let age = now.saturating_sub(oldest?);
                if age > MAX_AGE {
                    let bulk = "bulk on top of what has been under way for";
                    return Some(format!("node {node}: {bulk} {age:?} on {link:?}"));
                }
            }
            Message::Probe { payload, .. } | Message::Probed { payload, .. }
                if !payload.is_empty() =>
            {
                waits.bulk.push_back((waits.enqueued, payload.len()));
                let bulk: usize = waits.bulk.iter().map(|(_, bulk)| bulk).sum();
                if bulk > PIECE_BYTES {
                    return Some(format!("node {node}: {bulk} bytes of bulk wait on {link:?}"));
                }
            }
            _ => {}
        }
        None
    }

    fn on_received(&mut self, node: usize, link: LinkId, messages: &[Message]) {
        let (pipe, side) = pipe_of(link);
        let theirs = link_of(pipe, 1 - side);
        for message in messages {
            match message {
                Message::Pong { nonce } => {
                    if let Some(waits) = self.queues.get_mut(node, link) {
                        waits.arrived(Handed::Ping(*nonce));
                    }
                }
                message if let Some((handed, _)) = bulk_of(message) => {
                    if let Some(sender) = self.senders.get(&theirs)
                        && let Some(waits) = self.queues.get_mut(*sender, theirs)
                    {
                        waits.arrived(handed);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Checker for ControlFirst {
    fn name(&self) -> &'static str {
        "control_first"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        if let Some((node, link)) = self.queues.follow(seen)
            && let Some(waits) = self.queues.get_mut(node, link)
        {
            // All that was handed out before has arrived.
            *waits = Waits::default();
        }
        match seen {
            Seen::Time { now } => self.now = *now,
            Seen::Output { node, output: Output::Send { link, message } } => {
                found.extend(self.on_send(*node, *link, message));
                return 1;
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                self.on_received(*node, *link, messages);
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
