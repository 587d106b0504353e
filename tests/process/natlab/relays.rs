//! Networks of private nodes alone, which listen through a relay server (TURN).

use serde_json::Value;

use super::{Lab, advertised, exchange, pairs, public_of, report, side};

/// Pairs of kinds whose nodes cannot dial each other in any way.
const PAIRS: [(&str, &str); 2] = [("symmetric", "port-restricted"), ("blocked-udp", "symmetric")];

#[test]
fn two_private_nodes_with_a_relay_server_alone_exchange_everything() {
    let kinds: Vec<_> = PAIRS.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let Some(lab) = Lab::up(&kinds.join(","), &[]) else { return };
    let server = lab.address("STUN1").to_owned();
    let relay = format!("turn:natlab:natlab@{server}:3478");
    for (n, (one, other)) in PAIRS.iter().enumerate() {
        let host = |n: usize| format!("host{}", side(n));
        let flags = ["--listen", "0.0.0.0:5001", "--relay", &relay];
        let mut a = lab.peer(&host(2 * n), flags);
        let told = report(&mut a, |report| !public_of(&advertised(report)).is_empty());
        let relayed = advertised(&told);
        let relayed = public_of(&relayed);
        assert!(relayed.iter().all(|address| address.starts_with(&format!("{server}:"))), "{told}");
        let mut b =
            lab.peer(&host(2 * n + 1), flags.into_iter().chain(["--bootstrap", relayed[0]]));
        b.wait("peer_up", |line| line["peer"] == a.id.as_str());
        exchange(&mut a, &mut b, pairs::COUNT);
        println!("{one} and {other} by relay alone: {} each way", pairs::COUNT);
        for node in [a, b] {
            node.finish();
        }
    }
}

#[test]
fn a_relayed_address_that_nobody_may_use_is_no_link() {
    let Some(lab) = Lab::up("symmetric", &[]) else { return };
    let relay = format!("turn:natlab:natlab@{}:3478", lab.address("STUN1"));
    let mut a = lab.peer("hostA", ["--listen", "0.0.0.0:5001", "--relay", &relay]);
    let told = report(&mut a, |report: &Value| !public_of(&advertised(report)).is_empty());
    let relayed = advertised(&told);
    // Without an allocation of its own it comes from an address that has no permission.
    let mut b = lab.peer("hostB", ["--listen", "0.0.0.0:5001"]);
    let connect = serde_json::json!({ "op": "connect", "address": public_of(&relayed)[0] });
    assert_eq!(b.ask(connect)["event"], "error");
    for node in [a, b] {
        node.finish();
    }
}
