//! Candidates: addresses that this node may have, who says so, and which of them others are told.
//!
//! | address | told |
//! |---|---|
//! | configured, or the one that the node listens at | always: the word of the host |
//! | of public scope, from whatever source | once others have dialled it |
//! | of the site (private or loopback scope), of an interface or seen by peers of the site | as long as it is there: a network of two has nobody to ask |
//! | of the site, from any other source | never: behind that is another NAT |
//! | at a relay server | always: the word of a server that the host has chosen |
//!
//! In that order, global IPv6 before IPv4, and at most [`MAX_TOLD`]. Where the host has configured what to
//! advertise, that is all, but for relays. Addresses of a family that the node does not listen for are none,
//! whoever names them, but for those two.
//!
//! Tested by: the tests below, `protocol::tests::reachability`, `sim::tests::reachability`.

use std::net::{IpAddr, SocketAddr};

use crate::types::{AddressScope, CandidateDraft, CandidateSource, Endpoint};

use super::votes::Votes;

/// Maximum number of drafts that are taken in.
const MAX_DRAFTS: usize = 64;
/// Maximum number of candidates.
pub(in crate::protocol) const MAX_PLACES: usize = 32;
/// Maximum number of endpoints that others are told.
const MAX_TOLD: usize = 8;

/// Role of a candidate: when others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Told in any case: the host has said so.
    Given,
    /// Told once it is proven.
    Public,
    /// Told unproven, to those of the site.
    Site,
    /// Told in any case: a relay server has said so.
    Relayed,
    /// Not told: of the site, and not of this node's own.
    Foreign,
    /// Not told: the host has said what is.
    Unused,
}

/// A candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    pub(super) source: CandidateSource,
    pub(super) role: Role,
    /// Number of address groups whose peers see this node there.
    pub(super) votes: u32,
    /// Address that others may be asked to dial.
    pub(super) address: Option<SocketAddr>,
}

/// Sources of candidates beside peers.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    configured: Vec<Endpoint>,
    pub(super) listening: Option<SocketAddr>,
    drafts: Vec<CandidateDraft>,
}

impl Candidates {
    pub(super) fn new(configured: &[Endpoint], listening: Option<SocketAddr>) -> Self {
        // Who must answer there is who signs.
        let configured = configured.iter().map(|endpoint| endpoint.with_pin(None)).collect();
        Self { configured, listening, drafts: Vec::new() }
    }

    /// Takes in what the sources name now, in place of what they named before.
    pub(super) fn replace(&mut self, mut drafts: Vec<CandidateDraft>) {
        drafts.truncate(MAX_DRAFTS);
        // Mappings of the listen port first: behind a NAT the port itself leads nowhere.
        drafts.sort_by_key(|draft| rank(draft.source));
        self.drafts = drafts;
    }

    /// Reports whether there is anything that others could be told.
    pub(super) fn is_empty(&self) -> bool {
        self.listening.is_none() && self.configured.is_empty() && self.drafts.is_empty()
    }

    /// Returns the candidates, each once, in the order in which they are asked about.
    pub(super) fn places(&self, votes: &Votes) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut add = |place: Place| {
            if places.len() < MAX_PLACES && places.iter().all(|p| p.endpoint != place.endpoint) {
                places.push(place);
            }
        };
        for endpoint in &self.configured {
            add(given(endpoint.clone(), CandidateSource::Configured, votes));
        }
        let concrete = self.listening.filter(|at| !at.ip().is_unspecified());
        if let Some(address) = concrete.filter(|_| self.configured.is_empty()) {
            add(given(Endpoint::from(address), CandidateSource::Listening, votes));
        }
        let is_relay = |draft: &&CandidateDraft| draft.source == CandidateSource::Relay;
        let mapped = |draft: &&CandidateDraft| rank(draft.source) == 0;
        let (first, rest): (Vec<_>, Vec<_>) = self.drafts.iter().partition(mapped);
        let drafted = |draft: &CandidateDraft| self.drafted(draft, votes);
        first.into_iter().filter_map(drafted).for_each(&mut add);
        if let Some(listening) = self.listening {
            for named in votes.named().iter().filter(|named| is_taken(listening, named.ip)) {
                let address = SocketAddr::new(named.ip, listening.port());
                let place = self.place(address, CandidateSource::Observed, votes);
                add(Place { votes: named.groups, ..place });
            }
        }
        let (relays, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_relay);
        rest.into_iter().filter_map(drafted).for_each(&mut add);
        for relay in relays {
            let (endpoint, source) = (relay.endpoint.with_pin(None), relay.source);
            add(Place { endpoint, source, role: Role::Relayed, votes: 0, address: None });
        }
        places
    }

    /// Returns the candidate that a source other than a relay names.
    fn drafted(&self, draft: &CandidateDraft, votes: &Votes) -> Option<Place> {
        use CandidateSource as S;
        let is_own = matches!(draft.source, S::Configured | S::Listening | S::Observed);
        // What stands on one address has no other of the machine's.
        let is_elsewhere = draft.source == S::Interface && !self.listens_everywhere();
        let address = draft.endpoint.socket_addr()?;
        let is_taken = self.listening.is_some_and(|listening| is_taken(listening, address.ip()));
        (!is_own && !is_elsewhere && is_taken)
            .then(|| self.place(address, draft.source, votes))
            .filter(|place| place.endpoint.scope() != AddressScope::Unusable && address.port() != 0)
    }

    fn listens_everywhere(&self) -> bool {
        self.listening.is_some_and(|at| at.ip().is_unspecified())
    }

    fn place(&self, address: SocketAddr, source: CandidateSource, votes: &Votes) -> Place {
        let endpoint = Endpoint::from(address);
        let named = votes.named().iter().find(|named| named.ip == address.ip().to_canonical());
        let is_of_site = match source {
            CandidateSource::Interface => true,
            CandidateSource::Observed => named.is_some_and(|named| named.is_seen_inside),
            _ => false,
        };
        let role = match endpoint.scope() {
            _ if !self.configured.is_empty() => Role::Unused,
            AddressScope::Public => Role::Public,
            _ if is_of_site && self.listens_everywhere() => Role::Site,
            _ => Role::Foreign,
        };
        let is_asked = matches!(role, Role::Public | Role::Site);
        let address = endpoint.socket_addr().filter(|at| is_asked && may_be_asked(at));
        Place { endpoint, source, role, votes: named.map_or(0, |named| named.groups), address }
    }
}

