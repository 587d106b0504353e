//! The end of a link: asked for by a part, by the peer, by the host, or by the transport.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::hostile`, `protocol::tests::greedy`.

use std::time::Duration;

use crate::error::TestError;
use crate::protocol::Protocol;
use crate::protocol::guard::Work;
use crate::protocol::io::Output;
use crate::protocol::link::{CloseCause, Link, Verdict};
use crate::protocol::refusal::ConnectFailure;
use crate::protocol::timers::Timer;
use crate::types::{Ban, CloseReason, Event, LinkId, Message, PeerId};

impl Protocol {
    /// Says why and closes.
    pub(in crate::protocol) fn close(&mut self, link: LinkId, reason: CloseReason) {
        let Some(wire) = self.links.wire_of(link) else { return };
        if !self.stop_holding(link) {
            self.drain(link);
        }
        let retry_after = self.retry_hint(reason);
        self.send(link, Message::Goodbye { reason, retry_after });
        self.env.push(Output::Close { link: wire });
        self.forget_link(link, CloseCause::Ours(reason));
    }

    /// Disconnects peers that make us answer more than they take.
    pub(in crate::protocol) fn close_overfull(&mut self) -> bool {
        let mut some = false;
        while let Some(link) = self.links.overfull.pop_first() {
            self.close(link, CloseReason::SlowPeer);
            some = true;
        }
        some
    }

    /// Takes a link that is closed or closing out of every table.
    pub(super) fn forget_link(&mut self, link: LinkId, cause: CloseCause) {
        let Some(l) = self.links.remove(link) else { return };
        self.env.clock.forget_sample(link);
        let (hello, ping, pong) = (Timer::Hello(link), Timer::Ping(link), Timer::Pong(link));
        let (drain, replay, move_) =
            (Timer::Drain(link), Timer::Replay(link), Timer::Handover(link));
        for timer in [hello, ping, pong, drain, replay, move_] {
            self.env.timers.cancel(timer);
        }
        self.end_succession(link, l.succession.heir, cause);
        self.after_link(&l, cause);
    }

    /// Does what follows the end of a link, whoever ended it.
    fn after_link(&mut self, l: &Link, cause: CloseCause) {
        let reason = cause.reason();
        self.note_connection_ended(l);
        self.note_cut(l, cause);
        self.end_conversation(l.id);
        if let Some(handover) = &l.takes_over {
            self.lose_heir(l, handover);
        }
        self.membership.finish_dial(
            &mut self.env,
            l.dial,
            &l.remote,
            // That there is no room here is no fault of the address.
            l.address.filter(|_| cause != CloseCause::Ours(CloseReason::TooManyLinks)),
            Err(ConnectFailure::Refused(reason)),
            cause.retry(),
        );
        let Some(up) = &l.up else {
            // A dial is free again, and somebody else may be worth one.
            self.maintain();
            return;
        };
        self.env.counters.links_closed += 1;
        let (mut quality, now) = (up.quality, self.env.now);
        // Of a link that the peer replaces, it has seen the break before us, unless both dialled at once.
        let is_broken = match cause {
            CloseCause::Ours(CloseReason::Replaced) => {
                now.since(up.since) > self.env.config.connection.handshake_timeout
            }
            CloseCause::Ours(CloseReason::Unresponsive) | CloseCause::Transport => true,
            _ => false,
        };
        if is_broken {
            quality.note_silence(now);
        }
        self.links.recent.keep(l.remote, quality, now);
        if let Some(test) = &up.probing.test {
            let result = Err(TestError::NotLinked);
            self.env.push(Output::Tested { call: test.call, result });
        }
        if up.repair.is_running() {
            self.repairs.running.leave(1);
            self.env.counters.reconcile_broken_off += 1;
            self.env.timers.set_earlier(Timer::Reconcile, self.env.now);
        }
        self.break_inflow(l.id, &l.remote);
        self.give_back(&l.remote, Work::Id, self.heard_of(&l.remote));
        self.ask_others(l.id, up);
        self.forget_promises(l.remote);
        if cause == CloseCause::Ours(CloseReason::Replaced) {
            // The peer is still linked, over the connection that took over.
            return;
        }
        match reason {
            CloseReason::Violation => self.env.counters.links_closed_violation += 1,
            CloseReason::Unresponsive => self.env.counters.links_closed_unresponsive += 1,
            CloseReason::SlowPeer => self.env.counters.links_closed_slow += 1,
            _ => {}
        }
        tracing::info!(target: "sorcha_peer::link", peer = %l.remote, %reason, "peer down");
        self.env.emit(Event::PeerDown { peer: l.remote, reason });
        let lived = self.env.now.since(up.since);
        self.membership.note_peer_down(&mut self.env, &l.remote, lived, cause);
        self.note_peer_gone(&l.remote);
        self.settle_interest();
        self.links_changed();
    }

    pub(in crate::protocol) fn on_goodbye(
        &mut self,
        link: LinkId,
        reason: CloseReason,
        retry: Duration,
    ) {
        if self.is_left_behind(link, reason) {
            self.outlives_wire(link);
            return;
        }
        let Some(l) = self.links.all.get(&link) else { return };
        if l.remote == self.env.me && reason == CloseReason::SelfDial {
            self.on_mistaken(link);
            return;
        }
        let (peer, direction, address) = (l.remote, l.direction, l.shown_address());
        let event = Event::LinkRefused { peer, address, direction, reason };
        let (was_up, wire) = (l.up.is_some() || l.takes_over.is_some(), l.wire);
        let is_dial_back = l.is_dial_back;
        // A refusal names what is wrong with us or with the address; the peer is not at fault. That we
        // dialled ourselves is proven by our own key and our incarnation at the other end, and not by
        // what is said there.
        if !was_up && reason != CloseReason::Replaced && !is_dial_back {
            self.env.emit(event);
        }
        if reason == CloseReason::Replaced {
            self.note_taken_over(link);
        }
        self.env.push(Output::Close { link: wire });
        // A peer may send us away for a while, not for ever.
        let retry = retry.min(self.env.config.overlay.redial_max * 10);
        self.forget_link(link, CloseCause::Theirs(reason, retry));
    }

