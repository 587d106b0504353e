//! Accepted means kept, whoever is killed and when: real processes, `SQLite` on disk, SIGKILL.
//!
//! A few kills; `cargo test --release --test process crash::` makes 200 more, and `SORCHA_CRASHES` any number, of
//! both.
//! `SORCHA_SEED` repeats the choices of a run (not its timing); the seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::{Peer, delivered, of, text};

/// Kills where nothing else is asked for, and in the long run.
const CRASHES: (u64, u64) = (12, 200);
/// Size above the limit of the configuration below.
const TOO_LARGE: usize = 5000;
/// Quick to find each other again, and quick to refuse.
const CONFIG: &str = r#"
[gossip]
max_transaction_size = 4096
reconcile_interval = "500ms"
[overlay]
redial_min = "50ms"
redial_max = "500ms"
[outbox]
max_entries = 200
"#;

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    /// Returns a number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?} and no number")))
}

/// Answer to what was sent with one `ref`, by its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// None came: it may have been kept or not.
    None,
    Published,
    Failed,
}

/// One consumer on one data directory, over all the processes that serve it.
struct Node {
    dir: PathBuf,
    peer: Option<Peer>,
    /// Cursor of the consumer.
    cursor: u64,
    /// Payloads by id, as delivered.
    delivered: BTreeMap<String, String>,
}

impl Node {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), peer: None, cursor: 0, delivered: BTreeMap::new() }
    }

    /// Starts a process that goes on where the consumer stopped; `wait` until it is ready.
    fn start(&mut self, contacts: &[String], wait: bool) {
        let config = self.dir.join("config.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let cursor = self.cursor.to_string();
        let mut flags = vec!["--data-dir", self.dir.to_str().unwrap(), "--payloads"];
        flags.extend(["--config", config.to_str().unwrap(), "--from", &cursor]);
        flags.extend(contacts.iter().flat_map(|contact| ["--bootstrap", contact]));
        self.peer = Some(if wait { Peer::start(flags) } else { Peer::spawn(flags) });
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("a running process")
    }

    /// Kills the process at once; what it had said before counts.
    fn kill(&mut self, book: &mut Book) {
        let lines = self.peer.take().expect("a running process").kill_and_drain();
        self.note(lines, book);
    }

    /// Takes what the process has said meanwhile.
    fn look(&mut self, book: &mut Book) {
        self.peer().take_waiting();
        let lines = std::mem::take(&mut self.peer().seen);
        self.note(lines, book);
    }

    /// Waits for what the process says next.
    fn wait(&mut self, book: &mut Book) {
        assert!(self.peer().take_line(), "the process ended:\n{}", self.peer().told());
        self.look(book);
    }

    fn note(&mut self, lines: Vec<Value>, book: &mut Book) {
        for line in lines {
            match line["event"].as_str().unwrap() {
                "published" => book.answer(&line, Answer::Published),
                "publish_failed" => book.answer(&line, Answer::Failed),
                "delivered" => self.deliver(&line),
                "gap" | "error" => panic!("{}: {line}", self.dir.display()),
                _ => {}
            }
        }
    }

    fn deliver(&mut self, line: &Value) {
        let cursor = line["cursor"].as_u64().unwrap();
        assert!(cursor > self.cursor, "cursors rise, above {}: {line}", self.cursor);
        self.cursor = cursor;
        let before = self.delivered.insert(text(line, "id"), text(line, "payload"));
        assert_eq!(before, None, "delivered twice: {line}");
    }
}

/// Everything that was sent to be published.
#[derive(Default)]
struct Book {
    /// Answers by `ref`, which is the payload in base64.
    answers: BTreeMap<String, Answer>,
    /// Payloads by id, as accepted.
    accepted: BTreeMap<String, String>,
}

impl Book {
    /// Sends a burst of transactions; some are refused.
    fn publish(&mut self, peer: &mut Peer, dice: &mut Dice) {
        let mut lines = String::new();
        for _ in 0..=dice.below(40) {
            let size = if dice.below(10) == 0 { TOO_LARGE } else { 24 + dice.index(1000) };
            let payload = payload_in_base64(self.answers.len(), size);
            let line = json!({ "op": "publish", "ref": payload, "topic": "t", "base64": payload });
            lines.push_str(&line.to_string());
            lines.push('\n');
            self.answers.insert(payload, Answer::None);
        }
        peer.write(lines.as_bytes());
    }

