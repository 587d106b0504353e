//! Mapping for one interface: found in one of three ways, renewed in the same way, and removed.
//!
//! Contract: a slot has one mapping at most. The way in which a router was asked last stays known until it
//! refused, so that a removal reaches what a question made whose answer was not waited for. No future of a slot
//! has to be polled to its end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::ask::{Granted, MapError};
use super::upnp::{Search, Service};
use super::{LEASE, Mappings, Pace, nat_pmp, pcp};
use crate::types::{AddressScope, CandidateDraft, CandidateSource, Endpoint};

/// Maximum time in which a router is looked for.
const FIND_TIME: Duration = Duration::from_secs(30);
/// Maximum delay before a router is looked for again; the first one is that of the pace.
const MAX_RETRY: Duration = Duration::from_mins(15);

/// What is asked of routers.
#[derive(Debug)]
pub(super) struct Wish {
    /// Port on which the node listens.
    pub(super) port: u16,
    /// Number by which a router knows this node again, for as long as the node runs.
    pub(super) nonce: pcp::Nonce,
    pub(super) search: SocketAddrV4,
    pub(super) pace: Pace,
}

/// Way in which a router is asked.
#[derive(Debug)]
enum Way {
    Pcp(pcp::Router),
    NatPmp(nat_pmp::Router),
    Upnp(Service),
}

impl Way {
    fn source(&self) -> CandidateSource {
        match self {
            Self::Pcp(_) => CandidateSource::Pcp,
            Self::NatPmp(_) => CandidateSource::NatPmp,
            Self::Upnp(_) => CandidateSource::Upnp,
        }
    }

    async fn map(
        &mut self,
        port: u16,
        external: Option<SocketAddrV4>,
    ) -> Result<Granted, MapError> {
        match self {
            Self::Pcp(router) => router.map(port, external, LEASE).await,
            Self::NatPmp(router) => router.map(port, external, LEASE).await,
            Self::Upnp(service) => service.map(port, external, LEASE).await,
        }
    }

    async fn remove(&self, port: u16) -> Result<(), MapError> {
        match self {
            Self::Pcp(router) => router.remove(port).await,
            Self::NatPmp(router) => router.remove(port).await,
            Self::Upnp(service) => service.remove().await,
        }
    }
}

/// Place for the mapping of one interface.
#[derive(Debug)]
pub(super) struct Slot {
    interface: Ipv4Addr,
    /// Router that is asked over PCP and NAT-PMP.
    router: Option<SocketAddrV4>,
    /// Way in which a router was asked last.
    way: Option<Way>,
    granted: Option<Granted>,
    failed: BTreeMap<&'static str, String>,
    due: Instant,
    /// Delay before the next search, should this one fail.
    retry: Duration,
}

impl Slot {
    pub(super) fn new(interface: Ipv4Addr, router: Option<SocketAddrV4>, pace: &Pace) -> Self {
        Self {
            interface,
            router,
            way: None,
            granted: None,
            failed: BTreeMap::new(),
            due: Instant::now(),
            retry: pace.retry,
        }
    }

    /// Time at which there is something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Renews the mapping, or finds a router that makes one.
    pub(super) async fn work(&mut self, wish: &Wish) {
        self.failed.clear();
        if let (Some(way), Some(granted)) = (&mut self.way, self.granted) {
            match way.map(wish.port, Some(granted.external)).await {
                Ok(granted) => return self.keep(granted, wish),
                Err(error) => tracing::info!(
                    target: super::TARGET, source = way.source().as_str(), %error,
                    "a port mapping was not renewed"
                ),
            }
            (self.way, self.granted) = (None, None);
        }
        match timeout(FIND_TIME, self.find(wish)).await {
            Ok(Some(granted)) => self.keep(granted, wish),
            Ok(None) => self.retry_later(),
            Err(_) => {
                self.failed.insert(CandidateSource::Upnp.as_str(), MapError::Silent.to_string());
                self.remove(wish.port).await;
                self.retry_later();
            }
        }
    }

    /// Removes the mapping, also one of which no answer told.
    pub(super) async fn remove(&mut self, port: u16) {
        self.granted = None;
        let Some(way) = &self.way else { return };
        if let Err(error) = way.remove(port).await {
            tracing::debug!(
                target: super::TARGET, source = way.source().as_str(), %error,
                "a port mapping was not removed"
            );
        }
        self.way = None;
    }

