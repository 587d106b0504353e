//! What transactions and index entries look like in a file. Integers are little-endian.
//!
//! A *head* is all of a transaction but its payload: format (1 byte, now 1), length of the
//! signature (2), signature, canonical header. In the log it follows after hops (2), the time
//! until which it is kept (8), and the peer it came from (1 byte 0, or 1 byte 1 and 32 more).
//!
//! A *block* is the index of entries that were appended together, 112 bytes each, and 8 bytes of
//! BLAKE3 over them: `SQLite` has no checksums of its own. *Locations* are 20 bytes each (key,
//! cursor, generation), and 8 bytes of BLAKE3 over them.

use bytes::Bytes;

use crate::error::Source;
use crate::ports::{IndexEntry, LogEntry, NewEntry};
use crate::store::limits::stored_size;
use crate::types::{
    Cursor, Header, PeerId, Signature, TopicKey, Transaction, TransactionId, WallTime,
};

const FORMAT: u8 = 1;
/// Number of bytes of an index entry.
const SLOT_BYTES: usize = 112;
/// Number of bytes of a location.
const LOCATION_BYTES: usize = 20;
/// Number of bytes of a checksum.
const SUM_BYTES: usize = 8;

/// Times that `SQLite` compares; what is later than it can say never comes.
pub(super) fn clamped(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A time as `SQLite` holds it.
pub(super) fn signed(time: WallTime) -> i64 {
    time.as_millis().cast_signed()
}

/// A time that [`signed`] made.
pub(super) fn wall_time(millis: i64) -> WallTime {
    WallTime::from_millis(millis.cast_unsigned())
}

/// A transaction without its payload.
pub(super) fn head(transaction: &Transaction) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + 64 + transaction.header_bytes().len());
    push_head(&mut out, transaction);
    out
}

