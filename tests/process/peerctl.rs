//! The example `peerctl` against nodes with an admin listener: every command, every exit status, and the
//! terminal that `watch` gives back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peer::{HANG, Peer, example, text};

/// Time between two looks at what may not come.
const GLANCE: Duration = Duration::from_millis(100);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The program, for the listener of one node.
struct Ctl {
    admin: String,
    token: Option<&'static str>,
    no_color: bool,
}

impl Ctl {
    fn of(node: &Peer) -> Self {
        Self::at(&format!("http://{}", node.admin.as_ref().expect("an admin listener")), None)
    }

    fn at(admin: &str, token: Option<&'static str>) -> Self {
        Self { admin: admin.to_owned(), token, no_color: false }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(example("peerctl"));
        for variable in ["SORCHA_ADMIN", "SORCHA_ADMIN_TOKEN", "NO_COLOR"] {
            command.env_remove(variable);
        }
        if let Some(token) = self.token {
            command.env("SORCHA_ADMIN_TOKEN", token);
        }
        if self.no_color {
            command.env("NO_COLOR", "1");
        }
        command.args(["--admin", &self.admin]).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What is written by a command that must be done.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[&["--json"], arguments].concat())).unwrap()
    }

    /// The error of a command that must fail with this status: one line, and nothing on stdout.
    fn fails(&self, arguments: &[&str], status: i32) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        if status != 2 {
            assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
        }
        errors
    }

    /// A command that goes on until it is stopped.
    fn spawn(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let written = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = sync_channel(16);
        std::thread::spawn(move || {
            written.map(Result::unwrap).try_for_each(|line| sender.send(line))
        });
        Running { child, lines }
    }

    /// What a command does in a terminal of this size, once this text was written twice and then this key
    /// pressed or this signal sent.
    fn in_terminal(&self, size: &str, until: &str, then: &str, arguments: &[&str]) -> Value {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/clients/terminal.py");
        let command = self.command(arguments);
        let mut terminal = Command::new("python3");
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => terminal.env(variable, value),
                None => terminal.env_remove(variable),
            };
        }
        terminal.arg(script).args([size, until, then, "--"]);
        terminal.env("TERM", "xterm").arg(command.get_program()).args(command.get_args());
        let output = terminal.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn line(&self) -> String {
        self.lines.recv_timeout(HANG).expect("it goes on")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node(flags: &[&str]) -> Peer {
    Peer::start(["--memory", "--admin", "127.0.0.1:0"].iter().chain(flags))
}

#[test]
fn every_command_does_what_it_says() {
    let mut a = node(&[]);
    let b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    a.wait("peer_up", |line| line["peer"] == b.id);
    let (ctl, peer) = (Ctl::of(&a), b.id.clone());
    let start = &peer[..8];

    let status = ctl.done(&["status"]);
    assert_eq!(status.lines().count(), 2, "{status}");
    assert!(status.starts_with("sentence=") && status.contains("\nready=true "), "{status}");
    assert!(status.contains(&format!("peer_id={} network=", a.id)), "{status}");
    assert_eq!(ctl.json(&["status"])["peer_id"], a.id);

    let linked = ctl.done(&["peers"]);
    assert_eq!(linked.lines().count(), 1, "{linked}");
    assert!(linked.starts_with(&format!("peer={peer} state=up transport=grpc-stream ")));
    assert_eq!(ctl.json(&["peers"])["peers"][0]["peer"], peer);

    let tested = ctl.done(&["test", start]);
    assert!(tested.starts_with(&format!("peer={peer} transport=grpc-stream rtt_min_us=")));
    assert!(tested.contains(" sent=5 lost=0 "), "{tested}");

    // It hears of what happens once it is there: so things happen until it hears of one.
    let events = ctl.spawn(&["events"]);
    let heard = loop {
        a.ask(json!({ "op": "disconnect", "peer": peer }));
        a.ask(json!({ "op": "connect", "address": b.listen }));
        if let Ok(line) = events.lines.recv_timeout(GLANCE) {
            break line;
        }
    };
    assert!(heard.starts_with("at_ms=") && heard.contains(" event="), "{heard}");

    let banned = ctl.done(&["ban", start, "--reason", "too loud", "--for", "1h"]);
    assert_eq!(banned, format!("done=ban peer={peer}\n"));
    a.wait("peer_down", |line| line["peer"] == peer && line["reason"] == "banned");
    let gone = ctl.done(&["peers"]);
    assert!(gone.starts_with(&format!("peer={peer} state=lost reason=banned ")), "{gone}");
    let down = format!(" event=peer_down peer={peer} reason=banned\n");
    assert!(ctl.done(&["events", "--recent"]).contains(&down));
    while !events.line().contains(down.trim_end()) {}

    assert_eq!(ctl.done(&["unban", start]), format!("done=unban peer={peer}\n"));
    assert_eq!(ctl.json(&["reset-breaker", &peer]), json!({ "done": true }));
    a.ask(json!({ "op": "connect", "address": b.listen }));
    let seen = a.seen.len();
    assert_eq!(ctl.done(&["disconnect", start]), format!("done=disconnect peer={peer}\n"));
    while !a.seen[seen..].iter().any(|line| line["event"] == "peer_down") {
        assert!(a.take_line());
    }
    assert_eq!(ctl.done(&["dead-letters"]), "");
    assert_eq!(ctl.json(&["dead-letters", "list"]), json!({ "dead_letters": [], "next": null }));
    b.finish();
    a.finish();
}

#[test]
fn dead_letters_are_listed_redelivered_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let hasty = dir.path().join("hasty.toml");
    // One round, and a peer that does not answer is given the time for it.
    let patience = "[outbox]\nmax_retries = 1\n[liveness]\ntimeout = \"2m\"\n";
    std::fs::write(&hasty, patience).unwrap();
    let mut a = node(&["--config", hasty.to_str().unwrap()]);
    let b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    a.wait("peer_up", |line| line["peer"] == b.id);
    b.signal("STOP");
    let random = json!({ "op": "publish_random", "topic": "orders", "size": 2000, "count": 2 });
    let ids = a.ask(random)["ids"].clone();
    for id in ids.as_array().unwrap() {
        a.wait("dead_lettered", |line| line["id"] == *id);
    }
    let [first, second] = [&ids[0], &ids[1]].map(|id| id.as_str().unwrap().to_owned());
    let ctl = Ctl::of(&a);
    let list = ctl.done(&["dead-letters"]);
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(lines[0].starts_with(&format!("id={first} topic=orders size=2000 ")), "{list}");
    assert_eq!(ctl.json(&["dead-letters"])["dead_letters"][1]["id"], second);
    assert_eq!(
        ctl.done(&["dead-letters", "delete", &first[..12]]),
        format!("done=delete id={first}\n")
    );
    assert_eq!(
        ctl.done(&["dead-letters", "redeliver", &second]),
        format!("done=redeliver id={second}\n")
    );
    assert_eq!(ctl.done(&["dead-letters"]), "");
    for id in [&first, &second] {
        let error = ctl.fails(&["dead-letters", "delete", id], 1);
        assert!(error.starts_with("peerctl: ") && error.contains("dead letter"), "{error}");
    }
    b.signal("CONT");
    a.wait("replicated", |line| line["id"] == *second);
    b.finish();
    a.finish();
}

