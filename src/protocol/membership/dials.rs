//! Dials: one attempt at an endpoint, or several, each at other addresses.
//!
//! The transport races the addresses of a name up to a proven peer. Whether that is the peer that was
//! looked for shows only after the hello, so a dial goes on there: an address that leads to another
//! network, to ourselves or into silence is left out, and the next attempt is made at once, until one
//! leads to a peer or none is left.
//!
//! ```text
//!   dial ──no link──► what failed at an earlier time was left out? ──yes──► once more with it
//!    │ ▲                                                            └─no──► failed
//!    │ └── other addresses are left ◄──┐
//!    └──► link ──hello fails──► left out┴──no──► failed
//!          └──hello accepted──► linked
//! ```
//!
//! A dial for the host leaves nothing out from the start: it is wanted now. A name that leads to a
//! linked peer may lead to others too; while links are missing, it is dialled now and then for
//! further ones, without the addresses of linked peers and without a word when there is none.
//!
//! Tested by: `protocol::tests::addresses`, `sim::tests::addresses`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::env::Env;
use crate::protocol::io::{CallId, DialId, Output};
use crate::protocol::link::Links;
use crate::types::{CloseReason, Endpoint, PeerId};

use super::Membership;

/// Maximum number of addresses that one dial is led to.
const MAX_TRIED: usize = 16;

/// Purpose of a dial: on whose behalf it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A peer from the book.
    Peer(PeerId),
    /// A bootstrap peer, by position.
    Bootstrap(usize),
    /// The host asked.
    Host(CallId),
}

/// A dial under way, until its link's hello is through.
#[derive(Debug)]
pub(in crate::protocol) struct Dial {
    pub(in crate::protocol) endpoint: Endpoint,
    pub(super) purpose: Purpose,
    pub(super) walk: Walk,
    /// Failure of the transport in words, once it failed.
    pub(super) failure: String,
}

impl Dial {
    /// Failure of the transport in words, where there are any: refusals have none.
    pub(super) fn shown_failure(&self) -> Option<&str> {
        Some(self.failure.as_str()).filter(|words| !words.is_empty())
    }
}

/// State of a dial over its attempts.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Peer that must be there, as far as the host said whom it means.
    pub(super) pin: Option<PeerId>,
    /// Addresses that this dial was led to and left.
    pub(super) tried: Vec<SocketAddr>,
    /// Addresses of peers that are linked, when only further peers are sought.
    pub(super) linked: Option<Vec<SocketAddr>>,
    /// Addresses that failed at an earlier time are left out.
    pub(super) skips_failed: bool,
    /// Reason for which the last of `tried` was left.
    pub(super) refused: Option<CloseReason>,
    /// Time for which those who refused want us to stay away.
    pub(super) retry: Duration,
}

impl Walk {
    /// Reports whether only peers are sought that are not linked yet.
    pub(super) fn seeks_further(&self) -> bool {
        self.linked.is_some()
    }

    /// Takes the address that was refused; `false` when the dial ends here.
    pub(super) fn leave(
        &mut self,
        address: SocketAddr,
        reason: CloseReason,
        retry: Duration,
    ) -> bool {
        self.refused = Some(reason);
        self.retry = self.retry.max(retry);
        // Some transports do not know how to leave an address out.
        let goes_on = self.tried.len() < MAX_TRIED && !self.tried.contains(&address);
        self.tried.push(address);
        goes_on
    }
}

impl Membership {
    /// Returns the number of a new dial.
    pub(in crate::protocol) fn mint_dial(&mut self) -> DialId {
        self.next_dial += 1;
        DialId(self.next_dial)
    }

    /// Begins a dial, or makes its next attempt.
    pub(super) fn attempt(
        &mut self,
        env: &mut Env,
        endpoint: Endpoint,
        purpose: Purpose,
        mut walk: Walk,
    ) {
        let mut avoid = walk.tried.clone();
        if endpoint.is_name() && !matches!(purpose, Purpose::Host(_)) {
            let failed = self.dead_ends.failed(&endpoint, env.now);
            let failed: Vec<_> = failed.filter(|address| !avoid.contains(address)).collect();
            walk.skips_failed = !failed.is_empty();
            avoid.extend(failed);
            let linked = walk.linked.iter().flatten().copied();
            for address in self.dead_ends.own(env.now).chain(linked) {
                if !avoid.contains(&address) {
                    avoid.push(address);
                }
            }
        }
        let dial = self.mint_dial();
        env.counters.dials_started += 1;
        let expected = match purpose {
            Purpose::Peer(peer) => Some(peer),
            Purpose::Bootstrap(_) | Purpose::Host(_) => walk.pin,
        };
        let (failure, to) = (String::new(), endpoint.clone());
        self.dials.insert(dial, Dial { endpoint: to, purpose, walk, failure });
        let rung = self.rungs[0];
        env.push(Output::Dial { dial, endpoint, rung, expected, avoid });
    }

    /// Reports whether a link's peer is not what its dial is for, since it is linked already.
    pub(in crate::protocol) fn is_sought_no_more(
        &self,
        links: &Links,
        dial: Option<DialId>,
        peer: &PeerId,
    ) -> bool {
        let dial = dial.and_then(|dial| self.dials.get(&dial));
        dial.is_some_and(|d| d.walk.seeks_further()) && links.by_peer.contains_key(peer)
    }

    /// Returns the addresses at which linked peers can be reached, as far as is known.
    pub(super) fn linked_addresses(&self, links: &Links) -> Vec<SocketAddr> {
        let named = |peer| self.book.known.get(peer).map(|known| &known.dialable);
        let named = links.by_peer.keys().filter_map(named).flatten();
        let dialled = links.all.values().filter(|l| l.endpoint.is_some()).filter_map(|l| l.address);
        dialled.chain(named.filter_map(Endpoint::socket_addr)).collect()
    }

    /// An attempt was led to an address whose peer is not what was looked for; `true` when that says
    /// something about the address, and not about the peer or about us.
    pub(super) fn leads_astray(dial: &Dial, reason: CloseReason) -> bool {
        use CloseReason as R;
        let is_expected = matches!(dial.purpose, Purpose::Peer(_)) || dial.walk.pin.is_some();
        match reason {
            R::Requested | R::Replaced => false,
            // It is the peer, and its word holds wherever it is reached.
            _ if is_expected => matches!(reason, R::TransportClosed | R::HandshakeTimeout),
            _ => true,
        }
    }
}
