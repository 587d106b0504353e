//! Protobuf to messages, by hand: so that every count is checked before anything is allocated.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::WireError;
use super::convert::{TRACE, exactly, ip_of, kind, reason_of, refusal_of, signature_of, trace_of};
use super::fields::Fields;
use super::{decode_dial_back, decode_request};
use crate::types::{
    Announcement, Bound, Features, Head, Hello, Interest, MAX_ENDPOINTS, MAX_HEADER_BYTES,
    MAX_IDS_PER_MESSAGE, MAX_IDS_PER_RECONCILE, MAX_INTERESTS, MAX_NETWORK_BYTES, MAX_PROOF_BYTES,
    MAX_PROOFS, MAX_RANGES, MAX_RANGES_PER_MESSAGE, MAX_RECORDS_PER_MESSAGE, Message, NOWHERE,
    Offer, PIECE_BYTES, PeerId, PeerRecord, Piece, PieceRange, Range, RangeContent, Reconcile,
    Refusal, Reservation, TopicKey, Transaction, TransactionId, WallTime,
};

/// Maximum length of an endpoint's text: a scheme, a name of 254 bytes, a port, a path of 128 bytes, and room for
/// what later versions add.
const MAX_ENDPOINT_BYTES: usize = 512;

/// Reads the body of one entry of a frame; `None` for a kind that this version does not know.
/// `frame` is what `body` is a part of.
pub(super) fn message(frame: &Bytes, body: &[u8]) -> Result<Option<Message>, WireError> {
    let mut known = None;
    for field in Fields(body) {
        let (number, value) = field?;
        if (kind::HELLO..=kind::LAST).contains(&number) {
            // Of several members of a oneof the last one counts.
            known = Some((number, value.bytes("message kind")?));
        }
    }
    let Some((number, body)) = known else { return Ok(None) };
    Ok(Some(match number {
        kind::HELLO => Message::Hello(Box::new(hello(body)?)),
        kind::GOODBYE => goodbye(body)?,
        kind::PING => Message::Ping { nonce: nonce(body)? },
        kind::PONG => Message::Pong { nonce: nonce(body)? },
        kind::PEERS_REQUEST => peers_request(body)?,
        kind::PEERS => peers(body)?,
        kind::ANNOUNCE => Message::Announce(announcements(body)?),
        kind::WANT => Message::Want(id_list(body)?),
        kind::MISSING => Message::Missing(id_list(body)?),
        kind::PUSH => push(frame, body)?,
        kind::PIECE => Message::Piece(piece(frame, body)?),
        kind::DUPLICATE => Message::Duplicate(id_list(body)?),
        kind::EARLY => Message::Early(id_list(body)?),
        kind::STORED => Message::Stored(id_list(body)?),
        kind::ASK => Message::Ask(Box::new(reconcile(body)?)),
        kind::ANSWER => Message::Answer(Box::new(reconcile(body)?)),
        kind::YOURS => yours(body)?,
        kind::OFFER => Message::Offer(Box::new(offer(body)?)),
        kind::RESERVE => Message::Reserve(reservation(body)?),
        kind::BUSY => Message::Busy(id_list(body)?),
        kind::RECEIVING => receiving(body)?,
        kind::INTEREST => Message::Interest(interest(body)?),
        kind::FLUSHED => Message::Flushed,
        kind::REFUSED => refused(body)?,
        kind::PROBE => probe(frame, body)?,
        kind::PROBED => probed(frame, body)?,
        kind::SWITCH => switch(body)?,
        kind::REQUEST => decode_request::request(frame, body)?,
        kind::RESPONSE => decode_request::response(frame, body)?,
        kind::BODY_PART => decode_request::body_part(frame, body)?,
        kind::CANCEL_REQUEST => decode_request::cancel_request(body)?,
        kind::DIAL_BACK => decode_dial_back::request(body)?,
        kind::DIAL_BACK_TASK => decode_dial_back::task(body)?,
        kind::DIAL_BACK_RESULT => decode_dial_back::result(body)?,
        _ => return Ok(None),
    }))
}

