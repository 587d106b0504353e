//! Programs behind routers of every kind, in the laboratory of `tests/natlab`.
//!
//! Root only, with what `tests/natlab/natlab deps` installs; skipped aloud elsewhere, but not where
//! `SORCHA_NATLAB` says that everything has to be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peer::{Peer, example};

mod families;
mod heal;
mod http1;
mod kinds;
mod pairs;
#[cfg(feature = "port-mapping")]
mod port_mapping;
mod relays;

/// Number of public hosts.
const PUBLIC: usize = 8;
/// Port at which nodes listen, but for those of which a host has several.
const PORT: u16 = 5001;
/// Port at which public nodes take HTTP/1.1.
const HTTP_PORT: u16 = 5080;
/// Time between two looks at a report.
const GLANCE: Duration = Duration::from_millis(100);

/// A laboratory that ends with this value.
struct Lab {
    name: String,
    /// What `natlab env` says.
    env: BTreeMap<String, String>,
}

impl Lab {
    /// Builds one with these kinds of router, and other words for `natlab up`, or says aloud why there is
    /// none.
    fn up(kinds: &str, options: &[&str]) -> Option<Self> {
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("p{}n{number}", std::process::id());
        let mut lab = Self { name, env: BTreeMap::new() };
        let built =
            Command::new(natlab()).args(["up", kinds, &lab.name]).args(options).output().unwrap();
        if built.status.success() {
            lab.read_env();
            return Some(lab);
        }
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        let cannot = said.contains("run as root") || said.contains("missing command");
        assert!(cannot && std::env::var_os("SORCHA_NATLAB").is_none(), "no laboratory: {said}");
        println!("SKIPPED: no laboratory: {said}");
        None
    }

