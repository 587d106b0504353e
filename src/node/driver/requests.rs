//! Requests: those of the host on their way to peers, and those of peers, for each of which a task beside the
//! driver runs the host's handler. At most as many run as the protocol lets in.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::error::RequestError;
use crate::node::handle::Request;
use crate::node::handlers::{Handlers, answer};
use crate::node::messages::{Ask, Completion};
use crate::protocol::{AnswerRefusal, CallId, Input, Ticket};

use super::{Call, Driver};

/// Handlers at work.
pub(in crate::node) struct HandlerTasks {
    handlers: Arc<Handlers>,
    /// Number of changes of the handlers that the protocol knows of.
    seen: u64,
    at_work: HashMap<Ticket, JoinHandle<()>>,
    done: mpsc::Sender<Completion>,
}

impl HandlerTasks {
    pub(in crate::node) fn new(handlers: Arc<Handlers>, done: mpsc::Sender<Completion>) -> Self {
        Self { handlers, seen: 0, at_work: HashMap::new(), done }
    }

    /// Starts the handler of a request.
    fn start(&mut self, ticket: Ticket, request: Request) -> Result<(), AnswerRefusal> {
        let handler = self.handlers.get(request.protocol()).ok_or(AnswerRefusal::NotServed)?;
        let done = self.done.clone();
        let span = tracing::debug_span!(
            target: "sorcha_peer::messages",
            "serve_request",
            peer = request.peer().map(tracing::field::display),
            protocol = request.protocol(),
            bytes = request.body().len()
        );
        let task = async move {
            let result = answer(handler, request).await;
            let _ = done.send(Completion::Handled { ticket, result }).await;
        };
        self.at_work.insert(ticket, tokio::spawn(task.instrument(span.or_current())));
        Ok(())
    }

    /// Drops a handler where it stands.
    fn cancel(&mut self, ticket: Ticket) {
        if let Some(task) = self.at_work.remove(&ticket) {
            task.abort();
        }
    }

    /// Drops all handlers where they stand, and waits until they are gone.
    pub(super) async fn end(&mut self) {
        self.handlers.close();
        self.at_work.values().for_each(JoinHandle::abort);
        for task in std::mem::take(&mut self.at_work).into_values() {
            let _ = task.await;
        }
    }
}

impl Drop for HandlerTasks {
    fn drop(&mut self) {
        self.handlers.close();
        self.at_work.values().for_each(JoinHandle::abort);
    }
}

impl Driver {
    /// Passes a request of the host on.
    pub(super) fn ask(&mut self, ask: Ask) {
        let Ask { call, peer, protocol, body, within, trace, reply } = ask;
        if self.stop_at.is_some() {
            let _ = reply.send(Err(RequestError::Closed));
            return;
        }
        self.calls.insert(call, Call::Request(reply));
        self.feed(Input::Request { call, peer, protocol, body, within, trace });
    }

    pub(super) fn cancel_request(&mut self, call: CallId) {
        // Answered in this moment, it is no more.
        if self.calls.remove(&call).is_some() {
            self.feed(Input::CancelRequest { call });
        }
    }

    /// Ends what a node that stops does not wait for: its own requests, and that peers make new ones.
    pub(super) fn close_requests(&mut self) {
        self.effects.handlers.handlers.close();
        let closed = self.calls.extract_if(|_, call| matches!(call, Call::Request(_)));
        for (call, waiting) in closed.collect::<Vec<_>>() {
            if let Call::Request(reply) = waiting {
                let _ = reply.send(Err(RequestError::Closed));
            }
            self.feed(Input::CancelRequest { call });
        }
    }

    /// Tells the protocol which handlers there are, where that has changed.
    pub(super) fn note_handlers(&mut self) {
        let HandlerTasks { handlers, seen, .. } = &mut self.effects.handlers;
        if let Some(protocols) = handlers.changed_since(seen) {
            self.feed(Input::Serving(protocols));
        }
    }

    pub(super) fn start_handler(&mut self, ticket: Ticket, request: Request) {
        if let Err(refusal) = self.effects.handlers.start(ticket, request) {
            self.follow_ups.push_back(Input::Answer { ticket, result: Err(refusal) });
        }
    }

    pub(super) fn cancel_handler(&mut self, ticket: Ticket) {
        self.effects.handlers.cancel(ticket);
    }

    /// Passes the answer of a handler on, unless it was cancelled in this moment.
    pub(super) fn handled(&mut self, ticket: Ticket, result: Result<Bytes, AnswerRefusal>) {
        if self.effects.handlers.at_work.remove(&ticket).is_some() {
            self.feed(Input::Answer { ticket, result });
        }
    }

    pub(super) fn answer_request(&mut self, call: CallId, result: Result<Bytes, RequestError>) {
        if let Some(Call::Request(reply)) = self.calls.remove(&call) {
            let _ = reply.send(result);
        }
    }
}
