//! The wire, held against its proto, its golden bytes and its limits.

mod frames;
mod golden;
mod limits;
mod model;
mod properties;
mod traces;

use std::time::Duration;

use bytes::Bytes;

use crate::identity::Identity;
use crate::types::{
    ALL_PIECES, Announcement, Bound, CloseReason, DialBackOutcome, FEATURES, Head, Header, Hello,
    Interest, Message, NOWHERE, Offer, PeerId, PeerRecord, Piece, PieceRange, Range, RangeContent,
    Reconcile, RecordDraft, Refusal, Reservation, ResponseStatus, Signature, Topic, TopicKey,
    Transaction, TransactionId, WallTime,
};

fn id(fill: u8) -> TransactionId {
    TransactionId::from_bytes([fill; 32])
}

fn header(topic: &str, payload: &[u8]) -> Header {
    let (created, expires) = (WallTime::from_millis(1000), WallTime::from_millis(2000));
    Header::new(Topic::new(topic).unwrap(), PeerId::from_bytes([7; 32]), created, expires, payload)
}

fn transaction(topic: &str, signature: Signature, payload: impl Into<Bytes>) -> Transaction {
    let payload = payload.into();
    Transaction::new(header(topic, &payload), signature, payload).unwrap()
}

fn bound(created: u64, prefix: &[u8]) -> Bound {
    let mut id = [0; 32];
    id[..prefix.len()].copy_from_slice(prefix);
    Bound { created: WallTime::from_millis(created), id: TransactionId::from_bytes(id) }
}

fn push(payload: impl Into<Bytes>) -> Message {
    let transaction = transaction("orders", Signature::Ed25519([9; 64]), payload);
    Message::Push { transaction, hop: 3 }
}

fn offer(topic: &str, complete: bool) -> Message {
    let signature = Signature::Ed25519([9; 64]);
    let head = Head::from_parts(header(topic, b"x").to_bytes(), signature).unwrap();
    Message::Offer(Box::new(Offer { head, hop: 3, place: 700, complete }))
}

fn record(endpoints: &[&str]) -> PeerRecord {
    Identity::from_seed([3; 32]).sign_record(RecordDraft {
        peer: PeerId::from_bytes([0; 32]),
        seq: 300,
        issued: WallTime::from_millis(1_700_000_000_000),
        endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
    })
}

/// One example of every kind.
fn examples() -> Vec<Message> {
    let mut examples = of_the_network();
    examples.extend(of_requests());
    examples.extend(of_dial_backs());
    examples
}

fn of_requests() -> [Message; 6] {
    [
        Message::Request {
            id: 300,
            protocol: "orders.quote/1".to_owned(),
            size: 70_000,
            timeout_ms: 30_000,
            body: Bytes::from_static(b"ask"),
            trace: None,
        },
        Message::Response {
            id: 300,
            status: ResponseStatus::Done,
            size: 6,
            body: Bytes::from_static(b"answer"),
            reason: String::new(),
        },
        Message::Response {
            id: 301,
            status: ResponseStatus::TooLarge,
            size: 0,
            body: Bytes::new(),
            reason: "1048576".to_owned(),
        },
        Message::BodyPart { id: 300, of_answer: false, data: Bytes::from_static(b"more") },
        Message::BodyPart { id: 1, of_answer: true, data: Bytes::from_static(b"of it") },
        Message::CancelRequest { id: 300 },
    ]
}

fn of_dial_backs() -> [Message; 6] {
    let (nonce, peer) = (0x0102_0304_0506_0708, PeerId::from_bytes([7; 32]));
    let task =
        |address: &str| Message::DialBackTask { nonce, address: address.parse().unwrap(), peer };
    let result = |outcome, dialler| Message::DialBackResult { nonce, outcome, dialler };
    [
        Message::DialBack { nonce, port: 5001 },
        task("192.0.2.1:443"),
        task("[2001:db8::1]:5001"),
        result(DialBackOutcome::Failed, None),
        result(DialBackOutcome::Failed, Some(peer)),
        Message::Hello(Box::new(Hello { dial_back: nonce, ..plain_hello() })),
    ]
}

