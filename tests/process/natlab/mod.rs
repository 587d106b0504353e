//! Programs behind routers of every kind, in the laboratory of `tests/natlab`.
//!
//! Root only, with what `tests/natlab/natlab deps` installs; skipped aloud elsewhere, but not where
//! `SORCHA_NATLAB` says that everything has to be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::peer::{Peer, example};

mod http1;

/// A laboratory that ends with this value.
struct Lab {
    name: String,
    /// What `natlab env` says.
    env: BTreeMap<String, String>,
}

impl Lab {
    /// Builds one with these kinds of router, and other words for `natlab up`, or says aloud why there is
    /// none.
    fn up(kinds: &str, options: &[&str]) -> Option<Self> {
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("p{}n{number}", std::process::id());
        let mut lab = Self { name, env: BTreeMap::new() };
        let built =
            Command::new(natlab()).args(["up", kinds, &lab.name]).args(options).output().unwrap();
        if built.status.success() {
            lab.read_env();
            return Some(lab);
        }
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        let cannot = said.contains("run as root") || said.contains("missing command");
        assert!(cannot && std::env::var_os("SORCHA_NATLAB").is_none(), "no laboratory: {said}");
        println!("SKIPPED: no laboratory: {said}");
        None
    }

    /// Runs a command of the laboratory.
    fn run(&self, args: &[&str]) -> String {
        let done = Command::new(natlab()).args(["-n", &self.name]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "natlab {args:?}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Learns the addresses.
    fn read_env(&mut self) {
        let env = self.run(&["env"]);
        let pairs = env.lines().filter_map(|line| line.split_once('='));
        self.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// The address that `natlab env` calls so.
    fn address(&self, name: &str) -> &str {
        &self.env[&format!("NATLAB_{name}")]
    }

    /// The program on a host of the laboratory.
    fn command(&self, host: &str) -> Command {
        let mut command = Command::new(natlab());
        command.args(["-n", &self.name, "exec", host, "--"]).arg(example("peer")).arg("--memory");
        command
    }

    /// Starts the program on a host of the laboratory.
    fn peer<S: AsRef<str>>(&self, host: &str, flags: impl IntoIterator<Item = S>) -> Peer {
        let flags = flags.into_iter().map(|flag| flag.as_ref().to_owned());
        Peer::spawn_by(self.command(host), flags).ready()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(natlab()).args(["down", &self.name]).status();
    }
}

fn natlab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/natlab/natlab")
}

/// Asserts that what either publishes is delivered by the other.
fn deliver_both_ways(a: &mut Peer, b: &mut Peer) {
    let (from_a, from_b) = (a.publish("t", "from a"), b.publish("t", "from b"));
    b.wait_for_delivery(&from_a);
    a.wait_for_delivery(&from_b);
}
