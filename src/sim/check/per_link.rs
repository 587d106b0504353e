//! What a checker notes for each end of a link, from its opening to its end, over whatever connection.

use crate::protocol::{Input, Output};
use crate::types::LinkId;

use super::checker::Seen;
use super::handover::Successions;
use crate::sim::id_map::IdMap;

/// Table with a value for each link of each node.
#[derive(Debug, Default)]
pub(super) struct PerLink<T> {
    ends: IdMap<(usize, LinkId), T>,
    successions: Successions,
}

impl<T: Default> PerLink<T> {
    /// Links open, end, and go over to other connections: returns the node and the connection of one
    /// that does. To be shown everything, before anything is looked up.
    pub(super) fn follow(&mut self, seen: &Seen<'_>) -> Option<(usize, LinkId)> {
        let moved = self.successions.note(seen);
        if let Some((node, from, to)) = moved
            && let Some(value) = self.ends.remove(&(node, from))
        {
            self.ends.insert((node, to), value);
        }
        match seen {
            Seen::Started { node, .. } => self.ends.retain(|(n, _), _| n != node),
            Seen::Input { node, input: Input::LinkOpened { link, .. } } => {
                self.ends.insert((*node, *link), T::default());
            }
            Seen::Output { node, output: Output::Close { link } }
            | Seen::Input { node, input: Input::LinkClosed { link } } => {
                self.ends.remove(&(*node, *link));
            }
            _ => {}
        }
        moved.map(|(node, _, to)| (node, to))
    }

    pub(super) fn get_mut(&mut self, node: usize, link: LinkId) -> Option<&mut T> {
        self.ends.get_mut(&(node, link))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(usize, LinkId), &T)> {
        self.ends.iter()
    }
}
