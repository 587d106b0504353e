//! Every limit bites, with an error that names it.

use bytes::Bytes;
use prost::Message as _;

use super::{id, model, push, record};
use crate::types::{
    Announcement, InvalidTransaction, MAX_ENDPOINTS, MAX_FRAME_BYTES, MAX_HEADER_BYTES,
    MAX_IDS_PER_MESSAGE, MAX_IDS_PER_RECONCILE, MAX_INTERESTS, MAX_MESSAGES_PER_FRAME,
    MAX_NETWORK_BYTES, MAX_PROOF_BYTES, MAX_PROOFS, MAX_PROTOCOL_BYTES, MAX_RANGES,
    MAX_RANGES_PER_MESSAGE, MAX_REASON_BYTES, MAX_RECORDS_PER_MESSAGE, Message, PIECE_BYTES,
    PieceRange, Range, RangeContent, Reconcile, Refusal, Reservation, ResponseStatus,
};
use crate::wire::generated::gossip::{self, message::Kind};
use crate::wire::{WireError, decode_frame, encode_frame};

fn refusal(kind: Kind) -> WireError {
    let frame = gossip::Frame { messages: vec![gossip::Message { kind: Some(kind) }] };
    decode_frame(Bytes::from(frame.encode_to_vec())).unwrap_err()
}

/// The generated form of one message, to be spoiled.
fn generated(message: Message) -> Kind {
    model::frame(&[message]).messages.remove(0).kind.unwrap()
}

#[track_caller]
fn over(error: &WireError, what: &str, limit: usize) {
    match error {
        WireError::Limit { what: found, actual, limit: bound } => {
            assert_eq!((*found, *bound), (what, limit as u64));
            assert!(actual > bound, "{error}");
        }
        other => panic!("expected a limit on {what}, got {other:?}"),
    }
}

#[test]
fn frames_and_messages_are_bounded() {
    let large = Bytes::from(vec![0; MAX_FRAME_BYTES + 1]);
    over(&decode_frame(large).unwrap_err(), "frame (bytes)", MAX_FRAME_BYTES);
    let ping = Message::Ping { nonce: 0 };
    let full = vec![ping.clone(); MAX_MESSAGES_PER_FRAME];
    assert_eq!(decode_frame(encode_frame(&full)).unwrap().len(), MAX_MESSAGES_PER_FRAME);
    let many = vec![ping; MAX_MESSAGES_PER_FRAME + 1];
    over(&decode_frame(encode_frame(&many)).unwrap_err(), "messages", MAX_MESSAGES_PER_FRAME);
}

#[test]
fn lists_are_bounded() {
    const LIMIT: usize = MAX_IDS_PER_MESSAGE;
    let lists: [fn(usize) -> Message; 7] = [
        |n| Message::Announce(vec![Announcement { id: id(1), size: 1, hop: 1 }; n]),
        |n| Message::Want(vec![id(1); n]),
        |n| Message::Busy(vec![id(1); n]),
        |n| Message::Missing(vec![id(1); n]),
        |n| Message::Duplicate(vec![id(1); n]),
        |n| Message::Early(vec![id(1); n]),
        |n| Message::Stored(vec![id(1); n]),
    ];
    let refused = |n| Message::Refused { list: vec![(id(1), Refusal::Skewed); n], clock: None };
    let lists = lists.into_iter().chain([refused as fn(usize) -> Message]);
    for list in lists {
        assert!(decode_frame(encode_frame(&[list(LIMIT)])).is_ok());
        let error = decode_frame(encode_frame(&[list(LIMIT + 1)])).unwrap_err();
        over(&error, "ids", LIMIT);
    }
    let peers = |n| encode_frame(&[Message::Peers { records: vec![record(&[]); n], relays: 0 }]);
    assert!(decode_frame(peers(MAX_RECORDS_PER_MESSAGE)).is_ok());
    let error = decode_frame(peers(MAX_RECORDS_PER_MESSAGE + 1)).unwrap_err();
    over(&error, "records", MAX_RECORDS_PER_MESSAGE);
    let endpoints = |n| {
        encode_frame(&[Message::Peers { records: vec![record(&vec!["1.2.3.4:5"; n])], relays: 0 }])
    };
    assert!(decode_frame(endpoints(MAX_ENDPOINTS)).is_ok());
    over(&decode_frame(endpoints(MAX_ENDPOINTS + 1)).unwrap_err(), "endpoints", MAX_ENDPOINTS);
}