    /// Runs a command of the laboratory.
    fn run(&self, args: &[&str]) -> String {
        let done = Command::new(natlab()).args(["-n", &self.name]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "natlab {args:?}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Folder of its state and logs.
    #[cfg(feature = "port-mapping")]
    fn state(&self) -> PathBuf {
        let all = std::env::var_os("NATLAB_STATE").map_or("/run/natlab".into(), PathBuf::from);
        all.join(&self.name)
    }

    /// Learns the addresses, again after `renew`.
    fn read_env(&mut self) {
        let env = self.run(&["env"]);
        let pairs = env.lines().filter_map(|line| line.split_once('='));
        self.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// The address that `natlab env` calls so.
    fn address(&self, name: &str) -> &str {
        &self.env[&format!("NATLAB_{name}")]
    }

    /// The program on a host of the laboratory.
    fn command(&self, host: &str) -> Command {
        let mut command = Command::new(natlab());
        command.args(["-n", &self.name, "exec", host, "--"]).arg(example("peer")).arg("--memory");
        command
    }

    /// Starts the program on a host of the laboratory.
    fn peer<S: AsRef<str>>(&self, host: &str, flags: impl IntoIterator<Item = S>) -> Peer {
        let flags = flags.into_iter().map(|flag| flag.as_ref().to_owned());
        Peer::spawn_by(self.command(host), flags).ready()
    }

    /// Asserts that whoever dials this address from a public host, without a link so far, finds that node.
    fn assert_dialled(&self, address: &str, node: &Peer) {
        static PORTS: AtomicU16 = AtomicU16::new(7_000);
        let port = PORTS.fetch_add(1, Ordering::Relaxed);
        let family = if address.starts_with('[') { Family::V6 } else { Family::V4 };
        let listen = format!("{}:{port}", family.host(self, PUBLIC));
        let mut stranger = self.peer(&format!("pub{PUBLIC}"), ["--listen", &listen]);
        let found = stranger.ask(json!({ "op": "connect", "address": address }));
        assert_eq!(found["peer"], node.id.as_str(), "{address}: {found}");
        stranger.finish();
    }

    /// Starts a node at every public host, linked with each other, that takes links over HTTP/1.1 too.
    fn public_nodes(&self, family: impl Fn(usize) -> Family) -> Vec<Peer> {
        let mut nodes: Vec<Peer> = Vec::new();
        for n in 1..=PUBLIC {
            let ip = family(n).host(self, n);
            let mut flags = vec!["--listen".into(), format!("{ip}:{PORT}")];
            flags.extend(["--http".into(), format!("{ip}:{HTTP_PORT}")]);
            flags.extend(["--config".into(), settings("public")]);
            for earlier in &nodes {
                flags.extend(["--bootstrap".into(), earlier.listen.clone()]);
            }
            nodes.push(self.peer(&format!("pub{n}"), flags));
        }
        for node in &mut nodes {
            node.until_stats(|stats| stats["links"].as_u64() >= Some(PUBLIC as u64 - 1));
        }
        nodes
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(natlab()).args(["down", &self.name]).status();
    }
}

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// An address as it stands before a colon and a port.
    fn address(self, lab: &Lab, name: &str) -> String {
        match self {
            Self::V4 => lab.address(name).to_owned(),
            Self::V6 => format!("[{}]", lab.address(&format!("{name}_6"))),
        }
    }

    /// Address of a public host.
    fn host(self, lab: &Lab, n: usize) -> String {
        self.address(lab, &format!("PUB{n}"))
    }

    /// Name of the family in reports.
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Flags that name the STUN servers.
    fn stun(self, lab: &Lab) -> Vec<String> {
        let server = |name| format!("{}:3478", self.address(lab, name));
        ["STUN1", "STUN2"].into_iter().flat_map(|name| ["--stun".into(), server(name)]).collect()
    }

    /// Flags of the node at side `n` that is to learn where it is: three public ones to ask, in distinct
    /// groups, so that others of them have no link with it and can be asked to dial it.
    fn learner(self, lab: &Lab, n: usize, kind: &str) -> Vec<String> {
        let here = if self == Self::V4 { "0.0.0.0" } else { "[::]" };
        let mut flags = vec!["--config".into(), settings("learner")];
        flags.extend(["--listen".into(), format!("{here}:{PORT}")]);
        for asked in asked_by(n) {
            flags.extend(["--bootstrap".into(), first_contact(&self.host(lab, asked), kind)]);
        }
        flags.extend(self.stun(lab));
        flags
    }
}

/// Public hosts that the node at side `n` is linked with: in distinct groups, and others for each of the
/// first eight sides, since a peer helps an asker, and for another peer, once in a minute.
fn asked_by(n: usize) -> [usize; 3] {
    [n, n + 2, n + 5].map(|host| host % PUBLIC + 1)
}

/// Address of a public node as a node behind this kind of router has to dial it.
fn first_contact(ip: &str, kind: &str) -> String {
    if kind == "http1-only" { format!("http://{ip}:{HTTP_PORT}") } else { format!("{ip}:{PORT}") }
}

fn natlab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/natlab/natlab")
}

/// Path of a configuration.
fn settings(name: &str) -> String {
    format!("{}/tests/process/natlab/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

/// Letter of a side.
fn side(n: usize) -> char {
    char::from(b'A' + u8::try_from(n).unwrap())
}

/// Asks for the report on reachability until it is as wanted.
fn report(node: &mut Peer, holds: impl Fn(&Value) -> bool) -> Value {
    node.until_answer(&json!({ "op": "reachability" }), GLANCE, holds)
}

/// Reports whether it is known by now that others can dial a node, or that they cannot.
fn is_decided(report: &Value) -> bool {
    report["state"] != "unknown"
}

/// What the report says of the NAT for this family.
fn behaviour(report: &Value, family: Family) -> Option<&Value> {
    report["nat"].as_array()?.iter().find(|nat| nat["family"] == family.name())
}

/// Addresses in a node's record.
fn advertised(report: &Value) -> Vec<String> {
    let all = report["advertised"].as_array().unwrap();
    all.iter().map(|address| address.as_str().unwrap().to_owned()).collect()
}

/// Addresses in a node's record that are told to everybody: all but those of its own private network.
fn public_of(advertised: &[String]) -> Vec<&str> {
    let public = |address: &&str| !address.starts_with("10.") && !address.starts_with("[fd");
    advertised.iter().map(String::as_str).filter(public).collect()
}

/// Asserts that what either publishes is delivered by the other.
fn deliver_both_ways(a: &mut Peer, b: &mut Peer) {
    let (from_a, from_b) = (a.publish("t", "from a"), b.publish("t", "from b"));
    b.wait_for_delivery(&from_a);
    a.wait_for_delivery(&from_b);
}

/// Has both publish so many transactions at once, and asserts that each has all of both in the end, each
/// once.
fn exchange(a: &mut Peer, b: &mut Peer, count: usize) {
    a.count_deliveries();
    b.count_deliveries();
    let burst = json!({ "op": "publish_random", "topic": "load", "size": 200, "count": count });
    let asked = [a.send(burst.clone()), b.send(burst)];
    for (peer, r#ref) in [&mut *a, &mut *b].into_iter().zip(asked) {
        let answer = peer.find(|line| line["ref"] == r#ref);
        assert_eq!((&answer["count"], &answer["failed"]), (&json!(count), &json!(0)), "{answer}");
    }
    let all = a.wait_for_count(2 * count).clone();
    assert!(*b.wait_for_count(2 * count) == all, "another set was delivered");
}
