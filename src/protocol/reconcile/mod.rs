//! Repair: two peers find out what one of them lacks, and it is fetched.
//!
//! Range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", SRDS 2023; the
//! fingerprint is that of negentropy) over the order (created, id):
//!
//! ```text
//! initiator                                   responder (keeps nothing between questions)
//!   Ask: ranges with a print or a list  ───►  for each range
//!        (a print while it holds many,          print equal            → Skip
//!         a list of all where few)              few held               → All: its list
//!                                               many held              → 16 parts with prints
//!   for each part                       ◄───    list given             → hears what it lacks,
//!     print equal → done                                                 Rest: what was not listed
//!     else        → asked in its turn
//!     list        → hears what it lacks, announces what the other lacks
//! ```
//!
//! An answer is cut at 60 kB and then ends early; what it did not reach is asked again. So lists
//! of any length flow at the pace of the initiator, who asks only while there is room to fetch: a late
//! joiner pays 34 bytes for each id, once, and holds a bounded number of them. What the other side
//! lacks is announced if it is little; if it is much, `Yours` tells it to open a session itself, so
//! large differences are always pulled by who lacks them.
//!
//! On a link with an edge only topics that both sides said they want are compared (`spread::interest`). Both
//! sides work out that scope for each message from what was said before it on the link, so they may
//! differ while something is changing: then something is listed for nothing, or a session is opened
//! again, because whoever wants more needs everything anew. Within a scope a fingerprint costs a look
//! at each entry of its range.
//!
//! A *need* is a window of which something may be missing on either side of a link. Needs arise
//! on connect (everything; the side that dialled opens at once, the other one later, unless it has
//! been found equal by then), when a debt is to be repaid, when announcements were dropped or given
//! up, by `Yours`, and when this node wants more topics. Of the sessions that serve needs one runs at
//! a time while it makes progress, so that the first neighbour of a late joiner lists everything and
//! the others little; one that stalls lets the next one begin beside it. Apart from needs, every
//! `reconcile_interval` one random link is compared over the last `reconcile_hot_window` (without the
//! last 2 s, which are still on their way), and every `reconcile_full_interval` one over everything.
//!
//! Invariant, together with `spread`: for each up link and each live entry, the peer is known to
//! have it, or was offered it on this link, or the entry is at or after the link's cursor, or it is
//! inside the link's debt, or inside the window of a need or session of this link on one of both
//! sides. A session that fails gives the rest of its window back to the need.
//!
//! Bounds: one own session a link and two in all; 512 ranges and 8 ids of state in each; a question
//! has at most 32 ranges, its lists at most 32 ids each; depth 12; 1 MiB a session beyond what it
//! found useful, and a minute beyond what it earns by payloads. Of a peer's questions one waits,
//! sessions are opened once in 5 s on average, and answers beyond 1 MiB a minute are earned by
//! fetching; within a scope each 64 entries looked at count as a byte. Sessions that bring nothing
//! though the sets differ (an oversized transaction, another validator, a liar) come ever more
//! rarely, up to 10 min.
//!
//! What was missed for good is told by `past`.
//!
//! Tested by: `sim::tests::repair`, `protocol::tests::pair`.

mod initiator;
mod past;
mod ranges;
mod responder;
mod schedule;

use std::time::Duration;

use crate::protocol::gate::Gate;
use crate::types::{Bound, MonoTime, WallTime};

use initiator::Session;
use past::Past;
use ranges::Draft;
use responder::PeerSession;

