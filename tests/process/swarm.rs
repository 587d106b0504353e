//! Sixteen processes of the `peer` example: bursts, a stopped process, a late one, large payloads.
//!
//! `cargo test --release --test process swarm:: -- --nocapture` runs it at full size and prints
//! how long things took; a debug build publishes less. Times are printed, never asserted.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::peer::Peer;

const PROCESSES: usize = 16;
const BURST: usize = if cfg!(debug_assertions) { 1_000 } else { 20_000 };
const LARGE: usize = 10 << 20;

/// One swarm at a time: each wants the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Linked processes that count their deliveries.
fn swarm() -> Vec<Peer> {
    let mut peers = vec![Peer::in_memory()];
    for _ in 1..PROCESSES {
        let seed = peers[0].listen.clone();
        peers.push(Peer::start(["--memory", "--bootstrap", &seed]));
    }
    for peer in &mut peers {
        peer.wait("peer_up", |_| true);
        peer.count_deliveries();
    }
    peers
}

/// Asks for a burst of random payloads; the answer is still to come.
fn burst(peer: &mut Peer, count: usize, size: usize) -> Value {
    peer.send(json!({ "op": "publish_random", "topic": "load", "size": size, "count": count }))
}

/// The ids of a burst, once all of it was published.
fn published(peer: &mut Peer, r#ref: &Value, count: usize) -> BTreeSet<String> {
    let answer = peer.find(|line| line["ref"] == *r#ref);
    assert_eq!((&answer["count"], &answer["failed"]), (&json!(count), &json!(0)), "{answer}");
    let ids = answer["ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn stat(peer: &mut Peer, name: &str) -> u64 {
    let stats = peer.ask(json!({ "op": "stats" }));
    let counter = &stats["counters"][name];
    counter.as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

fn lock() -> std::sync::MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_burst_reaches_every_process_and_one_that_comes_later() {
    let _machine = lock();
    let mut peers = swarm();
    let started = Instant::now();
    let r#ref = burst(&mut peers[0], BURST, 1024);
    let ids = published(&mut peers[0], &r#ref, BURST);
    println!("{BURST} published in {:?}", started.elapsed());
    assert_eq!(ids.len(), BURST);
    for peer in &mut peers {
        assert!(*peer.wait_for_count(BURST) == ids, "another set was delivered");
    }
    println!("delivered by {PROCESSES} processes in {:?}", started.elapsed());
    let received: u64 = peers.iter_mut().map(|peer| stat(peer, "payloads_received")).sum();
    println!("{:.3} copies per delivery", received as f64 / (BURST * (PROCESSES - 1)) as f64);

    let started = Instant::now();
    let mut late = Peer::spawn(["--memory", "--bootstrap", &peers[3].listen, "--from", "earliest"]);
    late.count_deliveries();
    assert!(*late.wait_for_count(BURST) == ids, "another set was delivered to the late one");
    let received = stat(&mut late, "payloads_received");
    println!("late joiner: {:?}, {received} payloads", started.elapsed());
    assert!(received < BURST as u64 * 11 / 10, "{received} payloads for {BURST} deliveries");
}

#[test]
fn a_stopped_process_slows_nobody_and_catches_up() {
    let _machine = lock();
    let mut peers = swarm();
    let mut total = 0;
    let mut run = |peers: &mut [Peer], what: &str| {
        let started = Instant::now();
        burst(&mut peers[0], BURST, 1024);
        total += BURST;
        for peer in peers {
            peer.wait_for_count(total);
        }
        println!("{what}: {:?}", started.elapsed());
        total
    };
    run(&mut peers, "all running (first)");
    run(&mut peers, "all running");
    let mut stopped = peers.pop().unwrap();
    stopped.signal("STOP");
    run(&mut peers, "one stopped");
    let total = run(&mut peers, "one stopped (again)");
    let started = Instant::now();
    stopped.signal("CONT");
    stopped.wait_for_count(total);
    println!("caught up in {:?}", started.elapsed());
    assert!(stopped.counted == peers[0].counted, "another set was delivered");
}

#[test]
fn large_payloads_arrive_once_everywhere() {
    let _machine = lock();
    let count = if cfg!(debug_assertions) { 2 } else { 8 };
    let mut peers = swarm();
    let started = Instant::now();
    burst(&mut peers[5], count, LARGE);
    for peer in &mut peers {
        peer.wait_for_count(count);
    }
    println!("{count} payloads of 10 MiB at {PROCESSES} processes: {:?}", started.elapsed());
    let bytes: u64 = peers.iter_mut().map(|peer| stat(peer, "payload_bytes_received")).sum();
    let copies = bytes as f64 / (LARGE * count * (PROCESSES - 1)) as f64;
    println!("{copies:.3} copies per delivery");
    assert!(copies <= 1.05, "{copies} copies per delivery");
}