fn of_the_network() -> Vec<Message> {
    vec![
        Message::Hello(Box::new(Hello {
            network: "orders-prod".to_owned(),
            version_min: 1,
            version_max: 2,
            features: FEATURES,
            incarnation: 1 << 40,
            max_transaction: 10 << 20,
            record: record(&["peer1.example.com:5001", "[2001:db8::1]:7"]),
            observed: Some([192, 0, 2, 1].into()),
            interest: Interest::default(),
            owes: true,
            clock: None,
            complete_since: None,
            takes_over: false,
            proofs: Vec::new(),
            dial_back: 0,
        })),
        Message::Goodbye {
            reason: CloseReason::TooManyLinks,
            retry_after: Duration::from_secs(30),
        },
        Message::Ping { nonce: 0x0102_0304_0506_0708 },
        Message::Pong { nonce: 0 },
        Message::PeersRequest { max: 32 },
        Message::Peers { records: vec![record(&[]), record(&["127.0.0.1:5001"])], relays: 0 },
        Message::Announce(vec![
            Announcement { id: id(1), size: 1024, hop: 2 },
            Announcement { id: id(2), size: 0, hop: 300 },
        ]),
        Message::Want(vec![id(1), id(2)]),
        Message::Missing(vec![id(3)]),
        push("hello"),
        Message::Piece(Piece {
            id: id(4),
            index: 300,
            bytes: Bytes::from_static(b"piece"),
            proof: Bytes::from_static(&[8; 32]),
        }),
        Message::Duplicate(vec![id(5), id(6)]),
        Message::Early(vec![id(7)]),
        Message::Stored(vec![]),
        Message::Ask(Box::new(Reconcile {
            session: 3,
            lower: bound(1_700_000_000_000, &[]),
            ranges: vec![
                Range { upper: bound(1_700_000_001_000, &[8, 9]), content: RangeContent::Skip },
                Range { upper: Bound::MAX, content: RangeContent::Print([7; 16]) },
            ],
        })),
        Message::Answer(Box::new(Reconcile {
            session: 3,
            lower: Bound::MIN,
            ranges: vec![
                Range { upper: bound(5, &[]), content: RangeContent::All(vec![(id(8), 1024)]) },
                Range { upper: bound(5, &[1]), content: RangeContent::Rest(vec![]) },
                Range { upper: bound(9, &[]), content: RangeContent::Rest(vec![(id(9), 1)]) },
            ],
        })),
        Message::Yours { lower: bound(5, &[1]), upper: Bound::MAX },
        offer("t", true),
        Message::Reserve(Reservation {
            id: id(8),
            place: 4,
            head: true,
            force: false,
            narrow: false,
            ranges: vec![
                PieceRange { first: 0, count: 2 },
                PieceRange { first: 9, count: ALL_PIECES },
            ],
        }),
        Message::Busy(vec![id(9)]),
        Message::Receiving { id: id(10), place: 513 },
        Message::Interest(interest(2, &[1, 0x0102_0304_0506_0708])),
        Message::Interest(Interest::default()),
        Message::Hello(Box::new(Hello { interest: interest(NOWHERE, &[]), ..plain_hello() })),
        Message::Peers { records: vec![record(&[])], relays: 1 },
        Message::Flushed,
        Message::Hello(Box::new(Hello {
            clock: Some(WallTime::from_millis(1_700_000_000_000)),
            ..plain_hello()
        })),
        Message::Hello(Box::new(Hello { proofs: vec![[11; 32], [12; 32]], ..plain_hello() })),
        Message::Hello(Box::new(Hello {
            complete_since: Some(WallTime::from_millis(1_700_000_000_000)),
            ..plain_hello()
        })),
        Message::Refused {
            list: vec![(id(11), Refusal::Skewed), (id(12), Refusal::WrongSignature)],
            clock: Some(WallTime::from_millis(1_700_000_000_000)),
        },
        Message::Probe { nonce: 7, payload: Bytes::from_static(b"probe"), wants: 300 },
        Message::Probed { nonce: 7, received: 5, payload: Bytes::from_static(b"probed") },
        Message::Hello(Box::new(Hello { takes_over: true, ..plain_hello() })),
        Message::Switch { step: 3 },
    ]
}

/// A hello that says as little as may be.
fn plain_hello() -> Hello {
    Hello {
        network: "n".to_owned(),
        version_min: 1,
        version_max: 1,
        features: FEATURES,
        incarnation: 1,
        max_transaction: 1,
        record: record(&[]),
        observed: None,
        interest: Interest::default(),
        owes: false,
        clock: None,
        complete_since: None,
        takes_over: false,
        proofs: Vec::new(),
        dial_back: 0,
    }
}

fn interest(depth: u8, topics: &[u64]) -> Interest {
    let topics = topics.iter().map(|topic| TopicKey(*topic)).collect();
    Interest { depth, makeshift: true, via: 3, topics: Some(topics) }
}
