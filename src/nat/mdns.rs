//! Finding nodes of one network on the same LAN, by multicast DNS (RFC 6762, RFC 6763).
//!
//! Contract: who listens on the LAN learns that a node of this crate is there, at which address and
//! port, and neither who it is nor the name of its network. Names are random and new at each start. What
//! is announced beside them is a random salt and, for each key that the members of the network have in
//! common, a keyed hash over salt and port: members compare it with their own, and to others two
//! announcements have nothing in common. It proves nothing, since everybody can repeat it.
//!
//! Taken are only announcements with a right hash, and of those only private addresses; for a node that
//! listens on loopback, which neither announces nor looks elsewhere, only loopback ones. At most
//! [`MAX_HEARD`] are remembered, to be told again each [`AGAIN`], since the node forgets places at which
//! nobody answered. They are told at most once a second.
//!
//! The crate `mdns-sd` keeps what others announce, without a bound of its own. It is asked each [`LOOK`]
//! how much that is: above [`MAX_RECORDS`], or without an answer, it is ended, and begun anew after
//! [`PAUSE`].
//!
//! Cancel safe: dropped, the announcement is withdrawn all the same, a moment later.
//!
//! Tested by: the tests below, `tests/node/nearby.rs`, `tests/process/nearby.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{
    Error, IfKind, IfPredicate, Metrics, Receiver, ResolvedService, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::types::{AddressScope, Endpoint, hex};

/// Type of service that nodes announce, whatever their network.
const SERVICE: &str = "_sorcha-peer._tcp.local.";
/// First bytes of what a hash is over.
const TAG: &[u8; 17] = b"sorcha-peer/lan-1";
/// Names of the salt and of the hashes in an announcement.
const SALT: &str = "s";
const HASHES: [&str; 2] = ["a", "b"];

/// Maximum number of announcements that are remembered, and of addresses of each.
const MAX_HEARD: usize = 64;
const MAX_ADDRESSES: usize = 4;
/// Maximum number of addresses that wait to be told.
const MAX_NEWS: usize = MAX_HEARD * MAX_ADDRESSES;
/// Maximum number of records that may be held for this node, about a thousand announcements; and of
/// the times at which something about them is due.
const MAX_RECORDS: i64 = 4096;
const MAX_TIMERS: i64 = 1 << 20;

/// Minimum time between two tellings.
const NEWS: Duration = Duration::from_secs(1);
/// Time after which all that is announced is told again.
const AGAIN: Duration = Duration::from_mins(5);
/// Time between two questions how much is held, and for the answer.
const LOOK: Duration = Duration::from_secs(5);
/// Time before it is begun anew.
const PAUSE: Duration = Duration::from_mins(1);
/// Maximum time for the announcement to be withdrawn.
const GOODBYE: Duration = Duration::from_secs(1);

/// What is announced on the LAN, and looked for.
#[derive(Debug)]
pub(crate) struct Mdns {
    /// Keys that members have in common.
    keys: Vec<[u8; 32]>,
}

/// Part of the net in which a node announces and looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Machine,
    Site,
}

impl Reach {
    fn of(listening: Option<SocketAddr>) -> Self {
        let ip = listening.map(|address| address.ip().to_canonical());
        if ip.is_some_and(|ip| ip.is_loopback()) { Self::Machine } else { Self::Site }
    }

    fn takes(self, ip: IpAddr) -> bool {
        let wanted =
            if self == Self::Machine { AddressScope::Loopback } else { AddressScope::Private };
        AddressScope::of(ip) == wanted
    }
}

/// What members of a network know each other's announcements by.
#[derive(Debug)]
struct Mark {
    salt: [u8; 32],
    hashes: Vec<[u8; 32]>,
}

impl Mark {
    fn new(keys: &[[u8; 32]], port: u16) -> Result<Self, Error> {
        let salt = random()?;
        let hashes = keys.iter().map(|key| *hash(key, &salt, port).as_bytes());
        Ok(Self { salt, hashes: hashes.take(HASHES.len()).collect() })
    }

