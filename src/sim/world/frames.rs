//! How frames travel: dials, uplinks, faults on the way, arrivals, and the end of links.
//!
//! Each node has one uplink. What is small goes before pieces of large payloads, so that nothing
//! small waits for more than one piece; within a link everything keeps its order.

use std::time::Duration;

use crate::protocol::{Assurance, DialId, Input};
use crate::types::{FailureKind, LinkId, Message, TransportKind};

use super::World;
use super::event::{DialTarget, Event};
use super::node::Deferred;
use super::pipe::{Arrival, End, Frame, Pipe, WINDOW, is_framing, payload_of};
use super::tamper::{hearsay, tamper};
use crate::sim::config::{Behaviour, Obstacle};
use crate::sim::link_id::{binding_of, link_of, pipe_of};

/// Delay after which a dial to an address that answers nothing fails.
const BLACK_HOLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a frame that counts as sent when it reaches the uplink.
const MAX_SMALL_BYTES: usize = 4096;
/// Time to leave beyond which a frame is still there when its node gets faster.
const CRAWL: Duration = Duration::from_secs(1);
/// Maximum time by which chance delays a frame.
const MAX_DELAY: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn on_dialled(&mut self, node: usize, boot: u64, dial: DialId, to: &DialTarget) {
        if !self.is_running(node, boot) || !self.nodes[node].dials.contains(&dial) {
            return;
        }
        let target = match self.names.get(&to.endpoint) {
            None => self.addresses.get(&to.endpoint).copied(),
            Some(_) => match self.winner(node, to) {
                None => return self.fail_dial(node, dial, FailureKind::NoneLeft),
                winner => winner,
            },
        };
        let travel = self.travel(node, target.unwrap_or(node));
        let failed = |reason| Event::DialFailed { node, boot, dial, reason };
        let Some(target) = target else {
            self.schedule(self.now + BLACK_HOLE_TIMEOUT, failed(FailureKind::Timeout));
            return;
        };
        self.note_dialled(node, target);
        let t = &self.nodes[target];
        if !self.lets_in(target, node) || t.vanished || t.partition != self.nodes[node].partition {
            self.schedule(self.now + BLACK_HOLE_TIMEOUT, failed(FailureKind::Timeout));
        } else if t.protocol.is_none() {
            self.schedule(self.now + travel, failed(FailureKind::Unreachable));
        } else if to.expected.is_some_and(|id| id != t.peer_id()) {
            self.schedule(self.now + travel, failed(FailureKind::Identity));
        } else {
            let obstacle = self.obstacle(node, target, to.rung);
            self.faults.dials_obstructed += u64::from(obstacle.is_some());
            match obstacle {
                None => self.open_pipe(node, target, (dial, to.rung), travel),
                Some(Obstacle::BlackHole) => {
                    self.schedule(self.now + BLACK_HOLE_TIMEOUT, failed(FailureKind::Timeout));
                }
                Some(Obstacle::Refuses) => {
                    self.schedule(self.now + travel, failed(FailureKind::Protocol));
                }
                Some(Obstacle::Silent) => {
                    self.open_pipe(node, target, (dial, to.rung), travel);
                    self.silence(self.pipes.last());
                }
            }
        }
    }

    /// Lets nothing pass over a connection that is being opened.
    fn silence(&mut self, pipe: u64) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        p.silent = true;
        let there = &mut p.ends[1];
        there.opening = false;
        let (node, link) = (there.node, there.link);
        self.nodes[node].links.remove(&link);
    }

    /// A dial has failed, unless its node has given it up.
    pub(super) fn fail_dial(&mut self, node: usize, dial: DialId, reason: FailureKind) {
        if self.nodes[node].dials.remove(&dial) {
            self.faults.dials_failed += u64::from(reason != FailureKind::NoneLeft);
            let detail = String::new();
            self.feed(node, Input::DialFailed { dial, reason, detail });
        }
    }

    /// Node that wins the race over the addresses of a name: the first that answers as who is expected,
    /// else the first of all; `None` when there is none but those to avoid.
    fn winner(&self, dialler: usize, to: &DialTarget) -> Option<usize> {
        let left = self.names.get(&to.endpoint).into_iter().flatten().copied().filter(|node| {
            let address = self.nodes[*node].endpoint.socket_addr();
            address.is_some_and(|address| !to.avoid.contains(&address))
        });
        let mut left: Vec<usize> = left.collect();
        left.sort_by_key(|node| *node != dialler);
        let answers = |node: &&usize| {
            let n = &self.nodes[**node];
            n.protocol.is_some()
                && self.lets_in(**node, dialler)
                && n.partition == self.nodes[dialler].partition
                && to.expected.is_none_or(|id| id == n.peer_id())
        };
        left.iter().find(answers).or(left.first()).copied()
    }

    /// TLS 1.3 over TCP: the dialler is through after two round trips, the other half a one later. What
    /// runs TLS inside of something else takes longer.
    fn open_pipe(
        &mut self,
        from: usize,
        to: usize,
        (dial, rung): (DialId, TransportKind),
        travel: Duration,
    ) {
        let pipe = self.pipes.next();
        let end = |world: &mut Self, node: usize, side: usize| {
            let n = &mut world.nodes[node];
            let link = link_of(pipe, side);
            n.links.insert(link);
            End::new(node, n.boot, link)
        };
        let mut ends = [end(self, from, 0), end(self, to, 1)];
        let rung = self.rung(rung);
        let inner = travel * 2 * rung.round_trips;
        let there = self.now + inner + travel * 3;
        let here = self.now + inner + travel * 2;
        ends[0].last_arrival = here;
        ends[1].last_arrival = there;
        self.pipes.add(Pipe { ends, rung, silent: false, broken: false });
        if let Some(age) = self.config.proxies.max_age {
            self.schedule(here + age, Event::Cut { pipe });
        }
        self.schedule(here, Event::Opened { pipe, side: 0, dial: Some(dial) });
        self.schedule(there, Event::Opened { pipe, side: 1, dial: None });
    }

    pub(super) fn on_opened(&mut self, pipe: u64, side: usize, dial: Option<DialId>) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let (broken, kind) = (p.broken, p.rung.kind);
        let other = p.ends[1 - side].node;
        if p.silent && side == 1 {
            return;
        }
        let end = &mut p.ends[side];
        let (node, boot, link) = (end.node, end.boot, end.link);
        end.opening = false;
        if broken {
            self.drop_if_over(pipe);
            if self.nodes[node].boot == boot {
                self.nodes[node].links.remove(&link);
            }
            if let Some(dial) = dial.filter(|_| self.is_running(node, boot)) {
                self.fail_dial(node, dial, FailureKind::Closed);
            }
            return;
        }
        end.open = true;
        let is_given_up =
            |dial| self.nodes[node].boot == boot && !self.nodes[node].dials.remove(&dial);
        if dial.is_some_and(is_given_up) {
            self.close(node, link);
            self.transmit(node);
            return;
        }
        let remote = self.peer_id(other);
        let address = match side {
            0 => self.nodes[other].endpoint.socket_addr(),
            _ => self.nodes[other].source_address(),
        };
        let assurance = Assurance { binding: Some(binding_of(pipe)), certified: false };
        self.feed_run(
            node,
            boot,
            Input::LinkOpened { link, remote, kind, address, dial, assurance },
        );
    }

    /// Takes what a protocol sends.
    pub(super) fn send(&mut self, node: usize, link: LinkId, mut message: Message) {
        let n = &self.nodes[node];
        let weight = message.weight();
        let behaviour = n.options.behaviour;
        let mut passes = true;
        if behaviour != Behaviour::Honest {
            let own = n.peer_id();
            let before = message.clone();
            passes = tamper(behaviour, own, &mut message);
            self.faults.messages_tampered += u64::from(!passes || before != message);
        }
        self.enqueue(link, weight, passes.then_some(message));
    }

    /// Puts a message into a link's queue; `None` for what its node believes to send.
    pub(super) fn enqueue(&mut self, link: LinkId, weight: usize, message: Option<Message>) {
        let (pipe, side) = pipe_of(link);
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let end = &mut p.ends[side];
        if !end.open {
            return;
        }
        end.push(weight, message);
        self.fill_buffer(pipe, side);
        self.wake_end(pipe, side);
    }

    /// Takes from a node what the buffers of a link have room for.
    fn fill_buffer(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let end = &mut p.ends[side];
        let weight = end.buffer(self.config.buffers);
        if weight > 0 {
            let (node, boot, link) = (end.node, end.boot, end.link);
            self.due_now.push_back(Event::Sent { node, boot, link, weight, bytes: 0 });
        }
    }

    /// Lets an end take its turn at the uplink if it has something to send.
    fn wake_end(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let end = &mut p.ends[side];
        if !end.ready && (!end.queue.is_empty() || end.closing) {
            end.ready = true;
            let bulk = end.bulk_is_next();
            self.nodes[end.node].make_ready(pipe, side, bulk);
        }
    }

    pub(super) fn close(&mut self, node: usize, link: LinkId) {
        if !self.nodes[node].links.remove(&link) {
            return;
        }
        let (pipe, side) = pipe_of(link);
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let end = &mut p.ends[side];
        end.open = false;
        end.closing = true;
        self.wake_end(pipe, side);
    }

    /// Sends what waits, as far as the uplink allows.
    pub(super) fn transmit(&mut self, node: usize) {
        loop {
            let n = &mut self.nodes[node];
            if n.ready.is_empty() && n.ready_bulk.is_empty() && n.crawling.is_none() {
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
            if let Some((pipe, side, frame)) = n.crawling.take() {
                self.depart(pipe, side, frame);
                continue;
            }
            let next = n.ready.pop_front().or_else(|| n.ready_bulk.pop_front());
            let Some((pipe, side)) = next else { return };
            let Some(p) = self.pipes.get_mut(pipe) else { continue };
            let (broken, overhead) = (p.broken, p.rung.overhead);
            let end = &mut p.ends[side];
            end.ready = false;
            if end.in_flight >= WINDOW && !end.closing {
                continue;
            }
            let Some(frame) = end.next_frame(self.config.batching, overhead) else {
                if end.closing {
                    self.hang_up(pipe, side);
                }
                continue;
            };
            end.in_flight += frame.bytes;
            self.wake_end(pipe, side);
            if !broken {
                let n = &mut self.nodes[node];
                let time = n.uplink.map_or(Duration::ZERO, |rate| transfer(frame.bytes, rate));
                n.uplink_free = self.now + time;
                if time > CRAWL {
                    n.crawling = Some((pipe, side, frame));
                } else {
                    self.depart(pipe, side, frame);
                }
            }
        }
    }

    /// Says what a link has carried by now.
    pub(super) fn measure(&mut self, node: usize, link: LinkId) {
        let (pipe, side) = pipe_of(link);
        let Some(boot) = self.pipes.get(pipe).map(|p| p.ends[side].boot) else { return };
        if let Some(input) = self.measured(link) {
            self.schedule(self.now, Event::Completed { node, boot, input: Box::new(input) });
        }
    }

    /// Returns what a link has carried, of the frame that crawls over it too.
    fn measured(&self, link: LinkId) -> Option<Input> {
        let (pipe, side) = pipe_of(link);
        let p = self.pipes.get(pipe)?;
        let (here, there) = (&p.ends[side], &p.ends[1 - side]);
        let apart = self.nodes[here.node].partition != self.nodes[there.node].partition;
        let crawled = |from: &End, from_side: usize| match &self.nodes[from.node].crawling {
            Some((at, crawls, frame)) if (*at, *crawls) == (pipe, from_side) && !apart => {
                let n = &self.nodes[from.node];
                let left = n.uplink_free.saturating_sub(self.now).as_nanos();
                let left = left * u128::from(n.uplink.unwrap_or(0)) / 1_000_000_000;
                (frame.bytes as u64).saturating_sub(u64::try_from(left).unwrap_or(u64::MAX))
            }
            _ => 0,
        };
        let received = here.received + if here.void { 0 } else { crawled(there, 1 - side) };
        let taken = here.taken + crawled(here, side);
        Some(Input::Measured { link, received, taken })
    }

    /// The uplink of a node is not what it was: what crawls leaves at the new pace.
    pub(super) fn repace(&mut self, node: usize, old: Option<u64>) {
        let n = &mut self.nodes[node];
        if n.crawling.is_none() {
            return;
        }
        let left = n.uplink_free.saturating_sub(self.now);
        let bytes = left.as_nanos() * u128::from(old.unwrap_or(0)) / 1_000_000_000;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let time = n.uplink.map_or(Duration::ZERO, |rate| transfer(bytes, rate));
        n.uplink_free = self.now + time;
        let (at, boot) = (n.uplink_free, n.boot);
        self.schedule(at, Event::Uplink { node, boot });
    }

    /// Everything is sent: the other end learns that this one is closed.
    fn hang_up(&mut self, pipe: u64, side: usize) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        p.ends[side].closing = false;
        let (from, other) = (p.ends[side].node, p.ends[1 - side].node);
        let travel = self.travel(from, other);
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        // Not before the frames that are still at the uplink have arrived.
        let end = &mut p.ends[1 - side];
        end.last_arrival = end.last_arrival.max(self.nodes[from].uplink_free + travel);
        let at = end.last_arrival;
        self.schedule(at, Event::Ended { pipe, side: 1 - side });
    }

    /// A frame goes onto the uplink, which is free again when all of it has left.
    fn depart(&mut self, pipe: u64, side: usize, mut frame: Frame) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let other = p.ends[1 - side].node;
        let end = &mut p.ends[side];
        end.taken += frame.bytes as u64;
        let (node, boot, link, open) = (end.node, end.boot, end.link, end.open);
        let (weight, bytes) = (end.left(frame.weight), frame.bytes);
        let payload: usize = frame.messages.iter().map(payload_of).sum();
        self.figures.payload_sent += payload as u64;
        self.figures.control_sent += bytes.saturating_sub(payload) as u64;
        if open {
            let left = self.nodes[node].uplink_free;
            let sent = Event::Sent { node, boot, link, weight, bytes };
            // A large frame is on the wire when all of it is; a small one as soon as it may go.
            if bytes > MAX_SMALL_BYTES {
                self.schedule(left, sent);
            } else {
                self.due_now.push_back(sent);
            }
            self.fill_buffer(pipe, side);
        }
        let loss = self.config.loss;
        if self.rng.chance(loss.reset) {
            self.reset(pipe);
        } else if self.rng.chance(loss.drop) {
            self.faults.frames_dropped += 1;
            if let Some(p) = self.pipes.get_mut(pipe) {
                let in_flight = &mut p.ends[side].in_flight;
                *in_flight = in_flight.saturating_sub(bytes);
            }
        } else {
            if loss.message > 0 {
                let before = frame.messages.len();
                frame.messages.retain(|_| !self.rng.chance(loss.message));
                self.faults.messages_dropped += (before - frame.messages.len()) as u64;
            }
            self.travels(pipe, side, node, other, frame);
        }
    }

    /// A frame is on its way.
    fn travels(&mut self, pipe: u64, side: usize, from: usize, to: usize, frame: Frame) {
        let loss = self.config.loss;
        let delay = self.pipes.get(pipe).map_or(Duration::ZERO, |p| p.rung.delay);
        let mut at = self.nodes[from].uplink_free.max(self.now) + self.travel(from, to) + delay;
        if let Some(rate) = self.nodes[to].downlink {
            let free = &mut self.nodes[to].downlink_free;
            *free = at.max(*free) + transfer(frame.bytes, rate);
            at = *free;
        }
        if self.rng.chance(loss.delay) {
            self.faults.frames_delayed += 1;
            at += self.rng.up_to(MAX_DELAY);
        }
        let again = self.rng.chance(loss.duplicate) && !frame.messages.iter().any(is_framing);
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let there = &mut p.ends[1 - side];
        there.last_arrival = there.last_arrival.max(at);
        let at = there.last_arrival;
        if again {
            self.faults.frames_duplicated += 1;
            let twin = Frame { messages: frame.messages.clone(), weight: 0, bytes: 0 };
            self.schedule(at, Event::Arrived { pipe, side: 1 - side, frame });
            self.schedule(at, Event::Arrived { pipe, side: 1 - side, frame: twin });
        } else {
            self.schedule(at, Event::Arrived { pipe, side: 1 - side, frame });
        }
    }

    /// Delivers what comes out at an end, unless a partition holds it back.
    pub(super) fn arrive(&mut self, pipe: u64, side: usize, what: Arrival) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let (here, there) = (p.ends[side].node, p.ends[1 - side].node);
        if self.nodes[here].partition != self.nodes[there].partition {
            self.faults.frames_held += 1;
            p.ends[side].held_back.push_back(what);
            return;
        }
        let frame = match what {
            Arrival::Frame(frame) => frame,
            Arrival::Ended => {
                self.on_ended(pipe, side);
                return;
            }
        };
        if p.silent {
            self.faults.frames_into_void += 1;
            return;
        }
        if p.ends[side].void {
            self.faults.frames_into_void += 1;
            let back = !self.nodes[here].vanished;
            if back && !p.broken {
                // The machine is there again and knows nothing of this connection.
                self.reset(pipe);
            }
            return;
        }
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

    pub(super) fn take_frame(&mut self, pipe: u64, side: usize, frame: Frame) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        if p.broken {
            return;
        }
        let sender = &mut p.ends[1 - side];
        sender.in_flight = sender.in_flight.saturating_sub(frame.bytes);
        let from = sender.node;
        let end = &mut p.ends[side];
        end.received += frame.bytes as u64;
        let most = self.config.proxies.max_bytes.filter(|_| side == 1);
        if most.is_some_and(|most| end.received > most) {
            self.reset(pipe);
            return;
        }
        let (node, boot, link, open) = (end.node, end.boot, end.link, end.open);
        self.wake_end(pipe, 1 - side);
        self.transmit(from);
        if !open {
            self.after_turn(node);
            return;
        }
        if self.nodes[node].options.behaviour == Behaviour::Stalling {
            self.announce_everything(node, link, &frame.messages);
        }
        let Frame { messages, bytes, .. } = frame;
        self.feed_run(node, boot, Input::Received { link, messages, bytes });
    }

    /// A staller announces everything that it hears of, to everybody else, at once.
    fn announce_everything(&mut self, node: usize, heard_on: LinkId, messages: &[Message]) {
        let n = &mut self.nodes[node];
        let mut news: Vec<_> = messages.iter().flat_map(hearsay).collect();
        news.retain(|a| n.announced_unheld.insert(a.id));
        if news.is_empty() {
            return;
        }
        // Only where the hello is through: before it an announcement would be another offence.
        let links = n.protocol.as_ref().map(crate::protocol::Protocol::links).unwrap_or_default();
        for link in links.iter().map(|l| l.link).filter(|link| *link != heard_on) {
            self.faults.messages_tampered += 1;
            self.enqueue(link, 0, Some(Message::Announce(news.clone())));
        }
        self.transmit(node);
    }

    fn on_ended(&mut self, pipe: u64, side: usize) {
        let measured = self.measured(link_of(pipe, side));
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        let end = &mut p.ends[side];
        let (node, boot, link, was_open) = (end.node, end.boot, end.link, end.open);
        end.open = false;
        p.broken = true;
        self.drop_if_over(pipe);
        if self.nodes[node].boot == boot {
            self.nodes[node].links.remove(&link);
        }
        if was_open {
            if let Some(measured) = measured {
                self.feed_run(node, boot, measured);
            }
            self.feed_run(node, boot, Input::LinkClosed { link });
        }
    }

    /// Forgets a pipe that neither end has, nor waits for.
    fn drop_if_over(&mut self, pipe: u64) {
        let over = |p: &mut Pipe| p.ends.iter().all(|end| !end.open && !end.opening);
        if self.pipes.get_mut(pipe).is_some_and(over) {
            self.pipes.remove(pipe);
        }
    }

    /// A proxy cuts a pipe that has not ended before.
    pub(super) fn cut(&mut self, pipe: u64) {
        let is_open = |p: &Pipe| !p.broken && p.ends.iter().all(|end| end.open);
        if self.pipes.get(pipe).is_some_and(is_open) {
            self.reset(pipe);
        }
    }

    /// Breaks a pipe: both ends learn it, whatever is on its way is lost.
    pub(super) fn reset(&mut self, pipe: u64) {
        let Some(p) = self.pipes.get_mut(pipe) else { return };
        p.broken = true;
        self.faults.links_reset += 1;
        let delay = self.config.verify_delay;
        for side in [0, 1] {
            self.schedule(self.now + delay, Event::Ended { pipe, side });
        }
    }
}

/// Time that so many bytes take.
fn transfer(bytes: usize, per_second: u64) -> Duration {
    let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
