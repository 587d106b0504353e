//! Whether others can dial this node, where, and what is known of the way to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Endpoint, WallTime};

/// Whether others can dial this node.
///
/// Other nodes answer this, not the node itself: each of several peers has a third node dial an address, one
/// that has no link with this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", content = "endpoint", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reachability {
    /// Not known: nobody was asked, too few peers take part, or their answers differ.
    #[default]
    Unknown,
    /// Others cannot dial this node. It takes part fully by the links that it dials.
    Private,
    /// Others can dial this node, here.
    Public(Endpoint),
}

impl Reachability {
    /// Name of the state, as in serde.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Private => "private",
            Self::Public(_) => "public",
        }
    }

    /// Returns the endpoint at which others can dial this node, where there is one.
    pub const fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Public(endpoint) => Some(endpoint),
            Self::Unknown | Self::Private => None,
        }
    }
}

/// What a node knows of the ways by which others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReachabilityReport {
    /// Whether others can dial the node, and where.
    #[serde(flatten)]
    pub state: Reachability,
    /// Time until which that counts; it is asked again before. `None` where the state is unknown, or the
    /// node does not listen.
    #[serde(rename = "until_ms")]
    pub until: Option<WallTime>,
    /// Addresses at which the node listens, as `ip:port`.
    pub listening: Vec<String>,
    /// Addresses in the node's own record, best first: others dial these, and no other.
    pub advertised: Vec<String>,
    /// Addresses that the node may have, best first, with who says so and what becomes of each.
    pub candidates: Vec<Candidate>,
    /// Behaviour of the NAT between the node and the servers that were asked: one for each family of
    /// addresses that was asked about.
    pub nat: Vec<NatBehaviour>,
    /// Probers that found nothing, each with the reason.
    pub failed: BTreeMap<String, String>,
}

/// Address that a node may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Candidate {
    /// The address, as an endpoint.
    pub endpoint: String,
    /// Source that names it, one of:
    ///
    /// | source | meaning |
    /// |---|---|
    /// | `configured` | the host's setting `listen.advertise` |
    /// | `listening` | the address that the node listens at |
    /// | `interface` | an address of a network interface, with the listen port |
    /// | `observed` | from where peers see the node come, or where they dialled it, with the listen port |
    /// | `stun`, `http` | the answer of a server that was asked, with the listen port |
    /// | `tcp-mapping` | the mapping of the listen port itself, as a server sees it over TCP |
    /// | `upnp`, `nat-pmp`, `pcp` | a mapping that the router made for the node |
    /// | `relay` | an address at a relay server that listens for the node |
    pub source: String,
    /// Number of address groups whose peers see the node at its IP address.
    pub votes: u32,
    /// What becomes of it, one of:
    ///
    /// | state | meaning |
    /// |---|---|
    /// | `proven` | others can dial it: in the record |
    /// | `advertised` | in the record without proof |
    /// | `waiting` | not proven yet, and not in the record |
    /// | `not-reached` | others cannot dial it: not in the record, unless the host says so |
    /// | `private` | of a site, and not the node's own: behind another NAT |
    /// | `unused` | the host has configured what others are told |
    pub state: String,
    /// The reason, in one sentence for people.
    pub why: String,
}

/// What the mapping or the filter of a NAT depends on, in the terms of RFC 4787.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NatDependence {
    /// Not known: it was not tested, or could not be.
    #[default]
    NotTested,
    /// No NAT: the address is the node's own, and nothing is filtered.
    NoNat,
    /// On nothing: one mapping serves all remote addresses, or anybody may send to it.
    EndpointIndependent,
    /// On the remote IP address.
    AddressDependent,
    /// On the remote IP address and port.
    AddressAndPortDependent,
    /// Nothing comes through at all.
    Blocked,
}

impl NatDependence {
    /// Name of the dependence, as in serde.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotTested => "not-tested",
            Self::NoNat => "no-nat",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Blocked => "blocked",
        }
    }
}

/// Behaviour of the NAT between a node and the servers that were asked, for UDP (RFC 5780).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NatBehaviour {
    /// Family of addresses: `ipv4` or `ipv6`.
    pub family: String,
    /// What the mapped address depends on.
    pub mapping: NatDependence,
    /// What decides who may send to a mapped address.
    pub filtering: NatDependence,
    /// True: the node reaches its own mapped address.
    pub hairpinning: Option<bool>,
    /// True: the mapped port is the local one.
    pub preserves_port: Option<bool>,
    /// Mapped addresses that servers told, as `ip:port`, each once.
    pub mapped: Vec<String>,
    /// Confidence in the answer, in percent: less where fewer servers agree or a test could not be made.
    pub confidence: u8,
    /// What could not be tested, and why, in sentences for people.
    pub notes: Vec<String>,
}

