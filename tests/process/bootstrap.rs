//! What the program says, without any flag about it, of a bootstrap peer that it cannot link with.

use std::io::{BufRead as _, BufReader};

use crate::peer::{HANG, Peer};

/// Waits for a line of the log with all of these words, and returns it.
fn logged(peer: &mut Peer, words: &[&str]) -> String {
    let mut lines = BufReader::new(peer.stderr()).lines();
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let (found, find) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        let _ = found.send(lines.find_map(|line| line.ok().filter(fits)));
    });
    find.recv_timeout(HANG).ok().flatten().expect("a line about the bootstrap peer")
}

const TOLD: &str = "no link with a bootstrap peer";

#[test]
fn a_wrong_port_is_said() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut peer = Peer::start(["--memory", "--bootstrap", &closed.to_string()]);
    let line = logged(&mut peer, &["WARN", TOLD, &closed.to_string(), "unreachable"]);
    assert!(line.contains("refused") && line.contains("failures=1"), "{line}");
}

#[test]
fn a_name_that_does_not_resolve_is_said() {
    let mut peer = Peer::start(["--memory", "--bootstrap", "nowhere.invalid:5001"]);
    let line = logged(&mut peer, &["WARN", TOLD, "nowhere.invalid:5001"]);
    assert!(line.contains("cannot resolve"), "{line}");
}

#[test]
fn another_network_is_said() {
    let other = Peer::start(["--memory", "--network", "other"]);
    let mut peer = Peer::start(["--memory", "--bootstrap", &other.listen]);
    let log = logged(&mut peer, &["WARN", TOLD, &other.listen, "wrong_network"]);
    assert!(!log.contains("failure=\"\""), "no words, no field: {log}");
}
