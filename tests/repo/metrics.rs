//! Metrics as committed files know them: the table of the guide is what a node writes, the dashboard asks
//! for what there is, and Prometheus's own checker finds nothing.
//!
//! After a change that is meant, such as a new counter:
//! `SORCHA_BLESS=1 cargo test --all-features --test repo metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sorcha_peer::transport::MemoryNetwork;
use sorcha_peer::{Identity, PeerNode};

const PREFIX: &str = "sorcha_peer_";
const GUIDE: &str = "src/guide/operating.md";
const HEADING: &str = "| metric | type | labels | means |\n|---|---|---|---|\n";
const DASHBOARD: &str = "examples/grafana/sorcha-peer.json";
const MAX_SERIES: usize = 400;
/// Maximum time for two nodes in one process to be linked.
const HANG: Duration = Duration::from_mins(1);
/// Endings of the series of a histogram, each of which counts.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Labels that Prometheus adds by itself.
const ADDED: [&str; 2] = ["job", "instance"];

/// One name, as the text says.
#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    /// Values of each label, in the order of the text.
    labels: Vec<(String, Vec<String>)>,
    samples: usize,
}

impl Family {
    fn note(&mut self, labels: &str) {
        self.samples += 1;
        for label in labels.split_terminator(',') {
            let (label, value) = label.split_once('=').expect("label=\"value\"");
            let value = value.trim_matches('"');
            let at = self.labels.iter().position(|(known, _)| known == label);
            let at = at.unwrap_or_else(|| {
                self.labels.push((label.to_owned(), Vec::new()));
                self.labels.len() - 1
            });
            let values = &mut self.labels[at].1;
            if !values.iter().any(|known| known == value) {
                values.push(value.to_owned());
            }
        }
    }

    /// The series of a histogram, as families of their own.
    fn parts(self) -> impl Iterator<Item = Self> {
        PARTS.into_iter().map(move |ending| Self {
            name: format!("{}{ending}", self.name),
            kind: "counter".to_owned(),
            help: self.help.clone(),
            labels: self.labels.clone(),
            samples: self.samples,
        })
    }

    /// A row of the guide's table.
    fn row(&self) -> String {
        let labels = self.labels.iter().map(|(label, values)| match label.as_str() {
            "version" | "le" => format!("`{label}`"),
            _ => format!("`{label}`: {}", values.join(", ")),
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        format!("| `{}` | {} | {labels} | {} |\n", self.name, self.kind, self.help)
    }
}

/// Reads the text, strictly: help, type, then samples.
fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and its help");
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, help, ..Family::default() });
            continue;
        }
        let family = families.last_mut().expect("help comes first");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family.kind = kind.strip_prefix(&family.name).expect("the same name").trim().to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        value.parse::<f64>().expect("a number");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let ending = name.strip_prefix(&family.name).expect("samples stand below their name");
        assert!(ending.is_empty() || family.kind == "histogram" && PARTS.contains(&ending));
        family.note(labels.strip_suffix('}').expect("labels end"));
    }
    families
}

/// The ids of two linked nodes, and what one of them writes.
fn written() -> ([String; 2], String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let network = MemoryNetwork::new();
        let node = |port: u16| {
            let identity = Identity::generate().expect("an identity");
            let transport = network.transport(identity.peer_id());
            let builder = PeerNode::builder().identity(identity).transport(Arc::new(transport));
            builder.listen(&format!("192.0.2.1:{port}"))
        };
        let first = node(5001).start().await.expect("a node");
        let second = node(5002).bootstrap(["192.0.2.1:5001"]).start().await.expect("a node");
        second.wait_ready(1, HANG).await.expect("a link");
        let receipt = second.publish("a topic of the host's", "x").await.expect("a receipt");
        receipt.replicated(1).await.expect("a copy");
        let text = second.metrics_text().await.expect("metrics");
        ([first, second].map(|node| node.peer_id().to_string()), text)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_guide_lists_all_metrics() {
    let rows: String = parse(&written().1).iter().map(Family::row).collect();
    let path = root().join(GUIDE);
    let guide = fs::read_to_string(&path).expect("the guide");
    let (before, rest) = guide.split_once(HEADING).expect("the table of metrics");
    let end: usize =
        rest.split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
    if std::env::var_os("SORCHA_BLESS").is_some() {
        let blessed = [before, HEADING, &rows, &rest[end..]].concat();
        return fs::write(&path, blessed).expect("a guide that can be written");
    }
    let listed: BTreeSet<_> = rest[..end].lines().collect();
    let there: BTreeSet<_> = rows.lines().collect();
    let mut said = String::new();
    for (sign, line) in listed
        .difference(&there)
        .map(|l| ('-', l))
        .chain(there.difference(&listed).map(|l| ('+', l)))
    {
        let _ = writeln!(said, "{sign} {line}");
    }
    assert!(
        rest[..end] == rows,
        "the guide's table is not what there is; see the top of tests/repo/metrics.rs\n{said}"
    );
}

#[test]
fn series_are_few_and_name_nobody() {
    let (ids, text) = written();
    let families = parse(&text);
    let series: usize = families.iter().map(|family| family.samples).sum();
    assert!((families.len()..=MAX_SERIES).contains(&series), "{series} series");
    for secret in ids.iter().map(String::as_str).chain(["192.0.2.1", "a topic of the host's"]) {
        assert!(!text.contains(secret), "{secret}");
    }
    for (sample, value) in [("transactions_published_total", 1), ("outbox_transactions", 0)] {
        let line = format!("{PREFIX}{sample} {value}");
        assert!(text.lines().any(|there| there == line), "{line}: {text}");
    }
    let link = "sorcha_peer_links{transport=\"memory\",direction=\"outbound\"} 1";
    assert!(text.lines().any(|there| there == link), "{text}");
}

/// Every query of the dashboard.
fn expressions(dashboard: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| text(&target["expr"])).collect()
}

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join(DASHBOARD)).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// Words of a query that stand outside of quotes, each with what follows it.
fn words(query: &str) -> Vec<(String, char)> {
    let mut words = Vec::new();
    for (at, part) in query.split('"').enumerate() {
        // Every second part is quoted.
        let mut rest = if at % 2 == 0 { part } else { "" };
        while let Some(from) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        {
            let word = &rest[from..];
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && !"_$".contains(c));
            let end = end.unwrap_or(word.len());
            words.push((word[..end].to_owned(), word[end..].chars().next().unwrap_or(' ')));
            rest = &word[end..];
        }
    }
    words
}

