//! What holds for all messages and for all bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::model;
use crate::types::{
    Announcement, Bound, Endpoint, Features, Head, Header, Hello, Host, Interest, MAX_FRAME_BYTES,
    Message, NOWHERE, Offer, PeerId, PeerRecord, Piece, PieceRange, Range, RangeContent, Reconcile,
    RecordDraft, Reservation, Signature, Topic, TopicKey, Transaction, TransactionId, WallTime,
};
use crate::wire::convert::REASONS;
use crate::wire::generated::gossip;
use crate::wire::{decode_frame, encode_frame};

fn bytes32() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn ids() -> impl Strategy<Value = Vec<TransactionId>> {
    vec(bytes32().prop_map(TransactionId::from_bytes), 0..40)
}

fn signature() -> impl Strategy<Value = Signature> {
    let batch = (1..=6usize, any::<u8>()).prop_flat_map(|(depth, index)| {
        vec(any::<u8>(), 65 + 32 * depth).prop_map(move |mut bytes| {
            bytes[64] = index & ((1 << depth) - 1);
            bytes
        })
    });
    prop_oneof![Just(Vec::new()), vec(any::<u8>(), 64), batch]
        .prop_map(|bytes| Signature::from_bytes(&bytes).unwrap())
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let host = prop_oneof![
        any::<IpAddr>().prop_map(Host::Ip),
        "[a-z][a-z0-9]{0,20}(\\.[a-z]{1,9}){0,3}".prop_map(Host::Name),
    ];
    (host, 1..=u16::MAX).prop_map(|(host, port)| Endpoint::new(host, port).unwrap())
}

