//! What arrives, against what was published.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sorcha_peer::TransactionId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::progress::Progress;

/// No delivery anywhere for this long means that something is missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One file that was published by the node `origin`.
pub(crate) struct Published {
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) at: Instant,
    pub(crate) origin: usize,
}

/// One delivery at one node.
pub(crate) struct Arrival {
    pub(crate) node: usize,
    pub(crate) id: TransactionId,
    pub(crate) sha256: [u8; 32],
    pub(crate) at: Instant,
}

/// Everything that was published, and whether more will be.
#[derive(Default)]
pub(crate) struct Table(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    published: HashMap<TransactionId, Published>,
    complete: bool,
}

impl Table {
    pub(crate) fn insert(&self, id: TransactionId, file: Published) {
        self.rows().published.insert(id, file);
    }

    /// Says that nothing more will be published.
    pub(crate) fn complete(&self) {
        self.rows().complete = true;
    }

    /// Number of transactions, and of bytes in them.
    pub(crate) fn size(&self) -> (usize, u64) {
        let rows = self.rows();
        (rows.published.len(), rows.published.values().map(|file| file.size).sum())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of deliveries of each kind.
#[derive(Default)]
pub(crate) struct Tally {
    /// First deliveries at each node, the publishing one included.
    pub(crate) deliveries: usize,
    pub(crate) duplicates: usize,
    pub(crate) corrupt: usize,
    /// Milliseconds from `publish` to each delivery at another node.
    pub(crate) latencies: Vec<f64>,
}

/// Counts arrivals until all are there, or nothing comes any more.
pub(crate) async fn check(
    mut inbox: mpsc::Receiver<Arrival>,
    table: &Table,
    nodes: usize,
    progress: &Progress,
) -> Tally {
    let mut tally = Tally::default();
    let mut seen: HashMap<TransactionId, Vec<bool>> = HashMap::new();
    // A delivery may overtake the answer to its publish: it is looked at again.
    let mut early: Vec<Arrival> = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await {
            Ok(Some(arrival)) => {
                quiet_since = Instant::now();
                early.push(arrival);
            }
            Ok(None) => return tally,
            Err(_) => {}
        }
        let rows = table.rows();
        early.retain(|arrival| {
            let Some(file) = rows.published.get(&arrival.id) else { return true };
            let at_node = seen.entry(arrival.id).or_insert_with(|| vec![false; nodes]);
            if std::mem::replace(&mut at_node[arrival.node], true) {
                tally.duplicates += 1;
                return false;
            }
            tally.deliveries += 1;
            tally.corrupt += usize::from(arrival.sha256 != file.sha256);
            if arrival.node != file.origin {
                let latency = arrival.at.saturating_duration_since(file.at);
                tally.latencies.push(latency.as_secs_f64() * 1000.0);
            }
            progress.step();
            false
        });
        let all_there = early.is_empty() && tally.deliveries >= rows.published.len() * nodes;
        if rows.complete && (all_there || quiet_since.elapsed() > PATIENCE) {
            return tally;
        }
    }
}
