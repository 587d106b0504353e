//! Nodes on IPv6, on both families, and of one family each.
//!
//! Skipped aloud where this machine has no IPv6 at all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sorcha_peer::types::ReachabilityReport;
use sorcha_peer::{Event, PeerNode};

use crate::common::{
    GLANCE, address, assert_spreads, config_with, event, ready, soon, start, start_with, stop,
    until_peers,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind((V6, 0)).is_ok();
    if !has {
        println!("SKIPPED: this machine has no IPv6");
    }
    has
}

async fn start_at(ip: IpAddr, contacts: &[String]) -> PeerNode {
    let config = config_with(|config| config.listen.address = Some(SocketAddr::new(ip, 0)));
    start(PeerNode::builder().config(config).bootstrap(contacts)).await
}

/// A node at `[::]`, and the addresses at which it is found by either family.
async fn start_for_both(contacts: &[String]) -> (PeerNode, [String; 2]) {
    let node = start_at(Ipv6Addr::UNSPECIFIED.into(), contacts).await;
    let port = node.listen_addr().unwrap().port();
    (node, [V6, V4].map(|ip| SocketAddr::new(ip, port).to_string()))
}

#[tokio::test]
async fn nodes_of_either_family_meet_at_one_that_has_both() {
    if !has_ipv6() {
        return;
    }
    let (both, [by_v6, by_v4]) = start_for_both(&[]).await;
    let mut events = both.events();
    let v6 = start_at(V6, &[by_v6]).await;
    let v4 = start_at(V4, &[by_v4]).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let address = event(&mut events, "a peer", |event| match event {
            Event::PeerUp { address, .. } => address.clone(),
            _ => None,
        });
        let address: SocketAddr = address.await.parse().unwrap();
        seen.insert(address.ip());
    }
    assert_eq!(seen, [V4, V6].into(), "an IPv4 address is shown as one");
    assert_spreads(&v6, &v4).await;
    for node in [&both, &v6, &v4] {
        stop(node).await;
    }
}

/// The report of a node, once it advertises this address.
async fn until_advertised(node: &PeerNode, address: &str) -> ReachabilityReport {
    let named = async {
        loop {
            let report = node.reachability().await.expect("a running node");
            if report.advertised.iter().any(|told| told == address) {
                return report;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    soon("an address in the record", named).await
}

#[tokio::test]
async fn a_record_names_addresses_of_both_families() {
    if !has_ipv6() {
        return;
    }
    // Each of the dialled peers says under which address it sees the node.
    let (v6, v4) = (start_at(V6, &[]).await, start_at(V4, &[]).await);
    let (both, wanted) = start_for_both(&[address(&v6), address(&v4)]).await;
    ready(&both, 2).await;
    for wanted in &wanted {
        until_advertised(&both, wanted).await;
    }
    for node in [&both, &v6, &v4] {
        stop(node).await;
    }
}

#[tokio::test]
async fn a_node_on_ipv4_alone_advertises_no_ipv6_address() {
    if !has_ipv6() {
        return;
    }
    let v6 = start_at(V6, &[]).await;
    let node = start_at(Ipv4Addr::UNSPECIFIED.into(), &[address(&v6)]).await;
    // What the IPv6 peer sees is known before a peer that comes afterwards sees anything.
    ready(&node, 1).await;
    let v4 = start_at(V4, &[]).await;
    node.connect(&address(&v4)).await.expect("a link");
    let port = node.listen_addr().expect("a listening node").port();
    let report = until_advertised(&node, &SocketAddr::new(V4, port).to_string()).await;
    let is_v6 = |address: &&str| address.starts_with('[');
    let advertised = report.advertised.iter().map(String::as_str);
    let named = report.candidates.iter().map(|candidate| candidate.endpoint.as_str());
    assert_eq!(advertised.chain(named).find(is_v6), None, "{report:?}");
    for node in [&node, &v6, &v4] {
        stop(node).await;
    }
}

#[tokio::test]
async fn a_name_of_both_families_is_found_by_either() {
    let found = tokio::net::lookup_host(("localhost", 1)).await;
    let found: BTreeSet<_> = found.into_iter().flatten().map(|at| at.ip()).collect();
    for ip in [V4, V6] {
        if !found.contains(&ip) {
            println!("SKIPPED: localhost is not {ip} here");
            continue;
        }
        let node = start_with(|config| config.listen.address = Some(SocketAddr::new(ip, 0))).await;
        let name = format!("localhost:{}", node.listen_addr().unwrap().port());
        let other = start_at(V4, &[name]).await;
        // It listens at this one address alone.
        let peers = until_peers(&other, "a link", |peers| !peers.is_empty()).await;
        assert_eq!(peers[0].peer, node.peer_id(), "by {ip}");
        stop(&other).await;
        stop(&node).await;
    }
}