#[test]
fn the_life_of_a_transaction_is_told_here_and_across() {
    let mut a = node(&[]);
    // An open network tells others only where that is asked for.
    let dir = tempfile::tempdir().unwrap();
    let telling = dir.path().join("telling.toml");
    std::fs::write(&telling, "[messages]\nexplain = true\n").unwrap();
    let joins = ["--memory", "--topic", "orders", "--bootstrap", &a.listen];
    let mut b = Peer::start(joins.into_iter().chain(["--config", telling.to_str().unwrap()]));
    let mut silent = Peer::start(joins);
    for other in [&b, &silent] {
        a.wait("peer_up", |line| line["peer"] == other.id);
    }
    let id = a.publish("orders", "one widget");
    for other in [&mut b, &mut silent] {
        other.wait_for_delivery(&id);
    }
    a.wait("replicated", |line| line["id"] == id && line["peers"] == 2);
    let (id, ctl) = (id.as_str().unwrap(), Ctl::of(&a));

    let told = ctl.done(&["explain", id]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], "summary=\"Stored here and confirmed by 2 other nodes\"");
    let facts = format!("id={id} state=confirmed topic=orders size=10 origin={}", a.id);
    assert_eq!(lines[1], facts, "{told}");
    let has = |what: &str| lines[2..].iter().any(|line| line.contains(what));
    assert!(has(" what=published") && !told.contains("elsewhere="), "{told}");
    for other in [&b.id, &silent.id] {
        assert!(has(&format!(" what=confirmed peer={other} transport=grpc-stream")), "{told}");
    }

    let across = ctl.done(&["explain", &id.to_uppercase(), "--across"]);
    let there = format!("elsewhere={} state=stored summary=\"Stored here, received from ", b.id);
    assert!(across.lines().any(|line| line.starts_with(&there)), "{across}");
    assert!(across.ends_with(&format!("not_told={}\n", silent.id)), "{across}");
    assert!(across.contains("Of 2 peers asked, 1 has it, 1 did not tell"), "{across}");

    let json = ctl.json(&["explain", id]);
    assert_eq!(
        (&json["id"], &json["state"], &json["own"]),
        (&json!(id), &json!("confirmed"), &json!(true))
    );
    assert_eq!((&json["elsewhere"], &json["not_told"]), (&json!({}), &json!([])));
    let json = ctl.json(&["explain", id, "--across"]);
    assert_eq!(json["elsewhere"][&b.id]["state"], "stored", "{json}");
    assert_eq!(json["not_told"], json!([silent.id]));

    // What nobody knows is no error.
    let unknown = "00".repeat(32);
    let told = ctl.done(&["explain", &unknown]);
    assert!(told.starts_with("summary=\"Not heard of: "), "{told}");
    assert!(told.contains(&format!("\nid={unknown} state=unknown")), "{told}");
    let json = ctl.json(&["explain", &unknown, "--across"]);
    assert_eq!((&json["state"], &json["steps"]), (&json!("unknown"), &json!([])));
    assert_eq!(json["elsewhere"][&b.id]["state"], "unknown", "{json}");
    for peer in [silent, b, a] {
        peer.finish();
    }
}

