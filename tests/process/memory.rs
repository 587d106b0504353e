//! Memory of the program as the operating system counts it, beside the one number that the
//! configuration says. Bounds are generous: they tell a bounded program from an unbounded one, on
//! every machine and allocator.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::Peer;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;
/// Maximum for code, stacks, the runtime, TLS, and what the allocator keeps.
const BESIDE: u64 = 96 * MIB;

/// Starts a process that may take 64 MiB for payloads.
fn start(dir: &Path, more: &[&str]) -> Peer {
    let (data, config) = (dir.join("data"), dir.join("config.toml"));
    std::fs::write(&config, "[limits]\nmemory = \"64 MiB\"\n").unwrap();
    let flags = ["--data-dir", data.to_str().unwrap(), "--config", config.to_str().unwrap()];
    Peer::start(flags.iter().chain(more))
}

/// Sum of what all owners hold and may hold.
fn sums(peer: &mut Peer) -> [u64; 2] {
    let stats = peer.ask(json!({ "op": "stats" }));
    let sum = |field: &str| -> u64 {
        let owners = stats[field].as_object().unwrap_or_else(|| panic!("no {field} in {stats}"));
        // What waits for peers is bounded for each link.
        owners.iter().filter(|(owner, _)| *owner != "links").filter_map(|(_, n)| n.as_u64()).sum()
    };
    [sum("memory"), sum("memory_limits")]
}

#[test]
fn twelve_payloads_of_10_mib_go_through_64_mib() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut publisher = start(dirs[0].path(), &[]);
    let contact = publisher.listen.clone();
    let mut receiver = start(dirs[1].path(), &["--bootstrap", &contact]);
    receiver.wait("peer_up", |_| true);
    let count = 12;
    let order = json!({ "op": "publish_random", "topic": "t", "size": 10 * MIB, "count": count });
    let answer = publisher.ask(order);
    assert_eq!((&answer["count"], &answer["failed"]), (&json!(count), &json!(0)), "{answer}");
    let ids = answer["ids"].as_array().unwrap();
    for id in ids {
        receiver.wait_for_delivery(id);
    }
    publisher.until_stats(|stats| stats["outbox"] == 0 || stats["outbox"] == Value::Null);
    for (name, peer) in [("publisher", &mut publisher), ("receiver", &mut receiver)] {
        let [held, most] = sums(peer);
        assert!(held <= MEMORY && most <= MEMORY, "{name}: {held} of {most}");
        let peak = peer.peak_memory();
        assert!(peak < MEMORY + BESIDE, "{name}: {} MiB", peak / MIB);
    }
    receiver.finish();
    publisher.finish();
}
