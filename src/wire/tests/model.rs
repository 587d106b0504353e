//! Messages as the types generated from the proto: what the hand-written code must agree with.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use crate::types::{
    Hello, Interest, Message, Offer, PeerRecord, Range, RangeContent, Reconcile, Signature,
    TraceContext, TransactionId, WallTime,
};
use crate::wire::convert::{outcome_code, reason_code, refusal_code, status_code};
use crate::wire::generated::gossip::{self, message::Kind};

pub(super) fn frame(messages: &[Message]) -> gossip::Frame {
    gossip::Frame { messages: messages.iter().map(message).collect() }
}

fn message(message: &Message) -> gossip::Message {
    gossip::Message { kind: Some(kind(message)) }
}

fn kind(message: &Message) -> Kind {
    match message {
        Message::Hello(hello) => Kind::Hello(self::hello(hello)),
        Message::Goodbye { reason, retry_after } => Kind::Goodbye(gossip::Goodbye {
            reason: reason_code(*reason),
            retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap(),
        }),
        Message::Ping { nonce } => Kind::Ping(gossip::Ping { nonce: *nonce }),
        Message::Pong { nonce } => Kind::Pong(gossip::Pong { nonce: *nonce }),
        Message::PeersRequest { max } => Kind::PeersRequest(gossip::PeersRequest { max: *max }),
        Message::Peers { records, relays } => Kind::Peers(gossip::Peers {
            records: records.iter().map(record).collect(),
            relays: *relays,
        }),
        Message::Interest(interest) => Kind::Interest(self::interest(interest)),
        Message::Announce(list) => Kind::Announce(gossip::Announce {
            ids: ids(list.iter().map(|a| a.id)),
            sizes: list.iter().map(|a| a.size).collect(),
            hops: list.iter().map(|a| u32::from(a.hop)).collect(),
        }),
        Message::Want(list) => Kind::Want(gossip::Want { ids: ids(list.iter().copied()) }),
        Message::Missing(list) => Kind::Missing(id_list(list)),
        Message::Push { transaction, hop } => Kind::Push(gossip::Push {
            hop: u32::from(*hop),
            header: transaction.header_bytes().clone(),
            signature: signature(transaction.signature()),
            payload: transaction.payload().clone(),
            trace: trace(transaction.trace()),
        }),
        Message::Piece(piece) => Kind::Piece(gossip::Piece {
            id: ids([piece.id]),
            index: piece.index,
            data: piece.bytes.clone(),
            proof: piece.proof.clone(),
        }),
        Message::Duplicate(list) => Kind::Duplicate(id_list(list)),
        Message::Early(list) => Kind::Early(id_list(list)),
        Message::Stored(list) => Kind::Stored(id_list(list)),
        Message::Offer(offer) => Kind::Offer(self::offer(offer)),
        Message::Reserve(r) => Kind::Reserve(gossip::Reserve {
            id: ids([r.id]),
            place: r.place,
            head: r.head,
            force: r.force,
            narrow: r.narrow,
            ranges: r.ranges.iter().flat_map(|range| [range.first, range.count]).collect(),
        }),
        Message::Busy(list) => Kind::Busy(id_list(list)),
        Message::Receiving { id, place } => {
            Kind::Receiving(gossip::Receiving { id: ids([*id]), place: *place })
        }
        Message::Flushed => Kind::Flushed(gossip::Flushed {}),
        Message::Refused { list, clock } => Kind::Refused(gossip::Refused {
            ids: ids(list.iter().map(|(id, _)| *id)),
            reasons: list.iter().map(|(_, reason)| refusal_code(*reason)).collect(),
            clock_ms: clock.map_or(0, WallTime::as_millis),
        }),
        Message::Probe { nonce, payload, wants } => {
            Kind::Probe(gossip::Probe { nonce: *nonce, payload: payload.clone(), wants: *wants })
        }
        Message::Probed { nonce, received, payload } => Kind::Probed(gossip::Probed {
            nonce: *nonce,
            received: *received,
            payload: payload.clone(),
        }),
        Message::Switch { step } => Kind::Switch(gossip::Switch { step: *step }),
        Message::Request { id, protocol, size, timeout_ms, body, trace } => {
            Kind::Request(gossip::Request {
                id: *id,
                protocol: protocol.clone(),
                size: *size,
                timeout_ms: *timeout_ms,
                body: body.clone(),
                trace: self::trace(*trace),
            })
        }
        Message::Response { id, status, size, body, reason } => Kind::Response(gossip::Response {
            id: *id,
            status: status_code(*status),
            size: *size,
            body: body.clone(),
            reason: reason.clone(),
        }),
        Message::BodyPart { id, of_answer, data } => {
            Kind::BodyPart(gossip::BodyPart { id: *id, of_answer: *of_answer, data: data.clone() })
        }
        Message::CancelRequest { id } => Kind::CancelRequest(gossip::CancelRequest { id: *id }),
        Message::DialBack { .. }
        | Message::DialBackTask { .. }
        | Message::DialBackResult { .. } => dial_back(message),
        Message::Ask(ranges) => Kind::Ask(reconcile(ranges)),
        Message::Answer(ranges) => Kind::Answer(reconcile(ranges)),
        Message::Yours { lower, upper } => Kind::Yours(gossip::Yours {
            created: lower.created.as_millis(),
            id: prefix(&lower.id),
            upper_created: upper.created.as_millis().wrapping_add(1),
            upper_id: prefix(&upper.id),
        }),
    }
}

