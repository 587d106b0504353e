//! Two protocols, or one and a liar, joined by nothing but this file: what they say is looked at
//! message by message.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::protocol::Judgement;
use crate::testing::cases::for_all;
use crate::types::{
    Bound, LinkId, Message, Range, RangeContent, Reconcile, Transaction, TransactionId, Verdict,
    WallTime,
};

use super::single_node::{START, SingleNode, transaction};
use super::*;

const LINK: LinkId = LinkId(1);

struct Pair {
    nodes: [SingleNode; 2],
    now: Duration,
    /// Reconciliation messages and their bytes, from each side.
    reconcile_bytes: [Vec<usize>; 2],
}

impl Pair {
    fn new(configs: [&Config; 2], held: [Vec<Transaction>; 2]) -> Self {
        let [a, b] = held;
        let mut nodes = [SingleNode::new(1, configs[0], a), SingleNode::new(2, configs[1], b)];
        nodes[0].link_up(Duration::ZERO, LINK, true, 2);
        nodes[1].link_up(Duration::ZERO, LINK, false, 1);
        Self { nodes, now: Duration::ZERO, reconcile_bytes: [Vec::new(), Vec::new()] }
    }

    /// Runs for a while; every message takes 5 ms.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            for side in [0, 1] {
                let messages = std::mem::take(&mut self.nodes[side].sent);
                for (_, message) in messages {
                    if matches!(message, Message::Ask(_) | Message::Answer(_)) {
                        self.reconcile_bytes[side].push(message.weight());
                    }
                    self.nodes[1 - side].hear(self.now, LINK, vec![message]);
                }
            }
            let quiet = self.nodes.iter().all(|n| n.sent.is_empty());
            let next = self.nodes.iter().filter_map(|n| n.protocol.poll_timeout()).min();
            let next = next.map_or(end, |at| at.as_duration().max(self.now + millis(5)));
            self.now = if quiet { next.min(end) } else { self.now + millis(5) };
            for node in &mut self.nodes {
                node.wake(self.now);
            }
        }
    }

    fn count(&self, side: usize) -> crate::types::Counters {
        self.nodes[side].protocol.counters().clone()
    }
}

/// Transactions `from..to`, their times of creation drawn from few or many milliseconds.
fn some(from: u32, to: u32, spread: u64) -> Vec<Transaction> {
    (from..to)
        .map(|n| transaction(n, 5000 + u64::from(n.wrapping_mul(2_654_435_761)) % spread))
        .collect()
}

/// Whatever two nodes hold, both end with the union of what both retain, and nothing that was there
/// is fetched or announced.
#[test]
fn reconciliation_ends_with_exactly_the_difference() {
    for_all(24, |random| {
        let mut count = |most: [u32; 3]| {
            let most = random.pick(&most);
            random.within::<u32>(0..u64::from(most) + 1)
        };
        let (common, only_a, only_b) =
            (count([0, 39, 1499]), count([0, 3, 299]), count([0, 3, 2999]));
        let spread = random.pick(&[1, 50, 2_000_000]);
        // What is older than the shorter retention is no concern of either.
        let retention_b = random.pick(&[3600, 600]);
        let (mut config_a, mut config_b) = (Config::lan(), Config::lan());
        config_a.gossip.retention = secs(3600);
        config_b.gossip.retention = secs(retention_b);
        let a_end = common + only_a;
        let b_end = a_end + only_b;
        let old = u64::try_from(secs(retention_b - 20).as_millis()).unwrap();
        let fresh = |t: &Transaction| START - t.header().created.as_millis() < old;
        // Nor what is going within seconds, about which they may differ.
        let some = |from, to| {
            let mut some = some(from, to, spread);
            some.retain(|t| {
                !(560_000..610_000).contains(&(START - t.header().created.as_millis()))
            });
            some
        };
        let both = some(0, common);
        let (of_a, of_b) = (some(common, a_end), some(a_end, b_end));
        let of_b: Vec<_> = of_b.into_iter().filter(fresh).collect();
        let both_b: Vec<_> = both.iter().filter(|t| fresh(t)).cloned().collect();
        let to_b: BTreeSet<_> = of_a.iter().filter(|t| fresh(t)).map(Transaction::id).collect();
        let to_a: BTreeSet<_> = of_b.iter().map(Transaction::id).collect();
        let held = [[both, of_a].concat(), [both_b, of_b].concat()];
        let mut pair = Pair::new([&config_a, &config_b], held);
        pair.run(secs(8));
        for (node, lacked) in [(0, &to_a), (1, &to_b)] {
            let c = pair.count(node);
            assert!(lacked.iter().all(|id| pair.nodes[node].protocol.contains(id)));
            assert_eq!(pair.nodes[node].judged, lacked.len() as u64);
            assert_eq!(c.payloads_received, lacked.len() as u64);
            assert_eq!((c.refused_expired, c.links_closed, c.reconcile_failed), (0, 0, 0));
        }
        assert!(pair.nodes[0].announced.is_subset(&to_b));
        assert!(pair.nodes[1].announced.is_subset(&to_a));
    });
}

