//! How the node is, in a sentence, and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::StoreErrorKind;
use crate::monitor::admin::Shared;
use crate::monitor::admin::reply::{self, Reply};
use crate::monitor::admin::routes::{Call, stopped};
use crate::node::PeerNode;
use crate::types::{LinkState, LinkStatus, Mode, Stats};
use crate::web::Problem;

/// Connection of the node to its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeName {
    Offline,
    Degraded,
    Online,
}

impl From<Mode> for ModeName {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Offline => Self::Offline,
            Mode::Degraded => Self::Degraded,
            Mode::Online => Self::Online,
        }
    }
}

/// How the node is.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    #[schema(pattern = "^[0-9a-f]{64}$")]
    peer_id: String,
    /// Name of the network.
    network: String,
    /// Version of the library.
    version: &'static str,
    mode: ModeName,
    /// How it is and why, in one sentence.
    sentence: String,
    ready: bool,
    /// What is not as it should be, as sentences.
    reasons: Vec<String>,
    uptime_s: u64,
    /// Time that the node goes by, in Unix milliseconds.
    now_ms: u64,
    /// Socket addresses that peers reach; none where the node only dials out.
    listen: Vec<String>,
    /// Socket address for what a proxy in front passes on.
    http: Option<String>,
    /// Addresses that the node tells others to reach it at.
    advertised: Vec<String>,
    /// True: whoever asked may also act.
    actions: bool,
}

/// What health checks and people are told.
pub(super) struct Report {
    pub(super) mode: Mode,
    pub(super) is_ready: bool,
    pub(super) reasons: Vec<String>,
    sentence: String,
    stats: Stats,
}

/// All that a report is made of.
struct Facts<'a> {
    stats: &'a Stats,
    links: &'a [LinkStatus],
    is_running: bool,
    /// Kind of the failure of storage.
    storage: Option<&'static str>,
    hint: Option<String>,
    refusals: BTreeMap<&'static str, usize>,
    has_bootstrap: bool,
    min_healthy: u32,
    outbox_limit: u64,
}

impl Report {
    /// The report on a node; `None` once that is shut down. Addresses are named where it `names_all`.
    pub(super) async fn of(shared: &Shared, node: &PeerNode, names_all: bool) -> Option<Self> {
        let (stats, links) = node.overview().await.ok()?;
        let config = node.config();
        let facts = Facts {
            stats: &stats,
            links: &links,
            is_running: *shared.is_running.borrow(),
            storage: node.storage_failure().map(StoreErrorKind::as_str),
            hint: node.hint().filter(|_| names_all),
            refusals: shared.lost().refusals(node.now().as_millis()),
            has_bootstrap: !config.discovery.bootstrap.is_empty(),
            min_healthy: config.discovery.min_healthy_peers,
            outbox_limit: stats.outbox_limit,
        };
        let (is_ready, reasons, sentence) = (facts.is_ready(), facts.reasons(), facts.sentence());
        Some(Self { mode: stats.mode, is_ready, reasons, sentence, stats })
    }
}

impl Facts<'_> {
    fn healthy(&self) -> usize {
        self.links.iter().filter(|link| link.state == LinkState::Up).count()
    }

    /// Reports whether nobody is known whom the node could be linked with.
    fn is_alone(&self) -> bool {
        !self.has_bootstrap && self.stats.known_peers == 0
    }

    fn is_ready(&self) -> bool {
        let is_linked = self.stats.links > 0 || self.is_alone();
        self.is_running && is_linked && self.storage.is_none()
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.is_running {
            reasons.push("The node is stopping".to_owned());
        }
        let (healthy, wanted) = (self.healthy(), self.min_healthy);
        if self.stats.links == 0 && !self.is_alone() {
            let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!(": {hint}"));
            reasons.push(format!("There is no link to any peer{hint}"));
        } else if self.stats.mode == Mode::Degraded {
            reasons.push(format!(
                "There are fewer healthy peers than there should be: {healthy} of {wanted}"
            ));
        }
        if let Some(kind) = self.storage {
            reasons.push(format!("Storage fails: {kind}"));
        }
        if self.stats.clock_off {
            let off = seconds(self.stats.clock_offset_ms);
            reasons.push(format!("The clock of this machine is off by {off}"));
        }
        let (held, limit) = (self.stats.outbox + self.stats.dead_letters, self.outbox_limit);
        if held >= limit {
            reasons.push(format!("The outbox is full: {held} of {limit}"));
        }
        reasons
    }

    fn sentence(&self) -> String {
        let (healthy, wanted) = (self.healthy(), self.min_healthy);
        let peers = if healthy == 1 {
            "1 healthy peer".to_owned()
        } else {
            format!("{healthy} healthy peers")
        };
        let mut sentence = match self.stats.mode {
            _ if !self.is_running => "Stopping".to_owned(),
            Mode::Online => format!("Online: {peers}"),
            Mode::Degraded => format!("Degraded: {healthy} of {wanted} healthy peers"),
            Mode::Offline if self.is_alone() => {
                "Offline: no first contact is configured and nobody has dialled in".to_owned()
            }
            Mode::Offline => match &self.hint {
                Some(hint) => format!("Offline: no link to any peer: {hint}"),
                None => "Offline: no link to any peer yet".to_owned(),
            },
        };
        if self.stats.mode != Mode::Online {
            for (reason, count) in &self.refusals {
                // Writing to a string does not fail.
                let _ = write!(sentence, "; {count} refused: {}", reason.replace('_', " "));
            }
        }
        if let Some(kind) = self.storage {
            let _ = write!(sentence, "; storage fails: {kind}");
        }
        if self.stats.clock_off {
            let _ =
                write!(sentence, "; the clock is off by {}", seconds(self.stats.clock_offset_ms));
        }
        if self.stats.outbox + self.stats.dead_letters >= self.outbox_limit {
            sentence.push_str("; the outbox is full");
        }
        sentence
    }
}

