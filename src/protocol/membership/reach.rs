//! Links that requests need: a known peer without one is dialled for it.
//!
//! One walk to a peer at a time, whoever wants it, and `discovery.max_concurrent` of all; who finds
//! no room waits. What is known to be in vain is said at once: a breaker that is open, a failure of
//! which the back-off is not over, a peer without an address. So the host drives nobody's back-off,
//! and no peer is forgotten sooner.
//!
//! Tested by: `protocol::tests::messages`, `sim::tests::messages`.

use crate::protocol::env::Env;
use crate::protocol::guard::Guard;
use crate::protocol::link::Links;
use crate::types::PeerId;

use super::Membership;
use super::breaker::Key;
use super::dials::Purpose;
use super::ladder::{Failure, Walk};
use super::overlay::are_bootstraps_wanted;

impl Membership {
    /// Sees to a link to a peer that has none; or says why there is no way.
    pub(in crate::protocol) fn reach(
        &mut self,
        env: &mut Env,
        links: &Links,
        guard: &Guard,
        peer: &PeerId,
    ) -> Result<(), String> {
        let is_coming = links.all.values().any(|l| l.remote == *peer);
        if is_coming || self.walks.values().any(|walk| self.leads_to(walk, peer)) {
            return Ok(());
        }
        let no = |reason: &str| Err(reason.to_owned());
        let Some(known) = self.book.known.get(peer) else { return no("the peer is forgotten") };
        if guard.is_banned(peer, env.corroborated()) {
            return no("the peer is banned");
        }
        if !env.config.network.trust.allows(peer) {
            return no("the peer is not on the allow-list");
        }
        if self.may_dial(env, guard, peer, known).is_none() {
            return no("no address of the peer is known that may be dialled");
        }
        let is_needy = are_bootstraps_wanted(env, links);
        if let Err(left) = self.breakers.admit(&Key::Peer(*peer), env.now, is_needy) {
            env.counters.connects_refused_breaker += 1;
            let seconds = left.as_secs() + 1;
            return Err(format!("its circuit breaker is open, for {seconds} s more"));
        }
        if known.failures > 0 && known.next > env.now {
            let seconds = known.next.since(env.now).as_secs() + 1;
            return Err(format!("it could not be reached, and is dialled again in {seconds} s"));
        }
        if self.dialling() < env.config.discovery.max_concurrent as usize {
            self.walk_to(env, *peer);
        }
        Ok(())
    }

    fn leads_to(&self, walk: &Walk, peer: &PeerId) -> bool {
        match walk.purpose {
            Purpose::Peer(other) => other == *peer,
            Purpose::Bootstrap(at) => {
                self.book.bootstrap.get(at).and_then(|b| b.pin.or(b.peer)) == Some(*peer)
            }
            Purpose::Host | Purpose::Nearby => walk.route.pin == Some(*peer),
        }
    }

    /// A walk to a peer has failed.
    pub(super) fn note_unreached(&mut self, peer: PeerId, failure: &Failure) {
        let why = failure.why.as_str().replace('_', " ");
        let words = Some(failure.detail.as_str()).filter(|words| !words.is_empty());
        let reason = words.map_or_else(|| why.clone(), |words| format!("{why}: {words}"));
        self.unreached.push((peer, reason));
    }

    /// Reports whether dials or walks came to an end since the last look.
    pub(in crate::protocol) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Takes the peers to whom a walk has failed, and why.
    pub(in crate::protocol) fn take_unreached(&mut self) -> Vec<(PeerId, String)> {
        std::mem::take(&mut self.unreached)
    }
}
