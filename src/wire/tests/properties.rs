//! What holds for all messages and for all bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::model;
use crate::testing::cases::{Random, for_all};
use crate::types::{
    Announcement, Bound, Endpoint, Features, Head, Header, Hello, Host, Interest, MAX_FRAME_BYTES,
    MAX_PROOFS, Message, NOWHERE, Offer, PeerId, PeerRecord, Piece, PieceRange, Range,
    RangeContent, Reconcile, RecordDraft, Reservation, Signature, Topic, TopicKey, TraceContext,
    Transaction, TransactionId, WallTime,
};
use crate::wire::convert::{OUTCOMES, REASONS, REFUSALS, STATUSES};
use crate::wire::generated::gossip;
use crate::wire::{decode_frame, encode_frame};

const CASES: u64 = 256;

fn id(random: &mut Random) -> TransactionId {
    TransactionId::from_bytes(random.bytes())
}

fn ids(random: &mut Random) -> Vec<TransactionId> {
    random.list(0..40, id)
}

fn peer(random: &mut Random) -> PeerId {
    PeerId::from_bytes(random.bytes())
}

fn wall(random: &mut Random) -> WallTime {
    WallTime::from_millis(random.number())
}

fn signature(random: &mut Random) -> Signature {
    let bytes = match random.within(0..3) {
        0 => Vec::new(),
        1 => random.bytes::<64>().to_vec(),
        // Of a batch: the root's signature, an index, and the path to the root.
        _ => {
            let depth: usize = random.within(1..7);
            let mut bytes: Vec<u8> = (0..65 + 32 * depth).map(|_| random.u8()).collect();
            bytes[64] &= (1 << depth) - 1;
            bytes
        }
    };
    Signature::from_bytes(&bytes).unwrap()
}

fn ip(random: &mut Random) -> IpAddr {
    if random.bool() {
        Ipv4Addr::from(random.bytes::<4>()).into()
    } else {
        Ipv6Addr::from(random.bytes::<16>()).into()
    }
}

fn endpoint(random: &mut Random) -> Endpoint {
    let host = if random.bool() {
        Host::Ip(ip(random))
    } else {
        let labels = random.list(1..5, |random| random.text(1..10, &['a', 'k', 'z']));
        Host::Name(labels.join("."))
    };
    Endpoint::new(host, random.u16().max(1)).unwrap()
}

fn record(random: &mut Random) -> PeerRecord {
    let draft = RecordDraft {
        peer: peer(random),
        seq: random.number(),
        issued: wall(random),
        endpoints: random.list(0..17, endpoint),
    };
    draft.sign_with(|_| random.bytes())
}

fn hello(random: &mut Random) -> Hello {
    Hello {
        network: random.text(0..17, &['a', ' ', 'ß', '漢', '🦀']),
        version_min: random.u32(),
        version_max: random.u32(),
        features: Features(random.number()),
        incarnation: random.number(),
        max_transaction: random.number(),
        record: record(random),
        observed: random.option(ip),
        interest: random.option(interest).unwrap_or_default(),
        owes: random.bool(),
        // 0 is "not said".
        clock: random.option(|random| wall(random).plus(Duration::from_millis(1))),
        complete_since: random.option(|random| wall(random).plus(Duration::from_millis(1))),
        takes_over: random.bool(),
        proofs: random.list(0..MAX_PROOFS as u64 + 1, Random::bytes),
        dial_back: random.number(),
    }
}

fn interest(random: &mut Random) -> Interest {
    let topics = random.option(|random| {
        let mut topics = random.list(0..20, |random| TopicKey(random.number()));
        topics.sort_unstable();
        topics.dedup();
        topics
    });
    Interest {
        depth: random.within(0..u64::from(NOWHERE) + 1),
        makeshift: random.bool(),
        via: random.number(),
        topics: topics.map(|topics| topics.into_iter().collect()),
    }
}

fn transaction(random: &mut Random) -> Transaction {
    let payload = if random.bool() { 0..64 } else { 0..20_000 };
    let payload = random.list(payload, Random::u8);
    let topic = random.text(1..256, &['a', 'q', 'z', '/']);
    let topic = Topic::new(&topic).unwrap();
    let header = Header::new(topic, peer(random), wall(random), wall(random), &payload);
    let transaction = Transaction::new(header, signature(random), Bytes::from(payload)).unwrap();
    transaction.with_trace(trace(random))
}

fn trace(random: &mut Random) -> Option<TraceContext> {
    random.option(Random::bytes::<26>).and_then(|bytes| TraceContext::from_bytes(&bytes))
}

fn probe_payload(random: &mut Random) -> Bytes {
    random.list(0..600, Random::u8).into()
}

