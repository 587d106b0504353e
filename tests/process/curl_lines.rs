//! The `curl` lines of the guide: each is run, and its answer is what the guide says.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A command of the guide, and what its comment says of the answer.
struct Shown {
    command: String,
    status: String,
    body: String,
}

/// The `curl` lines of a page that ask at this address, in order; each is followed by `# STATUS BODY`.
fn shown(page: &str, at: &str) -> Vec<Shown> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide").join(page);
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut lines = blocks.flat_map(str::lines).filter(|line| !line.is_empty());
    let mut shown = Vec::new();
    while let Some(command) = lines.next() {
        if command.contains("curl ") && command.contains(at) {
            let answer = lines.next().and_then(|line| line.strip_prefix("# "));
            let answer = answer.unwrap_or_else(|| panic!("no answer below {command}"));
            let (status, body) = answer.split_once(' ').unwrap_or((answer, ""));
            let [command, status, body] = [command, status, body].map(str::to_owned);
            shown.push(Shown { command, status, body });
        }
    }
    shown
}

/// Runs the lines of a page that ask at the address `at`, of which there are more than `least`, at `address`.
pub(crate) fn curl_lines_hold(page: &str, at: &str, address: &str, least: usize) {
    if !Command::new("curl").arg("--version").output().is_ok_and(|it| it.status.success()) {
        eprintln!("SKIPPED: curl is not here; `.ci/run` installs it");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let settings =
        "silent\nmax-time = 60\nnoproxy = \"*\"\nwrite-out = \"%{stderr}%{http_code}\"\n";
    std::fs::write(home.path().join(".curlrc"), settings).unwrap();
    let shown = shown(page, at);
    assert!(shown.len() > least, "the guide shows how");
    for Shown { command, status, body } in shown {
        let command = command.replace(at, address);
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &command]).env("CURL_HOME", home.path());
        let output = shell.current_dir(home.path()).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        let code = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && code == status, "{command}: {code} {answer}");
        answers(&command, answer.trim(), &body);
    }
}

/// An answer has what is shown of it: the same text, or all of its JSON, where `…` stands for any value.
fn answers(command: &str, answer: &str, shown: &str) {
    match serde_json::from_str::<Value>(shown) {
        Ok(shown) => {
            let answer =
                serde_json::from_str(answer).unwrap_or_else(|_| panic!("{command}: {answer}"));
            assert!(has(&answer, &shown), "{command}: {answer}");
        }
        Err(_) => assert_eq!(answer, shown, "{command}"),
    }
}

fn has(answer: &Value, shown: &Value) -> bool {
    match (answer, shown) {
        (_, Value::String(any)) if any == "…" => !answer.is_null(),
        (Value::Object(answer), Value::Object(shown)) => shown
            .iter()
            .all(|(key, shown)| answer.get(key).is_some_and(|answer| has(answer, shown))),
        _ => answer == shown,
    }
}
