//! Whether others can dial this node, and which addresses they are told.
//!
//! `votes` are what dialled peers see, `candidates` what else may be an address of this node; `asking` has
//! other nodes dial them; `helping` is what this node does for others; `contacts` knows who can prove nothing.
//!
//! ```text
//!   worker ──candidates──┐
//!   peers  ──votes───────┴─► places ──round──► findings ──► own record, state, report
//! ```
//!
//! - An address of public scope that the host has not configured is told to nobody before strangers have
//!   dialled it: peers of distinct groups are asked ([`asking`]), and each has a third node do so
//!   ([`helping`]). A linked peer's own dial says nothing: where this node has sent packets to, its NAT may let
//!   in.
//! - A proof is a connection from a host that this node had none with and has not dialled in ten minutes, for
//!   others neither, whose hello says a nonce of the latest round. It takes no place and carries no link.
//! - The state is that of the best addresses asked about: with one of public scope, those of the site have no
//!   say. It is private where all of them failed that anybody was asked about.
//!
//! A node that does not listen is private from the start, and asks nobody.
//!
//! Tested by: `protocol::tests::reachability`, `sim::tests::reachability`.

mod asking;
mod candidates;
mod contacts;
mod helping;
mod report;
mod votes;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::protocol::Protocol;
use crate::protocol::io::Output;
use crate::protocol::link::Link;
use crate::protocol::timers::Timer;
use crate::types::{
    AddressScope, CandidateDraft, CloseReason, DialBackOutcome, Direction, Endpoint, Event, LinkId,
    Message, MonoTime, PeerId, Reachability, host_of,
};

use asking::{Asking, HELPERS, Verdict};
use candidates::{Candidates, Place};
use contacts::Contacts;
use helping::Helping;
use votes::Votes;

#[cfg(any(test, feature = "sim"))]
pub(super) use candidates::MAX_PLACES;
#[cfg(any(test, feature = "sim"))]
pub(super) use contacts::MAX_CONTACTS;
#[cfg(any(test, feature = "sim"))]
pub(super) use helping::{MAX_PACED, MAX_UNDER_WAY};
#[cfg(any(test, feature = "sim"))]
pub(super) use votes::MAX_VOTES;

/// Peer that could be asked.
#[derive(Debug, Clone, Copy)]
struct Helper {
    link: LinkId,
    peer: PeerId,
    group: u64,
}

/// Ways by which others reach this node.
#[derive(Debug)]
pub(super) struct OwnReach {
    pub(super) votes: Votes,
    candidates: Candidates,
    pub(super) asking: Asking,
    pub(super) helping: Helping,
    pub(super) contacts: Contacts,
    /// Hosts that were dialled lately: where no connection came of it, this node is a stranger to them still, and
    /// they are none to it.
    pub(super) visited: Contacts,
    /// Endpoints that were told last.
    told: Vec<Endpoint>,
    /// State that the host was told last, and the end of what it rests on.
    pub(super) state: Reachability,
    until: Option<MonoTime>,
}

impl OwnReach {
    /// State of a node that listens at `listening`, whose host has it told of as `configured`.
    pub(super) fn new(configured: &[Endpoint], listening: Option<SocketAddr>) -> Self {
        let votes = Votes::default();
        let candidates = Candidates::new(configured, listening);
        let told = candidates::told(&candidates.places(&votes), |_| false);
        let listens = listening.is_some() || !configured.is_empty();
        let state = if listens { Reachability::Unknown } else { Reachability::Private };
        Self {
            votes,
            candidates,
            asking: Asking::default(),
            helping: Helping::default(),
            contacts: Contacts::default(),
            visited: Contacts::default(),
            told,
            state,
            until: None,
        }
    }

    /// Returns the addresses at which dialled peers see this node, best first.
    pub(super) fn observed(&self) -> impl Iterator<Item = IpAddr> {
        self.votes.named().iter().filter(|named| named.is_seen).map(|named| named.ip)
    }

    fn verdict(&self, address: SocketAddr) -> Verdict {
        self.asking.finding(address).map_or(Verdict::Waiting, |finding| finding.verdict)
    }
}

impl Protocol {
    /// The sources name these candidates now.
    pub(in crate::protocol) fn on_candidates(&mut self, drafts: Vec<CandidateDraft>) {
        self.reachability.candidates.replace(drafts);
        self.settle_reachability();
    }

    /// A peer says from where it sees this node come, or where it dialled it.
    pub(in crate::protocol) fn note_observed(&mut self, link: LinkId, observed: Option<IpAddr>) {
        let Some(l) = self.links.all.get_mut(&link) else { return };
        // Where the peer's address is unknown, a proxy stands between, and the peer sees that.
        let Some(voter) = l.address else { return };
        let observed = observed.map(|ip| ip.to_canonical());
        let (peer, direction) = (l.remote, l.direction);
        if let Some(up) = &mut l.up {
            up.observed = observed;
        }
        if let Some(ip) = observed {
            self.reachability.votes.note_vote(peer, (voter, direction), ip, self.env.now);
        }
        self.settle_reachability();
    }

