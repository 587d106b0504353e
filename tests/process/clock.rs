//! A wall clock that is wrong under a running process: a shim between the process and the C library
//! moves it as a control file says (`clock_shim.c`, built here with `cc`).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::peer::{Peer, of};

/// A clock of which this test is the master.
struct Clock {
    dir: TempDir,
    shim: PathBuf,
}

impl Clock {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/clock_shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let built = cc.arg(&shim).arg(source).status().expect("a C compiler is installed as `cc`");
        assert!(built.success(), "the shim builds");
        Self { dir, shim }
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// Sets the clock ahead by so many seconds.
    fn set(&self, seconds: i64) {
        let new = self.dir.path().join("control.new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        // All at once: nobody reads half of it.
        std::fs::rename(new, self.control()).unwrap();
    }

    /// A process that goes by this clock.
    fn start(&self, flags: &[&str]) -> Peer {
        let control = self.control();
        let environment = [("LD_PRELOAD", &*self.shim), ("CLOCK_OFFSET", &*control)];
        Peer::spawn_in(flags, &environment).ready()
    }
}

/// Waits until a process says that its clock is off by about so many seconds.
fn wait_off(peer: &mut Peer, seconds: i64) {
    let near = |line: &Value| {
        let offset = line["offset_ms"].as_i64().unwrap();
        offset.abs_diff(seconds * 1000) < 60_000
    };
    peer.wait("clock_off", near);
}

#[test]
fn a_process_whose_clock_is_wrong_says_so_and_what_it_publishes_arrives() {
    let clock = Clock::new();
    let mut others = [Peer::in_memory(), Peer::in_memory()];
    clock.set(3600);
    let [first, second] = others.each_ref().map(|peer| peer.listen.clone());
    let flags = ["--memory", "--bootstrap", &first, "--bootstrap", &second];
    let mut wrong = clock.start(&flags);
    wait_off(&mut wrong, -3600);
    let id = wrong.publish("orders", "an hour ahead");
    for peer in &mut others {
        peer.wait_for_delivery(&id);
    }
    // It is set right, and leaps by a day while the process runs.
    clock.set(0);
    wrong.wait("clock_right", |_| true);
    clock.set(86_400);
    wait_off(&mut wrong, -86_400);
    let id = wrong.publish("orders", "a day ahead");
    for peer in &mut others {
        peer.wait_for_delivery(&id);
    }
    clock.set(0);
    let id = others[0].publish("orders", "in time");
    let mut all: Vec<_> = others.into_iter().chain([wrong]).collect();
    for peer in &mut all {
        peer.wait_for_delivery(&id);
    }
    for peer in all {
        assert_eq!(of(&peer.finish(), "delivered").len(), 3, "each once");
    }
}
