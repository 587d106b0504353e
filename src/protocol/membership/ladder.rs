//! The ladder: how a peer is reached, over whichever of its endpoints and transports (rungs) works.
//!
//! A *walk* is made to a peer of the book, to a bootstrap address, or to an address that the host
//! names. It has one queue of endpoints and rungs: what worked last, then every endpoint by the best
//! rung, IPv4 and IPv6 in turns, then every endpoint by the next. An entry starts when one before it has failed, or [`STAGGER`]
//! after it started, so that a way that swallows everything costs a moment and not a time-out. The
//! winner is the first whose hello is accepted; the dials of the others are given up, and count as
//! nothing.
//!
//! ```text
//!           ┌──an entry failed, or STAGGER──┐
//!           ▼                               │
//! begun ──► dials ──link──► hello ──silent, and others wait──► left
//!           │                 └──accepted──► won
//!           └──none left──► failed, or once more after a delay
//! ```
//!
//! One hello at a time: while a link of the walk is in its hello, nothing else starts, and a second link
//! to the same peer gives way and its entry stays in the queue. Of two hellos to one peer, each side
//! might keep the other's. A link whose peer is silent for [`PATIENCE`], or for as long as it took to
//! open, is left when something else is to be tried.
//!
//! What says something about the peer and not about the way ends the walk, or its entries at that
//! endpoint: a refusal, a wrong key inside a pipe (outside of one, something on the way may have
//! put in its own), and that nothing listens there at all, unless a proxy says so. A walk that
//! failed only since connections broke or were refused for the moment goes down the ladder again,
//! `connection.max_retries` times at most, and as often as [`RETRIES_A_MINUTE`] lets all walks
//! together.
//!
//! Tested by: `protocol::tests::ladder`, `protocol::tests::addresses`, `sim::tests::ladder`.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::env::Env;
use crate::protocol::io::{CallId, DialId, Output};
use crate::protocol::refusal::ConnectFailure;
use crate::protocol::timers::Timer;
use crate::types::{
    CloseReason, Endpoint, Event, FailureKind, LinkId, MonoTime, PeerId, TransportKind,
    alternate_families,
};

use super::Membership;
use super::dials::{Dial, MAX_TRIED, Purpose, Trail};
use super::outcome::key_of;

/// Time between the starts of two entries of a walk.
pub(in crate::protocol) const STAGGER: Duration = Duration::from_millis(500);
/// Time that a peer has for its hello while other entries wait, at the least.
pub(in crate::protocol) const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of entries of a walk.
pub(in crate::protocol) const MAX_ENTRIES: usize = 16;
/// Maximum number of dials of a walk that are under way: whoever signs a record does not choose how many
/// sockets it takes here.
const MAX_DIALS: usize = 6;
/// Maximum number of walks in a minute that go down the ladder again without counting as failed.
const RETRIES_A_MINUTE: u32 = 30;

/// Names a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::protocol) struct WalkId(pub(super) u64);

/// One way to try: an endpoint, and the transport to dial it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) endpoint: Endpoint,
    pub(super) rung: TransportKind,
}

/// Where a walk may lead.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    /// Endpoints, the best first.
    pub(super) endpoints: Vec<Endpoint>,
    /// Rung that worked last, and where.
    pub(super) worked: Option<(Endpoint, TransportKind)>,
    /// Peer that must be there, as far as the host said whom it means.
    pub(super) pin: Option<PeerId>,
    /// Addresses of peers that are linked, when only further peers are sought.
    pub(super) linked: Option<Vec<SocketAddr>>,
}

/// Reason why a walk failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) why: ConnectFailure,
    /// The transport's words, where there are any: refusals have none.
    pub(super) detail: String,
    /// The peer that refused.
    pub(super) remote: Option<PeerId>,
}

impl Failure {
    /// Tells of two failures which one says more.
    fn weight(&self) -> u8 {
        match self.why {
            ConnectFailure::Refused(reason) if is_verdict(reason) => 4,
            ConnectFailure::Dial(FailureKind::Identity) => 3,
            ConnectFailure::Dial(FailureKind::Unsupported | FailureKind::NoneLeft) => 1,
            _ => 2,
        }
    }
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) purpose: Purpose,
    pub(super) route: Route,
    /// The host's calls that wait for it.
    pub(super) callers: Vec<CallId>,
    queue: VecDeque<Entry>,
    pub(super) dials: BTreeSet<DialId>,
    /// Earliest start of the next entry.
    next: MonoTime,
    /// Time after which nothing starts.
    until: MonoTime,
    /// Number of times that it may begin anew.
    retries: u32,
    /// Addresses whose peer is not what is looked for, by whichever rung.
    pub(super) astray: Vec<SocketAddr>,
    pub(super) failure: Option<Failure>,
    /// Time for which those who refused want us to stay away.
    pub(super) retry: Duration,
}

