//! What was appended last, in memory: subscribers that keep up are not sent to the file for it.
//!
//! Invariant: everything with a cursor above `start` that the log has is in `entries`, in the order
//! of cursors. Bounded by bytes and number; payloads are shared with whoever handed them in, which
//! is the node's cache for the most part.

use std::collections::VecDeque;

use crate::ports::{LogEntry, Page};
use crate::types::{Cursor, Topic};

/// Number of bytes that an entry costs besides its payload.
const OVERHEAD: usize = 256;

/// The end of the log.
#[derive(Debug)]
pub(super) struct Recent {
    start: u64,
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Maximum of `bytes`.
    most: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { start: 0, entries: VecDeque::new(), bytes: 0, most: super::MEMORY.recent }
    }
}

impl Recent {
    /// Forgets everything; what follows has higher cursors than `start`.
    pub(super) fn restart(&mut self, start: u64) {
        *self = Self { start, most: self.most, ..Self::default() };
    }

    /// Sets the maximum number of bytes kept.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
        self.trim();
    }

    /// Returns the number of bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what was appended.
    pub(super) fn add(&mut self, entry: LogEntry) {
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
        self.trim();
    }

    fn trim(&mut self) {
        while self.bytes > self.most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(cost(&oldest));
            self.start = oldest.cursor.0;
        }
    }

    /// Page that follows `after`, as of
    /// [`TransactionStore::read`](crate::ports::TransactionStore::read); `None` where more than
    /// this knows may follow it, or nothing does.
    pub(super) fn page(
        &self,
        topic: Option<&Topic>,
        after: Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Option<Page> {
        if after.0 < self.start || self.entries.back()?.cursor <= after {
            return None;
        }
        let mut page = Page { next: after, ..Page::default() };
        let mut bytes = 0usize;
        let first = self.entries.partition_point(|entry| entry.cursor <= after);
        for entry in self.entries.range(first..) {
            let transaction = &entry.entry.transaction;
            if topic.is_none_or(|topic| topic == transaction.topic()) {
                bytes = bytes.saturating_add(transaction.payload().len());
                let full = bytes > max_bytes && !page.entries.is_empty();
                if full || page.entries.len() >= max_entries {
                    break;
                }
                page.entries.push(entry.clone());
            }
            page.next = entry.cursor;
        }
        Some(page)
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.entry.transaction.payload().len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ports::NewEntry;
    use crate::types::{Header, PeerId, Signature, Transaction, WallTime};

    fn entry(cursor: u64, topic: &str, size: usize) -> LogEntry {
        let at = WallTime::from_millis(cursor);
        let payload = Bytes::from(vec![7; size]);
        let topic = Topic::new(topic).unwrap();
        let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, &payload);
        let transaction = Transaction::new(header, Signature::None, payload).unwrap();
        let entry = NewEntry { transaction, from: None, hops: 0, keep_until: at };
        LogEntry { cursor: Cursor(cursor), entry }
    }

    fn cursors(page: Option<Page>) -> Option<(Vec<u64>, u64)> {
        page.map(|page| (page.entries.iter().map(|e| e.cursor.0).collect(), page.next.0))
    }

    #[test]
    fn pages_are_those_of_the_end() {
        let mut recent = Recent::default();
        recent.restart(10);
        assert_eq!(recent.page(None, Cursor(10), 9, 99), None, "nothing follows");
        for (cursor, topic) in [(11, "a"), (13, "b"), (14, "a"), (15, "b")] {
            recent.add(entry(cursor, topic, 10));
        }
        let topic = Topic::new("a").unwrap();
        let page = |topic, after, entries, bytes| {
            cursors(recent.page(topic, Cursor(after), entries, bytes))
        };
        assert_eq!(page(None, 9, 9, 99), None, "more may follow");
        assert_eq!(page(None, 15, 9, 99), None, "nothing follows");
        assert_eq!(page(None, 10, 9, 99), Some((vec![11, 13, 14, 15], 15)));
        assert_eq!(page(None, 12, 2, 99), Some((vec![13, 14], 14)), "so many");
        assert_eq!(page(None, 10, 9, 20), Some((vec![11, 13], 13)), "so many bytes");
        assert_eq!(page(None, 10, 9, 0), Some((vec![11], 11)), "one of any size");
        assert_eq!(page(Some(&topic), 11, 9, 99), Some((vec![14], 15)), "of a topic");
        assert_eq!(page(Some(&topic), 14, 9, 99), Some((vec![], 15)), "looked at");
        assert_eq!(page(None, 10, 0, 99), Some((vec![], 10)));
    }

    #[test]
    fn it_is_bounded() {
        let mut recent = Recent::default();
        for cursor in 1..100 {
            recent.add(entry(cursor, "a", 1 << 20));
        }
        assert!(recent.bytes <= recent.most && recent.entries.len() == 3);
        assert_eq!(recent.page(None, Cursor(95), 9, usize::MAX), None);
        let end = recent.page(None, Cursor(96), 9, usize::MAX);
        assert_eq!(cursors(end), Some((vec![97, 98, 99], 99)));
        recent.add(entry(100, "a", recent.most));
        assert_eq!((recent.entries.len(), recent.bytes, recent.start), (0, 0, 100));
    }
}
