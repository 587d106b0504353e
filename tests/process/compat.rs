//! Clients of the original's protos and REST paths, on other people's libraries, against the `peer`
//! example; and the `curl` lines of the guide. What is not installed is left out aloud: `.ci/run`
//! installs it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clients::{all_right, client, is_here};
use crate::curl_lines::curl_lines_hold;
use crate::peer::{Peer, delivered, of, sha256, text};

const GRPC_CORE: [&str; 3] = ["python3", "examples/compat_client.py", "--help"];
const ODD: [&str; 3] = ["python3", "tests/process/clients/compat_odd.py", "--probe"];
const GRPC_JS: [&str; 3] = ["node", "tests/process/clients/compat.mjs", "--probe"];

/// A node that serves such clients, and answers messages of the type 4.
fn node(flags: &[&str]) -> Peer {
    let served = ["--memory", "--compat", "--serve", "sorcha.message.4"];
    Peer::start(served.iter().chain(flags))
}

#[test]
fn grpc_core_walks_through_everything_in_clear_text() {
    if is_here(GRPC_CORE) {
        let node = node(&["--plaintext"]);
        all_right(GRPC_CORE, &[&node.listen, "--served"]);
        node.finish();
    }
}

/// The client's own server speaks TLS too, with a certificate that nobody signed.
#[test]
fn grpc_core_walks_through_everything_over_tls() {
    if is_here(GRPC_CORE) {
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = self_signed(dir.path());
        let node = node(&[]);
        let own = ["--own-key", &key, "--own-cert", &certificate];
        all_right(GRPC_CORE, &[&[&*node.listen, "--tls", "--served"][..], &own].concat());
        node.finish();
    }
}

fn self_signed(dir: &Path) -> (String, String) {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (at("key.pem"), at("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=somebody", "-days", "2", "-keyout", &key, "-out", &certificate])
        .output();
    assert!(made.unwrap().status.success());
    (key, certificate)
}

#[test]
fn grpc_js_walks_through_everything_in_clear_text() {
    if is_here(GRPC_JS) {
        let node = node(&["--plaintext"]);
        all_right(GRPC_JS, &[&node.listen, "--served"]);
        node.finish();
    }
}

#[test]
fn grpc_js_walks_through_everything_over_tls() {
    if is_here(GRPC_JS) {
        let node = node(&[]);
        all_right(GRPC_JS, &[&node.listen, "--tls", "--served"]);
        node.finish();
    }
}

/// A client that stays, driven by JSON lines as [`Peer`] is.
struct Stranger {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Box<dyn Iterator<Item = Value>>,
}

impl Stranger {
    fn register(node: &Peer) -> Self {
        let mut command = client(GRPC_CORE);
        command.args([&*node.listen, "--tls", "--stay"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        let mut stranger = Self { child, stdin, lines: Box::new(lines) };
        stranger.wait("registered");
        stranger
    }

    fn wait(&mut self, event: &str) -> Value {
        self.lines.find(|line| line["event"] == event).expect("the client stays")
    }

    fn offer(&mut self, topic: &str, payload: &str) {
        let line = json!({ "topic": topic, "text": payload });
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_nodes_and_a_peer_of_another_stack_are_one_network() {
    if !is_here(GRPC_CORE) {
        return;
    }
    let mut a = node(&[]);
    let mut b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    let mut stranger = Stranger::register(&a);

    // The quickest of three: other tests have the machine too.
    let importer = a.id.clone();
    let mut quickest = Duration::MAX;
    for payload in ["the first", "the second", "the third"] {
        let started = Instant::now();
        stranger.offer("orders", payload);
        let offered = stranger.wait("offered");
        assert_eq!(offered["will_request"], true, "{offered}");
        let hash = sha256(payload.as_bytes());
        for node in [&mut a, &mut b] {
            let got = node.wait("delivered", |line| line["sha256"] == *hash);
            assert_eq!((&got["topic"], &got["origin"]), (&json!("orders"), &json!(importer)));
        }
        quickest = quickest.min(started.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "delivered at both after {quickest:?}");

    b.publish("invoices", "from a native peer");
    let fetched = stranger.wait("fetched");
    assert_eq!(text(&fetched, "sha256"), sha256(b"from a native peer"));
    assert_eq!(fetched["topic"], "invoices");

    // Nothing came twice, and nothing else.
    for node in [b, a] {
        assert_eq!(delivered(&node.finish()).len(), 4);
    }
}

#[test]
fn every_field_in_every_odd_form_is_refused_with_a_typed_error() {
    if !is_here(ODD) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.toml");
    let wide = "[compat]\nmax_requests_per_minute = 1000000\nmax_bytes_per_minute = 10000000000\n\
        max_transactions_per_minute = 1000000\n";
    std::fs::write(&path, wide).unwrap();
    let mut a = node(&["--plaintext", "--config", path.to_str().unwrap()]);
    let mut b = Peer::start(["--memory", "--plaintext", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    all_right(ODD, &[&a.listen]);
    // Native peers noticed nothing of it.
    let there = a.publish("orders", "still here");
    b.wait_for_delivery(&there);
    assert!(of(&b.seen, "peer_down").is_empty(), "{}", b.told());
    b.finish();
    a.finish();
}

#[test]
fn curl_lines_of_the_guide_answer_as_it_says() {
    let node = Peer::start(["--memory", "--compat"]);
    curl_lines_hold("compatibility.md", "127.0.0.1:5001", &node.listen, 10);
    node.finish();
}