/// Number of parts that a range is cut into.
const WAYS: u64 = 16;
/// Maximum number of entries in a range that is listed instead of cut.
const LIST: u64 = 32;
/// Number of bytes of one message, about.
const FRAME: usize = 60_000;
/// Maximum number of ids that may come with one answer.
const MAX_LISTED: usize = 2048;
/// Time after its creation for which a transaction may still be on its way.
const IN_FLIGHT: Duration = Duration::from_secs(2);
/// Minimum time that a transaction still has to live to be worth fetching.
const FADING: Duration = Duration::from_secs(5);
/// Time before expiry in which the oldest entries are left out: they go at intervals and by clocks
/// that differ.
const GUARD: Duration = Duration::from_secs(15);
/// Maximum number of own sessions at once.
pub(super) const MAX_RUNNING: u64 = 2;
/// Maximum number of ranges in the state of one session.
#[cfg(any(test, feature = "sim"))]
pub(super) const MAX_RANGES: usize = initiator::MAX_TODO + initiator::MAX_ASKED;
/// Time after which a session without progress does not keep another from starting.
const STALL: Duration = Duration::from_secs(3);
/// Time between two looks after running sessions.
const TICK: Duration = Duration::from_millis(250);
/// Delay before the next session with a peer, after one that failed or brought nothing. Doubles.
const RETRY: Duration = Duration::from_secs(5);
/// Maximum delay before the next session with a peer, after several that failed or brought nothing.
const RETRY_MOST: Duration = Duration::from_mins(10);
/// Time between two routine sessions on one link, on average: a peer takes one in 5 s.
const ROUTINE: Duration = Duration::from_secs(6);
/// Number of routine sessions that may be opened in a row: a peer takes eight in a row, with those
/// that are needed.
const IN_A_ROW: u32 = 4;
/// Minimum time between two sessions with one peer.
const PAUSE: Duration = Duration::from_secs(1);
/// Delay, up to twice, after which the side that was dialled opens a session, if the other has not.
const PATIENCE: Duration = Duration::from_secs(15);

/// A window of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    pub(super) lower: Bound,
    pub(super) upper: Bound,
}

impl Window {
    fn hull(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { lower: self.lower.min(other.lower), upper: self.upper.max(other.upper) }
    }
}

/// The state of repair on one link.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Window in which something may be missing on one side.
    need: Option<Window>,
    /// True: the peer lacks something, because we skipped it.
    owed: bool,
    /// True: a question of the peer does not settle the need, only a session of our own that comes
    /// to its end: the peer may not have known yet what we want.
    firm: bool,
    not_before: MonoTime,
    /// Time when the last session came to an end.
    ended: Option<MonoTime>,
    /// Sessions in a row that failed or brought nothing though the sets differ.
    fruitless: u32,
    /// No routine before this.
    quiet_until: MonoTime,
    /// Time when the routine sessions opened up to now would be over at the pace that a peer takes.
    paced: MonoTime,
    session: Option<Session>,
    peer_session: PeerSession,
    /// Time since which the peer said to be whole.
    complete_since: Option<WallTime>,
    /// True: everything was compared with the peer since the link came up.
    is_compared: bool,
}

impl Repair {
    /// State of a new link, whose peer said since when it is whole.
    pub(super) fn new(complete_since: Option<WallTime>) -> Self {
        Self { complete_since, ..Self::default() }
    }

    pub(super) fn is_running(&self) -> bool {
        self.session.is_some()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn ranges(&self) -> usize {
        self.session.as_ref().map_or(0, Session::ranges)
    }

    fn backoff(&self) -> Duration {
        (RETRY * 2u32.saturating_pow(self.fruitless.min(10))).min(RETRY_MOST)
    }
}

/// State of comparisons that the links share.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Number of own sessions that run.
    pub(super) running: Gate,
    /// Numbers given to sessions.
    sessions: u32,
    hot: MonoTime,
    full: MonoTime,
    /// The last routine comparison that was due was left out.
    left_out: bool,
    expired: MonoTime,
    pub(super) past: Past,
}

impl Repairs {
    /// Takes up what an earlier run noted of the past.
    pub(super) fn restored(since: Option<WallTime>, until: Option<WallTime>) -> Self {
        Self { past: Past::restored(since, until), ..Self::default() }
    }
}