/// A time in seconds, as people read it.
fn seconds(millis: i64) -> String {
    let millis = millis.unsigned_abs();
    if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) }
}

/// How the node is, and why.
#[utoipa::path(get, path = "/api/v1/status", tag = "figures", responses(
    (status = 200, description = "How it is", body = Status),
))]
pub(in crate::monitor::admin) async fn status(call: &Call<'_>) -> Result<Reply, Problem> {
    let node = call.node()?;
    let report = Report::of(call.shared, &node, true).await.ok_or_else(stopped)?;
    reply::json(&Status {
        peer_id: node.peer_id().to_string(),
        network: node.config().network.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        mode: report.mode.into(),
        sentence: report.sentence,
        ready: report.is_ready,
        reasons: report.reasons,
        uptime_s: report.stats.uptime_s,
        now_ms: node.now().as_millis(),
        listen: node.listen_addr().iter().map(ToString::to_string).collect(),
        http: node.http_addr().map(|address| address.to_string()),
        advertised: report.stats.advertised,
        // Nobody else comes as far as this.
        actions: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::testing::snapshot;

    fn facts(stats: &Stats) -> Facts<'_> {
        Facts {
            stats,
            links: &[],
            is_running: true,
            storage: None,
            hint: None,
            refusals: BTreeMap::new(),
            has_bootstrap: true,
            min_healthy: 5,
            outbox_limit: 100,
        }
    }

    #[test]
    fn a_sentence_says_how_it_is_and_why() {
        let mut of = snapshot(3);
        of.links[1].state = LinkState::Up;
        of.stats.mode = Mode::Degraded;
        let refusals = BTreeMap::from([("wrong_network", 2)]);
        let degraded = Facts { links: &of.links, refusals, ..facts(&of.stats) };
        let wanted = "Degraded: 3 of 5 healthy peers; 2 refused: wrong network";
        assert_eq!(degraded.sentence(), wanted);
        assert!(degraded.is_ready());
        let reason = "There are fewer healthy peers than there should be: 3 of 5";
        assert_eq!(degraded.reasons(), [reason]);

        of.stats.clock_off = true;
        of.stats.outbox = 100;
        let failing = Facts { storage: Some("full"), ..facts(&of.stats) };
        assert!(!failing.is_ready());
        let words = ["storage fails: full", "the clock is off by 1500 ms", "the outbox is full"];
        assert!(
            words.iter().all(|words| failing.sentence().contains(words)),
            "{}",
            failing.sentence()
        );
        assert_eq!(failing.reasons().len(), 4);
    }

    #[test]
    fn a_node_is_ready_that_is_linked_or_alone_and_runs() {
        let mut stats = snapshot(0).stats;
        stats.mode = Mode::Offline;
        let hint = Some("nobody answers".to_owned());
        let cut_off = Facts { hint, ..facts(&stats) };
        assert!(!cut_off.is_ready());
        assert!(cut_off.sentence().ends_with("nobody answers"));
        assert!(cut_off.reasons()[0].ends_with("nobody answers"));
        let mut stats = stats.clone();
        stats.known_peers = 0;
        let alone = Facts { has_bootstrap: false, ..facts(&stats) };
        assert!(alone.is_ready() && alone.reasons().is_empty(), "{:?}", alone.reasons());
        let stopping = Facts { is_running: false, ..alone };
        assert!(!stopping.is_ready());
        assert_eq!(stopping.reasons(), ["The node is stopping"]);
    }
}
