//! Clients that registered as peers.
//!
//! Contract:
//! - A registration is listed once its endpoint answered a ping, and pinged every [`PING_INTERVAL`]; after
//!   [`MAX_MISSES`] in a row without an answer it is gone.
//! - Another address of the same id takes its place where the caller is the one that registered it, or where
//!   the old one does not answer. Anybody may say the id of another: whoever answers keeps it.
//! - Where the list is full, one that has not answered for [`SILENT`] gives way, or one that never answered and
//!   had the time to.
//! - A place belongs to one id: another id at it is refused while the first answers, unless the same caller
//!   registered that; once one answers, others at its place are gone. One host registers at most a sixteenth of the
//!   list, and names as much in hearsay, where it is not this machine.
//! - Pings are made by the time at which they are due, at most [`MAX_PINGS_OF_HOST`] of one host at a time.
//! - Hearsay is a registration that nobody stands behind: it changes none that is there.
//! - News for a client waits in a queue of [`MAX_NEWS`], of which the oldest go; after [`MAX_FAILURES`] in a row
//!   that did not arrive, nothing is tried until it answers a ping. Those of one host, and those that the last did not
//!   reach, are told few at a time.
//!
//! Tested by: `compat::registry::tests`, `compat::tests`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::client::{Target, Way};
use super::ops::discovery::{ADDRESS_IN_USE, ID_IN_USE, LIST_FULL};
use super::{Shared, reached};
use crate::types::{AddressScope, Endpoint, Host, WallTime};
use crate::wire::generated::discovery::{PeerCapabilities, PeerInfo, PeerRegisterAdvertisement};

const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of the first pings, until one is answered.
const FIRST_INTERVAL: Duration = Duration::from_secs(3);
/// Number of pings that are made at that interval.
const FIRST_PINGS: u32 = 3;
const MAX_MISSES: u32 = 5;
/// Time without an answer after which a registration gives way where the list is full.
const SILENT: Duration = Duration::from_mins(10);
/// Time that a registration has to answer for the first time before it gives way where the list is full.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Number of pings in a row that are missed before anybody may take the id.
const MAX_LAPSES: u32 = 3;
/// Maximum number of pings under way, in all and of one host.
const MAX_PINGS: usize = 32;
const MAX_PINGS_OF_HOST: usize = 4;
/// Number of registrations that one host may make, whatever the size of the list.
const MIN_SHARE: usize = 8;
/// Maximum number of clients of one host that are being told something, and of those that the last did not reach.
const MAX_TOLD_OF_HOST: usize = 2;
const MAX_TOLD_AGAIN: usize = 2;
/// Maximum number of news that wait for one client.
const MAX_NEWS: usize = 1024;
/// Number of news in a row that did not arrive after which a client is left alone.
const MAX_FAILURES: u32 = 5;
/// Delay after one that did not arrive; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// What a client says of itself, checked.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) id: String,
    /// Direct endpoint.
    pub(super) endpoint: Endpoint,
    /// Address that it was said from; `None` where that says nothing: hearsay, or by way of a proxy.
    pub(super) caller: Option<IpAddr>,
    /// True: somebody else said it.
    pub(super) is_hearsay: bool,
    /// Host that said it, of itself or of another; `None` by way of a proxy.
    pub(super) by: Option<IpAddr>,
    /// Reach of that address: what the endpoint may resolve to.
    pub(super) scope: AddressScope,
    pub(super) protocols: Vec<String>,
    pub(super) capabilities: Option<PeerCapabilities>,
    pub(super) registers: Vec<PeerRegisterAdvertisement>,
}

/// Transaction that clients are told of.
#[derive(Debug)]
pub(super) struct News {
    /// SHA-256 of the payload in hex.
    pub(super) hash: String,
    pub(super) topic: String,
    pub(super) size: u64,
}

