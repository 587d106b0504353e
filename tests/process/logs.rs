//! Logs of the `peer` example: nobody has to read them.

use std::io::{BufRead, BufReader};

use serde_json::json;

use crate::peer::Peer;

/// Publishes at `a` until both have more to log than anybody takes. Returns the number of deliveries.
fn fill_logs(a: &mut Peer, b: &mut Peer) -> usize {
    let mut sent = 0;
    while [&mut *a, &mut *b].into_iter().any(|peer| {
        let stats = peer.ask(json!({ "op": "stats" }));
        stats["log_lines_dropped"].as_u64().unwrap() == 0
    }) {
        let op = json!({ "op": "publish_random", "topic": "load", "size": 1000, "count": 100 });
        assert_eq!(a.ask(op)["count"], 100);
        sent += 100;
        b.wait_for_count(sent);
    }
    sent
}

#[test]
fn nobody_reads_stderr_and_nothing_else_suffers() {
    let flags = ["--memory", "--log", "trace"];
    let mut a = Peer::start(flags);
    let mut b = Peer::start(flags.into_iter().chain(["--bootstrap", &a.listen]));
    b.wait("peer_up", |line| line["peer"] == a.id);
    for peer in [&mut a, &mut b] {
        peer.count_deliveries();
    }
    let sent = fill_logs(&mut a, &mut b);
    // With both pipes full, everything goes on.
    b.publish("t", "from b");
    a.publish("t", "from a");
    for peer in [&mut a, &mut b] {
        peer.wait_for_count(sent + 2);
    }
    a.signal("TERM");
    b.wait("peer_down", |line| line["peer"] == a.id && line["reason"] == "shutdown");
    assert_eq!(a.end().1, Some(0));

    // Once somebody reads, the lines that are lacking are told.
    let stderr = BufReader::new(b.stderr());
    let told = |line: &String| line.contains("log lines dropped");
    let told = stderr.lines().map(Result::unwrap).find(told).expect("it is told");
    let number: u64 = told.split_whitespace().nth(1).unwrap().parse().unwrap();
    let all = b.ask(json!({ "op": "stats" }))["log_lines_dropped"].as_u64().unwrap();
    assert!((1..=all).contains(&number), "{told}, {all} in all");
}

#[test]
fn a_closed_stderr_ends_nothing() {
    let mut peer = Peer::start(["--memory", "--log", "trace"]);
    drop(peer.stderr());
    for _ in 0..2 {
        // A dial has much to log.
        let own = peer.listen.clone();
        assert_eq!(peer.ask(json!({ "op": "connect", "address": own }))["event"], "error");
    }
    peer.until_stats(|stats| stats["log_lines_dropped"].as_u64() > Some(0));
    let id = peer.publish("t", "x");
    peer.wait_for_delivery(&id);
    peer.finish();
}
