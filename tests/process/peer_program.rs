//! The `peer` example as other programs see it: real processes, real sockets, JSON lines.
//!
//! Nothing sleeps here: everything waits for a line or for the end of a process, with one limit
//! that only a hang reaches.

use std::collections::BTreeSet;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peer::{Peer, delivered, example, of, sha256, text};

#[test]
fn two_processes_find_each_other_and_deliver_once() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let dir = |i: usize| dirs[i].path().to_str().unwrap();
    let mut a = Peer::start(["--data-dir", dir(0)]);
    let flags = ["--data-dir", dir(1), "--bootstrap", &a.listen, "--payloads", "--text"];
    let mut b = Peer::start(flags);

    let up = b.wait("peer_up", |line| line["peer"] == a.id);
    assert_eq!(up["transport"], "grpc-stream");
    assert_eq!(up["direction"], "outbound");
    assert_eq!(up["address"], a.listen);
    a.wait("peer_up", |line| line["peer"] == b.id && line["direction"] == "inbound");
    b.wait("mode", |line| line["mode"] == "degraded");

    let there = a.publish("orders", "from a");
    let got = b.wait_for_delivery(&there);
    assert_eq!(got["topic"], "orders");
    assert_eq!(got["origin"], a.id);
    assert_eq!(got["from"], a.id);
    assert_eq!(got["hops"], 1);
    assert_eq!(got["size"], 6);
    assert_eq!(got["sha256"], sha256(b"from a"));
    assert_eq!((&got["payload"], &got["text"]), (&json!("ZnJvbSBh"), &json!("from a")));
    let own = a.wait_for_delivery(&there);
    assert_eq!(own["from"], Value::Null);
    assert_eq!(own["hops"], 0);
    assert_eq!(own["sha256"], got["sha256"]);
    for field in ["payload", "text"] {
        assert!(own.get(field).is_none(), "{field} only where it is asked for");
    }
    a.wait("replicated", |line| line["id"] == there && line["peers"] == 1);

    let no_text = b.ask(json!({ "op": "publish", "topic": "orders", "base64": "/w==" }));
    let no_text = b.wait_for_delivery(&no_text["id"]);
    assert_eq!((&no_text["payload"], no_text.get("text")), (&json!("/w=="), None));
    let back = b.publish("orders", "from b");
    a.wait_for_delivery(&back);
    let peers = a.ask(json!({ "op": "peers" }));
    assert_eq!(peers["peers"][0]["peer"], b.id);
    assert_eq!(peers["peers"][0]["breaker"], "closed");
    assert_eq!(peers["breakers"], json!([]));
    let stats = a.ask(json!({ "op": "stats" }));
    assert_eq!(stats["links"], 1);
    assert_eq!(stats["counters"]["transactions_accepted"], 2);
    assert_eq!(stats["log_lines_dropped"], 0);

    let b_id = b.id.clone();
    let all: BTreeSet<_> =
        [&there, &no_text["id"], &back].map(|id| id.as_str().unwrap().to_owned()).into();
    assert_eq!(delivered(&b.finish()), all);
    a.wait("peer_down", |line| line["peer"] == b_id && line["reason"] == "shutdown");
    assert_eq!(delivered(&a.finish()), all);
}

#[test]
fn metrics_are_the_figures_and_name_nobody() {
    let mut a = Peer::in_memory();
    let mut b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    let there = a.publish("orders", "from a");
    b.wait_for_delivery(&there);
    let metrics = b.ask(json!({ "op": "metrics" }));
    assert_eq!(metrics["event"], "metrics");
    let text = metrics["text"].as_str().unwrap();
    for line in [
        "# TYPE sorcha_peer_transactions_accepted_total counter",
        "sorcha_peer_transactions_accepted_total 1",
        "sorcha_peer_links{transport=\"grpc-stream\",direction=\"outbound\"} 1",
        "sorcha_peer_mode{mode=\"offline\"} 0",
        "sorcha_peer_log_transactions 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}: {text}");
    }
    for private in [a.id.as_str(), &b.id, &a.listen, there.as_str().unwrap(), "orders"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
    let error = b.ask(json!({ "op": "metrics", "peer": a.id }));
    assert_eq!(error["event"], "error", "{error}");
    b.finish();
    a.finish();
}

