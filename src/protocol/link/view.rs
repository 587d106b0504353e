//! How a link is shown to people.
//!
//! Tested by: `protocol::tests::thin`.

use std::time::Duration;

use crate::types::{Direction, LinkId, PeerId, TransportKind};

/// A link as the core keeps it, for status reports.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// Number of the connection that carries the link.
    pub link: LinkId,
    /// The peer at its other end.
    pub peer: PeerId,
    /// Transport that carries the link.
    pub kind: TransportKind,
    /// Address of the peer as text.
    pub address: Option<String>,
    /// Side that dialled.
    pub direction: Direction,
    /// True: the peer missed an answer.
    pub suspect: bool,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round trips.
    pub jitter: Duration,
    /// Score from 0 to 100, once measured.
    pub score: Option<u8>,
    /// Share of what was asked of the peer lately that it served.
    pub served_percent: Option<u8>,
    /// Share of the payloads that came over the link lately and were new.
    pub first_percent: Option<u8>,
    /// Time since the link came up.
    pub age: Duration,
    /// Bytes waiting to be sent.
    pub queued_bytes: usize,
    /// Bytes handed out that have not arrived, as far as the peer has said.
    pub under_way_bytes: u64,
    /// Bytes per second that the link carries, once measured.
    pub rate: Option<u64>,
    /// Bytes per second that came in while much did, once measured.
    pub inflow: Option<u64>,
    /// Accepted transactions not yet offered to it.
    pub lag: u64,
    /// True: the peer is too slow for what is new. What the peer is skipped for is compared and
    /// repaid as soon as it takes what waits for it.
    pub in_debt: bool,
    /// Links from the peer to the nearest relay, as it says; 0 for a relay and for who stands in for
    /// one.
    pub depth: u8,
    /// True: the peer is a relay, and carries every topic by configuration.
    pub relay: bool,
    /// Milliseconds from this machine's clock to the peer's, where the peer says its own.
    pub clock_offset_ms: Option<i64>,
}
