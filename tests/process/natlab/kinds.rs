//! Every kind of router: what a node behind it finds out, what it advertises, and what it delivers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Family, Lab, PORT, advertised, behaviour, heal, pairs, public_of, report, side};
use crate::peer::Peer;

/// Where others can dial a node behind such a router.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialled {
    Nowhere,
    /// Nobody can tell: peers see the proxy, and cannot be asked about that.
    Unknown,
    /// At the listening port itself.
    AtOwnPort,
    /// At the port that the router gives to the listening one.
    AtMappedPort,
}

impl Dialled {
    /// State of the node, as it says itself.
    const fn state(self) -> &'static str {
        match self {
            Self::Nowhere => "private",
            Self::Unknown => "unknown",
            Self::AtOwnPort | Self::AtMappedPort => "public",
        }
    }
}

/// A kind of router, and what a node behind it must find.
struct Kind {
    name: &'static str,
    mapping: &'static str,
    filtering: &'static str,
    dialled: Dialled,
}

const fn kind(
    name: &'static str,
    mapping: &'static str,
    filtering: &'static str,
    dialled: Dialled,
) -> Kind {
    Kind { name, mapping, filtering, dialled }
}

const NOT_TESTED: &str = "not-tested";
const INDEPENDENT: &str = "endpoint-independent";
const BY_ADDRESS: &str = "address-dependent";
const BY_PORT: &str = "address-and-port-dependent";

/// Every kind that `natlab` builds.
const KINDS: [Kind; 8] = [
    kind("full-cone", INDEPENDENT, INDEPENDENT, Dialled::AtMappedPort),
    kind("restricted", INDEPENDENT, BY_ADDRESS, Dialled::Nowhere),
    kind("port-restricted", INDEPENDENT, BY_PORT, Dialled::Nowhere),
    kind("symmetric-addr", BY_ADDRESS, BY_PORT, Dialled::Nowhere),
    kind("symmetric", BY_PORT, BY_PORT, Dialled::Nowhere),
    kind("blocked-udp", "blocked", "blocked", Dialled::Nowhere),
    // No server answers in any way, so it may be the servers.
    kind("http1-only", NOT_TESTED, NOT_TESTED, Dialled::Unknown),
    kind("none", "no-nat", INDEPENDENT, Dialled::AtOwnPort),
];

/// What was found at one side.
struct Row {
    report: Value,
    /// Address of the side for others.
    outside: String,
}

impl Row {
    fn nat(&self, part: &str) -> &str {
        behaviour(&self.report, Family::V4).and_then(|nat| nat[part].as_str()).unwrap_or("-")
    }
}

#[test]
fn every_kind_of_router_is_told_right_advertised_as_it_is_loses_nothing_and_may_change() {
    let names = KINDS.map(|kind| kind.name);
    // Twice, so that each can be paired with itself.
    let Some(mut lab) = Lab::up(&[names, names].concat().join(","), &[]) else { return };
    let mut publics = lab.public_nodes(|_| Family::V4);
    let start = |(n, kind): (usize, &Kind)| {
        lab.peer(&format!("host{}", side(n)), Family::V4.learner(&lab, n, kind.name))
    };
    let mut nodes: Vec<_> = KINDS.iter().enumerate().map(start).collect();
    // Asking others to dial takes more than a minute; there is enough to do.
    let delivered = pairs::every_pair(&lab, &names);
    let rows: Vec<_> = nodes.iter_mut().enumerate().map(|(n, node)| look(&lab, n, node)).collect();
    print(&rows, &delivered);
    for (kind, row) in KINDS.iter().zip(&rows) {
        check(kind, row);
    }
    let renewed: Vec<_> =
        names.into_iter().enumerate().filter(|(_, name)| is_renewed(name)).collect();
    heal::all_at_once(&mut lab, &renewed, &mut publics, &mut nodes);
    for node in nodes.into_iter().chain(publics) {
        node.finish();
    }
}

/// Reports whether a router of this kind has mappings to lose.
fn is_renewed(kind: &str) -> bool {
    kind != "none" && kind != "http1-only"
}

/// Waits until the node at side `n` knows where it is, and has a stranger dial each address that it tells.
fn look(lab: &Lab, n: usize, node: &mut Peer) -> Row {
    let state = KINDS[n].dialled.state();
    let is_whole =
        |report: &Value| report["state"] == state && behaviour(report, Family::V4).is_some();
    let report = report(node, is_whole);
    for address in public_of(&advertised(&report)) {
        lab.assert_dialled(address, node);
    }
    let outside = lab.address(&format!("PUBLIC_{}", side(n))).to_owned();
    Row { report, outside }
}

fn check(kind: &Kind, row: &Row) {
    let Kind { name, mapping, filtering, dialled } = kind;
    let told = &row.report;
    assert_eq!(
        (row.nat("mapping"), row.nat("filtering")),
        (*mapping, *filtering),
        "{name}: {told}"
    );
    // One of the two servers can test all of it, and what the other one cannot is left open no more.
    let notes = behaviour(told, Family::V4).unwrap()["notes"].to_string();
    assert!(!notes.contains("the filter was not tested") || *filtering == NOT_TESTED, "{told}");
    // The laboratory's map of ports, see its README.
    let port = match dialled {
        Dialled::Nowhere | Dialled::Unknown => None,
        Dialled::AtOwnPort => Some(PORT),
        Dialled::AtMappedPort => Some(u16::try_from(66_559 - u32::from(PORT)).unwrap()),
    };
    let wanted = port.map(|port| format!("{}:{port}", row.outside));
    let advertised = advertised(told);
    assert_eq!(public_of(&advertised), Vec::from_iter(wanted.as_deref()), "{name}: {told}");
    assert_eq!(told["endpoint"].as_str(), wanted.as_deref(), "{name}: {told}");
}

fn print(rows: &[Row], delivered: &BTreeMap<(usize, usize), usize>) {
    println!("| kind | mapping | filtering | advertised | delivered with each kind |");
    println!("|---|---|---|---|---|");
    for (n, (kind, row)) in KINDS.iter().zip(rows).enumerate() {
        let advertised = advertised(&row.report);
        let public = public_of(&advertised);
        let shown = if public.is_empty() { "nothing".to_owned() } else { public.join(" ") };
        let with = |other: usize| delivered[&(n.min(other), n.max(other))].to_string();
        let counts: Vec<_> = (0..KINDS.len()).map(with).collect();
        let (mapping, filtering) = (row.nat("mapping"), row.nat("filtering"));
        println!("| {} | {mapping} | {filtering} | {shown} | {} |", kind.name, counts.join(" "));
    }
}
