//! Who calls whom inside the core, as a table that can only shrink.
//!
//! Imports do not show this: the parts of the core are methods of one type, so a call needs no
//! import. Read is the text of `src/protocol`: a call is `self.name(…)` inside `impl Protocol` where
//! another folder has that method, or `self.part….name(…)` where `part` is another folder's state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::layering::{Source, sources, tokens};

/// Folders that each folder of the core may call. Taking an entry out is always right; adding one
/// wants a reason, and [`MOST_EDGES`] raised.
const MAY_CALL: &[(&str, &[&str])] = &[
    (
        "dispatch",
        &[
            "intake",
            "large",
            "lifecycle",
            "link",
            "membership",
            "messages",
            "outbox",
            "reachability",
            "reconcile",
            "serve",
            "spread",
        ],
    ),
    ("guard", &["link"]),
    (
        "intake",
        &[
            "guard",
            "large",
            "lifecycle",
            "link",
            "log",
            "outbox",
            "reconcile",
            "serve",
            "spread",
            "trail",
        ],
    ),
    (
        "large",
        &[
            "guard",
            "intake",
            "lifecycle",
            "link",
            "log",
            "outbox",
            "reconcile",
            "serve",
            "spread",
            "trail",
        ],
    ),
    (
        "lifecycle",
        &[
            "guard",
            "intake",
            "large",
            "link",
            "log",
            "membership",
            "messages",
            "outbox",
            "reachability",
            "reconcile",
            "serve",
            "spread",
            "trail",
        ],
    ),
    ("messages", &["guard", "lifecycle", "link", "membership"]),
    ("outbox", &["intake", "large", "link", "log", "reconcile", "spread", "trail"]),
    (
        "protocol",
        &[
            "dispatch",
            "guard",
            "intake",
            "large",
            "lifecycle",
            "link",
            "log",
            "membership",
            "messages",
            "outbox",
            "reachability",
            "reconcile",
            "serve",
            "spread",
        ],
    ),
    ("reachability", &["guard", "lifecycle", "link", "membership"]),
    ("reconcile", &["guard", "intake", "lifecycle", "link", "log", "outbox", "spread"]),
    ("serve", &["intake", "link", "log", "outbox", "reconcile", "spread", "trail"]),
    ("spread", &["intake", "link", "log", "outbox", "reconcile", "trail"]),
];

/// Entries of the table at most.
const MOST_EDGES: usize = 94;

/// The fields of `Protocol` that are the state of a folder, and that folder. What is not here belongs
/// to all (`env`).
const PARTS: &[(&str, &str)] = &[
    ("links", "link"),
    ("membership", "membership"),
    ("guard", "guard"),
    ("log", "log"),
    ("spread", "spread"),
    ("intake", "intake"),
    ("assemblies", "large"),
    ("serving", "serve"),
    ("outbox", "outbox"),
    ("replays", "outbox"),
    ("repairs", "reconcile"),
    ("messages", "messages"),
    ("reachability", "reachability"),
    ("trail", "trail"),
];

/// Methods called, by the calling and the called folder.
type Calls = BTreeMap<(String, String), BTreeSet<String>>;

/// The folder of the core that a file belongs to; a file beside the folders is one of its own.
fn folder(source: &Source) -> Option<String> {
    let rest = source.path.strip_prefix("protocol/")?;
    let first = rest.split('/').next()?;
    let name = first.trim_end_matches(".rs");
    match name {
        // Look at the size of everything, for the simulator and for the host.
        "explain" | "gauges" | "memory" => None,
        "mod" => Some("protocol".to_owned()),
        name => Some(name.to_owned()),
    }
}

/// The bodies of `impl NAME { … }` in a file.
fn bodies<'a>(code: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("impl {name} {{\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&start) {
        let body = &code[at + start.len()..];
        found.push(&body[..body.find("\n}\n").unwrap_or(body.len())]);
    }
    found
}

/// The names of methods defined in a body.
fn methods(body: &str) -> impl Iterator<Item = &str> {
    let tokens = tokens(body);
    let named: Vec<_> = tokens.windows(2).filter(|w| w[0] == "fn").map(|w| w[1]).collect();
    named.into_iter()
}

fn calls(sources: &[Source]) -> Calls {
    let core: Vec<_> = sources.iter().filter_map(|s| Some((folder(s)?, s))).collect();
    let mut homes = BTreeMap::new();
    for (folder, source) in &core {
        for name in bodies(&source.code, "Protocol").into_iter().flat_map(methods) {
            homes.insert(name, folder);
        }
    }
    let mut calls = Calls::new();
    let mut note = |from: &str, to: &str, name: &str| {
        if from != to {
            let key = (from.to_owned(), to.to_owned());
            calls.entry(key).or_default().insert(name.to_owned());
        }
    };
    for (folder, source) in &core {
        for body in bodies(&source.code, "Protocol") {
            let tokens = tokens(body);
            for (at, _) in tokens.iter().enumerate().filter(|(_, token)| **token == "self") {
                match path(&tokens[at + 1..])[..] {
                    [name] => {
                        if let Some(home) = homes.get(name) {
                            note(folder, home, name);
                        }
                    }
                    [part, .., name] => {
                        if let Some((_, home)) = PARTS.iter().find(|(field, _)| *field == part) {
                            note(folder, home, name);
                        }
                    }
                    [] => {}
                }
            }
        }
    }
    calls
}