#[test]
fn the_exit_status_and_one_line_say_what_is_wrong() {
    let a = node(&["--admin-token", TOKEN]);
    let admin = Ctl::of(&a).admin;
    let right = Ctl::at(&admin, Some(TOKEN));
    assert!(right.done(&["status"]).contains("actions=true"));

    let nobody = "5f".repeat(32);
    let unknown = right.fails(&["test", &nobody], 1);
    assert!(unknown.starts_with("peerctl: "), "{unknown}");
    let unknown = right.fails(&["test", "5f5f"], 1);
    assert!(unknown.contains("`peerctl peers` begins with 5f5f"), "{unknown}");
    let own = a.id.clone();
    right.fails(&["ban", &own, "--reason", "itself"], 1);

    for (arguments, said) in [
        (&["explain", "5f"][..], "64 hexadecimal digits"),
        (&["explain", &nobody[..62]], "64 hexadecimal digits"),
        (&["test", "peer1"], "the first 4 or more"),
        (&["ban", &nobody], "--reason"),
        (&["ban", &nobody, "--reason", "r", "--for", "soon"], "30min, 1h or 2days"),
        (&["ban", &nobody, "--reason", "r", "--for", "5ms"], "a second at least"),
        (&["dance"], "dance"),
        (&[], "Usage"),
    ] {
        let error = right.fails(arguments, 2);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    for (admin, said) in [
        ("https://127.0.0.1:1", "speaks no TLS"),
        ("127.0.0.1:1", "http://"),
        ("http://127.0.0.1:1/metrics", "nothing stands behind the port"),
    ] {
        assert!(Ctl::at(admin, None).fails(&["status"], 2).contains(said), "{admin}");
    }

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = something_else();
    for (address, said) in [(closed, "--admin"), (stranger, "no admin listener")] {
        for command in [&["status"][..], &["watch"], &["events"], &["unban", &nobody]] {
            let error = Ctl::at(&format!("http://{address}"), None).fails(command, 3);
            assert!(error.contains(said), "{command:?}: {error}");
        }
    }

    let wrong = "fedcba9876543210fedcba9876543210";
    for (token, said) in [(None, "set SORCHA_ADMIN_TOKEN"), (Some(wrong), "admin_token")] {
        for command in [&["status"][..], &["watch"], &["events"], &["unban", &nobody]] {
            let error = Ctl::at(&admin, token).fails(command, 4);
            assert!(error.contains(said) && !error.contains(wrong), "{command:?}: {error}");
        }
    }
    a.finish();

    // Not ready: it knows of somebody, and is linked with nobody.
    let alone = node(&["--bootstrap", &closed.to_string()]);
    let output = Ctl::of(&alone).output(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("ready=false "));
    alone.finish();
}

/// The address of a server of something else.
fn something_else() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(
                b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
            );
        }
    });
    address
}

