//! Dial-backs for others: a helper hands the request of a linked peer to a third node, which dials once.
//!
//! ```text
//!   asker ──DialBack──► helper ──DialBackTask──► dialler ──hello with the nonce──► asker
//!     ▲                  │  ▲                       │ ◄──────────goodbye──────────────┘
//!     └──DialBackResult──┘  └────DialBackResult─────┘
//! ```
//!
//! Nobody can aim this at others: the address is the one from which the helper sees the asker come, at a
//! port that no service of a system has, and the asker's key must be proven there. Nobody can make it a flood:
//! a helper takes one request a minute from a peer and from an address group, a dialler one task a minute of a
//! peer and to an address group and [`MAX_TASKS_A_MINUTE`] in all, each at most [`MAX_UNDER_WAY`] at a time
//! for [`DIAL_TIME`]. Addresses of a site are dialled for its own nodes alone.
//!
//! The dialler must be a stranger to the asker, or its filter would let it in and nobody else: it refuses
//! whoever it has a link with or had one with lately, at any address of the same host. The helper chooses it in
//! an address group of its own, of the family of the address, and asks up to [`MAX_TRIED`] one after the other.
//!
//! The connection is none that carries a link: it ends with the asker's goodbye.
//!
//! Tested by: `protocol::tests::reachability`, `sim::tests::reachability`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::io::{DialId, Output};
use crate::protocol::link::Link;
use crate::protocol::membership::{policy_allows, scope_of};
use crate::types::{
    CloseReason, DialBackOutcome, Endpoint, FailureKind, LinkId, Message, MonoTime, PeerId,
    TransportKind, host_of,
};

use super::candidates::is_port_dialled_back;

/// Time in which a helper takes one request of a peer, and a dialler one task.
const MINUTE: Duration = Duration::from_mins(1);
/// Maximum number of tasks that a dialler takes in a minute.
const MAX_TASKS_A_MINUTE: usize = 8;
/// Maximum number of requests, and of tasks, that are under way.
pub(in crate::protocol) const MAX_UNDER_WAY: usize = 4;
/// Maximum number of diallers that are asked for one request.
const MAX_TRIED: usize = 3;
/// Time that a dialler takes.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// Time for which a helper waits for its dialler.
const HELP_TIME: Duration = Duration::from_secs(12);
/// Maximum number of peers and groups whose last time is remembered; while there are as many, others are refused.
pub(in crate::protocol) const MAX_PACED: usize = 512;

/// Whoever is served once in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Paced {
    Peer(PeerId),
    Group(u64),
}

/// Times at which peers and groups were served last.
#[derive(Debug, Default)]
struct Pace(BTreeMap<Paced, MonoTime>);

impl Pace {
    /// Takes the turn of a peer and of a group, both or none; whether they had one.
    fn take(&mut self, peer: PeerId, group: u64, now: MonoTime) -> bool {
        let keys = [Paced::Peer(peer), Paced::Group(group)];
        self.0.retain(|_, at| now.since(*at) < MINUTE);
        let may = self.0.len() + keys.len() <= MAX_PACED
            && keys.iter().all(|key| !self.0.contains_key(key));
        if may {
            self.0.extend(keys.map(|key| (key, now)));
        }
        may
    }
}

/// Request of a peer that a dialler sees to.
#[derive(Debug)]
struct Handed {
    asker: PeerId,
    nonce: u64,
    address: SocketAddr,
    /// Peers that were asked to dial, the latest last.
    tried: Vec<PeerId>,
    until: MonoTime,
}

/// Task of a helper that is carried out here.
#[derive(Debug)]
struct Task {
    helper: PeerId,
    nonce: u64,
    dial: DialId,
    /// Connection that the dial led to.
    link: Option<LinkId>,
    until: MonoTime,
}

#[derive(Debug, Default)]
pub(in crate::protocol) struct Helping {
    requests: Pace,
    tasks: Pace,
    /// Times of the tasks of the last minute.
    lately: VecDeque<MonoTime>,
    handed: Vec<Handed>,
    dialling: Vec<Task>,
}

impl Helping {
    /// Returns the nonce that a connection is made for, if it is a dial-back of this node.
    pub(in crate::protocol) fn nonce_of(&self, link: LinkId) -> Option<u64> {
        self.dialling.iter().find(|task| task.link == Some(link)).map(|task| task.nonce)
    }

    /// A dial has led to a connection; `true` if it is a dial-back.
    pub(in crate::protocol) fn note_opened(&mut self, dial: DialId, link: LinkId) -> bool {
        let task = self.dialling.iter_mut().find(|task| task.dial == dial);
        task.map(|task| task.link = Some(link)).is_some()
    }

    /// Returns the earliest end of what is under way.
    pub(super) fn next(&self) -> Option<MonoTime> {
        let handed = self.handed.iter().map(|handed| handed.until);
        handed.chain(self.dialling.iter().map(|task| task.until)).min()
    }