#[test]
fn texts_are_bounded_and_checked() {
    let Kind::Hello(hello) = generated(super::examples().remove(0)) else { unreachable!() };
    let network = "n".repeat(MAX_NETWORK_BYTES + 1);
    let error = refusal(Kind::Hello(gossip::Hello { network, ..hello.clone() }));
    over(&error, "network name (bytes)", MAX_NETWORK_BYTES);
    let error = refusal(Kind::Hello(gossip::Hello { record: None, ..hello.clone() }));
    assert_eq!(error, WireError::Missing { what: "record" });
    let observed = Bytes::from_static(b"12345");
    let error = refusal(Kind::Hello(gossip::Hello { observed, ..hello.clone() }));
    assert!(matches!(error, WireError::Length { what: "observed address", actual: 5, .. }));

    let proofs = |lengths: &[usize]| {
        let proofs = lengths.iter().map(|length| vec![7; *length].into()).collect();
        refusal(Kind::Hello(gossip::Hello { proofs, ..hello.clone() }))
    };
    over(&proofs(&[32; MAX_PROOFS + 1]), "proofs", MAX_PROOFS);
    for length in [0, 31, 33, 4096] {
        let error = proofs(&[length]);
        assert!(
            matches!(error, WireError::Length { what: "proof", actual, .. } if actual == length)
        );
    }

    let interest = |topics: Bytes| {
        let interest = Some(gossip::Interest { topics, ..Default::default() });
        refusal(Kind::Hello(gossip::Hello { interest, ..hello.clone() }))
    };
    let keys = |n: u64| (0..n).flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    over(&interest(keys(MAX_INTERESTS as u64 + 1).into()), "topics", MAX_INTERESTS);
    let error = interest(keys(2)[..15].to_vec().into());
    assert!(matches!(error, WireError::Length { what: "topics", actual: 15, .. }));
    assert_eq!(interest(keys(1).repeat(2).into()), WireError::Order { what: "topics" });

    let own = hello.record.unwrap();
    let peers = |record| refusal(Kind::Peers(gossip::Peers { records: vec![record], relays: 0 }));
    let endpoints = vec![format!("{}:1", "h".repeat(600))];
    over(&peers(gossip::Record { endpoints, ..own.clone() }), "endpoint (bytes)", 512);
    for text in ["", "ho st:1", "host:1\n"] {
        let endpoints = vec![text.to_owned()];
        let error = peers(gossip::Record { endpoints, ..own.clone() });
        assert_eq!(error, WireError::Text { what: "endpoint" });
    }
    let error = peers(gossip::Record { signature: Bytes::new(), ..own.clone() });
    assert!(matches!(error, WireError::Length { what: "record signature", actual: 0, .. }));
    let error = peers(gossip::Record { peer: Bytes::from_static(b"short"), ..own });
    assert!(matches!(error, WireError::Length { what: "peer id", actual: 5, .. }));
    // Network name that is no UTF-8: frame { hello { network: ff } }.
    let error = decode_frame(Bytes::from_static(&[0x0a, 5, 0x0a, 3, 0x0a, 1, 0xff])).unwrap_err();
    assert_eq!(error, WireError::Text { what: "network name" });
}

