//! The architecture as a test: imports go one way, the core cannot reach the world, adapters are
//! named in one place, nothing is process-wide, and files stay short.
//!
//! Reads the text of `src/`, without comments, tests and generated code. Every rule is shown to
//! bite on an example of what it forbids.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules that each module of the crate root may name, itself apart.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("error", &["types"]),
    ("config", &["types", "error"]),
    ("identity", &["types", "error"]),
    ("ports", &["types", "error"]),
    ("wire", &["types", "error"]),
    ("protocol", &["types", "error", "config"]),
    ("transport", &["types", "error", "config", "identity", "ports", "wire", "listen"]),
    ("store", &["types", "error", "ports", "wire"]),
    ("nat", &["types", "error", "config", "ports", "wire", "transport"]),
    ("testing", &["types", "error", "identity", "ports"]),
    ("sim", &["types", "error", "config", "identity", "protocol"]),
    ("guide", &[]),
    ("listen", &[]),
    ("web", &[]),
    ("compat", &["types", "error", "config", "ports", "wire", "transport", "web", "monitor"]),
    ("monitor", &["types", "error", "config", "node", "web", "listen"]),
    (
        "node",
        &[
            "types",
            "error",
            "config",
            "identity",
            "ports",
            "wire",
            "protocol",
            "transport",
            "store",
            "nat",
            "monitor",
            "compat",
        ],
    ),
];

/// Modules whose content is named, outside of them, in [`ASSEMBLY`] only.
const ADAPTERS: &[&str] = &["transport", "store", "nat"];
const ASSEMBLY: [&str; 3] =
    ["node/builder.rs", "node/reachability/holders.rs", "node/reachability/outside.rs"];

/// What the service for the original's clients may name of them: the seam by which it is asked, and the way
/// out to those clients.
const GUEST_NAMES: &[&str] = &["Guest", "Visitor", "Outbound", "Http2"];

/// Names of adapters, to catch them where a re-export hides the module.
const ADAPTER_NAMES: &[&str] = &[
    "GrpcTransport",
    "GrpcOptions",
    "HttpProber",
    "MemoryNetwork",
    "RestTransport",
    "SqliteStorage",
    "StunProber",
    "WebSocketTransport",
];

/// Words that would let the core reach the world, or make two runs differ.
const FORBIDDEN_IN_PROTOCOL: &[&str] = &[
    "tokio",
    "async",
    "await",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "fs",
    "File",
    "std::env",
    "thread",
    "Instant",
    "SystemTime",
    "getrandom",
    "OsRng",
    "Mutex",
    "RwLock",
    "RefCell",
    "HashSet",
    "RandomState",
    "unbounded",
    "unbounded_channel",
];
/// The one file of the core that may hash: with a key of its own, and no way to iterate.
const KEYED_MAP: &str = "protocol/id_map.rs";

const MAX_LINES: usize = 600;

