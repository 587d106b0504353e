//! What a link keeps of the test that the host has asked for, and of the probes of its peer.
//!
//! ```text
//! pings, one after the other ──► pieces sent ──► pieces fetched ──► result
//!          └── none answered ──► timed out
//! ```
//!
//! Contract:
//! - One test runs on a link at a time, and the next starts `PAUSE` after it at the soonest.
//! - Each stage ends after `STAGE` at the latest, so a test ends, whatever the peer does.
//! - Probes carry nonces that the peer cannot guess: it can answer late, and never early.
//! - Answers with many bytes wait in a row of at most `MAX_OWED`.
//!
//! What is sent, and when, is in `lifecycle::probing`.
//!
//! Tested by: the tests below, `protocol::tests::probes`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::error::TestError;
use crate::protocol::io::CallId;
use crate::types::{MonoTime, PIECE_BYTES, PeerId, PeerTest, TransportKind};

/// Number of pings in a test.
const PINGS: u32 = 5;
/// Time after which a ping counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Number of pieces in each transfer: 256 KiB.
const PIECES: u32 = 4;
/// Maximum time for a transfer.
const STAGE: Duration = Duration::from_secs(10);
/// Minimum time from one test of a link to the next: the peer answers no more.
const PAUSE: Duration = Duration::from_secs(10);
/// Maximum number of answers with many bytes that wait for room on a link.
pub(in crate::protocol) const MAX_OWED: usize = 8;
/// Share of the time of a piece that is the way there and back at the most: all but one in so many.
const LEAST_SHARE: u32 = 16;

/// State of tests and probes of one link.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Probing {
    pub(in crate::protocol) test: Option<Box<Test>>,
    /// Time when the latest test began.
    pub(in crate::protocol) tested: Option<MonoTime>,
    /// Answers that wait for room: the nonce, the bytes received, and the bytes wanted.
    pub(in crate::protocol) owed: VecDeque<(u64, u32, u32)>,
}

impl Probing {
    /// Reports whether a test may begin.
    pub(in crate::protocol) fn may_begin(&self, now: MonoTime) -> bool {
        self.test.is_none() && self.tested.is_none_or(|at| now.since(at) >= PAUSE)
    }
}

/// Stage of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pings,
    Sending,
    Fetching,
    Done,
}

/// Probe to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) struct NextProbe {
    /// Number of bytes that it carries.
    pub(in crate::protocol) bytes: usize,
    /// Number of bytes that the answer is to carry.
    pub(in crate::protocol) wants: usize,
}

/// Test of a link under way.
#[derive(Debug)]
pub(in crate::protocol) struct Test {
    pub(in crate::protocol) call: CallId,
    stage: Stage,
    /// Number of probes of the stage that are still to be sent.
    left: u32,
    /// Probes that are not answered, and when each was sent.
    out: BTreeMap<u64, MonoTime>,
    /// Time when the stage, or the wait for a ping, is over.
    until: MonoTime,
    rtts: Vec<Duration>,
    lost: u32,
    /// Bytes of the stage that have arrived.
    bytes: u64,
    /// Bytes per second each way: the best that a piece has shown.
    sent_rate: u64,
    fetched_rate: u64,
}

impl Test {
    pub(in crate::protocol) fn new(call: CallId, now: MonoTime) -> Self {
        Self {
            call,
            stage: Stage::Pings,
            left: PINGS,
            out: BTreeMap::new(),
            until: now + LOST_AFTER,
            rtts: Vec::new(),
            lost: 0,
            bytes: 0,
            sent_rate: 0,
            fetched_rate: 0,
        }
    }

    /// Returns the time at which the test goes on without an answer.
    pub(in crate::protocol) fn until(&self) -> MonoTime {
        self.until
    }

    /// Returns the probe that is to be sent next; `None` when an answer is to be waited for.
    pub(in crate::protocol) fn next(&self) -> Option<NextProbe> {
        let (bytes, wants) = match self.stage {
            // One after the other, so that none waits for another.
            Stage::Pings if !self.out.is_empty() => return None,
            Stage::Pings => (0, 0),
            Stage::Sending => (PIECE_BYTES, 0),
            Stage::Fetching => (0, PIECE_BYTES),
            Stage::Done => return None,
        };
        (self.left > 0).then_some(NextProbe { bytes, wants })
    }

    /// Notes that the next probe leaves.
    pub(in crate::protocol) fn note_sent(&mut self, nonce: u64, now: MonoTime) {
        self.left = self.left.saturating_sub(1);
        self.out.insert(nonce, now);
        if self.stage == Stage::Pings {
            self.until = now + LOST_AFTER;
        }
    }

    /// Takes an answer; `false` when it answers nothing.
    pub(in crate::protocol) fn on_probed(
        &mut self,
        nonce: u64,
        received: u32,
        fetched: usize,
        now: MonoTime,
    ) -> bool {
        let carried = match self.stage {
            Stage::Pings | Stage::Done => 0,
            Stage::Sending => u64::from(received),
            Stage::Fetching => fetched as u64,
        };
        let due = if self.stage == Stage::Pings { 0 } else { PIECE_BYTES as u64 };
        let Some(sent) = (carried == due).then(|| self.out.remove(&nonce)).flatten() else {
            return false;
        };
        let took = now.since(sent);
        self.bytes += carried;
        match self.stage {
            Stage::Pings | Stage::Done => self.rtts.push(took),
            Stage::Sending => self.sent_rate = self.sent_rate.max(self.rate(carried, took)),
            // All were asked for at once, so each has brought those before it too.
            Stage::Fetching => {
                self.fetched_rate = self.fetched_rate.max(self.rate(self.bytes, took));
            }
        }
        self.advance(now);
        true
    }

