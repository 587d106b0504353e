//! Routers that map ports when they are asked: miniupnpd.

use serde_json::{Value, json};

use super::{GLANCE, Lab, PORT};
use crate::peer::HANG;

/// Rule of a router that knows NAT-PMP and no PCP, which has its version in the first byte.
const NO_PCP: [&str; 11] =
    ["insert", "rule", "inet", "filter", "inp", "udp", "dport", "5351", "@th,64,8", "2", "drop"];

/// A side whose router maps ports, and that router's log.
struct Side {
    lab: Lab,
    log: std::path::PathBuf,
}

impl Side {
    fn behind(kind: &str) -> Option<Self> {
        let lab = Lab::up(&format!("{kind},none"), &[])?;
        let log = lab.state().join("log/upnpdA.log");
        Some(Self { lab, log })
    }

    fn on_router(&self, args: &[&str]) -> String {
        self.lab.run(&[&["exec", "natA", "--", "nft"], args].concat())
    }

    fn is_mapped(&self) -> bool {
        self.on_router(&["list", "ruleset"]).contains("dnat")
    }

    /// Waits until the router has been asked so many times.
    fn until_asked(&self, times: usize, words: &str) {
        let since = tokio::time::Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.matches(words).count() >= times {
                return;
            }
            assert!(since.elapsed() < HANG, "{log}");
            std::thread::sleep(GLANCE);
        }
    }

    /// The node is dialled from outside at the address that its router gives it, and leaves nothing there.
    /// `while_there` sees to what happens meanwhile.
    fn reaches(&self, source: &str, while_there: impl Fn()) {
        let address = format!("{}:{PORT}", self.lab.address("PUBLIC_A"));
        assert!(!self.is_mapped());
        let listen = format!("0.0.0.0:{PORT}");
        let mut inside = self.lab.peer("hostA", ["--listen", &listen, "--port-mapping"]);
        let named = |line: &Value| line["address"] == *address && line["prober"] == source;
        inside.wait("reachability", named);
        let report = inside.ask(json!({ "op": "reachability" }));
        let candidates = report["candidates"].as_array().unwrap();
        let is_it = |it: &&Value| it["endpoint"] == *address && it["source"] == source;
        assert!(candidates.iter().any(|candidate| is_it(&candidate)), "{report}");
        while_there();
        assert!(self.is_mapped());
        let listen = format!("{}:{PORT}", self.lab.address("PUB1"));
        let mut outside = self.lab.peer("pub1", ["--listen", &listen, "--bootstrap", &address]);
        let up = outside.wait("peer_up", |line| line["peer"] == inside.id.as_str());
        assert_eq!(up["direction"], "outbound", "{up}");
        inside.wait("peer_up", |line| line["direction"] == "inbound");
        inside.finish();
        assert!(!self.is_mapped(), "the mapping outlives its node");
        outside.finish();
    }
}

#[test]
fn a_router_is_asked_over_upnp_and_left_as_it_was() {
    let Some(side) = Side::behind("upnp") else { return };
    side.reaches("upnp", || ());
}

#[test]
fn a_router_is_asked_over_nat_pmp_and_left_as_it_was() {
    let Some(side) = Side::behind("pcp") else { return };
    side.on_router(&NO_PCP);
    side.reaches("nat-pmp", || ());
}

#[test]
fn a_router_is_asked_over_pcp_again_and_again_and_left_as_it_was() {
    let Some(side) = Side::behind("pcp") else { return };
    // It grants 40 s and is asked every 30 s: by the third time the first lease is over.
    side.reaches("pcp", || side.until_asked(3, "PCP MAP: added mapping"));
}