/// Returns the addresses of candidates that are asked about, each once, in their order.
pub(super) fn addresses(places: &[Place]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in places.iter().filter_map(|place| place.address) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Returns the endpoints that others are told, best first; `is_proven` says which addresses are.
pub(super) fn told(places: &[Place], is_proven: impl Fn(SocketAddr) -> bool) -> Vec<Endpoint> {
    let is_told = |place: &&Place| match place.role {
        Role::Given | Role::Site | Role::Relayed => true,
        Role::Public => place.address.is_some_and(&is_proven),
        Role::Foreign | Role::Unused => false,
    };
    let mut told: Vec<_> = places.iter().filter(is_told).collect();
    let is_v4 = |place: &Place| place.endpoint.socket_addr().is_some_and(|at| at.is_ipv4());
    told.sort_by_key(|place| (place.role, place.role == Role::Public && is_v4(place)));
    told.into_iter().take(MAX_TOLD).map(|place| place.endpoint.clone()).collect()
}

/// Returns the candidate that the host gives its word for. That of a name is asked about at the address
/// that peers see.
fn given(endpoint: Endpoint, source: CandidateSource, votes: &Votes) -> Place {
    let named = votes.named().first().filter(|_| endpoint.is_name());
    let at_name = named.map(|named| SocketAddr::new(named.ip, endpoint.port()));
    let address = endpoint.socket_addr().or(at_name);
    let seen = |at: SocketAddr| votes.named().iter().find(|named| named.ip == at.ip());
    let votes = address.and_then(seen).map_or(0, |named| named.groups);
    let address = address.filter(may_be_asked);
    Place { endpoint, source, role: Role::Given, votes, address }
}

/// Reports whether a socket that listens there takes connections to addresses of this family.
fn is_taken(listening: SocketAddr, ip: IpAddr) -> bool {
    // Sockets on `[::]` take both.
    let takes_both = listening.is_ipv6() && listening.ip().is_unspecified();
    takes_both || listening.ip().to_canonical().is_ipv4() == ip.to_canonical().is_ipv4()
}

/// Reports whether others can be asked to dial an address: not this machine's own, and at a port that may
/// be asked for.
fn may_be_asked(address: &SocketAddr) -> bool {
    AddressScope::of(address.ip()) >= AddressScope::Private && is_port_dialled_back(address.port())
}

/// Reports whether a node dials a port for others: not those of other services of a system.
pub(super) fn is_port_dialled_back(port: u16) -> bool {
    port >= 1024 || port == 80 || port == 443
}

/// Reports whether a source names mappings of the listening port.
pub(super) fn is_mapping(source: CandidateSource) -> bool {
    rank(source) == 0
}

fn rank(source: CandidateSource) -> u8 {
    use CandidateSource as S;
    match source {
        S::Upnp | S::NatPmp | S::Pcp | S::TcpMapping => 0,
        S::Configured | S::Listening | S::Observed => 1,
        S::Stun => 2,
        S::Http => 3,
        S::Interface => 4,
        S::Relay => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Direction, MonoTime, PeerId};

    fn draft(endpoint: &str, source: CandidateSource) -> CandidateDraft {
        CandidateDraft { endpoint: endpoint.parse().unwrap(), source }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn seen(list: &[(&str, &str)]) -> Votes {
        let mut votes = Votes::default();
        for (n, (voter, ip)) in (1..).zip(list) {
            let peer = PeerId::from_bytes([n; 32]);
            let voter = (at(voter), Direction::Outbound);
            votes.note_vote(peer, voter, ip.parse().unwrap(), MonoTime::ZERO);
        }
        votes.settle(MonoTime::ZERO);
        votes
    }

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_told_stands_in_order_and_public_addresses_only_proven() {
        use CandidateSource as S;
        let mut candidates = Candidates::new(&[], Some(at("[::]:5001")));
        candidates.replace(vec![
            draft("203.0.113.9:3478", S::Relay),
            draft("[2001:db8::1]:5001", S::Interface),
            draft("10.0.0.1:5001", S::Interface),
            draft("100.64.0.7:5001", S::Upnp),
            draft("192.0.2.1:5001", S::Stun),
            draft("192.0.2.1:7000", S::TcpMapping),
            draft("0.0.0.0:9", S::Stun),
        ]);
        let votes = seen(&[("198.51.100.1:1", "192.0.2.1"), ("10.0.0.2:1", "10.0.0.1")]);
        let places = candidates.places(&votes);
        assert_eq!(shown(&told(&places, |_| false)), ["10.0.0.1:5001", "203.0.113.9:3478"]);
        let all = ["[2001:db8::1]:5001", "192.0.2.1:7000", "192.0.2.1:5001", "10.0.0.1:5001"];
        assert_eq!(shown(&told(&places, |_| true))[..4], all);
        let asked: Vec<_> = places.iter().filter_map(|place| place.address).collect();
        assert_eq!(asked[0], at("192.0.2.1:7000"), "a mapping before the port itself");
        let of = |text: &str| places.iter().find(|p| p.endpoint.to_string() == text).unwrap();
        assert_eq!((of("192.0.2.1:5001").votes, of("192.0.2.1:5001").source), (1, S::Observed));
        assert_eq!(of("100.64.0.7:5001").role, Role::Foreign, "behind another NAT");
        // A site's address of which only peers from afar speak is none.
        let places = candidates.places(&seen(&[("198.51.100.1:1", "10.9.9.9")]));
        assert!(!shown(&told(&places, |_| true)).contains(&"10.9.9.9:5001".to_owned()));
    }

    #[test]
    fn what_the_host_says_is_told_as_it_is_and_alone() {
        use CandidateSource as S;
        let advertise = ["peer.example.com:5001".parse().unwrap(), "10.0.0.1:80".parse().unwrap()];
        let mut candidates = Candidates::new(&advertise, Some(at("0.0.0.0:5001")));
        candidates
            .replace(vec![draft("192.0.2.1:7000", S::Upnp), draft("203.0.113.9:3478", S::Relay)]);
        let votes = seen(&[("198.51.100.1:1", "192.0.2.1")]);
        let places = candidates.places(&votes);
        let told = told(&places, |_| true);
        assert_eq!(shown(&told), ["peer.example.com:5001", "10.0.0.1:80", "203.0.113.9:3478"]);
        assert_eq!(places[0].address, Some(at("192.0.2.1:5001")), "a name, where peers see it");
        let concrete = Candidates::new(&[], Some(at("127.0.0.1:5001")));
        let places = concrete.places(&seen(&[("127.0.0.1:9", "127.0.0.1")]));
        assert_eq!((places.len(), places[0].address), (1, None), "nobody else can dial that");
        assert!(Candidates::new(&[], None).places(&votes).is_empty(), "it does not listen");
    }

    #[test]
    fn a_family_that_the_node_does_not_listen_for_is_at_relays_alone() {
        use CandidateSource as S;
        let drafts = [
            draft("[fd00::5]:5001", S::Interface),
            draft("10.0.0.1:5001", S::Interface),
            draft("[2001:db8::1]:7000", S::TcpMapping),
            draft("192.0.2.1:7000", S::TcpMapping),
            draft("[2001:db8::2]:5001", S::Http),
            draft("[2001:db8::9]:3478", S::Relay),
        ];
        let votes = seen(&[("198.51.100.1:1", "192.0.2.1"), ("[2001:db9::1]:1", "2001:db8::1")]);
        let found = |listening: &str| {
            let mut candidates = Candidates::new(&[], Some(at(listening)));
            candidates.replace(drafts.to_vec());
            let places = candidates.places(&votes);
            places.into_iter().map(|place| place.endpoint.to_string()).collect::<Vec<_>>()
        };
        let v4 = ["192.0.2.1:7000", "192.0.2.1:5001", "10.0.0.1:5001", "[2001:db8::9]:3478"];
        assert_eq!(found("0.0.0.0:5001"), v4);
        assert_eq!(found("[::]:5001").len(), 8, "all, and what each vote says");
        let concrete = found("[2001:db8::5]:5001");
        assert!(concrete.iter().all(|endpoint| endpoint.starts_with('[')), "{concrete:?}");
    }

    #[test]
    fn many_drafts_stay_few() {
        let mut candidates = Candidates::new(&[], Some(at("[::]:5001")));
        let many =
            (1..200u16).map(|n| draft(&format!("192.0.2.1:{}", 2000 + n), CandidateSource::Upnp));
        candidates.replace(many.collect());
        let places = candidates.places(&Votes::default());
        assert_eq!((places.len(), told(&places, |_| true).len()), (MAX_PLACES, MAX_TOLD));
    }
}
