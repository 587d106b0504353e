//! Anything at all is fed to one protocol: it never panics and stays within its bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::Identity;
use crate::config::{Config, Role};
use crate::error::StoreErrorKind;
use crate::protocol::{
    AnswerRefusal, Assurance, CallId, ConnectFailure, DialId, Input, Judgement, Output, Protocol,
    Restored, Ticket,
};
use crate::testing::cases::{Random, for_all};
use crate::types::{
    Announcement, Ban, Bound, CandidateDraft, CandidateSource, CloseReason, DialBackOutcome,
    FEATURES, FailureKind, Head, Header, Hello, Interest, LinkId, Message, MonoTime, NOWHERE,
    Offer, PeerId, PeerRecord, Piece, PieceRange, Proofs, Range, RangeContent, Reconcile,
    RecordDraft, Refusal, Reservation, ResponseStatus, Signature, Topic, TopicKey, Transaction,
    TransactionId, TransportKind, Verdict, WallTime,
};

use super::*;

const START: u64 = 1_700_000_000_000;

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// Transactions that several inputs speak of; unsigned, as nobody checks them here.
fn transaction(n: u8, large: bool) -> Transaction {
    let payload = vec![n; if large { 150_000 } else { 10 }];
    let wall = WallTime::from_millis(START);
    let origin = identity(n % 4).peer_id();
    let expires = wall.plus(secs(u64::from(n) * 20));
    let header = Header::new(topic(), origin, wall, expires, &payload);
    Transaction::new(header, Signature::None, payload.into()).unwrap()
}

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn id(n: u8) -> TransactionId {
    transaction(n % 16, n.is_multiple_of(5)).id()
}

fn record(n: u8) -> PeerRecord {
    identity(n % 8).sign_record(RecordDraft {
        peer: identity(n % 8).peer_id(),
        seq: u64::from(n / 8),
        issued: WallTime::from_millis(START),
        endpoints: vec![format!("10.{n}.0.1:1").parse().unwrap()],
    })
}

/// A clock that is about right, or at an end of its type, or not said.
fn clock(n: u8) -> Option<WallTime> {
    match n % 8 {
        0 => None,
        1 => Some(WallTime::from_millis(u64::MAX - u64::from(n))),
        2 => Some(WallTime::from_millis(u64::from(n))),
        3 => Some(WallTime::from_millis(START * u64::from(n))),
        _ => Some(WallTime::from_millis(START).plus(secs(u64::from(n)))),
    }
}

pub(in crate::protocol) fn hello(n: u8) -> Message {
    Message::Hello(Box::new(Hello {
        network: if n == 255 { "other" } else { "sorcha" }.to_owned(),
        version_min: 1,
        version_max: 1,
        features: FEATURES,
        incarnation: u64::from(n / 64),
        max_transaction: 1 << 20,
        record: record(n),
        observed: n.is_multiple_of(3).then(|| IpAddr::from([50, 9, 0, 1])),
        interest: Interest::default(),
        owes: n % 2 == 1,
        clock: clock(n),
        proofs: Vec::new(),
        dial_back: if n % 32 == 31 { u64::from(n) } else { 0 },
        complete_since: None,
        takes_over: false,
    }))
}

/// Event in small numbers, so that the same few things meet again and again.
#[derive(Debug, Clone, Copy)]
struct Step {
    kind: u8,
    a: u8,
    b: u8,
    pause_ms: u16,
}

