//! One end of an exchange: two byte streams in chunks that may be lost, late, repeated or reordered.
//!
//! Contract: the ends are alike, one for each direction. A chunk begins at an offset of its stream; the
//! end of a stream counts as one position behind its last byte, so that an acknowledgement covers it
//! too. A sending end keeps bytes until they are acknowledged, and always offers those that come first;
//! a receiving end takes the part of a chunk that is new, wholly or not at all. Chunks that leave a gap,
//! acknowledgements of what was never sent and bytes behind an end are refused and change nothing.
//! Either end holds at most [`MAX_BUFFERED_BYTES`] in each direction.
//!
//! Tested by: `tests` below, where a network loses, repeats, reorders and delays.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

/// Maximum number of bytes of one chunk.
pub(super) const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Maximum number of bytes that one end holds in one direction: a chunk under way, and the next.
pub(super) const MAX_BUFFERED_BYTES: usize = 2 * MAX_CHUNK_BYTES;
/// Least size that chunks shrink to on a thin path.
const MIN_CHUNK_BYTES: usize = 8 * 1024;
/// Size of chunks before anything is known of the path.
const FIRST_CHUNK_BYTES: usize = 64 * 1024;
/// Time below which a full chunk shows that the path has room for larger ones.
const QUICK: Duration = Duration::from_millis(500);
/// Time above which chunks are too large: what is more urgent waits behind them.
const SLOW: Duration = Duration::from_secs(2);

/// Bytes of one stream as a request or an answer carries them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Position of the first byte in the stream.
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// True: the stream ends behind these bytes.
    pub(super) end: bool,
}

impl Chunk {
    /// Position behind the last byte, and behind the end where there is one.
    fn limit(&self) -> Option<u64> {
        let last = self.offset.checked_add(self.bytes.len() as u64)?;
        last.checked_add(u64::from(self.end))
    }
}

/// Reason why a chunk or an acknowledgement is none of this exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the bytes begin at offset {offset}, and those from {expected} on are still to come")]
    Gap { offset: u64, expected: u64 },
    #[error("there are bytes up to offset {limit} of a stream that ended at {end}")]
    PastEnd { limit: u64, end: u64 },
    #[error("offset {ack} is acknowledged, and nothing behind {sent} was sent")]
    ForeignAck { ack: u64, sent: u64 },
}

/// Stream that leaves.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Position of the first byte that is not acknowledged.
    acked: u64,
    /// Highest position that a chunk has reached.
    shown: u64,
    /// Number of bytes that were ever written, and so the position of the end.
    written: u64,
    /// Bytes of the chunk under way, which repeats show again.
    under_way: Bytes,
    /// Bytes for the chunks after it.
    waiting: BytesMut,
    /// Number of bytes above which nothing more is taken.
    bound: usize,
    ended: bool,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            acked: 0,
            shown: 0,
            written: 0,
            under_way: Bytes::new(),
            waiting: BytesMut::new(),
            bound: 2 * FIRST_CHUNK_BYTES,
            ended: false,
        }
    }
}

impl Outbound {
    /// Takes as many bytes as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        if self.ended {
            return 0;
        }
        let taken = bytes.len().min(self.bound.saturating_sub(self.held()));
        self.waiting.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        taken
    }

    /// Ends the stream behind what was written.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Has room for two chunks of this size, and no more.
    pub(super) fn set_chunk_bytes(&mut self, bytes: usize) {
        self.bound = (2 * bytes).clamp(2 * MIN_CHUNK_BYTES, MAX_BUFFERED_BYTES);
    }

    /// Reports whether something is not acknowledged yet: bytes, or the end.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.acked < self.written || (self.ended && self.acked == self.written)
    }

    /// Reports whether the stream has ended and all of it is acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.acked > self.written
    }

    /// The first bytes that are not acknowledged, at most `max` of them; empty when there are none.
    pub(super) fn chunk(&mut self, max: usize) -> Chunk {
        if self.under_way.is_empty() && !self.waiting.is_empty() {
            let next = self.waiting.len().min(max);
            self.under_way = self.waiting.split_to(next).freeze();
            if self.waiting.is_empty() {
                // Its memory goes with the chunk.
                self.waiting = BytesMut::new();
            }
        }
        let bytes = self.under_way.slice(..self.under_way.len().min(max));
        let end = self.ended && self.acked + bytes.len() as u64 == self.written;
        let chunk = Chunk { offset: self.acked, bytes, end };
        self.shown = self.shown.max(chunk.limit().unwrap_or(self.acked));
        chunk
    }

    /// Forgets what has arrived. Returns how many bytes those are. An acknowledgement that is late says
    /// nothing new.
    pub(super) fn acknowledge(&mut self, ack: u64) -> Result<usize, Refusal> {
        if ack > self.shown {
            return Err(Refusal::ForeignAck { ack, sent: self.shown });
        }
        let new = usize::try_from(ack.saturating_sub(self.acked)).unwrap_or(usize::MAX);
        let bytes = new.min(self.under_way.len());
        self.under_way.advance(bytes);
        self.acked = self.acked.max(ack);
        Ok(bytes)
    }

    fn held(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }
}