impl Walk {
    /// Reports whether only peers are sought that are not linked yet.
    pub(super) fn seeks_further(&self) -> bool {
        self.route.linked.is_some()
    }

    /// Returns the peer that must be there, where that is known.
    pub(super) fn expected(&self) -> Option<PeerId> {
        match self.purpose {
            Purpose::Peer(peer) => Some(peer),
            Purpose::Bootstrap(_) | Purpose::Host | Purpose::Nearby => self.route.pin,
        }
    }

    /// Returns the endpoint that it is named by.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.route.endpoints.first()
    }

    /// Puts an entry back, to be tried next.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.queue.push_front(entry);
    }

    /// Notes an address that led elsewhere, and what its peer said; silence is one rung's alone.
    pub(super) fn note_astray(
        &mut self,
        address: SocketAddr,
        reason: CloseReason,
        retry: Duration,
    ) {
        self.retry = self.retry.max(retry);
        if is_verdict(reason) && self.astray.len() < MAX_TRIED && !self.astray.contains(&address) {
            self.astray.push(address);
        }
    }

    /// Takes what cannot be better out of the queue; `true` when the other dials are in vain too.
    fn leave_out(&mut self, dial: &Dial, why: ConnectFailure) -> bool {
        let is_over = match why {
            ConnectFailure::Refused(reason) if is_verdict(reason) => {
                if self.expected().is_some() {
                    self.queue.clear();
                    return true;
                }
                true
            }
            ConnectFailure::Dial(FailureKind::Identity) => {
                !dial.endpoint.is_direct() || dial.rung != TransportKind::GrpcStream
            }
            ConnectFailure::Dial(FailureKind::Unreachable) => dial.endpoint.is_direct(),
            ConnectFailure::Dial(FailureKind::NoneLeft) => true,
            _ => false,
        };
        if is_over {
            self.queue.retain(|entry| entry.endpoint != dial.endpoint);
        }
        false
    }

    fn note_failure(&mut self, failure: Failure) {
        // Of equals the first says most: it is that of the best rung.
        if self.failure.as_ref().is_none_or(|known| known.weight() < failure.weight()) {
            self.failure = Some(failure);
        }
    }
}

/// Retries of all walks together.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    since: MonoTime,
    taken: u32,
}

impl RetryBudget {
    fn take(&mut self, now: MonoTime) -> bool {
        if now.since(self.since) >= Duration::from_mins(1) {
            *self = Self { since: now, taken: 0 };
        }
        self.taken += 1;
        self.taken <= RETRIES_A_MINUTE
    }
}

impl Membership {
    /// Begins a walk.
    pub(super) fn walk(
        &mut self,
        env: &mut Env,
        purpose: Purpose,
        route: Route,
        caller: Option<CallId>,
    ) {
        self.next_walk += 1;
        let id = WalkId(self.next_walk);
        let config = &env.config.connection;
        let walk = Walk {
            purpose,
            callers: caller.into_iter().collect(),
            queue: self.entries(&route, env.now),
            dials: BTreeSet::new(),
            next: env.now,
            until: env.now + config.connect_timeout + config.handshake_timeout,
            retries: config.max_retries,
            astray: Vec::new(),
            failure: None,
            retry: Duration::ZERO,
            route,
        };
        env.counters.walks_started += 1;
        if let Some(key) = key_of(purpose, &walk.route)
            && self.breakers.begin(&key, id, walk.until)
        {
            env.counters.breaker_probes += 1;
            let (peer, address) = self.shown(&key);
            env.emit(Event::BreakerHalfOpen { peer, address });
        }
        self.walks.insert(id, walk);
        self.go_on(env, id);
    }

