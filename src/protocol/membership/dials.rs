//! Dials: one entry of a walk, which is one attempt at an endpoint by one transport, or several, each at
//! other addresses.
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
use crate::protocol::guard::Guard;
use crate::protocol::io::{DialId, Output};
use crate::protocol::link::Links;
use crate::protocol::refusal::ConnectFailure;
use crate::types::{
    CloseReason, Endpoint, Event, FailureKind, LinkId, MonoTime, PeerId, TransportKind,
};

use super::Membership;
use super::ladder::{Entry, Failure, Walk, WalkId};

/// Maximum number of addresses that one dial is led to.
pub(super) const MAX_TRIED: usize = 16;

/// Purpose of a walk: on whose behalf it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A peer from the book.
    Peer(PeerId),
    /// A bootstrap peer, by position.
    Bootstrap(usize),
    /// The host asked.
    Host,
    /// Somebody announces on the LAN that a peer is there.
    Nearby,
}

/// A dial under way, until its link's hello is through.
#[derive(Debug)]
pub(in crate::protocol) struct Dial {
    pub(super) walk: WalkId,
    pub(in crate::protocol) endpoint: Endpoint,
    pub(super) rung: TransportKind,
    pub(super) trail: Trail,
    pub(super) started: MonoTime,
    /// Link that it has led to, and since when.
    pub(super) link: Option<(LinkId, MonoTime)>,
}

/// Addresses of a name that a dial has been led to.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Addresses that this dial was led to and left.
    pub(super) tried: Vec<SocketAddr>,
    /// Addresses that failed at an earlier time are left out.
    pub(super) skips_failed: bool,
    /// Reason for which the last of `tried` was left.
    pub(super) refused: Option<CloseReason>,
}