#[test]
fn a_link_is_measured_when_asked() {
    let mut a = Peer::in_memory();
    let mut b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    let tested = b.ask(json!({ "op": "test_peer", "peer": a.id }));
    assert_eq!((&tested["event"], &tested["peer"]), (&json!("tested"), &json!(a.id)));
    assert_eq!((&tested["sent"], &tested["lost"]), (&json!(5), &json!(0)));
    for figure in ["rtt_avg_us", "bytes_per_second", "incoming_bytes_per_second"] {
        assert!(tested[figure].as_u64().unwrap() > 0, "{figure}: {tested}");
    }
    for (peer, why) in [(b.id.clone(), "known"), ("00".repeat(32), "known")] {
        let refused = b.ask(json!({ "op": "test_peer", "peer": peer }));
        assert_eq!(refused["event"], "error");
        assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");
    }
    let reset = a.ask(json!({ "op": "reset_breaker", "peer": b.id }));
    assert_eq!((&reset["event"], &reset["op"]), (&json!("ok"), &json!("reset_breaker")));
}

#[test]
fn who_cannot_be_reached_is_listed_with_its_breaker() {
    let mut peer = Peer::in_memory();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connect = json!({ "op": "connect", "address": closed.to_string() });
    for _ in 0..5 {
        assert_eq!(peer.ask(connect.clone())["event"], "error");
    }
    peer.wait("breaker_opened", |line| line["address"] == closed.to_string());
    let refused = peer.ask(connect);
    assert!(refused["error"].as_str().unwrap().contains("did not answer lately"), "{refused}");
    let breakers = &peer.ask(json!({ "op": "peers" }))["breakers"];
    assert_eq!(breakers[0]["address"], closed.to_string(), "{breakers}");
    assert_eq!((&breakers[0]["state"], &breakers[0]["peer"]), (&json!("open"), &Value::Null));
    assert_eq!(breakers[0]["failures"], 5);
}

#[test]
fn a_killed_process_finds_its_way_back_without_bootstrap() {
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let mut a = Peer::in_memory();
    let mut b = Peer::start(data.into_iter().chain(["--bootstrap", &a.listen]));
    b.wait("peer_up", |line| line["peer"] == a.id);
    let first = a.publish("t", "before");
    b.wait_for_delivery(&first);
    // Its own work makes sure that what it knows of `a` is on the disk.
    let second = b.publish("t", "before, too");
    a.wait_for_delivery(&second);
    let id = b.id.clone();
    b.kill();

    let third = a.publish("t", "while it was away");
    // A new port: only `b` can find `a`, not the other way round.
    let mut b = Peer::start(data.into_iter().chain(["--from", "earliest"]));
    assert_eq!(b.id, id, "the key is kept");
    let up = b.wait("peer_up", |line| line["peer"] == a.id);
    assert_eq!(up["direction"], "outbound");
    b.wait_for_delivery(&third);
    let fourth = b.publish("t", "after");
    a.wait_for_delivery(&fourth);
    delivered(&b.finish());
    assert_eq!(delivered(&a.finish()).len(), 4);
}

#[test]
fn a_data_directory_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", dir.path().to_str().unwrap()];
    let first = Peer::start(flags);
    let (lines, status, log) = Peer::spawn(flags).end();
    assert_eq!(status, Some(1));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["event"], "error");
    assert_eq!(lines[0]["ref"], Value::Null);
    for told in [&text(&lines[0], "error"), &log] {
        assert!(told.contains("in use by another process"), "{told}");
    }
    first.finish();
    Peer::start(flags).finish();
}

#[test]
fn dead_letters_are_listed_even_where_there_are_none() {
    let mut peer = Peer::in_memory();
    let answer = peer.ask(json!({ "op": "dead_letters" }));
    assert_eq!((&answer["event"], &answer["dead_letters"]), (&json!("dead_letters"), &json!([])));
    let id = peer.publish("t", "not dead");
    for op in ["redeliver", "delete_dead_letter"] {
        let answer = peer.ask(json!({ "op": op, "id": id }));
        assert_eq!(answer["event"], "error");
        assert!(text(&answer, "error").contains("no dead letter"), "{answer}");
    }
    peer.finish();
}

