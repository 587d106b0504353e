//! Topics of the host's live subscriptions, counted: the driver tells the protocol what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::types::{Topic, TopicKey};

/// Number of live subscriptions of each topic.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicCounts {
    topics: BTreeMap<TopicKey, u32>,
    all_topics: u32,
}

impl TopicCounts {
    /// Topics that are subscribed; `None` is every topic.
    pub(super) fn topics(&self) -> Option<BTreeSet<TopicKey>> {
        (self.all_topics == 0).then(|| self.topics.keys().copied().collect())
    }

    fn enter(&mut self, topics: &TopicSelection) {
        let Some(topics) = topics.names() else {
            self.all_topics += 1;
            return;
        };
        for topic in topics {
            *self.topics.entry(TopicKey::of(topic)).or_default() += 1;
        }
    }

    fn leave(&mut self, topics: &TopicSelection) {
        let Some(topics) = topics.names() else {
            self.all_topics = self.all_topics.saturating_sub(1);
            return;
        };
        for topic in topics {
            let key = TopicKey::of(topic);
            if let Some(count) = self.topics.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.topics.remove(&key);
                }
            }
        }
    }
}

/// Count of subscriptions, shared by handles and watched by the driver.
#[derive(Debug, Clone, Default)]
pub(super) struct SubscribedTopics(Arc<watch::Sender<TopicCounts>>);

impl SubscribedTopics {
    pub(super) fn watch(&self) -> watch::Receiver<TopicCounts> {
        self.0.subscribe()
    }

    /// Counts a subscription until it is dropped.
    pub(super) fn enter(&self, topics: TopicSelection) -> TopicsGuard {
        self.0.send_modify(|counts| counts.enter(&topics));
        TopicsGuard { counts: self.clone(), topics }
    }
}

/// Topics of a subscription.
#[derive(Debug, Clone)]
pub(super) enum TopicSelection {
    All,
    Some(BTreeSet<Topic>),
}

impl TopicSelection {
    pub(super) fn one(topic: Topic) -> Self {
        Self::Some([topic].into())
    }

    /// Returns the only topic: what a store can look for.
    pub(super) fn single(&self) -> Option<&Topic> {
        self.names().filter(|topics| topics.len() == 1).and_then(BTreeSet::first)
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.names().is_none_or(|topics| topics.contains(topic))
    }

    /// Names of the topics; `None` is every topic.
    fn names(&self) -> Option<&BTreeSet<Topic>> {
        match self {
            Self::All => None,
            Self::Some(topics) => Some(topics),
        }
    }
}

/// Place of one live subscription in the count, until it is dropped.
#[derive(Debug)]
pub(super) struct TopicsGuard {
    counts: SubscribedTopics,
    topics: TopicSelection,
}

impl TopicsGuard {
    pub(super) fn topics(&self) -> &TopicSelection {
        &self.topics
    }
}

impl Drop for TopicsGuard {
    fn drop(&mut self) {
        self.counts.0.send_modify(|counts| counts.leave(&self.topics));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_subscribed_as_long_as_one_subscription_to_it_lives() {
        let subscribed = SubscribedTopics::default();
        let seen = subscribed.watch();
        let topic = Topic::new("t").unwrap();
        let only: Option<BTreeSet<_>> = Some([TopicKey::of(&topic)].into());
        let topics = || seen.borrow().topics();
        assert_eq!(topics(), Some(BTreeSet::new()));
        let one = || subscribed.enter(TopicSelection::one(topic.clone()));
        let (first, second) = (one(), one());
        drop(first);
        assert_eq!(topics(), only);
        let all = subscribed.enter(TopicSelection::All);
        assert_eq!(topics(), None);
        drop(all);
        assert_eq!(topics(), only);
        drop(second);
        assert_eq!(topics(), Some(BTreeSet::new()));
    }
}