fn hello(body: &[u8]) -> Result<Hello, WireError> {
    let (mut network, mut own, mut observed) = (&[][..], None, &[][..]);
    let mut wanted = None;
    let (mut version_min, mut version_max) = (0, 0);
    let (mut features, mut incarnation, mut max_transaction) = (0, 0, 0);
    let (mut owes, mut clock, mut complete_since) = (false, 0, 0);
    let (mut proofs, mut takes_over, mut dial_back) = (Vec::new(), false, 0);
    for field in Fields(body) {
        let (number, value) = field?;
        match number {
            1 => network = value.bytes("network")?,
            2 => version_min = value.uint32("version_min")?,
            3 => version_max = value.uint32("version_max")?,
            4 => features = value.uint("features")?,
            5 => incarnation = value.uint("incarnation")?,
            6 => max_transaction = value.uint("max_transaction")?,
            7 => own = Some(value.bytes("record")?),
            8 => observed = value.bytes("observed address")?,
            9 => wanted = Some(value.bytes("interest")?),
            11 => owes = value.uint("owes")? != 0,
            12 => clock = value.uint("clock_ms")?,
            13 => {
                WireError::bound("proofs", proofs.len() + 1, MAX_PROOFS)?;
                proofs.push(exactly("proof", value.bytes("proof")?, "32")?);
            }
            14 => complete_since = value.uint("complete_since_ms")?,
            15 => takes_over = value.uint("takes_over")? != 0,
            16 => dial_back = value.fixed64("dial_back")?,
            _ => {}
        }
    }
    WireError::bound("network name (bytes)", network.len(), MAX_NETWORK_BYTES)?;
    Ok(Hello {
        network: text("network name", network)?.to_owned(),
        version_min,
        version_max,
        features: Features(features),
        incarnation,
        max_transaction,
        record: record(own.ok_or(WireError::Missing { what: "record" })?)?,
        observed: ip_of(observed)?,
        interest: wanted.map_or(Ok(Interest::default()), interest)?,
        owes,
        clock: time_of(clock),
        complete_since: time_of(complete_since),
        takes_over,
        proofs,
        dial_back,
    })
}

/// Reads a time that a peer tells: 0 says nothing.
fn time_of(millis: u64) -> Option<WallTime> {
    (millis != 0).then(|| WallTime::from_millis(millis))
}

fn switch(body: &[u8]) -> Result<Message, WireError> {
    let mut step = 0;
    for field in Fields(body) {
        if let (1, value) = field? {
            step = value.uint32("step")?;
        }
    }
    Ok(Message::Switch { step })
}

fn goodbye(body: &[u8]) -> Result<Message, WireError> {
    let (mut code, mut millis) = (0, 0);
    for field in Fields(body) {
        match field? {
            (1, value) => code = value.uint("reason")?,
            (2, value) => millis = value.uint("retry_after_ms")?,
            _ => {}
        }
    }
    Ok(Message::Goodbye { reason: reason_of(code), retry_after: Duration::from_millis(millis) })
}

fn nonce(body: &[u8]) -> Result<u64, WireError> {
    let mut nonce = 0;
    for field in Fields(body) {
        if let (1, value) = field? {
            nonce = value.fixed64("nonce")?;
        }
    }
    Ok(nonce)
}

fn peers_request(body: &[u8]) -> Result<Message, WireError> {
    let mut max = 0;
    for field in Fields(body) {
        if let (1, value) = field? {
            max = value.uint32("max")?;
        }
    }
    Ok(Message::PeersRequest { max })
}

fn peers(body: &[u8]) -> Result<Message, WireError> {
    WireError::bound("records", occurrences(body, 1)?, MAX_RECORDS_PER_MESSAGE)?;
    let (mut records, mut relays) = (Vec::new(), 0);
    for field in Fields(body) {
        match field? {
            (1, value) => records.push(record(value.bytes("record")?)?),
            (2, value) => relays = value.uint32("relays")?,
            _ => {}
        }
    }
    Ok(Message::Peers { records, relays })
}

