//! Programs of a network with a secret, and one that does not know it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

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
    // Most of a damaged invite is still the secret.
    let (cut, headless) = (&invite[..invite.len() - 1], &invite[1..]);
    fs::write(&file, cut).unwrap();
    let damaged = "the invite is damaged";
    for (source, said) in [(cut, damaged), (headless, "no file"), (file.to_str().unwrap(), damaged)]
    {
        let (_, status, log) = Peer::spawn(["--memory", "--join", source]).end();
        assert_eq!(status, Some(2), "{log}");
        assert!(log.contains(said) && !log.contains(&invite[20..40]), "{log}");
    }
}

#[test]
fn a_secret_in_the_configuration_file_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer.toml");
    for (trust, said) in [
        ("{ secret = \"hunter2\" }", "unknown field `secret`"),
        ("\"hunter2\"", "trust is another word"),
        ("{ secret_file = \"hunter2\", secret_file = \"hunter2\" }", "duplicate key"),
    ] {
        fs::write(&path, format!("# peer\n[network]\ntrust = {trust}\n")).unwrap();
        let flags = ["--memory", "--config", path.to_str().unwrap()];
        let (lines, status, log) = Peer::spawn(flags).end();
        assert_eq!(status, Some(1), "{log}");
        for told in [&text(&lines[0], "error"), &log] {
            assert!(told.contains(said) && told.contains("peer.toml, line 3, column "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}

#[test]
fn a_secret_file_is_named_where_it_is_too_short_and_warned_of_where_others_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.secret");
    let flags = ["--memory", "--secret-file", path.to_str().unwrap()];
    fs::write(&path, "").unwrap();
    let (lines, status, log) = Peer::spawn(flags).end();
    assert_eq!(status, Some(1), "{log}");
    assert!(text(&lines[0], "error").contains("network.secret has 0"), "{lines:?}");
    fs::write(&path, "0123456789abcdef").unwrap();
    for (mode, times) in [(0o600, 0), (0o640, 0), (0o604, 1)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut peer = Peer::start(flags);
        peer.stdin = None;
        let (_, _, log) = peer.end();
        assert_eq!(log.matches("rights to a network secret").count(), times, "{mode:o}: {log}");
    }
}

#[test]
fn flags_that_replace_the_trust_of_the_file_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.secret");
    NetworkSecret::generate().unwrap().save(&path).unwrap();
    let secret = path.to_str().unwrap();
    let mut first = Peer::start(["--memory", "--secret-file", secret]);
    let invite = text(&first.ask(json!({ "op": "invite" })), "invite");
    let config = dir.path().join("peer.toml");
    let allow = format!("allow = [\"{}\"]", first.id);
    let file = format!("secret_file = {secret:?}");
    for (trust, flag, value, times) in [
        (&allow, "--secret-file", secret, 1),
        (&allow, "--join", invite.as_str(), 1),
        (&file, "--join", invite.as_str(), 1),
        (&file, "--topic", "t", 0),
    ] {
        fs::write(&config, format!("[network]\ntrust = {{ {trust} }}\n")).unwrap();
        let mut peer = Peer::start(["--memory", "--config", config.to_str().unwrap(), flag, value]);
        peer.stdin = None;
        let (_, status, log) = peer.end();
        assert_eq!(status, Some(0), "{log}");
        let told = format!("{flag} replaces the `trust` of --config");
        assert_eq!(log.matches(&told).count(), times, "{trust}: {log}");
    }
    first.finish();
}
