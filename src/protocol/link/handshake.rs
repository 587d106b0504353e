//! From an open transport to a link, and back.
//!
//! ```text
//! opened ──refused──► Goodbye, closed
//!    │ Hello sent, timer set
//!    ▼
//!  hello ──late, wrong, not first──► Goodbye, closed
//!    │ Hello received and acceptable
//!    ▼
//!   up ──Goodbye, silence, violation, replaced──► closed
//! ```
//!
//! Only a completed hello makes a link: with TLS 1.3 a dialler whose key is refused learns it with
//! the first read. One link per peer: the newest authenticated one wins, so a restarted peer is
//! never refused as its own ghost. Two links that both processes opened at each other at the same
//! moment would each be "newest" on one side; of those, both sides keep the one that the smaller
//! peer id dialled.
//!
//! Tested by: `sim::tests::faults`, `sim::tests::hostile`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::types::{
    CloseReason, Counters, Direction, Event, FEATURES, FailureKind, Hello, Message, PeerId,
    WIRE_VERSION_MAX, WIRE_VERSION_MIN,
};

use super::Link;
use crate::protocol::Protocol;
use crate::protocol::io::Output;

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum CloseCause {
    /// We closed it.
    Ours(CloseReason),
    /// The peer said goodbye and asked us to stay away for a while.
    Theirs(CloseReason, Duration),
    /// The transport broke.
    Transport,
}

impl CloseCause {
    pub(in crate::protocol) fn reason(self) -> CloseReason {
        match self {
            Self::Ours(reason) | Self::Theirs(reason, _) => reason,
            Self::Transport => CloseReason::TransportClosed,
        }
    }

    /// How long the peer asked us to stay away.
    pub(in crate::protocol) fn retry(self) -> Duration {
        match self {
            Self::Theirs(_, retry) => retry,
            _ => Duration::ZERO,
        }
    }
}

impl Protocol {
    /// Whether a link that we dialled leads to this peer, or is about to.
    pub(in crate::protocol) fn dialled_already(&self, remote: &PeerId) -> bool {
        let sound = |l: &Link| l.up.as_ref().is_none_or(|up| up.pinger.missed == 0);
        let ours = |l: &&Link| l.remote == *remote && l.direction == Direction::Outbound;
        self.links.all.values().filter(ours).any(sound)
    }

    pub(in crate::protocol) fn refuse_before_hello(&self, remote: &PeerId) -> Option<CloseReason> {
        if self.env.shutting_down {
            Some(CloseReason::Shutdown)
        } else if *remote == self.env.me {
            Some(CloseReason::SelfDial)
        } else if self.guard.is_banned(remote, self.env.wall) {
            Some(CloseReason::Banned)
        } else if !self.env.config.network.trust.allows(remote) {
            Some(CloseReason::NotAllowed)
        } else if self.links.hello_count() > self.env.config.listen.max_handshakes as usize {
            Some(CloseReason::TooManyLinks)
        } else {
            None
        }
    }

    pub(in crate::protocol) fn hello(&self, address: Option<SocketAddr>, owes: bool) -> Message {
        Message::Hello(Box::new(Hello {
            network: self.env.config.network.name.clone(),
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION_MAX,
            features: FEATURES,
            incarnation: self.env.incarnation,
            max_transaction: self.env.config.gossip.max_transaction_size,
            record: self.membership.record.clone(),
            observed: address.map(|a| a.ip()),
            interest: self.spread.carrying.ours().clone(),
            owes,
        }))
    }

    pub(in crate::protocol) fn note_observed(&mut self, address: IpAddr, direction: Direction) {
        // Only where we dialled: a peer that dialled us already knows an address of ours.
        if direction == Direction::Outbound {
            self.env.push(Output::Observed { address });
        }
    }

    /// How soon a peer that is sent away may come back.
    pub(in crate::protocol) fn retry_hint(&self, reason: CloseReason) -> Duration {
        match reason {
            CloseReason::Replaced | CloseReason::Shutdown | CloseReason::Unresponsive => {
                Duration::ZERO
            }
            CloseReason::TooManyLinks | CloseReason::SlowPeer => {
                self.env.config.overlay.redial_min * 10
            }
            _ => self.env.config.overlay.redial_max,
        }
    }

    pub(in crate::protocol) fn on_handshake_failed(
        &mut self,
        address: Option<SocketAddr>,
        reason: FailureKind,
    ) {
        if reason == FailureKind::Refused {
            self.env.counters.handshakes_shed += 1;
        } else {
            self.env.counters.handshakes_failed += 1;
        }
        self.env.emit(Event::HandshakeRefused { address: address.map(|a| a.to_string()), reason });
    }
}

pub(in crate::protocol) fn counter_of(
    counters: &mut Counters,
    reason: CloseReason,
) -> Option<&mut u64> {
    Some(match reason {
        CloseReason::WrongNetwork => &mut counters.links_refused_network,
        CloseReason::WrongVersion => &mut counters.links_refused_version,
        CloseReason::NotAllowed => &mut counters.links_refused_not_allowed,
        CloseReason::Banned => &mut counters.links_refused_banned,
        CloseReason::SelfDial => &mut counters.links_refused_self,
        CloseReason::TooManyLinks => &mut counters.links_refused_full,
        CloseReason::HandshakeTimeout => &mut counters.links_refused_timeout,
        CloseReason::Violation => &mut counters.links_closed_violation,
        _ => return None,
    })
}
