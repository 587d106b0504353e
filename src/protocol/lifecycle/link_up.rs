//! From an open transport to a link, and back.
//!
//! ```text
//! opened ──refused──► Goodbye, closed
//!    │ Hello sent by who dialled, timer set
//!    ▼
//!  hello ──late, wrong, not first, no place──► Goodbye, closed
//!    │ Hello received and acceptable; who accepted sends its own
//!    ▼
//!   up ──Goodbye, silence, violation, replaced──► closed
//! ```
//!
//! Only a completed hello makes a link: with TLS 1.3 a dialler whose key is refused learns it with
//! the first read. Who accepts says hello second, which costs no time, since the dialler's comes
//! with the end of the handshake: so who is refused never takes the link for one. One link per
//! peer: the newest authenticated one wins, so a restarted peer is never refused as its own ghost.
//! Two links that both processes opened at each other at the same moment would each be "newest" on
//! one side; of those, both sides keep the one that the smaller peer id dialled.
//!
//! Our own key at the other end is this very process, or another one that has our key: the hellos tell
//! by their incarnations (`admission`). Such a link never comes up.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::hostile`, `protocol::tests::liars`,
//! `protocol::tests::admission`.

use std::net::SocketAddr;

use crate::protocol::Protocol;
use crate::protocol::intake::Requests;
use crate::protocol::io::{Assurance, DialId};
use crate::protocol::large::PieceRate;
use crate::protocol::link::{
    Batch, Established, Link, Merit, Pinger, Plan, Probing, SendBudget, Succession,
};
use crate::protocol::membership::{PATIENCE, WalkId, ask_for_peers};
use crate::protocol::messages::Conversation;
use crate::protocol::outbox::ReplayCursor;
use crate::protocol::reconcile::Repair;
use crate::protocol::serve::ServeQueue;
use crate::protocol::spread::{Feed, PeerInterest};
use crate::protocol::timers::Timer;
use crate::types::{
    CloseReason, Counters, Direction, Event, FEATURES, FailureKind, Features, Hello, LinkId,
    Message, PeerId, TransportKind, WIRE_VERSION_MAX, WIRE_VERSION_MIN,
};

impl Protocol {
    pub(in crate::protocol) fn on_link_opened(
        &mut self,
        link: LinkId,
        remote: PeerId,
        kind: TransportKind,
        address: Option<SocketAddr>,
        dial: Option<DialId>,
        assurance: Assurance,
    ) {
        let attempt = dial.and_then(|dial| self.links.attempts.remove(&dial));
        let endpoint = dial.and_then(|d| self.membership.dials.get(&d)).map(|d| d.endpoint.clone());
        let endpoint = attempt.as_ref().map(|attempt| attempt.endpoint.clone()).or(endpoint);
        let direction = if dial.is_some() { Direction::Outbound } else { Direction::Inbound };
        let now = self.env.now;
        if self.links.all.contains_key(&link) {
            return;
        }
        let is_own = remote == self.env.me;
        let takes_over = attempt.as_ref().and_then(|a| self.heir_of(link, a, &remote));
        let is_dial_back =
            dial.is_some_and(|dial| self.reachability.helping.note_opened(dial, link));
        let linked = dial.is_some()
            && takes_over.is_none()
            && !is_own
            && !is_dial_back
            && self.dialled_already(&remote)
            || self.membership.is_sought_no_more(&self.links, dial, &remote);
        let opened = Link {
            id: link,
            wire: link,
            remote,
            kind,
            direction,
            address,
            endpoint,
            dial,
            assurance,
            owes: false,
            head: self.log.head(),
            opened: now,
            connected: now,
            wire_bytes: 0,
            leaving: None,
            plan: Plan::default(),
            said: self.spread.carrying.ours().clone(),
            heard: now,
            spoke: now,
            queued_bytes: 0,
            progress: now,
            succession: Succession::default(),
            is_dial_back,
            takes_over,
            up: None,
        };
        let reason = self.refuse_before_hello(&remote);
        // Who is there with our own key is asked in any case.
        let reason = reason.or_else(|| (!is_own).then(|| self.refuse_channel(&opened)).flatten());
        self.links.all.insert(link, opened);
        if let Some(reason) = reason {
            self.refuse(link, reason);
            return;
        }
        if linked {
            // Two connections dialled by us may overtake each other, and each side would keep
            // another one as the newest. So the second never says hello.
            self.close(link, CloseReason::Replaced);
            return;
        }
        self.env.timers.set(Timer::Hello(link), now + self.env.config.connection.handshake_timeout);
        if direction == Direction::Outbound {
            self.say_hello(link);
        }
        if let Some(dial) = dial {
            self.membership.note_opened(&mut self.env, dial, link);
        }
    }

