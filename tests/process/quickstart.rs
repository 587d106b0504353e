//! The `quickstart` example as strangers run it: on odd files, with odd arguments, interrupted.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

fn quickstart(temp: &Path) -> Command {
    example("quickstart", temp)
}

/// An example with its temporary files below `temp`.
fn example(name: &str, temp: &Path) -> Command {
    let mut command = Command::new(crate::peer::example(name));
    command.env("TMPDIR", temp).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(path: &Path, flags: &[&str]) -> (Output, TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let output = quickstart(temp.path()).arg(path).args(flags).output().unwrap();
    (output, temp)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// A folder with everything in it that is no readable file, and two that are.
fn odd_files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("deep")).unwrap();
    fs::write(at("deep/plain"), "some text").unwrap();
    fs::write(at("empty"), "").unwrap();
    File::create(at("large")).unwrap().set_len((10 << 20) + 1).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    symlink(dir.path(), at("deep/loop")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    drop(UnixListener::bind(at("socket")).unwrap());
    // A regular file that nobody can read from its beginning, root neither.
    #[cfg(target_os = "linux")]
    symlink("/proc/self/mem", at("mem")).unwrap();
    dir
}

#[test]
fn what_cannot_be_published_is_named_and_the_rest_arrives() {
    let dir = odd_files();
    let (output, temp) = run(dir.path(), &["--nodes", "3", "--json"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let odd = ["dangling", "deep/loop", "fifo", "socket", "mem"];
    let odd = if cfg!(target_os = "linux") { &odd[..] } else { &odd[..4] };
    for (key, wanted) in [
        ("nodes", 3),
        ("transactions", 2),
        ("deliveries", 6),
        ("missing", 0),
        ("refused", 1),
        ("unreadable", odd.len()),
    ] {
        assert_eq!(report[key], wanted, "{key}: {report}");
    }
    let skipped = report["skipped"].as_array().unwrap();
    let reason = |name: &str| {
        let path = dir.path().join(name).display().to_string();
        let entry = skipped.iter().find(|entry| entry["path"] == *path);
        let reason = entry.unwrap_or_else(|| panic!("{name}: {report}"))["reason"].as_str();
        assert!(said.contains(&path), "{name} is named: {said}");
        reason.unwrap().to_owned()
    };
    let large = reason("large");
    assert!(large.contains("10485761") && large.contains("10485760"), "{large}");
    assert!(large.contains("max_transaction_size"), "{large}");
    for name in odd {
        assert!(reason(name).starts_with("unreadable: "), "{name}");
    }
    assert!(said.starts_with("looking for files"), "progress without a terminal: {said}");
    assert!(said.contains("Next: "), "{said}");
    assert!(is_empty(temp.path()));
}

#[test]
fn a_run_ends_with_what_happened_and_what_to_try_next() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "some text").unwrap();
    let (output, temp) = run(dir.path(), &["--nodes", "2"]);
    let said = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    let last = said.lines().last().unwrap();
    let sentence = "Every node has every file once and unchanged: 1 file, published by 2 nodes, ";
    assert!(last.starts_with(sentence), "{said}");
    assert!(last.contains("Next: "), "{said}");
    assert!(is_empty(temp.path()));
}

#[test]
fn nothing_to_publish_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (output, temp) = run(dir.path(), &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("Nothing to publish: there is no file."));
    let (output, _temp) = run(dir.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Nothing to publish"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["transactions"], 0);
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let (output, _temp) = run(&dir.path().join("dangling"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("1 unreadable"));
    assert!(is_empty(temp.path()));
}

#[test]
fn a_mistake_is_told_in_one_line() {
    let here = tempfile::tempdir().unwrap();
    let wrong: [(&[&str], &str); 5] = [
        (&["--nodes", "1"], "2..=200"),
        (&["--nodes", "many"], "many"),
        (&["--node", "8"], "--node"),
        (&["--nodes"], "--nodes"),
        (&["/no/such/folder"], "/no/such/folder"),
    ];
    for (flags, named) in wrong {
        let output = quickstart(here.path()).args(flags).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.lines().count() == 1 && said.contains(named), "{flags:?}: {said}");
    }
}

#[test]
fn who_cannot_start_says_why() {
    let here = tempfile::tempdir().unwrap();
    let output = quickstart(&here.path().join("missing")).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no temporary directory"), "{said}");
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let here = tempfile::tempdir().unwrap();
    for number in 0..300 {
        fs::write(here.path().join(number.to_string()), vec![7; 100_000]).unwrap();
    }
    // While nodes start, and while files are on their way.
    for (signal, number, phase) in
        [("INT", 2, "nodes started: "), ("TERM", 15, "deliveries: "), ("HUP", 1, "nodes ")]
    {
        let temp = tempfile::tempdir().unwrap();
        let mut command = quickstart(temp.path());
        let command = command.arg(here.path()).args(["--nodes", "10"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(phase) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before {phase:?}");
        }
        assert!(!is_empty(temp.path()), "there is something to remove");
        send(&child, signal);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + number), None), "{rest}");
        assert!(is_empty(temp.path()), "{signal}: {rest}");
    }
}

fn send(child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
}

/// The example `offline` has a directory and a process of its own to end.
#[test]
fn a_signal_ends_offline_too() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = example("offline", temp.path());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    while is_empty(temp.path()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(is_empty(temp.path()));
}

/// Privileges are given up first, where there are any and a way to do so.
#[test]
fn what_may_not_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(at("closed")).unwrap();
    for name in ["file", "secret", "closed/inside"] {
        fs::write(at(name), "some text").unwrap();
    }
    let temp = tempfile::tempdir().unwrap();
    for (path, bits) in [(dir.path(), 0o755), (temp.path(), 0o777), (&at("secret"), 0o000)] {
        mode(path, bits);
    }
    mode(&at("closed"), 0o000);
    let mut command = quickstart(temp.path());
    if File::open(at("secret")).is_ok() {
        let program = command.get_program().to_owned();
        command = Command::new("setpriv");
        command.env("TMPDIR", temp.path()).args(["--reuid=65534", "--clear-groups"]).arg(program);
    }
    let output = command.arg(dir.path()).args(["--nodes", "2", "--json"]).output();
    mode(&at("closed"), 0o755);
    let Ok(output) = output else { return };
    if matches!(output.status.code(), Some(126 | 127)) {
        println!("the program is out of reach without privileges");
        return;
    }
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["transactions"], &report["unreadable"]), (&1.into(), &2.into()), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(is_empty(temp.path()));
}