/// What a query asks for that no node writes: metrics, labels of them, and rates of what is no counter.
fn wrong_in(query: &str, families: &BTreeMap<&str, &Family>) -> Vec<String> {
    let words = words(query);
    let metrics: Vec<_> = words.iter().filter(|(word, _)| word.starts_with(PREFIX)).collect();
    let mut wrong = Vec::new();
    if metrics.is_empty() {
        wrong.push("no metric of ours".to_owned());
    }
    let mut labels: BTreeSet<&str> = ADDED.into();
    for (metric, _) in &metrics {
        match families.get(metric.as_str()) {
            Some(family) => labels.extend(family.labels.iter().map(|(label, _)| label.as_str())),
            None => wrong.push(metric.clone()),
        }
    }
    let named = words.iter().filter(|(_, next)| matches!(next, '=' | '!')).map(|(word, _)| word);
    let grouped = query.split("by (").chain(query.split("ignoring (")).skip(1);
    let grouped = grouped.filter_map(|rest| rest.split_once(')')).map(|(of, _)| of.to_owned());
    for label in named.cloned().chain(grouped).filter(|label| !label.contains('(')) {
        if !labels.contains(label.as_str()) {
            wrong.push(format!("label {label}"));
        }
    }
    for rated in query.split("rate(").skip(1) {
        let metric = rated.split('{').next().unwrap_or_default();
        if families.get(metric).is_none_or(|family| family.kind != "counter") {
            wrong.push(format!("a rate of {metric}"));
        }
    }
    wrong
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = written().1;
    let mut families = parse(&text);
    let histograms = families.extract_if(.., |family| family.kind == "histogram");
    let parts: Vec<_> = histograms.flat_map(Family::parts).collect();
    families.extend(parts);
    let families: BTreeMap<_, _> = families.iter().map(|f| (f.name.as_str(), f)).collect();
    let dashboard = dashboard();
    let queries = expressions(&dashboard);
    assert!(queries.len() > 30, "only {} queries", queries.len());
    for query in &queries {
        let wrong = wrong_in(query, &families);
        assert!(wrong.is_empty(), "{query}: {wrong:?}");
    }
    for (query, bites) in [
        ("rate(sorcha_peer_delivery_hops{}[5m])", true),
        ("sum by (le) (rate(sorcha_peer_delivery_hops_bucket{}[5m]))", false),
        ("sorcha_peer_no_such_metric", true),
        ("rate(sorcha_peer_known_peers{}[5m])", true),
        ("sum by (peer) (sorcha_peer_links)", true),
        ("sorcha_peer_mode{state=\"online\"}", true),
        ("up", true),
        ("sum by (transport) (sorcha_peer_links{instance=~\"$instance\"})", false),
    ] {
        assert_eq!(!wrong_in(query, &families).is_empty(), bites, "{query}");
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "panels have ids of their own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "panels lie on each other: {panel}");
            }
        }
        let said = ["title", "description"].map(|key| panel[key].as_str().unwrap_or_default());
        assert!(!said[0].is_empty() && (panel["type"] == "row" || !said[1].is_empty()), "{panel}");
    }
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "of Grafana 11");
    for variable in ["datasource", "job", "instance"] {
        let all = dashboard["templating"]["list"].as_array().expect("variables");
        assert!(all.iter().any(|there| there["name"] == variable), "{variable}");
    }
}

/// The checker, where there is one: what `.ci/run` unpacks, or what is installed.
fn promtool() -> Option<PathBuf> {
    let unpacked = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let unpacked =
        unpacked.unwrap_or_else(|| root().join("target")).join("promtool/usr/bin/promtool");
    let mut places = [unpacked, "promtool".into()].into_iter();
    let found = places.find(|place| Command::new(place).arg("--version").output().is_ok());
    if found.is_none() {
        eprintln!("SKIPPED: promtool is not here; `.ci/run` installs it");
    }
    found
}

fn check(promtool: &Path, what: &[&str], input: &str) -> Output {
    let mut command = Command::new(promtool);
    command.arg("check").args(what).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn the_checker_of_prometheus_finds_nothing() {
    let Some(promtool) = promtool() else { return };
    let text = written().1;
    let output = check(&promtool, &["metrics"], &text);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    let broken = text.replace("_total", "_count");
    assert!(!check(&promtool, &["metrics"], &broken).status.success(), "it does check");

    let rule = |query: &String| {
        let query = query.replace("$__rate_interval", "5m");
        json!({ "record": "of:the:dashboard", "labels": { "query": query }, "expr": query })
    };
    let queries: BTreeSet<_> = expressions(&dashboard()).into_iter().collect();
    let rules: Vec<_> = queries.iter().map(rule).collect();
    // JSON is YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules.yml");
    fs::write(&file, rules).expect("a file");
    let output = check(&promtool, &["rules", file.to_str().expect("a plain name")], "");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let all = format!("{} rules found", queries.len());
    assert!(output.status.success() && said.contains(&all), "{said}");
}