fn message(step: Step) -> Message {
    let Step { kind, a, b, .. } = step;
    let large = b.is_multiple_of(5);
    match kind % 24 {
        0 | 1 => hello(b),
        2 => Message::Goodbye { reason: CloseReason::Shutdown, retry_after: secs(u64::from(b)) },
        3 => Message::Ping { nonce: u64::from(b) },
        4 => Message::Peers { records: (0..b % 8).map(record).collect(), relays: b.into() },
        5 | 6 => {
            let list = (0..b % 20).map(|n| n.wrapping_mul(a));
            let hop = u16::from(a % 3);
            Message::Announce(
                list.map(|n| Announcement { id: id(n), size: u64::from(n) << (a % 16), hop })
                    .collect(),
            )
        }
        7 if a < 100 => Message::Want(vec![id(b)]),
        7 => {
            let ranges = vec![PieceRange { first: u32::from(a % 4), count: u32::from(b % 4) }];
            let (head, force, narrow) = (a % 2 == 0, b % 2 == 0, a % 7 == 0);
            let place = 200 * u32::from(a % 3);
            Message::Reserve(Reservation { id: id(b), place, head, force, narrow, ranges })
        }
        8 => Message::Missing(vec![id(a), id(b)]),
        9 | 10 => Message::Push { transaction: transaction(b % 16, large), hop: u16::from(a) },
        11 => {
            let whole = transaction(b % 16, large);
            let index = u32::from(a % 4);
            let at = (usize::from(a % 4) * 65_536).min(whole.payload().len());
            let end = (at + 65_536).min(whole.payload().len());
            let (bytes, proof) = (whole.payload().slice(at..end), Bytes::new());
            Message::Piece(Piece { id: whole.id(), index, bytes, proof })
        }
        12 => Message::Duplicate(vec![id(b)]),
        13 => Message::Early(vec![id(b)]),
        14 => Message::Stored(vec![id(b)]),
        15 if a < 90 => Message::Busy(vec![id(b)]),
        15 if a < 200 => Message::Receiving { id: id(b), place: u32::from(a) },
        15 if a < 230 => Message::Flushed,
        15 if a < 240 => {
            let (payload, wants) = (Bytes::from(vec![0; usize::from(b)]), 300 * u32::from(a % 2));
            Message::Probe { nonce: u64::from(b % 4), payload, wants }
        }
        15 if a < 245 => {
            let payload = Bytes::from(vec![0; usize::from(b)]);
            Message::Probed { nonce: u64::from(b % 4), received: u32::from(b), payload }
        }
        15 => {
            let reasons =
                [Refusal::Skewed, Refusal::Rejected, Refusal::TooLarge, Refusal::Unwanted];
            let reason = reasons[usize::from(a % 4)];
            let list = (0..b % 3).map(|n| (id(b.wrapping_add(n)), reason)).collect();
            Message::Refused { list, clock: clock(a) }
        }
        16 if a < 128 => Message::Ask(Box::new(ranges(a, b))),
        16 => Message::Answer(Box::new(ranges(a, b))),
        17 => Message::Yours { lower: bound(a), upper: bound(b) },
        18 | 19 => Message::Interest(interest(a, b)),
        20 | 21 => talk(a, b),
        22 => dial_back(a, b),
        _ => {
            let head = Head::of(&transaction(b % 16, large));
            let (hop, complete) = (u16::from(a % 4), a % 3 == 0);
            let place = 100 * u32::from(hop);
            Message::Offer(Box::new(Offer { head, hop, place, complete }))
        }
    }
}

fn draft(n: u8) -> CandidateDraft {
    use CandidateSource as S;
    let source = [S::Interface, S::Stun, S::TcpMapping, S::Relay][usize::from(n % 4)];
    CandidateDraft {
        endpoint: format!("50.9.0.1:{}", 5000 + u16::from(n)).parse().unwrap(),
        source,
    }
}

/// What is said of a few dial-backs, in any order.
fn dial_back(a: u8, b: u8) -> Message {
    let (nonce, address) = (u64::from(b % 8), SocketAddr::from(([50, a % 9, 0, 1], 5001)));
    match a % 3 {
        0 => Message::DialBack { nonce, port: 1000 + u16::from(b) },
        1 => Message::DialBackTask { nonce, address, peer: identity(b % 9).peer_id() },
        _ => {
            let outcomes =
                [DialBackOutcome::Refused, DialBackOutcome::Reached, DialBackOutcome::Failed];
            let dialler = (b < 128).then(|| identity(a % 9).peer_id());
            Message::DialBackResult { nonce, outcome: outcomes[usize::from(b % 3)], dialler }
        }
    }
}