    /// Reads a mark, where `value` tells what an announcement says under a name.
    fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let bytes = |name: &str| hex::parse32(value(name)?);
        let salt = bytes(SALT)?;
        Some(Self { salt, hashes: HASHES.into_iter().filter_map(bytes).collect() })
    }

    /// The mark as an announcement has it.
    fn properties(&self) -> Vec<(&'static str, String)> {
        let hashes = HASHES.into_iter().zip(&self.hashes);
        let all = [(SALT, &self.salt)].into_iter().chain(hashes);
        all.map(|(name, bytes)| (name, Hex(bytes).to_string())).collect()
    }

    /// Reports whether it was made with one of the keys.
    fn is_by(&self, keys: &[[u8; 32]], port: u16) -> bool {
        keys.iter().any(|key| {
            let right = hash(key, &self.salt, port);
            self.hashes.iter().any(|hash| right == blake3::Hash::from_bytes(*hash))
        })
    }
}

fn hash(key: &[u8; 32], salt: &[u8; 32], port: u16) -> blake3::Hash {
    blake3::Hasher::new_keyed(key).update(TAG).update(salt).update(&port.to_be_bytes()).finalize()
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(self.0, f)
    }
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Msg(error.to_string()))?;
    Ok(bytes)
}

/// Announcements that were heard and are not withdrawn, the oldest first.
#[derive(Debug, Default)]
struct Heard(VecDeque<(String, Vec<Endpoint>)>);

impl Heard {
    fn note(&mut self, name: String, endpoints: Vec<Endpoint>) {
        self.forget(&name);
        if self.0.len() >= MAX_HEARD {
            self.0.pop_front();
        }
        self.0.push_back((name, endpoints));
    }

    fn forget(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    fn all(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.0.iter().flat_map(|(_, endpoints)| endpoints).cloned()
    }
}

/// A thread of `mdns-sd`, which withdraws what it announced and ends when this is dropped.
struct Daemon(ServiceDaemon);

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended says so, and there is nothing left to do.
        let _ = self.0.shutdown();
    }
}

/// Why a session is over.
enum Over {
    /// Nobody waits for what is heard.
    Unwanted,
    /// The thread has ended, does not answer, or holds too much.
    Failed(&'static str),
}

/// What an announcement has to be like to be taken.
#[derive(Debug)]
struct Wanted<'a> {
    keys: &'a [[u8; 32]],
    reach: Reach,
    /// Name of the own announcement, where there is one.
    own: Option<String>,
}

/// An announcement, and what is heard meanwhile.
struct Session<'a> {
    daemon: Daemon,
    events: Receiver<ServiceEvent>,
    wanted: Wanted<'a>,
}

impl Mdns {
    /// For the network whose members have these keys, at most two.
    pub(crate) fn new(keys: Vec<[u8; 32]>) -> Self {
        Self { keys }
    }

