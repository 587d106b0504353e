//! Who is still there.
//!
//! Each link is pinged once per interval, or per `slow_after` if that is less. Any frame that arrives after the ping was sent counts as
//! an answer, so a peer that is merely busy sending is not suspected. A miss makes a peer suspect
//! and is followed by another ping at once; `max_missed` misses in a row make it down. A peer that
//! answers but takes nothing of what waits for it is disconnected after `slow_after`, and catches
//! up when it returns.
//!
//! Tested by: `sim::tests::faults`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::timers::Timer;
use crate::types::{LinkId, Message, MonoTime};

/// Time by which the verdict on a ping precedes the next one, which would excuse it.
const VERDICT_FIRST: Duration = Duration::from_millis(1);

/// State of the pings to a peer and of its answers.
#[derive(Debug)]
pub(in crate::protocol) struct Pinger {
    nonce: u64,
    pub(in crate::protocol) sent: MonoTime,
    pub(in crate::protocol) outstanding: bool,
    /// Answers missed in a row.
    pub(in crate::protocol) missed: u32,
    /// Smoothed round-trip time.
    pub(in crate::protocol) rtt: Option<Duration>,
}

impl Pinger {
    pub(in crate::protocol) fn new(nonce: u64, now: MonoTime) -> Self {
        Self { nonce, sent: now, outstanding: false, missed: 0, rtt: None }
    }
}

impl Protocol {
    /// Sends a ping and sets both timers.
    pub(in crate::protocol) fn ping(&mut self, link: LinkId) {
        let now = self.env.now;
        let nonce = self.env.rng.next_u64();
        let Some(up) = self.links.up(link) else { return };
        up.pinger.nonce = nonce;
        up.pinger.sent = now;
        up.pinger.outstanding = true;
        self.env.counters.pings_sent += 1;
        self.send(link, Message::Ping { nonce });
        let liveness = &self.env.config.liveness;
        // At each ping it is also looked whether the peer takes anything.
        let interval = self.env.rng.about(liveness.interval.min(liveness.slow_after));
        let timeout = self.env.config.liveness.timeout;
        self.env.timers.set(Timer::Pong(link), now + timeout);
        self.env.timers.set(Timer::Ping(link), now + interval.max(timeout + VERDICT_FIRST));
    }

    pub(in crate::protocol) fn on_pong(&mut self, link: LinkId, nonce: u64) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        if !up.pinger.outstanding || up.pinger.nonce != nonce {
            return;
        }
        up.pinger.outstanding = false;
        up.pinger.missed = 0;
        let sample = now.since(up.pinger.sent);
        // RFC 6298: the smoothed value moves by an eighth.
        up.pinger.rtt = Some(up.pinger.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.env.timers.cancel(Timer::Pong(link));
    }

    /// Round-trip time to assume for a link: measured, or a wide-area guess.
    pub(in crate::protocol) fn rtt_of(&self, link: LinkId) -> Duration {
        const GUESS: Duration = Duration::from_millis(130);
        let up = self.links.all.get(&link).and_then(|l| l.up.as_ref());
        up.and_then(|up| up.pinger.rtt).unwrap_or(GUESS)
    }
}
