//! Rounds in which others are asked to dial this node, and what they found.
//!
//! ```text
//!              two were seen, or one and none failed
//!   waiting ─────────────────────────────────────────► proven ──15 min──► lapsed
//!     │  ▲                                                │                 │
//!     │  └──15 min── not reached ◄────none was seen and two failed, twice───┘
//!     └─none was seen, two failed──► not reached
//! ```
//!
//! A round asks up to [`HELPERS`] peers of distinct address groups about one address, and others than the
//! round before if there are. One that says "reached" counts for nothing: what counts is that a stranger
//! came to this node and said the nonce of the round, which nobody can pretend who was not let in. "Failed"
//! can be said by anybody, who may be one's helper and another one's dialler: so it takes two that have nobody
//! in common, helper or dialler, and nobody who was seen. They may come from rounds of 15 minutes: where most
//! peers are linked with each other, one round finds one stranger. Where the address was proven, it takes that
//! twice with no other answer between, for an outage may be short. A helper that does not say who dialled, as
//! peers of earlier versions do, counts for itself alone.
//!
//! Where others found nobody to dial, as in a network in which each is linked with each, one that was seen is
//! enough; and what was proven stays told, as lapsed, until it is denied.
//!
//! There is one round a minute at most; an answer is asked for anew after two thirds of its time, and where
//! none was found, a minute later, and ever later from the fourth time on.
//!
//! Tested by: the tests below, `protocol::tests::reachability`, `sim::tests::reachability`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::types::{DialBackOutcome, MonoTime, PeerId};

/// Number of peers that are asked in one round.
pub(super) const HELPERS: usize = 3;
/// Number of strangers that prove an address, whoever says that it failed.
const QUORUM: usize = 2;
/// Time for which an answer counts.
const COUNTS_FOR: Duration = Duration::from_mins(15);
/// Time after which it is asked for anew.
const ASK_AGAIN_AFTER: Duration = Duration::from_mins(10);
/// Time between two rounds: a little more than the minute in which a peer helps once.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(65);
/// Time that a round takes at most.
pub(super) const ROUND: Duration = Duration::from_secs(15);
/// Time for which a new candidate waits for more peers that could be asked.
const SETTLE: Duration = Duration::from_secs(5);
/// Number of rounds in vain after which the next ones are ever later.
const PATIENCE: u32 = 3;
/// Maximum number of failures that are remembered of an address.
const MAX_FAILURES: usize = 4 * HELPERS;

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Waiting,
    /// Others can dial it.
    Proven,
    /// It was proven once, and nobody could be asked since.
    Lapsed,
    /// Others cannot dial it.
    NotReached,
}

/// Address of this node, and what others found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// End of the verdict.
    pub(super) until: MonoTime,
    /// Earliest time of the next round.
    again: MonoTime,
    /// Time when it became a candidate.
    since: MonoTime,
    /// Number of rounds in a row that found nothing out.
    pub(super) tries: u32,
    /// True: the last round that found something out denied what an earlier one proved.
    is_doubted: bool,
    /// Those who failed since the latest verdict, or since somebody was seen, and when; the latest last.
    failures: VecDeque<(Parties, MonoTime)>,
}

/// Who had a part in a dial-back, as far as is known.
#[derive(Debug, Clone, Copy)]
struct Parties {
    helper: PeerId,
    dialler: Option<PeerId>,
}

impl Parties {
    fn involves(&self, peer: PeerId) -> bool {
        self.helper == peer || self.dialler == Some(peer)
    }

    /// Reports whether nobody had a part in both.
    fn is_apart(&self, other: &Self) -> bool {
        !other.involves(self.helper) && self.dialler.is_none_or(|dialler| !other.involves(dialler))
    }
}

/// A peer that was asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The peer itself, and who dialled, as it says.
    parties: Parties,
    nonce: u64,
    /// True: somebody came and said the nonce.
    is_seen: bool,
    outcome: Option<DialBackOutcome>,
}

impl Asked {
    fn is_open(&self) -> bool {
        !self.is_seen && self.outcome.is_none()
    }

    fn has_failed(&self) -> bool {
        !self.is_seen && self.outcome == Some(DialBackOutcome::Failed)
    }
}

#[derive(Debug)]
struct Round {
    address: SocketAddr,
    until: MonoTime,
    asked: Vec<Asked>,
    is_over: bool,
}