/// Stream that arrives.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Position that comes next: the acknowledgement of all before it.
    next: u64,
    /// Bytes that were not read yet.
    unread: BytesMut,
    ended: bool,
    /// Nobody reads: bytes are acknowledged and thrown away.
    discarding: bool,
}

impl Inbound {
    /// Takes what is new of a chunk. Returns false when there is no room for it, and then nothing was
    /// taken.
    pub(super) fn take(&mut self, chunk: &Chunk) -> Result<bool, Refusal> {
        let Chunk { offset, ref bytes, end } = *chunk;
        let Some(limit) = chunk.limit().filter(|_| offset <= self.next) else {
            return Err(Refusal::Gap { offset, expected: self.next });
        };
        if bytes.is_empty() && !end {
            return Ok(true);
        }
        let last = limit - u64::from(end);
        let (received, ends_at) = if self.ended {
            (self.next - 1, Some(self.next - 1))
        } else {
            (self.next, end.then_some(last))
        };
        if let Some(ends_at) = ends_at
            && (last.max(received) > ends_at || (end && last < ends_at))
        {
            return Err(Refusal::PastEnd { limit: last.max(received), end: last.min(ends_at) });
        }
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        if !self.discarding {
            if new.len() > MAX_BUFFERED_BYTES - self.unread.len() {
                return Ok(false);
            }
            self.unread.extend_from_slice(new);
        }
        self.next = self.next.max(limit);
        self.ended |= end;
        Ok(true)
    }

    /// Reads the bytes that come first, at most `max` of them; `None` when there are none.
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        if self.unread.is_empty() {
            return None;
        }
        let bytes = self.unread.split_to(self.unread.len().min(max)).freeze();
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Some(bytes)
    }

    /// Throws away what is there and what comes.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.unread = BytesMut::new();
    }

    /// Reports whether a chunk of the largest size has room.
    pub(super) fn has_room(&self) -> bool {
        self.unread.len() <= MAX_BUFFERED_BYTES - MAX_CHUNK_BYTES
    }

    /// Reports whether the stream has arrived up to its end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Position that comes next.
    pub(super) fn ack(&self) -> u64 {
        self.next
    }
}

/// Size of the chunks of one direction, by how long they take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    chunk_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { chunk_bytes: FIRST_CHUNK_BYTES }
    }
}

impl Pace {
    pub(super) fn chunk_bytes(self) -> usize {
        self.chunk_bytes
    }

    /// Notes a chunk of this many bytes that arrived within this time.
    pub(super) fn arrived(&mut self, bytes: usize, took: Duration) {
        // Smaller ones tell nothing of larger ones.
        if bytes < self.chunk_bytes {
            return;
        }
        if took < QUICK {
            self.chunk_bytes = (2 * self.chunk_bytes).min(MAX_CHUNK_BYTES);
        } else if took > SLOW {
            self.shrink();
        }
    }

