//! The checker of requests to single peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::checker::{Checker, Seen};
use crate::error::RequestError;
use crate::protocol::{CallId, Input, Output, Ticket};
use crate::types::PeerId;

/// Maximum time of a request, whatever its host wants.
const MAX_TIME: Duration = Duration::from_mins(10);
/// Time by which an end may be seen later than it is due: clocks of nodes have whole milliseconds.
const SLACK: Duration = Duration::from_millis(2);

/// What tells a request from others: its protocol and its body.
type Print = [u8; 32];

/// Checks that each request is answered once at most, within its time, and not after it was cancelled; that it is
/// handled once at most, with the body that was sent, and not where its caller was told that it was not sent; that the
/// answer is one that the handler gave; and that a handler hears once at most that nobody waits, within the time.
/// Bodies of requests must differ. What hostile peers ask and answer is left out.
#[derive(Debug, Default)]
pub struct RequestsOnce {
    now: Duration,
    hostile: BTreeSet<PeerId>,
    open: BTreeMap<(usize, CallId), Open>,
    handled: BTreeMap<(usize, Ticket), (Print, Duration)>,
    made: BTreeMap<Print, Made>,
}

/// A request that is not answered.
#[derive(Debug)]
struct Open {
    print: Print,
    peer: PeerId,
    until: Duration,
}

/// What became of all requests of one print.
#[derive(Debug, Default)]
struct Made {
    asked: u64,
    handled: u64,
    /// Callers that were told that nothing was sent.
    unsent: u64,
    answers: BTreeSet<[u8; 32]>,
}

impl Made {
    fn is_handled_too_often(&self) -> bool {
        self.handled > self.asked.saturating_sub(self.unsent)
    }
}

impl RequestsOnce {
    /// Looks for what a node should have ended before now.
    fn find_late(&self, node: usize, found: &mut Vec<String>) {
        let is_late = |until: Duration| until + SLACK < self.now;
        let calls = (node, CallId(0))..=(node, CallId(u64::MAX));
        for ((_, call), _) in self.open.range(calls).filter(|(_, open)| is_late(open.until)) {
            found.push(format!("node {node}: {call:?} is not answered in its time"));
        }
        let tickets = (node, Ticket(0))..=(node, Ticket(u64::MAX));
        let handled = self.handled.range(tickets);
        for ((_, ticket), _) in handled.filter(|(_, (_, until))| is_late(*until)) {
            found.push(format!("node {node}: {ticket:?} is handled for longer than anybody waits"));
        }
    }

    fn on_input(&mut self, node: usize, input: &Input, found: &mut Vec<String>) -> u64 {
        self.find_late(node, found);
        match input {
            Input::Request { call, peer, protocol, body, within, .. } => {
                let print = print(protocol, body);
                self.made.entry(print).or_default().asked += 1;
                let until = self.now + (*within).min(MAX_TIME);
                self.open.insert((node, *call), Open { print, peer: *peer, until });
            }
            Input::CancelRequest { call } => {
                self.open.remove(&(node, *call));
            }
            Input::Answer { ticket, result } => {
                if let Some((print, _)) = self.handled.remove(&(node, *ticket))
                    && let Ok(body) = result
                {
                    let answers = &mut self.made.entry(print).or_default().answers;
                    answers.insert(*blake3::hash(body).as_bytes());
                }
            }
            _ => return 0,
        }
        1
    }

    fn on_output(&mut self, node: usize, output: &Output, found: &mut Vec<String>) -> u64 {
        match output {
            Output::Requested { peer, .. } if self.hostile.contains(peer) => return 0,
            Output::Requested { ticket, protocol, body, within, .. } => {
                let print = print(protocol, body);
                let made = self.made.entry(print).or_default();
                made.handled += 1;
                if made.is_handled_too_often() {
                    found.push(format!(
                        "node {node}: handles what was not asked, or not sent, or twice"
                    ));
                }
                self.handled.insert((node, *ticket), (print, self.now + *within));
            }
            Output::RequestCancelled { ticket } => {
                let is_known = self.handled.remove(&(node, *ticket)).is_some();
                if !is_known && self.hostile.is_empty() {
                    found.push(format!("node {node}: {ticket:?} is cancelled and not handled"));
                }
            }
            Output::Answered { call, result } => self.on_answered(node, *call, result, found),
            _ => return 0,
        }
        1
    }

    fn on_answered(
        &mut self,
        node: usize,
        call: CallId,
        result: &Result<Bytes, RequestError>,
        found: &mut Vec<String>,
    ) {
        let Some(open) = self.open.remove(&(node, call)) else {
            found.push(format!(
                "node {node}: {call:?} is answered twice, or after it was cancelled"
            ));
            return;
        };
        let made = self.made.entry(open.print).or_default();
        match result {
            Ok(body) => {
                let is_given = made.answers.contains(blake3::hash(body).as_bytes());
                if !is_given && !self.hostile.contains(&open.peer) {
                    found.push(format!("node {node}: {call:?} has an answer that nobody gave"));
                }
            }
            Err(
                RequestError::NoWay { .. }
                | RequestError::UnknownPeer
                | RequestError::ToSelf
                | RequestError::LinkLost { sent: false },
            ) => {
                made.unsent += 1;
                if made.is_handled_too_often() {
                    found.push(format!("node {node}: {call:?} was handled, though not sent"));
                }
            }
            Err(_) => {}
        }
    }
}

impl Checker for RequestsOnce {
    fn name(&self) -> &'static str {
        "requests_once"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Time { now } => self.now = *now,
            Seen::Hostile { peer } => {
                self.hostile.insert(*peer);
            }
            Seen::Started { node, .. } => {
                self.open.retain(|(of, _), _| of != node);
                self.handled.retain(|(of, _), _| of != node);
            }
            Seen::Input { node, input } => return self.on_input(*node, input, found),
            Seen::Output { node, output } => return self.on_output(*node, output, found),
            _ => {}
        }
        0
    }
}

fn print(protocol: &str, body: &[u8]) -> Print {
    let mut hasher = blake3::Hasher::new();
    hasher.update(protocol.as_bytes()).update(&[0]).update(body);
    *hasher.finalize().as_bytes()
}