    /// Announces where the node listens, and tells `found` of other nodes, until the node has `ended` or
    /// nobody waits for what is found.
    pub(crate) async fn run(
        self,
        listening: Option<SocketAddr>,
        found: mpsc::Sender<Vec<Endpoint>>,
        ended: impl Future<Output = ()>,
    ) {
        let listening = listening.map(crate::types::canonical);
        tokio::pin!(ended);
        loop {
            let why = match Session::start(&self.keys, listening) {
                Err(error) => error.to_string(),
                Ok(session) => {
                    let over = tokio::select! {
                        () = &mut ended => Over::Unwanted,
                        over = session.serve(&found) => over,
                    };
                    session.end().await;
                    match over {
                        Over::Unwanted => return,
                        Over::Failed(why) => why.to_owned(),
                    }
                }
            };
            tracing::warn!(target: "sorcha_peer::nat", why, "no nodes are found on the LAN for a minute");
            tokio::select! {
                () = &mut ended => return,
                () = found.closed() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }
}

impl<'a> Session<'a> {
    fn start(keys: &'a [[u8; 32]], listening: Option<SocketAddr>) -> Result<Self, Error> {
        let reach = Reach::of(listening);
        let daemon = Daemon(ServiceDaemon::new()?);
        let loopback = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
        if reach == Reach::Machine {
            daemon.0.disable_interface(IfKind::All)?;
            daemon.0.enable_interface(loopback)?;
        } else {
            daemon.0.disable_interface(loopback)?;
        }
        let service = listening.map_or(Ok(None), |at| announcement(keys, at, reach))?;
        let own = service.as_ref().map(|service| service.get_fullname().to_owned());
        let events = daemon.0.browse(SERVICE)?;
        if let Some(service) = service {
            daemon.0.register(service)?;
        }
        let announces = own.is_some();
        tracing::info!(target: "sorcha_peer::nat", ?reach, announces, "looking for nodes by mDNS");
        Ok(Self { daemon, events, wanted: Wanted { keys, reach, own } })
    }

    /// Tells what is heard.
    async fn serve(&self, found: &mpsc::Sender<Vec<Endpoint>>) -> Over {
        let (mut heard, mut news) = (Heard::default(), Vec::new());
        let (mut tell, mut again, mut look) = (every(NEWS), every(AGAIN), every(LOOK));
        let mut asked: Option<Receiver<Metrics>> = None;
        loop {
            tokio::select! {
                biased;
                figures = answer(asked.as_ref()) => {
                    asked = None;
                    if figures.is_none_or(|figures| holds_too_much(&figures)) {
                        return Over::Failed("too much is announced");
                    }
                }
                _ = look.tick() => {
                    if asked.is_some() {
                        return Over::Failed("too much is announced to be read");
                    }
                    let Ok(figures) = self.daemon.0.get_metrics() else {
                        return Over::Failed("the thread has ended");
                    };
                    asked = Some(figures);
                }
                () = found.closed() => return Over::Unwanted,
                _ = tell.tick(), if !news.is_empty() => {
                    tracing::debug!(target: "sorcha_peer::nat", ?news, "nodes announce themselves");
                    if found.send(std::mem::take(&mut news)).await.is_err() {
                        return Over::Unwanted;
                    }
                }
                _ = again.tick() => news = heard.all().collect(),
                event = self.events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) => {
                        let endpoints = self.wanted.endpoints(&service);
                        for endpoint in &endpoints {
                            if news.len() < MAX_NEWS && !news.contains(endpoint) {
                                news.push(endpoint.clone());
                            }
                        }
                        if !endpoints.is_empty() {
                            heard.note(service.fullname, endpoints);
                        }
                    }
                    Ok(ServiceEvent::ServiceRemoved(_, name)) => heard.forget(&name),
                    Ok(_) => {}
                    // The channel was full, unless the thread has ended.
                    Err(_) => return Over::Failed("too much is announced at once"),
                },
            }
        }
    }

    /// Withdraws the announcement and waits until that has left.
    async fn end(self) {
        let Self { daemon, events, .. } = self;
        drop(events);
        if let Ok(ended) = daemon.0.shutdown() {
            let _ = timeout(GOODBYE, ended.recv_async()).await;
        }
    }
}

impl Wanted<'_> {
    /// Returns where a node of this network is, as an announcement says; none where it is none.
    fn endpoints(&self, service: &ResolvedService) -> Vec<Endpoint> {
        let port = service.port;
        let is_own =
            self.own.as_ref().is_some_and(|own| service.fullname.eq_ignore_ascii_case(own));
        let mark = Mark::read(|name| service.txt_properties.get_property_val_str(name));
        if is_own || port == 0 || !mark.is_some_and(|mark| mark.is_by(self.keys, port)) {
            return Vec::new();
        }
        let all = service.addresses.iter().map(|ip| ip.to_ip_addr().to_canonical());
        let mut near: Vec<_> = all.filter(|ip| self.reach.takes(*ip)).collect();
        near.sort_unstable();
        near.truncate(MAX_ADDRESSES);
        near.into_iter().map(|ip| Endpoint::from(SocketAddr::new(ip, port))).collect()
    }
}

