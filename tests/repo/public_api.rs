//! The public surface as a test: what the sources show to hosts is what `public_api.txt` says, and no
//! more than [`MAX_NAMES`].
//!
//! Reads `lib.rs` and the modules that are public, as text: `pub` items, `pub mod` and `pub use`. What
//! hosts see with the features `sim` and `unstable-core` only is listed apart and does not count, and
//! neither does the guide. After a change that is meant:
//! `SORCHA_BLESS=1 cargo test --test repo public_api`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Maximum number of names that hosts meet without unstable features.
const MAX_NAMES: usize = 140;
const UNSTABLE: [&str; 2] = ["\"sim\"", "\"unstable-core\""];
const LIST: &str = "tests/repo/public_api.txt";
const APART: &str = "# with the features `sim` and `unstable-core`, not covered by semver";

/// Public items: path and kind.
#[derive(Debug, Default, PartialEq)]
struct Surface {
    stable: BTreeSet<(String, String)>,
    unstable: BTreeSet<(String, String)>,
}

impl Surface {
    fn of(sources: &BTreeMap<String, String>) -> Self {
        let mut surface = Self::default();
        let walk = Walk { sources, kinds: kinds(sources) };
        walk.module(&mut surface, "", &tokens(&sources["lib.rs"]), true);
        surface
    }

    /// Adds a name to the module `path`; returns its path.
    fn note(&mut self, path: &str, name: &str, kind: &str, stable: bool) -> String {
        let at = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
        let list = if stable { &mut self.stable } else { &mut self.unstable };
        assert!(list.insert((at.clone(), kind.to_owned())), "{at} is there twice");
        at
    }

    fn to_text(&self) -> String {
        let lines = |names: &BTreeSet<(String, String)>| -> Vec<String> {
            names.iter().map(|(path, kind)| format!("{path} {kind}")).collect()
        };
        let apart = [String::new(), APART.to_owned()];
        let lines = [lines(&self.stable), apart.to_vec(), lines(&self.unstable)].concat();
        lines.join("\n") + "\n"
    }
}

struct Walk<'a> {
    sources: &'a BTreeMap<String, String>,
    /// The kind of every public item by name, wherever it is defined.
    kinds: BTreeMap<String, String>,
}

impl Walk<'_> {
    fn module(&self, surface: &mut Surface, path: &str, body: &[String], stable: bool) {
        let items = items(body);
        for item in items.iter().filter(|item| item.is_public) {
            // The pages of the guide have no items.
            if item.has_cfg("doc") {
                continue;
            }
            let stable = stable && !UNSTABLE.iter().any(|feature| item.has_cfg(feature));
            match item.kind.as_str() {
                "mod" => {
                    let at = surface.note(path, &item.name, "mod", stable);
                    if let Some(body) = &item.body {
                        self.module(surface, &at, body, stable);
                    } else {
                        self.module(surface, &at, &tokens(self.file_of(&at)), stable);
                    }
                }
                "use" => {
                    for leaf in leaves(&item.head) {
                        let (from, name) = leaf.rsplit_once("::").unwrap_or(("", &leaf));
                        if name == "*" {
                            let same = items.iter().find(|i| i.kind == "mod" && i.name == from);
                            let body = same.and_then(|module| module.body.as_ref());
                            let body =
                                body.unwrap_or_else(|| panic!("{leaf} hides what is public"));
                            self.module(surface, path, body, stable);
                        } else {
                            let kind = self.kinds.get(name).map_or("item", String::as_str);
                            surface.note(path, name, kind, stable);
                        }
                    }
                }
                kind => {
                    surface.note(path, &item.name, kind, stable);
                }
            }
        }
    }

    fn file_of(&self, module: &str) -> &str {
        let file = module.replace("::", "/");
        let found = [format!("{file}.rs"), format!("{file}/mod.rs")];
        let text = found.iter().find_map(|name| self.sources.get(name));
        text.unwrap_or_else(|| panic!("no file for {module}"))
    }
}

/// Kinds of public items by name, without those that are generated.
fn kinds(sources: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let written = sources.iter().filter(|(name, _)| !name.contains("generated/"));
    let items = written.flat_map(|(_, text)| items(&tokens(text)));
    let public = items.filter(|item| item.is_public && !matches!(&*item.kind, "use" | "mod"));
    public.map(|item| (item.name, item.kind)).collect()
}

#[derive(Debug)]
struct Item {
    attributes: Vec<Vec<String>>,
    is_public: bool,
    kind: String,
    name: String,
    /// Words that stand before the body or the semicolon, without attributes and visibility.
    head: Vec<String>,
    body: Option<Vec<String>>,
}

impl Item {
    /// Reports whether a condition asks for this: a feature with its quotes, or a word. What stands
    /// in `not(…)` is not asked for.
    fn has_cfg(&self, wanted: &str) -> bool {
        let conditions = self.attributes.iter().filter(|a| a.first().is_some_and(|t| t == "cfg"));
        conditions.into_iter().any(|condition| {
            let mut at = 0;
            while at < condition.len() {
                if condition[at] == "not" {
                    at = group_end(condition, at + 1);
                } else if condition[at] == wanted {
                    return true;
                } else {
                    at += 1;
                }
            }
            false
        })
    }
}