#[test]
fn parts_of_transactions_are_bounded_and_checked() {
    let Kind::Push(push) = generated(push("hello")) else { unreachable!() };
    let header = Bytes::from(vec![0; MAX_HEADER_BYTES + 1]);
    let error = refusal(Kind::Push(gossip::Push { header, ..push.clone() }));
    over(&error, "header (bytes)", MAX_HEADER_BYTES);
    let signature = Bytes::from(vec![0; 63]);
    let error = refusal(Kind::Push(gossip::Push { signature: signature.clone(), ..push.clone() }));
    assert!(matches!(error, WireError::Length { what: "signature", actual: 63, .. }));
    let error = refusal(Kind::Push(gossip::Push { hop: 65_536, ..push.clone() }));
    over(&error, "hop", 65_535);
    let payload = Bytes::from_static(b"other");
    let header = Bytes::from_static(b"no header");
    let error = refusal(Kind::Push(gossip::Push { header, payload, ..push.clone() }));
    assert_eq!(error, WireError::Transaction(InvalidTransaction::Header));
    let error = refusal(Kind::Push(gossip::Push { payload: Bytes::new(), ..push }));
    let wrong = InvalidTransaction::Length { actual: 0, expected: 5 };
    assert_eq!(error, WireError::Transaction(wrong));

    let piece = gossip::Piece { id: Bytes::from(vec![1; 32]), ..Default::default() };
    let data = Bytes::from(vec![0; PIECE_BYTES + 1]);
    over(&refusal(Kind::Piece(gossip::Piece { data, ..piece.clone() })), "piece (bytes)", 65_536);
    let error = refusal(Kind::Piece(gossip::Piece { id: Bytes::new(), ..piece.clone() }));
    assert!(matches!(error, WireError::Length { what: "id", actual: 0, .. }));
    let proof = Bytes::from(vec![0; MAX_PROOF_BYTES + 1]);
    let error = refusal(Kind::Piece(gossip::Piece { proof, ..piece }));
    over(&error, "proof (bytes)", MAX_PROOF_BYTES);

    let payload = Bytes::from(vec![0; PIECE_BYTES + 1]);
    let probe = gossip::Probe { payload: payload.clone(), ..Default::default() };
    over(&refusal(Kind::Probe(probe)), "probe (bytes)", PIECE_BYTES);
    let probe = gossip::Probe { wants: 65_537, ..Default::default() };
    over(&refusal(Kind::Probe(probe)), "wanted bytes", PIECE_BYTES);
    let probed = gossip::Probed { payload, ..Default::default() };
    over(&refusal(Kind::Probed(probed)), "probe (bytes)", PIECE_BYTES);

    let Kind::Offer(offer) = generated(super::offer("t", false)) else { unreachable!() };
    let offered = |offer| refusal(Kind::Offer(offer));
    let header = Bytes::from(vec![0; MAX_HEADER_BYTES + 1]);
    let error = offered(gossip::Offer { header, ..offer.clone() });
    over(&error, "header (bytes)", MAX_HEADER_BYTES);
    let error = offered(gossip::Offer { header: Bytes::from_static(b"none"), ..offer.clone() });
    assert_eq!(error, WireError::Transaction(InvalidTransaction::Header));
    let error = offered(gossip::Offer { signature, ..offer.clone() });
    assert!(matches!(error, WireError::Length { what: "signature", .. }));
    over(&offered(gossip::Offer { hop: 65_536, ..offer }), "hop", 65_535);
}

#[test]
fn ranges_are_bounded_and_paired() {
    let reserve = |runs| {
        let ranges = vec![PieceRange { first: 7, count: 1 }; runs];
        let (head, force, narrow) = (false, true, false);
        Message::Reserve(Reservation { id: id(1), place: 1, head, force, narrow, ranges })
    };
    assert!(decode_frame(encode_frame(&[reserve(MAX_RANGES)])).is_ok());
    let error = decode_frame(encode_frame(&[reserve(MAX_RANGES + 1)])).unwrap_err();
    over(&error, "ranges", MAX_RANGES);
    let ids = Bytes::from(vec![1; 32]);
    let odd = gossip::Reserve { id: ids, ranges: vec![1, 2, 3], ..Default::default() };
    let error = refusal(Kind::Reserve(odd));
    assert!(matches!(error, WireError::Length { what: "ranges", actual: 3, .. }));
}

