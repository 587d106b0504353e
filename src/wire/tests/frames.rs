//! Frames made from queues.

use std::collections::VecDeque;

use super::{id, push, record};
use crate::types::{
    Announcement, MAX_FRAME_BYTES, MAX_IDS_PER_MESSAGE, MAX_MESSAGES_PER_FRAME, Message, PeerId,
    PeerRecord, WallTime,
};
use crate::wire::{FrameEncoder, WireError, decode_frame, encode_frame};

/// Empties a queue into frames; checks what is said of each.
fn drain(queue: &mut VecDeque<Message>, budget: usize) -> Vec<Vec<Message>> {
    let mut encoder = FrameEncoder::new();
    let mut frames = Vec::new();
    loop {
        let total = |q: &VecDeque<Message>| q.iter().map(Message::weight).sum::<usize>();
        let (count, weight) = (queue.len(), total(queue));
        let Some(encoded) = encoder.encode_next(queue, budget).unwrap() else { break };
        assert!(queue.len() >= count - encoded.messages);
        assert_eq!(total(queue), weight - encoded.weight);
        let decoded = decode_frame(encoded.frame.clone()).unwrap();
        assert!(encoded.frame.len() <= budget || decoded.len() == 1);
        frames.push(decoded);
    }
    assert!(queue.is_empty());
    frames
}

#[test]
fn a_frame_ends_at_its_budget() {
    let messages: Vec<_> = (0..10).map(|n| push(vec![n; 1000])).collect();
    let frames = drain(&mut messages.clone().into(), 4000);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(frames.concat(), messages);
    let frames = drain(&mut messages.clone().into(), 0);
    assert_eq!(frames.len(), 10);
    let frames = drain(&mut messages.into(), usize::MAX);
    assert_eq!(frames.len(), 1);
}

#[test]
fn a_frame_ends_at_its_limits() {
    let large: VecDeque<_> = (0..3).map(|n| push(vec![n; MAX_FRAME_BYTES / 2])).collect();
    assert_eq!(drain(&mut large.clone(), usize::MAX).len(), 3);
    let pings = vec![Message::Ping { nonce: 1 }; MAX_MESSAGES_PER_FRAME + 1];
    assert_eq!(drain(&mut pings.into(), usize::MAX).len(), 2);
}

#[test]
fn what_fits_no_frame_is_reported_and_does_not_block() {
    let mut queue: VecDeque<_> = [push("a"), push(vec![0; MAX_FRAME_BYTES]), push("b")].into();
    let mut encoder = FrameEncoder::new();
    let mut next = || encoder.encode_next(&mut queue, MAX_FRAME_BYTES);
    assert_eq!(decode_frame(next().unwrap().unwrap().frame).unwrap(), [push("a")]);
    assert!(matches!(next(), Err(WireError::Limit { what: "frame (bytes)", .. })));
    assert_eq!(decode_frame(next().unwrap().unwrap().frame).unwrap(), [push("b")]);
    assert!(next().unwrap().is_none());
}

#[test]
fn neighbours_merge_and_order_stays() {
    let announce = |n| Message::Announce(vec![Announcement { id: id(n), size: 5, hop: 1 }]);
    let want = |n| Message::Want(vec![id(n)]);
    let mut queue: VecDeque<_> = [
        announce(1),
        announce(2),
        Message::Stored(vec![id(1)]),
        Message::Duplicate(vec![id(1)]),
        Message::Duplicate(vec![id(2)]),
        Message::Early(vec![id(2)]),
        Message::Missing(vec![id(2)]),
        want(3),
        want(4),
        announce(5),
    ]
    .into();
    let frames = drain(&mut queue, usize::MAX);
    assert_eq!(frames.len(), 1);
    let kinds: Vec<_> = frames[0].iter().map(Message::kind).collect();
    let expected = ["announce", "stored", "duplicate", "early", "missing", "want", "announce"];
    assert_eq!(kinds, expected);
    assert_eq!(frames[0][5], Message::Want([3, 4].map(id).into()));
}

#[test]
fn long_lists_are_split() {
    let many = 2 * MAX_IDS_PER_MESSAGE + 1;
    let list = vec![id(1); many];
    let mut queue: VecDeque<_> = [
        Message::Stored(list.clone()),
        Message::Peers { records: vec![record(&[]); 70], relays: 40 },
    ]
    .into();
    let frames = drain(&mut queue, 40_000);
    let mut said = Vec::new();
    let lengths: Vec<_> = frames
        .concat()
        .iter()
        .map(|message| match message {
            Message::Stored(list) => list.len(),
            Message::Peers { records, relays } => {
                said.push(*relays);
                records.len()
            }
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(lengths, [1024, 1024, 1, 32, 32, 6]);
    assert_eq!(said, [32, 8, 0], "still the first of all");
}

#[test]
fn a_small_transaction_does_not_pin_its_frame() {
    let messages: Vec<_> = (0..4).map(|n| push(vec![n; 1000])).collect();
    let frame = FrameEncoder::new().encode_next(&mut messages.into(), 1 << 20).unwrap().unwrap();
    let range = frame.frame.as_ptr_range();
    for message in decode_frame(frame.frame.clone()).unwrap() {
        let Message::Push { transaction, .. } = message else { unreachable!() };
        assert!(!range.contains(&transaction.payload().as_ptr()));
    }
    let large = FrameEncoder::new().encode_next(&mut [push(vec![1; 9000])].into(), 1 << 20);
    let frame = large.unwrap().unwrap().frame;
    let Message::Push { transaction, .. } = decode_frame(frame.clone()).unwrap().remove(0) else {
        unreachable!()
    };
    assert!(frame.as_ptr_range().contains(&transaction.payload().as_ptr()));
}

/// Others pass on the record of a peer that spells its addresses in another way, or has ones of new forms.
#[test]
fn a_record_is_spelled_as_it_was_signed() {
    let (peer, issued) = (PeerId::from_bytes([3; 32]), WallTime::from_millis(1));
    let texts = ["[::ffff:10.0.0.1]:7", "quic://h:1"];
    let record = PeerRecord::read(peer, 1, issued, &texts, [5; 64]).unwrap();
    let sent = vec![Message::Peers { records: vec![record], relays: 0 }];
    let got = decode_frame(encode_frame(&sent)).unwrap();
    assert_eq!(got, sent);
    let Some(Message::Peers { records, .. }) = got.first() else { panic!("{got:?}") };
    assert_eq!(records[0].texts(), texts);
    assert_eq!(records[0].places(), ["10.0.0.1:7".parse().unwrap()]);
}
