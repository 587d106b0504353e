//! Nodes that ask each other: what their hosts do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::World;
use super::event::Event;
use crate::error::RequestError;
use crate::protocol::{AnswerRefusal, CallId, Input, Ticket};

/// Handler of a node: what it answers to a body, and how long that takes at the most. It does not notice
/// that a request is cancelled.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Names of what it serves.
    pub protocols: BTreeSet<String>,
    /// Maximum time that an answer takes; each draws its own.
    pub delay: Duration,
    /// The answer to a body.
    pub answer: fn(&Bytes) -> Result<Bytes, AnswerRefusal>,
}

/// What a host asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct HostState {
    pub(super) handler: Option<Handler>,
    pub(super) answers: BTreeMap<CallId, Result<Bytes, RequestError>>,
}

impl World {
    /// Has a node serve requests, also after a restart.
    pub fn serve(&mut self, node: usize, handler: Handler) {
        self.nodes[node].host.handler = Some(handler);
        self.tell_serving(node);
    }

    /// Tells the protocol of a node what its host serves.
    pub(super) fn tell_serving(&mut self, node: usize) {
        if let Some(handler) = &self.nodes[node].host.handler {
            let protocols = handler.protocols.clone();
            self.feed(node, Input::Serving(protocols));
        }
    }

    /// Lets a node ask another one.
    pub fn request(
        &mut self,
        from: usize,
        to: usize,
        protocol: &str,
        body: Bytes,
        within: Duration,
    ) -> CallId {
        let peer = self.peer_id(to);
        let n = &mut self.nodes[from];
        n.next_call += 1;
        let call = CallId(n.next_call);
        let (protocol, trace) = (protocol.to_owned(), None);
        self.feed(from, Input::Request { call, peer, protocol, body, within, trace });
        call
    }

    /// Lets a node give a request up.
    pub fn cancel_request(&mut self, node: usize, call: CallId) {
        self.feed(node, Input::CancelRequest { call });
    }

    /// Returns the answers that a node has had, those of earlier runs too.
    pub fn answers(&self, node: usize) -> &BTreeMap<CallId, Result<Bytes, RequestError>> {
        &self.nodes[node].host.answers
    }

    /// A node has a request of a peer handled.
    pub(super) fn handle_request(&mut self, node: usize, ticket: Ticket, body: &Bytes) {
        let (boot, handler) = (self.nodes[node].boot, self.nodes[node].host.handler.clone());
        let result = handler.as_ref().map_or(Err(AnswerRefusal::NotServed), |h| (h.answer)(body));
        let delay = handler.map_or(Duration::ZERO, |h| h.delay);
        let at = self.now + self.rng.up_to(delay);
        let input = Box::new(Input::Answer { ticket, result });
        self.schedule(at, Event::Completed { node, boot, input });
    }
}
