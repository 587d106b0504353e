//! Transactions by the SHA-256 of their payload, as clients of the original name them.
//!
//! Contract: the index is built by reading the retained log once, and follows it from then on. Until it
//! has caught up, what is not in it may yet be in the log: [`Hashes::is_built`]. An entry is a few bytes
//! of the hash and of that of the topic, and a cursor, so what is found by it is read and hashed again
//! before it is believed. At most [`MAX_ENTRIES`] are kept, the newest; an expired one goes when its time
//! has come or it is looked up.
//!
//! Tested by: the tests below, `compat::tests`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::{Shared, notify};
use crate::ports::LogEntry;
use crate::types::{Cursor, Topic, TopicKey, Transaction, TransactionId, WallTime};

/// Maximum number of transactions that are indexed, at about 70 bytes each.
const MAX_ENTRIES: usize = 1_000_000;
/// Maximum number of transactions that are read for one lookup: those with the same bytes, as a rule.
const MAX_CANDIDATES: usize = 16;
/// Maximum number of entries that are looked at for that.
const MAX_LOOKED_AT: usize = 1024;
/// Maximum number of transactions that are kept by their whole hash, since the log may not show them yet.
const MAX_LEARNT: usize = 4096;
/// Number of entries and of payload bytes that are read at a time.
const PAGE: (usize, usize) = (64, 1 << 20);
/// Delay before the log is read again after it failed.
const RETRY: Duration = Duration::from_secs(2);
/// Size of a payload above which it is hashed on another thread.
const MAX_INLINE_BYTES: usize = 256 * 1024;

/// SHA-256 of a payload.
pub(super) type Sha = [u8; 32];

/// Name of a transaction, as a client writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// 64 hex digits: a transaction id, or the SHA-256 of a payload.
    Hex([u8; 32]),
    /// Base64 of the SHA-256 of a payload.
    Base64(Sha),
}

impl Name {
    /// Reads a name: hex in any case; Base64 by the standard alphabet or that for URLs, padded or not.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.len() {
            64 => Some(Self::Hex(*text.parse::<TransactionId>().ok()?.as_bytes())),
            43 | 44 => {
                let config = GeneralPurposeConfig::new()
                    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
                let read = |alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok();
                let bytes = read(&STANDARD).or_else(|| read(&URL_SAFE))?;
                Some(Self::Base64(bytes.try_into().ok()?))
            }
            _ => None,
        }
    }

    /// The 32 bytes.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Hex(bytes) | Self::Base64(bytes) => bytes,
        }
    }
}

/// Transaction that is published for a client, before the log shows it.
#[derive(Debug, Clone)]
struct Learnt {
    /// None until it is published.
    id: Option<TransactionId>,
    /// Ids of the clients that have it, and need not be told.
    from: Vec<String>,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    /// First bytes of hashes and of topics' keys, each with a cursor.
    by_hash: BTreeSet<(u64, u64, u64)>,
    /// The same in the order of the log, with the time from which the entry may go.
    by_cursor: VecDeque<((u64, u64, u64), WallTime)>,
    learnt: HashMap<Sha, Learnt>,
    learnt_order: VecDeque<Sha>,
    is_built: bool,
}

impl Hashes {
    /// Reports whether everything that is retained has been read.
    pub(super) fn is_built(&self) -> bool {
        self.is_built
    }

    /// Number of transactions in the index.
    pub(super) fn len(&self) -> usize {
        self.by_cursor.len()
    }

    /// Enters a transaction that stands in the log. Returns whether an older one had to go.
    pub(super) fn enter(
        &mut self,
        sha: &Sha,
        topic: &Topic,
        cursor: Cursor,
        keep_until: WallTime,
    ) -> bool {
        let entry = (short(sha), key(topic), cursor.0);
        if self.by_hash.insert(entry) {
            self.by_cursor.push_back((entry, keep_until));
        }
        let is_full = self.by_cursor.len() > MAX_ENTRIES;
        if is_full {
            self.forget_oldest();
        }
        is_full
    }

    /// Notes what is about to be published for clients.
    pub(super) fn prepare(&mut self, sha: Sha, from: Vec<String>) {
        self.note(sha, Learnt { id: None, from });
    }

    /// Notes what was just published for clients.
    pub(super) fn learn(&mut self, sha: Sha, id: TransactionId, from: Vec<String>) {
        self.note(sha, Learnt { id: Some(id), from });
    }

    fn note(&mut self, sha: Sha, learnt: Learnt) {
        if self.learnt.insert(sha, learnt).is_none() {
            self.learnt_order.push_back(sha);
        }
        if self.learnt_order.len() > MAX_LEARNT
            && let Some(oldest) = self.learnt_order.pop_front()
        {
            self.learnt.remove(&oldest);
        }
    }

    /// Transaction that was just published for clients.
    pub(super) fn learnt(&self, sha: &Sha) -> Option<TransactionId> {
        self.learnt.get(sha)?.id
    }

