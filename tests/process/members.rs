//! Programs of a network with a secret, and one that does not know it.

use std::fs;

use serde_json::json;
use sorcha_peer::NetworkSecret;

use crate::peer::{Peer, of, text};

#[test]
fn a_stranger_sees_nothing_and_both_logs_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.secret");
    NetworkSecret::generate().unwrap().save(&path).unwrap();
    let secret = path.to_str().unwrap();
    let mut first = Peer::start(["--memory", "--secret-file", secret]);
    let join = |seed: &str| Peer::start(["--memory", "--secret-file", secret, "--bootstrap", seed]);
    let (mut second, mut third) = (join(&first.listen), join(&first.listen));
    for peer in [&mut second, &mut third] {
        peer.wait("peer_up", |_| true);
    }
    let early = first.publish("orders", "before the stranger came");
    let mut stranger =
        Peer::start(["--memory", "--from", "earliest", "--bootstrap", &first.listen]);
    stranger.until_stats(|stats| stats["counters"]["dials_failed"].as_u64() > Some(0));
    let late = first.publish("orders", "while it was at the door");
    for peer in [&mut second, &mut third] {
        peer.wait_for_delivery(&early);
        peer.wait_for_delivery(&late);
    }
    let refused = stranger.ask(json!({ "op": "connect", "address": second.listen }));
    assert!(text(&refused, "error").contains("not_member"), "{refused}");
    let stats = stranger.ask(json!({ "op": "stats" }));
    for nothing in ["links", "known_peers", "retained"] {
        assert_eq!(stats[nothing], 0, "{nothing}: {stats}");
    }
    stranger.stdin = None;
    let (lines, status, log) = stranger.end();
    assert_eq!(status, Some(0), "{log}");
    assert!(of(&lines, "delivered").is_empty() && of(&lines, "peer_up").is_empty(), "{lines:?}");
    assert!(log.contains("not_member"), "{log}");
    first.stdin = None;
    let (_, _, log) = first.end();
    assert!(log.contains("not_member") && log.contains("network.trust"), "{log}");
    let secret = fs::read_to_string(&path).unwrap();
    assert!(!log.contains(secret.trim()), "the secret stands in no log");
}

#[test]
fn an_invite_lets_a_newcomer_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.secret");
    NetworkSecret::generate().unwrap().save(&path).unwrap();
    let config = dir.path().join("peer.toml");
    let trust = format!("[network]\nname = \"shop\"\ntrust = {{ secret_file = {path:?} }}\n");
    fs::write(&config, trust).unwrap();
    let mut first = Peer::start(["--memory", "--config", config.to_str().unwrap()]);
    let answer = first.ask(json!({ "op": "invite" }));
    assert_eq!(answer["event"], "invite", "{answer}");
    let invite = text(&answer, "invite");
    // From the command line, and from a file.
    let file = dir.path().join("invite");
    fs::write(&file, format!("{invite}\n")).unwrap();
    for source in [invite.as_str(), file.to_str().unwrap()] {
        let mut newcomer = Peer::start(["--memory", "--join", source]);
        newcomer.wait("peer_up", |line| line["peer"] == first.id.as_str());
    }
    let (_, status, log) = Peer::spawn(["--memory", "--join", "sorcha:AQAE"]).end();
    assert_eq!(status, Some(2), "{log}");
    assert!(log.contains("the invite is damaged"), "{log}");
}