/// What a node that listens at `listening` announces; `None` where nobody near could dial it.
fn announcement(
    keys: &[[u8; 32]],
    listening: SocketAddr,
    reach: Reach,
) -> Result<Option<ServiceInfo>, Error> {
    let (ip, port) = (listening.ip(), listening.port());
    if !ip.is_unspecified() && !reach.takes(ip) {
        return Ok(None);
    }
    let (name, host) = (random()?, random()?);
    // A label has at most 63 bytes.
    let (name, host) = (Hex(&name[..16]).to_string(), format!("{}.local.", Hex(&host[..16])));
    let properties = Mark::new(keys, port)?.properties();
    let fixed = if ip.is_unspecified() { Vec::new() } else { vec![ip] };
    let mut own = ServiceInfo::new(SERVICE, &name, &host, &fixed[..], port, &properties[..])?;
    // Nobody has the same by chance.
    own.set_requires_probe(false);
    if !ip.is_unspecified() {
        return Ok(Some(own));
    }
    let is_heard = move |ip: IpAddr| reach.takes(ip) && (listening.is_ipv6() || ip.is_ipv4());
    let interfaces = IfPredicate::new(move |interface| is_heard(interface.ip()));
    own.set_interfaces(vec![IfKind::Predicate(interfaces)]);
    Ok(Some(own.enable_addr_auto()))
}

/// Waits for an answer, where something was asked; `None` when there will be none.
async fn answer(asked: Option<&Receiver<Metrics>>) -> Option<Metrics> {
    match asked {
        Some(figures) => figures.recv_async().await.ok(),
        None => pending().await,
    }
}

fn holds_too_much(figures: &Metrics) -> bool {
    let records = figures.iter().filter(|(name, _)| name.starts_with("cached-"));
    let records: i64 = records.map(|(_, count)| *count).sum();
    records > MAX_RECORDS || figures.get("timer").is_some_and(|timers| *timers > MAX_TIMERS)
}

