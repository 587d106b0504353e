//! Clients of other libraries as child processes, from where `.ci/run` installs what they need.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where clients are installed.
pub(crate) fn installed() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let elsewhere = std::env::var_os("SORCHA_CLIENTS");
    elsewhere.map_or_else(|| here.join("target/clients"), PathBuf::from)
}

/// A client that others wrote, by program, script and the flag of its probe.
pub(crate) fn client([program, script, _]: [&str; 3]) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = installed();
    let mut command = Command::new(program);
    command.arg(here.join(script));
    command.env("PYTHONPATH", installed.join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("NODE_MODULES", installed.join("node/node_modules"));
    command
}

/// Whether this client can be run; one that cannot is left out aloud.
pub(crate) fn is_here(which: [&str; 3]) -> bool {
    let probe = client(which).arg(which[2]).output();
    let is_here = probe.is_ok_and(|probe| probe.status.success());
    if !is_here {
        eprintln!("SKIPPED: {} lacks what {} needs; `.ci/run` installs it", which[0], which[1]);
    }
    is_here
}

/// Runs a client to its end, which must be a good one.
pub(crate) fn all_right(which: [&str; 3], arguments: &[&str]) {
    let output = client(which).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(!said.contains("WRONG") && said.lines().count() > 0, "{said}");
}
