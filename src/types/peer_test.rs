//! What a test of a link has found.

use serde::{Deserialize, Serialize};

use super::{PeerId, TransportKind};

/// Result of a test of a link, as `PeerNode::test_peer` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerTest {
    /// The id of the peer.
    pub peer: PeerId,
    /// The transport that carried the link.
    pub transport: TransportKind,
    /// The shortest round trip in microseconds.
    pub rtt_min_us: u64,
    /// The mean of the round trips in microseconds.
    pub rtt_avg_us: u64,
    /// The longest round trip in microseconds.
    pub rtt_max_us: u64,
    /// The mean difference of one round trip and the next in microseconds.
    pub jitter_us: u64,
    /// Number of pings sent.
    pub sent: u32,
    /// Number of pings that were not answered within 2 seconds.
    pub lost: u32,
    /// Number of bytes in a second that went to the peer, beside what else went there; 0 where no piece
    /// of 64 KiB arrived within 10 seconds.
    pub bytes_per_second: u64,
    /// Number of bytes in a second that came from the peer; 0 as above.
    pub incoming_bytes_per_second: u64,
}
