//! Requests from one process to another.

use serde_json::{Value, json};

use crate::peer::{Peer, of};

#[test]
fn a_process_asks_another_and_is_answered() {
    let mut a = Peer::start(["--memory", "--serve", "echo", "--serve", "also.this"]);
    let mut b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    let a_id = a.id.clone();
    let ask = |protocol: &str, what: Value| {
        let mut line = json!({ "op": "request", "peer": a_id, "protocol": protocol });
        line.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        line
    };
    let answer = b.ask(ask("echo", json!({ "text": "Grüße" })));
    assert_eq!((&answer["event"], &answer["base64"]), (&json!("response"), &json!("R3LDvMOfZQ==")));
    let answer = b.ask(ask("also.this", json!({ "base64": "/wA=", "timeout_ms": 20_000 })));
    assert_eq!(answer["base64"], "/wA=");
    let requested = a.wait("requested", |line| line["protocol"] == "also.this");
    assert_eq!((&requested["peer"], &requested["size"]), (&json!(b.id), &json!(2)));

    for (line, why) in [
        (ask("other", json!({ "text": "" })), "does not serve"),
        (ask("two words", json!({ "text": "" })), "printable ASCII"),
        (ask("echo", json!({ "text": "x".repeat((1 << 20) + 1) })), "messages.max_bytes"),
        (ask("echo", json!({})), "exactly one of text and base64"),
        (ask("echo", json!({ "text": "", "base64": "" })), "exactly one of text and base64"),
        (ask("echo", json!({ "base64": "?" })), "base64"),
        (ask("echo", json!({ "text": "", "file": "/etc/hostname" })), "unknown field"),
        (ask("echo", json!({ "text": "", "timeout_ms": -1 })), "invalid value"),
        (ask("echo", json!({ "text": "", "peer": "00".repeat(32) })), "no peer of this id"),
        (ask("echo", json!({ "text": "", "peer": b.id })), "itself"),
    ] {
        let refused = b.ask(line);
        assert_eq!(refused["event"], "error");
        assert!(refused["error"].as_str().unwrap().contains(why), "{why}: {refused}");
    }
    // What was read is done first, also where input ends at once.
    let body = "y".repeat(1 << 20);
    b.send(ask("echo", json!({ "text": body })));
    let lines = b.finish();
    let last = of(&lines, "response").last().copied().unwrap().clone();
    assert_eq!(last["base64"].as_str().unwrap().len(), (1_usize << 20).div_ceil(3) * 4);
    let asked = of(&a.finish(), "requested").len();
    assert_eq!(asked, 3);
}

#[test]
fn a_protocol_that_cannot_be_served_is_told_at_the_start() {
    for (names, why) in
        [(["--serve", "two words"], "printable ASCII"), (["--serve", ""], "printable")]
    {
        let (_, status, log) = Peer::spawn(["--memory"].iter().chain(&names)).end();
        assert_eq!(status, Some(1));
        assert!(log.contains(why), "{log}");
    }
    let (_, status, log) = Peer::spawn(["--memory", "--serve", "p", "--serve", "p"]).end();
    assert_eq!(status, Some(1));
    assert!(log.contains("has a handler already"), "{log}");
}