    /// Clients that have a transaction themselves.
    pub(super) fn sources(&self, sha: &Sha) -> &[String] {
        self.learnt.get(sha).map_or(&[], |learnt| &learnt.from)
    }

    /// Cursors of transactions that may have this hash, and this topic where one is asked for, the newest
    /// first.
    pub(super) fn candidates(&self, sha: &Sha, topic: Option<&Topic>) -> Vec<Cursor> {
        let (short, key) = (short(sha), topic.map(key));
        let (first, last) = (key.unwrap_or(0), key.unwrap_or(u64::MAX));
        let range = self.by_hash.range((short, first, 0)..=(short, last, u64::MAX));
        let mut found: Vec<_> =
            range.rev().take(MAX_LOOKED_AT).map(|(.., cursor)| Cursor(*cursor)).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(MAX_CANDIDATES);
        found
    }

    /// Forgets an entry that the log has no longer.
    pub(super) fn forget(&mut self, sha: &Sha, cursor: Cursor) {
        let short = short(sha);
        let range = self.by_hash.range((short, 0, 0)..=(short, u64::MAX, u64::MAX));
        let gone = range.copied().take(MAX_LOOKED_AT).find(|(.., at)| *at == cursor.0);
        if let Some(gone) = gone {
            self.by_hash.remove(&gone);
        }
    }