    /// A connection has ended, whether it came to a link or not.
    pub(in crate::protocol) fn note_connection_ended(&mut self, l: &Link) {
        if l.is_dial_back {
            self.end_dial_back(l.id);
        } else if let Some(address) = l.address {
            self.reachability.contacts.note(address.ip(), self.env.now);
        }
    }

    /// The last link with a peer has ended.
    pub(in crate::protocol) fn note_peer_gone(&mut self, peer: &PeerId) {
        self.reachability.votes.note_down(peer, self.env.now);
        self.reachability.asking.note_gone(peer);
        self.release_helper(peer);
        self.settle_reachability();
    }

    /// A dial goes out, and opens the filter of this node to whoever is there, whatever comes of it.
    pub(in crate::protocol) fn note_dialled(&mut self, endpoint: &Endpoint) {
        if let Some(address) = endpoint.socket_addr() {
            self.reachability.visited.note(address.ip(), self.env.now);
        }
    }

    /// Reports whether there was no connection with a host lately, but `link` and dial-backs: a host that did not
    /// answer has let nobody in.
    fn is_stranger(&self, ip: IpAddr, link: Option<LinkId>) -> bool {
        let host = host_of(ip);
        let is_there = |l: &Link| {
            Some(l.id) != link && l.address.is_some_and(|address| host_of(address.ip()) == host)
        };
        !self.reachability.contacts.has(ip, self.env.now) && !self.links.all.values().any(is_there)
    }

    /// Reports whether whoever comes over `link` cannot have been let in by what this node sent there.
    fn comes_unbidden(&self, ip: IpAddr, link: LinkId) -> bool {
        self.is_stranger(ip, Some(link)) && !self.reachability.visited.has(ip, self.env.now)
    }

    /// Somebody came to say a nonce, and for nothing else.
    pub(in crate::protocol) fn on_dial_back_hello(&mut self, link: LinkId, nonce: u64) {
        let Some(l) = self.links.all.get(&link) else { return };
        let (from, is_inbound) = (l.address, l.direction == Direction::Inbound);
        if !is_inbound || !self.reachability.asking.is_asked(nonce) {
            // Whoever says so was told wrong by somebody else, or comes late.
            self.env.counters.dial_backs_unasked += 1;
        } else if from.is_some_and(|from| self.comes_unbidden(from.ip(), link)) {
            self.env.counters.dial_backs_seen += 1;
            self.reachability.asking.note_seen(nonce);
        } else {
            self.env.counters.dial_backs_doubted += 1;
        }
        if let Some(l) = self.links.all.get_mut(&link) {
            l.is_dial_back |= is_inbound;
        }
        self.close(link, CloseReason::Requested);
        self.settle_reachability();
    }

    /// Somebody who was asked says what came of it: to this node's own question, or to one that it passed on.
    pub(in crate::protocol) fn on_dial_back_result(
        &mut self,
        link: LinkId,
        nonce: u64,
        outcome: DialBackOutcome,
        dialler: Option<PeerId>,
    ) {
        let Some(peer) = self.links.peer_of(link) else { return };
        if self.reachability.asking.note_answer(&peer, nonce, outcome, dialler) {
            self.settle_reachability();
        } else {
            self.on_dialled_back(peer, nonce, outcome);
        }
    }

    /// Something was to be done by now.
    pub(in crate::protocol) fn on_reachability_due(&mut self) {
        self.end_late_dial_backs();
        self.settle_reachability();
    }

    /// Brings what is asked, told and known up to date.
    pub(in crate::protocol) fn settle_reachability(&mut self) {
        let now = self.env.now;
        self.reachability.votes.settle(now);
        if self.reachability.candidates.is_empty() || self.env.shutting_down {
            self.arm_reachability();
            return;
        }
        let places = self.reachability.candidates.places(&self.reachability.votes);
        let addresses = candidates::addresses(&places);
        self.end_round();
        self.reachability.asking.keep(&addresses, now);
        let nat = &self.env.config.nat;
        // A mapping of the listening port is named in a moment, and asked about first: behind a NAT the port
        // itself would have the first minute for nothing.
        let is_mapping_awaited = (nat.port_mapping || !nat.stun.is_empty())
            && !places.iter().any(|place| candidates::is_mapping(place.source));
        let groups = |address: SocketAddr| {
            let groups: BTreeSet<_> = self.helpers(address).map(|helper| helper.group).collect();
            if is_mapping_awaited { groups.len().min(HELPERS - 1) } else { groups.len() }
        };
        if let Some(address) = self.reachability.asking.due(&addresses, groups, now) {
            self.begin_round(address);
        }
        self.tell_endpoints(&places);
        self.tell_state(&addresses);
        self.arm_reachability();
    }

