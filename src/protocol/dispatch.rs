//! From an input, a timer or a message to the part that it is for.
//!
//! Tested by: `protocol::tests::property`.

use crate::types::{CloseReason, FailureKind, LinkId, Message, canonical};

use super::Protocol;
use super::io::{DialId, Input};
use super::timers::Timer;

impl Protocol {
    pub(in crate::protocol) fn route(&mut self, input: Input) {
        match input {
            Input::Timeout => {}
            Input::Record(record) => self.on_record(record),
            Input::Candidates(drafts) => self.on_candidates(drafts),
            Input::LinkOpened { link, remote, kind, address, dial, assurance } => {
                let address = address.map(canonical);
                self.on_link_opened(link, remote, kind, address, dial, assurance);
            }
            Input::DialFailed { dial, reason, detail } => {
                self.on_dial_failed(dial, reason, detail);
            }
            Input::HandshakeFailed { address, reason } => {
                self.on_handshake_failed(address.map(canonical), reason);
            }
            Input::LinkClosed { link } => self.with_link(link, Self::on_link_closed),
            Input::Leaving { link } => self.with_link(link, Self::on_leaving),
            Input::Received { link, messages, bytes } => self.on_received(link, messages, bytes),
            Input::Malformed { link } => self.with_link(link, Self::violation),
            Input::Overrun { link } => {
                self.with_link(link, |core, link| core.close(link, CloseReason::SlowPeer));
            }
            Input::Sent { link, weight, bytes } => self.on_sent(link, weight, bytes),
            Input::Publish { call, transactions, renews } => {
                self.on_publish(call, transactions, renews);
            }
            Input::NotRenewed { id, removed } => self.on_not_renewed(id, removed),
            Input::Stored { ticket, result } => self.on_stored(ticket, result),
            Input::Verified { ticket, judgement } => {
                self.on_verified(ticket, judgement);
                self.resume_sessions();
            }
            Input::RecordsVerified { ticket, valid, forged } => {
                self.on_records_verified(ticket, valid, forged);
            }
            Input::Relogged(transaction) => self.on_relogged(&transaction),
            Input::Loaded { ticket, transactions } => self.on_loaded(ticket, &transactions),
            Input::HeadVerified { ticket, result } => self.on_head_verified(ticket, result),
            Input::PieceVerified { ticket, valid } => self.on_piece_verified(ticket, valid),
            Input::Proved { ticket, proofs } => self.on_proved(ticket, proofs),
            Input::Unchecked { ticket } => self.on_unchecked(ticket),
            Input::Spilled { ticket, kept } => self.on_spilled(ticket, kept),
            Input::Unspilled { ticket, pieces } => self.on_unspilled(ticket, pieces),
            Input::Connect { call, endpoint } => {
                self.membership.on_connect(&mut self.env, &self.links, call, endpoint);
            }
            Input::Nearby { endpoints } => {
                self.membership.on_nearby(&mut self.env, &self.links, &self.guard, endpoints);
            }
            Input::ResetBreaker { peer } => {
                self.membership.on_reset_breaker(&mut self.env, &peer);
                self.maintain();
            }
            Input::TestPeer { call, peer } => self.on_test_peer(call, peer),
            Input::Disconnect { peer } => {
                if let Some(link) = self.links.by_peer.get(&peer).copied() {
                    self.close(link, CloseReason::Requested);
                }
            }
            Input::Measured { link, received, taken } => {
                self.with_link(link, |core, link| core.on_traffic(link, received, taken));
            }
            Input::Request { call, peer, protocol, body, within, trace } => {
                self.on_request(call, peer, protocol, body, within, trace);
            }
            Input::CancelRequest { call } => self.on_cancel_call(call),
            Input::Serving(protocols) => self.on_serving(protocols),
            Input::Answer { ticket, result } => self.on_handled(ticket, result),
            Input::Subscribed { topics } => self.on_subscribed(topics),
            Input::Redeliver(id) => self.on_redeliver(id),
            Input::DropDeadLetter(id) => self.on_drop_dead(&id),
            Input::Ban(ban) => self.on_ban(ban),
            Input::Unban(peer) => self.on_unban(peer),
            Input::Shutdown => self.on_shutdown(),
        }
    }