#[derive(Debug)]
struct Registered {
    candidate: Candidate,
    /// Number of the registration: what comes of an earlier one is no answer of this.
    number: u64,
    since: Instant,
    /// Way by which it answered, and when last.
    answered: Option<(Way, Instant)>,
    /// Id by which it answered.
    answered_as: String,
    last_seen: WallTime,
    misses: u32,
    /// Time of the next ping; `None` while one is under way.
    due: Option<Instant>,
    /// Time of the last one.
    pinged: Option<Instant>,
    news: VecDeque<Arc<News>>,
    is_told: bool,
    failures: u32,
    /// True: the last news did not reach it.
    is_failing: bool,
    /// Time before which no news is sent.
    pause: Instant,
}

/// Whose a registration is, where places are shared by hosts: of who said it, or, where a proxy hides that, of the
/// host that is named. Names cost nothing, and many may lead to one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Caller(IpAddr),
    Named(Host),
}

/// Registration to be pinged, or told something.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: String,
    number: u64,
    pub(super) target: Target,
}

/// All registrations.
#[derive(Debug)]
pub(super) struct Registry {
    peers: BTreeMap<String, Registered>,
    max: usize,
    next: u64,
    /// Client that was told last: the one behind it is the next.
    told: String,
    /// Those that are being told something: number, owner, and whether the last did not reach it.
    telling: Vec<(u64, Owner, bool)>,
}

impl Registry {
    pub(super) fn new(max: u32) -> Self {
        let told = String::new();
        Self { peers: BTreeMap::new(), max: max as usize, next: 0, told, telling: Vec::new() }
    }