#[test]
fn watch_writes_a_line_a_second_where_there_is_no_terminal() {
    let a = node(&[]);
    let ctl = Ctl::of(&a);
    let watch = ctl.spawn(&["watch"]);
    for _ in 0..2 {
        let line = watch.line();
        assert!(line.starts_with("at_ms=") && line.contains(" mode=offline ready=true links=0 "));
    }
    let watch = ctl.spawn(&["--json", "watch"]);
    let seen: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(seen["status"]["peer_id"], a.id);
    assert!(seen["stats"]["drops"].is_object(), "{seen}");
    a.finish();
}

#[test]
fn a_terminal_has_tables_in_colour_unless_somebody_wants_none() {
    let mut a = node(&[]);
    let b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    a.wait("peer_up", |line| line["peer"] == b.id);
    let ctl = Ctl::of(&a);
    let colourful = ctl.in_terminal("100x24", "never", "q", &["peers"]);
    let output = text(&colourful, "output");
    assert!(output.starts_with("\x1b[1mPEER") && output.contains(&b.id[..12]), "{output}");
    assert!(output.lines().count() == 2 && !output.contains(&b.id), "{output}");
    let narrow = ctl.in_terminal("20x24", "never", "q", &["peers"]);
    let plain = text(&narrow, "output").replace("\x1b[1m", "").replace("\x1b[0m", "");
    assert_eq!(plain.lines().map(|line| line.trim_end().len()).max(), Some(19), "{plain}");
    let ctl = Ctl { no_color: true, ..ctl };
    let plain = text(&ctl.in_terminal("100x24", "never", "q", &["status"]), "output");
    assert!(!plain.contains('\x1b') && plain.contains("you may act  yes"), "{plain}");
    b.finish();
    a.finish();
}

#[test]
fn watch_gives_the_terminal_back_however_it_ends() {
    let a = node(&[]);
    let ctl = Ctl::of(&a);
    // A key, Ctrl-C, the end of input, and signals.
    for (size, then) in [
        ("80x24", "q"),
        ("80x24", "\\x03"),
        ("20x5", "\\x04"),
        ("80x24", "SIGTERM"),
        ("80x24", "SIGHUP"),
    ] {
        let ended = ctl.in_terminal(size, "q ends it", then, &["watch"]);
        assert_eq!((&ended["status"], &ended["restored"]), (&json!(0), &json!(true)), "{then}");
        let output = text(&ended, "output");
        let (entered, left) = ("\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l");
        assert!(output.starts_with(entered) && output.ends_with(left), "{then}: {output:?}");
        if size == "80x24" {
            for shown in ["delivered", "published", "p99", "outbox", "dropped", "No peer"] {
                assert!(output.contains(shown), "{shown}: {output:?}");
            }
        }
    }
    a.finish();
}
