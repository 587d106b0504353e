//! Links that go over to another connection: what follows them, and the checker of their order.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::{Input, Output};
use crate::types::{LinkId, Message, PeerId};

use super::checker::{Checker, Seen};
use crate::sim::id_map::IdMap;
use crate::sim::link_id::{link_of, pipe_of};

/// The step that is the first word on the new connection.
pub(super) const GO_ON: u32 = 3;

/// The open ends of all nodes: tells when one takes over from another.
#[derive(Debug, Default)]
pub(super) struct Successions(BTreeMap<(usize, LinkId), PeerId>);

impl Successions {
    /// Takes note; returns the node, and the connections from and to which its link goes over now.
    /// To be shown everything.
    pub(super) fn note(&mut self, seen: &Seen<'_>) -> Option<(usize, LinkId, LinkId)> {
        let goes_on = |m: &Message| matches!(m, Message::Switch { step: GO_ON });
        match seen {
            Seen::Started { node, .. } => self.0.retain(|(n, _), _| n != node),
            Seen::Input { node, input: Input::LinkOpened { link, remote, .. } } => {
                self.0.insert((*node, *link), *remote);
            }
            Seen::Output { node, output: Output::Close { link } }
            | Seen::Input { node, input: Input::LinkClosed { link } } => {
                self.0.remove(&(*node, *link));
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } }
                if messages.iter().any(goes_on) =>
            {
                return self.predecessor(*node, *link);
            }
            Seen::Output { node, output: Output::Send { link, message } } if goes_on(message) => {
                return self.predecessor(*node, *link);
            }
            _ => {}
        }
        None
    }

    fn predecessor(&self, node: usize, heir: LinkId) -> Option<(usize, LinkId, LinkId)> {
        let remote = self.0.get(&(node, heir))?;
        let ends = self.0.range((node, LinkId(0))..(node, heir));
        let theirs = ends.filter(|(_, peer)| *peer == remote);
        theirs.map(|((_, link), _)| (node, *link, heir)).next()
    }
}

/// Checks that what is said on a link arrives in that order, once, and all of it before the link goes
/// over to another connection. To be added to worlds whose nodes and frames are honest: a message that is
/// changed or lost on the way is what it finds.
#[derive(Debug, Default)]
pub struct InOrder {
    successions: Successions,
    /// What is under way from the node at an end.
    under_way: IdMap<LinkId, VecDeque<Print>>,
}

/// What tells a message from others: its kind and a number of its own.
type Print = (&'static str, u64);

impl Checker for InOrder {
    fn name(&self) -> &'static str {
        "in_order"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        let moved = self.successions.note(seen);
        if let Some((node, from, _)) = moved {
            let left = self.under_way.get(&other_end(from)).map_or(0, VecDeque::len);
            if left > 0 {
                found.push(format!("node {node}: {left} messages lost as {from:?} is left"));
            }
        }
        match seen {
            // A goodbye on a connection that is left is for whoever is still there.
            Seen::Output {
                output: Output::Send { message: Message::Goodbye { .. }, .. }, ..
            } => 0,
            Seen::Output { output: Output::Send { link, message }, .. } => {
                self.under_way.entry(*link).or_default().push_back(print(message));
                1
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                let of_link = |m: &&Message| !matches!(m, Message::Goodbye { .. });
                for message in messages.iter().filter(of_link) {
                    let said = self.under_way.get_mut(&other_end(*link));
                    let said = said.and_then(VecDeque::pop_front);
                    if said != Some(print(message)) {
                        let kind = message.kind();
                        found.push(format!(
                            "node {node}: {kind} on {link:?}, where {said:?} was due"
                        ));
                    }
                }
                messages.len() as u64
            }
            Seen::Output { output: Output::Close { link }, .. }
            | Seen::Input { input: Input::LinkClosed { link }, .. } => {
                self.under_way.remove(&other_end(*link));
                0
            }
            _ => 0,
        }
    }
}

/// The end of a link at the other node.
pub(super) fn other_end(link: LinkId) -> LinkId {
    let (pipe, side) = pipe_of(link);
    link_of(pipe, 1 - side)
}

fn print(message: &Message) -> Print {
    let head = |bytes: &[u8; 32]| bytes.iter().fold(0u64, |n, byte| n << 2 ^ u64::from(*byte));
    let number = match message {
        Message::Ping { nonce } | Message::Pong { nonce } => *nonce,
        Message::Push { transaction, .. } => head(transaction.id().as_bytes()),
        Message::Piece(piece) => head(piece.id.as_bytes()) ^ u64::from(piece.index),
        Message::Announce(list) => list.iter().fold(0, |n, a| n << 1 ^ head(a.id.as_bytes())),
        Message::Want(ids) | Message::Stored(ids) | Message::Duplicate(ids) => {
            ids.iter().fold(0, |n, id| n << 1 ^ head(id.as_bytes()))
        }
        Message::Switch { step } => u64::from(*step),
        Message::Request { id, .. }
        | Message::Response { id, .. }
        | Message::CancelRequest { id } => *id,
        Message::BodyPart { id, of_answer, data } => {
            id << 20 ^ u64::from(*of_answer) << 18 ^ data.len() as u64
        }
        other => other.weight() as u64,
    };
    (message.kind(), number)
}