/// The names of `.a.b.c(`, if that is what stands there: fields, and a method at the end.
fn path<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let pairs = tokens.chunks_exact(2).take_while(|pair| pair[0] == ".");
    let names: Vec<_> = pairs.map(|pair| pair[1]).collect();
    // Of `self.links.up(link).batch` the call ends the path.
    let called = |at: &usize| tokens.get(2 * at) == Some(&"(");
    match (1..=names.len()).find(called) {
        Some(end) => names[..end].to_vec(),
        None => Vec::new(),
    }
}

/// Lists what the calls and a table disagree about.
fn disagreements(calls: &Calls, table: &[(&str, &[&str])]) -> Vec<String> {
    let allowed: BTreeSet<(&str, &str)> =
        table.iter().flat_map(|(from, to)| to.iter().map(|to| (*from, *to))).collect();
    let found: BTreeSet<(&str, &str)> =
        calls.keys().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let new = found.difference(&allowed).map(|(from, to)| {
        let names = &calls[&((*from).to_owned(), (*to).to_owned())];
        format!("{from} may not call {to}: {names:?}")
    });
    let gone = allowed
        .difference(&found)
        .map(|(from, to)| format!("{from} calls nothing of {to} any more: take that out"));
    new.chain(gone).collect()
}

/// Folders that can reach themselves by calls.
fn knot(calls: &Calls) -> Vec<&str> {
    let next = |from: &str| -> Vec<&str> {
        calls.keys().filter(|(f, _)| f == from).map(|(_, to)| to.as_str()).collect()
    };
    let reaches_itself = |start: &&str| {
        let (mut seen, mut todo) = (BTreeSet::new(), next(start));
        while let Some(at) = todo.pop() {
            if seen.insert(at) {
                todo.extend(next(at));
            }
        }
        seen.contains(start)
    };
    let folders: BTreeSet<&str> = calls.keys().map(|(from, _)| from.as_str()).collect();
    folders.into_iter().filter(reaches_itself).collect()
}

/// Past the capture of a test's output: it is to be seen in every run.
fn show(calls: &Calls) {
    let mut text = String::from("\ncalls between the folders of the core:\n");
    let folders: BTreeSet<_> = calls.keys().map(|(from, _)| from).collect();
    for from in folders {
        let to = calls.iter().filter(|((f, _), _)| f == from);
        let to: Vec<_> = to.map(|((_, to), names)| format!("{to} {}", names.len())).collect();
        let _ = writeln!(text, "  {from:<11} -> {}", to.join(", "));
    }
    let circles = knot(calls);
    let _ = writeln!(text, "  {} edges; in circles: {}", calls.len(), circles.join(" "));
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes());
}

#[test]
fn folders_of_the_core_call_only_whom_they_may() {
    let calls = calls(&sources());
    show(&calls);
    let wrong = disagreements(&calls, MAY_CALL);
    assert!(wrong.is_empty(), "see MAY_CALL in tests/repo/calls.rs:\n{}", wrong.join("\n"));
    let edges: usize = MAY_CALL.iter().map(|(_, to)| to.len()).sum();
    assert!(edges <= MOST_EDGES, "{edges} entries in MAY_CALL, at most {MOST_EDGES}");
}

#[test]
fn the_rule_of_calls_bites() {
    let guard = "impl Protocol {\n    pub(super) fn punish(&mut self) {}\n}\n";
    let check = |text: &str, table: &[(&str, &[&str])]| {
        let of = |path: &str, text: &str| Source::new(path, text);
        let sources = [of("protocol/guard/mod.rs", guard), of("protocol/spread/push.rs", text)];
        disagreements(&calls(&sources), table)
    };
    let calling = "impl Protocol {\n    fn f(&mut self) {\n        self.punish();\n    }\n}\n";
    assert_eq!(check(calling, &[("spread", &["guard"])]), [] as [String; 0]);
    assert_eq!(check(calling, &[]), ["spread may not call guard: {\"punish\"}"]);
    let broken =
        "impl Protocol {\n    fn f(&mut self) {\n        self\n            .punish(1);\n    }\n}\n";
    assert_eq!(check(broken, &[]).len(), 1, "over several lines");
    let nested =
        "impl Protocol {\n    fn f(&self) {\n        self.membership.maintain();\n    }\n}\n";
    assert_eq!(check(nested, &[]), ["spread may not call membership: {\"maintain\"}"]);
    let quiet = "impl Protocol {\n    fn f(&mut self) {\n        self.own();\n    }\n    fn own(&self) {}\n}\n";
    assert_eq!(check(quiet, &[]), [] as [String; 0], "its own, and nobody's");
    let gone = check(quiet, &[("spread", &["guard"])]);
    assert_eq!(gone, ["spread calls nothing of guard any more: take that out"]);
    let elsewhere = "impl Batch {\n    fn f(&mut self) {\n        self.punish();\n    }\n}\n";
    assert_eq!(check(elsewhere, &[]), [] as [String; 0], "another type's method");
}