    /// Goes on where an answer is overdue.
    pub(in crate::protocol) fn on_due(&mut self, now: MonoTime) {
        if now < self.until {
            return;
        }
        if self.stage == Stage::Pings {
            self.lost += u32::from(!self.out.is_empty());
        } else {
            self.left = 0;
        }
        self.out.clear();
        self.until = now + LOST_AFTER;
        self.advance(now);
    }

    fn advance(&mut self, now: MonoTime) {
        if self.left > 0 || !self.out.is_empty() {
            return;
        }
        self.stage = match self.stage {
            // Who answers no ping is asked for nothing more.
            Stage::Pings if self.rtts.is_empty() => Stage::Done,
            Stage::Pings => Stage::Sending,
            Stage::Sending => Stage::Fetching,
            Stage::Fetching | Stage::Done => Stage::Done,
        };
        (self.left, self.bytes, self.until) = (PIECES, 0, now + STAGE);
    }

    /// Returns the bytes per second of so many, of which the way there and back took a part.
    fn rate(&self, bytes: u64, took: Duration) -> u64 {
        let way = self.rtts.iter().min().copied().unwrap_or_default();
        let span = took.saturating_sub(way).max(took / LEAST_SHARE);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        bytes.saturating_mul(1_000_000) / micros
    }

    /// Returns what the test has found, once it is through.
    pub(in crate::protocol) fn result(
        &self,
        peer: PeerId,
        transport: TransportKind,
    ) -> Option<Result<PeerTest, TestError>> {
        if self.stage != Stage::Done {
            return None;
        }
        let (Some(least), Some(most)) = (self.rtts.iter().min(), self.rtts.iter().max()) else {
            return Some(Err(TestError::TimedOut));
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mean = |sum: Duration, n: usize| micros(sum / count(n).max(1));
        let steps = self.rtts.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        Some(Ok(PeerTest {
            peer,
            transport,
            rtt_min_us: micros(*least),
            rtt_avg_us: mean(self.rtts.iter().sum(), self.rtts.len()),
            rtt_max_us: micros(*most),
            jitter_us: mean(steps.sum(), self.rtts.len() - 1),
            sent: PINGS,
            lost: self.lost,
            bytes_per_second: self.sent_rate,
            incoming_bytes_per_second: self.fetched_rate,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_millis(ms))
    }

    fn result(test: &Test) -> Option<Result<PeerTest, TestError>> {
        test.result(PeerId::from_bytes([1; 32]), TransportKind::Memory)
    }

    /// Answers all pings, each after 100 ms; returns the time then.
    fn pinged(test: &mut Test) -> u64 {
        for n in 0..5 {
            let next = NextProbe { bytes: 0, wants: 0 };
            assert_eq!(test.next(), Some(next));
            test.note_sent(n, at(100 * n));
            assert_eq!(test.next(), None, "one after the other");
            assert!(test.on_probed(n, 0, 0, at(100 * n + 100)));
            assert!(!test.on_probed(n, 0, 0, at(100 * n + 100)), "once");
        }
        500
    }

    #[test]
    fn a_test_goes_through_its_stages_and_ends() {
        let mut test = Test::new(CallId(1), at(0));
        let mut now = pinged(&mut test);
        for n in 10..14 {
            assert_eq!(test.next(), Some(NextProbe { bytes: PIECE_BYTES, wants: 0 }));
            test.note_sent(n, at(now));
            assert!(!test.on_probed(n, 1, 0, at(now)), "that is not what was sent");
            now += 200;
            // 64 KiB in 200 ms, of which 100 are the way.
            assert!(test.on_probed(n, 65_536, 0, at(now)));
        }
        for n in 20..24 {
            assert_eq!(test.next(), Some(NextProbe { bytes: 0, wants: PIECE_BYTES }));
            test.note_sent(n, at(now));
        }
        assert!(result(&test).is_none());
        for n in 20..24 {
            now += if n == 20 { 150 } else { 50 };
            assert!(test.on_probed(n, 0, PIECE_BYTES, at(now)));
        }
        let found = result(&test).unwrap().unwrap();
        assert_eq!((found.rtt_min_us, found.rtt_avg_us, found.jitter_us), (100_000, 100_000, 0));
        assert_eq!((found.sent, found.lost), (5, 0));
        assert_eq!(found.bytes_per_second, 655_360);
        assert_eq!(found.incoming_bytes_per_second, 1_310_720);
        assert_eq!(test.next(), None);
        assert!(!test.on_probed(24, 0, 0, at(now)));
    }

    #[test]
    fn who_answers_nothing_ends_it_and_who_stalls_has_no_rate() {
        let mut silent = Test::new(CallId(1), at(0));
        for n in 0..5 {
            assert!(silent.next().is_some());
            silent.note_sent(n, at(2000 * n));
            silent.on_due(at(2000 * n + 1999));
            assert!(silent.next().is_none(), "not yet");
            silent.on_due(at(2000 * n + 2000));
        }
        assert!(matches!(result(&silent), Some(Err(TestError::TimedOut))));
        let mut stalling = Test::new(CallId(1), at(0));
        pinged(&mut stalling);
        stalling.note_sent(10, at(500));
        stalling.on_due(at(10_500));
        assert_eq!(stalling.next(), Some(NextProbe { bytes: 0, wants: PIECE_BYTES }));
        stalling.on_due(at(20_500));
        let found = result(&stalling).unwrap().unwrap();
        assert_eq!((found.bytes_per_second, found.incoming_bytes_per_second), (0, 0));
    }
}