/// One source file, as the rules see it.
pub(crate) struct Source {
    /// Relative to `src/`.
    pub(crate) path: String,
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: code_of(text) }
    }

    /// The path of modules that the file is.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').collect()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
    }

    /// Reports whether a word stands somewhere, or two of them as a path.
    fn names(&self, word: &str) -> bool {
        match word.split_once("::") {
            None => self.words().any(|found| found == word),
            Some((first, last)) => {
                tokens(&self.code).windows(3).any(|found| found == [first, "::", last])
            }
        }
    }

    /// The modules of the crate root that it names, by `crate::` or by `super::`.
    fn imports(&self) -> BTreeSet<String> {
        let tokens = tokens(&self.code);
        let mut found = BTreeSet::new();
        for (at, token) in tokens.iter().enumerate() {
            let ups = match *token {
                "crate" => usize::MAX,
                "super" if at < 2 || tokens[at - 2] != "super" => {
                    1 + tokens[at + 1..].chunks(2).take_while(|c| *c == ["::", "super"]).count()
                }
                _ => continue,
            };
            if ups < self.modules().len() {
                continue;
            }
            let skipped = if ups == usize::MAX { 1 } else { 2 * ups - 1 };
            let rest = &tokens[at + skipped..];
            if rest.first() == Some(&"::") {
                found.extend(heads(&rest[1..]));
            }
        }
        found
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words and `::`, and each other sign alone.
pub(crate) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Lists what stands first behind `crate::`: one name, or the first of each path of a group.
fn heads(tokens: &[&str]) -> Vec<String> {
    if tokens.first() != Some(&"{") {
        return tokens.first().map(|name| (*name).to_owned()).into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for pair in tokens.windows(2) {
        match pair[0] {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(pair[0], "{" | ",") {
            names.push(pair[1].to_owned());
        }
    }
    names
}

/// Strips comments, blank lines, and the tests at the end.
fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter_map(|line| {
        let code = line.split_once("// ").map_or(line, |(code, _)| code);
        let code = if code.trim_start().starts_with("//") { "" } else { code };
        (!code.trim().is_empty()).then(|| format!("{code}\n"))
    });
    lines.collect()
}

fn one_way(source: &Source) -> Vec<String> {
    let modules = source.modules();
    let own = modules[0];
    if own == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == own) else {
        return vec![format!("{}: tests/repo/layering.rs does not know {own}", source.path)];
    };
    let known = |name: &str| MAY_NAME.iter().any(|(module, _)| *module == name);
    let wrong = |name: &String| {
        let name = name.as_str();
        name != own && known(name) && !allowed.contains(&name)
    };
    let imports = source.imports().into_iter().filter(wrong);
    imports.map(|name| format!("{} names {name}", source.path)).collect()
}

fn adapters_in_one_place(source: &Source) -> Vec<String> {
    let own = source.modules()[0];
    if ASSEMBLY.contains(&&*source.path) || own == "lib" || ADAPTERS.contains(&own) {
        return Vec::new();
    }
    let imports = source.imports();
    let is_guest = own == "compat" && names_of(&source.code, "transport").is_subset(&guests());
    let may = |name: &str| is_guest && name == "transport";
    let modules = ADAPTERS.iter().filter(|name| imports.contains(**name) && !may(name));
    let names = ADAPTER_NAMES.iter().filter(|name| source.names(name));
    modules.chain(names).map(|name| format!("{} names {name}", source.path)).collect()
}

fn guests() -> BTreeSet<String> {
    GUEST_NAMES.iter().map(|name| (*name).to_owned()).collect()
}

/// The names that stand behind `crate::` and this module, one or a group.
fn names_of(code: &str, module: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    let places = tokens.windows(4).enumerate().filter(|(_, t)| *t == ["crate", "::", module, "::"]);
    places.flat_map(|(at, _)| heads(&tokens[at + 4..])).collect()
}

fn the_core_is_pure(source: &Source) -> Vec<String> {
    if source.modules()[0] != "protocol" {
        return Vec::new();
    }
    let mut wrong: Vec<_> =
        FORBIDDEN_IN_PROTOCOL.iter().filter(|word| source.names(word)).copied().collect();
    if source.names("HashMap") && source.path != KEYED_MAP {
        wrong.push("HashMap");
    }
    wrong.into_iter().map(|word| format!("{} names {word}", source.path)).collect()
}

/// A host may run any number of nodes in one process: what they share, the host hands them.
fn nothing_is_process_wide(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.code);
    let items = tokens.windows(2).filter(|pair| {
        let is_lifetime = pair[0] == "'";
        matches!(pair[1], "static" | "thread_local") && !is_lifetime
    });
    items.map(|pair| format!("{} has a {}", source.path, pair[1])).collect()
}

fn files_are_short(source: &Source) -> Vec<String> {
    let lines = source.code.lines().count();
    let wrong = (lines > MAX_LINES).then(|| format!("{} has {lines} lines", source.path));
    wrong.into_iter().collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable tree") {
        let path = entry.expect("a readable tree").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort_unstable();
    files
}

/// All sources but generated ones and files of tests.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = |path: &PathBuf| {
        let path = path.strip_prefix(&root).expect("a path below src");
        path.to_str().expect("a plain name").replace('\\', "/")
    };
    let sources: Vec<_> = files_below(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| (relative(&path), path))
        .filter(|(name, _)| !name.contains("/generated/") && !name.contains("/tests"))
        .map(|(name, path)| Source::new(&name, &fs::read_to_string(path).expect("a source file")))
        .collect();
    assert!(sources.len() > 50, "only {} files found", sources.len());
    sources
}

fn assert_all(rule: fn(&Source) -> Vec<String>) {
    let wrong: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(
        wrong.is_empty(),
        "see the rules at the top of tests/repo/layering.rs:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn imports_go_one_way() {
    assert_all(one_way);
}

#[test]
fn adapters_are_named_in_the_builder_only() {
    assert_all(adapters_in_one_place);
}

#[test]
fn the_core_cannot_reach_the_world() {
    assert_all(the_core_is_pure);
}

#[test]
fn there_are_no_globals() {
    assert_all(nothing_is_process_wide);
}

#[test]
fn no_file_is_too_long() {
    assert_all(files_are_short);
}

/// The crates that the library is built of with these features.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "-p",
            "sorcha-peer",
            "--offline",
            "--locked",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names of crates");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_core_alone_needs_no_runtime() {
    let needs = |of: &BTreeSet<String>| {
        let heavy = ["tokio", "hyper", "tonic", "rustls", "sqlx"];
        heavy.iter().filter(|name| of.contains(**name)).count()
    };
    assert_eq!(needs(&crates(&["--no-default-features"])), 0);
    assert_eq!(needs(&crates(&[])), 5, "the names are right");
}