#[test]
fn bad_lines_are_answered_and_the_program_lives() {
    let mut peer = Peer::in_memory();
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(r#"{{"op":"publish","ref":7,"topic":{nested}}}"#);
    let own = json!({ "op": "ban", "ref": 7, "peer": peer.id }).to_string();
    let mut many = r#"{"op":"stats","ref":7"#.to_owned();
    for n in 0..32 {
        write!(many, r#","f{n}":{n}"#).unwrap();
    }
    many.push('}');
    for (line, said) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        (r#"{"ref":7}"#, "missing field `op`"),
        (r#"{"op":"dance","ref":7}"#, "unknown variant `dance`"),
        (r#"{"op":"stats","ref":7,"later":1}"#, "unknown field `later`"),
        (r#"{"op":"publish","ref":7,"topic":"t","txt":"x"}"#, "unknown field `txt`"),
        (r#"{"op":"peers","ref":7,"of":"t"}"#, "unknown field `of`"),
        (&deep, "recursion limit"),
        (&many, "more than 32 fields"),
        (r#"{"op":"publish","ref":7,"text":"x"}"#, "missing field `topic`"),
        (r#"{"op":"publish","ref":7,"topic":"t"}"#, "exactly one of"),
        (r#"{"op":"publish","ref":7,"topic":"t","text":"x","file":"y"}"#, "exactly one of"),
        (r#"{"op":"publish","ref":7,"topic":"t","base64":"?"}"#, "base64"),
        (r#"{"op":"publish_random","ref":7,"topic":"t","size":-1,"count":1}"#, "-1"),
        (r#"{"op":"ban","ref":7,"peer":"12"}"#, "64 hexadecimal digits"),
        (&own, "cannot ban itself"),
        (r#"{"op":"connect","ref":7,"address":"a:b:c"}"#, "port"),
        (r#"{"op":"dead_letters","ref":7,"limit":-1}"#, "-1"),
        (r#"{"op":"redeliver","ref":7,"id":"12"}"#, "64 hexadecimal digits"),
    ] {
        let known = peer.seen.len();
        peer.write(format!("{line}\n").as_bytes());
        while !peer.seen[known..].iter().any(|line| line["event"] == "error") {
            assert!(peer.take_line());
        }
        let answer = of(&peer.seen[known..], "error")[0];
        assert_eq!(answer["ref"], if line.contains("ref") { 7.into() } else { Value::Null });
        assert!(text(answer, "error").contains(said), "{line}: {answer}");
    }
    peer.write(b"\"\xff\xfe\"\n");
    // The longest line and one byte more.
    peer.write(&vec![b' '; (64 << 20) + 1]);
    peer.write(b"\n");
    peer.wait("error", |line| line["error"].as_str().unwrap().contains("longer than"));
    let (long, missing) = ("t".repeat(256), "/does/not/exist");
    for line in [
        json!({ "op": "publish", "topic": long, "text": "x" }),
        json!({ "op": "publish", "topic": "", "text": "x" }),
        json!({ "op": "publish", "topic": "t", "file": missing }),
        json!({ "op": "publish", "topic": "t", "file": "/dev/zero" }),
        json!({ "op": "publish_random", "topic": "t", "size": 1_u64 << 40, "count": 1 }),
        json!({ "op": "publish_random", "topic": long, "size": 1, "count": 5 }),
    ] {
        assert_eq!(peer.ask(line)["event"], "publish_failed");
    }
    let lines = peer.finish();
    assert_eq!(of(&lines, "error").len(), 22);
    assert_eq!(of(&lines, "delivered").len(), 0);
    let failed: Vec<_> = of(&lines, "publish_failed").iter().map(|f| text(f, "error")).collect();
    assert!(failed[1].contains("the topic is empty"), "{failed:?}");
}

#[test]
fn refs_are_echoed_as_they_were_written() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let refs = [
        "18446744073709551616",
        "-1E400",
        "1.00000000000000000001",
        "-0",
        r#""\u00e9 \ud800 \/""#,
        r#"{ "b" : [ 1 ,2 ], "a":{}, "a":null }"#,
        "true",
        &deep,
    ];
    let mut lines = String::new();
    for r#ref in refs {
        for rest in
            [r#""op":"stats""#, r#""op":"dance""#, r#""op":"publish","topic":"t","text":"x""#]
        {
            writeln!(lines, r#"{{"ref":{ref},{rest}}}"#).unwrap();
        }
    }
    let answers = answers_to(&lines);
    for r#ref in refs {
        let echo = format!(r#""ref":{ref},"#);
        let echoes: Vec<_> = answers.iter().filter(|line| line.contains(&echo)).collect();
        let of = |event: &str| echoes.iter().filter(|line| line.contains(event)).count();
        let events = [r#""event":"stats""#, r#""event":"error""#, r#""event":"published""#].map(of);
        assert_eq!(events, [1, 1, 1], "{ref:.60}");
    }
}

/// Lines out for these lines in, as they were written.
fn answers_to(lines: &str) -> Vec<String> {
    let mut child = Command::new(example("peer"))
        .args(["--memory", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_help_lists_what_there_is() {
    let output = Command::new(example("peer")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for there in ["--listen", "--http", "grpc-stream", "websocket", "grpc-unary", "rest", "--admin"]
    {
        assert!(help.contains(there), "{there}: {help}");
    }
    assert!(!help.contains("not available"), "{help}");
}

#[test]
fn a_name_of_this_machine_is_listened_on() {
    let a = Peer::start(["--memory", "--listen", "localhost:0"]);
    assert!(a.listen.starts_with("127.0.0.1:"), "{}", a.listen);
    let port = a.listen.rsplit_once(':').unwrap().1;
    let mut b = Peer::start(["--memory", "--bootstrap", &format!("localhost:{port}")]);
    b.wait("peer_up", |line| line["peer"] == a.id);
    b.finish();
    a.finish();
}

#[test]
fn every_line_is_answered_once_and_accepted_in_order() {
    const LINES: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("payload");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    let mut peer = Peer::start(["--memory", "--topic", "t", "--topic", "u"]);
    let mut refs = Vec::new();
    for i in 0..LINES {
        // All sorts of payloads, at most one of a kind in a row; and what is not published.
        let line = match i % 5 {
            0 => json!({ "op": "publish", "topic": "t", "text": i.to_string() }),
            1 => json!({ "op": "publish", "topic": "t", "file": file }),
            2 => json!({ "op": "publish_random", "topic": "t", "size": 10, "count": 3 }),
            3 => json!({ "op": "publish", "topic": "u", "base64": "AAEC" }),
            _ => json!({ "op": "publish", "topic": "not delivered", "text": "x" }),
        };
        refs.push(peer.send(line));
        if i % 100 == 0 {
            refs.push(peer.send(json!({ "op": "stats" })));
            refs.push(peer.send(json!({ "op": "unban", "peer": "00".repeat(32) })));
        }
    }
    let last = peer.send(json!({ "op": "shutdown" }));
    let (lines, status, log) = peer.end();
    assert_eq!(status, Some(0), "{log}");
    let end = lines.last().unwrap();
    assert_eq!((&end["event"], &end["ref"]), (&json!("ok"), &last), "shutdown is answered last");
    assert_eq!(end["unconfirmed"].as_array().unwrap().len(), LINES / 5 * 7);

    let mut in_order = Vec::new();
    for r#ref in &refs {
        let answers: Vec<_> = lines.iter().filter(|line| line["ref"] == *r#ref).collect();
        assert_eq!(answers.len(), 1, "{ref}: {answers:?}");
        match answers[0].get("ids") {
            Some(ids) => in_order.extend(ids.as_array().unwrap()),
            None => in_order.extend(answers[0].get("id")),
        }
    }
    delivered(&lines);
    let deliveries = of(&lines, "delivered");
    assert!(deliveries.iter().all(|line| line["topic"] != "not delivered"));
    let deliveries: Vec<_> = deliveries.iter().map(|line| &line["id"]).collect();
    in_order.retain(|id| deliveries.contains(id));
    assert_eq!(in_order.len(), LINES / 5 * 6);
    assert!(in_order == deliveries, "accepted in the order of the lines");
}

#[test]
fn random_payloads_all_arrive() {
    const COUNT: usize = 2000;
    let mut a = Peer::in_memory();
    let mut b = Peer::start(["--memory", "--bootstrap", &a.listen]);
    b.wait("peer_up", |_| true);
    let op = json!({ "op": "publish_random", "topic": "load", "size": 1024, "count": COUNT });
    let answer = a.ask(op);
    assert_eq!(answer["event"], "published");
    assert_eq!((&answer["count"], &answer["failed"]), (&json!(COUNT), &json!(0)));
    let ids: BTreeSet<_> = answer["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), COUNT);
    assert_eq!(answer["id"], answer["ids"][COUNT - 1]);
    for peer in [&mut a, &mut b] {
        while of(&peer.seen, "delivered").len() < COUNT {
            assert!(peer.take_line());
        }
        assert_eq!(delivered(&peer.seen), ids);
    }
    // What was delivered twice would come after the rest.
    assert_eq!(delivered(&b.finish()), ids);
    assert_eq!(delivered(&a.finish()), ids);
}

#[test]
fn peers_are_connected_banned_and_let_in_again() {
    let mut a = Peer::in_memory();
    let mut b = Peer::in_memory();
    let answer = a.ask(json!({ "op": "connect", "address": b.listen }));
    assert_eq!((&answer["event"], &answer["peer"]), (&json!("ok"), &json!(b.id)), "{answer}");
    b.wait("peer_up", |_| true);
    assert_eq!(a.ask(json!({ "op": "ban", "peer": b.id, "reason": "test" }))["event"], "ok");
    b.wait("peer_down", |line| line["peer"] == a.id);
    let refused = a.ask(json!({ "op": "connect", "address": b.listen }));
    assert_eq!(refused["event"], "error", "{refused}");
    assert_eq!(a.ask(json!({ "op": "unban", "peer": b.id }))["event"], "ok");
    let answer = a.ask(json!({ "op": "connect", "address": b.listen }));
    assert_eq!(answer["event"], "ok", "{answer}");
    assert_eq!(a.ask(json!({ "op": "disconnect", "peer": b.id }))["event"], "ok");
    a.finish();
    b.finish();
}

#[test]
fn signals_end_it_well() {
    let mut other = Peer::in_memory();
    for name in ["TERM", "INT", "HUP"] {
        let mut peer = Peer::start(["--memory", "--bootstrap", &other.listen]);
        peer.wait("peer_up", |_| true);
        peer.publish("t", "x");
        peer.signal(name);
        let of_peer = |line: &Value| line["peer"] == peer.id;
        let down = other.wait("peer_down", of_peer);
        assert_eq!(down["reason"], "shutdown", "{name}: a goodbye");
        // Its input stays open.
        let (lines, status, log) = peer.end();
        assert_eq!(status, Some(0), "{name}: {log}");
        assert!(!of(&lines, "delivered").is_empty());
    }
}

#[test]
fn input_that_ends_at_once_is_done_first() {
    let mut peer = Peer::in_memory();
    peer.write(br#"{"op":"publish_random","topic":"t","size":100,"count":500}"#);
    let lines = peer.finish();
    assert_eq!(of(&lines, "published").len(), 1);
    assert_eq!(delivered(&lines).len(), 500);
}

#[test]
fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let typo = file("typo.toml", "[gossip]\nfanuot = 4");
    let range = file("range.toml", "[gossip]\nfanout = 400");
    let taken = Peer::in_memory();
    let in_use = format!("peer: cannot listen on {}: Address already in use", taken.listen);
    for (flags, status, said) in [
        (vec!["--transports", "rest,rest"], 1, "connection.transports"),
        (vec!["--config", &typo], 1, "fanuot"),
        (vec!["--config", &range], 1, "gossip.fanout"),
        (vec!["--config", "/does/not/exist"], 1, "/does/not/exist"),
        (vec!["--network", ""], 1, "network.name"),
        (vec!["--frobnicate"], 2, "--frobnicate"),
        (vec!["--from", "yesterday"], 2, "earliest"),
        (vec!["--bootstrap", "a:b:c"], 2, "a:b:c"),
        (vec!["--transports", "pigeon"], 2, "grpc-stream"),
        (vec!["--memory", "--data-dir", "x"], 2, "--data-dir"),
        (vec!["--listen", "nowhere"], 2, "--listen"),
        (vec!["--listen", "http://localhost:1"], 2, "localhost:5001"),
        (vec!["--listen", "localhost:66000"], 2, "localhost:5001"),
        (vec!["--listen", "no-such-host.invalid:0"], 1, "--listen no-such-host.invalid:0"),
        (vec!["--listen", &taken.listen], 1, &in_use),
    ] {
        let (lines, code, log) = Peer::spawn(&flags).end();
        assert_eq!(code, Some(status), "{flags:?}: {log}");
        assert!(log.contains(said), "{flags:?}: {log}");
        assert_eq!(of(&lines, "error").len(), usize::from(status == 1), "{flags:?}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer.toml");
    let config = "[network]\nname = \"other\"\n[gossip]\nmax_transaction_size = 1024";
    std::fs::write(&path, config).unwrap();
    let flags = ["--memory", "--plaintext", "--config", path.to_str().unwrap()];
    let mut a = Peer::start(flags.into_iter().chain(["--transports", "rest,grpc-stream"]));
    let mut b = Peer::start(flags.into_iter().chain(["--network", "mine"]));
    let large = json!({ "op": "publish", "topic": "t", "text": "x".repeat(1025) });
    assert_eq!(a.ask(large)["event"], "publish_failed");
    let refused = a.ask(json!({ "op": "connect", "address": b.listen }));
    assert!(text(&refused, "error").contains("wrong_network"), "{refused}");
    a.finish();
    assert_eq!(b.ask(json!({ "op": "stats" }))["links"], 0);
    b.finish();
}