fn every(time: Duration) -> Interval {
    let mut interval = interval(time);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases::for_all;

    const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
    const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5001);

    fn of(keys: &[[u8; 32]], listening: SocketAddr) -> ServiceInfo {
        announcement(keys, listening, Reach::of(Some(listening))).unwrap().unwrap()
    }

    /// What a member that listens on loopback makes of an announcement.
    fn heard(keys: &[[u8; 32]], service: ServiceInfo) -> Vec<String> {
        let wanted = Wanted { keys, reach: Reach::Machine, own: None };
        let found = wanted.endpoints(&service.as_resolved_service());
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn members_know_each_other_and_strangers_learn_nothing() {
        let own = of(&KEYS[..1], HERE);
        assert_eq!(heard(&KEYS[..1], own.clone()), ["127.0.0.1:5001"]);
        assert_eq!(heard(&[KEYS[1], KEYS[0]], own.clone()), ["127.0.0.1:5001"], "one of two");
        assert_eq!(heard(&KEYS[1..], own.clone()), [""; 0]);
        assert_eq!(heard(&KEYS[1..], of(&KEYS, HERE)), ["127.0.0.1:5001"], "on the move to it");
        // Two starts of one node have nothing in common but what everybody has.
        let (one, two) = (words(&own), words(&of(&KEYS[..1], HERE)));
        let shared: Vec<_> = one.iter().filter(|word| two.contains(word)).collect();
        assert_eq!(shared, [SERVICE, "127.0.0.1", "5001", SALT, HASHES[0]], "{one:?} {two:?}");
    }

    /// All that an announcement says.
    fn words(own: &ServiceInfo) -> Vec<String> {
        let name = own.get_fullname().strip_suffix(SERVICE).unwrap().to_owned();
        let mut words = vec![own.get_type().to_owned(), name, own.get_hostname().to_owned()];
        words.extend(own.get_addresses().iter().map(ToString::to_string));
        words.push(own.get_port().to_string());
        for property in own.get_properties().iter() {
            words.extend([property.key().to_owned(), property.val_str().to_owned()]);
        }
        words
    }

    #[test]
    fn what_is_repeated_at_another_port_or_changed_is_not_known() {
        for_all(200, |random| {
            let port = random.u16().max(1);
            let mark = Mark::new(&KEYS, port).unwrap();
            assert!(mark.is_by(&KEYS[..1], port) && !mark.is_by(&KEYS, port.wrapping_add(1)));
            let said = mark.properties();
            let value = |name: &str| Some(said.iter().find(|(key, _)| *key == name)?.1.as_str());
            assert!(Mark::read(value).unwrap().is_by(&KEYS[1..], port));
            let at = usize::from(random.u8()) % 64;
            let changed: Vec<_> = said.iter().map(|(key, text)| (*key, other(text, at))).collect();
            let value = |name: &str| Some(changed.iter().find(|(key, _)| *key == name)?.1.as_str());
            assert!(Mark::read(value).is_none_or(|mark| !mark.is_by(&KEYS, port)));
        });
        for garbage in ["", "0", "zz", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert!(Mark::read(|_| Some(garbage)).is_none(), "{garbage}");
        }
        assert!(Mark::read(|_| None).is_none());
    }

    /// The text with one digit changed.
    fn other(text: &str, at: usize) -> String {
        let digit = if &text[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &text[..at], &text[at + 1..])
    }

    #[test]
    fn only_addresses_near_are_announced_and_taken() {
        let near = |listening: &str| {
            let listening = listening.parse().unwrap();
            announcement(&KEYS, listening, Reach::of(Some(listening))).unwrap()
        };
        for public in ["8.8.8.8:1", "[2001:4860::8]:1"] {
            assert!(near(public).is_none(), "{public}: others would not take it");
        }
        for fixed in ["10.0.0.1:1", "127.0.0.1:1", "[::1]:1", "[fd00::1]:1"] {
            let own = near(fixed).unwrap();
            let addresses: Vec<_> =
                own.get_addresses().iter().map(|ip| SocketAddr::new(*ip, 1)).collect();
            assert_eq!(addresses, [fixed.parse().unwrap()]);
            assert!(!own.is_addr_auto());
        }
        assert!(near("0.0.0.0:1").unwrap().is_addr_auto());
        for (text, machine, site) in [
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("192.168.0.1", false, true),
            ("fd00::1", false, true),
            ("8.8.8.8", false, false),
            ("169.254.0.1", false, false),
            ("fe80::1", false, false),
        ] {
            let ip = text.parse().unwrap();
            assert_eq!(
                (Reach::Machine.takes(ip), Reach::Site.takes(ip)),
                (machine, site),
                "{text}"
            );
        }
        assert_eq!(Reach::of(None), Reach::Site);
        // A LAN address in an announcement that this machine made to itself.
        let properties = Mark::new(&KEYS, 7).unwrap().properties();
        let ips: [IpAddr; 2] = ["10.0.0.7".parse().unwrap(), "127.0.0.9".parse().unwrap()];
        let mixed =
            ServiceInfo::new(SERVICE, "n", "h.local.", &ips[..], 7, &properties[..]).unwrap();
        assert_eq!(heard(&KEYS, mixed.clone()), ["127.0.0.9:7"]);
        let own = Some(mixed.get_fullname().to_uppercase());
        let wanted = Wanted { keys: &KEYS, reach: Reach::Machine, own };
        assert_eq!(wanted.endpoints(&mixed.as_resolved_service()), [], "one's own");
    }

    #[test]
    fn what_is_heard_is_bounded_and_the_latest_stays() {
        let mut heard = Heard::default();
        let endpoint = |n: u16| Endpoint::from(SocketAddr::from(([10, 0, 0, 1], n)));
        for n in 1..=1000 {
            heard.note(format!("n{n}"), vec![endpoint(n)]);
            heard.note(format!("n{n}"), vec![endpoint(n)]);
        }
        assert_eq!(heard.all().count(), MAX_HEARD);
        heard.forget("n1000");
        assert_eq!(heard.all().last(), Some(endpoint(999)));
    }

    #[test]
    fn too_much_is_noticed() {
        let figures = |name: &str, count: i64| Metrics::from([(name.to_owned(), count)]);
        assert!(!holds_too_much(&figures("cached-ptr", MAX_RECORDS)));
        assert!(holds_too_much(&figures("cached-txt", MAX_RECORDS + 1)));
        assert!(holds_too_much(&figures("timer", MAX_TIMERS + 1)));
        assert!(!holds_too_much(&figures("respond", i64::MAX)));
    }
}
