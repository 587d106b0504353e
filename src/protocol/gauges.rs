//! Sizes and their bounds, for the checker of the simulation.
//!
//! Tested by: `sim::tests::checkers`.

use super::env::{MAX_STORING, MAX_VERIFYING};
use super::{
    Protocol, guard, intake, large, link, log, membership, messages, outbox, reachability,
    reconcile, serve, spread,
};

/// Number of walks that is more than the node begins by itself, and a host at a time.
const MAX_WALKS: usize = 1024;

/// A size inside a node and the bound that it must not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// Name of what is measured.
    pub name: &'static str,
    /// Size of what is measured.
    pub value: usize,
    /// Bound of the size.
    pub bound: usize,
}

impl Protocol {
    /// Every table and queue that grows, with the bound that it must keep.
    #[doc(hidden)]
    pub fn gauges(&self) -> Vec<Gauge> {
        let most =
            |of: &dyn Fn(&link::Link) -> usize| self.links.all.values().map(of).max().unwrap_or(0);
        let up =
            |of: fn(&link::Established) -> usize| move |l: &link::Link| l.up.as_ref().map_or(0, of);
        let [spilling, spilled] = self.assemblies.spills.sizes();
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let [names, addresses, own] = self.membership.dead_ends.sizes();
        let [walks, breakers] = self.membership.ladder_sizes();
        let reach = &self.reachability;
        let [dial_backs, paced] = reach.helping.sizes();
        let gauge = |name, value, bound| Gauge { name, value, bound };
        let (shares, largest) = (&self.env.shares, self.env.config.gossip.max_transaction_size);
        // One payload alone may be larger than the share.
        let share = |name, value, share: u64, largest: u64| {
            gauge(name, count(value), count(share.max(largest)))
        };
        let one_deferred = outbox::Replays::weight_of(largest);
        // What is being checked when the gates close still comes.
        let arriving = self.env.bound(shares.assemblies + shares.storing);
        let arriving = arriving + self.env.bound(shares.checks) + largest;
        let [calls, received] = self.messages.sizes();
        let [own_bytes, their_bytes] = self.messages.held();
        let (held, of_peer) = (self.messages.max_held(), self.messages.max_received());
        let of_peers = self.messages.max_received_in_all();
        let bodies = messages::MAX_CALLS + of_peer;
        vec![
            gauge("pending", self.intake.pending.len(), intake::MAX_PENDING + count(MAX_STORING)),
            gauge("unwanted", self.log.refused_len(), log::MAX_REFUSED),
            gauge("not passed", self.log.recent_len(), spread::MAX_NOT_PASSED),
            gauge("sessions", count(self.repairs.running.level()), count(reconcile::MAX_RUNNING)),
            gauge("ranges of a session", most(&up(|u| u.repair.ranges())), reconcile::MAX_RANGES),
            gauge("refused", self.intake.refused_len(), intake::MAX_REFUSED),
            share("bytes of buffers", self.assemblies.bytes.level(), shares.assemblies, largest),
            share("bytes being stored", self.env.storing_bytes.level(), arriving, largest),
            share("bytes held for peers", self.serving.held.bytes(), shares.serving, largest),
            share("bytes of the cache", self.log.cached_bytes(), shares.cache, 2 * largest),
            gauge("being spilled", spilling, count(large::MAX_WRITES)),
            gauge("spilled", spilled, large::MAX_KEPT),
            share("bytes of proofs", self.serving.proofs.bytes(), shares.proofs, 0),
            gauge("waiting for room", self.assemblies.waiting.len(), intake::MAX_PENDING),
            share("bytes deferred", self.replays.deferred_bytes(), shares.deferred, one_deferred),
            gauge("order of a replay", self.replays.longest(), outbox::MAX_ORDER),
            gauge("clocks of peers", self.env.clock.sampled().len(), usize::from(link::MAX_SLOTS)),
            gauge("links that are gone", self.links.recent.len(), link::MAX_RECENT),
            gauge("promises", self.guard.promises.len(), guard::MAX_PROMISES),
            gauge("doubted peers", self.guard.reputation.doubted(), guard::MAX_SCORES),
            gauge("limited peers", self.guard.rate_limits.len(), guard::MAX_PEERS),
            gauge("incarnations", self.guard.twins.seen(), guard::MAX_SEEN),
            gauge("hosts of strangers", self.guard.strangers.len(), guard::MAX_HOSTS),
            gauge(
                "book",
                self.membership.book.known.len(),
                self.env.config.discovery.max_peers as usize,
            ),
            gauge("names with dead ends", names, membership::MAX_NAMES),
            gauge("dead ends of a name", addresses, membership::MAX_ADDRESSES),
            gauge("own addresses", own, membership::MAX_OWN),
            gauge("votes", reach.votes.len(), reachability::MAX_VOTES),
            gauge("addresses asked about", reach.asking.len(), reachability::MAX_PLACES),
            gauge("hosts remembered", reach.contacts.len(), reachability::MAX_CONTACTS),
            gauge("hosts dialled", reach.visited.len(), reachability::MAX_CONTACTS),
            gauge("dial-backs under way", dial_backs, reachability::MAX_UNDER_WAY),
            gauge("paced dial-backs", paced, reachability::MAX_PACED),
            gauge("places nearby", self.membership.nearby.len(), membership::MAX_PLACES),
            gauge("walks", walks, MAX_WALKS),
            gauge("dials", self.membership.dials.len(), MAX_WALKS * membership::MAX_ENTRIES),
            gauge("breakers", breakers, membership::MAX_BREAKERS),
            gauge("dials for links", self.links.attempts.len(), usize::from(link::MAX_SLOTS)),
            gauge("bounds of connections", self.membership.cuts.len(), link::MAX_PLACES),
            gauge("ways that failed", self.links.failed_ways.len(), link::MAX_FAILED),
            gauge("links", self.links.up_count(), usize::from(link::MAX_SLOTS)),
            gauge("outbox", self.outbox.len(), self.env.config.outbox.max_entries as usize),
            gauge("bytes queued on a link", most(&|l| l.queued_bytes), link::MAX_QUEUED),
            gauge("asked of a link", most(&up(|u| u.requests.in_flight.len())), intake::MAX_ASKED),
            gauge("probes of a link", most(&up(|u| u.probing.owed.len())), link::MAX_OWED),
            gauge("served to a link", most(&up(|u| u.serve.entries.len())), serve::MAX_SERVING),
            gauge(
                "backlog of a link",
                most(&up(|u| u.requests.backlog.len())),
                intake::MAX_PENDING,
            ),
            gauge("requests of the host", calls, messages::MAX_CALLS),
            gauge("requests of peers", received, of_peers),
            gauge("requests of a peer", most(&up(|u| u.messages.sizes()[1])), of_peer),
            gauge("bodies sent on a link", most(&up(|u| u.messages.sizes()[0])), bodies),
            share("bytes of own requests", own_bytes, held, 0),
            share("bytes of peers' requests", their_bytes, held, 0),
            share("bytes of trails", self.trail.bytes(), shares.trails, 0),
            gauge("topics", self.log.topics.len(), usize::from(u16::MAX)),
            gauge("origins learned", self.spread.policy.origins(), spread::MAX_ORIGINS),
            gauge("timers", self.env.timers.len(), intake::MAX_PENDING + 1024),
            gauge(
                "tickets",
                self.env.tickets.len(),
                4 * count(MAX_VERIFYING) + count(MAX_STORING) + of_peers,
            ),
        ]
    }
}