    /// The ways of a route, in the order in which they are tried.
    fn entries(&self, route: &Route, now: MonoTime) -> VecDeque<Entry> {
        let most = (MAX_ENTRIES / self.rungs.len().max(1)).max(1);
        let mut places = alternate_families(route.endpoints.iter().collect(), |e| e.is_v6());
        places.truncate(most);
        let at = |rung: &TransportKind| {
            let rung = *rung;
            let by_it = places.iter().filter(move |endpoint| endpoint.carries(rung));
            by_it.map(move |endpoint| Entry { endpoint: (*endpoint).clone(), rung })
        };
        let mut all: Vec<_> = self.rungs.iter().flat_map(at).collect();
        all.truncate(MAX_ENTRIES);
        all.sort_by_key(|entry| self.rank(entry.rung, &entry.endpoint, now));
        let mut all = VecDeque::from(all);
        let is_whole = |(endpoint, rung): &&(Endpoint, _)| {
            self.cuts.bound(endpoint, *rung, now).bytes.is_none()
        };
        if let Some((endpoint, rung)) = route.worked.as_ref().filter(is_whole)
            && let Some(at) = all.iter().position(|e| (&e.endpoint, &e.rung) == (endpoint, rung))
            && let Some(entry) = all.remove(at)
        {
            all.push_front(entry);
        }
        all
    }

    /// Starts the next entry of a walk if it is time, and sets the time of the one after; ends a walk of
    /// which nothing is left.
    pub(in crate::protocol) fn go_on(&mut self, env: &mut Env, id: WalkId) {
        let greeting = self.end_of_patience(id);
        let Some(walk) = self.walks.get_mut(&id) else { return };
        if env.shutting_down || env.now > walk.until {
            walk.queue.clear();
        }
        if greeting.is_none()
            && walk.dials.len() < MAX_DIALS
            && env.now >= walk.next
            && let Some(entry) = walk.queue.pop_front()
        {
            walk.next = env.now + STAGGER;
            self.attempt(env, id, entry, Trail::default());
        }
        let Some(walk) = self.walks.get_mut(&id) else { return };
        if walk.dials.is_empty() && walk.queue.is_empty() && !self.begin_anew(env, id) {
            self.give_up(env, id);
            return;
        }
        let Some(walk) = self.walks.get(&id) else { return };
        // With as many dials as there may be, the end of one goes on.
        if walk.queue.is_empty() || walk.dials.len() >= MAX_DIALS {
            env.timers.cancel(Timer::Walk(id));
        } else {
            env.timers.set(Timer::Walk(id), greeting.unwrap_or(walk.next));
        }
    }

    /// Lets a walk go down the ladder once more if that may help; `false` when it has failed.
    fn begin_anew(&mut self, env: &mut Env, id: WalkId) -> bool {
        let Some(route) = self.walks.get(&id).map(|walk| walk.route.clone()) else { return false };
        let queue = self.entries(&route, env.now);
        let Some(walk) = self.walks.get_mut(&id) else { return false };
        let passes = |failure: &Failure| {
            matches!(failure.why, ConnectFailure::Dial(FailureKind::Closed | FailureKind::Refused))
        };
        let is_wanted = !env.shutting_down
            && !walk.seeks_further()
            && !matches!(walk.purpose, Purpose::Host | Purpose::Nearby);
        let may = is_wanted && walk.retries > 0 && walk.failure.as_ref().is_some_and(passes);
        if !may || !self.retry_budget.take(env.now) {
            return false;
        }
        env.counters.walks_retried += 1;
        let config = &env.config.connection;
        let (delay, bound) =
            (config.retry_delay, config.connect_timeout + config.handshake_timeout);
        (walk.queue, walk.failure) = (queue, None);
        walk.retries -= 1;
        walk.next = env.now + env.rng.jitter(delay);
        walk.until = walk.next + bound;
        true
    }

    /// An entry has come to nothing: the next one starts.
    pub(super) fn entry_failed(
        &mut self,
        env: &mut Env,
        dial: &Dial,
        failure: Failure,
        retry: Duration,
    ) {
        let Some(walk) = self.walks.get_mut(&dial.walk) else { return };
        if !walk.seeks_further() {
            env.counters.dials_failed += 1;
        }
        walk.retry = walk.retry.max(retry);
        walk.next = env.now;
        let is_over = walk.leave_out(dial, failure.why);
        walk.note_failure(failure);
        if is_over {
            self.cancel_dials(env, dial.walk);
        }
        self.go_on(env, dial.walk);
    }