/// The items of a module, one after another.
fn items(tokens: &[String]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token == word);
    while at < tokens.len() {
        let mut attributes = Vec::new();
        while is(at, "#") {
            let open = if is(at + 1, "!") { at + 2 } else { at + 1 };
            let end = group_end(tokens, open);
            attributes.push(tokens[open + 1..end - 1].to_vec());
            at = end;
        }
        let mut is_public = is(at, "pub");
        if is_public {
            at += 1;
            if is(at, "(") {
                is_public = false;
                at = group_end(tokens, at);
            }
        }
        let start = at;
        let is_value = |at: usize| matches!(&*tokens[at], "use" | "static" | "type");
        let ends_with_semicolon =
            at < tokens.len() && (is_value(at) || (is(at, "const") && !is(at + 1, "fn")));
        let mut body = None;
        let mut head_end = at;
        while at < tokens.len() {
            head_end = at;
            match tokens[at].as_str() {
                ";" => {
                    at += 1;
                    break;
                }
                "{" if !ends_with_semicolon => {
                    let end = group_end(tokens, at);
                    body = Some(tokens[at + 1..end - 1].to_vec());
                    at = end;
                    break;
                }
                "(" | "[" | "{" => at = group_end(tokens, at),
                _ => at += 1,
            }
        }
        let head = tokens[start..head_end].to_vec();
        let qualifier =
            |word: &&String| !matches!(&***word, "async" | "const" | "unsafe" | "extern");
        let words: Vec<_> = if is(start + 1, "fn") || head.contains(&"fn".to_owned()) {
            head.iter().filter(qualifier).collect()
        } else {
            head.iter().collect()
        };
        if let [kind, name, ..] = words[..] {
            let (kind, name) = (kind.clone(), name.clone());
            items.push(Item { attributes, is_public, kind, name, head, body });
        }
    }
    items
}

/// The index behind the group that opens at `open`.
fn group_end(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("a group does not end: {:?}", &tokens[open..]);
}

/// The paths that a `use` names, each under the name that it gets.
fn leaves(head: &[String]) -> Vec<String> {
    fn tree(tokens: &[String], prefix: &str, found: &mut Vec<String>) {
        let Some(open) = tokens.iter().position(|t| t == "{") else {
            let renamed = tokens.iter().position(|t| t == "as").map(|at| tokens[at + 1].clone());
            let path = tokens.concat();
            found.push(renamed.unwrap_or_else(|| format!("{prefix}{path}")));
            return;
        };
        let prefix = format!("{prefix}{}", tokens[..open].concat());
        let inside = &tokens[open + 1..group_end(tokens, open) - 1];
        let mut start = 0;
        let mut at = 0;
        while at <= inside.len() {
            match inside.get(at).map(String::as_str) {
                Some("{") => at = group_end(inside, at),
                Some(token) if token != "," => at += 1,
                _ => {
                    if start < at {
                        tree(&inside[start..at], &prefix, found);
                    }
                    at += 1;
                    start = at;
                }
            }
        }
    }
    let mut found = Vec::new();
    tree(&head[1..], "", &mut found);
    found
}

/// Words, literals, `::` and single signs; no comments.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("::") {
            2
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            // A lifetime has no quote behind its first character.
            let second = rest.chars().nth(1).map_or(0, char::len_utf8);
            let is_literal = rest[1..].starts_with('\\') || rest[1 + second..].starts_with('\'');
            if is_literal { quoted(rest, '\'') } else { 1 }
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        if !rest.starts_with("//") && !rest.starts_with("/*") {
            tokens.push(rest[..length].to_owned());
        }
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Length of the literal at the start.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Sources by their path below `src`.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", "rs", &mut found);
    found
}

