//! A TCP allocation at a TURN server (RFC 8656, RFC 6062): what to ask, and what the server's messages mean.
//!
//! Contract: no I/O and no clock; time is that which has passed since the control connection was made. The
//! caller hands in every message and every due time, and sends what comes out, in order. An error ends the
//! connection; a new one begins with a new allocation.
//!
//! - Nothing is believed that is not proven with the account's password, but for errors and for connections
//!   that come in, which RFC 6062 leaves unproven: what comes in proves itself to whoever takes it.
//! - Bounds: requests under way (16 dials, 16 permissions, one of each other kind), each with its time; three
//!   tries against ever new nonces; 256 permitted addresses; 64 connections that come in, and 16 a second
//!   beyond those; messages that mean nothing, 1,000 between two answers.
//! - An answer that nobody waits for, of another method or another request, means nothing.
//!
//! Tested by: `super::tests`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use stun_codec::MessageClass;

use super::binding::Binding;
use super::codec::{self, Challenge, Id, Method, Received};
use super::fault::Fault;
use crate::config::RelayServer;
use crate::error::FailureKind;

/// Maximum number of addresses that may connect to the relayed one.
pub(super) const MAX_PERMITTED: usize = 256;
/// Maximum number of permissions that are asked for at once.
const MAX_ASKED_PERMITS: usize = 16;
/// Maximum number of dials under way.
pub(super) const MAX_DIALS: usize = 16;
/// Maximum number of times that a request is repeated for a new nonce.
const MAX_TRIES: u8 = 3;
/// Maximum number of messages without meaning between two answers.
const MAX_IGNORED: u32 = 1_000;
/// Number of connections that may come in at once, and then in each second.
const ATTEMPTS: (u32, u32) = (64, 16);

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Time for the server to dial a peer; coturn tries for 30 s.
const DIAL: Duration = Duration::from_secs(35);
/// Silence after which the server is asked whether it is there: a NAT that forgets the connection says nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Time after which a permission, of 5 min, is renewed.
const PERMIT: Duration = Duration::from_mins(4);
/// Lifetime of an allocation: less is no use, and more is not relied on.
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(20), Duration::from_hours(1));
const NEVER: Duration = Duration::MAX;

/// What the caller is to do.
#[derive(Debug)]
pub(super) enum Output {
    /// Send these bytes over the control connection.
    Send(Vec<u8>),
    /// This address is the allocation's.
    Allocated(SocketAddr),
    /// A peer has connected: take it.
    Incoming { peer: SocketAddr, binding: Binding },
    /// A dial is over.
    Dialled { call: u64, result: Result<Binding, Fault> },
}

/// Request of which an answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Allocate,
    Refresh,
    Permit(IpAddr),
    Dial { call: u64, peer: SocketAddr },
    KeepAlive,
}

impl Ask {
    fn method(self) -> Method {
        match self {
            Self::Allocate => Method::Allocate,
            Self::Refresh => Method::Refresh,
            Self::Permit(_) => Method::CreatePermission,
            Self::Dial { .. } => Method::Connect,
            Self::KeepAlive => Method::Binding,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Allocate => "for an allocation",
            Self::Refresh => "to keep the allocation",
            Self::Permit(_) => "for a permission",
            Self::Dial { .. } => "to dial",
            Self::KeepAlive => "whether it is there",
        }
    }

    fn time(self) -> Duration {
        if matches!(self, Self::Dial { .. }) { DIAL } else { ANSWER }
    }
}

#[derive(Debug)]
struct Pending {
    ask: Ask,
    due: Duration,
    tries: u8,
    is_proven: bool,
}

/// Allocation that the server has made.
#[derive(Debug)]
struct Held {
    relayed: SocketAddr,
    refresh_at: Duration,
}

#[derive(Debug)]
pub(super) struct Allocation {
    server: RelayServer,
    rng: ChaCha8Rng,
    /// Address at which the server was reached.
    reached: SocketAddr,
    /// An IPv6 address is asked for; a server that has none gives an IPv4 one.
    wants_ipv6: bool,
    challenge: Option<Challenge>,
    held: Option<Held>,
    pending: BTreeMap<Id, Pending>,
    /// Addresses that may connect, and when they are asked for again.
    permits: BTreeMap<IpAddr, Duration>,
    /// When the server was last heard.
    heard: Duration,
    ignored: u32,
    /// Number of connections that came in and were not taken, since that was asked last.
    refused: u64,
    /// Connections that may still come in, as of a time.
    attempts: (u32, Duration),
    outputs: VecDeque<Output>,
}

