//! What happens: events become inputs, outputs become effects.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::{DialId, Input, Judgement, Output, Ticket};
use crate::types::{
    Endpoint, FailureKind, Head, InvalidTransaction, LinkId, Message, NewEntry, PeerId, PeerRecord,
    Proofs, Signature, Transaction, TransportKind, Verdict, verify_piece,
};

use super::check::Seen;
use super::config::{Behaviour, Verification};
use super::net::{Arrival, End, Frame, Pipe, WINDOW, carries};
use super::node::{Deferred, Delivery};
use super::world::{Event, World};

/// A dial to an address that answers nothing fails after this.
const BLACK_HOLE: Duration = Duration::from_secs(5);
/// Sizes are looked at after every so many turns of a node.
const GAUGE_EVERY: u64 = 32;

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, boot } => {
                let due = self.nodes[node].wake == Some(self.now);
                if due && self.is_running(node, boot) {
                    self.nodes[node].wake = None;
                    self.feed(node, Input::Timeout);
                }
            }
            Event::Dialled { node, boot, dial, to, expected } => {
                self.on_dialled(node, boot, dial, &to, expected);
            }
            Event::DialFailed { node, boot, dial, reason } => {
                self.faults.dials_failed += 1;
                self.feed_run(node, boot, Input::DialFailed { dial, reason });
            }
            Event::Opened { pipe, side, dial } => self.on_opened(pipe, side, dial),
            Event::Uplink { node, boot } => {
                if self.nodes[node].boot == boot {
                    self.nodes[node].uplink_timer = false;
                    self.transmit(node);
                }
            }
            Event::Departed { pipe, side, frame } => self.on_departed(pipe, side, frame),
            Event::Arrived { pipe, side, frame } => {
                self.arrive(pipe, side, Arrival::Frame(frame));
            }
            Event::Ended { pipe, side } => self.arrive(pipe, side, Arrival::Ended),
            Event::Verified { node, boot, ticket, judgement } => {
                self.feed_run(node, boot, Input::Verified { ticket, judgement });
            }
            Event::Records { node, boot, ticket, valid, forged } => {
                self.feed_run(node, boot, Input::RecordsVerified { ticket, valid, forged });
            }
            Event::Completed { node, boot, input } => self.feed_run(node, boot, *input),
            Event::Stored { node, boot, ticket, entry, own } => {
                if self.is_running(node, boot) {
                    self.on_stored(node, ticket, *entry, own);
                }
            }
            Event::Loaded { node, boot, ticket, id } => {
                let transaction = self.nodes[node].store.get(&id).cloned();
                self.feed_run(node, boot, Input::Loaded { ticket, transaction });
            }
        }
    }

    fn is_running(&self, node: usize, boot: u64) -> bool {
        let n = &self.nodes[node];
        n.boot == boot && n.protocol.is_some()
    }

    fn feed_run(&mut self, node: usize, boot: u64, input: Input) {
        if self.is_running(node, boot) {
            self.feed(node, input);
        }
    }

    /// Gives a node one input and carries out all that follows from it.
    pub(super) fn feed(&mut self, node: usize, input: Input) {
        if self.nodes[node].protocol.is_none() {
            return;
        }
        self.note(node, &input);
        self.show(&Seen::Input { node, input: &input });
        let n = &mut self.nodes[node];
        let (mono, wall) = (n.mono(self.now), n.wall(self.now));
        let Some(protocol) = &mut n.protocol else { return };
        protocol.handle(mono, wall, input);
        let mut outputs = Vec::new();
        while let Some(output) = protocol.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.note(node, &output);
            self.show(&Seen::Output { node, output: &output });
            self.effect(node, output);
        }
        self.after_turn(node);
        self.transmit(node);
    }

    fn after_turn(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.turns += 1;
        let Some(protocol) = &n.protocol else { return };
        if self.config.checks && n.turns.is_multiple_of(GAUGE_EVERY) {
            let (links, gauges) = (protocol.links(), protocol.gauges());
            self.show(&Seen::Turn { node, links: &links, gauges: &gauges });
        }
        let n = &mut self.nodes[node];
        let Some(protocol) = &n.protocol else { return };
        if let Some(at) = protocol.poll_timeout() {
            let at = (n.started + at.as_duration()).max(self.now);
            if n.wake.is_none_or(|old| at < old) {
                n.wake = Some(at);
                let boot = n.boot;
                self.schedule(at, Event::Wake { node, boot });
            }
        }
        let n = &mut self.nodes[node];
        if n.protocol.as_ref().is_some_and(crate::protocol::Protocol::has_room)
            && let Some(Deferred { pipe, side, frame }) = n.deferred.pop_front()
        {
            self.take_frame(pipe, side, frame);
        }
    }

    fn effect(&mut self, node: usize, output: Output) {
        let boot = self.nodes[node].boot;
        match output {
            Output::Dial { dial, endpoint, expected } => {
                let to = self.addresses.get(&endpoint).copied().unwrap_or(node);
                let at = self.now + self.travel(node, to);
                let event = Event::Dialled { node, boot, dial, to: endpoint, expected };
                self.schedule(at, event);
            }
            Output::Send { link, message } => self.queue(node, link, message),
            Output::Close { link } => self.close(node, link),
            Output::Verify { ticket, transaction, proven, .. } => {
                let judgement = self.judge(&transaction, proven);
                let at = self.now + self.config.verify_delay;
                self.schedule(at, Event::Verified { node, boot, ticket, judgement });
            }
            Output::VerifyHead { ticket, head } => {
                let result = self.judge_head(&head);
                self.complete_later(node, Input::HeadVerified { ticket, result });
            }
            Output::VerifyPiece { ticket, root, len, piece } => {
                let trusted = self.config.verification == Verification::Trusted;
                let valid =
                    trusted || verify_piece(&root, len, piece.index, &piece.bytes, &piece.proof);
                self.complete_later(node, Input::PieceVerified { ticket, valid });
            }
            Output::Prove { ticket, transaction } => {
                let proofs = Proofs::of(transaction.payload());
                self.complete_later(node, Input::Proved { ticket, proofs });
            }
            Output::VerifyRecords { ticket, records } => {
                let all = records.len();
                let valid: Vec<_> = records.into_iter().filter(|r| self.is_genuine(r)).collect();
                let forged = all - valid.len();
                let at = self.now + self.config.verify_delay;
                self.schedule(at, Event::Records { node, boot, ticket, valid, forged });
            }
            Output::Store { ticket, entry, own } => {
                let n = &mut self.nodes[node];
                n.store_free = n.store_free.max(self.now) + self.config.store_delay;
                let at = n.store_free;
                let entry = Box::new(entry);
                self.schedule(at, Event::Stored { node, boot, ticket, entry, own });
            }
            Output::Load { ticket, id } => {
                let at = self.now + self.config.store_delay;
                self.schedule(at, Event::Loaded { node, boot, ticket, id });
            }
            Output::Confirmed { ids } => self.nodes[node].store.confirm(&ids),
            Output::Expire { now } => self.nodes[node].store.expire(now),
            Output::SavePeer(peer) => self.nodes[node].store.save_peer(*peer),
            Output::ForgetPeer(peer) => self.nodes[node].store.forget_peer(&peer),
            Output::SaveBan(ban) => self.nodes[node].store.save_ban(ban),
            Output::LiftBan(peer) => self.nodes[node].store.lift_ban(&peer),
            Output::Published { .. }
            | Output::Connected { .. }
            | Output::Observed { .. }
            | Output::RenewRecord
            | Output::Emit(_) => {}
        }
    }

    /// Something that takes as long as a check.
    fn complete_later(&mut self, node: usize, input: Input) {
        let (at, boot) = (self.now + self.config.verify_delay, self.nodes[node].boot);
        self.schedule(at, Event::Completed { node, boot, input: Box::new(input) });
    }

    fn judge(&mut self, transaction: &Transaction, proven: bool) -> Judgement {
        let accept = Judgement::Verdict(Verdict::Accept);
        if self.forged.contains(&transaction.id()) {
            return Judgement::Invalid(InvalidTransaction::Signature);
        }
        if self.config.verification == Verification::Trusted || proven {
            return accept;
        }
        if let Err(why) = transaction.verify_payload() {
            return Judgement::Invalid(why);
        }
        match self.judge_head(&Head::of(transaction)) {
            Ok(()) => accept,
            Err(why) => Judgement::Invalid(why),
        }
    }

    fn judge_head(&mut self, head: &Head) -> Result<(), InvalidTransaction> {
        if self.forged.contains(&head.id()) {
            return Err(InvalidTransaction::Signature);
        }
        if self.config.verification == Verification::Trusted {
            return Ok(());
        }
        let Signature::Ed25519(signature) = head.signature() else {
            return Err(InvalidTransaction::Unsigned);
        };
        // The id is part of what is checked: the same signature under another id is another case.
        let mut key = *signature;
        key.iter_mut().zip(head.id().as_bytes()).for_each(|(k, id)| *k ^= id);
        let good = *self.checked.entry(key).or_insert_with(|| head.verify(true).is_ok());
        if good { Ok(()) } else { Err(InvalidTransaction::Signature) }
    }

    fn is_genuine(&mut self, record: &PeerRecord) -> bool {
        if self.config.verification == Verification::Trusted {
            return true;
        }
        let mut key = record.signature;
        let draft = blake3::hash(&record.draft.to_bytes());
        key.iter_mut().zip(draft.as_bytes()).for_each(|(k, d)| *k ^= d);
        *self.checked.entry(key).or_insert_with(|| record.verify())
    }

    fn on_stored(&mut self, node: usize, ticket: Ticket, entry: NewEntry, own: bool) {
        let n = &mut self.nodes[node];
        if let Some(kind) = n.store_error {
            self.faults.stores_failed += 1;
            self.feed(node, Input::Stored { ticket, result: Err(kind) });
            return;
        }
        let (id, size) = (entry.transaction.id(), entry.transaction.header().payload_len);
        let (from, hops) = (entry.from, entry.hops);
        if own {
            n.promised.insert(id);
            self.published += 1;
        }
        if let Some(cursor) = n.store.append(entry, own) {
            n.deliveries.push(Delivery { cursor, id, from, hops, at: self.now });
            if from.is_some() {
                self.payload_delivered += size;
                let since = self.published_at.get(&id).copied().unwrap_or(self.now);
                self.latencies.push(self.now.saturating_sub(since));
            }
        }
        self.feed(node, Input::Stored { ticket, result: Ok(()) });
    }

    fn on_dialled(
        &mut self,
        node: usize,
        boot: u64,
        dial: DialId,
        to: &Endpoint,
        expected: Option<PeerId>,
    ) {
        if !self.is_running(node, boot) {
            return;
        }
        let target = self.addresses.get(to).copied();
        let travel = self.travel(node, target.unwrap_or(node));
        let failed = |reason| Event::DialFailed { node, boot, dial, reason };
        let Some(target) = target else {
            self.schedule(self.now + BLACK_HOLE, failed(FailureKind::Timeout));
            return;
        };
        let t = &self.nodes[target];
        if t.options.hidden || t.partition != self.nodes[node].partition {
            self.schedule(self.now + BLACK_HOLE, failed(FailureKind::Timeout));
        } else if t.protocol.is_none() {
            self.schedule(self.now + travel, failed(FailureKind::Unreachable));
        } else if expected.is_some_and(|id| id != t.peer_id()) {
            self.schedule(self.now + travel, failed(FailureKind::Identity));
        } else {
            self.open_pipe(node, target, dial, travel);
        }
    }

    /// TLS 1.3 over TCP: the dialler is through after two round trips, the other half a one later.
    fn open_pipe(&mut self, from: usize, to: usize, dial: DialId, travel: Duration) {
        self.next_pipe += 1;
        let pipe = self.next_pipe;
        let end = |world: &mut Self, node: usize, side: usize| {
            let n = &mut world.nodes[node];
            n.next_link += 1;
            let link = LinkId(n.next_link);
            n.links.insert(link, (pipe, side));
            End::new(node, n.boot, link)
        };
        let mut ends = [end(self, from, 0), end(self, to, 1)];
        let there = self.now + travel * 3;
        let here = self.now + travel * 2;
        ends[0].last_arrival = here;
        ends[1].last_arrival = there;
        self.pipes.insert(pipe, Pipe { ends, broken: false });
        self.schedule(here, Event::Opened { pipe, side: 0, dial: Some(dial) });
        self.schedule(there, Event::Opened { pipe, side: 1, dial: None });
    }

    fn on_opened(&mut self, pipe: u64, side: usize, dial: Option<DialId>) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let broken = p.broken;
        let other = p.ends[1 - side].node;
        let end = &mut p.ends[side];
        let (node, boot, link) = (end.node, end.boot, end.link);
        if broken {
            if let Some(dial) = dial {
                let reason = FailureKind::Closed;
                self.feed_run(node, boot, Input::DialFailed { dial, reason });
            }
            return;
        }
        end.open = true;
        let remote = self.peer_id(other);
        let address = match side {
            0 => self.nodes[other].endpoint.socket_addr(),
            _ => self.nodes[other].source_address(),
        };
        let kind = TransportKind::Memory;
        self.feed_run(node, boot, Input::LinkOpened { link, remote, kind, address, dial });
    }

    fn queue(&mut self, node: usize, link: LinkId, mut message: Message) {
        let n = &mut self.nodes[node];
        let Some(&(pipe, side)) = n.links.get(&link) else { return };
        let own = n.identity.peer_id();
        let weight = message.weight();
        let before = (n.options.behaviour != Behaviour::Honest).then(|| message.clone());
        let passes = tamper(n.options.behaviour, own, &mut message);
        if !passes || before.is_some_and(|before| before != message) {
            self.faults.messages_tampered += 1;
        }
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let end = &mut p.ends[side];
        end.queue.push_back((weight, passes.then_some(message)));
        if !end.ready {
            end.ready = true;
            n.ready.push_back((pipe, side));
        }
    }

    fn close(&mut self, node: usize, link: LinkId) {
        let n = &mut self.nodes[node];
        let Some((pipe, side)) = n.links.remove(&link) else { return };
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let end = &mut p.ends[side];
        end.open = false;
        end.closing = true;
        if !end.ready {
            end.ready = true;
            n.ready.push_back((pipe, side));
        }
    }

    /// Sends what waits, as far as the uplink allows.
    pub(super) fn transmit(&mut self, node: usize) {
        loop {
            let n = &mut self.nodes[node];
            if n.ready.is_empty() {
                return;
            }
            if n.uplink_free > self.now {
                if !n.uplink_timer {
                    n.uplink_timer = true;
                    let (at, boot) = (n.uplink_free, n.boot);
                    self.schedule(at, Event::Uplink { node, boot });
                }
                return;
            }
            let Some((pipe, side)) = n.ready.pop_front() else { return };
            let Some(p) = self.pipes.get_mut(&pipe) else { continue };
            let end = &mut p.ends[side];
            end.ready = false;
            if end.in_flight >= WINDOW && !end.closing {
                continue;
            }
            let Some(frame) = end.next_frame(self.config.batching) else {
                if end.closing {
                    self.hang_up(pipe, side);
                }
                continue;
            };
            end.in_flight += frame.bytes;
            end.ready = !end.queue.is_empty() || end.closing;
            if end.ready {
                n.ready.push_back((pipe, side));
            }
            let time = match n.uplink {
                Some(rate) => {
                    Duration::from_secs(1) * u32::try_from(frame.bytes).unwrap_or(u32::MAX)
                        / u32::try_from(rate).unwrap_or(u32::MAX)
                }
                None => Duration::ZERO,
            };
            n.uplink_free = self.now + time;
            let at = n.uplink_free;
            self.schedule(at, Event::Departed { pipe, side, frame });
        }
    }

    /// Everything is sent: the other end learns that this one is closed.
    fn hang_up(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let (from, other) = (p.ends[side].node, p.ends[1 - side].node);
        let travel = self.travel(from, other);
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        // Not before the frames that are still at the uplink have arrived.
        let end = &mut p.ends[1 - side];
        end.last_arrival = end.last_arrival.max(self.nodes[from].uplink_free + travel);
        let at = end.last_arrival;
        self.schedule(at, Event::Ended { pipe, side: 1 - side });
    }

    fn on_departed(&mut self, pipe: u64, side: usize, frame: Frame) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        if p.broken {
            return;
        }
        let end = &p.ends[side];
        let (node, boot, link, open) = (end.node, end.boot, end.link, end.open);
        let (other, loss) = (p.ends[1 - side].node, self.config.loss);
        let (weight, bytes, payload) = (frame.weight, frame.bytes, frame.payload());
        self.payload_sent += payload as u64;
        self.control_sent += bytes.saturating_sub(payload) as u64;
        if self.dice.chance(loss.reset) {
            self.reset(pipe);
        } else if self.dice.chance(loss.drop) {
            self.faults.frames_dropped += 1;
            if let Some(p) = self.pipes.get_mut(&pipe) {
                p.ends[side].in_flight -= bytes;
            }
        } else {
            let mut at = self.now + self.travel(node, other);
            if let Some(rate) = self.nodes[other].downlink {
                let time = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX)
                    / u32::try_from(rate).unwrap_or(u32::MAX);
                let free = &mut self.nodes[other].downlink_free;
                *free = at.max(*free) + time;
                at = *free;
            }
            if let Some(p) = self.pipes.get_mut(&pipe) {
                let there = &mut p.ends[1 - side];
                there.last_arrival = there.last_arrival.max(at);
                let at = there.last_arrival;
                self.schedule(at, Event::Arrived { pipe, side: 1 - side, frame });
            }
        }
        if open {
            self.feed_run(node, boot, Input::Sent { link, weight, bytes });
        }
    }

    /// Something comes out at an end, unless a partition holds it back.
    pub(super) fn arrive(&mut self, pipe: u64, side: usize, what: Arrival) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let (here, there) = (p.ends[side].node, p.ends[1 - side].node);
        if self.nodes[here].partition != self.nodes[there].partition {
            self.faults.frames_held += 1;
            p.ends[side].held.push_back(what);
            return;
        }
        match what {
            Arrival::Frame(frame) => {
                let n = &mut self.nodes[here];
                let room = n.deferred.is_empty()
                    && n.protocol.as_ref().is_none_or(crate::protocol::Protocol::has_room);
                if room {
                    self.take_frame(pipe, side, frame);
                } else {
                    self.faults.frames_deferred += 1;
                    n.deferred.push_back(Deferred { pipe, side, frame });
                }
            }
            Arrival::Ended => self.on_ended(pipe, side),
        }
    }

    fn take_frame(&mut self, pipe: u64, side: usize, frame: Frame) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        if p.broken {
            return;
        }
        let sender = &mut p.ends[1 - side];
        sender.in_flight = sender.in_flight.saturating_sub(frame.bytes);
        let from = sender.node;
        if !sender.queue.is_empty() && !sender.ready {
            sender.ready = true;
            self.nodes[from].ready.push_back((pipe, 1 - side));
        }
        let end = &p.ends[side];
        let (node, boot, link, open) = (end.node, end.boot, end.link, end.open);
        self.transmit(from);
        if open {
            let Frame { messages, bytes, .. } = frame;
            self.feed_run(node, boot, Input::Received { link, messages, bytes });
        } else {
            self.after_turn(node);
        }
    }

    fn on_ended(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        let end = &mut p.ends[side];
        let (node, boot, link, was_open) = (end.node, end.boot, end.link, end.open);
        end.open = false;
        p.broken = true;
        if p.ends.iter().all(|e| !e.open) {
            self.pipes.remove(&pipe);
        }
        if self.nodes[node].boot == boot {
            self.nodes[node].links.remove(&link);
        }
        if was_open {
            self.feed_run(node, boot, Input::LinkClosed { link });
        }
    }

    /// Breaks a pipe: both ends learn it, whatever is on its way is lost.
    pub(super) fn reset(&mut self, pipe: u64) {
        let Some(p) = self.pipes.get_mut(&pipe) else { return };
        p.broken = true;
        self.faults.links_reset += 1;
        let delay = self.config.verify_delay;
        for side in [0, 1] {
            self.schedule(self.now + delay, Event::Ended { pipe, side });
        }
    }
}