fn dial_back(message: &Message) -> Kind {
    match message {
        Message::DialBack { nonce, port } => {
            Kind::DialBack(gossip::DialBack { nonce: *nonce, port: u32::from(*port) })
        }
        Message::DialBackTask { nonce, address, peer } => {
            Kind::DialBackTask(gossip::DialBackTask {
                nonce: *nonce,
                ip: ip(address.ip()),
                port: u32::from(address.port()),
                peer: Bytes::copy_from_slice(peer.as_bytes()),
            })
        }
        Message::DialBackResult { nonce, outcome, dialler } => {
            let bytes = |peer: &crate::types::PeerId| Bytes::copy_from_slice(peer.as_bytes());
            Kind::DialBackResult(gossip::DialBackResult {
                nonce: *nonce,
                outcome: outcome_code(*outcome),
                dialler: dialler.as_ref().map(bytes).unwrap_or_default(),
            })
        }
        other => panic!("{other:?}"),
    }
}

fn offer(offer: &Offer) -> gossip::Offer {
    gossip::Offer {
        hop: u32::from(offer.hop),
        header: offer.head.header_bytes().clone(),
        signature: signature(offer.head.signature()),
        complete: offer.complete,
        place: offer.place,
        trace: trace(offer.head.trace()),
    }
}

fn reconcile(ranges: &Reconcile) -> gossip::Reconcile {
    gossip::Reconcile {
        session: ranges.session,
        created: ranges.lower.created.as_millis(),
        id: prefix(&ranges.lower.id),
        ranges: ranges.ranges.iter().map(range).collect(),
    }
}

fn range(range: &Range) -> gossip::Range {
    let (print, kind, list) = match &range.content {
        RangeContent::Skip => (Bytes::new(), 0, &[][..]),
        RangeContent::Print(print) => (Bytes::copy_from_slice(print), 0, &[][..]),
        RangeContent::All(list) => (Bytes::new(), 1, &list[..]),
        RangeContent::Rest(list) => (Bytes::new(), 2, &list[..]),
    };
    gossip::Range {
        created: range.upper.created.as_millis().wrapping_add(1),
        id: prefix(&range.upper.id),
        print,
        kind,
        ids: ids(list.iter().map(|(id, _)| *id)),
        sizes: list.iter().map(|(_, size)| *size).collect(),
    }
}

fn prefix(id: &TransactionId) -> Bytes {
    let mut bytes = id.as_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes.into()
}

fn ip(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

fn hello(hello: &Hello) -> gossip::Hello {
    let observed = hello.observed.map(ip).unwrap_or_default();
    gossip::Hello {
        network: hello.network.clone(),
        version_min: hello.version_min,
        version_max: hello.version_max,
        features: hello.features.0,
        incarnation: hello.incarnation,
        max_transaction: hello.max_transaction,
        record: Some(record(&hello.record)),
        observed,
        interest: (hello.interest != Interest::default()).then(|| interest(&hello.interest)),
        owes: hello.owes,
        clock_ms: hello.clock.map_or(0, WallTime::as_millis),
        complete_since_ms: hello.complete_since.map_or(0, WallTime::as_millis),
        takes_over: hello.takes_over,
        proofs: hello.proofs.iter().map(|proof| Bytes::copy_from_slice(proof)).collect(),
        dial_back: hello.dial_back,
    }
}

fn interest(interest: &Interest) -> gossip::Interest {
    let topics = interest.topics.iter().flatten().flat_map(|topic| topic.0.to_le_bytes());
    gossip::Interest {
        depth: u32::from(interest.depth),
        makeshift: interest.makeshift,
        via: interest.via,
        everything: interest.topics.is_none(),
        topics: topics.collect(),
    }
}

fn record(record: &PeerRecord) -> gossip::Record {
    gossip::Record {
        peer: Bytes::copy_from_slice(record.draft.peer.as_bytes()),
        seq: record.draft.seq,
        issued: record.draft.issued.as_millis(),
        endpoints: record.texts().into_iter().map(Cow::into_owned).collect(),
        signature: Bytes::copy_from_slice(&record.signature),
    }
}

fn trace(trace: Option<TraceContext>) -> Bytes {
    trace.map(|trace| Bytes::copy_from_slice(trace.as_bytes())).unwrap_or_default()
}

fn signature(signature: &Signature) -> Bytes {
    Bytes::copy_from_slice(signature.as_bytes())
}

fn ids(ids: impl IntoIterator<Item = TransactionId>) -> Bytes {
    ids.into_iter().flat_map(|id| *id.as_bytes()).collect()
}

fn id_list(list: &[TransactionId]) -> gossip::Ids {
    gossip::Ids { ids: ids(list.iter().copied()) }
}