fn interest(body: &[u8]) -> Result<Interest, WireError> {
    let (mut depth, mut makeshift, mut via) = (0, false, 0);
    let (mut everything, mut topics) = (false, &[][..]);
    for field in Fields(body) {
        match field? {
            // A later version may count further.
            (1, value) => depth = value.uint("depth")?.min(u64::from(NOWHERE)),
            (2, value) => makeshift = value.uint("makeshift")? != 0,
            (3, value) => via = value.fixed64("via")?,
            (4, value) => everything = value.uint("everything")? != 0,
            (5, value) => topics = value.bytes("topics")?,
            _ => {}
        }
    }
    let actual = topics.len();
    let (chunks, rest) = topics.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError::Length { what: "topics", actual, expected: "a multiple of 8" });
    }
    WireError::bound("topics", chunks.len(), MAX_INTERESTS)?;
    let topics: Vec<_> = chunks.iter().map(|key| TopicKey(u64::from_le_bytes(*key))).collect();
    if !topics.is_sorted_by(|a, b| a < b) {
        return Err(WireError::Order { what: "topics" });
    }
    Ok(Interest {
        depth: u8::try_from(depth).unwrap_or(NOWHERE),
        makeshift,
        via,
        topics: (!everything).then_some(topics),
    })
}

fn record(body: &[u8]) -> Result<PeerRecord, WireError> {
    WireError::bound("endpoints", occurrences(body, 4)?, MAX_ENDPOINTS)?;
    let (mut peer, mut signature) = (&[][..], &[][..]);
    let (mut seq, mut issued) = (0, 0);
    let mut endpoints = Vec::new();
    for field in Fields(body) {
        let (number, value) = field?;
        match number {
            1 => peer = value.bytes("peer id")?,
            2 => seq = value.uint("seq")?,
            3 => issued = value.uint("issued")?,
            4 => {
                let bytes = value.bytes("endpoint")?;
                WireError::bound("endpoint (bytes)", bytes.len(), MAX_ENDPOINT_BYTES)?;
                endpoints.push(text("endpoint", bytes)?);
            }
            5 => signature = value.bytes("record signature")?,
            _ => {}
        }
    }
    let peer = PeerId::from_bytes(exactly("peer id", peer, "32")?);
    let issued = WallTime::from_millis(issued);
    let signature = exactly("record signature", signature, "64")?;
    PeerRecord::read(peer, seq, issued, &endpoints, signature)
        .ok_or(WireError::Text { what: "endpoint" })
}

fn announcements(body: &[u8]) -> Result<Vec<Announcement>, WireError> {
    let mut list: Vec<_> = ids(body)?.map(|id| Announcement { id, size: 0, hop: 0 }).collect();
    let ids = list.len();
    let (mut sizes, mut hops) = (0, 0);
    for field in Fields(body) {
        match field? {
            (2, value) => value.each("sizes", |size| {
                at(&mut list, &mut sizes, "sizes")?.size = size.uint("size")?;
                Ok(())
            })?,
            (3, value) => value.each("hops", |hop| {
                at(&mut list, &mut hops, "hops")?.hop = hop.hop()?;
                Ok(())
            })?,
            _ => {}
        }
    }
    match ids {
        _ if sizes != ids => Err(WireError::Unequal { what: "sizes", ids }),
        _ if hops != ids => Err(WireError::Unequal { what: "hops", ids }),
        _ => Ok(list),
    }
}

fn refused(body: &[u8]) -> Result<Message, WireError> {
    let mut list: Vec<_> = ids(body)?.map(|id| (id, Refusal::Ignored)).collect();
    let ids = list.len();
    let (mut reasons, mut clock) = (0, 0);
    for field in Fields(body) {
        match field? {
            (2, value) => value.each("reasons", |reason| {
                at(&mut list, &mut reasons, "reasons")?.1 = refusal_of(reason.uint("reason")?);
                Ok(())
            })?,
            (3, value) => clock = value.uint("clock_ms")?,
            _ => {}
        }
    }
    if reasons != ids {
        return Err(WireError::Unequal { what: "reasons", ids });
    }
    Ok(Message::Refused { list, clock: time_of(clock) })
}