fn push_head(out: &mut Vec<u8>, transaction: &Transaction) {
    let signature = transaction.signature().as_bytes();
    out.push(FORMAT);
    // Signatures are a few KiB at most.
    out.extend(u16::try_from(signature.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(signature);
    out.extend(transaction.header_bytes().as_ref());
}

/// The transaction of a head and its payload, checked against its hash: damage in the file is
/// found here and not by a peer.
pub(super) fn transaction(mut head: &[u8], payload: Vec<u8>) -> Result<Transaction, Source> {
    let [format] = next(&mut head)?;
    if format != FORMAT {
        return Err(format!("format {format} is unknown").into());
    }
    let length = usize::from(u16::from_le_bytes(next(&mut head)?));
    let (signature, header) = head.split_at_checked(length).ok_or("a head is cut short")?;
    let header = Bytes::copy_from_slice(header);
    let transaction =
        Transaction::from_parts(header, Signature::from_bytes(signature)?, payload.into())?;
    transaction.verify_payload()?;
    Ok(transaction)
}

/// Number of bytes of the payload that belongs to a head.
pub(super) fn payload_len(mut head: &[u8]) -> Result<u64, Source> {
    let [_format] = next(&mut head)?;
    let length = usize::from(u16::from_le_bytes(next(&mut head)?));
    let header = head.get(length..).ok_or("a head is cut short")?;
    Ok(Header::from_bytes(header)?.payload_len)
}

/// Number of bytes of the payload that belongs to a head of the log.
pub(super) fn payload_len_of_log_head(mut head: &[u8]) -> Result<u64, Source> {
    log_prefix(&mut head)?;
    payload_len(head)
}

/// The id in a head of the log, without its payload.
pub(super) fn id_of_log_head(mut head: &[u8]) -> Result<TransactionId, Source> {
    log_prefix(&mut head)?;
    let [_format] = next(&mut head)?;
    let length = usize::from(u16::from_le_bytes(next(&mut head)?));
    let header = head.get(length..).ok_or("a head is cut short")?;
    Ok(TransactionId::from_bytes(*blake3::hash(header).as_bytes()))
}

/// Head of a log entry: all but payload and cursor.
pub(super) fn log_head(entry: &NewEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(46 + 64 + entry.transaction.header_bytes().len());
    out.extend(entry.hops.to_le_bytes());
    out.extend(entry.keep_until.as_millis().to_le_bytes());
    match &entry.from {
        None => out.push(0),
        Some(peer) => {
            out.push(1);
            out.extend(peer.as_bytes());
        }
    }
    push_head(&mut out, &entry.transaction);
    out
}

/// The log entry of a head and its payload.
pub(super) fn log_entry(
    cursor: u64,
    mut head: &[u8],
    payload: Vec<u8>,
) -> Result<LogEntry, Source> {
    let (hops, keep_until, from) = log_prefix(&mut head)?;
    let transaction = transaction(head, payload)?;
    Ok(LogEntry { cursor: Cursor(cursor), entry: NewEntry { transaction, from, hops, keep_until } })
}

fn log_prefix(head: &mut &[u8]) -> Result<(u16, WallTime, Option<PeerId>), Source> {
    let hops = u16::from_le_bytes(next(head)?);
    let keep_until = WallTime::from_millis(u64::from_le_bytes(next(head)?));
    let from = match next::<1>(head)? {
        [0] => None,
        [1] => Some(PeerId::from_bytes(next(head)?)),
        [other] => return Err(format!("{other} is no mark of a sender").into()),
    };
    Ok((hops, keep_until, from))
}

/// One entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) shown: IndexEntry,
    /// Number of the generation that the entry is in.
    pub(super) generation: u32,
    /// Bytes of header and payload.
    pub(super) bytes: u64,
}

impl Slot {
    pub(super) fn location(&self) -> Location {
        let (key, cursor) = (key_of(&self.shown.id), self.shown.cursor.0);
        Location { key, cursor, generation: self.generation }
    }

    pub(super) fn new(cursor: u64, entry: &NewEntry, generation: u32) -> Self {
        let header = entry.transaction.header();
        let shown = IndexEntry {
            cursor: Cursor(cursor),
            id: entry.transaction.id(),
            origin: header.origin,
            topic: TopicKey::of(&header.topic),
            size: header.payload_len,
            hops: entry.hops,
            created: header.created,
            keep_until: entry.keep_until,
        };
        let bytes = stored_size(&entry.transaction);
        Self { shown, generation, bytes }
    }
}

pub(super) fn encode_block(slots: &[Slot]) -> Vec<u8> {
    let mut out = Vec::with_capacity(slots.len() * SLOT_BYTES + SUM_BYTES);
    for slot in slots {
        let shown = &slot.shown;
        let header = u16::try_from(slot.bytes - shown.size).unwrap_or(u16::MAX);
        out.extend(shown.cursor.0.to_le_bytes());
        out.extend(shown.id.as_bytes());
        out.extend(shown.origin.as_bytes());
        out.extend(shown.size.to_le_bytes());
        out.extend(shown.created.as_millis().to_le_bytes());
        out.extend(shown.keep_until.as_millis().to_le_bytes());
        out.extend(shown.topic.0.to_le_bytes());
        out.extend(slot.generation.to_le_bytes());
        out.extend(shown.hops.to_le_bytes());
        out.extend(header.to_le_bytes());
    }
    summed(out)
}

pub(super) fn decode_block(block: &[u8]) -> Result<Vec<Slot>, Source> {
    checked::<SLOT_BYTES>(block)?.map(slot).collect()
}

/// Location of an entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// The first bytes of its id.
    pub(super) key: u64,
    pub(super) cursor: u64,
    pub(super) generation: u32,
}

pub(super) fn encode_locations(list: &[Location]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * LOCATION_BYTES + SUM_BYTES);
    for location in list {
        out.extend(location.key.to_le_bytes());
        out.extend(location.cursor.to_le_bytes());
        out.extend(location.generation.to_le_bytes());
    }
    summed(out)
}

pub(super) fn decode_locations(bytes: &[u8]) -> Result<Vec<Location>, Source> {
    let location = |mut at: &[u8]| {
        let at = &mut at;
        let key = u64::from_le_bytes(next(at)?);
        let cursor = u64::from_le_bytes(next(at)?);
        Ok(Location { key, cursor, generation: u32::from_le_bytes(next(at)?) })
    };
    checked::<LOCATION_BYTES>(bytes)?.map(location).collect()
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&bytes);
    bytes.extend(&sum.as_bytes()[..SUM_BYTES]);
    bytes
}