    /// Adds what the slot has to what is told.
    pub(super) fn report(&self, told: &mut Mappings) {
        told.failed.extend(self.failed.clone());
        let (Some(way), Some(granted)) = (&self.way, self.granted) else { return };
        let ip = *granted.external.ip();
        if is_behind_another_nat(ip) {
            let why = format!("behind another NAT: the address of the router itself is {ip}");
            told.failed.insert(way.source().as_str(), why);
            return;
        }
        let endpoint = Endpoint::from(std::net::SocketAddr::V4(granted.external));
        let draft = CandidateDraft { endpoint, source: way.source() };
        if !told.candidates.contains(&draft) {
            told.candidates.push(draft);
        }
    }

    /// Asks in one way after the other.
    async fn find(&mut self, wish: &Wish) -> Option<Granted> {
        if let Some(address) = self.router {
            let (nonce, port) = (wish.nonce, wish.port);
            let pcp = Way::Pcp(pcp::Router { address, nonce });
            for way in [pcp, Way::NatPmp(nat_pmp::Router { address })] {
                if let Some(granted) = self.attempt(way, port).await {
                    return Some(granted);
                }
            }
        }
        match self.search(wish).await {
            Ok(Some(granted)) => return Some(granted),
            Ok(None) => {}
            Err(error) => self.note(CandidateSource::Upnp, &error),
        }
        let upnp = self.failed.entry(CandidateSource::Upnp.as_str());
        upnp.or_insert_with(|| "no router answers the search".to_owned());
        None
    }

    async fn search(&mut self, wish: &Wish) -> Result<Option<Granted>, MapError> {
        let mut search = Search::begin(self.interface, wish.search).await?;
        while let Some(device) = search.next().await? {
            let services = match device.services().await {
                Ok(services) => services,
                Err(error) => {
                    self.note(CandidateSource::Upnp, &error);
                    continue;
                }
            };
            for service in services {
                if let Some(granted) = self.attempt(Way::Upnp(service), wish.port).await {
                    return Ok(Some(granted));
                }
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self, way: Way, port: u16) -> Option<Granted> {
        let way = self.way.insert(way);
        match way.map(port, None).await {
            Ok(granted) => Some(granted),
            Err(error) => {
                let source = way.source();
                self.way = None;
                self.note(source, &error);
                None
            }
        }
    }

    fn note(&mut self, source: CandidateSource, error: &MapError) {
        self.failed.insert(source.as_str(), error.to_string());
    }

    fn keep(&mut self, granted: Granted, wish: &Wish) {
        if self.granted != Some(granted) {
            let source = self.way.as_ref().map(|way| way.source().as_str());
            tracing::info!(
                target: super::TARGET, source, external = %granted.external,
                "a router maps the port"
            );
        }
        self.failed.clear();
        self.granted = Some(granted);
        self.retry = wish.pace.retry;
        // A router that forgot the mapping, or got another address, is noticed then, too.
        let half = granted.lifetime.map_or(wish.pace.latest, |lifetime| lifetime / 2);
        self.due = Instant::now() + half.clamp(wish.pace.soonest, wish.pace.latest);
    }

    fn retry_later(&mut self) {
        let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        self.due = Instant::now() + self.retry.mul_f64(random);
        self.retry = (self.retry * 2).min(MAX_RETRY);
    }
}

/// Reports whether a router with this address outside is itself behind a NAT: that of the carrier, or of
/// another router.
fn is_behind_another_nat(external: Ipv4Addr) -> bool {
    // What is left of it are the addresses of tunnels to the carrier's translator (RFC 6333, section 5.7).
    AddressScope::of(external.into()) != AddressScope::Public
        || matches!(external.octets(), [192, 0, 0, _])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_and_routers_behind_routers_are_told_apart_from_the_internet() {
        for behind in
            ["100.64.0.1", "100.127.9.9", "10.0.0.1", "192.168.1.7", "172.16.0.1", "192.0.0.2"]
        {
            assert!(is_behind_another_nat(behind.parse().unwrap()), "{behind}");
        }
        for outside in ["100.63.255.255", "100.128.0.1", "198.51.100.7", "192.0.1.1", "11.0.0.1"] {
            assert!(!is_behind_another_nat(outside.parse().unwrap()), "{outside}");
        }
    }
}