#[derive(Debug, Default)]
pub(in crate::protocol) struct Asking {
    findings: BTreeMap<SocketAddr, Finding>,
    /// The latest round; its nonces are known until the next one.
    round: Option<Round>,
    next_round: MonoTime,
}

impl Asking {
    /// Keeps what is known of these addresses, and of no others; ends what is too old.
    pub(super) fn keep(&mut self, addresses: &[SocketAddr], now: MonoTime) {
        self.findings.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.findings.entry(*address).or_insert(Finding {
                verdict: Verdict::Waiting,
                until: now,
                again: now,
                since: now,
                tries: 0,
                is_doubted: false,
                failures: VecDeque::new(),
            });
        }
        for finding in self.findings.values_mut().filter(|finding| finding.until <= now) {
            finding.verdict = match finding.verdict {
                Verdict::Proven | Verdict::Lapsed => Verdict::Lapsed,
                Verdict::NotReached | Verdict::Waiting => Verdict::Waiting,
            };
        }
    }

    pub(super) fn finding(&self, address: SocketAddr) -> Option<&Finding> {
        self.findings.get(&address)
    }

    /// Reports whether a round about this address is under way.
    pub(super) fn is_asking(&self, address: SocketAddr) -> bool {
        self.round.as_ref().is_some_and(|round| !round.is_over && round.address == address)
    }

    /// Returns the address to ask about now, of `addresses` in their order; `helpers` is how many could be
    /// asked about one.
    pub(super) fn due(
        &self,
        addresses: &[SocketAddr],
        helpers: impl Fn(SocketAddr) -> usize,
        now: MonoTime,
    ) -> Option<SocketAddr> {
        if now < self.next_round || self.round.as_ref().is_some_and(|round| !round.is_over) {
            return None;
        }
        let is_due = |address: &&SocketAddr| {
            self.findings.get(*address).is_some_and(|finding| {
                let helpers = helpers(**address);
                let has_waited = finding.tries > 0 || now >= finding.since + SETTLE;
                finding.again <= now && helpers > 0 && (helpers >= HELPERS || has_waited)
            })
        };
        // Those that nobody was asked about yet have one turn, in the order of `addresses`: a mapping that is
        // named a moment later than the port goes before it.
        let new = self.findings.values().filter(|f| f.is_new()).map(|f| f.since).min();
        let turn = |address: &&SocketAddr| {
            let finding = self.findings.get(*address)?;
            if finding.is_new() { new } else { Some(finding.again) }
        };
        addresses.iter().filter(is_due).min_by_key(turn).copied()
    }

    /// Reports whether a peer was asked in the latest round.
    pub(super) fn was_asked(&self, helper: &PeerId) -> bool {
        self.round
            .iter()
            .flat_map(|round| &round.asked)
            .any(|asked| asked.parties.helper == *helper)
    }

    /// Begins a round: these peers are asked, each with a nonce of its own.
    pub(super) fn begin(
        &mut self,
        address: SocketAddr,
        helpers: impl Iterator<Item = (PeerId, u64)>,
        now: MonoTime,
    ) {
        let asked = |(helper, nonce)| {
            let parties = Parties { helper, dialler: None };
            Asked { parties, nonce, is_seen: false, outcome: None }
        };
        let asked = helpers.map(asked).collect();
        self.next_round = now + ASK_EVERY;
        self.round = Some(Round { address, until: now + ROUND, asked, is_over: false });
    }

    /// Reports whether a nonce is one of the latest round.
    pub(super) fn is_asked(&self, nonce: u64) -> bool {
        let mut asked = self.round.iter().flat_map(|round| &round.asked);
        nonce != 0 && asked.any(|asked| asked.nonce == nonce)
    }

    /// A stranger has come and said the nonce.
    pub(super) fn note_seen(&mut self, nonce: u64) {
        let asked = self.round.iter_mut().flat_map(|round| &mut round.asked);
        asked.filter(|asked| asked.nonce == nonce).for_each(|asked| asked.is_seen = true);
    }

    /// A peer answers, and says who dialled; `false` where it was not asked that, or has answered.
    pub(super) fn note_answer(
        &mut self,
        helper: &PeerId,
        nonce: u64,
        outcome: DialBackOutcome,
        dialler: Option<PeerId>,
    ) -> bool {
        let mut asked = self.round.iter_mut().flat_map(|round| &mut round.asked);
        let is_it = |a: &&mut Asked| a.parties.helper == *helper && a.nonce == nonce;
        let Some(asked) = asked.find(|a| is_it(a) && a.outcome.is_none()) else { return false };
        (asked.outcome, asked.parties.dialler) = (Some(outcome), dialler);
        true
    }

    /// The link with a peer has ended: there will be no answer.
    pub(super) fn note_gone(&mut self, helper: &PeerId) {
        let asked = self.round.iter_mut().flat_map(|round| &mut round.asked);
        for asked in asked.filter(|asked| asked.parties.helper == *helper && asked.is_open()) {
            asked.outcome = Some(DialBackOutcome::Refused);
        }
    }

    /// Ends the round if it is decided, or if its time is over; returns its address, what came of it, and the
    /// number of those asked who have nothing to say.
    pub(super) fn end_round(&mut self, now: MonoTime) -> Option<(SocketAddr, Verdict, usize)> {
        let round = self.round.as_mut().filter(|round| !round.is_over)?;
        let count = |is: fn(&Asked) -> bool| round.asked.iter().filter(|asked| is(asked)).count();
        let (seen, failed) = (count(|a| a.is_seen), count(Asked::has_failed));
        let has_time = now < round.until && count(Asked::is_open) > 0;
        if seen < QUORUM && has_time {
            return None;
        }
        round.is_over = true;
        let (address, silent) = (round.address, round.asked.len() - seen - failed);
        let failures = round.asked.iter().filter(|asked| asked.has_failed());
        let finding = self.findings.get_mut(&address);
        let is_denied = finding.is_some_and(|finding| {
            finding.is_denied(seen > 0, failures.map(|asked| asked.parties), now)
        });
        let verdict = if seen >= QUORUM || (seen > 0 && failed == 0) {
            Verdict::Proven
        } else if is_denied {
            Verdict::NotReached
        } else {
            Verdict::Waiting
        };
        if let Some(finding) = self.findings.get_mut(&address) {
            finding.take(verdict, now);
        }
        Some((address, verdict, silent))
    }

    /// Returns the next time at which something is due, whoever is there to be asked.
    pub(super) fn next(&self, now: MonoTime) -> Option<MonoTime> {
        let round = self.round.as_ref().filter(|round| !round.is_over).map(|round| round.until);
        let asks = self.findings.values().map(|finding| {
            let settled = if finding.tries == 0 { finding.since + SETTLE } else { finding.again };
            finding.again.max(settled).max(self.next_round)
        });
        let ends = self.findings.values().map(|finding| finding.until);
        round.into_iter().chain(asks).chain(ends).filter(|at| *at > now).min()
    }

    /// Number of addresses of which something is known.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.findings.len()
    }
}