#[test]
fn tens_of_thousands_of_missing_ids_flow_in_pages_at_their_own_price() {
    let config = Config::lan();
    let count = 30_000;
    let mut pair = Pair::new([&config, &config], [Vec::new(), some(0, count, 1_000_000)]);
    pair.run(secs(60));
    let c = pair.count(0);
    assert_eq!(pair.nodes[0].protocol.stats().retained, u64::from(count));
    let bytes: usize = pair.reconcile_bytes.iter().flatten().sum();
    println!("{} bytes an id, {} questions", bytes as f64 / f64::from(count), c.reconcile_rounds);
    assert!(bytes < 36 * count as usize, "{bytes}");
    assert!(pair.reconcile_bytes[1].iter().all(|bytes| *bytes < 64_000));
    assert_eq!(c.wants_sent, u64::from(count));
}

#[test]
fn who_has_much_more_does_not_announce_it_but_has_it_asked_for() {
    let config = Config::lan();
    let mut pair = Pair::new([&config, &config], [some(0, 5000, 1_000_000), some(5000, 5500, 1)]);
    pair.run(secs(10));
    assert_eq!(pair.nodes[1].protocol.stats().retained, 5500);
    assert_eq!(pair.nodes[0].protocol.stats().retained, 5500);
    let c = pair.count(0);
    assert!(c.announcements_sent <= 64, "{}", c.announcements_sent);
}

#[test]
fn scattered_differences_cost_what_the_study_says() {
    let config = Config::lan();
    let all = some(0, 60_000, 3_000_000);
    let without: Vec<_> = all.iter().skip(7).step_by(6_000).map(Transaction::id).collect();
    let most = all.iter().filter(|t| !without.contains(&t.id())).cloned().collect();
    let mut pair = Pair::new([&config, &config], [all, most]);
    pair.run(secs(5));
    let bytes: usize = pair.reconcile_bytes.iter().flatten().sum();
    println!("{bytes} bytes for {} scattered of 60,000", without.len());
    assert!(bytes < without.len() * 4000, "{bytes}");
    assert!(without.iter().all(|id| pair.nodes[1].protocol.contains(id)));
}

#[test]
fn what_the_validator_does_not_want_is_fetched_once() {
    let mut config = Config::lan();
    config.gossip.reconcile_interval = secs(1);
    config.gossip.reconcile_full_interval = secs(3);
    let mut pair = Pair::new([&config, &config], [some(0, 6000, 1_000_000), Vec::new()]);
    pair.nodes[1].verdict = |t| {
        Judgement::Verdict(if t.payload()[0].is_multiple_of(2) {
            Verdict::Ignore
        } else {
            Verdict::Accept
        })
    };
    pair.run(secs(10));
    assert_eq!(pair.nodes[1].judged, 6000);
    let (rounds, sent) =
        (pair.reconcile_bytes[0].len(), pair.reconcile_bytes.iter().flatten().sum::<usize>());
    pair.run(secs(60));
    assert_eq!(pair.nodes[1].judged, 6000, "fetched again");
    let later: usize = pair.reconcile_bytes.iter().flatten().sum::<usize>() - sent;
    assert!(pair.reconcile_bytes[0].len() > rounds + 10, "sessions go on");
    assert!(later < 20_000, "{later} bytes for sets that differ in nothing but taste");
}

/// View that a liar has of the node that it is linked to.
struct Liar {
    node: SingleNode,
    link: LinkId,
    now: Duration,
    bytes: usize,
}

impl Liar {
    fn new(held: Vec<Transaction>) -> Self {
        let mut node = SingleNode::new(1, &Config::lan(), held);
        let link = node.meet(Duration::ZERO, 2);
        Self { node, link, now: Duration::ZERO, bytes: 0 }
    }

    /// Answers every question by `lie` for a while; how many questions there were.
    fn run(&mut self, span: Duration, lie: impl Fn(&Reconcile) -> Vec<Range>) -> usize {
        let (end, mut questions) = (self.now + span, 0);
        while self.now < end {
            self.now += millis(10);
            for (_, message) in std::mem::take(&mut self.node.sent) {
                if let Message::Ask(ask) = message {
                    questions += 1;
                    let ranges = lie(&ask);
                    let answer = Reconcile { ranges, ..*ask };
                    self.bytes += ask.weight() + answer.weight();
                    self.hear(Message::Answer(Box::new(answer)));
                }
            }
            self.node.wake(self.now);
        }
        questions
    }

