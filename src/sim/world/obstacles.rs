//! What stands in the way of some rungs: firewalls and proxies.

use crate::sim::config::{Obstacle, Rung};
use crate::types::TransportKind;

use super::World;

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