    /// Takes a registration.
    ///
    /// # Errors
    /// A sentence for the client.
    pub(super) fn register(
        &mut self,
        candidate: Candidate,
        now: Instant,
        wall: WallTime,
    ) -> Result<(), &'static str> {
        let mut gone: Vec<String> = self.place_of(&candidate)?.into_iter().collect();
        let Some(known) = self.peers.get_mut(&candidate.id) else {
            return self.add(candidate, gone, now, wall);
        };
        let is_same_place = known.candidate.endpoint == candidate.endpoint;
        let is_same_caller =
            candidate.caller.is_some() && known.candidate.caller == candidate.caller;
        let is_hearsay = known.candidate.is_hearsay && !candidate.is_hearsay;
        if !is_same_caller && !is_hearsay && known.is_there() {
            // Who repeats the place of another does not become its owner by that.
            return if is_same_place { Ok(()) } else { Err(ID_IN_USE) };
        }
        if is_same_place {
            known.candidate = candidate;
            if !known.is_answering() {
                let soonest = known.pinged.map_or(now, |at| at + FIRST_INTERVAL);
                known.due = known.due.map(|due| due.min(soonest));
            }
            self.peers.retain(|id, _| !gone.contains(id));
            return Ok(());
        }
        gone.push(candidate.id.clone());
        self.add(candidate, gone, now, wall)
    }

    /// Takes hearsay of a client that is unknown, while less than three quarters of the list are taken.
    pub(super) fn hear(&mut self, candidate: Candidate, now: Instant, wall: WallTime) -> bool {
        let is_known = self.peers.contains_key(&candidate.id)
            || self.peers.values().any(|known| known.candidate.endpoint == candidate.endpoint);
        let is_welcome = self.peers.len() < self.max / 4 * 3 && !is_known;
        is_welcome && self.add(candidate, Vec::new(), now, wall).is_ok()
    }

    /// Another id at the same place, which gives way.
    ///
    /// # Errors
    /// A sentence for the client where it does not.
    fn place_of(&self, candidate: &Candidate) -> Result<Option<String>, &'static str> {
        let at = |known: &&Registered| {
            known.candidate.endpoint == candidate.endpoint && known.candidate.id != candidate.id
        };
        let Some(known) = self.peers.values().filter(at).find(|known| known.is_there()) else {
            return Ok(None);
        };
        let is_same_caller =
            candidate.caller.is_some() && known.candidate.caller == candidate.caller;
        let is_its_own = candidate.is_own_address() && !known.candidate.is_own_address();
        let answers_so = known.answered_as == candidate.id;
        if !is_same_caller && !known.candidate.is_hearsay && !is_its_own && !answers_so {
            return Err(ADDRESS_IN_USE);
        }
        // It calls itself otherwise by now, as after a restart, or somebody else had named its place.
        Ok(Some(known.candidate.id.clone()))
    }

    /// Registrations but those that go.
    fn without<'a>(&'a self, gone: &'a [String]) -> impl Iterator<Item = &'a Registered> {
        self.peers.values().filter(move |known| !gone.contains(&known.candidate.id))
    }

    /// Reports whether a host has registered its share, without what goes.
    fn has_share(&self, candidate: &Candidate, gone: &[String]) -> bool {
        let owner = candidate.owner();
        let is_here = match &owner {
            Owner::Caller(ip) | Owner::Named(Host::Ip(ip)) => ip.is_loopback(),
            Owner::Named(Host::Name(_)) => false,
        };
        let share = (self.max / 16).max(MIN_SHARE);
        let theirs = self.without(gone).filter(|known| known.candidate.owner() == owner);
        !is_here && theirs.count() >= share
    }

    /// Adds a registration in place of these, which stay where it is refused.
    fn add(
        &mut self,
        candidate: Candidate,
        mut gone: Vec<String>,
        now: Instant,
        wall: WallTime,
    ) -> Result<(), &'static str> {
        if self.has_share(&candidate, &gone) {
            return Err(LIST_FULL);
        }
        if self.without(&gone).count() >= self.max {
            let gives_way = |known: &&Registered| match known.answered {
                Some((_, at)) => now.saturating_duration_since(at) >= SILENT,
                None => now.saturating_duration_since(known.since) >= FIRST_ANSWER,
            };
            let oldest = self.without(&gone).filter(gives_way).min_by_key(|known| known.since);
            let oldest = oldest.map(|known| known.candidate.id.clone());
            gone.push(oldest.ok_or(LIST_FULL)?);
        }
        self.peers.retain(|id, _| !gone.contains(id));
        self.next += 1;
        let registered = Registered {
            number: self.next,
            since: now,
            answered: None,
            answered_as: String::new(),
            last_seen: wall,
            misses: 0,
            due: Some(now),
            pinged: None,
            news: VecDeque::new(),
            is_told: false,
            failures: 0,
            is_failing: false,
            pause: now,
            candidate,
        };
        self.peers.insert(registered.candidate.id.clone(), registered);
        Ok(())
    }

    /// Number of clients that are listed.
    pub(super) fn listed(&self) -> usize {
        self.peers.values().filter(|known| known.answered.is_some()).count()
    }

    /// Clients that are listed, as others are told of them.
    pub(super) fn list(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        self.peers.values().filter(|known| known.answered.is_some()).map(Registered::info)
    }

    /// Reports whether somebody registered under this id, listed or not.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.peers.contains_key(id)
    }

    /// Client that answers, to be asked something.
    pub(super) fn answering(&self, id: &str) -> Option<Target> {
        let known = self.peers.get(id)?;
        known.is_answering().then(|| known.target())
    }

    /// Whose a registration is.
    pub(super) fn owner(&self, id: &str) -> Option<Owner> {
        Some(self.peers.get(id)?.candidate.owner())
    }

    /// Notes a sign of life that came from an address; only one from where it registered counts.
    pub(super) fn touch(&mut self, id: &str, caller: IpAddr, wall: WallTime) {
        if let Some(known) = self.peers.get_mut(id)
            && known.candidate.caller == Some(caller)
        {
            known.last_seen = wall;
        }
    }

    /// Registrations whose ping is due, the longest overdue first, at most so many; each is then under way.
    fn take_due(&mut self, now: Instant, most: usize) -> Vec<Entry> {
        let mut of_owner: BTreeMap<Owner, usize> = BTreeMap::new();
        for known in self.peers.values().filter(|known| known.due.is_none()) {
            *of_owner.entry(known.candidate.owner()).or_default() += 1;
        }
        let mut due: Vec<_> = self
            .peers
            .values_mut()
            .filter(|known| known.due.is_some_and(|due| due <= now))
            .collect();
        due.sort_unstable_by_key(|known| known.due);
        let may = |known: &&mut Registered| {
            let under_way = of_owner.entry(known.candidate.owner()).or_default();
            *under_way += 1;
            *under_way <= MAX_PINGS_OF_HOST
        };
        let take = |known: &mut Registered| {
            known.due = None;
            known.pinged = Some(now);
            known.entry()
        };
        due.into_iter().filter(may).take(most).map(take).collect()
    }

    /// Time of the next ping that is not due already.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.peers.values().filter_map(|known| known.due).filter(|due| *due > now).min()
    }

    /// Notes that a ping was answered, or was not. Returns whether the registration is gone.
    fn pinged(
        &mut self,
        entry: &Entry,
        answer: Option<(Way, String)>,
        now: Instant,
        wall: WallTime,
    ) -> bool {
        let Some(known) = self.current(entry) else { return false };
        if let Some((way, id)) = answer {
            known.answered = Some((way, now));
            known.answered_as = id;
            known.last_seen = wall;
            (known.misses, known.failures) = (0, 0);
            known.pause = now;
            known.due = Some(now + PING_INTERVAL);
            let (number, endpoint) = (known.number, known.candidate.endpoint.clone());
            self.peers
                .retain(|_, other| other.number == number || other.candidate.endpoint != endpoint);
            return false;
        }
        known.misses += 1;
        if known.misses >= MAX_MISSES {
            self.peers.remove(&entry.id);
            return true;
        }
        let is_new = known.answered.is_none() && known.misses < FIRST_PINGS;
        known.due = Some(now + if is_new { FIRST_INTERVAL } else { PING_INTERVAL });
        false
    }

    /// Forgets a registration.
    fn remove(&mut self, entry: &Entry) {
        if self.current(entry).is_some() {
            self.peers.remove(&entry.id);
        }
    }

    /// Puts news into the queue of every listed client but those that have it. Returns how many older ones
    /// had to go.
    pub(super) fn tell(&mut self, news: &Arc<News>, but: &[String]) -> u64 {
        let mut dropped = 0;
        for known in self.peers.values_mut().filter(|known| known.answered.is_some()) {
            if but.contains(&known.candidate.id) || !known.takes(news) {
                continue;
            }
            if known.news.len() >= MAX_NEWS {
                known.news.pop_front();
                dropped += 1;
            }
            known.news.push_back(Arc::clone(news));
        }
        dropped
    }

    /// Next client to be told something, in turn; it is then being told.
    pub(super) fn take_news(&mut self, now: Instant) -> Option<(Entry, Arc<News>)> {
        let behind = (Bound::Excluded(self.told.clone()), Bound::Unbounded);
        let again = self.telling.iter().filter(|(_, _, again)| *again).count();
        let of = |owner: &Owner| self.telling.iter().filter(|(_, told, _)| told == owner).count();
        let ready = |known: &Registered| {
            known.may_be_told()
                && known.pause <= now
                && (!known.is_failing || again < MAX_TOLD_AGAIN)
                && of(&known.candidate.owner()) < MAX_TOLD_OF_HOST
        };
        let id = self.peers.range::<String, _>(behind).find(|(_, known)| ready(known));
        let id = id.or_else(|| self.peers.iter().find(|(_, known)| ready(known)))?.0.clone();
        let known = self.peers.get_mut(&id)?;
        let news = Arc::clone(known.news.front()?);
        known.is_told = true;
        self.told = id;
        self.telling.push((known.number, known.candidate.owner(), known.is_failing));
        Some((known.entry(), news))
    }

    /// Time when a client that is paused may be told something again.
    pub(super) fn next_news(&self, now: Instant) -> Option<Instant> {
        let paused = self.peers.values().filter(|known| known.may_be_told() && known.pause > now);
        paused.map(|known| known.pause).min()
    }

    /// Notes that news arrived, or did not.
    pub(super) fn told(&mut self, entry: &Entry, news: &Arc<News>, arrived: bool, now: Instant) {
        self.telling.retain(|(number, ..)| *number != entry.number);
        let Some(known) = self.current(entry) else { return };
        known.is_told = false;
        known.is_failing = !arrived;
        if arrived {
            known.failures = 0;
            if known.news.front().is_some_and(|front| Arc::ptr_eq(front, news)) {
                known.news.pop_front();
            }
        } else {
            known.failures += 1;
            known.pause = now + FIRST_DELAY * 2u32.pow(known.failures.min(MAX_FAILURES));
        }
    }

    fn current(&mut self, entry: &Entry) -> Option<&mut Registered> {
        self.peers.get_mut(&entry.id).filter(|known| known.number == entry.number)
    }
}

