//! What a process learns of its addresses, and tells.

use serde_json::json;
use tokio::runtime::Runtime;

use crate::peer::Peer;
use crate::stun_server::{response, serve};

#[test]
fn a_process_tells_what_servers_see_and_all_that_it_knows_of_its_addresses() {
    let runtime = Runtime::new().unwrap();
    let seen = "203.0.113.7:40000".parse().unwrap();
    let server = serve("127.0.0.1:0", move |request, _| response(request, seen));
    let (server, _answering) = runtime.block_on(server).unwrap();
    let server = server.to_string();
    let flags = ["--memory", "--listen", "0.0.0.0:0", "--stun", &server, "--stun", "127.0.0.1:9"];
    let mut peer = Peer::start(flags);
    let line = peer.wait("reachability", |line| line["prober"].is_string());
    assert_eq!(line["address"], "203.0.113.7:40000");
    assert_eq!(line["prober"], format!("stun:{server}"));

    // One of two servers is silent, and nobody confirms what the other one says.
    let report = peer.ask(json!({ "op": "reachability" }));
    assert_eq!(report["event"], "reachability", "{report}");
    assert_eq!(report["state"], "unknown");
    assert_eq!(report["listening"], json!([peer.listen]));
    assert!(report["candidates"].is_array() && report["nat"].is_array(), "{report}");
    let why = report["failed"]["stun"].as_str().unwrap();
    assert!(why.contains("203.0.113.7") && why.contains("nobody confirms"), "{why}");
    let refused = peer.ask(json!({ "op": "reachability", "peer": peer.id }));
    assert!(refused["error"].as_str().unwrap().contains("unknown field"), "{refused}");
    let stats = peer.ask(json!({ "op": "stats" }));
    assert_eq!(stats["reachability"]["state"], "unknown", "{stats}");
    peer.finish();
}

#[test]
fn one_server_alone_is_believed_and_what_it_says_waits_for_a_proof() {
    let runtime = Runtime::new().unwrap();
    let seen = "203.0.113.7:40000".parse().unwrap();
    let server = serve("127.0.0.1:0", move |request, _| response(request, seen));
    let (server, _answering) = runtime.block_on(server).unwrap();
    let server = server.to_string();
    let flags = ["--memory", "--listen", "0.0.0.0:0", "--stun", &server];
    let mut peer = Peer::start(flags);
    peer.wait("reachability", |line| line["prober"].is_string());
    let port = peer.listen.rsplit(':').next().unwrap().to_owned();
    let endpoint = format!("203.0.113.7:{port}");
    // The node is told of candidates before its host.
    let report = peer.ask(json!({ "op": "reachability" }));
    let candidates = report["candidates"].as_array().unwrap();
    let candidate = candidates.iter().find(|it| it["endpoint"] == *endpoint).unwrap();
    assert_eq!(candidate["source"], "stun", "{report}");
    assert_eq!(candidate["state"], "waiting", "{candidate}");
    assert!(candidate["why"].as_str().is_some_and(|why| !why.is_empty()), "{candidate}");
    let advertised = report["advertised"].as_array().unwrap();
    assert!(!advertised.contains(&json!(endpoint)), "{report}");
    peer.finish();
}

#[test]
fn servers_that_cannot_be_asked_end_it_and_no_password_is_shown() {
    let ends = |flags: &[&str]| {
        let (_, status, log) = Peer::spawn(["--memory"].iter().chain(flags)).end();
        (status, log)
    };
    assert_eq!(ends(&["--stun", "http://h"]).0, Some(2));
    let (status, log) = ends(&["--http-lookup", "h"]);
    assert_eq!(status, Some(1));
    assert!(log.contains("nat.http"), "{log}");
    for relay in ["turn:me:hunter2", "turn:me:hunter2@h:0", "me:hunter2@h"] {
        let (status, log) = ends(&["--relay", relay]);
        assert_eq!(status, Some(1));
        assert!(log.contains("nat.relays") && !log.contains("hunter2"), "{log}");
    }
}