    /// Returns the peers that see this node at an address and take part.
    fn helpers(&self, address: SocketAddr) -> impl Iterator<Item = Helper> {
        self.links.all.values().filter_map(move |l| {
            let up = l.up.as_ref()?;
            let group = Endpoint::from(l.address?).group();
            let takes_part = up.dials_back && up.observed == Some(address.ip());
            takes_part.then_some(Helper { link: l.id, peer: l.remote, group })
        })
    }

    /// Asks some peers, each of another address group, about an address.
    fn begin_round(&mut self, address: SocketAddr) {
        let mut helpers: Vec<_> = self.helpers(address).collect();
        self.env.rng.shuffle(&mut helpers);
        helpers.sort_by_key(|helper| self.reachability.asking.was_asked(&helper.peer));
        let mut groups = BTreeSet::new();
        helpers.retain(|helper| groups.insert(helper.group));
        helpers.truncate(HELPERS);
        let mut asked = Vec::new();
        for Helper { link, peer, .. } in helpers {
            // 0 is none.
            let nonce = self.env.rng.next_u64().max(1);
            self.env.counters.dial_backs_asked += 1;
            self.send(link, Message::DialBack { nonce, port: address.port() });
            asked.push((peer, nonce));
        }
        tracing::debug!(target: "sorcha_peer::reachability", %address, asked = asked.len(), "asking to be dialled");
        self.reachability.asking.begin(address, asked.into_iter(), self.env.now);
    }

    /// Ends the round if it is decided.
    fn end_round(&mut self) {
        if let Some((address, verdict, silent)) = self.reachability.asking.end_round(self.env.now) {
            self.env.counters.dial_backs_unanswered += silent as u64;
            let counter = match verdict {
                Verdict::Proven => &mut self.env.counters.addresses_proven,
                Verdict::NotReached => &mut self.env.counters.addresses_not_reached,
                Verdict::Waiting | Verdict::Lapsed => &mut self.env.counters.addresses_undecided,
            };
            *counter += 1;
            tracing::debug!(target: "sorcha_peer::reachability", %address, ?verdict, silent, "asked to be dialled");
        }
    }

    /// Has the own record signed anew where it names other endpoints than before.
    fn tell_endpoints(&mut self, places: &[Place]) {
        let reach = &mut self.reachability;
        let told = candidates::told(places, |address| {
            matches!(reach.verdict(address), Verdict::Proven | Verdict::Lapsed)
        });
        if told != reach.told {
            reach.told.clone_from(&told);
            self.env.push(Output::OwnEndpoints { endpoints: told });
        }
    }

    /// Tells the host where the state has changed.
    fn tell_state(&mut self, addresses: &[SocketAddr]) {
        let (state, until) = self.judge(addresses);
        self.reachability.until = until;
        if state != self.reachability.state {
            tracing::info!(
                target: "sorcha_peer::reachability",
                state = state.as_str(),
                endpoint = state.endpoint().map(tracing::field::display),
                "reachability changed"
            );
            self.reachability.state = state.clone();
            self.env.emit(Event::ReachabilityChanged { state });
        }
    }

    /// Returns the state, and the end of what it rests on.
    fn judge(&self, addresses: &[SocketAddr]) -> (Reachability, Option<MonoTime>) {
        let reach = &self.reachability;
        if reach.candidates.listening.is_none() && addresses.is_empty() {
            return (reach.state.clone(), None);
        }
        let best = addresses.iter().map(|at| AddressScope::of(at.ip())).max();
        let deciding =
            || addresses.iter().filter(move |at| Some(AddressScope::of(at.ip())) == best);
        let until = |at: &SocketAddr| reach.asking.finding(*at).map(|finding| finding.until);
        let places = reach.candidates.places(&reach.votes);
        let is_proven = |at: &SocketAddr| reach.verdict(*at) == Verdict::Proven;
        let proven = candidates::told(&places, |at| is_proven(&at));
        let proven = proven.into_iter().find_map(|endpoint| {
            let place = places.iter().find(|place| place.endpoint == endpoint)?;
            let address =
                place.address.filter(|at| deciding().any(|d| d == at) && is_proven(at))?;
            Some((endpoint, until(&address)))
        });
        if let Some((endpoint, until)) = proven {
            return (Reachability::Public(endpoint), until);
        }
        let failed = |at: &&SocketAddr| reach.verdict(**at) == Verdict::NotReached;
        let may_come = |at: &&SocketAddr| !failed(at) && self.helpers(**at).next().is_some();
        if deciding().any(|at| failed(&at)) && !deciding().any(|at| may_come(&at)) {
            let until = deciding().filter(failed).filter_map(until).min();
            return (Reachability::Private, until);
        }
        (Reachability::Unknown, None)
    }

    /// Wakes up when something is due.
    fn arm_reachability(&mut self) {
        let now = self.env.now;
        let reach = &self.reachability;
        let asks = if reach.candidates.is_empty() { None } else { reach.asking.next(now) };
        match asks.into_iter().chain(reach.helping.next()).min() {
            Some(at) => self.env.timers.set(Timer::Reachability, at.max(now)),
            None => self.env.timers.cancel(Timer::Reachability),
        }
    }
}