impl Candidate {
    fn owner(&self) -> Owner {
        self.by.map_or_else(|| Owner::Named(self.endpoint.host().clone()), Owner::Caller)
    }

    /// Reports whether it was said from the address that it names.
    fn is_own_address(&self) -> bool {
        let named = self.endpoint.socket_addr().map(|address| address.ip());
        named.is_some() && named == self.caller
    }
}

impl Registered {
    /// Reports whether it answered its last ping.
    fn is_answering(&self) -> bool {
        self.answered.is_some() && self.misses == 0
    }

    /// Reports whether it is there, though it may have missed a ping or two.
    fn is_there(&self) -> bool {
        self.answered.is_some() && self.misses < MAX_LAPSES
    }

    fn may_be_told(&self) -> bool {
        !self.is_told && self.failures < MAX_FAILURES && !self.news.is_empty()
    }

    /// Reports whether it takes a transaction of this size, as far as it has said.
    fn takes(&self, news: &News) -> bool {
        let most = self.candidate.capabilities.map_or(0, |c| c.max_transaction_size);
        u64::try_from(most).map_or(true, |most| most == 0 || news.size <= most)
    }

    fn target(&self) -> Target {
        Target {
            endpoint: self.candidate.endpoint.clone(),
            scope: self.candidate.scope,
            protocols: self.candidate.protocols.clone(),
            way: self.answered.map(|(way, _)| way),
        }
    }