/// Changes what a misbehaving node sends; `false` when the message is to be withheld.
fn tamper(behaviour: Behaviour, own: PeerId, message: &mut Message) -> bool {
    match (behaviour, message) {
        (Behaviour::Stalling, message) => carries(message).is_none(),
        (Behaviour::WrongPayload, Message::Push { transaction, .. })
            if transaction.origin() != own =>
        {
            let payload = flipped(transaction.payload());
            rebuild(transaction, transaction.signature(), payload);
            true
        }
        (Behaviour::WrongPayload | Behaviour::PoisonThenStall, Message::Piece(piece)) => {
            if behaviour == Behaviour::PoisonThenStall && piece.index > 0 {
                return false;
            }
            piece.bytes = flipped(&piece.bytes);
            true
        }
        (Behaviour::WrongSignature, Message::Push { transaction, .. })
            if transaction.origin() != own =>
        {
            let payload = transaction.payload().clone();
            rebuild(transaction, Signature::Ed25519([7; 64]), payload);
            true
        }
        (Behaviour::WrongSignature, Message::Offer(offer)) if offer.head.header().origin != own => {
            let header = offer.head.header_bytes().clone();
            if let Ok(head) = Head::from_parts(header, Signature::Ed25519([7; 64])) {
                offer.head = head;
            }
            true
        }
        (Behaviour::WrongRecord, Message::Peers(records)) => {
            records.iter_mut().filter(|r| r.peer() != own).for_each(|r| r.draft.seq += 1000);
            true
        }
        (Behaviour::WrongVersion, Message::Hello(hello)) => {
            (hello.version_min, hello.version_max) = (1000, 1001);
            true
        }
        _ => true,
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

fn rebuild(transaction: &mut Transaction, signature: Signature, payload: Bytes) {
    let header = transaction.header_bytes().clone();
    if let Ok(changed) = Transaction::from_parts(header, signature, payload) {
        *transaction = changed;
    }
}