#[test]
fn parallel_lists_agree() {
    let announce = |ids: usize, sizes: usize, hops: usize| {
        refusal(Kind::Announce(gossip::Announce {
            ids: Bytes::from(vec![1; ids]),
            sizes: vec![1; sizes],
            hops: vec![1; hops],
        }))
    };
    assert!(matches!(announce(33, 1, 1), WireError::Length { what: "ids", actual: 33, .. }));
    assert_eq!(announce(64, 1, 2), WireError::Unequal { what: "sizes", ids: 2 });
    assert_eq!(announce(64, 2, 0), WireError::Unequal { what: "hops", ids: 2 });
    assert_eq!(announce(0, 1, 1), WireError::Unequal { what: "sizes", ids: 0 });
    let ids = Bytes::from(vec![1; 64]);
    let error = refusal(Kind::Refused(gossip::Refused { ids, reasons: vec![1], clock_ms: 0 }));
    assert_eq!(error, WireError::Unequal { what: "reasons", ids: 2 });
    // Other encoders may write repeated numbers one by one: frame { announce { .. } }.
    let mut body = vec![0x0a, 32];
    body.extend_from_slice(id(1).as_bytes());
    body.extend_from_slice(&[0x10, 9, 0x18, 2]);
    let entry = [&[0x3a, 38][..], &body].concat();
    let frame = Bytes::from([&[0x0a, 40][..], &entry].concat());
    let expected = Message::Announce(vec![Announcement { id: id(1), size: 9, hop: 2 }]);
    assert_eq!(decode_frame(frame).unwrap(), [expected]);
}

#[test]
fn what_is_not_protobuf_is_named() {
    let refused = |bytes: &'static [u8]| decode_frame(Bytes::from_static(bytes)).unwrap_err();
    assert_eq!(refused(&[0x0a]), WireError::Protobuf("cut short"));
    assert_eq!(refused(&[0x0a, 5, 1]), WireError::Protobuf("cut short"));
    assert_eq!(refused(&[0x0b]), WireError::Protobuf("a wire type that is not in use"));
    assert_eq!(refused(&[0x02, 0]), WireError::Protobuf("a field number out of range"));
    let long = WireError::Protobuf("a number of more than 64 bits");
    assert_eq!(refused(&[0xff; 11]), long);
    assert_eq!(refused(&[0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]), long);
    assert_eq!(refused(&[0x08, 1]), WireError::WireType { what: "messages" });
    assert_eq!(refused(&[0x0a, 2, 0x18, 1]), WireError::WireType { what: "message kind" });
}

#[test]
fn one_bad_message_spoils_the_frame() {
    let mut frame = encode_frame(&[push("first"), Message::Ping { nonce: 1 }]).to_vec();
    frame.extend_from_slice(&[0x0a, 2, 0x1a, 9]);
    assert_eq!(decode_frame(Bytes::from(frame)).unwrap_err(), WireError::Protobuf("cut short"));
}

#[test]
fn ranges_are_bounded_and_in_order() {
    let range = |upper, content| Range { upper: super::bound(upper, &[]), content };
    let ask = |ranges| {
        Message::Ask(Box::new(Reconcile { session: 1, lower: super::bound(1, &[]), ranges }))
    };
    let refused = |message: Message| decode_frame(encode_frame(&[message])).unwrap_err();
    let many = (0..=MAX_RANGES_PER_MESSAGE as u64).map(|n| range(n + 2, RangeContent::Skip));
    over(&refused(ask(many.collect())), "ranges", MAX_RANGES_PER_MESSAGE);
    let half = || RangeContent::All(vec![(id(1), 1); MAX_IDS_PER_RECONCILE / 2 + 1]);
    let error = refused(ask(vec![range(2, half()), range(3, half())]));
    over(&error, "ids", MAX_IDS_PER_RECONCILE);
    for upper in [0, 1] {
        let error = refused(ask(vec![range(upper, RangeContent::Skip)]));
        assert_eq!(error, WireError::Order { what: "ranges" });
    }
    let Kind::Ask(good) = generated(ask(vec![range(2, half())])) else { unreachable!() };
    let spoiled = |spoil: fn(&mut gossip::Range)| {
        let mut ask = good.clone();
        spoil(&mut ask.ranges[0]);
        refusal(Kind::Ask(ask))
    };
    let error = spoiled(|r| r.sizes.truncate(1));
    assert!(matches!(error, WireError::Unequal { what: "sizes", .. }), "{error}");
    assert_eq!(
        spoiled(|r| r.id = Bytes::from(vec![1; 33])),
        WireError::Length { what: "bound", actual: 33, expected: "up to 32" }
    );
    over(&spoiled(|r| r.kind = 3), "range kind", 2);
    let error = spoiled(|r| (r.kind, r.print) = (0, Bytes::from(vec![1; 15])));
    assert!(matches!(error, WireError::Length { what: "print", actual: 15, .. }), "{error}");
}