/// Pieces of `N` bytes each that match their checksum.
fn checked<const N: usize>(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Source> {
    let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or("a block is cut short")?;
    if blake3::hash(body).as_bytes()[..SUM_BYTES] != sum[..] {
        return Err("a block does not match its checksum".into());
    }
    if !body.len().is_multiple_of(N) {
        return Err(format!("{} bytes are no block", body.len()).into());
    }
    Ok(body.chunks_exact(N))
}

fn slot(mut at: &[u8]) -> Result<Slot, Source> {
    let at = &mut at;
    let cursor = Cursor(u64::from_le_bytes(next(at)?));
    let id = TransactionId::from_bytes(next(at)?);
    let origin = PeerId::from_bytes(next(at)?);
    let size = u64::from_le_bytes(next(at)?);
    let created = WallTime::from_millis(u64::from_le_bytes(next(at)?));
    let keep_until = WallTime::from_millis(u64::from_le_bytes(next(at)?));
    let topic = TopicKey(u64::from_le_bytes(next(at)?));
    let generation = u32::from_le_bytes(next(at)?);
    let hops = u16::from_le_bytes(next(at)?);
    let bytes = size.saturating_add(u64::from(u16::from_le_bytes(next(at)?)));
    let shown = IndexEntry { cursor, id, origin, topic, size, hops, created, keep_until };
    Ok(Slot { shown, generation, bytes })
}

/// Key that ids are sorted by: their first bytes.
pub(super) fn key_of(id: &TransactionId) -> u64 {
    let (first, _) = id.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

fn next<const N: usize>(at: &mut &[u8]) -> Result<[u8; N], Source> {
    let (head, rest) = at.split_first_chunk().ok_or("cut short")?;
    *at = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Topic;

    fn entry(signature: Signature, from: Option<PeerId>) -> NewEntry {
        let payload = Bytes::from_static(b"payload");
        let (created, expires) = (WallTime::from_millis(1), WallTime::from_millis(u64::MAX));
        let topic = Topic::new("t").unwrap();
        let header = Header::new(topic, PeerId::from_bytes([3; 32]), created, expires, &payload);
        let transaction = Transaction::new(header, signature, payload).unwrap();
        NewEntry { transaction, from, hops: 513, keep_until: WallTime::from_millis(u64::MAX - 7) }
    }

    #[test]
    fn entries_come_back_and_damage_does_not() {
        let batched = Signature::from_bytes(&[0; 65 + 32]).unwrap();
        for signature in [Signature::None, Signature::Ed25519([9; 64]), batched] {
            for from in [None, Some(PeerId::from_bytes([4; 32]))] {
                let entry = entry(signature.clone(), from);
                let head = log_head(&entry);
                let back = log_entry(5, &head, b"payload".to_vec()).unwrap();
                assert_eq!(back, LogEntry { cursor: Cursor(5), entry: entry.clone() });
                assert_eq!(id_of_log_head(&head).unwrap(), entry.transaction.id());
                assert_eq!(payload_len_of_log_head(&head).unwrap(), 7);
                assert!(log_entry(5, &head, b"paYload".to_vec()).is_err(), "a flipped bit");
                for cut in 0..head.len() {
                    assert!(log_entry(5, &head[..cut], b"payload".to_vec()).is_err(), "{cut}");
                }
            }
        }
        let mut other = head(&entry(Signature::None, None).transaction);
        other[0] = 2;
        assert!(transaction(&other, b"payload".to_vec()).is_err(), "a later format");
    }

    #[test]
    fn places_come_back_and_damage_does_not() {
        let location = |n| Location { key: u64::MAX - n, cursor: n, generation: 70_000 };
        let list: Vec<_> = (0..3).map(location).collect();
        let bytes = encode_locations(&list);
        assert_eq!(bytes.len(), 3 * LOCATION_BYTES + SUM_BYTES);
        assert_eq!(decode_locations(&bytes).unwrap(), list);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(
                decode_locations(&bad).is_err() && decode_locations(&bytes[..at]).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn blocks_come_back_and_damage_does_not() {
        let entry = entry(Signature::None, None);
        let list: Vec<_> = (0..3).map(|n| Slot::new(u64::MAX - n, &entry, 70_000)).collect();
        let bytes = encode_block(&list);
        assert_eq!(bytes.len(), 3 * SLOT_BYTES + SUM_BYTES);
        assert_eq!(decode_block(&bytes).unwrap(), list);
        assert_eq!(decode_block(&encode_block(&[])).unwrap(), []);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode_block(&bad).is_err(), "byte {at}");
            assert!(decode_block(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