    fn entry(&self) -> Entry {
        Entry { id: self.candidate.id.clone(), number: self.number, target: self.target() }
    }

    fn info(&self) -> PeerInfo {
        let candidate = &self.candidate;
        PeerInfo {
            peer_id: candidate.id.clone(),
            address: bare_host(&candidate.endpoint),
            port: candidate.endpoint.port().into(),
            supported_protocols: candidate.protocols.clone(),
            last_seen: seconds(self.last_seen),
            capabilities: candidate.capabilities,
            advertised_registers: candidate.registers.clone(),
            is_seed_node: false,
        }
    }
}

/// Host without port and brackets.
pub(super) fn bare_host(endpoint: &Endpoint) -> String {
    match endpoint.host() {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

/// Time as the original's services write it.
pub(super) fn seconds(time: WallTime) -> i64 {
    i64::try_from(time.as_millis() / 1000).unwrap_or(i64::MAX)
}

/// Pings those that registered, until dropped.
pub(super) async fn run(shared: &Shared) {
    let mut pings = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let due = shared.registry().take_due(now, MAX_PINGS - pings.len());
        pings.extend(due.into_iter().map(|entry| ping(shared, entry)));
        let next = shared.registry().next_due(now).filter(|_| pings.len() < MAX_PINGS);
        tokio::select! {
            Some(()) = pings.next() => {}
            () = reached(next) => {}
            () = shared.registry_changed.notified() => {}
        }
    }
}

async fn ping(shared: &Shared, entry: Entry) {
    let me = shared.backend.peer_id().to_string();
    let answer = shared.client.ping(&entry.target, &me).await;
    let (now, wall) = (Instant::now(), shared.backend.now());
    let answer = match answer {
        Ok((_, id)) if id == me => {
            // Another of this node's own addresses.
            shared.registry().remove(&entry);
            shared.count(|c| c.compat_peers_dropped += 1);
            return;
        }
        Ok(answer) => Some(answer),
        Err(error) => {
            let endpoint = &entry.target.endpoint;
            tracing::debug!(target: "sorcha_peer::compat", %endpoint, %error, "no answer to a ping");
            None
        }
    };
    let is_missed = answer.is_none();
    let is_gone = shared.registry().pinged(&entry, answer, now, wall);
    shared.count(|c| {
        c.compat_pings_sent += 1;
        c.compat_pings_missed += u64::from(is_missed);
        c.compat_peers_dropped += u64::from(is_gone);
    });
    shared.news_changed.notify_one();
}
