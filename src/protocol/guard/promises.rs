//! Who was asked for what it announced, and whether it served.
//!
//! A promise that is not kept in time costs reputation (`guard::reputation`), which decides who is asked first and
//! nothing else.
//!
//! Tested by: `protocol::tests::liars`, `sim::tests::large`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::types::{LinkId, MonoTime, PeerId, TransactionId};

/// Maximum number of promises remembered.
pub(in crate::protocol) const MAX_PROMISES: usize = 4096;
/// Time after which a promise that was not kept is broken.
const PROMISE: Duration = Duration::from_secs(10);

/// Peers that were asked for what they said they have, and by when they have to serve.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Promises(BTreeMap<(PeerId, TransactionId), MonoTime>);

impl Promises {
    fn note(&mut self, peer: PeerId, id: TransactionId, now: MonoTime) {
        if self.0.len() < MAX_PROMISES {
            self.0.entry((peer, id)).or_insert(now + PROMISE);
        }
    }

    fn forget(&mut self, peer: PeerId, id: TransactionId) {
        self.0.remove(&(peer, id));
    }

    fn forget_all_of(&mut self, peer: PeerId) {
        self.0.retain(|(p, _), _| *p != peer);
    }

    /// Takes out those whose time is over.
    fn take_broken(&mut self, now: MonoTime) -> Vec<(PeerId, TransactionId)> {
        self.0.extract_if(.., |_, due| *due <= now).map(|(key, _)| key).collect()
    }

    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Protocol {
    /// Notes that a peer was asked for what it said it has.
    pub(in crate::protocol) fn note_promise(&mut self, link: LinkId, id: TransactionId) {
        if let Some(peer) = self.links.peer_of(link) {
            self.guard.promises.note(peer, id, self.env.now);
        }
    }

    /// Forgets a promise that was kept or excused.
    pub(in crate::protocol) fn forget_promise(&mut self, link: LinkId, id: &TransactionId) {
        if let Some(peer) = self.links.peer_of(link) {
            self.guard.promises.forget(peer, *id);
        }
    }

    /// Forgets all promises of a peer whose link is gone: that excuses everything.
    pub(in crate::protocol) fn forget_promises(&mut self, peer: PeerId) {
        self.guard.promises.forget_all_of(peer);
    }

    /// Charges promises that were not kept in time.
    pub(in crate::protocol) fn settle_promises(&mut self) {
        let now = self.env.now;
        for (peer, id) in self.guard.promises.take_broken(now) {
            self.env.counters.promises_broken += 1;
            self.guard.reputation.note_broken(&peer, now);
            tracing::debug!(target: "sorcha_peer::gossip", %id, %peer, "announced and not served");
        }
    }
}