fn record() -> impl Strategy<Value = PeerRecord> {
    (bytes32(), any::<u64>(), any::<u64>(), vec(endpoint(), 0..=16), vec(any::<u8>(), 64)).prop_map(
        |(peer, seq, issued, endpoints, signature)| PeerRecord {
            draft: RecordDraft {
                peer: PeerId::from_bytes(peer),
                seq,
                issued: WallTime::from_millis(issued),
                endpoints,
            },
            signature: signature.try_into().unwrap(),
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let versions = (any::<u32>(), any::<u32>());
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let last = (option::of(any::<IpAddr>()), any::<bool>(), option::of(interest()));
    ("\\PC{0,16}", versions, numbers, record(), last).prop_map(
        |(network, (version_min, version_max), (features, incarnation, max), record, last)| {
            let (observed, owes, interest) = (last.0, last.1, last.2.unwrap_or_default());
            Hello {
                network,
                version_min,
                version_max,
                features: Features(features),
                incarnation,
                max_transaction: max,
                record,
                observed,
                interest,
                owes,
            }
        },
    )
}

fn interest() -> impl Strategy<Value = Interest> {
    let topics = option::of(btree_set(any::<u64>().prop_map(TopicKey), 0..20));
    (0..=NOWHERE, any::<bool>(), any::<u64>(), topics).prop_map(
        |(depth, makeshift, via, topics)| {
            let topics = topics.map(|topics| topics.into_iter().collect());
            Interest { depth, makeshift, via, topics }
        },
    )
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let times = (any::<u64>(), any::<u64>());
    let payload = prop_oneof![vec(any::<u8>(), 0..64), vec(any::<u8>(), 0..20_000)];
    ("[a-z/]{0,255}", bytes32(), times, signature(), payload).prop_map(
        |(topic, origin, (created, expires), signature, payload)| {
            let header = Header::new(
                Topic::new(&topic).unwrap(),
                PeerId::from_bytes(origin),
                WallTime::from_millis(created),
                WallTime::from_millis(expires),
                &payload,
            );
            Transaction::new(header, signature, Bytes::from(payload)).unwrap()
        },
    )
}

fn piece() -> impl Strategy<Value = Piece> {
    let bytes = |most| vec(any::<u8>(), 0..most).prop_map(Bytes::from);
    (bytes32(), any::<u32>(), bytes(2000), bytes(900)).prop_map(|(id, index, bytes, proof)| Piece {
        id: TransactionId::from_bytes(id),
        index,
        bytes,
        proof,
    })
}

fn offer() -> impl Strategy<Value = Offer> {
    (transaction(), any::<u16>(), any::<u32>(), any::<bool>())
        .prop_map(|(t, hop, place, complete)| Offer { place, head: Head::of(&t), hop, complete })
}

fn reservation() -> impl Strategy<Value = Reservation> {
    let range = (any::<u32>(), any::<u32>()).prop_map(|(first, count)| PieceRange { first, count });
    (bytes32(), any::<u32>(), any::<[bool; 3]>(), vec(range, 0..40)).prop_map(
        |(id, place, [head, force, narrow], ranges)| {
            let id = TransactionId::from_bytes(id);
            Reservation { id, place, head, force, narrow, ranges }
        },
    )
}

fn bound() -> impl Strategy<Value = Bound> {
    let created = prop_oneof![Just(u64::MAX), any::<u64>(), 0..100u64];
    (created, vec(any::<u8>(), 0..=32)).prop_map(|(created, prefix)| {
        let mut id = [0; 32];
        id[..prefix.len()].copy_from_slice(&prefix);
        Bound { created: WallTime::from_millis(created), id: TransactionId::from_bytes(id) }
    })
}

fn reconcile() -> impl Strategy<Value = Reconcile> {
    let sized = || vec((bytes32().prop_map(TransactionId::from_bytes), any::<u64>()), 0..10);
    let content = prop_oneof![
        Just(RangeContent::Skip),
        any::<[u8; 16]>().prop_map(RangeContent::Print),
        sized().prop_map(RangeContent::All),
        sized().prop_map(RangeContent::Rest),
    ];
    let ranges = vec((bound(), content), 0..10);
    (any::<u32>(), bound(), ranges).prop_map(|(session, lower, mut ranges)| {
        ranges.retain(|(upper, _)| *upper > lower);
        ranges.sort_by_key(|(upper, _)| *upper);
        ranges.dedup_by_key(|(upper, _)| *upper);
        let range = |(upper, content)| Range { upper, content };
        Reconcile { session, lower, ranges: ranges.into_iter().map(range).collect() }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let announcement = (bytes32(), any::<u64>(), any::<u16>())
        .prop_map(|(id, size, hop)| Announcement { id: TransactionId::from_bytes(id), size, hop });
    prop_oneof![
        hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        (0..REASONS.len(), any::<u64>()).prop_map(|(reason, millis)| Message::Goodbye {
            reason: REASONS[reason].1,
            retry_after: Duration::from_millis(millis),
        }),
        any::<u64>().prop_map(|nonce| Message::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Message::Pong { nonce }),
        any::<u32>().prop_map(|max| Message::PeersRequest { max }),
        (vec(record(), 0..4), any::<u32>())
            .prop_map(|(records, relays)| Message::Peers { records, relays }),
        interest().prop_map(Message::Interest),
        vec(announcement, 0..40).prop_map(Message::Announce),
        ids().prop_map(Message::Want),
        ids().prop_map(Message::Missing),
        (transaction(), any::<u16>())
            .prop_map(|(transaction, hop)| Message::Push { transaction, hop }),
        piece().prop_map(Message::Piece),
        ids().prop_map(Message::Duplicate),
        ids().prop_map(Message::Early),
        ids().prop_map(Message::Stored),
        reconcile().prop_map(|ranges| Message::Ask(Box::new(ranges))),
        reconcile().prop_map(|ranges| Message::Answer(Box::new(ranges))),
        (bound(), bound()).prop_map(|(lower, upper)| Message::Yours { lower, upper }),
        offer().prop_map(|offer| Message::Offer(Box::new(offer))),
        reservation().prop_map(Message::Reserve),
        ids().prop_map(Message::Busy),
        (bytes32(), any::<u32>()).prop_map(|(id, place)| Message::Receiving {
            id: TransactionId::from_bytes(id),
            place,
        }),
        Just(Message::Flushed),
    ]
}

/// How an encoded frame is spoiled.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
}

proptest! {
    #[test]
    fn every_frame_is_what_the_proto_says_and_round_trips(
        messages in vec(message(), 0..12),
    ) {
        let frame = encode_frame(&messages);
        prop_assert_eq!(&frame[..], &model::frame(&messages).encode_to_vec()[..]);
        prop_assert_eq!(decode_frame(frame).unwrap(), messages);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..4000)) {
        let _ = decode_frame(Bytes::from(bytes));
    }

    /// Whatever is accepted of a damaged frame is also acceptable to protobuf, and is not larger
    /// than the frame could hold.
    #[test]
    fn damaged_frames_never_panic(messages in vec(message(), 1..6), damage in damage()) {
        let mut bytes = encode_frame(&messages).to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let frame = Bytes::from(bytes);
        if let Ok(decoded) = decode_frame(frame.clone()) {
            prop_assert!(decoded.len() <= frame.len() / 2);
            let again = encode_frame(&decoded);
            prop_assert_eq!(&decode_frame(again).unwrap(), &decoded);
            let ids: usize = decoded.iter().map(ids_in).sum();
            prop_assert!(ids * 32 <= frame.len());
        }
    }

    #[test]
    fn a_cut_frame_is_refused_or_whole_messages_are_missing(
        messages in vec(message(), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let frame = encode_frame(&messages);
        let cut = frame.slice(..at.index(frame.len()));
        if let Ok(decoded) = decode_frame(cut) {
            prop_assert!(decoded.len() < messages.len());
            prop_assert_eq!(&decoded[..], &messages[..decoded.len()]);
        }
    }

    /// A field of a later version may stand anywhere.
    #[test]
    fn unknown_fields_and_kinds_are_skipped(
        messages in vec(message(), 0..4),
        number in 64u32..1 << 29,
        value in vec(any::<u8>(), 0..20),
    ) {
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
        prop_assert!(gossip::Frame::decode(&frame[..]).is_ok());
        prop_assert!(frame.len() <= MAX_FRAME_BYTES);
        prop_assert_eq!(decode_frame(Bytes::from(frame)).unwrap(), messages);
    }
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
        _ => 0,
    }
}
