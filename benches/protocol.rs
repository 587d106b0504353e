//! What one input costs the core, beside the floor: the same messages moved through a queue.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sorcha_peer::ports::StoredPeer;
use sorcha_peer::protocol::{Assurance, CallId, Input, Judgement, Output, Protocol, Restored};
use sorcha_peer::types::unstable::{
    Announcement, FEATURES, Hello, Interest, LinkId, Message, MonoTime, RecordDraft,
};
use sorcha_peer::types::{Header, PeerRecord, Signature, WallTime};
use sorcha_peer::{Config, Identity, PeerId, Topic, Transaction, TransportKind, Verdict};

const LINKS: u8 = 16;
const MANY_LINKS: u8 = 48;
const COUNT: u64 = 1024;
const START: u64 = 1_700_000_000_000;

fn record(n: u8) -> PeerRecord {
    let identity = Identity::from_seed([n; 32]);
    let draft = RecordDraft {
        peer: identity.peer_id(),
        seq: 1,
        issued: WallTime::from_millis(START),
        endpoints: Vec::new(),
    };
    draft.sign_with(|message| identity.sign(message))
}

/// The core under test and the least that a driver does for it.
struct Node {
    protocol: Protocol,
    now: Duration,
    inputs: u64,
    sends: u64,
}

impl Node {
    fn new() -> Self {
        Self::with(LINKS, Restored::default())
    }

    fn with(links: u8, restored: Restored) -> Self {
        let protocol = Protocol::new(&Config::default(), 1, record(0), [1; 32], restored);
        let mut node = Self { protocol, now: Duration::ZERO, inputs: 0, sends: 0 };
        for n in 1..=links {
            let link = LinkId(u64::from(n));
            let record = record(n);
            let (remote, kind) = (record.peer(), TransportKind::Memory);
            let assurance = Assurance::default();
            node.take(Input::LinkOpened {
                link,
                remote,
                kind,
                address: None,
                dial: None,
                assurance,
            });
            let hello = Message::Hello(Box::new(Hello {
                network: "sorcha".to_owned(),
                version_min: 1,
                version_max: 1,
                features: FEATURES,
                incarnation: 1,
                max_transaction: 10 << 20,
                record,
                observed: None,
                interest: Interest::default(),
                owes: false,
                clock: None,
                proofs: Vec::new(),
                dial_back: 0,
                complete_since: None,
                takes_over: false,
            }));
            node.take(Input::Received { link, messages: vec![hello], bytes: 300 });
        }
        node.inputs = 0;
        node
    }

    /// Takes one input and everything that follows, at once: all is sent, stored and right.
    fn take(&mut self, input: Input) {
        let mut todo = VecDeque::from([input]);
        while let Some(input) = todo.pop_front() {
            self.now += Duration::from_micros(1);
            self.inputs += 1;
            let wall = WallTime::from_millis(START).plus(self.now);
            self.protocol.handle(MonoTime::from_duration(self.now), wall, input);
            while let Some(output) = self.protocol.poll_output() {
                match output {
                    Output::Send { link, message } => {
                        self.sends += 1;
                        let weight = message.weight();
                        todo.push_back(Input::Sent { link, weight, bytes: weight });
                    }
                    Output::Verify { ticket, .. } => todo.push_back(Input::Verified {
                        ticket,
                        judgement: Judgement::Verdict(Verdict::Accept),
                    }),
                    Output::Store { ticket, .. } | Output::StoreOwn { ticket, .. } => {
                        todo.push_back(Input::Stored { ticket, result: Ok(()) });
                    }
                    Output::VerifyRecords { ticket, records } => {
                        todo.push_back(Input::RecordsVerified {
                            ticket,
                            valid: records,
                            forged: 0,
                        });
                    }
                    other => drop(black_box(other)),
                }
            }
        }
    }
}