impl NatBehaviour {
    /// Classic name (RFC 3489): `open`, `full cone`, `restricted`, `port-restricted`, `symmetric`,
    /// `blocked` or `unknown`. Where no NAT is in the way, the two names in the middle tell of a firewall.
    pub fn name(&self) -> &'static str {
        use NatDependence as D;
        match (self.mapping, self.filtering) {
            (D::Blocked, _) | (_, D::Blocked) => "blocked",
            (D::AddressDependent | D::AddressAndPortDependent, _) => "symmetric",
            (D::NotTested, _) | (_, D::NotTested) => "unknown",
            (D::NoNat, D::NoNat | D::EndpointIndependent) => "open",
            (D::EndpointIndependent, D::NoNat | D::EndpointIndependent) => "full cone",
            (D::NoNat | D::EndpointIndependent, D::AddressDependent) => "restricted",
            (D::NoNat | D::EndpointIndependent, D::AddressAndPortDependent) => "port-restricted",
        }
    }
}

/// Source of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateSource {
    /// The host's setting.
    Configured,
    /// The address that the node listens at.
    Listening,
    /// An address of a network interface.
    Interface,
    /// Peers that see the node come from there.
    Observed,
    /// A STUN server.
    Stun,
    /// An HTTP server that answers with the address that asks.
    Http,
    /// A STUN server, about the listen port itself.
    TcpMapping,
    /// A router that made a mapping, over `UPnP`.
    Upnp,
    /// A router that made a mapping, over NAT-PMP.
    NatPmp,
    /// A router that made a mapping, over PCP.
    Pcp,
    /// A relay server that listens for the node.
    Relay,
}

impl CandidateSource {
    /// Name of the source, as in reports.
    #[cfg_attr(not(any(test, feature = "node", feature = "unstable-core")), allow(dead_code))]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Listening => "listening",
            Self::Interface => "interface",
            Self::Observed => "observed",
            Self::Stun => "stun",
            Self::Http => "http",
            Self::TcpMapping => "tcp-mapping",
            Self::Upnp => "upnp",
            Self::NatPmp => "nat-pmp",
            Self::Pcp => "pcp",
            Self::Relay => "relay",
        }
    }
}

/// Address that a node may have, as a source names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateDraft {
    /// The address.
    pub endpoint: Endpoint,
    /// Source that names it.
    pub source: CandidateSource,
}

/// States of candidates.
pub(crate) mod candidate_state {
    pub(crate) const PROVEN: &str = "proven";
    pub(crate) const ADVERTISED: &str = "advertised";
    pub(crate) const WAITING: &str = "waiting";
    pub(crate) const NOT_REACHED: &str = "not-reached";
    pub(crate) const PRIVATE: &str = "private";
    pub(crate) const UNUSED: &str = "unused";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_one_object_and_comes_back() {
        let endpoint: Endpoint = "192.0.2.1:7".parse().unwrap();
        for (state, shown) in [
            (
                Reachability::Public(endpoint),
                r#"{"state":"public","endpoint":"192.0.2.1:7","until_ms":9"#,
            ),
            (Reachability::Private, r#"{"state":"private","until_ms":9"#),
            (Reachability::Unknown, r#"{"state":"unknown","until_ms":9"#),
        ] {
            let until = Some(WallTime::from_millis(9));
            let nat = vec![NatBehaviour { family: "ipv4".into(), ..NatBehaviour::default() }];
            let report = ReachabilityReport { state, until, nat, ..ReachabilityReport::default() };
            let text = serde_json::to_string(&report).unwrap();
            assert!(text.starts_with(shown), "{text}");
            assert_eq!(serde_json::from_str::<ReachabilityReport>(&text).unwrap(), report);
        }
    }

    #[test]
    fn nats_have_their_classic_names() {
        use NatDependence as D;
        let name = |mapping, filtering| {
            NatBehaviour { mapping, filtering, ..NatBehaviour::default() }.name()
        };
        assert_eq!(name(D::NoNat, D::EndpointIndependent), "open");
        assert_eq!(name(D::EndpointIndependent, D::EndpointIndependent), "full cone");
        assert_eq!(name(D::EndpointIndependent, D::AddressDependent), "restricted");
        assert_eq!(name(D::EndpointIndependent, D::AddressAndPortDependent), "port-restricted");
        assert_eq!(name(D::AddressAndPortDependent, D::NotTested), "symmetric");
        assert_eq!(name(D::Blocked, D::NotTested), "blocked");
        assert_eq!(name(D::EndpointIndependent, D::NotTested), "unknown");
        assert_eq!(name(D::NotTested, D::EndpointIndependent), "unknown");
    }
}