    /// The next entry of a walk is due, or a peer has been silent too long while one waits.
    pub(in crate::protocol) fn on_walk_due(&mut self, walk: WalkId) {
        let late = self.membership.silent_link(walk, self.env.now);
        if late.is_some() && !self.env.has_room(self.assemblies.bytes.level()) {
            // We are the ones who do not read.
            self.env.timers.set(Timer::Walk(walk), self.env.now + PATIENCE);
            return;
        }
        if let Some(link) = late {
            self.refuse(link, CloseReason::HandshakeTimeout);
        }
        self.membership.go_on(&mut self.env, walk);
        if self.membership.is_over(walk) {
            self.maintain();
        }
    }

    /// Says hello, and remembers what it said.
    pub(super) fn say_hello(&mut self, link: LinkId) {
        let (owes, head) = (self.owes(), self.log.head());
        let said = self.spread.carrying.ours().clone();
        let Some(l) = self.links.all.get_mut(&link) else { return };
        (l.owes, l.head, l.said) = (owes, head, said);
        let (address, takes_over) = (l.address, l.takes_over.is_some());
        let proofs = self.own_proofs(link);
        let mut hello = self.hello(address, owes, takes_over, proofs);
        hello.dial_back = self.reachability.helping.nonce_of(link).unwrap_or(0);
        self.send(link, Message::Hello(Box::new(hello)));
    }

    pub(in crate::protocol) fn on_hello_timeout(&mut self, link: LinkId) {
        if !self.env.has_room(self.assemblies.bytes.level()) {
            // We are the ones who do not read.
            let again = self.env.now + self.env.config.connection.handshake_timeout;
            self.env.timers.set(Timer::Hello(link), again);
            return;
        }
        self.refuse(link, CloseReason::HandshakeTimeout);
    }

    /// The first message on a link.
    pub(in crate::protocol) fn on_first_message(&mut self, link: LinkId, message: Message) {
        if let Some(stage) = self.links.agreed(link) {
            self.on_early_message(link, stage, message);
            return;
        }
        match message {
            Message::Hello(hello) => self.on_hello(link, &hello),
            Message::Goodbye { reason, retry_after } => self.on_goodbye(link, reason, retry_after),
            // A full node names others before it says goodbye, and has not proven that it is a member.
            Message::Peers { .. }
                if self.is_dialled(link) && self.env.config.network.trust.secrets().is_some() => {}
            Message::Peers { records, relays } if self.is_dialled(link) => self
                .membership
                .on_peers(&mut self.env, &mut self.links, &mut self.guard, link, records, relays),
            _ => {
                self.env.counters.refused_malformed += 1;
                self.refuse(link, CloseReason::Violation);
            }
        }
    }

    fn is_dialled(&self, link: LinkId) -> bool {
        self.links.all.get(&link).is_some_and(|l| l.direction == Direction::Outbound)
    }