/// Adds the files below a folder that have this extension, by their path below `name`.
fn add(dir: &Path, name: &str, extension: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("a readable tree") {
        let path = entry.expect("a readable tree").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let name = if name.is_empty() { file.to_owned() } else { format!("{name}/{file}") };
        if path.is_dir() {
            add(&path, &name, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.insert(name, fs::read_to_string(&path).expect("a text"));
        }
    }
}

#[test]
fn the_public_surface_is_the_one_that_is_listed() {
    let surface = Surface::of(&sources());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    let text = surface.to_text();
    if std::env::var_os("SORCHA_BLESS").is_some() {
        fs::write(&file, &text).expect("a writable list");
    }
    let listed = fs::read_to_string(&file).unwrap_or_default();
    let (now, then): (BTreeSet<_>, BTreeSet<_>) =
        (text.lines().collect(), listed.lines().collect());
    let (added, gone) = (now.difference(&then), then.difference(&now));
    let changes: Vec<_> =
        added.map(|line| format!("+ {line}")).chain(gone.map(|line| format!("- {line}"))).collect();
    assert!(changes.is_empty() && text == listed, "not as in {LIST}:\n{}", changes.join("\n"));
    let count = surface.stable.len();
    println!("{count} public names, {} behind unstable features", surface.unstable.len());
    assert!(count <= MAX_NAMES, "{count} public names, at most {MAX_NAMES}");
}

#[test]
fn no_item_has_two_public_paths() {
    let surface = Surface::of(&sources());
    let mut seen = BTreeMap::new();
    for (path, kind) in surface.stable.iter().filter(|(_, kind)| kind != "mod") {
        let name = path.rsplit("::").next().unwrap_or(path);
        if let Some(other) = seen.insert((name, kind), path) {
            panic!("{path} and {other}");
        }
    }
}

/// Lists what a text names of the crate by `use`: Rust or a page with Rust in it.
fn used(text: &str) -> Vec<String> {
    let uses = text.split("use sorcha_peer::").skip(1);
    let heads = uses.filter_map(|rest| rest.split_once(';').map(|(head, _)| head));
    heads.flat_map(|head| leaves(&[vec!["use".to_owned()], tokens(head)].concat())).collect()
}

/// Examples are built with the unstable features on, so nothing else would tell.
#[test]
fn examples_and_guide_show_what_is_stable() {
    assert_eq!(used("# use sorcha_peer::{a::{B, c::D as E}, F};"), ["a::B", "E", "F"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = BTreeMap::new();
    for (dir, extension) in [("examples", "rs"), ("src/guide", "md")] {
        add(&root.join(dir), dir, extension, &mut texts);
    }
    texts.insert("README.md".to_owned(), fs::read_to_string(root.join("README.md")).unwrap());
    texts.retain(|name, _| !name.starts_with("examples/sim") && name != "src/guide/testing.md");
    assert!(texts.len() > 20, "only {} texts found", texts.len());
    let surface = Surface::of(&sources());
    let stable: BTreeSet<_> = surface.stable.iter().map(|(path, _)| path.as_str()).collect();
    for (name, text) in &texts {
        for path in used(text) {
            assert!(stable.contains(path.as_str()), "{name} uses {path}");
        }
    }
}

/// Lists what a crate of these files shows.
fn shown(files: &[(&str, &str)]) -> String {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Surface::of(&files.iter().map(own).collect()).to_text()
}

#[test]
fn what_is_added_is_seen() {
    let lib = "mod a;\npub mod b;\npub use a::One;\n";
    let files = |lib: &str, b: &str| {
        shown(&[("lib.rs", lib), ("a.rs", "pub struct One;\npub enum Two {}\n"), ("b/mod.rs", b)])
    };
    let before = files(lib, "");
    assert_eq!(before, format!("One struct\nb mod\n\n{APART}\n"));
    for (lib_more, b_more, line) in [
        ("pub use a::{Two};", "", "Two enum"),
        ("pub use a::{deep::{Two as Other}, self};", "", "Other item"),
        ("pub mod c { pub trait Deep {} }", "", "c::Deep trait"),
        ("", "#[derive(Debug)]\n/// Doc {\npub struct Three(pub u8);", "b::Three struct"),
        ("", "const A: char = '{'; pub async fn four<'a>(x: &'a str) { \"}\"; }", "b::four fn"),
        ("", "pub const fn five() {}", "b::five fn"),
        ("", "pub const SIX: u8 = { 6 };", "b::SIX const"),
        ("", "impl X { pub fn no() {} } pub type Seven = u8;", "b::Seven type"),
    ] {
        let after = files(&format!("{lib}{lib_more}"), b_more);
        assert!(after.lines().any(|found| found == line), "{line} is not in:\n{after}");
        assert_ne!(before, after);
    }
}

#[test]
fn what_is_private_or_unstable_is_told_apart() {
    let lib = "
        mod a; pub(crate) mod b; pub(crate) use a::One; #[cfg(test)] mod tests { pub fn no() {} }
        #[cfg(not(feature = \"unstable-core\"))] pub(crate) use inner::*;
        #[cfg(feature = \"unstable-core\")] pub use inner::*;
        #[cfg(all(doc, feature = \"x\"))] pub mod guide;
        #[cfg(any(test, feature = \"sim\"))] pub mod sim;
        #[cfg(all(feature = \"node\", not(feature = \"sim\")))] pub use a::Node;
        pub(crate) mod inner { pub use super::a::Two; }";
    let text = shown(&[("lib.rs", lib), ("sim.rs", "pub struct World { pub field: u8 }")]);
    assert_eq!(text, format!("Node item\n\n{APART}\nTwo item\nsim mod\nsim::World struct\n"));
}

#[test]
#[should_panic(expected = "a::* hides what is public")]
fn a_glob_of_another_file_is_refused() {
    shown(&[("lib.rs", "mod a; pub use a::*;"), ("a.rs", "pub struct One;")]);
}