fn transactions() -> Vec<Transaction> {
    let origin = Identity::from_seed([99; 32]).peer_id();
    let wall = WallTime::from_millis(START);
    let make = |n: u64| {
        let payload = Bytes::from(n.to_le_bytes().repeat(128));
        let topic = Topic::new("bench").expect("short");
        let header = Header::new(topic, origin, wall, wall.plus(Duration::from_hours(1)), &payload);
        Transaction::new(header, Signature::None, payload).expect("fits")
    };
    (0..COUNT).map(make).collect()
}

fn pushed(transactions: &[Transaction]) -> Vec<Input> {
    let received = |(n, t): (usize, &Transaction)| Input::Received {
        link: LinkId(1 + n as u64 % u64::from(LINKS)),
        messages: vec![Message::Push { transaction: t.clone(), hop: 1 }],
        bytes: 1200,
    };
    transactions.iter().enumerate().map(received).collect()
}

fn announced(transactions: &[Transaction]) -> Vec<Input> {
    let received = |link: u64| {
        let offer = |t: &Transaction| Announcement { id: t.id(), size: 1024, hop: 1 };
        let offers: Vec<_> = transactions.iter().map(offer).collect();
        offers
            .chunks(64)
            .map(move |part| Input::Received {
                link: LinkId(link),
                messages: vec![Message::Announce(part.to_vec())],
                bytes: 64 * 44,
            })
            .collect::<Vec<_>>()
    };
    (1..=u64::from(LINKS)).flat_map(received).collect()
}

fn published(transactions: &[Transaction]) -> Vec<Input> {
    let publish = |(n, t): (usize, &Transaction)| Input::Publish {
        call: CallId(n as u64),
        transactions: vec![t.clone()],
        renews: None,
    };
    transactions.iter().enumerate().map(publish).collect()
}

/// What a snapshot of the figures costs a node that knows many.
fn stats(c: &mut Criterion) {
    let known = |n: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        let [high, low] = n.to_be_bytes();
        let address = format!("10.0.{high}.{low}:5001");
        let mut peer = StoredPeer::new(PeerId::from_bytes(id));
        peer.verified = Some(address.parse().expect("an address"));
        peer
    };
    let peers = (0..1000 - u16::from(MANY_LINKS)).map(known).collect();
    let mut node = Node::with(MANY_LINKS, Restored { peers, ..Restored::default() });
    let transactions = transactions();
    for input in pushed(&transactions).into_iter().chain(published(&transactions)) {
        node.take(input);
    }
    let stats = node.protocol.stats();
    println!("  stats of {} links, {} known peers", stats.links, stats.known_peers);
    c.bench_function("stats, 48 links, 1,000 peers", |b| b.iter(|| node.protocol.stats()));
}

fn bench(c: &mut Criterion) {
    let transactions = transactions();
    let mut group = c.benchmark_group("protocol, 16 links, 1 KiB");
    group.throughput(Throughput::Elements(COUNT)).sample_size(20);
    let mut row = |name: &str, inputs: &dyn Fn() -> Vec<Input>| {
        group.bench_function(name, |b| {
            b.iter_batched(
                || (Node::new(), inputs()),
                |(mut node, inputs)| {
                    for input in inputs {
                        node.take(input);
                    }
                    node
                },
                BatchSize::LargeInput,
            );
        });
        let mut node = Node::new();
        for input in inputs() {
            node.take(input);
        }
        println!("  {name}: {} inputs, {} messages sent", node.inputs, node.sends);
    };
    row("pushed to us", &|| pushed(&transactions));
    row("announced to us by 16", &|| announced(&transactions));
    row("published by us", &|| published(&transactions));
    // The floor: each message once into a queue and out of it, to 16 links.
    group.bench_function("raw queue, 16 links", |b| {
        b.iter_batched(
            || pushed(&transactions),
            |inputs| {
                let mut queue = VecDeque::new();
                for input in inputs {
                    let Input::Received { messages, .. } = input else { continue };
                    for message in messages {
                        (0..LINKS).for_each(|_| queue.push_back(message.clone()));
                        while let Some(message) = queue.pop_front() {
                            black_box(message);
                        }
                    }
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, bench, stats);
criterion_main!(benches);