fn probe(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut nonce, mut payload, mut wants) = (0, &[][..], 0);
    for field in Fields(body) {
        match field? {
            (1, value) => nonce = value.fixed64("nonce")?,
            (2, value) => payload = value.bytes("payload")?,
            (3, value) => wants = value.at_most("wanted bytes", PIECE_BYTES as u64)?,
            _ => {}
        }
    }
    WireError::bound("probe (bytes)", payload.len(), PIECE_BYTES)?;
    let wants = u32::try_from(wants).unwrap_or(u32::MAX);
    Ok(Message::Probe { nonce, payload: frame.slice_ref(payload), wants })
}

fn probed(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut nonce, mut received, mut payload) = (0, 0, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => nonce = value.fixed64("nonce")?,
            (2, value) => received = value.uint32("received bytes")?,
            (3, value) => payload = value.bytes("payload")?,
            _ => {}
        }
    }
    WireError::bound("probe (bytes)", payload.len(), PIECE_BYTES)?;
    Ok(Message::Probed { nonce, received, payload: frame.slice_ref(payload) })
}

fn id_list(body: &[u8]) -> Result<Vec<TransactionId>, WireError> {
    Ok(ids(body)?.collect())
}

fn push(frame: &Bytes, body: &[u8]) -> Result<Message, WireError> {
    let (mut hop, mut header, mut signature, mut payload) = (0, &[][..], &[][..], &[][..]);
    let mut trace = None;
    for field in Fields(body) {
        match field? {
            (1, value) => hop = value.hop()?,
            (2, value) => header = value.bytes("header")?,
            (3, value) => signature = value.bytes("signature")?,
            (4, value) => payload = value.bytes("payload")?,
            (TRACE, value) => trace = trace_of(value),
            _ => {}
        }
    }
    WireError::bound("header (bytes)", header.len(), MAX_HEADER_BYTES)?;
    let signature = signature_of(signature)?;
    let (header, payload) = if is_most_of(payload, frame) {
        (Bytes::copy_from_slice(header), frame.slice_ref(payload))
    } else {
        together(header, payload)
    };
    let transaction = Transaction::from_parts(header, signature, payload)?.with_trace(trace);
    Ok(Message::Push { transaction, hop })
}

fn piece(frame: &Bytes, body: &[u8]) -> Result<Piece, WireError> {
    let (mut id, mut index, mut data, mut proof) = (&[][..], 0, &[][..], &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.bytes("id")?,
            (2, value) => index = value.uint32("index")?,
            (3, value) => data = value.bytes("piece")?,
            (4, value) => proof = value.bytes("proof")?,
            _ => {}
        }
    }
    WireError::bound("piece (bytes)", data.len(), PIECE_BYTES)?;
    WireError::bound("proof (bytes)", proof.len(), MAX_PROOF_BYTES)?;
    let id = TransactionId::from_bytes(exactly("id", id, "32")?);
    Ok(Piece { id, index, bytes: slice(frame, data), proof: Bytes::copy_from_slice(proof) })
}

fn offer(body: &[u8]) -> Result<Offer, WireError> {
    let (mut hop, mut header, mut signature) = (0, &[][..], &[][..]);
    let (mut complete, mut place, mut trace) = (false, 0, None);
    for field in Fields(body) {
        match field? {
            (1, value) => hop = value.hop()?,
            (2, value) => header = value.bytes("header")?,
            (3, value) => signature = value.bytes("signature")?,
            (4, value) => complete = value.uint("complete")? != 0,
            (5, value) => place = value.uint32("place")?,
            (TRACE, value) => trace = trace_of(value),
            _ => {}
        }
    }
    WireError::bound("header (bytes)", header.len(), MAX_HEADER_BYTES)?;
    let head = Head::from_parts(Bytes::copy_from_slice(header), signature_of(signature)?)?;
    Ok(Offer { head: head.with_trace(trace), hop, place, complete })
}

