//! Who is still there.
//!
//! Each link is pinged once per interval, or per `slow_after` if that is less, and when nothing was
//! said on it for [`QUIET`], since what stands on the way counts silence, each way by itself. Any
//! frame that arrives after the ping was sent counts as an answer, so a peer that is merely busy
//! sending is not suspected. A ping is judged against what stands before it: only when the time for
//! that and `timeout` are over, and then only if the transport says that nothing has moved since
//! the last look. A link that carries bytes is alive, however few they are and whichever way they
//! go. A miss makes a peer suspect and is followed by another ping at once; `max_missed` misses in
//! a row make it down. A peer that answers but takes nothing of what waits for it is disconnected
//! after `slow_after`, and catches up when it returns.
//!
//! Tested by: the tests below, `protocol::tests::thin`, `sim::tests::thin`, `sim::tests::faults`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::timers::Timer;
use crate::types::{LinkId, Message, MonoTime};

use super::budget::Mark;

/// Time by which the verdict on a ping precedes the next one, which would excuse it.
const VERDICT_FIRST: Duration = Duration::from_millis(1);
/// Time without a word of ours after which one is said, whatever the interval. Proxies give up
/// connections that were silent for 30 s or more.
pub(in crate::protocol) const QUIET: Duration = Duration::from_secs(20);
/// Minimum number of bytes, taken by the transport between two looks, that are a move: pings to a
/// peer that is gone are taken too.
const MIN_TAKEN: u64 = 4 << 10;

/// State of the pings to a peer and of its answers.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Pinger {
    /// The ping that is not answered yet.
    pub(in crate::protocol) outstanding: Option<Mark>,
    /// True: the transport is asked what it carried, for the verdict on that ping.
    judging: bool,
    /// Time of the next ping.
    next: MonoTime,
    /// Bytes that the transport had read and written at the last look.
    received: u64,
    taken: u64,
    /// Time of the look before which bytes had come in since the one before.
    pub(in crate::protocol) came: MonoTime,
    /// Answers missed in a row.
    pub(in crate::protocol) missed: u32,
    /// Smoothed round-trip time.
    pub(in crate::protocol) rtt: Option<Duration>,
    /// True: that is of an earlier connection of the link.
    is_rtt_old: bool,
}

impl Pinger {
    /// Returns the bytes that the transport had written at the last look; 0 where it cannot tell.
    pub(in crate::protocol) fn taken(&self) -> u64 {
        self.taken
    }

    /// Another connection carries the link, which has carried nothing yet.
    pub(in crate::protocol) fn note_moved(&mut self) {
        (self.judging, self.received, self.taken) = (false, 0, 0);
        self.is_rtt_old = true;
    }

    /// Takes a round trip, and returns the smoothed value that it adds to, if there is one of this
    /// connection.
    fn note_sample(&mut self, sample: Duration) -> Option<Duration> {
        let is_old = std::mem::take(&mut self.is_rtt_old);
        let smoothed = self.rtt.filter(|_| !is_old);
        // RFC 6298: the smoothed value moves by an eighth.
        self.rtt = Some(smoothed.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        smoothed
    }
}

/// Verdict on a ping whose answer is overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Verdict {
    /// The peer is there, or more time is due to it.
    Alive,
    /// The peer has missed the answer.
    Missed,
}

impl Protocol {
    /// Sends a ping and sets both timers.
    pub(in crate::protocol) fn ping(&mut self, link: LinkId) {
        let now = self.env.now;
        let nonce = self.env.rng.next_u64();
        let Some(up) = self.links.up(link) else { return };
        up.pinger.outstanding = Some(up.budget.here(nonce, now));
        up.pinger.judging = false;
        self.env.counters.pings_sent += 1;
        self.send(link, Message::Ping { nonce });
        self.links.measure(&mut self.env, link);
        let liveness = &self.env.config.liveness;
        // At each ping it is also looked whether the peer takes anything.
        let interval = self.env.rng.about(liveness.interval.min(liveness.slow_after));
        let timeout = self.env.config.liveness.timeout;
        let next = now + interval.max(timeout + VERDICT_FIRST);
        if let Some(up) = self.links.up(link) {
            up.pinger.next = next;
        }
        self.env.timers.set(Timer::Pong(link), now + timeout);
        self.arm_ping(link);
    }

    /// Sets the time to look again whether a ping is due.
    fn arm_ping(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get(&link) else { return };
        let Some(up) = &l.up else { return };
        let at = up.pinger.next.min(l.spoke + QUIET);
        self.env.timers.set(Timer::Ping(link), if at > now { at } else { now + QUIET });
    }

