//! Which topics the host's live subscriptions are for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::types::{Topic, TopicKey};

/// Live subscriptions, counted by topic.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    topics: BTreeMap<TopicKey, u32>,
    everything: u32,
}

impl Live {
    /// The topics; `None` is every topic.
    pub(super) fn topics(&self) -> Option<BTreeSet<TopicKey>> {
        (self.everything == 0).then(|| self.topics.keys().copied().collect())
    }

    fn enter(&mut self, topics: &Selection) {
        let Some(topics) = topics.names() else {
            self.everything += 1;
            return;
        };
        for topic in topics {
            *self.topics.entry(TopicKey::of(topic)).or_default() += 1;
        }
    }

    fn leave(&mut self, topics: &Selection) {
        let Some(topics) = topics.names() else {
            self.everything = self.everything.saturating_sub(1);
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

/// Where subscriptions are counted; the driver watches it.
#[derive(Debug, Clone, Default)]
pub(super) struct Wants(Arc<watch::Sender<Live>>);

impl Wants {
    pub(super) fn watch(&self) -> watch::Receiver<Live> {
        self.0.subscribe()
    }

    /// Counts a subscription until it is dropped.
    pub(super) fn want(&self, topics: Selection) -> Want {
        self.0.send_modify(|live| live.enter(&topics));
        Want { wants: self.clone(), topics }
    }
}

/// Topics of a subscription.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    All,
    Some(BTreeSet<Topic>),
}

impl Selection {
    pub(super) fn one(topic: Topic) -> Self {
        Self::Some([topic].into())
    }

    /// The topic, where it is one only: what a store can look for.
    pub(super) fn single(&self) -> Option<&Topic> {
        self.names().filter(|topics| topics.len() == 1).and_then(BTreeSet::first)
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.names().is_none_or(|topics| topics.contains(topic))
    }

    /// `None` is every topic.
    fn names(&self) -> Option<&BTreeSet<Topic>> {
        match self {
            Self::All => None,
            Self::Some(topics) => Some(topics),
        }
    }
}

/// One live subscription.
#[derive(Debug)]
pub(super) struct Want {
    wants: Wants,
    topics: Selection,
}

impl Want {
    pub(super) fn topics(&self) -> &Selection {
        &self.topics
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.wants.0.send_modify(|live| live.leave(&self.topics));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_wanted_as_long_as_one_subscription_to_it_lives() {
        let wants = Wants::default();
        let seen = wants.watch();
        let topic = Topic::new("t").unwrap();
        let only: Option<BTreeSet<_>> = Some([TopicKey::of(&topic)].into());
        let topics = || seen.borrow().topics();
        assert_eq!(topics(), Some(BTreeSet::new()));
        let one = || wants.want(Selection::one(topic.clone()));
        let (first, second) = (one(), one());
        drop(first);
        assert_eq!(topics(), only);
        let all = wants.want(Selection::All);
        assert_eq!(topics(), None);
        drop(all);
        assert_eq!(topics(), only);
        drop(second);
        assert_eq!(topics(), Some(BTreeSet::new()));
    }
}
