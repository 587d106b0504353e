//! The checker of circuit breakers.

use std::collections::BTreeMap;

use super::checker::{Checker, Seen};
use crate::protocol::{Input, Output};
use crate::types::{Event, Message, PeerId};

/// Whom a breaker is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Peer(PeerId),
    Address(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    HalfOpen,
}

/// A breaker never skips half-open and never lets two probes through: what is open is dialled by a
/// probe alone, a probe follows an opening, and what was open closes by its probe or by a sign of the
/// peer. A dial-back for somebody else is no walk to the peer: that a node has failed to reach it is no reason
/// to keep silent about it.
#[derive(Debug, Default)]
pub struct BreakersHold {
    /// Breakers that are not closed.
    states: BTreeMap<(usize, Whose), State>,
    /// Nodes whose turn was begun by a sign of a peer, or by the host.
    signs: BTreeMap<usize, bool>,
    /// Peers that a node was asked to dial in the turn that it is in.
    asked: BTreeMap<usize, Vec<PeerId>>,
}

impl BreakersHold {
    fn on_event(&mut self, node: usize, event: &Event, found: &mut Vec<String>) -> u64 {
        let (peer, address, to) = match event {
            Event::BreakerOpened { peer, address, .. } => (peer, address, Some(State::Open)),
            Event::BreakerHalfOpen { peer, address } => (peer, address, Some(State::HalfOpen)),
            Event::BreakerClosed { peer, address } => (peer, address, None),
            _ => return 0,
        };
        let address = address.clone().map(Whose::Address);
        let Some(whose) = address.or(peer.map(Whose::Peer)) else {
            found.push(format!("node {node}: a breaker of nobody: {event:?}"));
            return 1;
        };
        let key = (node, whose);
        let before = self.states.get(&key).copied();
        let is_right = match (before, to) {
            (None | Some(State::HalfOpen), Some(State::Open))
            | (Some(State::Open), Some(State::HalfOpen))
            | (Some(State::HalfOpen), None) => true,
            (Some(State::Open), None) => self.signs.get(&node).copied().unwrap_or(false),
            _ => false,
        };
        if !is_right {
            found.push(format!("node {node}: {:?} goes from {before:?} to {to:?}", key.1));
        }
        match to {
            Some(state) => self.states.insert(key, state),
            None => self.states.remove(&key),
        };
        1
    }
}

impl Checker for BreakersHold {
    fn name(&self) -> &'static str {
        "breakers_hold"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        match seen {
            Seen::Started { node, .. } => {
                self.states.retain(|(of, _), _| of != node);
                self.signs.remove(node);
                self.asked.remove(node);
            }
            Seen::Input { node, input } => {
                let is_sign = matches!(
                    input,
                    Input::LinkOpened { .. } | Input::Received { .. } | Input::ResetBreaker { .. }
                );
                self.signs.insert(*node, is_sign);
                self.asked.insert(*node, dial_backs(input));
            }
            Seen::Output { node, output: Output::Emit(event) } => {
                return self.on_event(*node, event, found);
            }
            Seen::Output { node, output: Output::Dial { endpoint, expected, .. } } => {
                let address = || Whose::Address(endpoint.to_string());
                let whose = expected.map_or_else(address, Whose::Peer);
                let is_asked =
                    |peer: &PeerId| self.asked.get(node).is_some_and(|all| all.contains(peer));
                if self.states.get(&(*node, whose)) == Some(&State::Open)
                    && !expected.as_ref().is_some_and(is_asked)
                {
                    found.push(format!("node {node} dials {endpoint} past an open breaker"));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}

/// Returns the peers that a node is asked to dial by an input.
fn dial_backs(input: &Input) -> Vec<PeerId> {
    let Input::Received { messages, .. } = input else { return Vec::new() };
    let peers = messages.iter().filter_map(|message| match message {
        Message::DialBackTask { peer, .. } => Some(*peer),
        _ => None,
    });
    peers.collect()
}
