//! Routers that block what a direct link needs.

use serde_json::json;

use super::{Lab, deliver_both_ways};

/// One host sees nothing but an HTTP/1.1 proxy, whatever it dials.
fn behind_an_http_proxy(flags: &[&str], rung: &str) {
    let Some(lab) = Lab::up("http1-only,none", &[]) else { return };
    let ip = lab.address("PUBLIC_B");
    let (listen, http) = (format!("{ip}:5001"), format!("{ip}:5080"));
    let mut b = lab.peer("hostB", ["--listen", &listen, "--http", &http]);
    let seed = format!("http://{http}");
    let dial = ["--listen", "0.0.0.0:0", "--bootstrap", &seed];
    let mut a = lab.peer("hostA", dial.into_iter().chain(flags.iter().copied()));
    let up = a.wait("peer_up", |line| line["peer"] == b.id.as_str());
    assert_eq!(up["transport"], rung, "{up}");
    b.wait("peer_up", |line| line["peer"] == a.id.as_str());
    deliver_both_ways(&mut a, &mut b);
    a.finish();
    b.finish();
}

#[test]
fn behind_a_proxy_for_http_1_the_ladder_finds_websocket() {
    behind_an_http_proxy(&[], "websocket");
}

#[test]
fn behind_a_proxy_for_http_1_rest_passes_too() {
    behind_an_http_proxy(&["--transports", "rest"], "rest");
}

#[test]
fn behind_firewalls_that_drop_udp_peers_meet_at_a_public_one() {
    let Some(lab) = Lab::up("blocked-udp", &[]) else { return };
    let seed = format!("{}:5001", lab.address("PUB1"));
    let mut meeting = lab.peer("pub1", ["--listen", &seed]);
    // No answer ever comes from the STUN server, and that holds up nothing.
    let stun = format!("{}:3478", lab.address("STUN1"));
    let flags = ["--listen", "0.0.0.0:5001", "--bootstrap", &seed, "--stun", &stun];
    let [mut a, mut b] = ["hostA", "hostB"].map(|host| lab.peer(host, flags));
    for peer in [&mut a, &mut b] {
        peer.wait("peer_up", |line| line["peer"] == meeting.id.as_str());
    }
    deliver_both_ways(&mut a, &mut b);
    assert_eq!(meeting.ask(json!({ "op": "stats" }))["links"], 2);
    for peer in [a, b, meeting] {
        peer.finish();
    }
}
