//! What stands in the way of some rungs: firewalls and proxies.

use std::time::Duration;

use crate::sim::config::{Filter, Obstacle, Rung};
use crate::types::TransportKind;

use super::World;
use super::pipe::Pipe;

/// Time for which a filter lets in whoever was dialled, after that.
const FILTER_MEMORY: Duration = Duration::from_mins(2);

/// Obstacle between two nodes, or between one and all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Obstruction {
    from: Option<usize>,
    to: Option<usize>,
    rung: TransportKind,
    obstacle: Option<Obstacle>,
}

impl World {
    /// Puts an obstacle in the way of dials by a rung, or takes it out of it: of those from a node, or
    /// from all, to a node, or to all. What is linked stays so. What was said last counts.
    pub fn obstruct(
        &mut self,
        from: Option<usize>,
        to: Option<usize>,
        rung: TransportKind,
        obstacle: Option<Obstacle>,
    ) {
        let is_same = |o: &Obstruction| (o.from, o.to, o.rung) == (from, to, rung);
        self.obstructions.retain(|o| !is_same(o));
        self.obstructions.push(Obstruction { from, to, rung, obstacle });
    }

    /// Says whether a node's filter lets another one in that dials it.
    pub fn lets_in(&self, node: usize, dialler: usize) -> bool {
        let ip = |node: usize| self.nodes[node].endpoint.socket_addr().map(|at| at.ip());
        match self.nodes[node].options.filter {
            Filter::Open => true,
            Filter::Closed => false,
            Filter::Restricted => {
                let dialled = &self.nodes[node].dialled;
                let lately = ip(dialler).and_then(|ip| dialled.get(&ip));
                let has_pipe = |p: &Pipe| {
                    !p.broken && p.ends[0].node == node && ip(p.ends[1].node) == ip(dialler)
                };
                lately.is_some_and(|at| self.now.saturating_sub(*at) < FILTER_MEMORY)
                    || self.pipes.iter().any(|(_, p)| has_pipe(p))
            }
        }
    }

    /// A node dials another: its filter lets that one in from now on.
    pub(super) fn note_dialled(&mut self, node: usize, target: usize) {
        let ip = self.nodes[target].endpoint.socket_addr().map(|at| at.ip());
        let n = &mut self.nodes[node];
        if let Some(ip) = ip.filter(|_| n.options.filter == Filter::Restricted) {
            n.dialled.insert(ip, self.now);
        }
    }

    /// Breaks all links of a node, as a proxy does that is started anew.
    pub fn reset_links_of(&mut self, node: usize) {
        for other in 0..self.len() {
            self.reset_link(node, other);
        }
    }

    pub(super) fn obstacle(&self, from: usize, to: usize, rung: TransportKind) -> Option<Obstacle> {
        let applies = |o: &&Obstruction| {
            o.rung == rung && o.from.is_none_or(|n| n == from) && o.to.is_none_or(|n| n == to)
        };
        self.obstructions.iter().rev().find(applies)?.obstacle
    }

    /// The rung of this kind, with what it costs.
    pub(super) fn rung(&self, kind: TransportKind) -> Rung {
        let found = self.config.rungs.iter().find(|rung| rung.kind == kind);
        found.copied().unwrap_or_else(|| Rung::new(kind))
    }
}
