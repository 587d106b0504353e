//! Worker that learns which addresses this node may have.
//!
//! Contract: it looks at the network interfaces every 15 s, and asks whom the host named: at the start, after
//! `nat.interval`, and soon when the interfaces changed, the last link was lost, or one is there again. What it learns are
//! candidates, which the protocol has proven by other nodes; the whole list is told each time it changes. What
//! was learned stays while nothing newer is: an answer for `nat.interval`, the mapping of the listening port
//! for each family until two questions in a row were without an answer. Nobody outside is asked whom the host
//! has not named. Every question may be dropped at any time.
//!
//! Tested by: the tests below, `tests/node/reachability.rs`.

mod holders;
mod outside;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::error::ProbeError;
use crate::protocol::Input;
use crate::types::{CandidateDraft, CandidateSource, Endpoint, Event, NatBehaviour};

use super::messages::{Completion, NodeState};

#[cfg_attr(not(feature = "turn"), allow(unused_imports))]
pub(super) use holders::Relay;
pub(super) use holders::{RelayDrops, Relays};
pub(super) use outside::{Outside, Tasks};

/// Interval at which the interfaces are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Minimum time between two rounds of questions, and from one without an answer to the next; that doubles.
const MIN_PAUSE: Duration = Duration::from_secs(5);
/// Time after which the mapping of the listening port is asked for again: NATs forget mappings over which
/// nothing goes out, some after two minutes.
const MAPPING_INTERVAL: Duration = Duration::from_mins(1);
/// Number of questions in a row without an answer after which that mapping counts as gone.
const MAX_UNANSWERED: u32 = 2;
/// Maximum number of candidates that the protocol is told.
const MAX_CANDIDATES: usize = 32;

/// Families of addresses, in the order of what is told of each.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Mapping of the listening port for each family, or why none is known; `None` where there is nobody to ask.
type Mapped = [Option<Result<SocketAddr, ProbeError>>; FAMILIES.len()];

/// Answers of one round of questions.
#[derive(Debug, Clone, Default, PartialEq)]
struct Answers {
    candidates: Vec<CandidateDraft>,
    /// Addresses that were seen, each with the name of who saw it.
    seen: Vec<(String, SocketAddr)>,
    /// Whether there is a STUN server to ask about IPv4, and about IPv6.
    asked: [bool; 2],
    /// Reasons, by the name of who found nothing.
    failed: BTreeMap<String, String>,
}

/// Candidates that somebody holds open for this node, for as long as the node runs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    candidates: Vec<CandidateDraft>,
    failed: BTreeMap<String, String>,
}

/// Questions about the node's addresses.
trait Ask: Send + Sync + 'static {
    /// IP addresses of the interfaces at which the node listens, best first.
    fn interfaces(&self) -> Vec<IpAddr>;

    /// Reports whether there is anybody to be asked.
    fn has_servers(&self) -> bool;

    /// Asks all of them.
    fn ask(self: Arc<Self>) -> BoxFuture<'static, Answers>;

    /// Asks how the NAT behaves, for each family of addresses that there are STUN servers for.
    fn behaviours(self: Arc<Self>, answers: &Answers) -> BoxFuture<'static, Vec<NatBehaviour>>;

    /// Reports whether there is anybody to be asked for the mapping of the listening port.
    fn has_mapping(&self) -> bool;

    /// Asks for that.
    fn mapping(self: Arc<Self>) -> BoxFuture<'static, Mapped>;
}

/// What is held open for the node.
trait Hold: Send + 'static {
    fn held(&mut self) -> Held;

    /// Waits for a change; for ever where nothing is held. Cancel safe.
    fn changed(&mut self) -> BoxFuture<'_, ()>;
}

/// What a report tells that the protocol does not know.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::node) struct Learned {
    pub(in crate::node) nat: Vec<NatBehaviour>,
    pub(in crate::node) failed: BTreeMap<String, String>,
}

