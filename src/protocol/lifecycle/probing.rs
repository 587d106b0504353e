//! Tests of a link, asked for by the host or by the peer.
//!
//! Probes are sent and answered like everything else: those with few bytes at once, as control, and
//! those with many as bulk, behind what peers asked for and one piece at a time. What a peer may have
//! answered is bounded (`guard::rate_limits`); beyond that its probes are counted and left alone.
//!
//! Tested by: `protocol::tests::probes`, `tests/node/quality.rs`.

use bytes::Bytes;

use crate::error::TestError;
use crate::protocol::Protocol;
use crate::protocol::guard::Work;
use crate::protocol::io::{CallId, Output};
use crate::protocol::link::{Link, MAX_OWED, NextProbe, Test};
use crate::protocol::timers::Timer;
use crate::types::{LinkId, Message, PIECE_BYTES, PeerId};

/// Maximum number of tests at once.
const MAX_TESTS: usize = 4;

impl Protocol {
    /// The host wants a link measured.
    pub(in crate::protocol) fn on_test_peer(&mut self, call: CallId, peer: PeerId) {
        if let Err(error) = self.begin_test(call, peer) {
            self.env.push(Output::Tested { call, result: Err(error) });
        }
    }

    fn begin_test(&mut self, call: CallId, peer: PeerId) -> Result<(), TestError> {
        let now = self.env.now;
        let testing = |l: &&Link| l.up.as_ref().is_some_and(|up| up.probing.test.is_some());
        let under_way = self.links.all.values().filter(testing).count();
        let Some(link) = self.links.by_peer.get(&peer).copied() else {
            let is_known = self.membership.book.known.contains_key(&peer);
            return Err(if is_known { TestError::NotLinked } else { TestError::Unknown });
        };
        let Some(up) = self.links.up(link) else { return Err(TestError::NotLinked) };
        if under_way >= MAX_TESTS || !up.probing.may_begin(now) {
            return Err(TestError::Busy);
        }
        up.probing.test = Some(Box::new(Test::new(call, now)));
        up.probing.tested = Some(now);
        self.go_on_testing(link);
        Ok(())
    }

    /// Sends what comes next in the test of a link, as far as there is room, and ends a test that is
    /// through.
    pub(super) fn go_on_testing(&mut self, link: LinkId) {
        while let Some(next) = self.next_probe(link) {
            if !self.has_room_for_probe(link, next.bytes) {
                break;
            }
            let (nonce, now) = (self.env.rng.next_u64(), self.env.now);
            let Some(up) = self.links.up(link) else { return };
            let Some(test) = up.probing.test.as_mut() else { return };
            test.note_sent(nonce, now);
            let wants = u32::try_from(next.wants).unwrap_or(u32::MAX);
            self.send(link, Message::Probe { nonce, payload: nothing(next.bytes), wants });
        }
        let Some(l) = self.links.all.get_mut(&link) else { return };
        let (peer, kind) = (l.remote, l.kind);
        let Some(probing) = l.up.as_mut().map(|up| &mut up.probing) else { return };
        let Some(test) = &probing.test else { return };
        if let Some(result) = test.result(peer, kind) {
            let call = test.call;
            probing.test = None;
            self.env.push(Output::Tested { call, result });
        } else {
            self.env.timers.set_earlier(Timer::Tests, test.until());
        }
    }

    fn next_probe(&mut self, link: LinkId) -> Option<NextProbe> {
        self.links.up(link)?.probing.test.as_ref()?.next()
    }

    /// Reports whether so many bytes that mean nothing may be handed out on a link.
    fn has_room_for_probe(&mut self, link: LinkId, bytes: usize) -> bool {
        let queued = self.links.all.get(&link).map_or(0, |l| l.queued_bytes);
        bytes == 0
            || (queued == 0 || queued + bytes <= PIECE_BYTES) && self.takes_piece(link, bytes)
    }

    /// Answers may be overdue.
    pub(in crate::protocol) fn on_tests_due(&mut self) {
        let now = self.env.now;
        for link in self.links.up_ids() {
            let test = self.links.up(link).and_then(|up| up.probing.test.as_mut());
            if let Some(test) = test {
                test.on_due(now);
                self.go_on_testing(link);
            }
        }
    }

    /// A peer tests the link.
    pub(in crate::protocol) fn on_probe(
        &mut self,
        link: LinkId,
        nonce: u64,
        payload: &Bytes,
        wants: u32,
    ) {
        let Some(peer) = self.links.peer_of(link) else { return };
        let received = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let cost = 1 + (u64::from(received) + u64::from(wants)).div_ceil(1024);
        let Some(up) = self.links.up(link) else { return };
        if up.probing.owed.len() >= MAX_OWED
            || !self.guard.rate_limits.take(peer, Work::Probe, cost, self.env.now)
        {
            self.env.counters.probes_refused += 1;
            return;
        }
        self.env.counters.probes_answered += 1;
        if wants == 0 {
            self.send(link, Message::Probed { nonce, received, payload: Bytes::new() });
        } else {
            up.probing.owed.push_back((nonce, received, wants));
            self.answer_probes(link);
        }
    }

    /// Sends answers that wait, as far as there is room.
    pub(super) fn answer_probes(&mut self, link: LinkId) {
        while let Some(up) = self.links.up(link)
            && let Some((nonce, received, wants)) = up.probing.owed.front().copied()
        {
            let bytes = usize::try_from(wants).unwrap_or(usize::MAX).min(PIECE_BYTES);
            if !self.has_room_for_probe(link, bytes) {
                return;
            }
            if let Some(up) = self.links.up(link) {
                up.probing.owed.pop_front();
            }
            self.send(link, Message::Probed { nonce, received, payload: nothing(bytes) });
        }
    }

    /// A peer answers a probe.
    pub(in crate::protocol) fn on_probed(
        &mut self,
        link: LinkId,
        nonce: u64,
        received: u32,
        fetched: usize,
    ) {
        let now = self.env.now;
        let test = self.links.up(link).and_then(|up| up.probing.test.as_mut());
        if test.is_some_and(|test| test.on_probed(nonce, received, fetched, now)) {
            self.go_on_testing(link);
        } else {
            self.env.counters.probes_refused += 1;
        }
    }
}

/// Returns so many bytes that mean nothing.
fn nothing(bytes: usize) -> Bytes {
    vec![0; bytes.min(PIECE_BYTES)].into()
}