fn receiving(body: &[u8]) -> Result<Message, WireError> {
    let (mut id, mut place) = (&[][..], 0);
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.bytes("id")?,
            (2, value) => place = value.uint32("place")?,
            _ => {}
        }
    }
    let id = TransactionId::from_bytes(exactly("id", id, "32")?);
    Ok(Message::Receiving { id, place })
}

fn reservation(body: &[u8]) -> Result<Reservation, WireError> {
    let (mut id, mut place) = (&[][..], 0);
    let (mut head, mut force, mut narrow) = (false, false, false);
    let mut numbers: Vec<u32> = Vec::new();
    for field in Fields(body) {
        match field? {
            (1, value) => id = value.bytes("id")?,
            (2, value) => place = value.uint32("place")?,
            (3, value) => head = value.uint("head")? != 0,
            (4, value) => force = value.uint("force")? != 0,
            (5, value) => value.each("ranges", |number| {
                WireError::bound("ranges", numbers.len() / 2 + 1, MAX_RANGES)?;
                numbers.push(number.uint32("range")?);
                Ok(())
            })?,
            (6, value) => narrow = value.uint("narrow")? != 0,
            _ => {}
        }
    }
    let id = TransactionId::from_bytes(exactly("id", id, "32")?);
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        let actual = numbers.len();
        return Err(WireError::Length { what: "ranges", actual, expected: "pairs" });
    }
    let ranges = pairs.iter().map(|&[first, count]| PieceRange { first, count }).collect();
    Ok(Reservation { id, place, head, force, narrow, ranges })
}

fn reconcile(body: &[u8]) -> Result<Reconcile, WireError> {
    WireError::bound("ranges", occurrences(body, 4)?, MAX_RANGES_PER_MESSAGE)?;
    let (mut session, mut created, mut id) = (0, 0, &[][..]);
    let (mut ranges, mut room) = (Vec::new(), MAX_IDS_PER_RECONCILE);
    for field in Fields(body) {
        match field? {
            (1, value) => session = value.uint32("session")?,
            (2, value) => created = value.uint("created")?,
            (3, value) => id = value.bytes("bound")?,
            (4, value) => ranges.push(range(value.bytes("range")?, &mut room)?),
            _ => {}
        }
    }
    let lower = bound(created, id)?;
    let mut last = lower;
    for range in &ranges {
        if range.upper <= std::mem::replace(&mut last, range.upper) {
            return Err(WireError::Order { what: "ranges" });
        }
    }
    Ok(Reconcile { session, lower, ranges })
}

/// Reads a range; its ids are taken off `room`.
fn range(body: &[u8], room: &mut usize) -> Result<Range, WireError> {
    let (mut created, mut id, mut print, mut kind, mut list) = (0, &[][..], &[][..], 0, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => created = value.uint("created")?,
            (2, value) => id = value.bytes("bound")?,
            (3, value) => print = value.bytes("print")?,
            (4, value) => kind = value.at_most("range kind", 2)?,
            (5, value) => list = value.bytes("ids")?,
            _ => {}
        }
    }
    let upper = bound(created.wrapping_sub(1), id)?;
    let content = match kind {
        0 if print.is_empty() => RangeContent::Skip,
        0 => RangeContent::Print(exactly("print", print, "16")?),
        1 => RangeContent::All(sized(body, list, room)?),
        _ => RangeContent::Rest(sized(body, list, room)?),
    };
    Ok(Range { upper, content })
}

