//! Doing what the protocol asks for, one output after the other.

use tokio::sync::{oneshot, watch};

use crate::error::naming;
use crate::node::handle::Request;
use crate::node::messages::{
    NodeState, OutboxSettled, Published, Redelivered, Unconnected, Unpublished,
};
use crate::node::workers::piece_verifier::PieceCheck;
use crate::node::workers::store_writer::{Source, StoreOp};
use crate::node::workers::verifier::TransactionCheck;
use crate::protocol::{CallId, Input, Output, PublishRefusal, Ticket};
use crate::types::{
    CloseReason, Direction, Endpoint, Event, LinkId, Message, PublishState, PublishStatus,
    TransactionId,
};

use super::dials::DialTarget;
use super::link::LinkHandle;
use super::{Call, Driver};

/// Hint of a node whose key another process has.
const IN_USE: &str = "another process has this node's identity, and takes its links over";

impl Driver {
    /// Does everything that the protocol has asked for, also in answer to what comes of that.
    pub(super) fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.protocol.poll_output() {
                self.perform(output);
            }
            let Some(input) = self.follow_ups.pop_front() else { return };
            self.handle(input);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, endpoint, rung, expected, avoid } => {
                let target = DialTarget { endpoint, rung, expected, avoid };
                self.effects.dials.start(dial, target);
            }
            Output::CancelDial { dial } => self.effects.dials.cancel(dial),
            Output::Send { link, message } => self.send(link, message),
            Output::Measure { link } => self.measure(link),
            Output::Close { link } => {
                while self.closing.try_join_next().is_some() {}
                if let Some(handle) = self.links.remove(&link) {
                    handle.close(&mut self.closing, &self.carried);
                }
            }
            Output::Verify { ticket, transaction, from, proven } => {
                let check = TransactionCheck { ticket, transaction, from, proven };
                if self.effects.checks.try_send(check).is_err() {
                    self.refuse_check(ticket);
                }
            }
            Output::VerifyHead { ticket, head } => {
                self.check_piece(PieceCheck::Head { ticket, head });
            }
            Output::VerifyPiece { ticket, root, len, piece } => {
                self.check_piece(PieceCheck::Piece { ticket, root, len, piece });
            }
            Output::Prove { ticket, transaction } => {
                self.check_piece(PieceCheck::Prove { ticket, transaction });
            }
            Output::VerifyRecords { ticket, records } => {
                self.effects.verify_records(ticket, records);
            }
            Output::Store { ticket, entry, is_news } => {
                let source = Source::Peer { is_news };
                self.store(StoreOp::Store { ticket, entries: vec![entry], source });
            }
            Output::StoreOwn { ticket, entries } => {
                self.store(StoreOp::Store { ticket, entries, source: Source::Own });
            }
            Output::Confirmed { ids, forgotten } => {
                for id in &ids {
                    self.statuses.set_state(id, PublishState::Confirmed);
                }
                for id in &forgotten {
                    self.statuses.forget(id);
                }
                self.store(StoreOp::Confirmed { ids });
            }
            Output::Copied { id, peers } => self.statuses.copied(&id, peers),
            Output::Renew { id } => {
                if self.effects.renewals.try_send(id).is_err() {
                    self.follow_ups.push_back(Input::NotRenewed { id, removed: false });
                }
            }
            Output::Renewed { id, renewed_as } => {
                self.statuses.renewed(&id, renewed_as);
                self.store(StoreOp::Confirmed { ids: vec![id] });
            }
            Output::UpdateOutbox { states } => self.store(StoreOp::UpdateOutbox { states }),
            Output::Partial(op) => self.store(StoreOp::Partial(op)),
            Output::Expire { now } => self.store(StoreOp::Expire { now }),
            Output::Load { ticket, ids } => self.effects.load(ticket, ids),
            Output::SavePast { since, until } => self.store(StoreOp::SavePast { since, until }),
            Output::SavePeer(peer) => self.effects.peers.save(peer),
            Output::ForgetPeer(peer) => self.effects.peers.forget(peer),
            Output::SaveBan(ban) => self.effects.peers.set_ban(ban.peer, Some(ban)),
            Output::LiftBan(peer) => self.effects.peers.set_ban(peer, None),
            Output::Published { call, result } => self.answer_publish(call, result),
            Output::Connected { call, result, detail } => {
                if let Some(Call::Connect(reply)) = self.calls.remove(&call) {
                    let reason = Some(detail).filter(|words| !words.is_empty());
                    let _ = reply.send(result.map_err(|failure| Unconnected { failure, reason }));
                }
            }
            Output::Tested { call, result } => {
                if let Some(Call::Test(reply)) = self.calls.remove(&call) {
                    let _ = reply.send(result);
                }
            }
            Output::Requested { ticket, peer, protocol, body, within, trace } => {
                let request = Request::of_peer(peer, protocol, body, within, trace);
                self.start_handler(ticket, request);
            }
            Output::RequestCancelled { ticket } => self.cancel_handler(ticket),
            Output::Answered { call, result } => self.answer_request(call, result),
            Output::CorrectClock { correction_ms } => {
                self.effects.clock.correct(correction_ms);
            }
            Output::OwnEndpoints { endpoints } => self.set_endpoints(endpoints),
            Output::Shun { address, time } => {
                self.effects.dials.transports().iter().for_each(|t| t.shun(address, time));
            }
            Output::RenewRecord { above } => {
                self.effects.record.renew(above);
                self.sign_record();
            }
            Output::Emit(event) => self.emit(event),
        }
    }

    fn answer_publish(&mut self, call: CallId, result: Result<bool, PublishRefusal>) {
        let Some(Call::Publish(ids, reply)) = self.calls.remove(&call) else { return };
        let answer = match result {
            Ok(is_new) => {
                let watched = ids.into_iter().map(|id| (id, self.watch(id, is_new)));
                Ok(Published { is_new, entries: watched.collect() })
            }
            Err(refusal) => Err(self.unpublished(refusal)),
        };
        self.answers.push((reply, answer));
    }

    /// Watches the status of a transaction that was published just now, or before.
    fn watch(&mut self, id: TransactionId, is_new: bool) -> watch::Receiver<PublishStatus> {
        if is_new {
            return self.statuses.watch(id);
        }
        let known = self.protocol.publish_status(&id);
        self.statuses.watch_again(id, known)
    }

    fn unpublished(&self, refusal: PublishRefusal) -> Unpublished {
        match (refusal, &self.causes.store) {
            (PublishRefusal::Store(_), Some(failure)) => Unpublished::NotStored(failure.clone()),
            _ => refusal.into(),
        }
    }

    /// Queues a message on a link; one that has no room for it is ended.
    fn send(&mut self, link: LinkId, message: Message) {
        let refused = self.links.get(&link).is_some_and(|l| !l.send(message));
        if refused && let Some(handle) = self.links.remove(&link) {
            handle.abort(&self.carried);
            self.follow_ups.push_back(Input::Overrun { link });
        }
    }

    /// Tells the protocol what a link has carried.
    fn measure(&mut self, link: LinkId) {
        if let Some((received, taken)) = self.links.get(&link).map(LinkHandle::traffic) {
            self.follow_ups.push_back(Input::Measured { link, received, taken });
        }
    }

    fn check_piece(&mut self, check: PieceCheck) {
        let ticket = check.ticket();
        if self.effects.piece_checks.try_send(check).is_err() {
            self.refuse_check(ticket);
        }
    }

    /// Tells the protocol that a check is not made, since no verifier takes it: what was to be checked
    /// is fetched again when it is next announced. The protocol keeps to what the channels hold; were
    /// this not told, an overrun would leave a transaction under check for ever.
    fn refuse_check(&mut self, ticket: Ticket) {
        if self.refused_checks == 0 {
            tracing::warn!(target: "sorcha_peer::node", "no verifier takes a check");
        }
        self.refused_checks += 1;
        self.follow_ups.push_back(Input::Unchecked { ticket });
    }

    /// Notes that there is room for checks: that ends the episode in which some were refused.
    pub(super) fn note_room(&mut self) {
        let refused = std::mem::take(&mut self.refused_checks);
        if refused > 0 {
            tracing::info!(target: "sorcha_peer::node", refused, "verifiers take checks again");
        }
    }

    fn store(&mut self, op: StoreOp) {
        let has_result = matches!(op, StoreOp::Store { .. });
        let refused = self.effects.store.push(op);
        if has_result && refused.is_none() {
            self.effects.stall.note_given();
        }
        self.follow_ups.extend(refused);
    }

    /// Lets a dead letter wait for copies again.
    pub(super) fn redeliver(&mut self, id: TransactionId) -> Redelivered {
        let was_dead = self.protocol.is_dead_letter(&id);
        self.feed(Input::Redeliver(id));
        if self.protocol.is_unconfirmed(&id) {
            let status = self.protocol.publish_status(&id);
            Redelivered::Waiting(self.statuses.watch_again(id, status))
        } else if was_dead {
            Redelivered::Forgotten
        } else {
            Redelivered::Gone
        }
    }

    /// Answers once the stored outbox is as the protocol has it now, and without `remove`. A dropped
    /// `reply` is an answer too: the node ends.
    pub(super) fn settle_outbox(
        &mut self,
        remove: Option<TransactionId>,
        reply: oneshot::Sender<OutboxSettled>,
    ) {
        self.store(StoreOp::Settle { remove, reply });
    }

    fn emit(&mut self, event: Event) {
        match &event {
            Event::Replicated { id, peers } => self.statuses.copied(id, *peers),
            Event::HistoryMissed { from, until } => {
                self.store(StoreOp::Missed { span: *from..*until });
            }
            Event::DeadLettered { id, reason } => {
                self.statuses.set_state(id, PublishState::DeadLetter { reason: reason.clone() });
            }
            Event::PublishRefused { id, reason, .. } => self.statuses.refused(id, *reason),
            Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::ModeChanged { .. }
            | Event::DialFailed { .. }
            | Event::LinkRefused { .. }
            | Event::IdentityInUse { .. }
            | Event::RecordRefused { .. }
            | Event::ClockOff { .. }
            | Event::ClockRight => self.refresh_state(&event),
            _ => {}
        }
        let is_up = matches!(event, Event::PeerUp { .. });
        self.effects.emit(event);
        if is_up {
            // Not before: who listens for events once there is a link is not to hear of that link.
            let links = self.protocol.stats().links;
            self.state.send_modify(|state: &mut NodeState| state.links = links);
        }
    }

    fn refresh_state(&self, event: &Event) {
        let stats = self.protocol.stats();
        self.state.send_modify(|state: &mut NodeState| {
            state.mode = Some(stats.mode);
            state.links = state.links.min(stats.links);
            state.clock_offset_ms = stats.clock_off.then_some(stats.clock_offset_ms);
            match event {
                Event::DialFailed { address, reason, .. } => {
                    let cause = self.causes.dial.as_ref();
                    let reason = cause.map_or_else(|| reason.to_string(), String::clone);
                    state.hint =
                        Some(naming(&format!("dialling {address} failed"), address, &reason));
                }
                Event::LinkRefused { reason, .. } if *reason == CloseReason::IdentityInUse => {
                    state.hint = Some(IN_USE.to_owned());
                }
                // Who came by itself says nothing of what this node waits for.
                Event::LinkRefused { address, direction: Direction::Outbound, reason, .. } => {
                    let address = address.as_deref().unwrap_or("a peer");
                    state.hint = Some(format!("the link with {address} was refused: {reason}"));
                }
                Event::IdentityInUse { peer, .. } if *peer == stats.peer_id => {
                    state.hint = Some(IN_USE.to_owned());
                }
                _ => {}
            }
        });
    }

    fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) {
        if self.effects.record.set_endpoints(endpoints) {
            self.sign_record();
        }
    }

    fn sign_record(&mut self) {
        let now = self.effects.clock.now();
        let (stored, record) = self.effects.record.sign(&self.identity, now);
        self.effects.peers.save(Box::new(stored));
        self.follow_ups.push_back(Input::Record(record));
    }
}