impl Allocation {
    /// Begins at a connection that was just made.
    ///
    /// # Errors
    /// `Local`: a request cannot be said.
    pub(super) fn new(
        server: RelayServer,
        reached: SocketAddr,
        seed: [u8; 32],
    ) -> Result<Self, Fault> {
        let mut allocation = Self {
            server,
            rng: ChaCha8Rng::from_seed(seed),
            reached,
            wants_ipv6: reached.is_ipv6(),
            challenge: None,
            held: None,
            pending: BTreeMap::new(),
            permits: BTreeMap::new(),
            heard: Duration::ZERO,
            ignored: 0,
            refused: 0,
            attempts: (ATTEMPTS.0, Duration::ZERO),
            outputs: VecDeque::new(),
        };
        allocation.ask(Duration::ZERO, Ask::Allocate, 0)?;
        Ok(allocation)
    }

    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Number of connections that came in and were not taken, since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Sets who may connect, beside those that dial from the server itself.
    ///
    /// # Errors
    /// `Local`.
    pub(super) fn permit(
        &mut self,
        now: Duration,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), Fault> {
        let Some(Held { relayed, .. }) = self.held else { return Ok(()) };
        let family = |ip: &IpAddr| ip.is_ipv4() == relayed.is_ipv4();
        let own = [relayed.ip(), self.reached.ip()];
        let wanted = own.into_iter().chain(addresses.iter().map(IpAddr::to_canonical));
        let mut permits = BTreeMap::new();
        for ip in wanted.filter(family) {
            if permits.len() < MAX_PERMITTED {
                permits.insert(ip, self.permits.get(&ip).copied().unwrap_or(now));
            }
        }
        self.permits = permits;
        self.ask_permits(now)
    }

    /// Has the server dial a peer, from the relayed address.
    ///
    /// # Errors
    /// `Local`.
    pub(super) fn dial(&mut self, now: Duration, call: u64, peer: SocketAddr) -> Result<(), Fault> {
        let dials = self.pending.values().filter(|p| matches!(p.ask, Ask::Dial { .. })).count();
        let refused = match self.held {
            None => Some(Fault::new(FailureKind::Unreachable, "the relay is not in use")),
            Some(_) if dials >= MAX_DIALS => {
                let why = format!("{MAX_DIALS} dials by way of the relay are under way");
                Some(Fault::new(FailureKind::Refused, why))
            }
            Some(_) => None,
        };
        match refused {
            Some(fault) => self.outputs.push_back(Output::Dialled { call, result: Err(fault) }),
            None => self.ask(now, Ask::Dial { call, peer }, 0)?,
        }
        Ok(())
    }

    /// Time at which [`Allocation::on_time`] is next due.
    pub(super) fn next_due(&self) -> Duration {
        let answers = self.pending.values().map(|pending| pending.due);
        let held = self.held.as_ref().map(|held| {
            let alive = if self.is_asked(Ask::KeepAlive) { NEVER } else { self.heard + KEEP_ALIVE };
            let permits = if self.asked_permits() < MAX_ASKED_PERMITS {
                self.permits.values().min().copied().unwrap_or(NEVER)
            } else {
                NEVER
            };
            held.refresh_at.min(alive).min(permits)
        });
        answers.chain(held).min().unwrap_or(NEVER)
    }

    /// Does what is due.
    ///
    /// # Errors
    /// `Timeout`: the server does not answer.
    pub(super) fn on_time(&mut self, now: Duration) -> Result<(), Fault> {
        let late: Vec<Id> =
            self.pending.iter().filter(|(_, p)| p.due <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(Pending { ask, .. }) = self.pending.remove(&id) else { continue };
            let why = format!("the relay was asked {} and did not answer", ask.words());
            let fault = Fault::new(FailureKind::Timeout, why);
            match ask {
                Ask::Dial { call, .. } => {
                    self.outputs.push_back(Output::Dialled { call, result: Err(fault) });
                }
                _ => return Err(fault),
            }
        }
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.refresh_at <= now {
            held.refresh_at = NEVER;
            self.ask(now, Ask::Refresh, 0)?;
        }
        if self.heard + KEEP_ALIVE <= now && !self.is_asked(Ask::KeepAlive) {
            self.ask(now, Ask::KeepAlive, 0)?;
        }
        self.ask_permits(now)
    }