    fn answer(&mut self, line: &Value, answer: Answer) {
        let payload = text(line, "ref");
        let before = self.answers.insert(payload.clone(), answer);
        assert_eq!(before, Some(Answer::None), "answered twice or never asked: {line}");
        if answer == Answer::Published {
            self.accepted.insert(text(line, "id"), payload);
        }
    }

    fn is_complete_at(&self, node: &Node) -> bool {
        self.accepted.keys().all(|id| node.delivered.contains_key(id))
    }

    /// Checks what must hold of what a node delivered, whatever happened.
    fn check(&self, delivered: &BTreeMap<String, String>) {
        let mut payloads = BTreeSet::new();
        for (id, payload) in delivered {
            let answer = self.answers.get(payload).expect("somebody sent it");
            assert_ne!(*answer, Answer::Failed, "{id} was refused and is delivered");
            assert!(payloads.insert(payload), "{id}: its payload stands under another id too");
        }
        for (id, payload) in &self.accepted {
            assert_eq!(delivered.get(id), Some(payload), "{id} was accepted");
        }
    }
}

/// `size` bytes, of which the first tell them apart from all others.
fn payload_in_base64(number: usize, size: usize) -> String {
    // Three digits and letters of base64 are no padding: any such text of 4 n letters is valid.
    format!("{number:0>16}{}", "SORCHA++".repeat(size.div_ceil(6)))
}

#[test]
fn whoever_is_killed_what_was_accepted_is_delivered_everywhere_once() {
    kill_again_and_again(CRASHES.0);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "15 s with --release, where it runs, and far more without")]
fn however_often_what_was_accepted_is_delivered_everywhere_once() {
    kill_again_and_again(CRASHES.1);
}

/// Three processes, one burst and one or two kills a round, at random moments.
fn kill_again_and_again(crashes: u64) {
    let crashes = setting("SORCHA_CRASHES").unwrap_or(crashes);
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let seed = setting("SORCHA_SEED").unwrap_or(random);
    println!("SORCHA_SEED={seed} SORCHA_CRASHES={crashes}");
    let mut dice = Dice(seed);
    let mut book = Book::default();
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes: Vec<Node> = dirs.iter().map(|dir| Node::new(dir.path())).collect();
    for at in 0..nodes.len() {
        start(&mut nodes, at, true);
    }
    let mut kills = 0;
    while kills < crashes {
        for _ in 0..=dice.below(2) {
            let publisher = dice.index(nodes.len());
            book.publish(nodes[publisher].peer(), &mut dice);
        }
        let first = dice.index(nodes.len());
        let mut victims = BTreeSet::from([first]);
        if dice.below(3) == 0 {
            victims.insert((first + 1) % nodes.len());
        }
        for victim in &victims {
            std::thread::sleep(Duration::from_micros(dice.below(40_000)));
            nodes[*victim].kill(&mut book);
            kills += 1;
        }
        for victim in victims {
            if dice.below(4) == 0 {
                // Another moment: while it restores or catches up.
                start(&mut nodes, victim, false);
                std::thread::sleep(Duration::from_micros(dice.below(200_000)));
                nodes[victim].kill(&mut book);
                kills += 1;
            }
            start(&mut nodes, victim, true);
        }
        for node in &mut nodes {
            node.look(&mut book);
        }
    }
    // One node alone is enough for nothing to be lost; all three are to have everything.
    for node in &mut nodes {
        while !book.is_complete_at(node) {
            node.wait(&mut book);
        }
    }
    finish(nodes, &mut book);
    let count = |answer| book.answers.values().filter(|a| **a == answer).count();
    println!(
        "{kills} kills: {} accepted, {} refused, {} without an answer",
        count(Answer::Published),
        count(Answer::Failed),
        count(Answer::None)
    );
    assert!(count(Answer::Published) > 0 && count(Answer::Failed) > 0, "the test tests something");
}

