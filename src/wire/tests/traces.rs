//! Trace contexts: where they stand, and that a wrong one costs nothing but itself.

use bytes::Bytes;
use prost::Message as _;

use super::{model, offer, push};
use crate::types::{Message, TraceContext};
use crate::wire::generated::gossip::{self, message::Kind};
use crate::wire::{decode_frame, encode_frame};

const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// The same as a field: number 15, 26 bytes.
const FIELD: &str = "7a1a004bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701";

fn context() -> Option<TraceContext> {
    TraceContext::parse(TEXT)
}

/// One message of every kind that carries a context, with this one.
fn carriers(trace: Option<TraceContext>) -> [Message; 3] {
    let Message::Push { transaction, hop } = push("one widget") else { panic!() };
    let Message::Offer(mut offer) = offer("orders", true) else { panic!() };
    offer.head = offer.head.with_trace(trace);
    let body = Bytes::from_static(b"ask");
    let (id, protocol) = (300, "orders.quote/1".to_owned());
    [
        Message::Push { transaction: transaction.with_trace(trace), hop },
        Message::Offer(offer),
        Message::Request { id, protocol, size: 3, timeout_ms: 30_000, body, trace },
    ]
}

/// The context that a message carries.
fn carried(message: &Message) -> Option<TraceContext> {
    match message {
        Message::Push { transaction, .. } => transaction.trace(),
        Message::Offer(offer) => offer.head.trace(),
        Message::Request { trace, .. } => *trace,
        _ => None,
    }
}

#[test]
fn a_context_is_the_last_field_of_what_it_belongs_to() {
    assert!(context().is_some());
    for (traced, plain) in carriers(context()).into_iter().zip(carriers(None)) {
        let frame = encode_frame(std::slice::from_ref(&traced));
        let shown = frame.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert!(shown.ends_with(FIELD), "{}: {shown}", traced.kind());
        let read = decode_frame(frame).unwrap();
        assert_eq!((carried(&read[0]), &read[0]), (context(), &traced));
        assert_eq!(traced.weight() - plain.weight(), FIELD.len() / 2);
        let frame = encode_frame(std::slice::from_ref(&plain));
        assert_eq!(carried(&decode_frame(frame).unwrap()[0]), None);
    }
}

#[test]
fn a_malformed_context_is_none_and_no_error() {
    let good = context().unwrap();
    let mut wrong = vec![vec![1; 25], vec![1; 27], vec![0; 26], vec![1; 70_000]];
    for (at, value) in [(0, 0xff), (25, 0), (25, 2)] {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = value;
        wrong.push(bytes);
    }
    for trace in wrong.into_iter().map(Bytes::from) {
        for message in carriers(context()) {
            let mut kind = model::frame(&[message]).messages.remove(0).kind.unwrap();
            match &mut kind {
                Kind::Push(push) => push.trace = trace.clone(),
                Kind::Offer(offer) => offer.trace = trace.clone(),
                Kind::Request(request) => request.trace = trace.clone(),
                other => panic!("{other:?}"),
            }
            let frame = gossip::Frame { messages: vec![gossip::Message { kind: Some(kind) }] };
            let read = decode_frame(frame.encode_to_vec().into()).unwrap();
            assert_eq!(carried(&read[0]), None, "{trace:?}");
        }
    }
}

#[test]
fn a_context_of_another_type_is_none_and_no_error() {
    for message in carriers(None) {
        let plain = encode_frame(std::slice::from_ref(&message));
        // The lengths of frame entry and kind each grow by the two bytes of the field.
        let kind = model::frame(std::slice::from_ref(&message)).messages.remove(0).encode_to_vec();
        let mut inner = &kind[..];
        let key = prost::encoding::decode_varint(&mut inner).unwrap();
        let _ = prost::encoding::decode_varint(&mut inner).unwrap();
        let mut body = inner.to_vec();
        prost::encoding::uint64::encode(15, &7, &mut body);
        let (mut entry, mut frame) = (Vec::new(), Vec::new());
        prost::encoding::bytes::encode(u32::try_from(key >> 3).unwrap(), &body, &mut entry);
        prost::encoding::bytes::encode(1, &entry, &mut frame);
        assert_eq!(frame.len(), plain.len() + 2);
        assert_eq!(decode_frame(frame.into()).unwrap(), [message]);
    }
}