fn piece(random: &mut Random) -> Piece {
    Piece {
        id: id(random),
        index: random.u32(),
        bytes: random.list(0..2000, Random::u8).into(),
        proof: random.list(0..900, Random::u8).into(),
    }
}

fn offer(random: &mut Random) -> Offer {
    let head = Head::of(&transaction(random));
    Offer { head, hop: random.u16(), place: random.u32(), complete: random.bool() }
}

fn reservation(random: &mut Random) -> Reservation {
    let range = |random: &mut Random| PieceRange { first: random.u32(), count: random.u32() };
    Reservation {
        id: id(random),
        place: random.u32(),
        head: random.bool(),
        force: random.bool(),
        narrow: random.bool(),
        ranges: random.list(0..40, range),
    }
}

fn bound(random: &mut Random) -> Bound {
    let prefix: usize = random.within(0..33);
    let mut id: [u8; 32] = random.bytes();
    id[prefix..].fill(0);
    Bound { created: wall(random), id: TransactionId::from_bytes(id) }
}

fn reconcile(random: &mut Random) -> Reconcile {
    let sized = |random: &mut Random| (id(random), random.number());
    let mut range = |random: &mut Random| Range {
        upper: bound(random),
        content: match random.within(0..4) {
            0 => RangeContent::Skip,
            1 => RangeContent::Print(random.bytes()),
            2 => RangeContent::All(random.list(0..10, sized)),
            _ => RangeContent::Rest(random.list(0..10, sized)),
        },
    };
    let (session, lower) = (random.u32(), bound(random));
    let mut ranges = random.list(0..10, &mut range);
    ranges.retain(|range| range.upper > lower);
    ranges.sort_by_key(|range| range.upper);
    ranges.dedup_by_key(|range| range.upper);
    Reconcile { session, lower, ranges }
}

fn message(random: &mut Random) -> Message {
    let announcement = |random: &mut Random| Announcement {
        id: id(random),
        size: random.number(),
        hop: random.u16(),
    };
    match random.within(0..34) {
        0 => Message::Hello(Box::new(hello(random))),
        1 => Message::Goodbye {
            reason: REASONS[random.index(REASONS.len())].1,
            retry_after: Duration::from_millis(random.number()),
        },
        2 => Message::Ping { nonce: random.number() },
        3 => Message::Pong { nonce: random.number() },
        4 => Message::PeersRequest { max: random.u32() },
        5 => Message::Peers { records: random.list(0..4, record), relays: random.u32() },
        6 => Message::Interest(interest(random)),
        7 => Message::Announce(random.list(0..40, announcement)),
        8 => Message::Want(ids(random)),
        9 => Message::Missing(ids(random)),
        10 => Message::Push { transaction: transaction(random), hop: random.u16() },
        11 => Message::Piece(piece(random)),
        12 => Message::Duplicate(ids(random)),
        13 => Message::Early(ids(random)),
        14 => Message::Stored(ids(random)),
        15 => Message::Ask(Box::new(reconcile(random))),
        16 => Message::Answer(Box::new(reconcile(random))),
        17 => Message::Yours { lower: bound(random), upper: bound(random) },
        18 => Message::Offer(Box::new(offer(random))),
        19 => Message::Reserve(reservation(random)),
        20 => Message::Busy(ids(random)),
        21 => Message::Receiving { id: id(random), place: random.u32() },
        22 => Message::Refused {
            list: random
                .list(0..40, |random| (id(random), REFUSALS[random.index(REFUSALS.len())].1)),
            clock: random.option(|random| wall(random).plus(Duration::from_millis(1))),
        },
        23 => Message::Probe {
            nonce: random.number(),
            payload: probe_payload(random),
            wants: random.within(0..65_537),
        },
        24 => Message::Probed {
            nonce: random.number(),
            received: random.u32(),
            payload: probe_payload(random),
        },
        25 => Message::Switch { step: random.u32() },
        26 => {
            let body = probe_payload(random);
            Message::Request {
                id: random.number(),
                protocol: random.text(1..129, &['a', '~', '!', '/']),
                size: body.len() as u64 + u64::from(random.u32()),
                timeout_ms: random.u32(),
                body,
                trace: trace(random),
            }
        }
        27 => {
            let body = probe_payload(random);
            Message::Response {
                id: random.number(),
                status: STATUSES[random.index(STATUSES.len())].1,
                size: body.len() as u64 + u64::from(random.u32()),
                body,
                reason: random.text(0..60, &['a', ' ', 'ß', '漢']),
            }
        }
        28 => Message::BodyPart {
            id: random.number(),
            of_answer: random.bool(),
            data: probe_payload(random),
        },
        29 => Message::CancelRequest { id: random.number() },
        30 => Message::DialBack { nonce: random.number(), port: random.u16() },
        31 => Message::DialBackTask {
            nonce: random.number(),
            address: SocketAddr::new(ip(random), random.u16()),
            peer: peer(random),
        },
        32 => Message::DialBackResult {
            nonce: random.number(),
            outcome: OUTCOMES[random.index(OUTCOMES.len())].1,
            dialler: random.bool().then(|| peer(random)),
        },
        _ => Message::Flushed,
    }
}

