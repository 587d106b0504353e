//! How well this node is connected, judged by how many peers there are.
//!
//! It is online with `min_healthy_peers` links, or with fewer where it is linked with everybody there
//! is: a network of three nodes is whole with two links. Everybody are the peers that are linked, and
//! those that may be dialled and either answered when they were last dialled, or were linked within
//! `LATELY`. So who is cut off from most of its network is degraded, and who lost a peer for good is
//! not so for ever.
//!
//! Whatever depends on how many there are is believed after `SETTLE`: a node that has just come knows
//! few peers, who hears of another peer is linked with it a moment later, and who lost a link to a
//! restart has it back. No link, and links enough, count at once.
//!
//! Tested by: `sim::tests::small_networks`.

use std::time::Duration;

use crate::protocol::env::Env;
use crate::protocol::guard::Guard;
use crate::protocol::link::Links;
use crate::protocol::timers::Timer;
use crate::types::{Event, Mode, MonoTime, PeerId};

use super::Membership;
use super::address_book::Known;

/// Time for which a judgement by the number of peers has to hold.
const SETTLE: Duration = Duration::from_secs(5);
/// Time for which a peer counts that was linked and cannot be reached any more.
const LATELY: Duration = Duration::from_mins(10);

/// The mode, and what it was judged by.
#[derive(Debug)]
pub(in crate::protocol) struct Connection {
    pub(in crate::protocol) mode: Mode,
    /// Number of links when the mode was last judged.
    links: usize,
    /// Time since when another mode is called for, and not yet believed.
    doubt: Option<MonoTime>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { mode: Mode::Offline, links: 0, doubt: None }
    }
}

impl Connection {
    /// Reports whether there were that many links when the mode was last judged.
    pub(super) fn has(&self, links: u32) -> bool {
        self.links >= links as usize
    }
}

impl Membership {
    /// Judges the mode anew.
    pub(in crate::protocol) fn update_mode(&mut self, env: &mut Env, links: &Links, guard: &Guard) {
        let up = links.up_count();
        self.connection.links = up;
        let least = env.config.discovery.min_healthy_peers as usize;
        let mode = match up {
            0 => Mode::Offline,
            _ if up >= least || !self.are_others_there(env, links, guard) => Mode::Online,
            _ => Mode::Degraded,
        };
        if up > 0 && self.connection.mode == Mode::Offline {
            self.set_mode(env, up, if up >= least { Mode::Online } else { Mode::Degraded });
        }
        if mode == self.connection.mode {
            self.connection.doubt = None;
            return;
        }
        let is_sure = up == 0 || up >= least;
        let believed = *self.connection.doubt.get_or_insert(env.now) + SETTLE;
        if !is_sure && env.now < believed {
            env.timers.set_earlier(Timer::Overlay, believed);
        } else {
            self.set_mode(env, up, mode);
        }
    }

    /// Reports whether there are peers that this node is not linked with.
    fn are_others_there(&self, env: &Env, links: &Links, guard: &Guard) -> bool {
        let unhealthy_after = env.config.discovery.unhealthy_after;
        let was_here = |known: &Known| known.gone.is_some_and(|at| env.now.since(at) < LATELY);
        let is_there = |(peer, known): (&PeerId, &Known)| {
            (known.failures < unhealthy_after || was_here(known))
                && !links.by_peer.contains_key(peer)
                && self.may_dial(env, guard, peer, known).is_some()
        };
        self.book.known.iter().any(is_there)
    }

    fn set_mode(&mut self, env: &mut Env, links: usize, mode: Mode) {
        (self.connection.mode, self.connection.doubt) = (mode, None);
        tracing::info!(target: "sorcha_peer::overlay", ?mode, links, "mode changed");
        env.emit(Event::ModeChanged { mode });
    }
}
