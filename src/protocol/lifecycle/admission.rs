//! Who gets a place: a newcomer beyond what there is room for, and a process that has a peer's identity.
//!
//! Tested by: `sim::tests::full_hubs`, `sim::tests::twins`, `protocol::tests::admission`.

use crate::protocol::Protocol;
use crate::protocol::guard::Finding;
use crate::protocol::link::{Candidate, Link, choose};
use crate::types::{CloseReason, Direction, Endpoint, Event, Hello, LinkId, PeerId};

impl Protocol {
    /// Reports whether there is a place for a peer that dialled us and is not linked yet; if need be
    /// another one gives way.
    pub(super) fn has_place(&mut self, link: LinkId, hello: &Hello) -> bool {
        let is_relay = hello.interest.is_relay();
        let most = self.env.config.overlay.max_inbound as usize;
        // Room for relays is kept: the network hangs together by them.
        let crowded = !is_relay && self.links.edges_inbound() >= most - most / 4;
        let full = self.links.count(Direction::Inbound) >= most || self.links.is_full();
        if !full && !crowded {
            return true;
        }
        most > 0 && self.evict_for(link, hello, crowded)
    }

    /// Closes the link that gives way to a newcomer, if one does now; of edges alone if they take up
    /// what there is for them.
    ///
    /// Who cannot be dialled has no other place to go, and who can be may as well be dialled by us. So peers
    /// without an endpoint take the places of those with one, up to three quarters of all; beyond that they
    /// only take those of each other, and give way to the others.
    fn evict_for(&mut self, newcomer: LinkId, hello: &Hello, only_edges: bool) -> bool {
        let now = self.env.now;
        let Some(peer) = self.links.all.get(&newcomer).map(|l| l.remote) else { return false };
        if !self.links.evictions.may_evict_for(&peer, now) {
            return false;
        }
        let inbound = self.links.all.values().filter(|l| l.direction == Direction::Inbound);
        let candidate = |l: &Link| {
            let up = l.up.as_ref().filter(|up| !only_edges || !up.interest.theirs.is_relay())?;
            Some(Candidate {
                link: l.id,
                group: self.group_of(l.id),
                age: now.since(up.since),
                merit: up.merit.points(now),
                rtt: up.pinger.rtt,
                score: up.score(now),
                is_bootstrap: self.membership.book.is_bootstrap(&l.remote),
                is_replaying: self.is_replaying(l),
            })
        };
        let candidates = inbound.filter_map(|l| Some((self.is_private(&l.remote), candidate(l)?)));
        let (private, dialable): (Vec<_>, Vec<_>) =
            candidates.partition(|(is_private, _)| *is_private);
        let share = (3 * self.env.config.overlay.max_inbound as usize).div_ceil(4);
        let is_private = hello.record.endpoints().is_empty() && self.is_private(&peer);
        let is_over = private.len() + usize::from(is_private) > share;
        let pool = if is_over || dialable.is_empty() { private } else { dialable };
        let pool: Vec<_> = pool.into_iter().map(|(_, candidate)| candidate).collect();
        let victim = choose(&pool, self.group_of(newcomer));
        let Some((victim, peer)) = victim.and_then(|link| Some((link, self.links.peer_of(link)?)))
        else {
            return false;
        };
        self.links.evictions.note(peer, now);
        self.env.counters.links_evicted += 1;
        self.close(victim, CloseReason::TooManyLinks);
        true
    }

    /// Reports whether no endpoint of a peer is known that could be dialled.
    fn is_private(&self, peer: &PeerId) -> bool {
        self.membership.book.known.get(peer).is_none_or(|known| known.endpoint(|_| true).is_none())
    }

    /// Returns the address group of a peer; those without an address are one group.
    fn group_of(&self, link: LinkId) -> u64 {
        let address = self.links.all.get(&link).and_then(|l| l.address);
        address.map_or(0, |address| Endpoint::from(address).group())
    }

    /// Somebody with our own key says hello: this very process, which dialled itself, or another one.
    pub(super) fn on_own_hello(&mut self, link: LinkId, direction: Direction, incarnation: u64) {
        if direction == Direction::Inbound {
            // Who dialled finds out by it as well.
            self.say_hello(link);
        }
        if incarnation == self.env.incarnation {
            self.refuse(link, CloseReason::SelfDial);
        } else {
            self.refuse_twin(link);
        }
    }

    /// Somebody with our own key takes us for itself before it has said hello. This process says hello
    /// first, so that is another one, of a version that does not ask.
    pub(super) fn on_mistaken(&mut self, link: LinkId) {
        self.refuse_twin(link);
    }

    fn refuse_twin(&mut self, link: LinkId) {
        let finding = self.guard.twins.note_met(self.env.now);
        self.note_twins(finding, link, self.env.me);
        self.refuse(link, CloseReason::IdentityInUse);
    }

    /// A link with a peer is up: tells of two processes that come in turns.
    pub(super) fn look_for_twins(&mut self, link: LinkId, peer: PeerId, incarnation: u64) {
        let finding = self.guard.twins.note_up(peer, incarnation, self.env.now);
        self.note_twins(finding, link, peer);
    }

    /// A peer says that another connection has taken an own link over: tells if that was none of ours.
    pub(super) fn note_taken_over(&mut self, link: LinkId) {
        let Some(l) = self.links.all.get(&link).filter(|l| l.up.is_some()) else { return };
        let ours = |other: &Link| other.remote == l.remote && other.id != link;
        if !self.links.all.values().any(ours) {
            let (peer, now) = (l.remote, self.env.now);
            let is_only = self.links.all.values().all(|l| l.remote == peer || l.up.is_none());
            let finding = self.guard.twins.note_taken_over(peer, is_only, now);
            self.note_twins(finding, link, self.env.me);
        }
    }

    fn note_twins(&mut self, finding: Finding, link: LinkId, peer: PeerId) {
        if finding == Finding::Single {
            return;
        }
        self.env.counters.identities_in_use += 1;
        if finding == Finding::Tell {
            let address = self.links.all.get(&link).and_then(Link::shown_address);
            tracing::warn!(
                target: "sorcha_peer::guard",
                %peer, address = address.as_deref(), own = peer == self.env.me,
                "two processes have the same identity: was a data directory copied?"
            );
            self.env.emit(Event::IdentityInUse { peer, address });
        }
    }
}
