//! Stores that hang: publishes are answered all the same, and what is said of them holds afterwards.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sorcha_peer::error::{PublishError, StoreError, StoreErrorKind};
use sorcha_peer::ports::{NewEntry, TransactionQueue, TransactionStore};
use sorcha_peer::{Cursor, Event, Identity, Transaction};

use crate::hooked::{Hooked, Hooks, alone, delivered};
use crate::hooked_queue::{HookedQueue, QueueHooks};

/// Waits while it is shut.
#[derive(Debug, Default)]
struct Door(tokio::sync::watch::Sender<bool>);

impl Door {
    fn shut(&self, is_shut: bool) {
        self.0.send_replace(is_shut);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|is_shut| !is_shut).await.expect("its sender is here");
    }
}

#[async_trait]
impl Hooks for Door {
    async fn append(
        &self,
        log: &dyn TransactionStore,
        entries: &[NewEntry],
    ) -> Result<Vec<Cursor>, StoreError> {
        self.pass().await;
        log.append(entries).await
    }
}

#[async_trait]
impl QueueHooks for Door {
    async fn append(
        &self,
        queue: &dyn TransactionQueue,
        transactions: &[Transaction],
    ) -> Result<Vec<u64>, StoreError> {
        self.pass().await;
        queue.append(transactions).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_no_longer_than_it_may() {
    for is_log in [true, false] {
        let log = Hooked::new(Door::default());
        let queue = Arc::new(HookedQueue::new(10_000, Door::default()));
        let door = if is_log { &log.hooks } else { &queue.hooks };
        let identity = Identity::generate().unwrap();
        let builder = alone(&identity).transaction_store(log.clone()).queue(queue.clone());
        let node = builder.start().await.unwrap();
        let mut events = node.events();
        node.publish("t", "before").await.unwrap();
        door.shut(true);
        let since = tokio::time::Instant::now();
        // More than the store is given at once: what it has not is refused for good.
        let many = (0..3000).map(|n| node.publish("t", n.to_string()));
        let answers = futures::future::join_all(many).await;
        assert!(since.elapsed() <= Duration::from_secs(5), "{:?}", since.elapsed());
        let unsettled = answers.iter().filter(|a| matches!(a, Err(PublishError::Unsettled)));
        let unsettled = unsettled.count();
        let refused = answers.iter().filter(|answer| match answer {
            Err(PublishError::Store(e)) => e.to_string().contains("has not answered"),
            _ => false,
        });
        assert_eq!((unsettled + refused.count(), unsettled > 0), (3000, true));
        match node.publish("t", "refused").await {
            Err(PublishError::Store(error)) => assert_eq!(error.kind, StoreErrorKind::Io),
            other => panic!("must be refused: {other:?}"),
        }
        assert!(since.elapsed() <= Duration::from_secs(5), "at once");
        assert_eq!(node.storage_failure(), Some(StoreErrorKind::Io));
        while !matches!(events.next().await, Some(Event::StorageFailed { .. })) {}
        door.shut(false);
        node.wait_ready(0, Duration::from_mins(1)).await.expect("it goes on");
        assert_eq!(node.storage_failure(), None);
        node.publish("t", "after").await.unwrap();
        // All that was accepted or may have been, and nothing else.
        let found = delivered(&node, unsettled + 2).await;
        assert_eq!(found.last().map(String::as_str), Some("after"));
        assert_eq!(log.usage().await.unwrap().entries, unsettled as u64 + 2);
        node.shutdown(Duration::ZERO).await.unwrap();
    }
}