/// The ids of a range with their sizes in field 6.
fn sized(
    body: &[u8],
    list: &[u8],
    room: &mut usize,
) -> Result<Vec<(TransactionId, u64)>, WireError> {
    let found = split_ids(list)?;
    if found.len() > *room {
        let actual = (MAX_IDS_PER_RECONCILE - *room + found.len()) as u64;
        let limit = MAX_IDS_PER_RECONCILE as u64;
        return Err(WireError::Limit { what: "ids", actual, limit });
    }
    *room -= found.len();
    let mut list: Vec<_> = found.iter().map(|id| (TransactionId::from_bytes(*id), 0)).collect();
    let (ids, mut sizes) = (list.len(), 0);
    for field in Fields(body) {
        if let (6, value) = field? {
            value.each("sizes", |size| {
                at(&mut list, &mut sizes, "sizes")?.1 = size.uint("size")?;
                Ok(())
            })?;
        }
    }
    if sizes == ids { Ok(list) } else { Err(WireError::Unequal { what: "sizes", ids }) }
}

fn bound(created: u64, prefix: &[u8]) -> Result<Bound, WireError> {
    let mut id = [0; 32];
    let actual = prefix.len();
    let place = id.get_mut(..actual);
    let place = place.ok_or(WireError::Length { what: "bound", actual, expected: "up to 32" })?;
    place.copy_from_slice(prefix);
    let created = WallTime::from_millis(created);
    Ok(Bound { created, id: TransactionId::from_bytes(id) })
}

fn yours(body: &[u8]) -> Result<Message, WireError> {
    let (mut created, mut id, mut upper_created, mut upper_id) = (0, &[][..], 0, &[][..]);
    for field in Fields(body) {
        match field? {
            (1, value) => created = value.uint("created")?,
            (2, value) => id = value.bytes("bound")?,
            (3, value) => upper_created = value.uint("created")?,
            (4, value) => upper_id = value.bytes("bound")?,
            _ => {}
        }
    }
    let upper = bound(upper_created.wrapping_sub(1), upper_id)?;
    Ok(Message::Yours { lower: bound(created, id)?, upper })
}

/// The ids in field 1 of `body`, after their number was checked.
fn ids(body: &[u8]) -> Result<impl Iterator<Item = TransactionId>, WireError> {
    let mut bytes = &[][..];
    for field in Fields(body) {
        if let (1, value) = field? {
            bytes = value.bytes("ids")?;
        }
    }
    let ids = split_ids(bytes)?;
    WireError::bound("ids", ids.len(), MAX_IDS_PER_MESSAGE)?;
    Ok(ids.iter().map(|id| TransactionId::from_bytes(*id)))
}

fn split_ids(bytes: &[u8]) -> Result<&[[u8; 32]], WireError> {
    let (ids, rest) = bytes.as_chunks::<32>();
    let actual = bytes.len();
    if rest.is_empty() {
        Ok(ids)
    } else {
        Err(WireError::Length { what: "ids", actual, expected: "a multiple of 32" })
    }
}

/// The next entry of a list that runs beside the ids.
fn at<'a, T>(
    list: &'a mut [T],
    next: &mut usize,
    what: &'static str,
) -> Result<&'a mut T, WireError> {
    let ids = list.len();
    let entry = list.get_mut(*next).ok_or(WireError::Unequal { what, ids })?;
    *next += 1;
    Ok(entry)
}

fn occurrences(body: &[u8], wanted: u32) -> Result<usize, WireError> {
    let mut count = 0;
    for field in Fields(body) {
        count += usize::from(field?.0 == wanted);
    }
    Ok(count)
}

pub(super) fn text<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Text { what })
}

/// Reports whether keeping `part` as a slice of `frame` costs at most twice its own memory.
/// Anything smaller is copied: else one small transaction would keep a whole frame alive.
fn is_most_of(part: &[u8], frame: &Bytes) -> bool {
    part.len() >= frame.len() / 2
}

/// Returns a part of a frame, which shares the memory of the frame where it makes up most of it.
pub(super) fn slice(frame: &Bytes, part: &[u8]) -> Bytes {
    if is_most_of(part, frame) { frame.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

/// Copies both into one allocation.
fn together(header: &[u8], payload: &[u8]) -> (Bytes, Bytes) {
    let mut both = BytesMut::with_capacity(header.len() + payload.len());
    both.put_slice(header);
    both.put_slice(payload);
    let mut header_bytes = both.freeze();
    let payload = header_bytes.split_off(header.len());
    (header_bytes, payload)
}
