//! The `peer` example as a child process, driven by JSON lines.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Ends a test that hangs.
pub(crate) const HANG: Duration = Duration::from_mins(2);

/// Time between two looks at figures that no line announces.
const GLANCE: Duration = Duration::from_millis(10);

/// The field of what stands for a line that is no JSON.
const TORN: &str = "torn";

/// Path of an example: `cargo test` builds them beside the tests, in `target/…/examples`.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(name);
    let shown = program.display();
    assert!(program.exists(), "{shown}: build it with `cargo build --example {name}`");
    program
}

/// A process under test.
pub(crate) struct Peer {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// Every line so far, but for counted deliveries.
    pub(crate) seen: Vec<Value>,
    /// Ids of deliveries, where they are only counted: see [`Peer::count_deliveries`].
    pub(crate) counted: Option<BTreeSet<String>>,
    last_cursor: u64,
    next_ref: u64,
    killed: bool,
    pub(crate) id: String,
    pub(crate) listen: String,
    /// Address of the admin listener, where there is one.
    pub(crate) admin: Option<String>,
}

impl Peer {
    /// Starts a process with these flags, on a free port unless they say where, and does not wait
    /// for anything.
    pub(crate) fn spawn<S: AsRef<OsStr>>(flags: impl IntoIterator<Item = S>) -> Self {
        Self::spawn_in(flags, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn spawn_in<S: AsRef<OsStr>>(
        flags: impl IntoIterator<Item = S>,
        environment: &[(&str, &Path)],
    ) -> Self {
        let mut command = Command::new(example("peer"));
        command.envs(environment.iter().copied());
        Self::spawn_by(command, flags)
    }

    /// The same by this command, to which the flags are added.
    pub(crate) fn spawn_by<S: AsRef<OsStr>>(
        mut command: Command,
        flags: impl IntoIterator<Item = S>,
    ) -> Self {
        let flags: Vec<_> = flags.into_iter().collect();
        let listens = flags.iter().any(|flag| flag.as_ref() == "--listen");
        let default: &[&str] = if listens { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut child = command
            .args(default)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a program that is not read would block")]
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.split(b'\n') {
                let line = line.unwrap();
                // The last line of a killed process may be cut short.
                let torn = || json!({ TORN: String::from_utf8_lossy(&line) });
                let _ = sender.send(serde_json::from_slice(&line).unwrap_or_else(|_| torn()));
            }
        });
        let stdin = child.stdin.take();
        let seen = Vec::new();
        Self {
            child,
            stdin,
            lines,
            seen,
            counted: None,
            last_cursor: 0,
            next_ref: 0,
            killed: false,
            id: String::new(),
            listen: String::new(),
            admin: None,
        }
    }

    /// Starts a process and waits until it is ready.
    pub(crate) fn start<S: AsRef<OsStr>>(flags: impl IntoIterator<Item = S>) -> Self {
        Self::spawn(flags).ready()
    }

    /// Waits until a process is ready that was just spawned.
    pub(crate) fn ready(mut self) -> Self {
        let ready = self.wait("ready", |_| true);
        assert_eq!(self.seen.len(), 1, "ready is the first line");
        self.admin = ready["admin"].as_str().map(str::to_owned);
        self.id = text(&ready, "peer_id");
        self.listen = text(&ready, "listen");
        self
    }

    pub(crate) fn in_memory() -> Self {
        Self::start(["--memory"])
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Sends a line with a `ref` of its own and returns that.
    pub(crate) fn send(&mut self, mut line: Value) -> Value {
        self.next_ref += 1;
        let r#ref = json!({ "n": self.next_ref });
        line["ref"] = r#ref.clone();
        self.write(format!("{line}\n").as_bytes());
        r#ref
    }

    /// Sends a line and returns its answer.
    pub(crate) fn ask(&mut self, line: Value) -> Value {
        let r#ref = self.send(line);
        self.find(|line| line["ref"] == r#ref)
    }

    /// Asks for figures until they are as wanted, and returns them.
    pub(crate) fn until_stats(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_answer(&json!({ "op": "stats" }), GLANCE, holds)
    }

    /// Asks this, so much time apart, until the answer is as wanted, and returns it.
    pub(crate) fn until_answer(
        &mut self,
        question: &Value,
        apart: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.ask(question.clone());
            if holds(&answer) {
                return answer;
            }
            assert!(started.elapsed() < 2 * HANG, "waited in vain, last seen {answer}");
            std::thread::sleep(apart);
        }
    }

    /// Publishes a text and returns its id.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> Value {
        let answer = self.ask(json!({ "op": "publish", "topic": topic, "text": payload }));
        assert_eq!(answer["event"], "published", "{answer}");
        answer["id"].clone()
    }

    /// The first line, past or to come, that is `event` and `fits`.
    pub(crate) fn wait(&mut self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.find(|line| line["event"] == event && fits(line))
    }

    pub(crate) fn wait_for_delivery(&mut self, id: &Value) -> Value {
        self.wait("delivered", |line| line["id"] == *id)
    }

    pub(crate) fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let mut from = 0;
        loop {
            if let Some(found) = self.seen[from..].iter().find(|line| fits(line)) {
                return found.clone();
            }
            from = self.seen.len();
            assert!(self.take_line(), "the program ended:\n{}", self.told());
        }
    }

