//! Sizes and their bounds, for the checker of the simulation.
//!
//! Tested by: `sim::tests::checkers`.

use super::Protocol;
use super::env::{MAX_STORING, MAX_VERIFYING};

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
    fn assembling(&self) -> usize {
        usize::try_from(self.assemblies.bytes.level()).unwrap_or(usize::MAX)
    }

    /// One payload alone may be larger than the budget.
    fn assembly_bound(&self) -> usize {
        let gossip = &self.env.config.gossip;
        let bound = gossip.max_assembly_bytes.max(gossip.max_transaction_size);
        usize::try_from(bound).unwrap_or(usize::MAX)
    }

    /// Every table and queue that grows, with the bound that it must keep.
    #[doc(hidden)]
    pub fn gauges(&self) -> Vec<Gauge> {
        let most = |of: &dyn Fn(&crate::protocol::link::Link) -> usize| {
            self.links.all.values().map(of).max().unwrap_or(0)
        };
        let up = |of: fn(&crate::protocol::link::Established) -> usize| {
            move |l: &crate::protocol::link::Link| l.up.as_ref().map_or(0, of)
        };
        let [spilling, spilled] = self.assemblies.spills.sizes();
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let gauge = |name, value, bound| Gauge { name, value, bound };
        let (deferred, deferred_bound) =
            self.replays.deferred(self.env.config.gossip.max_transaction_size);
        vec![
            gauge(
                "pending",
                self.intake.pending.len(),
                crate::protocol::intake::MAX_PENDING + count(MAX_STORING),
            ),
            gauge("unwanted", self.log.refused_len(), crate::protocol::log::MAX_REFUSED),
            gauge("not passed", self.log.recent_len(), crate::protocol::spread::MAX_NOT_PASSED),
            gauge(
                "sessions",
                count(self.repairs.running.level()),
                count(crate::protocol::reconcile::MAX_RUNNING),
            ),
            gauge(
                "ranges of a session",
                most(&up(|u| u.repair.ranges())),
                crate::protocol::reconcile::MAX_RANGES,
            ),
            gauge("refused", self.intake.refused_len(), crate::protocol::intake::MAX_REFUSED),
            gauge("bytes of buffers", self.assembling(), self.assembly_bound()),
            gauge("being spilled", spilling, count(crate::protocol::large::MAX_WRITES)),
            gauge("spilled", spilled, crate::protocol::large::MAX_KEPT),
            gauge(
                "bytes of proofs",
                self.serving.proofs.bytes(),
                crate::protocol::serve::MAX_PROOF_CACHE,
            ),
            gauge(
                "waiting for room",
                self.assemblies.waiting.len(),
                crate::protocol::intake::MAX_PENDING,
            ),
            gauge("bytes deferred", deferred, deferred_bound),
            gauge("order of a replay", self.replays.longest(), crate::protocol::outbox::MAX_ORDER),
            gauge("promises", self.guard.promises.len(), crate::protocol::guard::MAX_PROMISES),
            gauge(
                "doubted peers",
                self.guard.reputation.doubted(),
                crate::protocol::guard::MAX_SCORES,
            ),
            gauge("limited peers", self.guard.rate_limits.len(), crate::protocol::guard::MAX_PEERS),
            gauge(
                "book",
                self.membership.book.known.len(),
                self.env.config.discovery.max_peers as usize,
            ),
            gauge("dials", self.membership.dials.len(), 1024),
            gauge("links", self.links.up_count(), usize::from(crate::protocol::link::MAX_SLOTS)),
            gauge("outbox", self.outbox.len(), self.env.config.outbox.max_entries as usize),
            gauge(
                "bytes queued on a link",
                most(&|l| l.queued_bytes),
                crate::protocol::link::MAX_QUEUED,
            ),
            gauge(
                "asked of a link",
                most(&up(|u| u.requests.in_flight.len())),
                crate::protocol::intake::MAX_ASKED,
            ),
            gauge(
                "served to a link",
                most(&up(|u| u.serve.entries.len())),
                crate::protocol::serve::MAX_SERVING,
            ),
            gauge(
                "backlog of a link",
                most(&up(|u| u.requests.backlog.len())),
                crate::protocol::intake::MAX_PENDING,
            ),
            gauge("topics", self.log.topics.len(), usize::from(u16::MAX)),
            gauge(
                "origins learned",
                self.spread.policy.origins(),
                crate::protocol::spread::MAX_ORIGINS,
            ),
            gauge("timers", self.env.timers.len(), crate::protocol::intake::MAX_PENDING + 1024),
            gauge("tickets", self.env.tickets.len(), 4 * count(MAX_VERIFYING) + count(MAX_STORING)),
        ]
    }
}