#[test]
fn requests_and_answers_are_bounded_and_checked() {
    let protocol = || "p".to_owned();
    let request = gossip::Request { protocol: protocol(), ..Default::default() };
    let asked = |request| refusal(Kind::Request(request));
    let long = "p".repeat(MAX_PROTOCOL_BYTES + 1);
    let error = asked(gossip::Request { protocol: long, ..Default::default() });
    over(&error, "protocol (bytes)", MAX_PROTOCOL_BYTES);
    for name in ["", " ", "a b", "tab\t", "p\u{e9}", "nul\0"] {
        let error = asked(gossip::Request { protocol: name.to_owned(), ..Default::default() });
        assert_eq!(error, WireError::Text { what: "protocol" }, "{name:?}");
    }
    let (large, size) = (Bytes::from(vec![0; PIECE_BYTES + 1]), u64::MAX);
    let error = asked(gossip::Request { body: large.clone(), size, ..request.clone() });
    over(&error, "part (bytes)", PIECE_BYTES);
    let body = Bytes::from_static(b"four");
    let error = asked(gossip::Request { body: body.clone(), size: 3, ..request.clone() });
    over(&error, "part (bytes)", 3);

    let answered = |response| refusal(Kind::Response(response));
    let reason = "r".repeat(MAX_REASON_BYTES + 1);
    let error = answered(gossip::Response { reason, ..Default::default() });
    over(&error, "reason (bytes)", MAX_REASON_BYTES);
    let error = answered(gossip::Response { body: large.clone(), size, ..Default::default() });
    over(&error, "part (bytes)", PIECE_BYTES);
    let error = answered(gossip::Response { body, size: 0, ..Default::default() });
    over(&error, "part (bytes)", 0);
    let part = gossip::BodyPart { data: large, ..Default::default() };
    over(&refusal(Kind::BodyPart(part)), "part (bytes)", PIECE_BYTES);
    // Of a later version: a status that is not known is a failure, and other fields are skipped.
    let response = gossip::Response { status: 77, ..Default::default() };
    let frame =
        gossip::Frame { messages: vec![gossip::Message { kind: Some(Kind::Response(response)) }] };
    let [Message::Response { status, .. }] =
        &decode_frame(frame.encode_to_vec().into()).unwrap()[..]
    else {
        unreachable!()
    };
    assert_eq!(*status, ResponseStatus::Failed);
}

#[test]
fn dial_backs_are_checked() {
    use crate::types::PeerId;
    let task = || {
        let address = "192.0.2.1:443".parse().unwrap();
        let peer = PeerId::from_bytes([7; 32]);
        match generated(Message::DialBackTask { nonce: 1, address, peer }) {
            Kind::DialBackTask(task) => task,
            other => panic!("{other:?}"),
        }
    };
    let error = refusal(Kind::DialBackTask(gossip::DialBackTask { port: 65_536, ..task() }));
    over(&error, "port", 65_535);
    let error = refusal(Kind::DialBack(gossip::DialBack { nonce: 1, port: 65_536 }));
    over(&error, "port", 65_535);
    for (ip, peer) in [(0, 32), (5, 32), (4, 31), (16, 33)] {
        let (ip, peer) = (vec![1; ip].into(), vec![7; peer].into());
        let error = refusal(Kind::DialBackTask(gossip::DialBackTask { ip, peer, ..task() }));
        assert!(matches!(error, WireError::Length { .. } | WireError::Missing { .. }), "{error}");
    }
    for length in [1, 31, 33] {
        let dialler = vec![7; length].into();
        let result = gossip::DialBackResult { nonce: 1, outcome: 2, dialler };
        let error = refusal(Kind::DialBackResult(result));
        assert!(matches!(error, WireError::Length { what: "dialler", .. }), "{error}");
    }
}