    /// A dial has led to a peer whose hello is accepted: the others are given up.
    pub(super) fn won(&mut self, env: &mut Env, dial: &Dial, remote: PeerId) {
        self.cancel_dials(env, dial.walk);
        let Some(walk) = self.walks.remove(&dial.walk) else { return };
        // A link that another one has led to is one more, to somebody else.
        for other in &walk.dials {
            self.dials.remove(other);
        }
        env.timers.cancel(Timer::Walk(dial.walk));
        env.counters.walks_fallback += u64::from(self.rungs.first() != Some(&dial.rung));
        self.end_walk(env, dial.walk, &walk, Ok(remote));
    }

    fn give_up(&mut self, env: &mut Env, id: WalkId) {
        let Some(mut walk) = self.walks.remove(&id) else { return };
        env.timers.cancel(Timer::Walk(id));
        let failure = walk.failure.take().unwrap_or_else(|| Failure {
            why: ConnectFailure::Dial(FailureKind::Unsupported),
            detail: "no transport of this node can dial it".to_owned(),
            remote: None,
        });
        self.end_walk(env, id, &walk, Err(failure));
    }

    /// Gives up the dials of a walk that have not led to a link; they count as nothing.
    fn cancel_dials(&mut self, env: &mut Env, id: WalkId) {
        self.has_moved = true;
        let Some(walk) = self.walks.get_mut(&id) else { return };
        let dials = &mut self.dials;
        walk.dials.retain(|dial| {
            let is_open = dials.get(dial).is_some_and(|d| d.link.is_some());
            if !is_open {
                dials.remove(dial);
                env.counters.dials_cancelled += 1;
                env.push(Output::CancelDial { dial: *dial });
            }
            is_open
        });
    }

    /// A peer is linked: who still walks to it has nothing to look for, but links in their hello.
    pub(super) fn end_walks_to(&mut self, env: &mut Env, peer: &PeerId, own: Option<DialId>) {
        let own = own.and_then(|dial| self.dials.get(&dial)).map(|dial| dial.walk);
        let theirs = |(id, walk): (&WalkId, &Walk)| {
            (walk.purpose == Purpose::Peer(*peer) && Some(*id) != own).then_some(*id)
        };
        for id in self.walks.iter().filter_map(theirs).collect::<Vec<_>>() {
            self.cancel_dials(env, id);
            let Some(walk) = self.walks.get_mut(&id) else { continue };
            walk.queue.clear();
            env.timers.cancel(Timer::Walk(id));
            if walk.dials.is_empty() {
                self.walks.remove(&id);
            }
        }
    }

    /// Returns the end of the time that peers of a walk have for their hellos, if links are in theirs.
    pub(super) fn end_of_patience(&self, id: WalkId) -> Option<MonoTime> {
        self.greetings(id).map(|(_, until)| until).max()
    }

    /// Returns a link of a walk whose peer has been silent for too long while something else waits.
    pub(in crate::protocol) fn silent_link(&self, id: WalkId, now: MonoTime) -> Option<LinkId> {
        let waits = self.walks.get(&id).is_some_and(|walk| !walk.queue.is_empty());
        let mut late = self.greetings(id).filter(|(_, until)| waits && *until <= now);
        late.next().map(|(link, _)| link)
    }

    fn greetings(&self, id: WalkId) -> impl Iterator<Item = (LinkId, MonoTime)> {
        let dials = self.walks.get(&id).into_iter().flat_map(|walk| &walk.dials);
        dials.filter_map(|dial| {
            let dial = self.dials.get(dial)?;
            let (link, opened) = dial.link?;
            Some((link, opened + opened.since(dial.started).max(PATIENCE)))
        })
    }

    /// Number of walks that dial, and do not wait to do so once more; but for those to places nearby, which
    /// take nothing of the room of others.
    pub(super) fn dialling(&self) -> usize {
        let counts = |walk: &&Walk| !walk.dials.is_empty() && walk.purpose != Purpose::Nearby;
        self.walks.values().filter(counts).count()
    }
}

/// Reports whether a refusal is the word of a peer, or ours of it, and holds by whichever rung.
pub(super) fn is_verdict(reason: CloseReason) -> bool {
    !matches!(reason, CloseReason::TransportClosed | CloseReason::HandshakeTimeout)
}
