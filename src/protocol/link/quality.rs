//! How good a link is, from what goes over it anyway.
//!
//! Contract:
//! - Nothing is sent to find out: round trips are those of the pings, success is that of what was asked
//!   for other reasons, rates are those of what had to be carried.
//! - The score is `success * (70 + 30 * speed)`, from 0 to 100. So who fails always has 0, however quick.
//! - `success` is the share of pings answered times the share of questions served. Who was hardly
//!   asked anything and brought nothing is taken for one that serves 7 of 10: who only answers pings stays
//!   behind those who serve, and who promises and does not serve behind both.
//! - `speed` goes by round trip and jitter, or by the rate of a link that kept something waiting, if that
//!   is worse; a quarter of it is the share of payloads that came over this link first.
//! - What happened counts half after `HALF_LIFE`. A peer that comes back within `KEEP` finds what it
//!   had, less what the break costs.
//! - Only an order follows from it: who is asked first, who is compared with first, who of equals gives
//!   way. No link is closed or refused for it.
//!
//! Tested by: the tests below, `protocol::tests::quality`, `sim::tests::quality`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{LinkId, MonoTime, PIECE_BYTES, PeerId};

use super::{Established, Links, SendBudget};

/// Time in which what happened loses half its weight.
const HALF_LIFE: Duration = Duration::from_mins(5);
/// Time for which a peer without a link is remembered.
const KEEP: Duration = Duration::from_hours(1);
/// Maximum number of peers without a link that are remembered.
pub(in crate::protocol) const MAX_RECENT: usize = 1024;
/// Score below which a link is poor.
const POOR: u8 = 40;
/// Weight of one event: so fine that halves of it still count.
const ONE: u32 = 256;
/// Maximum weight of what a link has done.
const MOST: u32 = 1 << 20;
/// Number of questions that a new peer is taken to have been asked, and share of them served, of 1000.
const ASSUMED: (u64, u64) = (4, 700);
/// Maximum number of questions that payloads brought unasked count as.
const MOST_BROUGHT: u32 = 4;
/// Number of payloads that a new peer is taken to have brought first.
const ASSUMED_FIRST: u64 = 2;
/// Time for which a link that kept something waiting counts as thin.
const THIN_FOR: Duration = Duration::from_mins(5);
/// Time without a frame that ends a measured span.
const PAUSE: Duration = Duration::from_millis(50);
/// Minimum length of a measured span.
const SPAN: Duration = Duration::from_millis(200);

/// Two counts, of which the older part weighs less.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    good: u32,
    bad: u32,
    at: MonoTime,
}

impl Tally {
    fn note(&mut self, good: bool, now: MonoTime) {
        *self = self.faded(now);
        let count = if good { &mut self.good } else { &mut self.bad };
        *count = (*count + ONE).min(MOST);
    }

    fn faded(self, now: MonoTime) -> Self {
        let halvings = now.since(self.at).as_secs() / HALF_LIFE.as_secs();
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        let less = |count: u32| count.checked_shr(halvings).unwrap_or(0);
        Self { good: less(self.good), bad: less(self.bad), at: self.at + HALF_LIFE * halvings }
    }

    /// Returns the good share of 1000, as if there had been `assumed` events more, of which so many
    /// of 1000 were good.
    fn share(self, (assumed, good): (u64, u64), now: MonoTime) -> u64 {
        let faded = self.faded(now);
        let weight = assumed * u64::from(ONE);
        let all = u64::from(faded.good) + u64::from(faded.bad) + weight;
        (u64::from(faded.good) * 1000 + weight * good) / all.max(1)
    }

    /// Returns the good share in percent; `None` where nothing happened lately.
    fn percent(self, now: MonoTime) -> Option<u8> {
        let faded = self.faded(now);
        let any = faded.good > 0 || faded.bad > 0;
        any.then(|| u8::try_from(self.share((0, 0), now) / 10).unwrap_or(100))
    }
}

