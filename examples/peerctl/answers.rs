//! What the node answers, as far as it is shown. `openapi.json` of the listener has all of it.
//!
//! Every field may be missing: a node of another version says less, or more.

use std::collections::BTreeMap;

use serde::Deserialize;

macro_rules! answers {
    ($($(#[doc = $doc:literal])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone, Default, Deserialize)]
            #[serde(default)]
            pub(crate) struct $name { $(pub(crate) $field: $type,)* }
        )*
    };
}

answers! {
    /// `GET /api/v1/status`
    Status {
        peer_id: String,
        network: String,
        version: String,
        mode: String,
        sentence: String,
        ready: bool,
        reasons: Vec<String>,
        uptime_s: u64,
        now_ms: u64,
        listen: Vec<String>,
        http: Option<String>,
        advertised: Vec<String>,
        actions: bool,
    }
    /// `GET /api/v1/peers`
    PeerList {
        peers: Vec<LinkedPeer>,
        lost: Vec<LostPeer>,
    }
    LinkedPeer {
        peer: String,
        transport: String,
        address: Option<String>,
        direction: String,
        state: String,
        rtt_us: u64,
        quality: u8,
        rating: String,
        queued_bytes: u64,
        behind: u64,
        in_debt: bool,
        relay: bool,
        connected_s: u64,
        clock_offset_ms: Option<i64>,
    }
    LostPeer {
        peer: String,
        address: Option<String>,
        transport: Option<String>,
        direction: Option<String>,
        reason: String,
        lost_at_ms: u64,
        breaker: Option<String>,
    }
    /// `POST /api/v1/peers/{id}/test`
    Test {
        transport: String,
        rtt_min_us: u64,
        rtt_avg_us: u64,
        rtt_max_us: u64,
        jitter_us: u64,
        sent: u64,
        lost: u64,
        bytes_per_second: u64,
        incoming_bytes_per_second: u64,
    }
    /// `GET /api/v1/transactions/{id}/explain`
    Explanation {
        id: String,
        state: String,
        origin: Option<String>,
        topic: Option<String>,
        size: Option<u64>,
        own: bool,
        summary: String,
        steps: Vec<Step>,
        left_out: u64,
        elsewhere: BTreeMap<String, Explanation>,
        not_told: Vec<String>,
    }
    Step {
        at_ms: u64,
        what: String,
        peer: Option<String>,
        transport: Option<String>,
        hop: Option<u64>,
        reason: Option<String>,
    }
    /// `GET /api/v1/dead-letters`
    LetterPage {
        dead_letters: Vec<DeadLetter>,
        next: Option<u64>,
    }
    DeadLetter {
        seq: u64,
        id: String,
        topic: String,
        size: u64,
        created_ms: u64,
        expires_ms: u64,
        reason: String,
        since_ms: u64,
    }
    /// `GET /api/v1/stats`, of which `watch` shows why things were dropped.
    Stats {
        drops: BTreeMap<String, u64>,
    }
    /// `GET /api/v1/history`
    History {
        series: Series,
    }
    /// One value for each step, the oldest first; none where nothing was taken.
    Series {
        delivered_per_s: Vec<Option<f64>>,
        published_per_s: Vec<Option<f64>>,
        latency_p99_us: Vec<Option<f64>>,
        outbox: Vec<Option<f64>>,
        outbox_oldest_ms: Vec<Option<f64>>,
        dropped_per_s: Vec<Option<f64>>,
    }
}