/// Times of questions of one kind.
#[derive(Debug)]
struct Schedule {
    interval: Duration,
    next: Instant,
    /// Number of rounds without an answer since the last one with one.
    unanswered: u32,
    last: Option<Instant>,
}

impl Schedule {
    fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now(), unanswered: 0, last: None }
    }

    /// Has the next round begin as soon as it may.
    fn soon(&mut self) {
        let earliest = self.last.map(|last| last + MIN_PAUSE);
        self.next = earliest.unwrap_or_else(Instant::now);
    }

    fn begin(&mut self) {
        self.last = Some(Instant::now());
    }

    fn end(&mut self, is_answered: bool) {
        let doubled = MIN_PAUSE.saturating_mul(1 << self.unanswered.min(16));
        self.unanswered = if is_answered { 0 } else { self.unanswered.saturating_add(1) };
        let pause = if is_answered { self.interval } else { doubled.min(self.interval) };
        self.next = Instant::now() + pause;
    }
}

/// Mapping of the listening port for one family.
#[derive(Debug, Clone, Copy, Default)]
struct PortMapping {
    address: Option<SocketAddr>,
    /// Number of questions without an answer since the last one with one.
    unanswered: u32,
}

impl PortMapping {
    fn take(&mut self, answer: Option<SocketAddr>) {
        if answer.is_some() {
            *self = Self { address: answer, unanswered: 0 };
            return;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= MAX_UNANSWERED {
            self.address = None;
        }
    }
}

/// The worker. Everything ends when its future is dropped.
pub(super) struct Worker {
    ask: Arc<dyn Ask>,
    hold: Box<dyn Hold>,
    /// Whom relay servers let through, where there are any.
    permitted: Option<watch::Sender<BTreeSet<IpAddr>>>,
    /// Socket address at which the node listens.
    listening: Option<SocketAddr>,
    state: watch::Receiver<NodeState>,
    events: broadcast::Sender<Event>,
    done: mpsc::Sender<Completion>,
    learned: watch::Sender<Learned>,
    answers_due: Schedule,
    mapping_due: Schedule,
    was_linked: bool,
    /// True: the last link was lost, and none has come since.
    is_back_awaited: bool,
    interfaces: Vec<IpAddr>,
    /// The latest answers, and the time until which they are believed.
    answers: Answers,
    believed_until: Option<Instant>,
    nat: Vec<NatBehaviour>,
    mappings: [PortMapping; FAMILIES.len()],
    mapping_failed: Option<String>,
    /// Addresses that the host was told last, by who saw them, and whether they are of IPv4.
    shown: BTreeMap<(String, bool), IpAddr>,
    /// Candidates that the protocol was told last, and those of them that somebody holds open.
    told: Vec<CandidateDraft>,
    held: Vec<CandidateDraft>,
    /// Events for the host, once the protocol knows of the candidates.
    news: Vec<Event>,
}

/// Ways of a worker to the rest of the node.
pub(super) struct Ways {
    pub(super) state: watch::Receiver<NodeState>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) done: mpsc::Sender<Completion>,
    pub(super) learned: watch::Sender<Learned>,
}

