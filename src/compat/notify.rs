//! News for clients that registered: transactions that are new in the log.
//!
//! Contract: each is told by its SHA-256, in the order of the log, and asks for what it wants. At most
//! [`MAX_UNDER_WAY`] are told something at once, in turn; the queues are the registry's.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::hashes::Sha;
use super::registry::{Entry, News, seconds};
use super::{Shared, reached};
use crate::types::{Transaction, TransactionId};

/// Maximum number of clients that are being told something.
const MAX_UNDER_WAY: usize = 8;

/// Has clients told of a transaction, those apart that it came from.
pub(super) fn tell(shared: &Shared, sha: &Sha, transaction: &Transaction) {
    if !shared.settings.compat.notify {
        return;
    }
    let sources = shared.hashes().sources(sha).to_vec();
    let header = transaction.header();
    let news = News {
        hash: TransactionId::from_bytes(*sha).to_string(),
        topic: header.topic.to_string(),
        size: header.payload_len,
    };
    let dropped = shared.registry().tell(&Arc::new(news), &sources);
    if dropped > 0 {
        shared.count(|c| c.compat_notifications_dropped += dropped);
    }
    shared.news_changed.notify_one();
}

/// Tells clients what is in their queues, until dropped.
pub(super) async fn run(shared: &Shared) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        while under_way.len() < MAX_UNDER_WAY {
            let Some((entry, news)) = shared.registry().take_news(now) else { break };
            under_way.push(send(shared, entry, news));
        }
        let next = shared.registry().next_news(now).filter(|_| under_way.len() < MAX_UNDER_WAY);
        tokio::select! {
            Some(()) = under_way.next() => {}
            () = reached(next) => {}
            () = shared.news_changed.notified() => {}
        }
    }
}

async fn send(shared: &Shared, entry: Entry, news: Arc<News>) {
    let me = shared.backend.peer_id().to_string();
    let now = seconds(shared.backend.now());
    let told = shared.client.notify(&entry.target, &me, &news, now).await;
    if let Err(error) = &told {
        let client = &entry.id;
        tracing::debug!(target: "sorcha_peer::compat", %client, %error, "a client was not told of a transaction");
    }
    shared.count(|c| match &told {
        Ok(()) => c.compat_notifications_sent += 1,
        Err(_) => c.compat_notifications_failed += 1,
    });
    shared.registry().told(&entry, &news, told.is_ok(), Instant::now());
}