    /// Sizes of the tables: what is under way, and what is remembered of pace.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::protocol) fn sizes(&self) -> [usize; 2] {
        let under_way = self.handed.len().max(self.dialling.len());
        [under_way, self.requests.0.len().max(self.tasks.0.len())]
    }

    fn take_task(&mut self, is: impl Fn(&Task) -> bool) -> Option<Task> {
        let at = self.dialling.iter().position(is)?;
        Some(self.dialling.swap_remove(at))
    }
}

impl Protocol {
    /// A peer wants to be dialled at the address from which it comes.
    pub(in crate::protocol) fn on_dial_back(&mut self, link: LinkId, nonce: u64, port: u16) {
        if self.take_request(link, nonce, port).is_none() {
            self.env.counters.dial_back_requests_refused += 1;
            self.send(link, refused(nonce));
        }
    }

    /// Finds somebody who dials for a peer; `None` where that is refused.
    fn take_request(&mut self, link: LinkId, nonce: u64, port: u16) -> Option<()> {
        let now = self.env.now;
        let l = self.links.all.get(&link)?;
        let (asker, ip) = (l.remote, l.address?.ip().to_canonical());
        let address = SocketAddr::new(ip, port);
        let handed = &self.reachability.helping.handed;
        let is_free = handed.len() < MAX_UNDER_WAY
            && handed.iter().all(|h| h.nonce != nonce && h.asker != asker);
        let group = Endpoint::from(address).group();
        let may = nonce != 0 && is_port_dialled_back(port) && is_free && !self.env.shutting_down;
        if !may || !self.reachability.helping.requests.take(asker, group, now) {
            return None;
        }
        let until = now + HELP_TIME;
        let handed = Handed { asker, nonce, address, tried: Vec::new(), until };
        let handed = self.hand_on(handed)?;
        self.env.counters.dial_back_requests_taken += 1;
        self.reachability.helping.handed.push(handed);
        self.arm_reachability();
        Some(())
    }

    /// Gives a request to a dialler that was not asked yet; `None` where there is none.
    fn hand_on(&mut self, mut handed: Handed) -> Option<Handed> {
        if handed.tried.len() >= MAX_TRIED {
            return None;
        }
        let diallers = self.diallers(&handed);
        let (link, dialler) = *diallers.get(self.env.rng.below(diallers.len().max(1)))?;
        handed.tried.push(dialler);
        let (nonce, address, peer) = (handed.nonce, handed.address, handed.asker);
        self.send(link, Message::DialBackTask { nonce, address, peer });
        Some(handed)
    }

    /// Returns the linked peers that may be strangers to an asker and can dial it.
    fn diallers(&self, handed: &Handed) -> Vec<(LinkId, PeerId)> {
        let group = |address: SocketAddr| Endpoint::from(address).group();
        let own = self.reachability.votes.named().iter();
        let mut near: Vec<_> = own.map(|named| group(SocketAddr::new(named.ip, 0))).collect();
        near.push(group(handed.address));
        let may = |l: &&Link| {
            let suits = |address: SocketAddr| {
                address.is_ipv4() == handed.address.is_ipv4() && !near.contains(&group(address))
            };
            l.up.as_ref().is_some_and(|up| up.dials_back)
                && l.address.is_some_and(suits)
                && l.remote != handed.asker
                && !handed.tried.contains(&l.remote)
        };
        self.links.all.values().filter(may).map(|l| (l.id, l.remote)).collect()
    }

    /// A dialler says what came of it.
    pub(super) fn on_dialled_back(
        &mut self,
        dialler: PeerId,
        nonce: u64,
        outcome: DialBackOutcome,
    ) {
        let is_it = |h: &Handed| h.nonce == nonce && h.tried.last() == Some(&dialler);
        let handed = &mut self.reachability.helping.handed;
        let Some(at) = handed.iter().position(is_it) else {
            self.env.counters.dial_back_results_unasked += 1;
            return;
        };
        let handed = handed.swap_remove(at);
        self.settle_handed(handed, outcome);
    }

    /// Answers a request, or gives it to another dialler where the one refuses.
    fn settle_handed(&mut self, handed: Handed, outcome: DialBackOutcome) {
        let (asker, nonce) = (handed.asker, handed.nonce);
        // Known here: a dialler that may lie is not asked who it is.
        let dialler = handed.tried.last().copied();
        if outcome != DialBackOutcome::Refused {
            self.say_result(&asker, nonce, outcome, dialler);
        } else if let Some(handed) = self.hand_on(handed) {
            self.reachability.helping.handed.push(handed);
        } else {
            self.say_result(&asker, nonce, outcome, None);
        }
    }

    fn say_result(
        &mut self,
        peer: &PeerId,
        nonce: u64,
        outcome: DialBackOutcome,
        dialler: Option<PeerId>,
    ) {
        if let Some(link) = self.links.by_peer.get(peer).copied() {
            self.send(link, Message::DialBackResult { nonce, outcome, dialler });
        }
    }

    /// A helper is told what came of a task; who dialled, it knows.
    fn say_dialled(&mut self, task: &Task, outcome: DialBackOutcome) {
        self.say_result(&task.helper, task.nonce, outcome, None);
    }