impl Worker {
    fn new(
        ask: Arc<dyn Ask>,
        hold: Box<dyn Hold>,
        permitted: Option<watch::Sender<BTreeSet<IpAddr>>>,
        listening: Option<SocketAddr>,
        interval: Duration,
        ways: Ways,
    ) -> Self {
        let Ways { state, events, done, learned } = ways;
        Self {
            ask,
            hold,
            permitted,
            listening,
            state,
            events,
            done,
            learned,
            answers_due: Schedule::new(interval),
            mapping_due: Schedule::new(MAPPING_INTERVAL),
            was_linked: false,
            is_back_awaited: false,
            interfaces: Vec::new(),
            answers: Answers::default(),
            believed_until: None,
            nat: Vec::new(),
            mappings: Default::default(),
            mapping_failed: None,
            shown: BTreeMap::new(),
            told: Vec::new(),
            held: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Runs until the node ends.
    pub(super) async fn run(mut self) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.interfaces = self.ask.interfaces();
        let mut asking = Fuse::<BoxFuture<'static, Answers>>::terminated();
        let mut mapping = Fuse::<BoxFuture<'static, Mapped>>::terminated();
        // It takes longest, and nothing waits for it.
        let mut classifying = Fuse::<BoxFuture<'static, Vec<NatBehaviour>>>::terminated();
        loop {
            let (may_ask, may_map) = (asking.is_terminated(), mapping.is_terminated());
            let mut is_stale = false;
            tokio::select! {
                _ = looks.tick() => {
                    is_stale = self.have_interfaces_changed();
                    self.permit().await;
                }
                Ok(()) = self.state.changed() => {
                    is_stale = self.note_links();
                    self.permit().await;
                }
                () = self.hold.changed() => {}
                answers = &mut asking => {
                    classifying = Arc::clone(&self.ask).behaviours(&answers).fuse();
                    self.take(answers);
                }
                nat = &mut classifying => self.nat = nat,
                mapped = &mut mapping => self.take_mapping(&mapped),
                () = sleep_until(self.answers_due.next), if may_ask && self.ask.has_servers() => {
                    self.answers_due.begin();
                    asking = Arc::clone(&self.ask).ask().fuse();
                }
                () = sleep_until(self.mapping_due.next), if may_map && self.ask.has_mapping() => {
                    self.mapping_due.begin();
                    mapping = Arc::clone(&self.ask).mapping().fuse();
                }
            }
            if is_stale {
                // What is under way would answer for what was.
                (asking, mapping) = (Fuse::terminated(), Fuse::terminated());
                classifying = Fuse::terminated();
                self.answers_due.soon();
                self.mapping_due.soon();
            }
            self.tell().await;
        }
    }

    /// Has relay servers let through whom the node knows.
    async fn permit(&mut self) {
        let Some(permitted) = &self.permitted else { return };
        let (reply, known) = oneshot::channel();
        if self.done.send(Completion::KnownAddresses { reply }).await.is_err() {
            return;
        }
        if let Ok(known) = known.await {
            permitted.send_if_modified(|old| {
                let is_new = *old != known;
                *old = known;
                is_new
            });
        }
    }

    /// Looks at the number of links. Reports whether the last one has gone.
    fn note_links(&mut self) -> bool {
        let is_linked = self.state.borrow_and_update().links > 0;
        let was_linked = std::mem::replace(&mut self.was_linked, is_linked);
        let has_lost = was_linked && !is_linked;
        if has_lost {
            self.have_interfaces_changed();
        } else if is_linked && std::mem::take(&mut self.is_back_awaited) {
            // Who did not answer while the node was cut off does now.
            self.answers_due.soon();
            self.mapping_due.soon();
        }
        self.is_back_awaited |= has_lost;
        has_lost
    }

    fn have_interfaces_changed(&mut self) -> bool {
        let found = self.ask.interfaces();
        if found == self.interfaces {
            return false;
        }
        let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        // Their order may change with a metric, which changes nothing outside.
        let is_change = set(&found) != set(&self.interfaces);
        if is_change {
            tracing::info!(target: "sorcha_peer::nat", addresses = ?found, "interfaces changed");
        }
        self.interfaces = found;
        is_change
    }

    fn take(&mut self, answers: Answers) {
        let is_answered = !answers.seen.is_empty();
        self.answers_due.end(is_answered);
        for (prober, address) in &answers.seen {
            let by = (prober.clone(), address.is_ipv4());
            if self.shown.insert(by, address.ip()) != Some(address.ip()) {
                tracing::info!(target: "sorcha_peer::nat", %prober, %address, "address observed");
                let (address, prober) = (address.to_string(), prober.clone());
                self.news.push(Event::AddressObserved { address, prober });
            }
        }
        for (prober, reason) in &answers.failed {
            if self.answers.failed.get(prober) != Some(reason) {
                tracing::warn!(target: "sorcha_peer::nat", %prober, %reason, "probe failed");
            }
        }
        if is_answered {
            self.believed_until = Some(Instant::now() + self.answers_due.interval);
            self.answers = answers;
        } else {
            if self.believed_until.is_none_or(|until| until <= Instant::now()) {
                self.answers = Answers::default();
            }
            self.answers.failed = answers.failed;
        }
    }

    fn take_mapping(&mut self, mapped: &Mapped) {
        let answers = mapped.each_ref().map(|answer| answer.as_ref()?.as_ref().ok().copied());
        // One that was there is asked for again soon, whatever the other family says.
        let mut both = self.mappings.iter().zip(answers);
        let is_missed = both.any(|(known, answer)| known.address.is_some() && answer.is_none());
        self.mapping_due.end(!is_missed && answers.iter().any(Option::is_some));
        for (known, answer) in self.mappings.iter_mut().zip(answers) {
            known.take(answer);
        }
        let failed = FAMILIES.iter().zip(mapped).filter_map(|(family, answer)| {
            let error = answer.as_ref()?.as_ref().err()?;
            Some(format!("{family}: {error}"))
        });
        let failed = failed.collect::<Vec<_>>().join("; ");
        let nobody = "no server has an address that the listening port has a way to";
        self.mapping_failed = match failed.is_empty() {
            true if mapped.iter().all(Option::is_none) => Some(nobody.to_owned()),
            true => None,
            false => Some(failed),
        };
    }

    /// Tells what is new.
    async fn tell(&mut self) {
        let held = self.hold.held();
        let candidates = self.candidates(&held);
        for candidate in held.candidates.iter().filter(|held| !self.held.contains(held)) {
            let (address, prober) = (candidate.endpoint.to_string(), candidate.source.as_str());
            tracing::info!(target: "sorcha_peer::nat", prober, %address, "address held open");
            self.news.push(Event::AddressObserved { address, prober: prober.to_owned() });
        }
        self.held.clone_from(&held.candidates);
        let mut failed = self.answers.failed.clone();
        failed.extend(held.failed);
        let mapping = CandidateSource::TcpMapping.as_str().to_owned();
        failed.extend(self.mapping_failed.clone().map(|why| (mapping, why)));
        let learned = Learned { nat: self.nat.clone(), failed };
        self.learned.send_if_modified(|known| {
            let is_new = *known != learned;
            *known = learned;
            is_new
        });
        if candidates != self.told {
            self.told.clone_from(&candidates);
            let input = Input::Candidates(candidates);
            let _ = self.done.send(Completion::Inputs(vec![input])).await;
        }
        for event in self.news.drain(..) {
            // Nobody listening is no failure.
            let _ = self.events.send(event);
        }
    }

    fn candidates(&self, held: &Held) -> Vec<CandidateDraft> {
        let Some(listening) = self.listening else { return held.candidates.clone() };
        let own = self.interfaces.iter().filter(|ip| takes(listening.ip(), **ip));
        let own = own.map(|ip| draft((*ip, listening.port()).into(), CandidateSource::Interface));
        let mapped = self.mappings.iter().filter_map(|mapping| mapping.address);
        let mapped = mapped.map(|at| draft(at, CandidateSource::TcpMapping));
        let all = own
            .chain(mapped)
            .chain(held.candidates.iter().cloned())
            .chain(self.answers.candidates.iter().cloned());
        let mut named = BTreeSet::new();
        all.filter(|candidate| named.insert(candidate.clone())).take(MAX_CANDIDATES).collect()
    }
}

fn draft(address: SocketAddr, source: CandidateSource) -> CandidateDraft {
    CandidateDraft { endpoint: Endpoint::from(address), source }
}

/// Reason of a failure, without the name of who failed in front.
fn reason(name: &str, error: &ProbeError) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(&text).to_owned()
}

/// Reports whether a socket that listens at `listening` takes what is sent to an interface's address.
fn takes(listening: IpAddr, address: IpAddr) -> bool {
    match listening {
        // Sockets on `[::]` take both families.
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        // That is a candidate by itself.
        _ => false,
    }
}
