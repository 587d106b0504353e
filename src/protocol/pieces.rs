//! Putting large payloads together from their pieces.
//!
//! Pieces are taken in order, from the peer that was asked and from those asked before it, which may
//! only have been slow. Only the last piece may be short, so that crumbs do not pass for progress.
//! The header that comes with the first piece rules: its hash is the id. Nobody knows yet whether
//! the bytes are right; hash and signature are checked when all are there, and when pieces of
//! several peers turn out wrong nobody is blamed and one peer is asked for all of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::types::{Header, LinkId, PIECE_BYTES, Piece, Signature, Transaction, TransactionId};

use super::Protocol;
use super::fetch::{ANSWER, Stage};
use super::timers::Timer;

/// Longest time for one piece on the wire: 64 KiB at 32 KiB/s.
const PIECE: Duration = Duration::from_secs(2);

/// A large payload on its way in.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) header: Bytes,
    pub(super) signature: Signature,
    pub(super) hop: u16,
    pub(super) bytes: BytesMut,
    /// Who sent the latest bytes.
    pub(super) from: LinkId,
    pub(super) mixed: bool,
}

impl Protocol {
    /// Part of a large payload came.
    pub(super) fn on_piece(&mut self, link: LinkId, piece: &Piece) {
        self.counters.pieces_received += 1;
        self.counters.payload_bytes_received += piece.bytes.len() as u64;
        let id = piece.id;
        // Also of a peer that was asked before: it may only have been slow.
        let running = self.pending.get(&id).is_some_and(|p| {
            let heard = !p.whole && p.asked.is_some() && p.sources.iter().any(|s| s.link == link);
            p.stage == Stage::Heard && (p.asked == Some(link) || heard)
        });
        if !running || !self.take_head(link, piece) {
            self.counters.pieces_unexpected += 1;
            return;
        }
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let Some(assembly) = &mut pending.assembly else { return };
        let have = assembly.bytes.len() as u64;
        // Only the last piece may be short: crumbs would pass for progress for ever.
        let expected = pending.size.saturating_sub(have).min(PIECE_BYTES as u64);
        if piece.offset != have || piece.bytes.len() as u64 != expected {
            self.counters.pieces_unexpected += 1;
            return;
        }
        assembly.mixed |= assembly.from != link;
        assembly.from = link;
        assembly.bytes.extend_from_slice(&piece.bytes);
        // A slow peer that makes progress is not given up.
        pending.turns = 0;
        if assembly.bytes.len() as u64 == pending.size {
            self.complete(link, &id);
        } else {
            let patience = ANSWER.max(self.rtt_of(link) * 3) + PIECE;
            self.timers.set(Timer::Fetch(id), self.now + patience);
        }
    }

    /// Starts an assembly with the head of an answer; `false` when the head does not fit the id.
    fn take_head(&mut self, link: LinkId, piece: &Piece) -> bool {
        let Some(pending) = self.pending.get_mut(&piece.id) else { return false };
        if pending.assembly.is_some() {
            return true;
        }
        let Some((header, signature, hop)) = &piece.head else { return false };
        if blake3::hash(header).as_bytes() != piece.id.as_bytes() {
            return false;
        }
        let Ok(parsed) = Header::from_bytes(header) else { return false };
        if parsed.payload_len > self.config.gossip.max_transaction_size {
            return false;
        }
        // Room was made for what was announced, which need not be true.
        let (others, budget) = (self.fetches.assembling, self.config.gossip.max_assembly_bytes);
        if others > 0 && others + parsed.payload_len > budget {
            return false;
        }
        // The header rules, not what the announcement claimed.
        pending.size = parsed.payload_len;
        pending.assembly = Some(Assembly {
            header: Bytes::copy_from_slice(header),
            signature: signature.clone(),
            hop: *hop,
            bytes: BytesMut::new(),
            from: link,
            mixed: false,
        });
        self.fetches.assembling += parsed.payload_len;
        true
    }

    fn complete(&mut self, link: LinkId, id: &TransactionId) {
        let asked = self.pending.get_mut(id).and_then(|pending| pending.asked.take());
        for link in [Some(link), asked].into_iter().flatten() {
            self.forget_asked(link, id);
        }
        let Some(pending) = self.pending.get_mut(id) else { return };
        let size = pending.size;
        let Some(assembly) = pending.assembly.take() else { return };
        pending.mixed = assembly.mixed;
        self.fetches.assembling = self.fetches.assembling.saturating_sub(size);
        self.counters.payloads_received += 1;
        let bytes = assembly.bytes.freeze();
        match Transaction::from_parts(assembly.header, assembly.signature, bytes) {
            Ok(transaction) => self.verify(link, transaction, assembly.hop),
            Err(_) => self.violation(link),
        }
    }
}