    /// Takes the next line; `false` at the end of output.
    pub(crate) fn take_line(&mut self) -> bool {
        match self.lines.recv_timeout(HANG) {
            Ok(line) => self.keep(line),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("nothing in {HANG:?} after:\n{}", self.told()),
        }
        true
    }

    /// Takes every line that is there already.
    pub(crate) fn take_waiting(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(line);
        }
    }

    fn keep(&mut self, line: Value) {
        assert!(self.killed || line.get(TORN).is_none(), "a line out is JSON: {line}");
        let Some(counted) = self.counted.as_mut().filter(|_| line["event"] == "delivered") else {
            self.seen.push(line);
            return;
        };
        let cursor = line["cursor"].as_u64().unwrap();
        assert!(cursor > self.last_cursor, "cursors rise");
        self.last_cursor = cursor;
        assert!(counted.insert(text(&line, "id")), "delivered twice: {line}");
    }

    /// Keeps only the ids of deliveries from now on, and checks each to be new.
    pub(crate) fn count_deliveries(&mut self) {
        self.counted = Some(BTreeSet::new());
    }

    /// Waits until so many deliveries were counted, and returns their ids.
    pub(crate) fn wait_for_count(&mut self, count: usize) -> &BTreeSet<String> {
        while self.counted.as_ref().unwrap().len() < count {
            assert!(self.take_line(), "the program ended:\n{}", self.told());
        }
        self.counted.as_ref().unwrap()
    }

    pub(crate) fn told(&self) -> String {
        let tail = self.seen.len().saturating_sub(30);
        self.seen[tail..].iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Returns the most memory that the process has had, in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory_figure("VmHWM:")
    }

    /// Returns the memory that the process has, in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> u64 {
        self.memory_figure("VmRSS:")
    }

    #[cfg(target_os = "linux")]
    fn memory_figure(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let figure = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        figure.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Returns the number of files and sockets that the process has open.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Its stderr, which nobody reads otherwise before the end.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Waits for the end and returns every line out, the status and what stands on stderr.
    pub(crate) fn end(mut self) -> (Vec<Value>, Option<i32>, String) {
        while self.take_line() {}
        let mut log = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut log).unwrap();
        }
        let status = self.child.wait().unwrap();
        (std::mem::take(&mut self.seen), status.code(), log)
    }

    /// Ends the input, waits for the end, and returns every line out.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        self.stdin = None;
        let (lines, status, log) = self.end();
        assert_eq!(status, Some(0), "{log}");
        lines
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it at once and returns every whole line that it wrote and nobody took yet.
    pub(crate) fn kill_and_drain(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.killed = true;
        while self.take_line() {}
        self.seen.retain(|line| line.get(TORN).is_none());
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).to_owned()
}

pub(crate) fn sha256(payload: &[u8]) -> String {
    let bytes: Vec<_> = Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

pub(crate) fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

/// Ids of all deliveries; panics when one came twice or cursors do not rise.
pub(crate) fn delivered(lines: &[Value]) -> BTreeSet<String> {
    let deliveries = of(lines, "delivered");
    let cursors: Vec<_> = deliveries.iter().map(|line| line["cursor"].as_u64().unwrap()).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b), "cursors rise");
    let ids: BTreeSet<_> = deliveries.iter().map(|line| text(line, "id")).collect();
    assert_eq!(ids.len(), deliveries.len(), "an id was delivered twice");
    ids
}