    fn hear(&mut self, message: Message) {
        self.node.hear(self.now, self.link, vec![message]);
    }

    fn count(&self) -> crate::types::Counters {
        self.node.protocol.counters().clone()
    }
}

/// Halves the first range that is not skipped, with prints that match nothing.
fn halves(ask: &Reconcile) -> Vec<Range> {
    let mut lower = ask.lower;
    let mut out = Vec::new();
    for range in &ask.ranges {
        let skip = |upper| Range { upper, content: RangeContent::Skip };
        if range.content == RangeContent::Skip {
            out.push(skip(range.upper));
        } else {
            let upper = range.upper.created.as_millis().min(START + 1_000_000);
            let middle = u64::midpoint(lower.created.as_millis(), upper);
            let middle = Bound::at(WallTime::from_millis(middle));
            for upper in [middle, range.upper] {
                if upper > out.last().map_or(ask.lower, |r: &Range| r.upper) {
                    out.push(Range { upper, content: RangeContent::Print([7; 16]) });
                }
            }
        }
        lower = range.upper;
    }
    out
}

#[test]
fn prints_that_never_match_and_endless_cuts_end() {
    let mut liar = Liar::new(some(0, 5000, 3_000_000));
    let questions = liar.run(secs(300), halves);
    let c = liar.count();
    println!("{questions} questions, {} bytes", liar.bytes);
    assert!(c.links_closed_violation == 1 || c.reconcile_failed > 0, "{c:?}");
    assert!(questions < 300 && liar.bytes < 3 << 20, "{questions} {}", liar.bytes);
}

#[test]
fn lists_of_what_does_not_exist_come_ever_more_rarely() {
    let mut liar = Liar::new(some(0, 10, 1000));
    let salt = std::cell::Cell::new(0u32);
    let fakes = |ask: &Reconcile| {
        let fake = |_| {
            salt.set(salt.get() + 1);
            let id = blake3::hash(&salt.get().to_le_bytes());
            (TransactionId::from_bytes(*id.as_bytes()), 100)
        };
        let content = RangeContent::All((0..1500).map(fake).collect());
        vec![Range { upper: ask.ranges[0].upper, content }]
    };
    let early = liar.run(secs(60), fakes);
    let bytes = liar.bytes;
    let late = liar.run(secs(600), fakes);
    println!("{early} questions in a minute, {late} in the next ten; {bytes} bytes");
    assert!(early > 0 && late < 60, "{early} {late}");
    assert!(liar.bytes < 4 << 20, "{}", liar.bytes);
    assert!(liar.node.protocol.stats().retained == 10);
}

#[test]
fn answers_that_do_not_fit_the_question_cost_the_link() {
    let lies: [fn(&Reconcile) -> Vec<Range>; 3] = [
        // Beyond what was asked.
        |ask| {
            let last = ask.ranges.last().unwrap().upper;
            let id = TransactionId::from_bytes([1; 32]);
            let upper = Bound { created: last.created, id };
            vec![Range { upper, content: RangeContent::Print([1; 16]) }]
        },
        // No cut at all.
        |ask| vec![Range { upper: ask.ranges[0].upper, content: RangeContent::Print([1; 16]) }],
        // The rest of what was not listed.
        |ask| vec![Range { upper: ask.ranges[0].upper, content: RangeContent::Rest(Vec::new()) }],
    ];
    for lie in lies {
        let mut liar = Liar::new(some(0, 100, 1000));
        liar.run(secs(2), lie);
        let c = liar.count();
        assert_eq!((c.links_closed_violation, c.reconcile_refused), (1, 1));
    }
    // Silence and refusal cost nothing but patience.
    let mut liar = Liar::new(some(0, 100, 1000));
    let questions = liar.run(secs(120), |_| Vec::new());
    assert!(liar.count().links_closed == 0 && questions < 20, "{questions}");
}

#[test]
fn lists_in_questions_are_heard_within_bounds() {
    // The liar asks; what it lists it does not have.
    let mut liar = Liar::new(Vec::new());
    liar.run(secs(1), |_| Vec::new());
    for n in 0..200u32 {
        let id = |at: u32| {
            let hash = blake3::hash(&(n * 2048 + at).to_le_bytes());
            (TransactionId::from_bytes(*hash.as_bytes()), 10)
        };
        let content = RangeContent::All((0..2048).map(id).collect());
        let ranges = vec![Range { upper: Bound::MAX, content }];
        let lower = Bound::at(WallTime::from_millis(START));
        let ask = Reconcile { session: 5, lower, ranges };
        liar.hear(Message::Ask(Box::new(ask)));
    }
    let c = liar.count();
    let stats = liar.node.protocol.stats();
    assert!(c.fetches_shed > 0 && c.reconcile_refused == 0, "{c:?}");
    assert_eq!(stats.fetching, 16_384, "a quarter of the table");
}