/// What is said of a few requests, in any order.
fn talk(a: u8, b: u8) -> Message {
    let (id, size) = (u64::from(a % 16), u64::from(b % 64) << (a % 20));
    let body =
        Bytes::from(vec![a; usize::try_from(size.min(70_000)).unwrap() / usize::from(1 + b % 3)]);
    match b % 5 {
        0 | 1 => {
            let protocol = if a.is_multiple_of(7) { "other" } else { "p" }.to_owned();
            Message::Request {
                id: u64::from(a),
                protocol,
                size,
                timeout_ms: 100 * u32::from(b),
                body,
                trace: None,
            }
        }
        2 => {
            let status = if a < 200 { ResponseStatus::Done } else { ResponseStatus::Refused };
            Message::Response { id, status, size, body, reason: "no".to_owned() }
        }
        3 => Message::BodyPart { id, of_answer: a.is_multiple_of(2), data: body },
        _ => Message::CancelRequest { id },
    }
}

fn interest(a: u8, b: u8) -> Interest {
    let topics = (0..u64::from(b % 40)).map(TopicKey).chain([TopicKey::of(&topic())]);
    let topics: BTreeSet<_> = topics.collect();
    Interest {
        depth: a % (NOWHERE + 1),
        makeshift: b.is_multiple_of(3),
        via: u64::from(b % 2),
        topics: (b > 20).then(|| topics.into_iter().collect()),
    }
}

fn bound(n: u8) -> Bound {
    match n {
        0..8 => Bound::MIN,
        8..16 => Bound::MAX,
        // Around the transactions, which are all of one millisecond.
        _ if n.is_multiple_of(3) => Bound { created: WallTime::from_millis(START), id: id(n) },
        _ => Bound::at(WallTime::from_millis(START - 2 + u64::from(n % 5))),
    }
}

fn ranges(a: u8, b: u8) -> Reconcile {
    let mut uppers: Vec<_> = (0..b % 80).map(|n| bound(n.wrapping_mul(a))).collect();
    uppers.sort_unstable();
    uppers.dedup();
    let lower = if a.is_multiple_of(4) { bound(b) } else { Bound::MIN };
    uppers.retain(|upper| *upper > lower);
    let list = || (0..a % 40).map(|n| (id(n), u64::from(n) << (b % 16))).collect();
    let range = |upper: Bound| Range {
        upper,
        content: match upper.id.as_bytes()[3].wrapping_add(a) % 4 {
            0 => RangeContent::Skip,
            1 => RangeContent::All(list()),
            2 => RangeContent::Rest(list()),
            _ => RangeContent::Print([a; 16]),
        },
    };
    let session = u32::from(b % 4);
    Reconcile { session, lower, ranges: uppers.into_iter().map(range).collect() }
}

/// The world around one protocol, as disorderly as its contract allows.
struct Chaos {
    protocol: Protocol,
    now: Duration,
    next_link: u64,
    dials: Vec<DialId>,
    tickets: BTreeMap<Ticket, bool>,
    loads: BTreeMap<Ticket, usize>,
    checks: BTreeMap<Ticket, Check>,
    /// Requests that are being handled.
    requests: BTreeSet<Ticket>,
    /// Nonces of pings that were not answered, by their link.
    pings: BTreeMap<LinkId, u64>,
}

/// A check that is under way.
enum Check {
    Head,
    Piece,
    Proofs(Transaction),
}

impl Chaos {
    fn new(role: Role) -> Self {
        let mut config = Config::lan();
        config.gossip.role = role;
        let listening = Some(SocketAddr::from(([0, 0, 0, 0], 5001)));
        let restored = Restored { listening, ..Restored::default() };
        let protocol = Protocol::new(&config, 1, record(7), [1; 32], restored);
        let (dials, tickets, loads) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (now, checks, pings) = (Duration::ZERO, BTreeMap::new(), BTreeMap::new());
        let requests = BTreeSet::new();
        Self { protocol, now, next_link: 0, dials, tickets, loads, checks, requests, pings }
    }