    fn on_hello(&mut self, link: LinkId, hello: &Hello) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (remote, direction) = (l.remote, l.direction);
        if remote == self.env.me {
            self.on_own_hello(link, direction, hello.incarnation);
            return;
        }
        let reason = if !self.is_member(link, hello) {
            Some(CloseReason::NotMember)
        } else if hello.network != self.env.config.network.name {
            Some(CloseReason::WrongNetwork)
        } else if hello.version_min > WIRE_VERSION_MAX || hello.version_max < WIRE_VERSION_MIN {
            Some(CloseReason::WrongVersion)
        } else if hello.record.peer() != remote {
            // A record in a hello speaks for the key that the transport proved, or for nobody.
            self.env.counters.records_forged += 1;
            Some(CloseReason::Violation)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(link, reason);
            return;
        }
        if hello.dial_back != 0 {
            self.on_dial_back_hello(link, hello.dial_back);
            return;
        }
        if self.links.all.get(&link).is_some_and(|l| l.is_dial_back) {
            self.close(link, CloseReason::Requested);
            return;
        }
        if self.begin_handover(link, hello) {
            return;
        }
        let linked = self.links.by_peer.contains_key(&remote);
        if !self.settle_rivals(link, hello) {
            return;
        }
        // What takes over from an older link of the same peer needs no room of its own.
        let newcomer = direction == Direction::Inbound && !linked;
        if newcomer && !self.has_place(link, hello) {
            self.membership.tell_peers(&mut self.env, &mut self.links, &self.guard, link, &remote);
            self.refuse(link, CloseReason::TooManyLinks);
            return;
        }
        let Some(slot) = self.links.take_slot(link) else {
            self.refuse(link, CloseReason::TooManyLinks);
            return;
        };
        if direction == Direction::Inbound {
            self.say_hello(link);
        }
        self.bring_up(link, slot, hello);
    }

    /// Decides between a new link and an older one to the same peer; `false` when the new one lost
    /// and is closed.
    fn settle_rivals(&mut self, link: LinkId, hello: &Hello) -> bool {
        let Some(new) = self.links.all.get(&link) else { return false };
        let Some(old) = self.links.by_peer.get(&new.remote).and_then(|id| self.links.all.get(id))
        else {
            return true;
        };
        let same_process = old.up.as_ref().is_some_and(|up| up.incarnation == hello.incarnation);
        let crossed = new.direction != old.direction
            && self.env.now.since(old.opened) < self.env.config.connection.handshake_timeout;
        let old_id = old.id;
        let keeper =
            if self.env.me < new.remote { Direction::Outbound } else { Direction::Inbound };
        if same_process && crossed && old.direction == keeper {
            self.close(link, CloseReason::Replaced);
            return false;
        }
        self.env.counters.links_replaced += 1;
        self.close(old_id, CloseReason::Replaced);
        true
    }

    pub(super) fn bring_up(&mut self, link: LinkId, slot: u8, hello: &Hello) {
        let now = self.env.now;
        self.log.clear_slot(slot);
        self.spread.policy.clear_slot(slot);
        let head = self.log.head();
        if self.links.up_count() == 0 {
            self.begin_outflow();
        }
        let all = self.outflow().unwrap_or(head);
        let nonce = self.env.rng.next_u64();
        let known = self.links.all.get(&link).map(|l| self.links.recent.take(&l.remote, now));
        let Some(l) = self.links.all.get_mut(&link) else { return };
        // What was accepted since our hello said that nothing is owed is the first of what follows, and
        // not behind it.
        let head = if l.owes { head } else { l.head };
        l.up = Some(Established {
            slot,
            since: now,
            incarnation: hello.incarnation,
            max_transaction: hello.max_transaction,
            dials_back: hello.features.has(Features::DIALS_BACK),
            observed: None,
            batch: Batch::default(),
            budget: SendBudget::new(nonce),
            pinger: Pinger::default(),
            quality: known.unwrap_or_default(),
            probing: Probing::default(),
            interest: PeerInterest::new(hello.interest.clone()),
            feed: Feed::new(head, ReplayCursor::new(all, head, l.owes, now)),
            repair: Repair::new(hello.complete_since),
            requests: Requests::new(now),
            serve: ServeQueue::default(),
            pieces: PieceRate::default(),
            messages: Conversation::new(hello.features.has(Features::SERVES_REQUESTS), now),
            taken: 0,
            merit: Merit::new(now),
            told_peers: None,
            told_clock: None,
        });
        let (remote, kind, direction, address) = (l.remote, l.kind, l.direction, l.shown_address());
        self.links.by_peer.insert(remote, link);
        self.trail.seat(slot, remote, kind);
        self.begin_inflow(link, remote, hello.owes);
        self.env.timers.cancel(Timer::Hello(link));
        self.env.counters.links_opened += 1;
        tracing::info!(
            target: "sorcha_peer::link",
            peer = %remote, transport = %kind, address = address.as_deref(), ?direction,
            "peer up"
        );
        self.env.emit(Event::PeerUp { peer: remote, transport: kind, address, direction });
        self.look_for_twins(link, remote, hello.incarnation);
        let uphill = self.is_uphill(link);
        if let Some(up) = self.links.up(link) {
            up.interest.uphill = uphill;
        }
        self.settle_interest();
        self.membership.note_peer_up(&mut self.env, &self.links, link, &remote);
        self.membership.note_kind(&self.links, link);
        self.membership.finish_dial_of(&mut self.env, &self.links, link, Ok(()));
        self.membership.verify_records(
            &mut self.env,
            &mut self.links,
            &mut self.guard,
            link,
            vec![hello.record.clone()],
            Vec::new(),
        );
        self.note_observed(link, hello.observed);
        self.note_clock(link, hello.clock);
        self.ping(link);
        ask_for_peers(&mut self.env, &mut self.links, link);
        self.need_everything(link, direction == Direction::Outbound);
        self.plan_moves(link);
        self.links_changed();
        self.begin_conversation(link);
        self.pump(link);
    }

    /// Closes a link that is not up, says so, and counts it.
    pub(in crate::protocol) fn refuse(&mut self, link: LinkId, reason: CloseReason) {
        let Some(l) = self.links.all.get(&link) else { return };
        if l.is_dial_back {
            self.close(link, reason);
            return;
        }
        let is_own = reason == CloseReason::SelfDial;
        let dialled = l.endpoint.as_ref().filter(|_| is_own);
        let address = dialled.and_then(|e| l.address.or_else(|| e.socket_addr()));
        if let Some(address) = address {
            self.membership.dead_ends.note_own(address, self.env.now);
        }
        let (peer, direction, address) = (l.remote, l.direction, l.shown_address());
        let event = Event::LinkRefused { peer, address, direction, reason };
        if let Some(counter) = counter_of(&mut self.env.counters, reason) {
            *counter += 1;
        }
        if is_own && l.endpoint.is_none() {
            // The other end of our own dial, which is told of there.
            tracing::debug!(target: "sorcha_peer::link", "dialled by this node itself");
        } else {
            tracing::info!(target: "sorcha_peer::link", peer = %l.remote, %reason, "link refused");
            self.env.emit(event);
        }
        self.note_refused(link, reason);
        self.close(link, reason);
    }

    /// Reports whether a link that we dialled leads to this peer, or is about to.
    pub(in crate::protocol) fn dialled_already(&self, remote: &PeerId) -> bool {
        let sound = |l: &Link| l.up.as_ref().is_none_or(|up| up.pinger.missed == 0);
        let ours = |l: &&Link| l.remote == *remote && l.direction == Direction::Outbound;
        self.links.all.values().filter(ours).any(sound)
    }

    pub(in crate::protocol) fn refuse_before_hello(&self, remote: &PeerId) -> Option<CloseReason> {
        if self.env.shutting_down {
            Some(CloseReason::Shutdown)
        } else if self.guard.is_banned(remote, self.env.corroborated()) {
            Some(CloseReason::Banned)
        } else {
            None
        }
    }

    pub(super) fn hello(
        &self,
        address: Option<SocketAddr>,
        owes: bool,
        takes_over: bool,
        proofs: Vec<[u8; 32]>,
    ) -> Hello {
        Hello {
            network: self.env.config.network.name.clone(),
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION_MAX,
            features: FEATURES,
            incarnation: self.env.incarnation,
            max_transaction: self.env.config.gossip.max_transaction_size,
            record: self.membership.record.clone(),
            observed: address.map(|a| a.ip()),
            interest: self.spread.carrying.ours().clone(),
            owes,
            clock: self.env.clock.told(),
            complete_since: self.complete_since(),
            takes_over,
            proofs,
            dial_back: 0,
        }
    }

    pub(in crate::protocol) fn on_handshake_failed(
        &mut self,
        address: Option<SocketAddr>,
        reason: FailureKind,
    ) {
        if reason == FailureKind::Refused {
            self.env.counters.handshakes_shed += 1;
        } else {
            self.env.counters.handshakes_failed += 1;
        }
        if reason == FailureKind::Identity {
            self.note_unproven(address);
        }
        // A flood from one host must not push other events out of the host's sight.
        if reason != FailureKind::Refused || !self.is_shunned(address) {
            let address = address.map(|a| a.to_string());
            self.env.emit(Event::HandshakeRefused { address, reason });
        }
    }
}

/// Returns the counter of refusals for this reason.
fn counter_of(counters: &mut Counters, reason: CloseReason) -> Option<&mut u64> {
    Some(match reason {
        CloseReason::WrongNetwork => &mut counters.links_refused_network,
        CloseReason::WrongVersion => &mut counters.links_refused_version,
        CloseReason::NotAllowed => &mut counters.links_refused_not_allowed,
        CloseReason::NotMember => &mut counters.links_refused_not_member,
        CloseReason::Banned => &mut counters.links_refused_banned,
        CloseReason::SelfDial => &mut counters.links_refused_self,
        CloseReason::TooManyLinks => &mut counters.links_refused_full,
        CloseReason::HandshakeTimeout => &mut counters.links_refused_timeout,
        CloseReason::Violation => &mut counters.links_closed_violation,
        _ => return None,
    })
}
