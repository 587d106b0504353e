//! Programs behind routers that block what a direct link needs, in the laboratory of `tests/natlab`.
//!
//! Root only, with what `tests/natlab/natlab deps` installs; skipped aloud elsewhere, but not where
//! `SORCHA_NATLAB` says that everything has to be there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::peer::{Peer, example};

/// A laboratory that ends with this value.
struct Lab {
    name: String,
}

impl Lab {
    /// Builds one with these kinds of router, or says aloud why there is none.
    fn up(kinds: &str) -> Option<Self> {
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self { name: format!("p{}n{number}", std::process::id()) };
        let built = Command::new(natlab()).args(["up", kinds, &lab.name]).output().unwrap();
        if built.status.success() {
            return Some(lab);
        }
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        let cannot = said.contains("run as root") || said.contains("missing command");
        assert!(cannot && std::env::var_os("SORCHA_NATLAB").is_none(), "no laboratory: {said}");
        println!("SKIPPED: no laboratory: {said}");
        None
    }

    /// Starts the program on a host of the laboratory.
    fn peer<'a>(&self, host: &str, flags: impl IntoIterator<Item = &'a str>) -> Peer {
        let mut command = Command::new(natlab());
        command.args(["-n", &self.name, "exec", host, "--"]).arg(example("peer")).arg("--memory");
        Peer::spawn_by(command, flags).ready()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(natlab()).args(["down", &self.name]).status();
    }
}

fn natlab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/natlab/natlab")
}

/// Asserts that what either publishes is delivered by the other.
fn deliver_both_ways(a: &mut Peer, b: &mut Peer) {
    let (from_a, from_b) = (a.publish("t", "from a"), b.publish("t", "from b"));
    b.wait_for_delivery(&from_a);
    a.wait_for_delivery(&from_b);
}

/// One host sees nothing but an HTTP/1.1 proxy, whatever it dials.
fn behind_an_http_proxy(flags: &[&str], rung: &str) {
    let Some(lab) = Lab::up("http1-only,none") else { return };
    let listen = ["--listen", "203.0.113.33:5001", "--http", "203.0.113.33:5080"];
    let mut b = lab.peer("hostB", listen);
    let dial = ["--listen", "0.0.0.0:0", "--bootstrap", "http://203.0.113.33:5080"];
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
    let Some(lab) = Lab::up("blocked-udp") else { return };
    let seed = "203.0.113.20:5001";
    let mut meeting = lab.peer("pub1", ["--listen", seed]);
    // No answer ever comes from the STUN server, and that holds up nothing.
    let flags = ["--listen", "0.0.0.0:5001", "--bootstrap", seed, "--stun", "203.0.113.10:3478"];
    let [mut a, mut b] = ["hostA", "hostB"].map(|host| lab.peer(host, flags));
    for peer in [&mut a, &mut b] {
        peer.wait("peer_up", |line| line["peer"] == meeting.id.as_str());
    }
    deliver_both_ways(&mut a, &mut b);
    assert_eq!(meeting.ask(serde_json::json!({ "op": "stats" }))["links"], 2);
    for peer in [a, b, meeting] {
        peer.finish();
    }
}
