//! Reachability, told to people.
//!
//! Tested by: `protocol::tests::reachability`.

use crate::protocol::Protocol;
use crate::types::reachability::candidate_state as state;
use crate::types::{Candidate, Endpoint, ReachabilityReport};

use super::asking::Verdict;
use super::candidates::{Place, Role};

impl Protocol {
    /// Returns what the core knows of the ways by which others reach this node. What probers failed at and
    /// how NATs behave is known outside.
    pub fn reachability(&self) -> ReachabilityReport {
        let reach = &self.reachability;
        let places = reach.candidates.places(&reach.votes);
        let candidates = places.iter().map(|place| self.told_of(place)).collect();
        let shown = |endpoints: &[Endpoint]| endpoints.iter().map(Endpoint::to_string).collect();
        ReachabilityReport {
            state: reach.state.clone(),
            until: reach.until.map(|at| self.env.wall.plus(at.since(self.env.now))),
            listening: reach.candidates.listening.iter().map(ToString::to_string).collect(),
            advertised: shown(self.membership.record.endpoints()),
            candidates,
            ..ReachabilityReport::default()
        }
    }

    fn told_of(&self, place: &Place) -> Candidate {
        let verdict = place.address.map(|address| self.reachability.verdict(address));
        let (state, why) = match (place.role, verdict) {
            (Role::Given | Role::Site | Role::Public, Some(Verdict::Proven)) => {
                (state::PROVEN, "Strangers have dialled it.")
            }
            (Role::Given, Some(Verdict::NotReached)) => (
                state::NOT_REACHED,
                "Strangers could not dial it; told to others all the same, as configured.",
            ),
            (Role::Site, Some(Verdict::NotReached)) => (
                state::ADVERTISED,
                "Nodes of other sites could not dial it; told to those of this site.",
            ),
            (Role::Public, Some(Verdict::NotReached)) => {
                (state::NOT_REACHED, "Strangers could not dial it, so nobody is told.")
            }
            (Role::Public, Some(Verdict::Lapsed)) => (
                state::ADVERTISED,
                "Strangers have dialled it; since the proof is old nobody was found to do so again.",
            ),
            (Role::Given, _) => (state::ADVERTISED, "Told to others as the host configured it."),
            (Role::Site, _) => {
                (state::ADVERTISED, "Told to others of this site, who can dial it where they are.")
            }
            (Role::Relayed, _) => {
                (state::ADVERTISED, "A relay server listens there for this node.")
            }
            (Role::Foreign, _) => (
                state::PRIVATE,
                "An address of a site, and not this node's own: it is behind another NAT.",
            ),
            (Role::Unused, _) => (state::UNUSED, "The host has configured what others are told."),
            (Role::Public, None) => (
                state::WAITING,
                "A port that no node dials for others: proof needs 80, 443 or one from 1024 on.",
            ),
            (Role::Public, Some(Verdict::Waiting)) => (state::WAITING, self.waits_for(place)),
        };
        Candidate {
            endpoint: place.endpoint.to_string(),
            source: place.source.as_str().to_owned(),
            votes: place.votes,
            state: state.to_owned(),
            why: why.to_owned(),
        }
    }

    /// Returns what the proof of a candidate waits for.
    fn waits_for(&self, place: &Place) -> &'static str {
        let Some(address) = place.address else { return "" };
        let asking = &self.reachability.asking;
        if asking.is_asking(address) {
            "Peers were asked to have strangers dial it."
        } else if self.helpers(address).next().is_none() {
            "No linked peer sees this node there and takes part in dial-backs."
        } else if asking.finding(address).is_some_and(|finding| finding.tries > 0) {
            "The peers asked found no stranger that could dial it, or did not agree; they are asked again."
        } else {
            "Peers will be asked to have strangers dial it."
        }
    }
}
