//! The admin listener of the example `peer`: by `curl`, by a tester of APIs that somebody else wrote, and after
//! much use. What is not installed is left out aloud: `.ci/run` installs it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tokio::time::Instant;

use crate::clients::installed;
use crate::curl_lines::curl_lines_hold;
use crate::peer::{HANG, Peer};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A node with an admin listener, and its address.
pub(crate) fn node(flags: &[&str]) -> (Peer, String) {
    let peer = Peer::start(["--memory", "--admin", "127.0.0.1:0"].iter().chain(flags));
    let admin = peer.admin.clone().expect("an admin listener");
    (peer, admin)
}

#[test]
fn curl_lines_of_the_guide_answer_as_it_says() {
    let (node, admin) = node(&[]);
    curl_lines_hold("operating.md", "127.0.0.1:5090", &admin, 8);
    node.finish();
}

/// Says this on a connection of its own, and returns the status of the answer; `None` where there is none.
fn say(admin: &str, words: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn get(admin: &str, path: &str, more: &str) -> Option<u16> {
    let words = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n{more}\r\n");
    say(admin, &words)
}

#[test]
fn the_token_comes_from_the_environment_and_is_not_logged() {
    let flags = ["--memory", "--admin", "127.0.0.1:0", "--log", "trace"];
    let mut node = Peer::spawn_in(flags, &[("SORCHA_ADMIN_TOKEN", Path::new(TOKEN))]).ready();
    let admin = node.admin.clone().unwrap();
    let mut stderr = node.stderr();
    assert_eq!(get(&admin, "/api/v1/status", ""), Some(401));
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    assert_eq!(get(&admin, "/api/v1/status", &bearer), Some(200));
    node.finish();
    let mut logged = String::new();
    stderr.read_to_string(&mut logged).unwrap();
    assert!(logged.contains("sorcha_peer") && !logged.contains(TOKEN));
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_requests_leave_nothing_behind() {
    let (mut node, admin) = node(&[]);
    let ask = |count: usize| {
        for n in 0..count {
            let wanted = match n % 5 {
                0 => (get(&admin, "/api/v1/stats", ""), Some(200)),
                1 => (get(&admin, "/api/v1/nothing", ""), Some(404)),
                2 => (get(&admin, "/metrics", ""), Some(200)),
                3 => (say(&admin, "NONSENSE\r\n\r\n"), Some(400)),
                // Dropped in the middle of the head.
                _ => {
                    let mut stream = TcpStream::connect(&admin).unwrap();
                    stream.write_all(b"GET /livez HTT").unwrap();
                    (None, None)
                }
            };
            assert_eq!(wanted.0, wanted.1, "request {n}");
        }
    };
    ask(100);
    let (files, memory) = (node.open_files(), node.memory());
    ask(1000);
    // The listener hears of the last dropped connection a moment later.
    let started = Instant::now();
    while node.open_files() > files {
        assert!(started.elapsed() < HANG, "{} files, {files} before", node.open_files());
        node.ask(json!({ "op": "stats" }));
    }
    let grown = node.memory().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes more");
    node.finish();
}

fn schemathesis() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "schemathesis.cli"]);
    command.env("PYTHONPATH", installed().join("python-schemathesis"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command
}

#[test]
fn schemathesis_finds_nothing() {
    if !schemathesis().arg("--version").output().is_ok_and(|it| it.status.success()) {
        eprintln!("SKIPPED: schemathesis is not here; `.ci/run` installs it");
        return;
    }
    let (mut node, admin) = node(&["--admin-token", TOKEN]);
    let peer = Peer::start(["--memory", "--bootstrap", &node.listen]);
    node.wait("peer_up", |line| line["peer"] == peer.id);
    let dir = tempfile::tempdir().unwrap();
    let output = schemathesis()
        .current_dir(dir.path())
        .args(["run", &format!("http://{admin}/api/v1/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        // A stream has no end; it is tested by itself.
        .args(["--exclude-path", "/api/v1/events"])
        .args(["--max-examples", "30", "--seed", "7", "--checks", "all"])
        .args(["--request-timeout", "30"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let answer = node.ask(json!({ "op": "stats" }));
    assert_eq!(answer["event"], "stats", "it lives: {answer}");
    peer.finish();
    node.finish();
}
