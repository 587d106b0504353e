//! What happened, as a table and a sentence or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use sorcha_peer::PeerNode;

use crate::check::{Table, Tally};
use crate::files::{Reason, Skipped};

/// Number of skipped files that are named beside a table; JSON has all.
const MAX_NAMED: usize = 20;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    nodes: usize,
    links: usize,
    transactions: usize,
    bytes: u64,
    /// Deliveries to subscribers at all nodes, the publishing one included.
    deliveries: usize,
    missing: usize,
    duplicates: usize,
    corrupt: usize,
    /// Number of files above a limit.
    refused: usize,
    unreadable: usize,
    pub(crate) skipped: Vec<Skipped>,
    /// Payloads received per delivery at a node that did not publish it; 1 is the least.
    copies_per_delivery: f64,
    latency_ms: Latency,
    wall_s: f64,
}

/// Time from `publish` to a subscriber at another node.
#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    max: f64,
}

impl Report {
    /// A report of nothing yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Notes what arrived.
    pub(crate) fn arrived(&mut self, table: &Table, tally: Tally, wall: Duration) {
        (self.transactions, self.bytes) = table.size();
        self.deliveries = tally.deliveries;
        self.missing = self.transactions * self.nodes - tally.deliveries;
        self.duplicates = tally.duplicates;
        self.corrupt = tally.corrupt;
        self.latency_ms = percentiles(tally.latencies);
        self.wall_s = wall.as_secs_f64();
    }

    /// Asks the nodes what it cost.
    pub(crate) async fn ask(&mut self, nodes: &[PeerNode]) -> anyhow::Result<()> {
        let (mut ends, mut copies) = (0, 0);
        for node in nodes {
            let stats = node.stats().await?;
            ends += stats.links as usize;
            copies += stats.counters.payloads_received + stats.counters.duplicates_received;
        }
        self.links = ends / 2;
        let elsewhere = self.transactions * (self.nodes - 1);
        self.copies_per_delivery = copies as f64 / elsewhere.max(1) as f64;
        Ok(())
    }

    /// Prints it, and gives the status to end with.
    pub(crate) fn print(mut self, json: bool) -> ExitCode {
        let unreadable = |s: &&Skipped| matches!(s.reason, Reason::Unreadable(_));
        self.unreadable = self.skipped.iter().filter(unreadable).count();
        self.refused = self.skipped.len() - self.unreadable;
        let mut text = String::new();
        for skipped in self.skipped.iter().take(MAX_NAMED) {
            let _ = writeln!(text, "skipped {}: {}", skipped.path, skipped.reason);
        }
        if self.skipped.len() > MAX_NAMED {
            let more = self.skipped.len() - MAX_NAMED;
            let _ = writeln!(text, "skipped {more} more, which --json names");
        }
        // Whoever reads may have gone; the status says the rest.
        let _ = std::io::stderr().write_all(text.as_bytes());
        let sentence = self.sentence();
        if json {
            let _ = writeln!(std::io::stderr(), "{sentence}");
            let line = serde_json::to_string(&self).expect("plain data");
            let _ = writeln!(std::io::stdout(), "{line}");
        } else if self.transactions == 0 {
            let _ = writeln!(std::io::stderr(), "{sentence}");
        } else {
            let _ = writeln!(std::io::stdout(), "{}\n{sentence}", self.table());
        }
        if self.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn is_good(&self) -> bool {
        let is_complete = self.missing == 0 && self.duplicates == 0 && self.corrupt == 0;
        self.transactions > 0 && is_complete
    }

    /// Says what happened, and what to try next.
    fn sentence(&self) -> String {
        let files =
            |count: usize| if count == 1 { "1 file".into() } else { format!("{count} files") };
        let mut skipped = String::new();
        if !self.skipped.is_empty() {
            let _ = write!(
                skipped,
                " Skipped and named above: {} too large, {} unreadable.",
                self.refused, self.unreadable,
            );
        }
        if self.transactions == 0 {
            let nothing = if skipped.is_empty() { ": there is no file." } else { "." };
            return format!(
                "Nothing to publish{nothing}{skipped} Next: give a folder that has files \
                 (`cargo run --release --example quickstart -- PATH`)."
            );
        }
        if !self.is_good() {
            return format!(
                "Not every node has every file once and unchanged: of {}, published by {} nodes, {} \
                 deliveries are missing, {} came twice and {} were changed.{skipped} Next: run it again with RUST_LOG=sorcha_peer=debug and \
                 report what you see.",
                files(self.transactions),
                self.nodes,
                self.missing,
                self.duplicates,
                self.corrupt,
            );
        }
        format!(
            "Every node has every file once and unchanged: {}, published by {} nodes, in {:.1} \
             s.{skipped} Next: a folder of your own (`-- PATH --nodes 20`), a publisher that is killed while \
             offline (`cargo run --release --example offline`), or a node inside a web service \
             (`--example embed`).",
            files(self.transactions),
            self.nodes,
            self.wall_s,
        )
    }

    fn table(&self) -> String {
        let rows = [
            ("nodes", self.nodes.to_string()),
            ("links", self.links.to_string()),
            ("transactions", self.transactions.to_string()),
            ("bytes", self.bytes.to_string()),
            ("skipped, too large", self.refused.to_string()),
            ("skipped, unreadable", self.unreadable.to_string()),
            ("deliveries", self.deliveries.to_string()),
            ("missing", self.missing.to_string()),
            ("duplicates", self.duplicates.to_string()),
            ("wrong hash", self.corrupt.to_string()),
            ("payload copies per delivery", format!("{:.3}", self.copies_per_delivery)),
            ("latency p50", format!("{:.2} ms", self.latency_ms.p50)),
            ("latency p95", format!("{:.2} ms", self.latency_ms.p95)),
            ("latency max", format!("{:.2} ms", self.latency_ms.max)),
            ("wall time", format!("{:.2} s", self.wall_s)),
        ];
        rows.map(|(name, value)| format!("{name:<28} {value:>14}\n")).concat()
    }
}

fn percentiles(mut latencies: Vec<f64>) -> Latency {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
        let rank = (last as f64 * share).round() as usize;
        latencies.get(rank).copied().unwrap_or_default()
    };
    Latency { p50: at(0.5), p95: at(0.95), max: at(1.0) }
}