impl Trail {
    /// Takes the address that was refused; `false` when the dial ends here.
    fn leave(&mut self, address: SocketAddr, reason: CloseReason) -> bool {
        self.refused = Some(reason);
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
    pub(super) fn attempt(&mut self, env: &mut Env, id: WalkId, entry: Entry, mut trail: Trail) {
        let dial = self.mint_dial();
        let Some(walk) = self.walks.get_mut(&id) else { return };
        let Entry { endpoint, rung } = entry;
        let mut avoid = trail.tried.clone();
        let mut add = |address: SocketAddr| {
            if !avoid.contains(&address) {
                avoid.push(address);
            }
        };
        if endpoint.is_name() {
            walk.astray.iter().copied().for_each(&mut add);
            if walk.purpose != Purpose::Host {
                let mut failed = self.dead_ends.failed(&endpoint, env.now).peekable();
                let is_new = |address: &SocketAddr| !trail.tried.contains(address);
                trail.skips_failed = failed.by_ref().filter(is_new).map(&mut add).count() > 0;
                let linked = walk.route.linked.iter().flatten().copied();
                self.dead_ends.own(env.now).chain(linked).for_each(add);
            }
        }
        env.counters.dials_started += 1;
        let (expected, started) = (walk.expected(), env.now);
        walk.dials.insert(dial);
        let to = endpoint.clone();
        self.dials.insert(dial, Dial { walk: id, endpoint: to, rung, trail, started, link: None });
        env.push(Output::Dial { dial, endpoint, rung, expected, avoid });
    }

    /// Ends a dial; what its walk makes of that is the caller's business.
    fn take_dial(&mut self, dial: DialId) -> Option<Dial> {
        let taken = self.dials.remove(&dial)?;
        self.has_moved = true;
        if let Some(walk) = self.walks.get_mut(&taken.walk) {
            walk.dials.remove(&dial);
        }
        Some(taken)
    }

    /// A dial has led to a link, whose hello is still to come.
    pub(in crate::protocol) fn note_opened(&mut self, env: &mut Env, dial: DialId, link: LinkId) {
        let Some(d) = self.dials.get_mut(&dial) else { return };
        d.link = Some((link, env.now));
        let walk = d.walk;
        self.go_on(env, walk);
    }

    pub(in crate::protocol) fn on_dial_failed(
        &mut self,
        env: &mut Env,
        links: &Links,
        guard: &Guard,
        dial: DialId,
        reason: FailureKind,
        detail: String,
    ) {
        let Some(d) = self.take_dial(dial) else { return };
        let Some(walk) = self.walks.get(&d.walk) else { return };
        let is_wanted = !walk.seeks_further() && !env.shutting_down;
        if d.trail.skips_failed && d.trail.tried.is_empty() && is_wanted {
            // What failed at an earlier time may be well by now.
            self.dead_ends.forget(&d.endpoint);
            let entry = Entry { endpoint: d.endpoint, rung: d.rung };
            self.attempt(env, d.walk, entry, d.trail);
            return;
        }
        // What led astray was told when it did, and that there is nobody else is no failure.
        let is_told = d.trail.refused.is_some() || reason == FailureKind::NoneLeft;
        if !is_told && !walk.seeks_further() {
            let (address, transport) = (d.endpoint.to_string(), d.rung);
            let failure = Some(detail.as_str()).filter(|words| !words.is_empty());
            tracing::debug!(target: "sorcha_peer::overlay", %address, %transport, %reason, failure, "dial failed");
            env.emit(Event::DialFailed { address, transport, reason });
        }
        let why = d.trail.refused.map_or(ConnectFailure::Dial(reason), ConnectFailure::Refused);
        self.entry_failed(env, &d, Failure { why, detail, remote: None }, Duration::ZERO);
        self.maintain(env, links, guard);
    }

    /// A link's dial has done its work.
    pub(in crate::protocol) fn finish_dial_of(
        &mut self,
        env: &mut Env,
        links: &Links,
        link: LinkId,
        result: Result<(), ConnectFailure>,
    ) {
        let Some(l) = links.all.get(&link) else { return };
        let (dial, remote, address) = (l.dial, l.remote, l.address);
        self.finish_dial(env, dial, &remote, address, result, Duration::ZERO);
    }

    /// Ends a dial whose link led to `remote`, well or badly, unless there are other addresses to be
    /// tried; `retry` is how long the peer wants us to stay away.
    pub(in crate::protocol) fn finish_dial(
        &mut self,
        env: &mut Env,
        dial: Option<DialId>,
        remote: &PeerId,
        address: Option<SocketAddr>,
        result: Result<(), ConnectFailure>,
        retry: Duration,
    ) {
        let Some(mut dial) = dial.and_then(|d| self.take_dial(d)) else { return };
        let is_greeting = self.end_of_patience(dial.walk).is_some();
        let Some(walk) = self.walks.get_mut(&dial.walk) else { return };
        let is_replaced = result == Err(ConnectFailure::Refused(CloseReason::Replaced));
        let further = walk.seeks_further();
        if is_replaced && !further && is_greeting {
            // A link of this walk is before it, and may still fail.
            walk.put_back(Entry { endpoint: dial.endpoint, rung: dial.rung });
            self.go_on(env, dial.walk);
            return;
        }
        let name = dial.endpoint.is_name().then_some(&dial.endpoint);
        match (&result, address, name) {
            (Ok(()), Some(address), Some(name)) => self.dead_ends.note_good(name, address),
            (Err(ConnectFailure::Refused(reason)), Some(address), Some(name)) => {
                let astray = further && is_replaced || leads_astray(walk, *reason);
                if astray {
                    self.dead_ends.note_failed(name, address, env.now);
                    walk.note_astray(address, *reason, retry);
                }
                if astray && dial.trail.leave(address, *reason) && !env.shutting_down {
                    let entry = Entry { endpoint: dial.endpoint, rung: dial.rung };
                    self.attempt(env, dial.walk, entry, dial.trail);
                    return;
                }
            }
            _ => {}
        }
        match result {
            // Replaced: the peer is linked, only not over this connection.
            Err(why) if !is_replaced => {
                let (detail, remote) = (String::new(), Some(*remote));
                self.entry_failed(env, &dial, Failure { why, detail, remote }, retry);
            }
            _ => self.won(env, &dial, *remote),
        }
    }

    /// Reports whether a link's peer is not what its dial is for, since it is linked already.
    pub(in crate::protocol) fn is_sought_no_more(
        &self,
        links: &Links,
        dial: Option<DialId>,
        peer: &PeerId,
    ) -> bool {
        let walk = dial.and_then(|dial| self.walks.get(&self.dials.get(&dial)?.walk));
        walk.is_some_and(Walk::seeks_further) && links.by_peer.contains_key(peer)
    }

    /// Returns the addresses at which linked peers can be reached, as far as is known.
    pub(super) fn linked_addresses(&self, links: &Links) -> Vec<SocketAddr> {
        let named = |peer| self.book.known.get(peer).map(|known| &known.dialable);
        let named = links.by_peer.keys().filter_map(named).flatten();
        let dialled = links.all.values().filter(|l| l.endpoint.is_some()).filter_map(|l| l.address);
        dialled.chain(named.filter_map(Endpoint::socket_addr)).collect()
    }
}

/// An attempt was led to an address whose peer is not what was looked for; `true` when that says
/// something about the address, and not about the peer or about us.
fn leads_astray(walk: &Walk, reason: CloseReason) -> bool {
    use CloseReason as R;
    match reason {
        R::Requested | R::Replaced => false,
        // It is the peer, and its word holds wherever it is reached.
        _ if walk.expected().is_some() => {
            matches!(reason, R::TransportClosed | R::HandshakeTimeout)
        }
        _ => true,
    }
}