/// Rate of what comes in while much does.
#[derive(Debug, Clone, Copy, Default)]
struct Inflow {
    since: MonoTime,
    last: MonoTime,
    bytes: u64,
    /// Bytes per second; 0 before the first measurement.
    rate: u64,
}

impl Inflow {
    fn note(&mut self, bytes: u64, now: MonoTime) {
        if now.since(self.last) > PAUSE {
            // The first frame of a span has come before it.
            (self.since, self.bytes) = (now, 0);
        } else {
            self.bytes += bytes;
        }
        self.last = now;
        let span = now.since(self.since);
        if span >= SPAN {
            if self.bytes >= PIECE_BYTES as u64 {
                let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                let sample = self.bytes.saturating_mul(1000) / millis;
                self.rate = if self.rate == 0 { sample } else { (self.rate * 3 + sample) / 4 };
            }
            (self.since, self.bytes) = (now, 0);
        }
    }
}

/// What a link has done.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::protocol) struct Quality {
    /// Mean deviation of round trips from the smoothed one.
    jitter: Duration,
    /// Pings answered and missed.
    pings: Tally,
    /// Questions served, and not served in time.
    service: Tally,
    /// Payloads that came first over the link, and such as were here.
    firsts: Tally,
    inflow: Inflow,
}

impl Quality {
    /// Notes an answered ping; `smoothed` is the round trip as it was before.
    pub(super) fn note_pong(
        &mut self,
        sample: Duration,
        smoothed: Option<Duration>,
        now: MonoTime,
    ) {
        // RFC 6298: half the first sample, and then a quarter of each deviation.
        self.jitter =
            smoothed.map_or(sample / 2, |rtt| (self.jitter * 3 + rtt.abs_diff(sample)) / 4);
        self.pings.note(true, now);
    }

    /// Notes a missed ping, or the break of the link.
    pub(in crate::protocol) fn note_silence(&mut self, now: MonoTime) {
        self.pings.note(false, now);
    }

    /// Notes whether the peer served what it was asked for.
    pub(in crate::protocol) fn note_service(&mut self, served: bool, now: MonoTime) {
        self.service.note(served, now);
    }

    /// Notes a payload, and whether it was new.
    pub(in crate::protocol) fn note_payload(&mut self, first: bool, now: MonoTime) {
        self.firsts.note(first, now);
    }

    /// Notes a frame that came in.
    pub(in crate::protocol) fn note_received(&mut self, bytes: usize, now: MonoTime) {
        self.inflow.note(bytes as u64, now);
    }

    pub(in crate::protocol) fn jitter(&self) -> Duration {
        self.jitter
    }

    /// Returns the share of questions served in percent; `None` where nothing was asked lately.
    pub(in crate::protocol) fn served_percent(&self, now: MonoTime) -> Option<u8> {
        self.service.percent(now)
    }

    /// Returns the share of payloads that came first over the link in percent.
    pub(in crate::protocol) fn first_percent(&self, now: MonoTime) -> Option<u8> {
        self.firsts.percent(now)
    }

    /// Returns the bytes per second that came in while much did; `None` before that was measured.
    pub(in crate::protocol) fn inflow(&self) -> Option<u64> {
        (self.inflow.rate > 0).then_some(self.inflow.rate)
    }

    /// Returns the share of questions served, of 1000. What was brought unasked and came first counts as
    /// a few of them, and no more, so that it does not hide questions that are not served.
    fn serves(&self, now: MonoTime) -> u64 {
        let mut service = self.service.faded(now);
        service.good += self.firsts.faded(now).good.min(MOST_BROUGHT * ONE);
        service.share(ASSUMED, now)
    }

    /// Returns the score of a link of this round trip, which missed so many pings in a row and carries
    /// so many bytes per second if it is thin.
    fn score(&self, rtt: Duration, missed: u32, thin: Option<u64>, now: MonoTime) -> u8 {
        let answered = self.pings.share((1, 1000), now) / u64::from(missed + 1);
        let success = answered * self.serves(now) / 1000;
        let pace = latency_factor(rtt + self.jitter).min(thin.map_or(100, rate_factor));
        let first = self.firsts.share((ASSUMED_FIRST, 1000), now);
        let speed = pace * (3000 + first) / 400;
        let score = success * (70_000 + 30 * speed) / 1_000_000;
        u8::try_from(score).unwrap_or(100).min(100)
    }
}

