//! The checker of topics: nobody is offered or sent what it does not want.

use std::collections::BTreeSet;

use crate::protocol::{Input, Output};
use crate::types::{Interest, LinkId, Message, PeerId, TopicKey, TransactionId};

use super::checker::{Checker, Seen};
use super::marks::listed;
use super::per_link::PerLink;
use crate::sim::id_map::IdMap;

/// One end of a link.
#[derive(Debug, Default)]
struct Side {
    /// Interests that the peer stated: with this input, and before it.
    peer_interests: Vec<Interest>,
    own_interest: Interest,
    /// Ids that the peer asked for: answers are always allowed.
    requested: BTreeSet<TransactionId>,
}

/// Checks that what is offered on a link is of a topic that the peer wants, or that the peer is
/// nearer to a relay or has asked for it.
#[derive(Debug, Default)]
pub struct Unwanted {
    nodes: IdMap<usize, PeerId>,
    sides: PerLink<Side>,
    topics: IdMap<TransactionId, TopicKey>,
}

impl Checker for Unwanted {
    fn name(&self) -> &'static str {
        "unwanted"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        self.sides.follow(seen);
        match seen {
            Seen::Input { node, input: Input::Record(record) } => {
                self.nodes.insert(*node, record.peer());
            }
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                for message in messages {
                    self.note_topics(message);
                }
                let Some(side) = self.sides.get_mut(*node, *link) else { return 0 };
                side.peer_interests = side.peer_interests.pop().into_iter().collect();
                for message in messages {
                    side.hear(message);
                }
            }
            Seen::Input { input: Input::Publish { transactions, .. }, .. } => {
                for transaction in transactions {
                    self.topics.insert(transaction.id(), TopicKey::of(transaction.topic()));
                }
            }
            Seen::Output { node, output: Output::Send { link, message } } => {
                self.note_topics(message);
                return self.check(*node, *link, message, found);
            }
            _ => {}
        }
        0
    }
}

impl Unwanted {
    /// A header says where its transaction belongs.
    fn note_topics(&mut self, message: &Message) {
        match message {
            Message::Push { transaction, .. } => {
                self.topics.insert(transaction.id(), TopicKey::of(transaction.topic()));
            }
            Message::Offer(offer) => {
                let topic = TopicKey::of(&offer.head.header().topic);
                self.topics.insert(offer.head.id(), topic);
            }
            _ => {}
        }
    }

    fn check(
        &mut self,
        node: usize,
        link: LinkId,
        message: &Message,
        found: &mut Vec<String>,
    ) -> u64 {
        let Some(side) = self.sides.get_mut(node, link) else { return 0 };
        let offered = match message {
            Message::Hello(hello) => {
                side.own_interest = hello.interest.clone();
                return 0;
            }
            Message::Interest(interest) => {
                side.own_interest = interest.clone();
                return 0;
            }
            Message::Push { transaction, .. } => vec![transaction.id()],
            Message::Offer(offer) => vec![offer.head.id()],
            Message::Announce(list) => list.iter().map(|a| a.id).collect(),
            Message::Ask(ranges) | Message::Answer(ranges) => listed(ranges),
            _ => return 0,
        };
        if side.peer_interests.iter().any(|peer_interests| peer_interests.topics.is_none()) {
            return offered.len() as u64;
        }
        let me = self.nodes.get(&node).map(Interest::short);
        for id in &offered {
            let Some(topic) = self.topics.get(id) else { continue };
            let uphill = |peer_interests: &Interest| {
                peer_interests.depth < side.own_interest.depth && Some(peer_interests.via) != me
            };
            let mut peer_interests = side.peer_interests.iter();
            let fit = peer_interests
                .any(|peer_interests| peer_interests.wants(*topic) || uphill(peer_interests));
            if !fit && !side.requested.contains(id) {
                let kind = message.kind();
                found.push(format!("node {node}: {kind} of {id} on {link:?}, unwanted there"));
            }
        }
        offered.len() as u64
    }
}

impl Side {
    fn hear(&mut self, message: &Message) {
        match message {
            Message::Hello(hello) => self.peer_interests.push(hello.interest.clone()),
            Message::Interest(interest) => self.peer_interests.push(interest.clone()),
            Message::Want(ids) => self.requested.extend(ids),
            Message::Reserve(reservation) => {
                self.requested.insert(reservation.id);
            }
            _ => {}
        }
    }
}