/// Starts a process on the data of a node; it is told where the others listen.
fn start(nodes: &mut [Node], at: usize, wait: bool) {
    let others = nodes.iter().enumerate().filter(|(other, _)| *other != at);
    let contacts = others.filter_map(|(_, node)| Some(node.peer.as_ref()?.listen.clone()));
    let contacts: Vec<_> = contacts.collect();
    nodes[at].start(&contacts, wait);
}

/// Ends all processes well, and reads every store once more from its beginning.
fn finish(nodes: Vec<Node>, book: &mut Book) {
    for mut node in nodes {
        let lines = node.peer.take().expect("a running process").finish();
        node.note(lines, book);
        book.check(&node.delivered);
        let dir = node.dir.to_str().unwrap();
        let lines = Peer::start(["--data-dir", dir, "--from", "earliest", "--payloads"]).finish();
        delivered(&lines);
        let again = of(&lines, "delivered").into_iter();
        let again: BTreeMap<_, _> = again.map(|l| (text(l, "id"), text(l, "payload"))).collect();
        book.check(&again);
        assert!(node.delivered.iter().all(|(id, _)| again.contains_key(id)), "it stays");
    }
}

#[test]
fn what_was_published_offline_is_delivered_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let mut alone = Peer::start(data);
    let ids: BTreeSet<String> = (0..50)
        .map(|n| alone.publish("orders", &format!("order {n}")).as_str().unwrap().to_owned())
        .collect();
    alone.kill();

    let mut reader = Peer::start(["--memory", "--from", "earliest"]);
    let mut again = Peer::start(data);
    let answer = again.ask(json!({ "op": "connect", "address": reader.listen }));
    assert_eq!(answer["event"], "ok", "{answer}");
    reader.count_deliveries();
    assert_eq!(*reader.wait_for_count(ids.len()), ids);
    again.wait("replicated", |line| line["peers"] == 1);
    // Confirmed by all who are linked: it leaves the outbox, also of the next process.
    let ended = again.ask(json!({ "op": "shutdown" }));
    assert_eq!(ended["unconfirmed"], json!([]));
    drop(again);
    let mut third = Peer::start(data);
    assert_eq!(third.ask(json!({ "op": "stats" }))["outbox"], 0);
}

#[test]
fn a_consumer_that_was_killed_goes_on_after_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let mut source = Peer::in_memory();
    let mut consumer = Peer::start(data.into_iter().chain(["--bootstrap", &source.listen]));
    consumer.wait("peer_up", |_| true);
    let first = source.publish("t", "read before the kill");
    let cursor = consumer.wait_for_delivery(&first)["cursor"].as_u64().unwrap();
    consumer.kill();

    let second = source.publish("t", "published while it was down");
    let from = cursor.to_string();
    let flags = ["--bootstrap", &source.listen, "--from", &from];
    let mut consumer = Peer::start(data.into_iter().chain(flags));
    assert!(consumer.wait_for_delivery(&second)["cursor"].as_u64().unwrap() > cursor);
    let lines = consumer.finish();
    assert_eq!(delivered(&lines), BTreeSet::from([second.as_str().unwrap().to_owned()]));
}

#[test]
fn what_was_published_together_is_there_together_or_not_at_all() {
    const TOGETHER: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        // Each time a little later in the work.
        let dir = dir.path().join(round.to_string());
        let flags = ["--data-dir", dir.to_str().unwrap(), "--from", "earliest"];
        let mut peer = Peer::start(flags);
        peer.count_deliveries();
        let op = json!({ "op": "publish_random", "topic": "t", "size": 1000, "count": 9600 });
        peer.send(op);
        let seen = peer.wait_for_count(1 + 200 * round).len() as u64;
        peer.kill();

        let stats = Peer::start(flags).ask(json!({ "op": "stats" }));
        let (queued, retained) =
            (stats["outbox"].as_u64().unwrap(), stats["retained"].as_u64().unwrap());
        assert!(queued >= seen && queued == retained, "{seen} delivered, {stats}");
        assert_eq!(queued % TOGETHER, 0, "{queued} are in the outbox");
    }
}