/// The factor of a round trip, of 100: the steps are the original's.
fn latency_factor(rtt: Duration) -> u64 {
    match rtt.as_millis() {
        0..50 => 100,
        50..100 => 80,
        100..200 => 60,
        200..500 => 40,
        _ => 20,
    }
}

/// The factor of a rate in bytes per second, of 100.
fn rate_factor(rate: u64) -> u64 {
    match rate >> 10 {
        0..4 => 20,
        4..16 => 40,
        16..64 => 60,
        64..256 => 80,
        _ => 100,
    }
}

impl SendBudget {
    /// Returns the rate of a link that kept something waiting lately.
    fn thin_rate(&self, now: MonoTime) -> Option<u64> {
        self.late_at().filter(|at| now.since(*at) < THIN_FOR).and_then(|_| self.rate())
    }
}

impl Established {
    /// Returns the score of the link; `None` before the first ping is answered.
    pub(in crate::protocol) fn score(&self, now: MonoTime) -> Option<u8> {
        let (rtt, thin) = (self.pinger.rtt?, self.budget.thin_rate(now));
        Some(self.quality.score(rtt, self.pinger.missed, thin, now))
    }
}

/// What links have done that are gone.
#[derive(Debug, Default)]
pub(in crate::protocol) struct RecentQuality(BTreeMap<PeerId, (Quality, MonoTime)>);