    /// A helper wants this node to dial a stranger.
    pub(in crate::protocol) fn on_dial_back_task(
        &mut self,
        link: LinkId,
        nonce: u64,
        address: SocketAddr,
        peer: PeerId,
    ) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if self.take_task(link, nonce, address, peer).is_none() {
            self.env.counters.dial_back_tasks_refused += 1;
            self.send(link, refused(nonce));
        }
    }

    fn take_task(
        &mut self,
        link: LinkId,
        nonce: u64,
        address: SocketAddr,
        peer: PeerId,
    ) -> Option<()> {
        let now = self.env.now;
        let l = self.links.all.get(&link)?;
        let (helper, endpoint) = (l.remote, Endpoint::from(address));
        let is_allowed = policy_allows(self.env.config.discovery.addresses, scope_of(l), &endpoint)
            && self.env.config.network.trust.allows(&peer)
            && !self.guard.is_banned(&peer, self.env.corroborated())
            && is_port_dialled_back(address.port());
        let is_own = peer == self.env.me
            || self.membership.dead_ends.own_until(&endpoint, now).is_some()
            || self
                .reachability
                .votes
                .named()
                .iter()
                .any(|n| host_of(n.ip) == host_of(address.ip()));
        let is_stranger = peer != helper
            && self.links.all.values().all(|l| l.remote != peer)
            && self.is_stranger(address.ip(), None);
        let rung = self.membership.rungs.iter().copied().find(|rung| endpoint.carries(*rung))?;
        let helping = &mut self.reachability.helping;
        helping.lately.retain(|at| now.since(*at) < MINUTE);
        let has_room = helping.lately.len() < MAX_TASKS_A_MINUTE
            && helping.dialling.len() < MAX_UNDER_WAY
            && helping.dialling.iter().all(|task| task.nonce != nonce);
        let may = nonce != 0 && is_allowed && !is_own && is_stranger && has_room;
        if !may || self.env.shutting_down || !helping.tasks.take(helper, endpoint.group(), now) {
            return None;
        }
        helping.lately.push_back(now);
        let dial = self.membership.mint_dial();
        let until = now + DIAL_TIME;
        self.reachability.helping.dialling.push(Task { helper, nonce, dial, link: None, until });
        self.env.counters.dial_back_tasks_taken += 1;
        self.push_dial_back(dial, endpoint, rung, peer);
        self.arm_reachability();
        Some(())
    }

    fn push_dial_back(
        &mut self,
        dial: DialId,
        endpoint: Endpoint,
        rung: TransportKind,
        peer: PeerId,
    ) {
        let expected = Some(peer);
        self.env.push(Output::Dial { dial, endpoint, rung, expected, avoid: Vec::new() });
    }

    /// A dial has failed; `true` if it was a dial-back.
    pub(in crate::protocol) fn on_dial_back_failed(
        &mut self,
        dial: DialId,
        reason: FailureKind,
    ) -> bool {
        let Some(task) = self.reachability.helping.take_task(|task| task.dial == dial) else {
            return false;
        };
        let is_ours =
            matches!(reason, FailureKind::Local | FailureKind::Unsupported | FailureKind::NoneLeft);
        let outcome = if is_ours { DialBackOutcome::Refused } else { DialBackOutcome::Failed };
        self.say_dialled(&task, outcome);
        true
    }

    /// The connection of a dial-back has ended: whoever had to be there was.
    pub(super) fn end_dial_back(&mut self, link: LinkId) {
        if let Some(task) = self.reachability.helping.take_task(|task| task.link == Some(link)) {
            self.say_dialled(&task, DialBackOutcome::Reached);
        }
    }

    /// The link with a peer has ended: its requests are void, and its tasks go to others.
    pub(super) fn release_helper(&mut self, peer: &PeerId) {
        let handed = &mut self.reachability.helping.handed;
        handed.retain(|handed| handed.asker != *peer);
        let (theirs, others) = std::mem::take(handed)
            .into_iter()
            .partition::<Vec<_>, _>(|handed| handed.tried.last() == Some(peer));
        *handed = others;
        for handed in theirs {
            self.settle_handed(handed, DialBackOutcome::Refused);
        }
    }

    /// Ends what has taken too long.
    pub(super) fn end_late_dial_backs(&mut self) {
        let now = self.env.now;
        while let Some(task) = self.reachability.helping.take_task(|task| task.until <= now) {
            if let Some(link) = task.link {
                // Whoever has to be there was, and says nothing.
                self.say_dialled(&task, DialBackOutcome::Reached);
                self.close(link, CloseReason::HandshakeTimeout);
            } else {
                self.env.push(Output::CancelDial { dial: task.dial });
                self.say_dialled(&task, DialBackOutcome::Failed);
            }
        }
        let handed = &mut self.reachability.helping.handed;
        let (late, others) =
            std::mem::take(handed).into_iter().partition::<Vec<_>, _>(|handed| handed.until <= now);
        *handed = others;
        for handed in late {
            self.say_result(&handed.asker, handed.nonce, DialBackOutcome::Refused, None);
        }
    }
}

fn refused(nonce: u64) -> Message {
    Message::DialBackResult { nonce, outcome: DialBackOutcome::Refused, dialler: None }
}