    /// Forgets, from the oldest on, what may go.
    fn expire(&mut self, now: WallTime) {
        while self.by_cursor.front().is_some_and(|(_, keep_until)| *keep_until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((entry, _)) = self.by_cursor.pop_front() {
            self.by_hash.remove(&entry);
        }
    }
}

fn short(sha: &Sha) -> u64 {
    sha.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Key of a topic.
fn key(topic: &Topic) -> u64 {
    TopicKey::of(topic).0
}

/// Hashes a payload, a large one on another thread.
pub(super) async fn sha256(payload: &Bytes) -> Sha {
    let hash = |payload: &Bytes| -> Sha { Sha256::digest(payload).into() };
    if payload.len() <= MAX_INLINE_BYTES {
        return hash(payload);
    }
    let theirs = payload.clone();
    // It fails only while the runtime goes down.
    let hashed = tokio::task::spawn_blocking(move || hash(&theirs)).await;
    hashed.unwrap_or_else(|_| hash(payload))
}

/// Looks a transaction up by the hash of its payload; of several with the same bytes, the newest of the topic
/// that is asked for.
pub(super) async fn find(
    shared: &Shared,
    sha: &Sha,
    topic: Option<&Topic>,
) -> Result<Option<Transaction>, crate::error::StoreError> {
    let fits = |found: &Transaction| topic.is_none_or(|topic| found.header().topic == *topic);
    let (learnt, candidates) = {
        let hashes = shared.hashes();
        (hashes.learnt(sha), hashes.candidates(sha, topic))
    };
    if let Some(id) = learnt
        && let Some(transaction) = shared.backend.get(id).await?
        && fits(&transaction)
    {
        return Ok(Some(transaction));
    }
    for cursor in candidates {
        let before = Cursor(cursor.0.saturating_sub(1));
        let page = shared.backend.page(before, 1, 0).await?;
        let entry = page.entries.into_iter().next().filter(|entry| entry.cursor == cursor);
        let Some(LogEntry { entry, .. }) = entry else {
            shared.hashes().forget(sha, cursor);
            continue;
        };
        let transaction = entry.transaction;
        if fits(&transaction) && sha256(transaction.payload()).await == *sha {
            return Ok(Some(transaction));
        }
    }
    Ok(None)
}

/// Builds the index and follows the log, telling of what is new, until dropped.
pub(super) async fn run(shared: &Shared) {
    let Some(mut news) = shared.backend.news() else { return };
    let mut after = Cursor::default();
    loop {
        news.borrow_and_update();
        let began = Instant::now();
        match shared.backend.page(after, PAGE.0, PAGE.1).await {
            Ok(page) if page.next == after => {
                shared.hashes().is_built = true;
                if news.changed().await.is_err() {
                    return;
                }
            }
            Ok(page) => {
                enter(shared, page.entries).await;
                after = page.next;
                if !shared.hashes().is_built() {
                    // Half of the time at most: peers are served from the same log.
                    sleep(began.elapsed()).await;
                }
            }
            Err(error) => {
                tracing::warn!(target: "sorcha_peer::compat", %error, "the log cannot be read");
                sleep(RETRY).await;
            }
        }
    }
}

async fn enter(shared: &Shared, entries: Vec<LogEntry>) {
    let now = shared.backend.now();
    shared.hashes().expire(now);
    for LogEntry { cursor, entry } in entries {
        let sha = sha256(entry.transaction.payload()).await;
        let mut hashes = shared.hashes();
        let forgot =
            hashes.enter(&sha, &entry.transaction.header().topic, cursor, entry.keep_until);
        let is_news = hashes.is_built();
        drop(hashes);
        if forgot {
            shared.count(|c| c.compat_hashes_forgotten += 1);
        }
        if is_news {
            notify::tell(shared, &sha, &entry.transaction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: WallTime = WallTime::from_millis(u64::MAX);

    fn sha(text: &str) -> Sha {
        Sha256::digest(text).into()
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    #[test]
    fn names_are_hex_or_base64_and_nothing_else() {
        let bytes = sha("a payload");
        let hex = TransactionId::from_bytes(bytes).to_string();
        assert_eq!(Name::parse(&hex), Some(Name::Hex(bytes)));
        assert_eq!(Name::parse(&hex.to_uppercase()), Some(Name::Hex(bytes)));
        let spell = |alphabet, padded| {
            let config = GeneralPurposeConfig::new().with_encode_padding(padded);
            GeneralPurpose::new(alphabet, config).encode([0xfb; 32])
        };
        for alphabet in [&STANDARD, &URL_SAFE] {
            for padded in [true, false] {
                let text = spell(alphabet, padded);
                assert_eq!(Name::parse(&text), Some(Name::Base64([0xfb; 32])), "{text}");
            }
        }
        let odd = [
            String::new(),
            " ".to_owned(),
            hex[1..].to_owned(),
            format!("{hex}0"),
            format!("0x{}", &hex[2..]),
            format!(" {}", &hex[1..]),
            "g".repeat(64),
            "é".repeat(32),
            "=".repeat(44),
            "A".repeat(44),
            "A".repeat(42) + "==",
            "\u{0}".repeat(43),
            "x".repeat(1 << 20),
        ];
        for text in odd {
            assert_eq!(Name::parse(&text), None, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_expired_or_is_too_much_is_forgotten_from_the_oldest_on() {
        let mut hashes = Hashes::default();
        for n in 1..=4 {
            let until = WallTime::from_millis(n * 10);
            assert!(!hashes.enter(&sha("same"), &topic("t"), Cursor(n), until));
        }
        let cursors = |hashes: &Hashes| -> Vec<u64> {
            hashes.candidates(&sha("same"), None).iter().map(|cursor| cursor.0).collect()
        };
        assert_eq!(cursors(&hashes), [4, 3, 2, 1]);
        hashes.expire(WallTime::from_millis(20));
        assert_eq!((cursors(&hashes), hashes.len()), (vec![4, 3], 2));
        hashes.forget(&sha("same"), Cursor(4));
        assert_eq!(cursors(&hashes), [3]);
        assert!(hashes.candidates(&sha("other"), None).is_empty());
    }

    #[test]
    fn the_same_bytes_under_other_topics_hide_nothing() {
        let mut hashes = Hashes::default();
        hashes.enter(&sha("same"), &topic("wanted"), Cursor(1), LATE);
        for n in 2..100 {
            hashes.enter(&sha("same"), &topic(&n.to_string()), Cursor(n), LATE);
        }
        assert_eq!(hashes.candidates(&sha("same"), Some(&topic("wanted"))), [Cursor(1)]);
        assert!(hashes.candidates(&sha("same"), Some(&topic("other"))).is_empty());
        assert_eq!(hashes.candidates(&sha("same"), None)[0], Cursor(99));
    }

    #[test]
    fn the_index_holds_so_many_and_no_more() {
        let (mut hashes, topic) = (Hashes::default(), topic("t"));
        let at = |n: u64| {
            let mut sha = [0; 32];
            sha[..8].copy_from_slice(&n.to_le_bytes());
            sha
        };
        for n in 0..MAX_ENTRIES as u64 {
            assert!(!hashes.enter(&at(n), &topic, Cursor(n), LATE));
        }
        assert!(hashes.enter(&at(u64::MAX), &topic, Cursor(u64::MAX), LATE));
        assert_eq!((hashes.len(), hashes.by_hash.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(hashes.candidates(&at(0), None).is_empty());
        assert_eq!(hashes.candidates(&at(1), None), [Cursor(1)]);
    }

    #[test]
    fn many_of_the_same_hash_cost_no_more_reads_than_a_few() {
        let mut hashes = Hashes::default();
        for n in 0..1000 {
            hashes.enter(&sha("same"), &topic("t"), Cursor(n), LATE);
        }
        let found = hashes.candidates(&sha("same"), None);
        assert_eq!((found.len(), found[0]), (MAX_CANDIDATES, Cursor(999)));
    }

    #[test]
    fn what_was_just_published_is_known_at_once_and_bounded() {
        let mut hashes = Hashes::default();
        let id = |n: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            bytes
        };
        for n in 0..=MAX_LEARNT as u64 {
            let from = vec!["a client".to_owned()];
            hashes.learn(id(n), TransactionId::from_bytes(id(n)), from);
        }
        assert_eq!(hashes.learnt(&id(0)), None);
        assert_eq!(hashes.learnt(&id(1)), Some(TransactionId::from_bytes(id(1))));
        assert_eq!(hashes.sources(&id(1)), ["a client"]);
        assert_eq!((hashes.learnt.len(), hashes.learnt_order.len()), (MAX_LEARNT, MAX_LEARNT));
    }
}
