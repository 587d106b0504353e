//! Who is still there.
//!
//! Each link is pinged once per interval, or per `slow_after` if that is less. Any frame that arrives after the ping was sent counts as
//! an answer, so a peer that is merely busy sending is not suspected. A miss makes a peer suspect
//! and is followed by another ping at once; `max_missed` misses in a row make it down. A peer that
//! answers but takes nothing of what waits for it is disconnected after `slow_after`, and catches
//! up when it returns.

use std::time::Duration;

use crate::types::{CloseReason, Event, LinkId, Message};

use crate::protocol::Protocol;
use crate::protocol::timers::Timer;

/// By how much the verdict on a ping precedes the next one, which would excuse it.
const VERDICT_FIRST: Duration = Duration::from_millis(1);

impl Protocol {
    /// Sends a ping and sets both timers.
    pub(in crate::protocol) fn ping(&mut self, link: LinkId) {
        let now = self.env.now;
        let nonce = self.env.rng.next_u64();
        let Some(up) = self.links.up(link) else { return };
        up.ping.nonce = nonce;
        up.ping.sent = now;
        up.ping.outstanding = true;
        self.env.counters.pings_sent += 1;
        self.send(link, Message::Ping { nonce });
        let liveness = &self.env.config.liveness;
        // At each ping it is also looked whether the peer takes anything.
        let interval = self.env.rng.about(liveness.interval.min(liveness.slow_after));
        let timeout = self.env.config.liveness.timeout;
        self.env.timers.set(Timer::Pong(link), now + timeout);
        self.env.timers.set(Timer::Ping(link), now + interval.max(timeout + VERDICT_FIRST));
    }

    pub(in crate::protocol) fn on_ping_due(&mut self, link: LinkId) {
        let Some(l) = self.links.all.get(&link) else { return };
        if l.queued > 0 && self.env.now.since(l.progress) > self.env.config.liveness.slow_after {
            self.close(link, CloseReason::SlowPeer);
        } else {
            self.ping(link);
        }
    }

    pub(in crate::protocol) fn on_pong(&mut self, link: LinkId, nonce: u64) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        if !up.ping.outstanding || up.ping.nonce != nonce {
            return;
        }
        up.ping.outstanding = false;
        up.ping.missed = 0;
        let sample = now.since(up.ping.sent);
        // RFC 6298: the smoothed value moves by an eighth.
        up.rtt = Some(up.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.env.timers.cancel(Timer::Pong(link));
    }

    pub(in crate::protocol) fn on_pong_overdue(&mut self, link: LinkId) {
        let max_missed = self.env.config.liveness.max_missed;
        if !self.env.has_room() {
            // We are the ones who do not read.
            self.env.timers.set(Timer::Pong(link), self.env.now + self.env.config.liveness.timeout);
            return;
        }
        let Some(l) = self.links.all.get_mut(&link) else { return };
        let (peer, heard) = (l.remote, l.heard);
        let Some(up) = &mut l.up else { return };
        if !up.ping.outstanding || heard > up.ping.sent {
            up.ping.missed = 0;
            return;
        }
        up.ping.missed += 1;
        let missed = up.ping.missed;
        self.env.counters.pings_missed += 1;
        if missed >= max_missed {
            self.close(link, CloseReason::Unresponsive);
            return;
        }
        self.env.emit(Event::PeerSuspected { peer });
        self.recheck_outbox();
        self.ping(link);
    }

    /// Round-trip time to assume for a link: measured, or a wide-area guess.
    pub(in crate::protocol) fn rtt_of(&self, link: LinkId) -> Duration {
        const GUESS: Duration = Duration::from_millis(130);
        let up = self.links.all.get(&link).and_then(|l| l.up.as_ref());
        up.and_then(|up| up.rtt).unwrap_or(GUESS)
    }
}
