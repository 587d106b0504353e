//! Port mapping: asks the router of the own network to pass on what comes to one of its ports.
//!
//! Three ways of asking, in this order: PCP (RFC 6887) and NAT-PMP (RFC 6886) at the default gateway, and UPnP, whose
//! routers answer a search, by each interface with an address of private scope. The first that maps the port
//! does for that interface.
//!
//! Contract: a mapping says what a router promised. It is a candidate and proves nothing: another NAT may stand
//! behind, and any device of the own network may have answered. Nothing that is heard is believed beyond
//! its address, its port and its lease; messages, answers, devices and time are bounded. Mappings are leased
//! for [`LEASE`] and renewed when half of what was granted is over, [`Pace::latest`] at the latest; one that
//! is not renewed is made anew, by whichever router does it. All are removed by [`PortMapper::stop`]; where the
//! process dies instead, they end with their lease, but for those of routers that know no lease.
//!
//! Tested by: the tests in this folder.

mod ask;
mod http;
mod nat_pmp;
mod pcp;
mod slot;
mod surroundings;
#[cfg(test)]
mod tests;
mod upnp;
mod xml;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::slot::{Slot, Wish};
use self::surroundings::Surroundings;
use crate::types::CandidateDraft;

/// Time for which a mapping is asked: routers refuse "for ever", or keep what nobody needs any more.
const LEASE: Duration = Duration::from_hours(2);
/// Maximum time in which mappings are removed.
const REMOVAL_TIME: Duration = Duration::from_secs(2);
/// The tracing target of port mapping.
const TARGET: &str = "sorcha_peer::nat";

/// What routers promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mappings {
    /// Addresses outside that lead to this node, as their routers say.
    pub(crate) candidates: Vec<CandidateDraft>,
    /// Ways of asking that gave none, by the name of their source, each with the reason.
    pub(crate) failed: BTreeMap<&'static str, String>,
}

/// Intervals at which a mapper works.
#[derive(Debug, Clone)]
struct Pace {
    /// Interval at which it is looked whether the network around is still the same one.
    look: Duration,
    /// Delay before the first search after one that failed; each further one is twice as long.
    retry: Duration,
    /// Bounds of the time before a renewal, whatever lifetime a router grants.
    soonest: Duration,
    latest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(15),
            retry: Duration::from_mins(1),
            soonest: Duration::from_secs(30),
            latest: Duration::from_mins(15),
        }
    }
}

/// Task that keeps one port of this machine mapped. Dropped, it ends at once and removes nothing.
#[derive(Debug)]
pub(crate) struct PortMapper {
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl PortMapper {
    /// Has this port mapped for as long as the mapper lives, and tells what routers say of it.
    pub(crate) fn start(port: u16, found: watch::Sender<Mappings>) -> Self {
        Self::start_in(port, found, Pace::default(), Surroundings::look)
    }

    fn start_in(
        port: u16,
        found: watch::Sender<Mappings>,
        pace: Pace,
        look: impl Fn() -> Surroundings + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut work = Work::new(port, found, pace, look);
            {
                let mut endless = pin!(work.run());
                tokio::select! {
                    () = &mut endless => {}
                    _ = stopped => {}
                }
            }
            work.remove_all().await;
        });
        Self { stop, task }
    }

    /// Removes the mappings, as far as that is done within 2 s.
    pub(crate) async fn stop(mut self) {
        // Should the task be over, then so is its work.
        let _ = self.stop.send(());
        let _ = self.task.join_next().await;
    }
}

/// State of the task.
struct Work<L> {
    wish: Wish,
    slots: Vec<Slot>,
    around: Option<Surroundings>,
    look: L,
    found: watch::Sender<Mappings>,
}

impl<L: Fn() -> Surroundings> Work<L> {
    fn new(port: u16, found: watch::Sender<Mappings>, pace: Pace, look: L) -> Self {
        let mut nonce = pcp::Nonce::default();
        // Without a random number a mapping is as safe as one of NAT-PMP, which has none.
        let _ = getrandom::fill(&mut nonce);
        let wish = Wish { port, nonce, search: upnp::SEARCH, pace };
        Self { wish, slots: Vec::new(), around: None, look, found }
    }

    async fn run(&mut self) {
        loop {
            self.look_around().await;
            let now = Instant::now();
            let due = self.slots.iter_mut().filter(|slot| slot.due() <= now);
            join_all(due.map(|slot| slot.work(&self.wish))).await;
            self.tell();
            let due = self.slots.iter().map(Slot::due).min();
            let look = Instant::now() + self.wish.pace.look;
            sleep_until(due.map_or(look, |due| due.min(look))).await;
        }
    }

    /// Begins anew where the network around is another one.
    async fn look_around(&mut self) {
        let around = (self.look)();
        if self.around.as_ref() == Some(&around) {
            return;
        }
        self.remove_all().await;
        let slots = around.interfaces.iter();
        let slots = slots.map(|(own, router)| Slot::new(*own, *router, &self.wish.pace));
        self.slots = slots.collect();
        self.wish.search = around.search;
        self.around = Some(around);
    }

    async fn remove_all(&mut self) {
        let port = self.wish.port;
        let removals = join_all(self.slots.iter_mut().map(|slot| slot.remove(port)));
        // What is not removed by then ends with its lease.
        let _ = timeout(REMOVAL_TIME, removals).await;
    }

    fn tell(&self) {
        let mut told = Mappings::default();
        for slot in &self.slots {
            slot.report(&mut told);
        }
        if self.slots.is_empty() {
            let why = "no interface has an IPv4 address of private scope";
            told.failed.insert("upnp", why.to_owned());
        }
        self.found.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }
}