#[test]
fn every_frame_is_what_the_proto_says_and_round_trips() {
    for_all(CASES, |random| {
        let messages = random.list(0..12, message);
        let frame = encode_frame(&messages);
        assert_eq!(&frame[..], &model::frame(&messages).encode_to_vec()[..]);
        assert_eq!(decode_frame(frame).unwrap(), messages);
    });
}

#[test]
fn arbitrary_bytes_never_panic() {
    for_all(CASES, |random| {
        let _ = decode_frame(Bytes::from(random.list(0..4000, Random::u8)));
    });
}

/// Whatever is accepted of a damaged frame is also acceptable to protobuf, and is not larger than
/// the frame could hold.
#[test]
fn damaged_frames_never_panic() {
    for_all(CASES, |random| {
        let mut bytes = encode_frame(&random.list(1..6, message)).to_vec();
        for _ in 0..random.within(1..8) {
            let at = random.index(bytes.len());
            bytes[at] = random.u8();
        }
        let frame = Bytes::from(bytes);
        if let Ok(decoded) = decode_frame(frame.clone()) {
            assert!(decoded.len() <= frame.len() / 2);
            let again = encode_frame(&decoded);
            assert_eq!(&decode_frame(again).unwrap(), &decoded);
            let ids: usize = decoded.iter().map(ids_in).sum();
            assert!(ids * 32 <= frame.len());
        }
    });
}

#[test]
fn a_cut_frame_is_refused_or_whole_messages_are_missing() {
    for_all(CASES, |random| {
        let messages = random.list(1..6, message);
        let frame = encode_frame(&messages);
        let cut = frame.slice(..random.index(frame.len()));
        if let Ok(decoded) = decode_frame(cut) {
            assert!(decoded.len() < messages.len());
            assert_eq!(&decoded[..], &messages[..decoded.len()]);
        }
    });
}

/// A field of a later version may stand anywhere.
#[test]
fn unknown_fields_and_kinds_are_skipped() {
    for_all(CASES, |random| {
        let messages = random.list(0..4, message);
        let number: u32 = random.within(64..1 << 29);
        let value = random.list(0..20, Random::u8);
        let mut foreign = Vec::new();
        prost::encoding::bytes::encode(number, &value, &mut foreign);
        prost::encoding::fixed32::encode(number, &7, &mut foreign);
        prost::encoding::uint64::encode(number, &u64::MAX, &mut foreign);
        prost::encoding::double::encode(number, &1.5, &mut foreign);

        let mut frame = foreign.clone();
        for message in &messages {
            // Beside the kind, and inside it.
            let entry = prost::encoding::encoded_len_varint;
            let body = encode_frame(std::slice::from_ref(message));
            let body = &body[1 + entry(body_entry_len(&body) as u64)..];
            let inner = [inside(body, &foreign).as_slice(), &foreign].concat();
            prost::encoding::bytes::encode(1, &inner, &mut frame);
        }
        prost::encoding::bytes::encode(1, &foreign, &mut frame);
        frame.extend_from_slice(&foreign);
        assert!(gossip::Frame::decode(&frame[..]).is_ok());
        assert!(frame.len() <= MAX_FRAME_BYTES);
        assert_eq!(decode_frame(Bytes::from(frame)).unwrap(), messages);
    });
}

/// The length that the first entry of a frame states.
fn body_entry_len(mut frame: &[u8]) -> usize {
    frame = &frame[1..];
    usize::try_from(prost::encoding::decode_varint(&mut frame).unwrap()).unwrap()
}

/// `entry` with `foreign` at the end of its kind's body.
fn inside(entry: &[u8], foreign: &[u8]) -> Vec<u8> {
    let mut rest = entry;
    let key = prost::encoding::decode_varint(&mut rest).unwrap();
    prost::encoding::decode_varint(&mut rest).unwrap();
    let body = [rest, foreign].concat();
    let mut out = Vec::new();
    prost::encoding::bytes::encode(u32::try_from(key >> 3).unwrap(), &body, &mut out);
    out
}

fn ids_in(message: &Message) -> usize {
    match message {
        Message::Announce(list) => list.len(),
        Message::Want(list)
        | Message::Missing(list)
        | Message::Duplicate(list)
        | Message::Early(list)
        | Message::Stored(list)
        | Message::Busy(list) => list.len(),
        Message::Refused { list, .. } => list.len(),
        _ => 0,
    }
}