    pub(in crate::protocol) fn on_link_closed(&mut self, link: LinkId) {
        if !self.outlives_wire(link) {
            let cause = self.links.all.get(&link).map(CloseCause::of_transport);
            self.forget_link(link, cause.unwrap_or(CloseCause::Transport));
        }
    }

    /// Ends a link whose peer sent what no well-behaved peer sends.
    pub(in crate::protocol) fn violation(&mut self, link: LinkId) {
        self.env.counters.refused_malformed += 1;
        let Some(l) = self.links.all.get(&link) else { return };
        if l.up.is_some() {
            self.close(link, CloseReason::Violation);
        } else {
            self.refuse(link, CloseReason::Violation);
        }
    }

    pub(in crate::protocol) fn on_ping_due(&mut self, link: LinkId) {
        let (now, slow_after) = (self.env.now, self.env.config.liveness.slow_after);
        let Some(l) = self.links.all.get(&link) else { return };
        if l.succession.is_held() {
            self.env.timers.set(Timer::Ping(link), now + self.env.config.liveness.timeout);
            return;
        }
        let stuck = l.queued_bytes > 0 && now.since(l.progress) > slow_after;
        if stuck || l.up.as_ref().is_some_and(|up| up.budget.is_stuck(slow_after, now)) {
            self.close(link, CloseReason::SlowPeer);
        } else {
            self.ping_if_due(link);
        }
    }

    pub(in crate::protocol) fn on_pong_overdue(&mut self, link: LinkId) {
        let is_held = self.links.all.get(&link).is_some_and(|l| l.succession.is_held());
        if is_held || !self.env.has_room(self.assemblies.bytes.level()) {
            // We are the ones who do not ask, or do not read.
            self.env.timers.set(Timer::Pong(link), self.env.now + self.env.config.liveness.timeout);
            return;
        }
        let Some(l) = self.links.all.get_mut(&link) else { return };
        let heard = l.heard;
        let Some(up) = &mut l.up else { return };
        if up.pinger.outstanding.is_none_or(|ping| heard > ping.at()) {
            up.pinger.missed = 0;
            return;
        }
        self.doubt_link(link);
    }

    /// The transport says what it has carried by now.
    pub(in crate::protocol) fn on_traffic(&mut self, link: LinkId, received: u64, taken: u64) {
        if self.on_measured(link, received, taken) == Verdict::Alive {
            return;
        }
        let max_missed = self.env.config.liveness.max_missed;
        let Some(l) = self.links.all.get_mut(&link) else { return };
        let peer = l.remote;
        let Some(up) = &mut l.up else { return };
        up.pinger.missed += 1;
        up.quality.note_silence(self.env.now);
        self.env.counters.pings_missed += 1;
        if up.pinger.missed >= max_missed {
            self.close(link, CloseReason::Unresponsive);
            return;
        }
        self.env.emit(Event::PeerSuspected { peer });
        self.recheck_outbox();
        self.ping(link);
    }

    /// The host bans a peer.
    pub(in crate::protocol) fn on_ban(&mut self, ban: Ban) {
        let peer = ban.peer;
        let ban = self.guard.ban(ban);
        self.env.push(Output::SaveBan(ban));
        self.close_all_of(&peer, CloseReason::Banned);
    }

    pub(in crate::protocol) fn on_unban(&mut self, peer: PeerId) {
        self.guard.unban(&peer);
        self.env.push(Output::LiftBan(peer));
        self.maintain();
    }

    /// Proof of misbehaviour: closes all links of the peer and blocks it for a while.
    pub(in crate::protocol) fn punish(&mut self, peer: &PeerId, reason: &str) {
        tracing::warn!(target: "sorcha_peer::guard", %peer, reason, "peer blocked");
        if let Some(ban) = self.guard.block(peer, reason, self.env.wall) {
            self.env.push(Output::SaveBan(ban));
        }
        self.close_all_of(peer, CloseReason::Violation);
    }

    fn close_all_of(&mut self, peer: &PeerId, reason: CloseReason) {
        let theirs = self.links.all.values().filter(|l| l.remote == *peer).map(|l| l.id);
        for link in theirs.collect::<Vec<_>>() {
            self.close(link, reason);
        }
    }

    /// The host's validator rejected what this peer sent.
    pub(in crate::protocol) fn note_reject(&mut self, peer: &PeerId) {
        if self.guard.note_reject(peer, self.env.now) {
            self.punish(peer, "too many rejected transactions");
        }
    }

    /// Returns how soon a peer that is sent away may come back.
    pub(in crate::protocol) fn retry_hint(&self, reason: CloseReason) -> Duration {
        match reason {
            CloseReason::Replaced | CloseReason::Shutdown | CloseReason::Unresponsive => {
                Duration::ZERO
            }
            CloseReason::TooManyLinks | CloseReason::SlowPeer => {
                self.env.config.overlay.redial_min * 10
            }
            _ => self.env.config.overlay.redial_max,
        }
    }
}