    /// Notes a chunk that took too long altogether.
    pub(super) fn shrink(&mut self) {
        self.chunk_bytes = (self.chunk_bytes / 2).max(MIN_CHUNK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng as _, SeedableRng};

    use super::*;

    /// Byte at a position of the stream that all tests send.
    fn byte_at(position: u64) -> u8 {
        (position ^ (position >> 8) ^ (position >> 16)).to_le_bytes()[0]
    }

    fn stream(from: u64, bytes: usize) -> Vec<u8> {
        (from..from + bytes as u64).map(byte_at).collect()
    }

    fn chunk(offset: u64, bytes: usize, end: bool) -> Chunk {
        Chunk { offset, bytes: stream(offset, bytes).into(), end }
    }

    /// What is between the ends: a chunk with the acknowledgement of the other direction, or the
    /// answer to one.
    #[derive(Clone)]
    enum Packet {
        Send(Chunk),
        Sent(u64),
        Poll(u64, usize),
        Polled(Chunk),
    }

    #[derive(Default)]
    struct Model {
        /// The requesting end, then the serving one.
        out: [Outbound; 2],
        into: [Inbound; 2],
        written: [u64; 2],
        read: [u64; 2],
        network: Vec<Packet>,
        /// Requests of the client that count as under way: a send, a poll.
        asking: [bool; 2],
    }

    impl Model {
        fn write(&mut self, side: usize, bytes: usize) {
            let taken = self.out[side].write(&stream(self.written[side], bytes));
            self.written[side] += taken as u64;
            assert!(self.out[side].held() <= MAX_BUFFERED_BYTES);
        }

        /// Returns false where there was nothing to read.
        fn read(&mut self, side: usize, max: usize) -> bool {
            let bytes = self.into[side].read(max);
            if let Some(bytes) = &bytes {
                let wanted = stream(self.read[side], bytes.len());
                assert_eq!(*bytes, wanted, "bytes of another place");
                self.read[side] += bytes.len() as u64;
            }
            bytes.is_some()
        }

        fn ask(&mut self, which: usize, max: usize) {
            self.asking[which] = true;
            let packet = match which {
                0 => Packet::Send(self.out[0].chunk(max)),
                _ => Packet::Poll(self.into[0].ack(), max),
            };
            self.network.push(packet);
        }

        fn arrive(&mut self, packet: Packet) {
            match packet {
                Packet::Send(chunk) => {
                    let taken = self.into[1].take(&chunk).expect("an honest client leaves no gap");
                    assert!(self.into[1].unread.len() <= MAX_BUFFERED_BYTES);
                    let _ = taken;
                    self.network.push(Packet::Sent(self.into[1].ack()));
                }
                Packet::Sent(ack) => {
                    self.out[0]
                        .acknowledge(ack)
                        .expect("an honest server acknowledges what it got");
                    self.asking[0] = false;
                }
                Packet::Poll(ack, max) => {
                    self.out[1]
                        .acknowledge(ack)
                        .expect("an honest client acknowledges what it got");
                    let chunk = self.out[1].chunk(max);
                    self.network.push(Packet::Polled(chunk));
                }
                Packet::Polled(chunk) => {
                    // An answer to an old poll is one that nobody waits for: the shell drops it. Here
                    // it arrives all the same, and must do no harm.
                    let _ = self.into[0].take(&chunk);
                    self.asking[1] = false;
                }
            }
        }
    }

    #[test]
    fn whatever_the_network_does_both_streams_arrive_once_and_whole() {
        for seed in 0..60_u8 {
            let mut rng = ChaCha8Rng::from_seed([seed; 32]);
            let mut below = move |n: u64| usize::try_from(rng.next_u64() % n).unwrap();
            let mut model = Model::default();
            for step in 0..3000 {
                let calm = step > 2000;
                let max = 1 + below(40_000);
                match below(8) {
                    side @ 0..2 if !calm => model.write(side, below(20_000)),
                    side @ 2..4 => drop(model.read(side - 2, 1 + below(200_000))),
                    // Given up and asked again, while the first may still arrive.
                    which @ 4..6 if !calm && below(3) == 0 => model.ask(which - 4, max),
                    which @ 4..6 if !model.asking[which - 4] => model.ask(which - 4, max),
                    6 if !calm && !model.network.is_empty() => {
                        let which = below(model.network.len() as u64);
                        if below(2) == 0 {
                            model.network.swap_remove(which);
                            model.asking = [false; 2];
                        } else {
                            let again = model.network[which].clone();
                            model.network.push(again);
                        }
                    }
                    _ if !model.network.is_empty() => {
                        let which = below(model.network.len() as u64);
                        let packet = model.network.swap_remove(which);
                        model.arrive(packet);
                    }
                    _ => {}
                }
                if step == 2000 {
                    model.network.clear();
                    model.asking = [false; 2];
                    model.out.iter_mut().for_each(Outbound::end);
                }
            }
            for side in 0..2 {
                let other = 1 - side;
                assert!(model.out[side].is_done(), "seed {seed}: side {side} is not done");
                assert!(model.into[other].is_ended(), "seed {seed}: side {other} saw no end");
                while model.read(other, 100_000) {}
                assert_eq!(model.read[other], model.written[side], "seed {seed}");
                assert!(model.written[side] > 100_000, "seed {seed}: too little was tried");
            }
        }
    }

    #[test]
    fn what_is_known_is_trimmed_and_gaps_and_foreign_offsets_are_refused() {
        let mut into = Inbound::default();
        assert_eq!(into.take(&chunk(0, 10, false)), Ok(true));
        assert_eq!(into.take(&chunk(4, 10, false)), Ok(true), "an overlap");
        assert_eq!(into.take(&chunk(0, 3, false)), Ok(true), "a repeat");
        assert_eq!(into.ack(), 14);
        let refused = [
            chunk(15, 1, false),
            chunk(u64::MAX, 0, false),
            chunk(u64::MAX, 0, true),
            Chunk { offset: u64::MAX - 1, bytes: Bytes::from_static(b"abc"), end: false },
            chunk(0, 3, true),
        ];
        for chunk in refused {
            assert!(into.take(&chunk).is_err(), "{chunk:?}");
        }
        assert_eq!(into.take(&chunk(14, 0, true)), Ok(true));
        assert_eq!((into.ack(), into.is_ended()), (15, true));
        assert_eq!(into.take(&chunk(10, 4, true)), Ok(true), "the end again");
        for past in [chunk(14, 1, false), chunk(14, 1, true), chunk(15, 0, true), chunk(0, 3, true)]
        {
            assert!(matches!(into.take(&past), Err(Refusal::PastEnd { .. })), "{past:?}");
        }
        assert_eq!(into.read(100).unwrap(), stream(0, 14));

        let mut out = Outbound::default();
        assert_eq!(out.write(&stream(0, 10)), 10);
        assert!(out.acknowledge(1).is_err(), "nothing was sent yet");
        assert_eq!(out.chunk(4).bytes, stream(0, 4));
        assert!(out.acknowledge(5).is_err() && out.acknowledge(u64::MAX).is_err());
        assert_eq!((out.acknowledge(2), out.acknowledge(1)), (Ok(2), Ok(0)));
        assert_eq!(out.chunk(100), chunk(2, 2, false), "what was begun is repeated alone");
    }

    #[test]
    fn a_reader_that_stops_holds_the_writer_back() {
        let (mut out, mut into) = (Outbound::default(), Inbound::default());
        out.set_chunk_bytes(MAX_CHUNK_BYTES);
        let mut position = 0;
        loop {
            position += out.write(&stream(position, MAX_CHUNK_BYTES)) as u64;
            if into.take(&out.chunk(MAX_CHUNK_BYTES)) == Ok(false) {
                break;
            }
            out.acknowledge(into.ack()).unwrap();
        }
        position += out.write(&stream(position, MAX_BUFFERED_BYTES)) as u64;
        assert_eq!(position, (2 * MAX_BUFFERED_BYTES) as u64, "one buffer on each side");
        assert_eq!(out.write(b"x"), 0);
        assert!(!into.has_room());
        assert_eq!(into.read(MAX_CHUNK_BYTES).map(|bytes| bytes.len()), Some(MAX_CHUNK_BYTES));
        assert!(into.has_room());
        assert_eq!(into.take(&out.chunk(MAX_CHUNK_BYTES)), Ok(true));
        into.discard();
        assert_eq!(into.take(&out.chunk(MAX_CHUNK_BYTES)), Ok(true));
        assert_eq!(into.read(1), None);
    }

    #[test]
    fn chunks_grow_on_a_quick_path_and_shrink_on_a_thin_one() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.arrived(pace.chunk_bytes(), Duration::from_millis(50));
        }
        assert_eq!(pace.chunk_bytes(), MAX_CHUNK_BYTES);
        pace.arrived(100, Duration::from_secs(9));
        assert_eq!(pace.chunk_bytes(), MAX_CHUNK_BYTES, "a short one tells nothing");
        for _ in 0..9 {
            pace.arrived(pace.chunk_bytes(), Duration::from_secs(3));
        }
        assert_eq!(pace.chunk_bytes(), MIN_CHUNK_BYTES);
    }
}