    /// Takes a whole message of the server.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn on_message(&mut self, now: Duration, bytes: &[u8]) -> Result<(), Fault> {
        let received = codec::decode(bytes)?;
        self.heard = now;
        match received.class {
            // Coturn sends indications, as RFC 6062 has it; others send requests.
            MessageClass::Indication | MessageClass::Request => self.on_attempt(now, &received),
            MessageClass::SuccessResponse | MessageClass::ErrorResponse => {
                let asked = self.pending.get(&received.id).map(|pending| pending.ask.method());
                if asked.is_none() || asked != received.method {
                    return self.ignore();
                }
                let Some(pending) = self.pending.remove(&received.id) else { return Ok(()) };
                self.ignored = 0;
                match received.class {
                    MessageClass::ErrorResponse => self.on_error(now, &pending, &received),
                    _ if pending.ask == Ask::KeepAlive => Ok(()),
                    _ => self.on_success(now, &pending, &received),
                }
            }
        }
    }

    fn on_attempt(&mut self, now: Duration, received: &Received) -> Result<(), Fault> {
        let (Some(Method::ConnectionAttempt), Some(peer), Some(connection)) =
            (received.method, received.peer, received.connection)
        else {
            return self.ignore();
        };
        let is_permitted = self.permits.contains_key(&peer.ip());
        match self.challenge.clone() {
            Some(challenge) if is_permitted && self.admits(now) => {
                let binding = self.binding(challenge, connection);
                self.outputs.push_back(Output::Incoming { peer, binding });
                Ok(())
            }
            _ => {
                self.refused += 1;
                self.ignore()
            }
        }
    }

    /// Takes a place among the connections that may come in now.
    fn admits(&mut self, now: Duration) -> bool {
        let (left, since) = self.attempts;
        let seconds = u32::try_from(now.saturating_sub(since).as_secs()).unwrap_or(u32::MAX);
        let since = if seconds > 0 { now } else { since };
        let left = seconds.saturating_mul(ATTEMPTS.1).saturating_add(left).min(ATTEMPTS.0);
        self.attempts = (left.saturating_sub(1), since);
        left > 0
    }

    fn on_success(
        &mut self,
        now: Duration,
        pending: &Pending,
        received: &Received,
    ) -> Result<(), Fault> {
        let Some(challenge) = self.challenge.clone().filter(|_| pending.is_proven) else {
            let why = "the relay asks for no account, so nothing proves that it is the one";
            return Err(Fault::lasting(FailureKind::Identity, why));
        };
        if !received.is_proven(&self.server, &challenge) {
            let why = "an answer of the relay is not proven with the account's password";
            return Err(Fault::new(FailureKind::Identity, why));
        }
        match pending.ask {
            Ask::Allocate => self.on_allocated(now, received)?,
            Ask::Refresh => {
                let lifetime = received.lifetime;
                let refresh_at = next_refresh(now, lifetime)?;
                if let Some(held) = &mut self.held {
                    held.refresh_at = refresh_at;
                }
            }
            Ask::Permit(ip) => self.permitted(now, ip),
            Ask::Dial { call, .. } => {
                let result = match received.connection {
                    Some(connection) => Ok(self.binding(challenge, connection)),
                    None => Err(incomplete()),
                };
                self.outputs.push_back(Output::Dialled { call, result });
            }
            Ask::KeepAlive => {}
        }
        self.ask_permits(now)
    }

    fn on_allocated(&mut self, now: Duration, received: &Received) -> Result<(), Fault> {
        let relayed = received.relayed.ok_or_else(incomplete)?;
        if relayed.ip().is_unspecified() || relayed.ip().is_multicast() || relayed.port() == 0 {
            let why = format!("the relay gives {relayed}, which is no address");
            return Err(Fault::new(FailureKind::Malformed, why));
        }
        let refresh_at = next_refresh(now, received.lifetime)?;
        self.held = Some(Held { relayed, refresh_at });
        self.outputs.push_back(Output::Allocated(relayed));
        Ok(())
    }

    fn on_error(
        &mut self,
        now: Duration,
        pending: &Pending,
        received: &Received,
    ) -> Result<(), Fault> {
        let ask = pending.ask;
        let code = received.error.as_ref().map_or(0, |(code, _)| *code);
        let fault = || Fault::answered(ask.words(), received.error.as_ref());
        match (code, ask) {
            // Whatever it says, the server is there.
            (_, Ask::KeepAlive) => Ok(()),
            (401 | 438, _) => self.on_challenge(now, pending, received, code),
            (437, Ask::Allocate) => {
                let why = "the relay still has an allocation of this connection's addresses (437)";
                Err(Fault::new(FailureKind::Refused, why))
            }
            (437, _) => {
                Err(Fault::new(FailureKind::Closed, "the relay dropped the allocation (437)"))
            }
            (440, Ask::Allocate) if self.wants_ipv6 => {
                self.wants_ipv6 = false;
                self.ask(now, ask, pending.tries)
            }
            (442, Ask::Allocate) => {
                let why = "the relay makes no TCP allocations (442): it must speak RFC 6062";
                Err(Fault::lasting(FailureKind::Unsupported, why))
            }
            (300, Ask::Allocate) => {
                let why = "the relay sends its clients to another one (300): name that one";
                Err(Fault::lasting(FailureKind::Unsupported, why))
            }
            (_, Ask::Allocate | Ask::Refresh) => Err(fault()),
            (_, Ask::Permit(ip)) => {
                tracing::debug!(
                    target: super::TARGET, relay = %self.server, %ip, reason = %fault().why, "not permitted"
                );
                self.permitted(now, ip);
                self.ask_permits(now)
            }
            (_, Ask::Dial { call, peer }) => {
                let Fault { kind, why, .. } = fault();
                // 446 and 447: what the server found, or did not, at that address.
                let kind = if matches!(code, 446 | 447) { FailureKind::Unreachable } else { kind };
                let result = Err(Fault::new(kind, format!("{peer}: {why}")));
                self.outputs.push_back(Output::Dialled { call, result });
                Ok(())
            }
        }
    }

    fn on_challenge(
        &mut self,
        now: Duration,
        pending: &Pending,
        received: &Received,
        code: u16,
    ) -> Result<(), Fault> {
        let is_same = self.challenge.as_ref().is_some_and(|challenge| challenge.is_of(received));
        if code == 401 && pending.is_proven && is_same {
            let why = "the relay does not take the user and the password (401)";
            return Err(Fault::lasting(FailureKind::Refused, why));
        }
        if !Challenge::learn(&mut self.challenge, received) {
            return Err(incomplete());
        }
        if pending.tries >= MAX_TRIES {
            let why = format!("the relay takes none of the nonces that it gives ({code})");
            return Err(Fault::new(FailureKind::Protocol, why));
        }
        self.ask(now, pending.ask, pending.tries + 1)
    }

    /// Counts a message that means nothing.
    fn ignore(&mut self) -> Result<(), Fault> {
        self.ignored += 1;
        if self.ignored <= MAX_IGNORED {
            return Ok(());
        }
        let why = format!("the relay sent {MAX_IGNORED} messages that nobody asked for");
        Err(Fault::new(FailureKind::Protocol, why))
    }

    fn ask(&mut self, now: Duration, ask: Ask, tries: u8) -> Result<(), Fault> {
        let mut id = Id::default();
        self.rng.fill_bytes(&mut id);
        let attributes = match ask {
            Ask::Allocate if self.wants_ipv6 => vec![codec::over_tcp(), codec::of_ipv6()],
            Ask::Allocate => vec![codec::over_tcp()],
            Ask::Permit(ip) => vec![codec::peer(SocketAddr::new(ip, 0))],
            Ask::Dial { peer, .. } => vec![codec::peer(peer)],
            Ask::Refresh | Ask::KeepAlive => Vec::new(),
        };
        let challenge = self.challenge.as_ref().filter(|_| ask != Ask::KeepAlive);
        let bytes = codec::request(ask.method(), id, attributes, &self.server, challenge)?;
        let is_proven = challenge.is_some();
        self.pending.insert(id, Pending { ask, due: now + ask.time(), tries, is_proven });
        self.outputs.push_back(Output::Send(bytes));
        Ok(())
    }

    fn ask_permits(&mut self, now: Duration) -> Result<(), Fault> {
        let room = MAX_ASKED_PERMITS.saturating_sub(self.asked_permits());
        let due = self.permits.iter().filter(|(_, at)| **at <= now).map(|(ip, _)| *ip);
        for ip in due.take(room).collect::<Vec<_>>() {
            self.permits.insert(ip, NEVER);
            self.ask(now, Ask::Permit(ip), 0)?;
        }
        Ok(())
    }

    /// Notes when a permission, given or refused, is asked for again.
    fn permitted(&mut self, now: Duration, ip: IpAddr) {
        if let Some(at) = self.permits.get_mut(&ip) {
            *at = now + PERMIT;
        }
    }

    fn asked_permits(&self) -> usize {
        self.pending.values().filter(|pending| matches!(pending.ask, Ask::Permit(_))).count()
    }

    fn is_asked(&self, ask: Ask) -> bool {
        self.pending.values().any(|pending| pending.ask == ask)
    }

    fn binding(&mut self, challenge: Challenge, connection: u32) -> Binding {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        Binding::new(self.server.clone(), challenge, connection, seed)
    }
}

fn incomplete() -> Fault {
    Fault::new(FailureKind::Malformed, "an answer of the relay lacks what it is for")
}

/// Time at which an allocation of this lifetime is renewed: halfway.
fn next_refresh(now: Duration, lifetime: Option<Duration>) -> Result<Duration, Fault> {
    let (least, most) = LIFETIMES;
    match lifetime {
        Some(lifetime) if lifetime >= least => Ok(now + lifetime.min(most) / 2),
        Some(lifetime) => {
            let why = format!("the relay keeps an allocation for {lifetime:?} only");
            Err(Fault::new(FailureKind::Malformed, why))
        }
        None => Err(incomplete()),
    }
}