    /// Pings a link for which it is time, or says something where nothing was said for long.
    pub(in crate::protocol) fn ping_if_due(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(l) = self.links.all.get(&link) else { return };
        let Some(up) = &l.up else { return };
        let (is_due, is_quiet) = (up.pinger.next <= now, l.spoke + QUIET <= now);
        if is_due || is_quiet && up.pinger.outstanding.is_none() {
            self.ping(link);
            return;
        }
        if is_quiet {
            // The answer to the ping that is out stays awaited.
            let nonce = self.env.rng.next_u64();
            self.env.counters.pings_sent += 1;
            self.send(link, Message::Ping { nonce });
        }
        self.arm_ping(link);
    }

    /// Takes a pong; `true` when it says that something has arrived.
    pub(in crate::protocol) fn on_pong(&mut self, link: LinkId, nonce: u64) -> bool {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return false };
        if let Some(ping) = up.pinger.outstanding.take_if(|ping| ping.is(nonce)) {
            up.pinger.missed = 0;
            let sample = now.since(ping.at());
            let smoothed = up.pinger.note_sample(sample);
            up.quality.note_pong(sample, smoothed, now);
            up.budget.note_arrival(&ping, now);
            self.env.timers.cancel(Timer::Pong(link));
        } else if !up.budget.on_pong(nonce, now) {
            return false;
        }
        if let Some(up) = self.links.up(link)
            && up.budget.wants_mark(now)
        {
            self.links.mark(&mut self.env, link);
        }
        true
    }

    /// Looks at a ping whose answer is overdue: has the transport asked what it carried meanwhile, or
    /// waits for what stands before the ping.
    pub(in crate::protocol) fn doubt_link(&mut self, link: LinkId) {
        let (now, timeout) = (self.env.now, self.env.config.liveness.timeout);
        let Some(up) = self.links.up(link) else { return };
        let Some(ping) = &up.pinger.outstanding else { return };
        let due = up.budget.due(ping) + timeout;
        if now < due {
            self.wait_for_pong(link, due);
        } else {
            up.pinger.judging = true;
            self.links.measure(&mut self.env, link);
        }
    }

    /// Takes what the transport of a link has read and written by now.
    pub(in crate::protocol) fn on_measured(
        &mut self,
        link: LinkId,
        received: u64,
        taken: u64,
    ) -> Verdict {
        let now = self.env.now;
        let due = now + self.env.config.liveness.timeout;
        let Some(l) = self.links.all.get_mut(&link) else { return Verdict::Alive };
        let heard = l.heard;
        let Some(up) = &mut l.up else { return Verdict::Alive };
        let pinger = &mut up.pinger;
        if received > pinger.received {
            pinger.came = now;
        }
        let moved = received > pinger.received || taken >= pinger.taken.saturating_add(MIN_TAKEN);
        (pinger.received, pinger.taken) = (received, taken);
        if !std::mem::take(&mut pinger.judging) {
            return Verdict::Alive;
        }
        if pinger.outstanding.is_none_or(|ping| heard > ping.at()) {
            pinger.missed = 0;
            return Verdict::Alive;
        }
        if moved {
            pinger.missed = 0;
            self.wait_for_pong(link, due);
            return Verdict::Alive;
        }
        Verdict::Missed
    }

    /// Gives a peer until `due` to answer, before it is pinged again.
    fn wait_for_pong(&mut self, link: LinkId, due: MonoTime) {
        let Some(up) = self.links.up(link) else { return };
        up.pinger.next = up.pinger.next.max(due + VERDICT_FIRST);
        self.env.timers.set(Timer::Pong(link), due);
        self.arm_ping(link);
    }

    /// Round-trip time to assume for a link: measured, or a wide-area guess.
    pub(in crate::protocol) fn rtt_of(&self, link: LinkId) -> Duration {
        const GUESS: Duration = Duration::from_millis(130);
        let up = self.links.all.get(&link).and_then(|l| l.up.as_ref());
        up.and_then(|up| up.pinger.rtt).unwrap_or(GUESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_of_another_connection_begin_anew() {
        let ms = Duration::from_millis;
        let mut pinger = Pinger::default();
        assert_eq!(pinger.note_sample(ms(800)), None);
        assert_eq!(pinger.note_sample(ms(400)), Some(ms(800)));
        assert_eq!(pinger.rtt, Some(ms(750)));
        pinger.note_moved();
        assert_eq!(pinger.rtt, Some(ms(750)), "until there is a better one");
        assert_eq!(pinger.note_sample(ms(20)), None);
        assert_eq!(pinger.rtt, Some(ms(20)));
        assert_eq!(pinger.note_sample(ms(28)), Some(ms(20)));
    }
}
