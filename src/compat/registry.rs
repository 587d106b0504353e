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
//! Tested by: the tests below, `compat::tests`.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::client::{Target, Way};
use crate::types::{AddressScope, Endpoint, Host, WallTime};
use crate::wire::generated::discovery::{PeerCapabilities, PeerInfo, PeerRegisterAdvertisement};

use super::ops::discovery::{ADDRESS_IN_USE, ID_IN_USE, LIST_FULL};

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
        self.take_place(&candidate)?;
        let Some(known) = self.peers.get_mut(&candidate.id) else {
            return self.add(candidate, now, wall);
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
            return Ok(());
        }
        self.peers.remove(&candidate.id);
        self.add(candidate, now, wall)
    }

    /// Takes hearsay of a client that is unknown, while less than three quarters of the list are taken.
    pub(super) fn hear(&mut self, candidate: Candidate, now: Instant, wall: WallTime) -> bool {
        let is_known = self.peers.contains_key(&candidate.id)
            || self.peers.values().any(|known| known.candidate.endpoint == candidate.endpoint);
        let is_welcome = self.peers.len() < self.max / 4 * 3 && !is_known;
        is_welcome && self.add(candidate, now, wall).is_ok()
    }

    /// Has another id at the same place give way, or refuses.
    fn take_place(&mut self, candidate: &Candidate) -> Result<(), &'static str> {
        let at = |known: &&Registered| {
            known.candidate.endpoint == candidate.endpoint && known.candidate.id != candidate.id
        };
        let Some(known) = self.peers.values().filter(at).find(|known| known.is_there()) else {
            return Ok(());
        };
        let is_same_caller =
            candidate.caller.is_some() && known.candidate.caller == candidate.caller;
        let is_its_own = candidate.is_own_address() && !known.candidate.is_own_address();
        let answers_so = known.answered_as == candidate.id;
        if !is_same_caller && !known.candidate.is_hearsay && !is_its_own && !answers_so {
            return Err(ADDRESS_IN_USE);
        }
        // It calls itself otherwise by now, as after a restart, or somebody else had named its place.
        let id = known.candidate.id.clone();
        self.peers.remove(&id);
        Ok(())
    }

    /// Reports whether a host has registered its share.
    fn has_share(&self, candidate: &Candidate) -> bool {
        let owner = candidate.owner();
        let is_here = match &owner {
            Owner::Caller(ip) | Owner::Named(Host::Ip(ip)) => ip.is_loopback(),
            Owner::Named(Host::Name(_)) => false,
        };
        let share = (self.max / 16).max(MIN_SHARE);
        let theirs = self.peers.values().filter(|known| known.candidate.owner() == owner);
        !is_here && theirs.count() >= share
    }

    fn add(
        &mut self,
        candidate: Candidate,
        now: Instant,
        wall: WallTime,
    ) -> Result<(), &'static str> {
        if self.has_share(&candidate) {
            return Err(LIST_FULL);
        }
        if self.peers.len() >= self.max {
            let gives_way = |known: &&Registered| match known.answered {
                Some((_, at)) => now.saturating_duration_since(at) >= SILENT,
                None => now.saturating_duration_since(known.since) >= FIRST_ANSWER,
            };
            let oldest = self.peers.values().filter(gives_way).min_by_key(|known| known.since);
            let id = oldest.map(|known| known.candidate.id.clone()).ok_or(LIST_FULL)?;
            self.peers.remove(&id);
        }
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
        let later = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => futures::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = pings.next() => {}
            () = later => {}
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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_wraps,
        reason = "numbers of tests are small"
    )]

    use super::*;

    const WALL: WallTime = WallTime::from_millis(7000);

    fn candidate(id: &str, port: u16, caller: Option<u8>) -> Candidate {
        let caller = caller.map(|n| IpAddr::from([10, 0, 0, n]));
        Candidate {
            id: id.to_owned(),
            endpoint: format!("10.0.0.1:{port}").parse().unwrap(),
            caller,
            is_hearsay: false,
            by: caller,
            scope: AddressScope::Private,
            protocols: Vec::new(),
            capabilities: None,
            registers: Vec::new(),
        }
    }

    fn answered() -> Option<(Way, String)> {
        Some((Way::H2c, String::new()))
    }

    fn answer(registry: &mut Registry, now: Instant) {
        loop {
            let due = registry.take_due(now, 10_000);
            if due.is_empty() {
                return;
            }
            for entry in due {
                registry.pinged(&entry, answered(), now, WALL);
            }
        }
    }

    fn ids(registry: &Registry) -> Vec<String> {
        registry.list().map(|info| info.peer_id).collect()
    }

    #[test]
    fn who_answers_is_listed_and_who_stops_is_dropped() {
        let (mut registry, mut now) = (Registry::new(10), Instant::now());
        registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
        assert!(ids(&registry).is_empty() && registry.answering("a").is_none());
        answer(&mut registry, now);
        assert_eq!(ids(&registry), ["a"]);
        assert_eq!(registry.answering("a").unwrap().way, Some(Way::H2c));
        assert!(registry.take_due(now, 10).is_empty());
        for missed in 1..=MAX_MISSES {
            now += PING_INTERVAL;
            let due = registry.take_due(now, 10);
            assert_eq!(due.len(), 1);
            let is_gone = registry.pinged(&due[0], None, now, WALL);
            assert_eq!(is_gone, missed == MAX_MISSES);
            assert!(registry.answering("a").is_none());
        }
        assert!(!registry.contains("a"));
    }

    #[test]
    fn an_id_is_kept_by_who_answers() {
        let (mut registry, now) = (Registry::new(10), Instant::now());
        registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
        // Nobody has answered yet.
        registry.register(candidate("a", 2, Some(2)), now, WALL).unwrap();
        answer(&mut registry, now);
        let refused = registry.register(candidate("a", 3, Some(3)), now, WALL);
        assert_eq!(refused, Err(ID_IN_USE));
        let proxied = registry.register(candidate("a", 3, None), now, WALL);
        assert_eq!(proxied, Err(ID_IN_USE));
        registry.register(candidate("a", 2, Some(3)), now, WALL).unwrap();
        assert_eq!(registry.register(candidate("a", 4, Some(3)), now, WALL), Err(ID_IN_USE));
        assert_eq!(ids(&registry), ["a"]);
        registry.register(candidate("a", 4, Some(2)), now, WALL).unwrap();
        assert!(ids(&registry).is_empty(), "another place has to answer first");
    }

    #[test]
    fn what_comes_of_an_earlier_registration_is_no_answer_of_this_one() {
        let (mut registry, now) = (Registry::new(10), Instant::now());
        registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
        let old = registry.take_due(now, 1).remove(0);
        registry.register(candidate("a", 2, Some(1)), now, WALL).unwrap();
        assert!(!registry.pinged(&old, answered(), now, WALL));
        assert!(ids(&registry).is_empty());
        registry.remove(&old);
        assert!(registry.contains("a"));
    }

    #[test]
    fn a_full_list_makes_room_for_nobody_but_in_place_of_the_silent() {
        let (mut registry, now) = (Registry::new(10), Instant::now());
        for n in 0..10u16 {
            let id = format!("client {n}");
            registry.register(candidate(&id, n + 1, Some((n / 8) as u8)), now, WALL).unwrap();
        }
        let share = registry.register(candidate("more", 99, Some(0)), now, WALL);
        assert_eq!(share, Err(LIST_FULL), "a host has its share");
        let more = || candidate("more", 99, Some(2));
        assert_eq!(registry.register(more(), now, WALL), Err(LIST_FULL));
        answer(&mut registry, now);
        let later = now + FIRST_ANSWER;
        assert_eq!(registry.register(more(), later, WALL), Err(LIST_FULL));
        registry.register(candidate("client 3", 4, Some(0)), later, WALL).unwrap();
        registry.register(more(), now + SILENT, WALL).unwrap();
        registry
            .register(candidate("last", 98, Some(3)), now + SILENT + FIRST_ANSWER, WALL)
            .unwrap();
        assert!(registry.contains("more") && registry.peers.len() == 10);
    }

    #[test]
    fn hearsay_changes_nothing_and_leaves_room() {
        let (mut registry, now) = (Registry::new(12), Instant::now());
        registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
        assert!(!registry.hear(candidate("a", 2, None), now, WALL));
        let heard = (0..20u16).filter(|n| {
            let candidate = candidate(&format!("heard {n}"), n + 10, None);
            registry.hear(candidate, now, WALL)
        });
        assert_eq!(heard.count(), 8);
        assert!(ids(&registry).is_empty());
        assert!(!registry.hear(candidate("new", 10, None), now, WALL), "a place that is known");
        let heard = Candidate { is_hearsay: true, ..candidate("squatted", 50, None) };
        let mut registry = Registry::new(12);
        assert!(registry.hear(heard, now, WALL));
        answer(&mut registry, now);
        registry.register(candidate("squatted", 51, Some(2)), now, WALL).unwrap();
    }

    #[test]
    fn a_place_has_one_id() {
        let (mut registry, now) = (Registry::new(100), Instant::now());
        for id in ["a", "b"] {
            registry.register(candidate(id, 1, Some(1)), now, WALL).unwrap();
        }
        let first = registry.take_due(now, 1).remove(0);
        registry.pinged(&first, answered(), now, WALL);
        assert_eq!(ids(&registry), [first.id], "whose ping was answered first");
        assert_eq!(registry.peers.len(), 1);
        let other = registry.register(candidate("c", 1, Some(2)), now, WALL);
        assert_eq!(other, Err(ADDRESS_IN_USE));
        registry.register(candidate("renamed", 1, Some(1)), now, WALL).unwrap();
        answer(&mut registry, now);
        assert_eq!(ids(&registry), ["renamed"]);
    }

    #[test]
    fn whoever_is_at_a_place_gets_it_back_from_who_named_it_first() {
        let now = Instant::now();
        let squatted = |by: Option<u8>, answered_as: &str| {
            let mut registry = Registry::new(100);
            registry.register(candidate("x", 1, by), now, WALL).unwrap();
            let entry = registry.take_due(now, 1).remove(0);
            let answer = Some((Way::H2c, answered_as.to_owned()));
            registry.pinged(&entry, answer, now, WALL);
            registry
        };
        // Its caller has the address 10.0.0.1, which is the one that is named.
        let mut registry = squatted(Some(9), "x");
        assert_eq!(registry.register(candidate("y", 1, Some(8)), now, WALL), Err(ADDRESS_IN_USE));
        registry.register(candidate("y", 1, Some(1)), now, WALL).unwrap();
        assert!(!registry.contains("x"));
        // By way of a proxy that shows nothing, but it answers by this id.
        let mut registry = squatted(Some(9), "y");
        registry.register(candidate("y", 1, None), now, WALL).unwrap();
        assert!(!registry.contains("x"));
    }

    #[test]
    fn names_that_one_caller_made_up_are_one_host() {
        let (mut registry, now) = (Registry::new(1000), Instant::now());
        for n in 0..70u16 {
            let mut named = candidate(&n.to_string(), 1, Some(1));
            named.endpoint = format!("a{n}.example.com:1").parse().unwrap();
            let registered = registry.register(named, now, WALL);
            assert_eq!(registered.is_ok(), n < 62, "a sixteenth");
        }
        assert_eq!(registry.take_due(now, MAX_PINGS).len(), MAX_PINGS_OF_HOST);
        let mut proxied = candidate("p", 1, None);
        proxied.endpoint = "b.example.com:1".parse().unwrap();
        for port in 1..70u16 {
            proxied.endpoint = format!("b.example.com:{port}").parse().unwrap();
            proxied.id = format!("p{port}");
            let registered = registry.register(proxied.clone(), now, WALL);
            assert_eq!(registered.is_ok(), port <= 62);
        }
    }

    #[test]
    fn pings_come_by_their_time_and_few_for_one_host() {
        let (mut registry, mut now) = (Registry::new(1000), Instant::now());
        for n in 0..40u16 {
            let slow = candidate(&format!("! {n}"), n + 1, Some(1));
            registry.register(slow, now, WALL).unwrap();
        }
        let mut other = candidate("z", 1, Some(2));
        other.endpoint = "10.0.0.9:1".parse().unwrap();
        registry.register(other, now, WALL).unwrap();
        let due = registry.take_due(now, MAX_PINGS);
        let of_other = due.iter().filter(|entry| entry.id == "z").count();
        assert_eq!((due.len(), of_other), (MAX_PINGS_OF_HOST + 1, 1));
        assert!(registry.take_due(now, MAX_PINGS).is_empty());
        assert_eq!(registry.next_due(now), None, "an answer is what is waited for");
        let first = due.iter().find(|entry| entry.id != "z").unwrap();
        registry.pinged(first, None, now, WALL);
        assert_eq!(registry.take_due(now, MAX_PINGS).len(), 1);
        // Saying it again brings no ping forward.
        now += Duration::from_secs(1);
        let again = registry.peers[&first.id].candidate.clone();
        registry.register(again, now, WALL).unwrap();
        let due_at = registry.peers[&first.id].due.unwrap();
        assert_eq!(due_at, now + FIRST_INTERVAL - Duration::from_secs(1));
    }

    #[test]
    fn a_sign_of_life_counts_from_where_the_client_registered() {
        let (mut registry, now) = (Registry::new(10), Instant::now());
        registry.register(candidate("a", 1, Some(1)), now, WALL).unwrap();
        answer(&mut registry, now);
        let seen = |registry: &Registry| registry.list().next().unwrap().last_seen;
        registry.touch("a", [10, 0, 0, 2].into(), WallTime::from_millis(9000));
        assert_eq!(seen(&registry), 7);
        registry.touch("a", [10, 0, 0, 1].into(), WallTime::from_millis(9000));
        assert_eq!(seen(&registry), 9);
    }

    fn news(size: u64) -> Arc<News> {
        Arc::new(News { hash: "h".to_owned(), topic: "t".to_owned(), size })
    }

    #[test]
    fn news_goes_to_all_in_turn_and_waits_for_who_fails() {
        let (mut registry, mut now) = (Registry::new(10), Instant::now());
        for (n, id) in ["a", "b", "c", "unlisted"].into_iter().enumerate() {
            if id == "unlisted" {
                answer(&mut registry, now);
            }
            let mut candidate = candidate(id, n as u16 + 1, Some(1));
            candidate.endpoint = format!("10.0.0.{n}:1").parse().unwrap();
            registry.register(candidate, now, WALL).unwrap();
        }
        assert_eq!(registry.tell(&news(1), &["b".to_owned()]), 0);
        let (first, one) = registry.take_news(now).unwrap();
        let (second, two) = registry.take_news(now).unwrap();
        assert_eq!((first.id.as_str(), second.id.as_str()), ("a", "c"));
        assert!(registry.take_news(now).is_none(), "one at a time each");
        registry.told(&first, &one, true, now);
        assert!(registry.take_news(now).is_none());
        let mut failing = (second, two);
        for _ in 0..MAX_FAILURES {
            registry.told(&failing.0, &failing.1, false, now);
            now += FIRST_DELAY * 64;
            if let Some(again) = registry.take_news(now) {
                failing = again;
            }
        }
        assert!(registry.take_news(now + SILENT).is_none(), "left alone");
        assert_eq!(registry.next_news(now), None);
        registry.pinged(&failing.0, answered(), now, WALL);
        assert_eq!(registry.take_news(now).unwrap().0.id, "c");
    }

    #[test]
    fn those_of_one_host_are_told_few_at_a_time() {
        let (mut registry, now) = (Registry::new(100), Instant::now());
        for n in 0..5u16 {
            registry.register(candidate(&n.to_string(), n + 1, Some(1)), now, WALL).unwrap();
        }
        answer(&mut registry, now);
        registry.tell(&news(1), &[]);
        let taken: Vec<_> = std::iter::from_fn(|| registry.take_news(now)).collect();
        assert_eq!((taken.len(), registry.next_news(now)), (MAX_TOLD_OF_HOST, None));
        registry.told(&taken[0].0, &taken[0].1, true, now);
        assert!(registry.take_news(now).is_some());
    }

    #[test]
    fn news_is_bounded_and_no_larger_than_a_client_takes() {
        let (mut registry, now) = (Registry::new(10), Instant::now());
        let mut small = candidate("small", 1, Some(1));
        small.capabilities =
            Some(PeerCapabilities { max_transaction_size: 10, ..Default::default() });
        registry.register(small, now, WALL).unwrap();
        let mut odd = candidate("odd", 2, Some(1));
        odd.capabilities =
            Some(PeerCapabilities { max_transaction_size: -1, ..Default::default() });
        registry.register(odd, now, WALL).unwrap();
        answer(&mut registry, now);
        let dropped: u64 = (0..MAX_NEWS as u64 + 3).map(|_| registry.tell(&news(11), &[])).sum();
        assert_eq!(dropped, 3);
        assert_eq!(registry.peers["odd"].news.len(), MAX_NEWS);
        assert!(registry.peers["small"].news.is_empty());
    }
}
