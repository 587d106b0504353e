//! What is known of one link, and how one ends.
//!
//! Tested by: `sim::tests::faults`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::protocol::intake::Requests;
use crate::protocol::io::{Assurance, DialId};
use crate::protocol::large::PieceRate;
use crate::protocol::messages::Conversation;
use crate::protocol::reconcile::Repair;
use crate::protocol::serve::ServeQueue;
use crate::protocol::spread::{Feed, PeerInterest};
use crate::types::{
    CloseReason, Direction, Endpoint, Interest, LinkId, MonoTime, PeerId, TransportKind,
};

use super::{
    Batch, HIGH_WATER, Handover, Merit, Pinger, Plan, Probing, Quality, SendBudget, Succession,
};

/// State of one link.
#[derive(Debug)]
pub(in crate::protocol) struct Link {
    pub(in crate::protocol) id: LinkId,
    /// Connection that carries it: its number is that of the link, until another one takes over.
    pub(in crate::protocol) wire: LinkId,
    pub(in crate::protocol) remote: PeerId,
    pub(in crate::protocol) kind: TransportKind,
    pub(in crate::protocol) direction: Direction,
    pub(in crate::protocol) address: Option<SocketAddr>,
    /// Endpoint that we dialled.
    pub(in crate::protocol) endpoint: Option<Endpoint>,
    pub(in crate::protocol) dial: Option<DialId>,
    /// What the transport vouches for beyond the peer id.
    pub(in crate::protocol) assurance: Assurance,
    /// True: our hello says that we owe the peer something.
    pub(in crate::protocol) owes: bool,
    /// Head of the log when we said hello.
    pub(in crate::protocol) head: u64,
    pub(in crate::protocol) opened: MonoTime,
    /// Time when the connection that carries it was opened, and the bytes that it has sent.
    pub(in crate::protocol) connected: MonoTime,
    pub(in crate::protocol) wire_bytes: u64,
    /// Time when the connection said that it is about to be closed.
    pub(in crate::protocol) leaving: Option<MonoTime>,
    /// Times at which another connection is looked for.
    pub(in crate::protocol) plan: Plan,
    /// Interest that the peer was last told of.
    pub(in crate::protocol) said: Interest,
    pub(in crate::protocol) heard: MonoTime,
    /// Time when something was last handed to the connection.
    pub(in crate::protocol) spoke: MonoTime,
    /// Bytes handed over and not yet on the wire.
    pub(in crate::protocol) queued_bytes: usize,
    /// Time when the queue last moved or was empty.
    pub(in crate::protocol) progress: MonoTime,
    pub(in crate::protocol) succession: Succession,
    /// True: the connection is a dial-back, and never a link.
    pub(in crate::protocol) is_dial_back: bool,
    /// Link that this connection is to take over.
    pub(in crate::protocol) takes_over: Option<Handover>,
    pub(in crate::protocol) up: Option<Established>,
}

impl Link {
    /// Reports whether the link may be given more than control.
    pub(in crate::protocol) fn is_writable(&self, now: MonoTime) -> bool {
        let has_room = |up: &Established| up.budget.has_room(false, now);
        self.queued_bytes < HIGH_WATER
            && self.up.as_ref().is_none_or(has_room)
            && !self.plan.holds(now)
    }

    /// Returns the address for people: where we dialled, else where the link came from.
    pub(in crate::protocol) fn shown_address(&self) -> Option<String> {
        match (&self.endpoint, self.address) {
            (Some(endpoint), _) => Some(endpoint.to_string()),
            (None, Some(address)) => Some(address.to_string()),
            (None, None) => None,
        }
    }
}

/// State that only a link past its hello has: what each part keeps for its peer.
#[derive(Debug)]
pub(in crate::protocol) struct Established {
    pub(in crate::protocol) slot: u8,
    pub(in crate::protocol) since: MonoTime,
    pub(in crate::protocol) incarnation: u64,
    pub(in crate::protocol) max_transaction: u64,
    /// True: the peer takes part in dial-backs.
    pub(in crate::protocol) dials_back: bool,
    /// Address from which the peer sees us come, as it says.
    pub(in crate::protocol) observed: Option<IpAddr>,
    pub(in crate::protocol) batch: Batch,
    pub(in crate::protocol) budget: SendBudget,
    pub(in crate::protocol) pinger: Pinger,
    pub(in crate::protocol) quality: Quality,
    pub(in crate::protocol) probing: Probing,
    pub(in crate::protocol) interest: PeerInterest,
    pub(in crate::protocol) feed: Feed,
    pub(in crate::protocol) repair: Repair,
    pub(in crate::protocol) requests: Requests,
    pub(in crate::protocol) serve: ServeQueue,
    pub(in crate::protocol) pieces: PieceRate,
    pub(in crate::protocol) messages: Conversation,
    /// Payload bytes of transactions accepted from this peer.
    pub(in crate::protocol) taken: u64,
    /// Number of transactions accepted from this peer, faded.
    pub(in crate::protocol) merit: Merit,
    /// Time when the peer was last told which peers we know.
    pub(in crate::protocol) told_peers: Option<MonoTime>,
    /// Time when the peer was last told our clock, after the hello.
    pub(in crate::protocol) told_clock: Option<MonoTime>,
}

/// Cause that ended a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum CloseCause {
    /// Closed by us.
    Ours(CloseReason),
    /// The peer said goodbye and asked us to stay away for a while.
    Theirs(CloseReason, Duration),
    /// The transport broke.
    Transport,
    /// The transport closed the connection, as it had said before.
    Left,
}

impl CloseCause {
    pub(in crate::protocol) fn reason(self) -> CloseReason {
        match self {
            Self::Ours(reason) | Self::Theirs(reason, _) => reason,
            Self::Transport | Self::Left => CloseReason::TransportClosed,
        }
    }

    /// Cause of the end of a connection that nobody closed here.
    pub(in crate::protocol) fn of_transport(link: &Link) -> Self {
        if link.leaving.is_some() { Self::Left } else { Self::Transport }
    }

    /// Returns how long the peer asked us to stay away.
    pub(in crate::protocol) fn retry(self) -> Duration {
        match self {
            Self::Theirs(_, retry) => retry,
            _ => Duration::ZERO,
        }
    }
}