    /// What a link says of how it goes: in true and in false.
    fn progress(&mut self, link: LinkId, Step { a, b, .. }: Step) -> Option<Input> {
        Some(match b {
            0..32 => {
                let (received, taken) = (u64::MAX >> (b * 2), u64::from(a) << b);
                Input::Measured { link, received, taken }
            }
            32..128 => {
                let (link, nonce) = self.pings.pop_first()?;
                Input::Received { link, messages: vec![Message::Pong { nonce }], bytes: 10 }
            }
            128..136 => Input::Candidates((0..a % 80).map(draft).collect()),
            _ => Input::Sent { link, weight: usize::from(b) * 1000, bytes: 10 },
        })
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of input")]
    fn input(&mut self, step: Step) -> Option<Input> {
        let Step { kind, a, b, .. } = step;
        let link = LinkId(self.next_link.saturating_sub(u64::from(a % 6)));
        let ticket = self.tickets.keys().nth(usize::from(a) % self.tickets.len().max(1)).copied();
        Some(match kind % 31 {
            0..3 => {
                self.next_link += 1;
                let dial = (a % 2 == 0).then(|| self.dials.pop()).flatten();
                let remote = identity(b % 8).peer_id();
                let address = Some("10.1.2.3:4".parse().unwrap());
                let link = LinkId(self.next_link);
                let (kind, assurance) = (TransportKind::Memory, Assurance::default());
                Input::LinkOpened { link, remote, kind, address, dial, assurance }
            }
            3 => Input::DialFailed {
                dial: self.dials.pop()?,
                reason: FailureKind::Timeout,
                detail: String::new(),
            },
            4 if a >= 250 => Input::Leaving { link },
            4 => Input::LinkClosed { link },
            5 => Input::Malformed { link },
            6 => return self.progress(link, step),
            7 => Input::Publish {
                call: CallId(1),
                transactions: (0..=b % 3)
                    .map(|n| transaction(b.wrapping_add(n) % 16, false))
                    .collect(),
                renews: None,
            },
            8..11 => {
                let ticket = ticket?;
                match self.tickets.remove(&ticket) {
                    Some(true) => {
                        let result = if b < 200 { Ok(()) } else { Err(StoreErrorKind::Full) };
                        Input::Stored { ticket, result }
                    }
                    _ if b >= 250 => Input::Unchecked { ticket },
                    _ => Input::Verified {
                        ticket,
                        judgement: match b {
                            0..16 => {
                                Judgement::Invalid(crate::types::InvalidTransaction::Signature)
                            }
                            16..32 => Judgement::TimedOut,
                            32..48 => Judgement::Verdict(Verdict::Reject),
                            48..64 => Judgement::Verdict(Verdict::Ignore),
                            _ => Judgement::Verdict(Verdict::Accept),
                        },
                    },
                }
            }
            11 => {
                let (ticket, count) = self.loads.pop_first()?;
                let one = |_| (b < 128).then(|| transaction(b % 16, false));
                Input::Loaded { ticket, transactions: (0..count).map(one).collect() }
            }
            12 => Input::Ban(Ban {
                peer: identity(b % 8).peer_id(),
                until: None,
                reason: "é".repeat(600),
            }),
            13 => Input::Unban(PeerId::from_bytes([b; 32])),
            14 if a.is_multiple_of(2) => {
                Input::TestPeer { call: CallId(3), peer: identity(b % 8).peer_id() }
            }
            14 => Input::Disconnect { peer: identity(b % 8).peer_id() },
            15 if a.is_multiple_of(2) => {
                let near = |n| format!("10.0.{a}.{n}:1").parse().unwrap();
                Input::Nearby { endpoints: (0..b).map(near).collect() }
            }
            15 => Input::Connect { call: CallId(2), endpoint: "10.0.0.9:1".parse().unwrap() },
            16 => Input::RecordsVerified {
                ticket: Ticket(u64::from(a)),
                valid: vec![record(b)],
                forged: usize::from(a == 3),
            },
            17 => Input::Record(record(7)),
            18 => Input::Timeout,
            19..22 => {
                let (ticket, check) = self.checks.pop_first()?;
                match check {
                    _ if b >= 250 => Input::Unchecked { ticket },
                    Check::Head if b < 230 => Input::HeadVerified { ticket, result: Ok(()) },
                    Check::Head => {
                        let result = Err(crate::types::InvalidTransaction::Signature);
                        Input::HeadVerified { ticket, result }
                    }
                    Check::Piece => Input::PieceVerified { ticket, valid: b < 230 },
                    Check::Proofs(whole) => {
                        Input::Proved { ticket, proofs: Proofs::of(whole.payload()) }
                    }
                }
            }
            28..31 => return self.request(step),
            22 => {
                let topics = if a < 50 { None } else { interest(a, b).topics };
                Input::Subscribed { topics: topics.map(|topics| topics.into_iter().collect()) }
            }
            _ => Input::Received {
                link,
                messages: vec![message(step), message(Step { kind: b, a: kind, ..step })],
                bytes: 100,
            },
        })
    }

    /// What the host asks of peers, and answers to them.
    fn request(&mut self, Step { kind, a, b, .. }: Step) -> Option<Input> {
        if kind % 31 > 28 {
            let ticket = self.requests.pop_first()?;
            let body = Bytes::from(vec![0; usize::from(b) << (a % 13)]);
            let result = if b < 200 { Ok(body) } else { Err(AnswerRefusal::Failed) };
            return Some(Input::Answer { ticket, result });
        }
        let call = CallId(u64::from(a % 8));
        Some(match b % 8 {
            0 => Input::CancelRequest { call },
            1 => Input::Serving(if a < 64 { BTreeSet::new() } else { ["p".to_owned()].into() }),
            _ => Input::Request {
                call,
                peer: identity(b % 9).peer_id(),
                protocol: "p".to_owned(),
                body: vec![0; usize::from(b) << (a % 12)].into(),
                within: millis(u64::from(a) * 50),
                trace: None,
            },
        })
    }

    fn take(&mut self, step: Step) {
        self.now += millis(u64::from(step.pause_ms));
        let Some(input) = self.input(step) else { return };
        let opened = match &input {
            Input::LinkOpened { link, .. } => Some(*link),
            _ => None,
        };
        self.feed(step, input);
        // Most links get through their hello; incarnations and sequence numbers differ.
        if let Some(link) = opened.filter(|_| step.a > 40) {
            let messages = vec![hello(step.b % 8 + step.a / 64 * 64)];
            self.feed(step, Input::Received { link, messages, bytes: 100 });
        }
    }

    fn feed(&mut self, step: Step, input: Input) {
        // The wall clock jumps now and then.
        let jump = secs(if step.pause_ms.is_multiple_of(97) { 1000 } else { 0 });
        let wall = WallTime::from_millis(START).plus(self.now + jump);
        self.protocol.handle(MonoTime::from_duration(self.now), wall, input);
        while let Some(output) = self.protocol.poll_output() {
            match output {
                Output::Dial { dial, .. } => self.dials.push(dial),
                Output::Send { link, message: Message::Ping { nonce } } => {
                    self.pings.insert(link, nonce);
                }
                Output::Verify { ticket, .. } => drop(self.tickets.insert(ticket, false)),
                Output::Store { ticket, .. } | Output::StoreOwn { ticket, .. } => {
                    self.tickets.insert(ticket, true);
                }
                Output::VerifyHead { ticket, .. } => drop(self.checks.insert(ticket, Check::Head)),
                Output::VerifyPiece { ticket, .. } => {
                    drop(self.checks.insert(ticket, Check::Piece));
                }
                Output::Prove { ticket, transaction } => {
                    drop(self.checks.insert(ticket, Check::Proofs(transaction)));
                }
                Output::Requested { ticket, .. } => {
                    self.requests.insert(ticket);
                }
                Output::Load { ticket, ids } => drop(self.loads.insert(ticket, ids.len())),
                Output::Connected { result: Err(ConnectFailure::Closed), .. } => unreachable!(),
                _ => {}
            }
        }
        for gauge in self.protocol.gauges() {
            assert!(gauge.value <= gauge.bound, "{gauge:?}");
        }
        let timeout = self.protocol.poll_timeout();
        assert!(timeout.is_none_or(|at| at.as_duration() > self.now), "a timer that is due stayed");
    }
}

fn step(random: &mut Random) -> Step {
    let [kind, a, b] = random.bytes();
    Step { kind, a, b, pause_ms: random.within(0..2000) }
}

#[test]
fn anything_at_all_neither_panics_nor_grows() {
    for_all(48, |random| {
        let steps = random.list(1..250, step);
        for role in [Role::Relay, Role::Edge] {
            let mut chaos = Chaos::new(role);
            for step in &steps {
                chaos.take(*step);
            }
        }
    });
}