    pub(in crate::protocol) fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Walk(walk) => self.on_walk_due(walk),
            Timer::Hello(link) => self.on_hello_timeout(link),
            Timer::Ping(link) => self.on_ping_due(link),
            Timer::Pong(link) => self.on_pong_overdue(link),
            Timer::Drain(link) => self.drain(link),
            Timer::Handover(link) => self.on_handover_due(link),
            Timer::Fetch(id) => self.on_fetch_due(&id),
            Timer::Replay(link) => self.on_replay_due(link),
            Timer::Inflow(peer) => self.on_inflow_due(peer),
            // What waits is looked at after every turn.
            Timer::Room => {}
            Timer::Overlay => self.maintain(),
            Timer::Needy => self.membership.on_needy(&mut self.env, &mut self.links, &self.guard),
            Timer::Refresh => {
                self.membership.on_refresh(&mut self.env, &mut self.links, &self.guard);
            }
            Timer::Reconcile => self.on_reconcile_due(),
            Timer::Expire => self.on_expire(),
            Timer::Outbox => self.on_outbox_due(),
            Timer::Interest => self.on_interest_due(),
            Timer::Tests => self.on_tests_due(),
            Timer::Messages => self.on_messages_due(),
            Timer::Reachability => self.on_reachability_due(),
        }
    }

    fn on_dial_failed(&mut self, dial: DialId, reason: FailureKind, detail: String) {
        if self.on_dial_back_failed(dial, reason) || self.on_heir_not_dialled(dial, reason) {
            return;
        }
        let (env, links, guard) = (&mut self.env, &self.links, &self.guard);
        self.membership.on_dial_failed(env, links, guard, dial, reason, detail);
    }

    /// Does something about the link that a connection carries, if it still carries one.
    fn with_link(&mut self, wire: LinkId, act: impl FnOnce(&mut Self, LinkId)) {
        if let Some(link) = self.links.link_of(wire) {
            act(self, link);
        }
    }

    fn on_received(&mut self, wire: LinkId, messages: Vec<Message>, bytes: usize) {
        self.env.counters.frames_received += 1;
        self.env.counters.frame_bytes_received += bytes as u64;
        let now = self.env.now;
        if let Some(up) = self.links.link_of(wire).and_then(|link| self.links.up(link)) {
            up.quality.note_received(bytes, now);
        }
        for message in messages {
            // An earlier message of the frame may have closed the link, or was the first after a
            // handover.
            let Some(link) = self.links.link_of(wire) else { return };
            let Some(l) = self.links.all.get_mut(&link) else { return };
            l.heard = now;
            if l.up.is_some() {
                self.on_message(link, message);
            } else {
                self.on_first_message(link, message);
            }
        }
    }

    fn on_message(&mut self, link: LinkId, message: Message) {
        match message {
            Message::Hello(_) => self.violation(link),
            Message::Switch { step } => self.on_switch(link, step),
            Message::Goodbye { reason, retry_after } => self.on_goodbye(link, reason, retry_after),
            Message::Ping { nonce } => self.send(link, Message::Pong { nonce }),
            Message::Pong { nonce } => {
                if self.on_pong(link, nonce) {
                    self.resume(link);
                }
            }
            Message::PeersRequest { max } => self.membership.on_peers_request(
                &mut self.env,
                &mut self.links,
                &self.guard,
                link,
                max,
            ),
            Message::Peers { records, relays } => self.membership.on_peers(
                &mut self.env,
                &mut self.links,
                &mut self.guard,
                link,
                records,
                relays,
            ),
            Message::Announce(list) => self.on_announce(link, list),
            Message::Want(list) => self.on_want(link, &list),
            Message::Missing(ids) => self.on_missing(link, &ids),
            Message::Push { transaction, hop } => self.on_push(link, transaction, hop),
            Message::Piece(piece) => self.on_piece(link, piece),
            Message::Duplicate(ids) => self.on_duplicate(link, &ids),
            Message::Early(ids) => self.on_early(link, &ids),
            Message::Stored(ids) => self.on_confirmed(link, &ids),
            Message::Ask(ask) => self.on_ask(link, ask),
            Message::Answer(answer) => self.on_answer(link, &answer),
            Message::Yours { lower, upper } => self.on_yours(link, lower, upper),
            Message::Offer(offer) => self.on_offer(link, *offer),
            Message::Reserve(reservation) => self.on_reserve(link, &reservation),
            Message::Busy(ids) => self.on_busy(link, &ids),
            Message::Receiving { id, place } => self.on_receiving(link, &id, place),
            Message::Interest(interest) => self.on_interest(link, interest),
            Message::Flushed => self.on_flushed(link),
            Message::Refused { list, clock } => self.on_refused_by_peer(link, &list, clock),
            Message::Probe { nonce, payload, wants } => {
                self.on_probe(link, nonce, &payload, wants);
            }
            Message::Probed { nonce, received, payload } => {
                self.on_probed(link, nonce, received, payload.len());
            }
            Message::Request { id, protocol, size, timeout_ms, body, trace } => {
                self.on_request_of_peer(link, id, (protocol, trace), (size, timeout_ms), &body);
            }
            Message::Response { id, status, size, body, reason } => {
                self.on_response(link, id, status, size, (body, &reason));
            }
            Message::BodyPart { id, of_answer, data } => {
                self.on_body_part(link, id, of_answer, &data);
            }
            Message::CancelRequest { id } => self.on_cancel_of_peer(link, id),
            Message::DialBack { nonce, port } => self.on_dial_back(link, nonce, port),
            Message::DialBackTask { nonce, address, peer } => {
                self.on_dial_back_task(link, nonce, address, peer);
            }
            Message::DialBackResult { nonce, outcome, dialler } => {
                self.on_dial_back_result(link, nonce, outcome, dialler);
            }
        }
    }
}