fn bites(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> bool {
    !rule(&Source::new(path, text)).is_empty()
}

#[test]
fn the_rule_of_imports_bites() {
    let forbidden = [
        ("types/id.rs", "use crate::error::ConfigError;"),
        ("types/id.rs", "fn f() -> crate::config::Config {}"),
        ("protocol/mod.rs", "use crate::ports::Transport;"),
        ("protocol/mod.rs", "use crate::{types::PeerId, node::PeerNode};"),
        ("protocol/mod.rs", "use crate::{\n    types::{PeerId, Topic},\n    wire,\n};"),
        ("protocol/io.rs", "use super::super::node;"),
        ("identity.rs", "use super::config::Config;"),
        ("ports/transport.rs", "use crate :: config :: Config;"),
        ("node/driver/mod.rs", "use crate::sim::Network;"),
        ("sim/mod.rs", "use crate::node::PeerNode;"),
        ("novelty/mod.rs", ""),
        ("compat/mod.rs", "use crate::node::PeerNode;"),
        ("compat/mod.rs", "use crate::protocol::Protocol;"),
        ("transport/mod.rs", "use crate::compat::Ops;"),
        ("web/mod.rs", "use crate::compat::Refusal;"),
        ("monitor/admin/mod.rs", "use crate::compat::Ops;"),
    ];
    for (path, text) in forbidden {
        assert!(bites(one_way, path, text), "{path}: {text}");
    }
    let fine = [
        ("types/id.rs", "use super::hex;"),
        ("protocol/io.rs", "use super::{log::Entry, Protocol};"),
        ("transport/grpc/server.rs", "use super::super::tls; use crate::{config, error};"),
        ("node/driver/mod.rs", "use crate::protocol::Protocol; // not crate::sim::Network"),
        ("types/id.rs", "/// [`crate::node`]\nfn f() {}"),
        ("types/id.rs", "#[cfg(test)]\nmod tests {\n    use crate::identity::Identity;\n}"),
        ("lib.rs", "pub use crate::node::PeerNode;"),
    ];
    for (path, text) in fine {
        assert!(!bites(one_way, path, text), "{path}: {text}");
    }
}

#[test]
fn the_rule_of_adapters_bites() {
    let import = "use crate::store::SqliteOptions;";
    assert!(bites(adapters_in_one_place, "node/handle/mod.rs", import));
    assert!(bites(adapters_in_one_place, "node/handle/mod.rs", "use crate::transport;"));
    assert!(bites(adapters_in_one_place, "config/mod.rs", "use crate::SqliteStorage;"));
    assert!(!bites(adapters_in_one_place, ASSEMBLY[0], import));
    assert!(!bites(adapters_in_one_place, "store/mod.rs", import));
    let seam = "use crate::transport::{Guest, Visitor};";
    assert!(!bites(adapters_in_one_place, "compat/mod.rs", seam));
    assert!(bites(adapters_in_one_place, "node/mod.rs", seam));
    let more = "use crate::transport::{Guest, MemoryNetwork};";
    assert!(bites(adapters_in_one_place, "compat/mod.rs", more));
    assert!(bites(adapters_in_one_place, "compat/mod.rs", "use crate::store::Lock;"));
}

#[test]
fn the_rule_of_the_core_bites() {
    let forbidden = [
        "use tokio::sync::mpsc;",
        "use std::time::{Duration, Instant};",
        "use std::collections::{BTreeMap, HashMap};",
        "let x = std::fs::read(path);",
        "let x = std :: env::var(name);",
        "async fn f() {}",
        "static X: std::sync::Mutex<u8>;",
    ];
    for text in forbidden {
        assert!(bites(the_core_is_pure, "protocol/io.rs", text), "{text}");
        assert!(!bites(the_core_is_pure, "node/driver/mod.rs", text), "{text}");
    }
    assert!(!bites(the_core_is_pure, KEYED_MAP, "use hashbrown::HashMap;"));
    assert!(!bites(the_core_is_pure, "protocol/io.rs", "let instant = 1; // Instant"));
}

#[test]
fn the_rule_of_globals_bites() {
    let forbidden = [
        "use std::fmt;\nstatic COUNT: AtomicU64 = AtomicU64::new(0);",
        "pub(crate) static mut X: u8 = 0;",
        "fn f() { static ONCE: Once = Once::new(); }",
        "thread_local! { static X: u8 = 0 }",
    ];
    for text in forbidden {
        let text = format!("//! A file.\nmod a;\n{text}");
        assert!(bites(nothing_is_process_wide, "node/driver/mod.rs", &text), "{text}");
    }
    let fine = "fn f(x: &'static str) -> impl Future + 'static {} // static";
    assert!(!bites(nothing_is_process_wide, "node/driver/mod.rs", fine));
}

#[test]
fn the_rule_of_length_bites() {
    let code = |lines| "let x = 1;\n".repeat(lines);
    assert!(bites(files_are_short, "a.rs", &code(MAX_LINES + 1)));
    assert!(!bites(files_are_short, "a.rs", &code(MAX_LINES)));
    let padded = format!("{}{}", "// why\n\n".repeat(MAX_LINES), code(MAX_LINES));
    assert!(!bites(files_are_short, "a.rs", &padded), "comments and blank lines are free");
    let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}", code(MAX_LINES));
    assert!(!bites(files_are_short, "a.rs", &tested), "and so are tests");
}
