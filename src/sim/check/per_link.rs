//! What a checker notes for each end of a link, from its opening to its end.

use crate::protocol::{Input, Output};
use crate::types::LinkId;

use super::checker::Seen;
use crate::sim::id_map::IdMap;

/// Table with a value for each link of each node.
#[derive(Debug, Default)]
pub(super) struct PerLink<T>(IdMap<(usize, LinkId), T>);

impl<T: Default> PerLink<T> {
    /// Links open and end. To be shown everything, before anything is looked up.
    pub(super) fn follow(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Started { node, .. } => self.0.retain(|(n, _), _| n != node),
            Seen::Input { node, input: Input::LinkOpened { link, .. } } => {
                self.0.insert((*node, *link), T::default());
            }
            Seen::Output { node, output: Output::Close { link } }
            | Seen::Input { node, input: Input::LinkClosed { link } } => {
                self.0.remove(&(*node, *link));
            }
            _ => {}
        }
    }

    pub(super) fn get_mut(&mut self, node: usize, link: LinkId) -> Option<&mut T> {
        self.0.get_mut(&(node, link))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(usize, LinkId), &T)> {
        self.0.iter()
    }
}