impl RecentQuality {
    /// Remembers what the link of a peer has done.
    pub(in crate::protocol) fn keep(&mut self, peer: PeerId, quality: Quality, now: MonoTime) {
        if self.0.len() >= MAX_RECENT && !self.0.contains_key(&peer) {
            let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.0.remove(&peer));
        }
        self.0.insert(peer, (quality, now));
    }

    /// Takes out what an earlier link of a peer has done, as far as it still says anything.
    pub(in crate::protocol) fn take(&mut self, peer: &PeerId, now: MonoTime) -> Quality {
        let kept = self.0.remove(peer).filter(|(_, at)| now.since(*at) < KEEP);
        kept.map(|(quality, _)| quality).unwrap_or_default()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Links {
    /// Reports whether others are to be preferred to the peer of a link.
    pub(in crate::protocol) fn is_poor(&self, link: LinkId, now: MonoTime) -> bool {
        let up = self.all.get(&link).and_then(|l| l.up.as_ref());
        up.and_then(|up| up.score(now)).is_some_and(|score| score < POOR)
    }

    /// Notes whether the peer of a link served what it was asked for.
    pub(in crate::protocol) fn note_service(&mut self, link: LinkId, served: bool, now: MonoTime) {
        if let Some(up) = self.up(link) {
            up.quality.note_service(served, now);
        }
    }

    /// Notes a payload that came over a link, and whether it was new.
    pub(in crate::protocol) fn note_payload(&mut self, link: LinkId, first: bool, now: MonoTime) {
        if let Some(up) = self.up(link) {
            up.quality.note_payload(first, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);

    fn at(secs: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(secs))
    }

    /// Pings answered 10 times in `rtt` each, and so many questions served and not served.
    fn link(rtt: Duration, served: u32, not: u32) -> Quality {
        let mut quality = Quality::default();
        (0..10).for_each(|n| quality.note_pong(rtt, (n > 0).then_some(rtt), at(10)));
        (0..served).for_each(|_| quality.note_service(true, at(10)));
        (0..not).for_each(|_| quality.note_service(false, at(10)));
        quality
    }

    #[test]
    fn who_only_fails_scores_next_to_nothing_however_quick() {
        let mut silent = Quality::default();
        (0..100).for_each(|_| silent.note_silence(at(10)));
        (0..100).for_each(|_| silent.note_service(false, at(10)));
        assert_eq!(silent.score(QUICK, 2, None, at(10)), 0);
        // Quick answers to pings do not make up for promises that are not kept.
        let promising = link(QUICK, 0, 100).score(QUICK, 0, None, at(10));
        assert!(promising < 5, "{promising}");
    }

    #[test]
    fn who_answers_pings_alone_stays_behind_who_serves() {
        let pings = link(QUICK, 0, 0).score(QUICK, 0, None, at(10));
        let serving = link(QUICK, 20, 0).score(QUICK, 0, None, at(10));
        let lossy = link(QUICK, 10, 10).score(QUICK, 0, None, at(10));
        assert_eq!(pings, 70);
        assert!(serving > 90 && lossy < pings && lossy > 40, "{serving} {lossy}");
        let far = Duration::from_millis(600);
        let far_serving = link(far, 20, 0).score(far, 0, None, at(10));
        assert!(pings < far_serving && far_serving < serving, "{far_serving}");
    }

    #[test]
    fn who_brings_what_is_new_is_excellent_unless_it_does_not_serve() {
        let mut pushing = link(QUICK, 0, 0);
        (0..100).for_each(|_| pushing.note_payload(true, at(10)));
        assert!(pushing.score(QUICK, 0, None, at(10)) >= 80);
        (0..20).for_each(|_| pushing.note_service(false, at(10)));
        assert!(pushing.score(QUICK, 0, None, at(10)) < POOR);
    }

    #[test]
    fn a_thin_link_and_one_that_brings_what_is_here_score_less() {
        let good = link(QUICK, 20, 0);
        let best = good.score(QUICK, 0, None, at(10));
        let thin = good.score(QUICK, 0, Some(2 << 10), at(10));
        let mut late = good;
        (0..50).for_each(|_| late.note_payload(false, at(10)));
        let late = late.score(QUICK, 0, None, at(10));
        assert!(thin < best && late < best && thin < late, "{best} {late} {thin}");
        assert!(good.score(QUICK, 1, None, at(10)) <= best / 2, "a ping is missed");
    }

    #[test]
    fn jitter_is_that_of_rfc_6298() {
        let mut quality = Quality::default();
        let ms = Duration::from_millis;
        quality.note_pong(ms(100), None, at(0));
        assert_eq!(quality.jitter(), ms(50));
        quality.note_pong(ms(140), Some(ms(100)), at(1));
        assert_eq!(quality.jitter(), Duration::from_micros(47_500));
    }

    #[test]
    fn what_happened_fades_and_outlives_a_reconnect_for_a_while() {
        let mut recent = RecentQuality::default();
        let peer = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            PeerId::from_bytes(id)
        };
        let bad = link(QUICK, 0, 50);
        let score = |quality: Quality, now| quality.score(QUICK, 0, None, at(now));
        recent.keep(peer(0), bad, at(10));
        assert_eq!(score(recent.take(&peer(0), at(60)), 60), score(bad, 60));
        assert!(score(bad, 60) < score(bad, 1300) && score(bad, 1300) < 70);
        assert_eq!(score(recent.take(&peer(0), at(60)), 60), 70, "taken");
        recent.keep(peer(0), bad, at(10));
        assert_eq!(score(recent.take(&peer(0), at(3700)), 3700), 70, "long ago");
        for n in 0..2000 {
            recent.keep(peer(n), bad, at(u64::from(n)));
        }
        assert_eq!(recent.len(), MAX_RECENT);
        assert!(recent.0.contains_key(&peer(1999)) && !recent.0.contains_key(&peer(0)));
    }

    #[test]
    fn what_comes_in_is_measured_while_much_does() {
        let ms = |ms| MonoTime::from_duration(Duration::from_millis(ms));
        let mut quality = Quality::default();
        (0..100).for_each(|n| quality.note_received(10_000, ms(1000 * n)));
        assert_eq!(quality.inflow(), None, "a frame now and then shows nothing");
        (0..100).for_each(|n| quality.note_received(10_000, ms(200_000 + 10 * n)));
        let rate = quality.inflow().unwrap();
        assert!((900_000..1_100_000).contains(&rate), "{rate}");
    }
}