impl Finding {
    /// Reports whether nobody was asked about it yet.
    fn is_new(&self) -> bool {
        self.again == self.since
    }

    /// Takes who failed in a round; reports whether two of late have who cannot be one liar.
    fn is_denied(
        &mut self,
        was_seen: bool,
        failures: impl Iterator<Item = Parties>,
        now: MonoTime,
    ) -> bool {
        if was_seen {
            self.failures.clear();
            return false;
        }
        self.failures.retain(|(_, at)| now.since(*at) < COUNTS_FOR);
        self.failures.extend(failures.map(|parties| (parties, now)));
        while self.failures.len() > MAX_FAILURES {
            self.failures.pop_front();
        }
        let parties = || self.failures.iter().map(|(parties, _)| parties);
        parties().any(|one| parties().any(|other| one.is_apart(other)))
    }

    /// Takes what a round has found.
    fn take(&mut self, verdict: Verdict, now: MonoTime) {
        let was_proven = matches!(self.verdict, Verdict::Proven | Verdict::Lapsed);
        if verdict == Verdict::Waiting {
            self.tries = self.tries.saturating_add(1);
            let doublings = self.tries.saturating_sub(PATIENCE).min(8);
            self.again = now + (ASK_EVERY * (1 << doublings)).min(ASK_AGAIN_AFTER);
        } else if verdict == Verdict::NotReached && was_proven && !self.is_doubted {
            self.is_doubted = true;
            self.again = now + ASK_EVERY;
        } else {
            (self.verdict, self.tries, self.is_doubted) = (verdict, 0, false);
            (self.until, self.again) = (now + COUNTS_FOR, now + ASK_AGAIN_AFTER);
        }
        if verdict != Verdict::Waiting {
            self.failures.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DialBackOutcome as O;

    const HERE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);

    /// Nonces that were seen, answers, and what comes of it.
    type Case<'a> = (&'a [u64], &'a [(u8, O)], Option<Verdict>);
    /// Helper and dialler of a failure.
    type Pair = (u8, Option<u8>);

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_duration(Duration::from_secs(seconds))
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn begun(asking: &mut Asking, helpers: u8, now: MonoTime) {
        asking.keep(&[HERE], now);
        assert_eq!(asking.due(&[HERE], |_| usize::from(helpers), now), Some(HERE));
        asking.begin(HERE, (1..=helpers).map(|n| (peer(n), u64::from(n))), now);
    }

    #[test]
    fn two_of_three_decide_and_a_word_alone_proves_nothing() {
        let cases: [Case<'_>; 10] = [
            (&[1, 2], &[], Some(Verdict::Proven)),
            (&[1], &[(2, O::Reached), (3, O::Reached)], Some(Verdict::Proven)),
            (&[], &[(1, O::Reached), (2, O::Reached), (3, O::Reached)], Some(Verdict::Waiting)),
            (&[], &[(1, O::Failed), (2, O::Failed), (3, O::Refused)], Some(Verdict::NotReached)),
            (&[1], &[(1, O::Failed), (2, O::Failed), (3, O::Refused)], Some(Verdict::Waiting)),
            (&[1, 2], &[(3, O::Failed)], Some(Verdict::Proven)),
            (&[], &[(1, O::Failed), (2, O::Refused), (3, O::Refused)], Some(Verdict::Waiting)),
            (&[1], &[(2, O::Refused), (3, O::Refused)], Some(Verdict::Proven)),
            (&[], &[(1, O::Failed), (2, O::Failed)], None),
            (&[1], &[], None),
        ];
        for (seen, answers, expected) in cases {
            let mut asking = Asking::default();
            begun(&mut asking, 3, at(0));
            for nonce in seen {
                asking.note_seen(*nonce);
            }
            for (n, outcome) in answers {
                assert!(asking.note_answer(&peer(*n), u64::from(*n), *outcome, None));
            }
            let ended = asking.end_round(at(1)).map(|(_, verdict, _)| verdict);
            assert_eq!(ended, expected, "{seen:?} {answers:?}");
        }
    }

    #[test]
    fn two_failures_count_if_no_liar_can_have_had_a_part_in_both() {
        let cases: [(&[Pair], Verdict); 7] = [
            (&[(1, Some(11)), (2, Some(12))], Verdict::NotReached),
            (&[(1, Some(2)), (2, Some(12))], Verdict::Waiting),
            (&[(1, Some(11)), (2, Some(1))], Verdict::Waiting),
            (&[(1, Some(11)), (2, Some(11))], Verdict::Waiting),
            (&[(1, None), (2, Some(1))], Verdict::Waiting),
            (&[(1, None), (2, Some(12))], Verdict::NotReached),
            (&[(1, Some(2)), (2, Some(12)), (3, Some(13))], Verdict::NotReached),
        ];
        for (failed, expected) in cases {
            let mut asking = Asking::default();
            begun(&mut asking, 3, at(0));
            for (n, dialler) in failed {
                let dialler = dialler.map(peer);
                assert!(asking.note_answer(&peer(*n), u64::from(*n), O::Failed, dialler));
            }
            asking.note_gone(&peer(3));
            let ended = asking.end_round(at(1)).map(|(_, verdict, _)| verdict);
            assert_eq!(ended, Some(expected), "{failed:?}");
        }
    }

    #[test]
    fn answers_count_once_and_only_of_who_was_asked() {
        let mut asking = Asking::default();
        begun(&mut asking, 3, at(0));
        assert!(!asking.note_answer(&peer(1), 2, O::Failed, None), "the nonce of another");
        assert!(!asking.note_answer(&peer(9), 1, O::Failed, None));
        assert!(asking.note_answer(&peer(1), 1, O::Failed, None));
        assert!(!asking.note_answer(&peer(1), 1, O::Failed, None));
        assert!(asking.is_asked(3) && !asking.is_asked(0) && !asking.is_asked(4));
        asking.note_gone(&peer(2));
        asking.note_gone(&peer(3));
        assert_eq!(asking.end_round(at(1)), Some((HERE, Verdict::Waiting, 2)));
        assert_eq!(asking.end_round(at(1)), None);
    }

    #[test]
    fn a_proof_is_renewed_lapses_and_is_denied() {
        let mut asking = Asking::default();
        begun(&mut asking, 3, at(0));
        (1..=2).for_each(|nonce| asking.note_seen(nonce));
        assert_eq!(asking.end_round(at(1)), Some((HERE, Verdict::Proven, 1)));
        let verdict = |asking: &mut Asking, now| {
            asking.keep(&[HERE], now);
            asking.finding(HERE).unwrap().verdict
        };
        assert_eq!(asking.due(&[HERE], |_| 3, at(600)), None);
        assert_eq!(asking.due(&[HERE], |_| 3, at(601)), Some(HERE));
        assert_eq!(verdict(&mut asking, at(900)), Verdict::Proven);
        assert_eq!(verdict(&mut asking, at(901)), Verdict::Lapsed);
        begun(&mut asking, 3, at(1000));
        assert_eq!(asking.end_round(at(1014)), None);
        assert_eq!(asking.end_round(at(1015)), Some((HERE, Verdict::Waiting, 3)));
        assert_eq!(verdict(&mut asking, at(1015)), Verdict::Lapsed, "nobody denies it");
        for (now, expected) in [(1100, Verdict::Lapsed), (1200, Verdict::NotReached)] {
            begun(&mut asking, 2, at(now));
            for n in 1..=2 {
                assert!(asking.note_answer(&peer(n), u64::from(n), O::Failed, None));
            }
            assert_eq!(asking.end_round(at(now + 1)), Some((HERE, Verdict::NotReached, 0)));
            assert_eq!(verdict(&mut asking, at(now + 2)), expected);
        }
        assert_eq!(verdict(&mut asking, at(1201 + 900)), Verdict::Waiting);
        asking.keep(&[], at(2100));
        assert_eq!(asking.len(), 0);
    }

    #[test]
    fn rounds_in_vain_become_rare_and_the_first_waits_a_little_for_company() {
        let mut asking = Asking::default();
        asking.keep(&[HERE], at(0));
        assert_eq!(asking.due(&[HERE], |_| 2, at(4)), None);
        assert_eq!(asking.due(&[HERE], |_| 0, at(5)), None);
        let (mut now, mut rounds) = (5, Vec::new());
        while now < 7200 {
            asking.keep(&[HERE], at(now));
            if asking.due(&[HERE], |_| 2, at(now)).is_some() {
                rounds.push(now);
                asking.begin(HERE, [(peer(1), 1)].into_iter(), at(now));
                asking.note_gone(&peer(1));
                assert!(asking.end_round(at(now)).is_some());
            }
            now += 1;
        }
        let pauses: Vec<_> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(rounds[0], 5);
        assert_eq!(pauses[..6], [65, 65, 65, 130, 260, 520]);
        assert!(pauses[6..].iter().all(|pause| *pause == 600), "{pauses:?}");
    }

    #[test]
    fn failures_of_rounds_near_each_other_count_together_until_somebody_is_seen() {
        let round = |asking: &mut Asking, from: u64, seen: bool, dialler: u8| {
            begun(asking, 3, at(from));
            if seen {
                asking.note_seen(2);
            }
            assert!(asking.note_answer(&peer(1), 1, O::Failed, Some(peer(dialler))));
            asking.end_round(at(from + 15)).map(|(_, verdict, _)| verdict)
        };
        // The helper is the same, so another one stands for it in the second round.
        let other = |asking: &mut Asking, from: u64| {
            begun(asking, 3, at(from));
            assert!(asking.note_answer(&peer(3), 3, O::Failed, Some(peer(12))));
            asking.end_round(at(from + 15)).map(|(_, verdict, _)| verdict)
        };
        let mut asking = Asking::default();
        assert_eq!(round(&mut asking, 0, false, 11), Some(Verdict::Waiting));
        assert_eq!(round(&mut asking, 100, false, 12), Some(Verdict::Waiting), "of one helper");
        assert_eq!(other(&mut asking, 200), Some(Verdict::NotReached));
        let mut asking = Asking::default();
        assert_eq!(round(&mut asking, 0, false, 11), Some(Verdict::Waiting));
        assert_eq!(round(&mut asking, 100, true, 11), Some(Verdict::Waiting));
        assert_eq!(other(&mut asking, 200), Some(Verdict::Waiting), "one was seen between");
        let mut asking = Asking::default();
        assert_eq!(round(&mut asking, 0, false, 11), Some(Verdict::Waiting));
        assert_eq!(other(&mut asking, 15 + 900), Some(Verdict::Waiting), "too long ago");
    }
}
