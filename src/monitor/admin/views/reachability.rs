//! How others reach the node.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::types::{Candidate, NatBehaviour, NatDependence, Reachability, ReachabilityReport};
use crate::web::Problem;

/// Whether others can dial the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReachabilityName {
    Unknown,
    Private,
    Public,
}

impl From<&Reachability> for ReachabilityName {
    fn from(state: &Reachability) -> Self {
        match state {
            Reachability::Unknown => Self::Unknown,
            Reachability::Private => Self::Private,
            Reachability::Public(_) => Self::Public,
        }
    }
}

/// What the node knows of the ways by which others reach it.
#[derive(Serialize, ToSchema)]
pub(super) struct Reachable {
    state: ReachabilityName,
    /// Address at which others can dial the node.
    endpoint: Option<String>,
    /// Time until which that counts; it is asked again before.
    until_ms: Option<u64>,
    /// Socket addresses at which the node listens.
    listening: Vec<String>,
    /// Addresses that others are told to dial, the best first.
    advertised: Vec<String>,
    /// Addresses that the node may have, the best first.
    candidates: Vec<PossibleAddress>,
    /// Behaviour of the NAT, for each family of addresses that servers were asked about.
    nat: Vec<Nat>,
    /// Those who were asked and found nothing, each with the reason.
    failed: BTreeMap<String, String>,
}

/// Address that the node may have.
#[derive(Serialize, ToSchema)]
struct PossibleAddress {
    endpoint: String,
    /// Who names it: `configured`, `listening`, `interface`, `observed`, `stun`, `http`, `tcp-mapping`,
    /// `upnp`, `nat-pmp`, `pcp` or `relay`.
    source: String,
    /// Peers of distinct address groups that see the node come from there.
    votes: u32,
    /// What becomes of it: `proven`, `advertised`, `waiting`, `not-reached` or `private`.
    state: String,
    /// Why, in one sentence.
    why: String,
}

/// Behaviour of a NAT, for UDP (RFC 5780).
#[derive(Serialize, ToSchema)]
struct Nat {
    /// `ipv4` or `ipv6`.
    family: String,
    /// Classic name: `open`, `full cone`, `restricted`, `port-restricted`, `symmetric`, `blocked` or `unknown`.
    name: &'static str,
    mapping: Dependence,
    filtering: Dependence,
    hairpinning: Option<bool>,
    preserves_port: Option<bool>,
    /// Addresses that servers saw.
    mapped: Vec<String>,
    #[schema(maximum = 100)]
    confidence: u8,
    /// What could not be tested, and why.
    notes: Vec<String>,
}

/// What a mapping or a filter depends on.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Dependence {
    NotTested,
    NoNat,
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
    Blocked,
}

impl From<NatDependence> for Dependence {
    fn from(dependence: NatDependence) -> Self {
        match dependence {
            NatDependence::NotTested => Self::NotTested,
            NatDependence::NoNat => Self::NoNat,
            NatDependence::EndpointIndependent => Self::EndpointIndependent,
            NatDependence::AddressDependent => Self::AddressDependent,
            NatDependence::AddressAndPortDependent => Self::AddressAndPortDependent,
            NatDependence::Blocked => Self::Blocked,
        }
    }
}

impl From<Candidate> for PossibleAddress {
    fn from(candidate: Candidate) -> Self {
        let Candidate { endpoint, source, votes, state, why } = candidate;
        Self { endpoint, source, votes, state, why }
    }
}

impl From<NatBehaviour> for Nat {
    fn from(of: NatBehaviour) -> Self {
        Self {
            name: of.name(),
            family: of.family,
            mapping: of.mapping.into(),
            filtering: of.filtering.into(),
            hairpinning: of.hairpinning,
            preserves_port: of.preserves_port,
            mapped: of.mapped,
            confidence: of.confidence,
            notes: of.notes,
        }
    }
}

impl From<ReachabilityReport> for Reachable {
    fn from(report: ReachabilityReport) -> Self {
        Self {
            state: (&report.state).into(),
            endpoint: report.state.endpoint().map(ToString::to_string),
            until_ms: report.until.map(crate::types::WallTime::as_millis),
            listening: report.listening,
            advertised: report.advertised,
            candidates: report.candidates.into_iter().map(Into::into).collect(),
            nat: report.nat.into_iter().map(Into::into).collect(),
            failed: report.failed,
        }
    }
}

/// How others reach the node: whether they can dial it, its addresses and what becomes of each.
#[utoipa::path(get, path = "/api/v1/reachability", tag = "figures", responses(
    (status = 200, description = "What is known", body = Reachable),
))]
pub(in crate::monitor::admin) async fn reachability(call: &Call<'_>) -> Result<Reply, Problem> {
    let report = call.node()?.reachability().await.map_err(|_| stopped())?;
    reply::json(&Reachable::from(report))
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use crate::types::WallTime;

    #[test]
    fn a_view_says_all_that_the_report_does() {
        let endpoint: crate::types::Endpoint = "192.0.2.1:7".parse().unwrap();
        let report = ReachabilityReport {
            state: Reachability::Public(endpoint),
            until: Some(WallTime::from_millis(9)),
            candidates: vec![Candidate {
                endpoint: "192.0.2.1:7".to_owned(),
                source: "stun".to_owned(),
                votes: 2,
                state: "proven".to_owned(),
                why: "two peers had it dialled".to_owned(),
            }],
            nat: vec![NatBehaviour { confidence: 50, ..NatBehaviour::default() }],
            ..ReachabilityReport::default()
        };
        let view = Reachable::from(report.clone());
        assert_eq!(keys(&view), keys(&report));
        assert_eq!(keys(&view.candidates[0]), keys(&report.candidates[0]));
        let mut nat = keys(&report.nat[0]);
        nat.insert("name".to_owned());
        assert_eq!(keys(&view.nat[0]), nat);
        let (view, report) = (serde_json::to_value(&view), serde_json::to_value(&report));
        let (view, report) = (view.unwrap(), report.unwrap());
        for key in ["state", "endpoint", "until_ms", "candidates", "failed"] {
            assert_eq!(view[key], report[key], "{key}");
        }
        assert_eq!(view["nat"][0]["mapping"], report["nat"][0]["mapping"]);
    }
}
