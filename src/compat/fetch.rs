//! Transactions that clients were promised to be asked for.
//!
//! Contract: a promise is kept or counted as broken: the transaction is asked for up to [`ATTEMPTS`] times, of
//! all that have it in turn, with a growing delay; what comes is checked, and published by this node. However many
//! tell of a transaction, it is fetched once. At most [`MAX_WANTED`] are wanted at a time, and of those so many
//! are under way that their payloads take at most [`MAX_BYTES`]; few of what one host told of, so that it holds up
//! itself, whomever it names.
//!
//! Tested by: `compat::tests`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Shared;
use super::client::Wanted;
use super::hashes::{self, Name};
use super::registry::Owner;
use crate::error::PublishError;

const ATTEMPTS: u32 = 5;
/// Delay before the second attempt; it doubles with each, with jitter.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_WANTED: usize = 1024;
/// Maximum number of them that one host told of, and of those that are being fetched.
const MAX_WANTED_OF_HOST: usize = 64;
const MAX_UNDER_WAY_OF_HOST: usize = 2;
/// Maximum number of clients that one transaction is asked of.
const MAX_SOURCES: usize = 4;
/// Maximum number of fetches under way.
const MAX_UNDER_WAY: u64 = 8;
const MAX_BYTES: u64 = 64 << 20;
/// Size of a payload below which it is copied out of the buffer that it came in.
const COPY_BELOW: usize = 64 * 1024;

/// Promises that are open.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: HashMap<[u8; 32], Promise>,
    waiting: VecDeque<[u8; 32]>,
}

#[derive(Debug)]
struct Promise {
    /// Clients that say they have it, in the order in which they said so.
    sources: Vec<Source>,
    is_under_way: bool,
}

/// What one client says of a transaction. Another may say otherwise.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Id of the client.
    pub(super) id: String,
    /// Host that told of it, and has a share of what is wanted.
    pub(super) owner: Owner,
    pub(super) wanted: Wanted,
    /// Topic under which it is published.
    pub(super) topic: String,
}

impl Promise {
    /// Whose the first client is.
    fn owner(&self) -> Option<&Owner> {
        self.sources.first().map(|source| &source.owner)
    }
}

impl Fetches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of promises that are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state().wanted.len()
    }

    /// Reports whether a transaction is wanted already.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.state().wanted.contains_key(name.bytes())
    }

    /// Promises to fetch a transaction of a client; false where too many are wanted, or too many have it.
    pub(super) fn want(&self, name: &Name, source: Source) -> bool {
        let mut state = self.state();
        if let Some(promise) = state.wanted.get_mut(name.bytes()) {
            if promise.sources.iter().any(|known| known.id == source.id) {
                return true;
            }
            let has_room = promise.sources.len() < MAX_SOURCES;
            if has_room {
                promise.sources.push(source);
            }
            return has_room;
        }
        let owner = Some(&source.owner);
        let theirs = state.wanted.values().filter(|promise| promise.owner() == owner).count();
        if state.wanted.len() >= MAX_WANTED || theirs >= MAX_WANTED_OF_HOST {
            return false;
        }
        let promise = Promise { sources: vec![source], is_under_way: false };
        state.wanted.insert(*name.bytes(), promise);
        state.waiting.push_back(*name.bytes());
        drop(state);
        self.changed.notify_one();
        true
    }

    fn sources(&self, sha: &[u8; 32]) -> Vec<Source> {
        self.state().wanted.get(sha).map(|promise| promise.sources.clone()).unwrap_or_default()
    }

    /// Closes a promise, unless a client is there that was not asked yet.
    fn close(&self, sha: &[u8; 32], asked: &[String]) -> bool {
        let mut state = self.state();
        let is_new = |source: &Source| !asked.contains(&source.id);
        let waits = state.wanted.get(sha).is_some_and(|promise| promise.sources.iter().any(is_new));
        if !waits {
            state.wanted.remove(sha);
        }
        !waits
    }

    /// Closes a promise that was under way. One of the same transaction that was given since stays.
    fn end(&self, sha: &[u8; 32]) {
        let mut state = self.state();
        if state.wanted.get(sha).is_some_and(|promise| promise.is_under_way) {
            state.wanted.remove(sha);
        }
    }

    /// Next promise to be kept, of a host that has room for one more; it is then under way.
    fn take_waiting(&self) -> Option<[u8; 32]> {
        let state = &mut *self.state();
        let mut of_owner: BTreeMap<&Owner, usize> = BTreeMap::new();
        for promise in state.wanted.values().filter(|promise| promise.is_under_way) {
            if let Some(owner) = promise.owner() {
                *of_owner.entry(owner).or_default() += 1;
            }
        }
        let may = |sha: &[u8; 32]| {
            let owner = state.wanted.get(sha).and_then(Promise::owner);
            let under_way = owner.and_then(|owner| of_owner.get(owner));
            under_way.is_none_or(|count| *count < MAX_UNDER_WAY_OF_HOST)
        };
        let at = state.waiting.iter().position(may)?;
        let sha = state.waiting.remove(at)?;
        if let Some(promise) = state.wanted.get_mut(&sha) {
            promise.is_under_way = true;
        }
        Some(sha)
    }
}

/// Keeps promises, until dropped.
pub(super) async fn run(shared: &Shared) {
    let size = shared.settings.max_transaction_size.max(1);
    let most = (MAX_BYTES / size).clamp(1, MAX_UNDER_WAY);
    let most = usize::try_from(most).unwrap_or(1);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < most
            && let Some(sha) = shared.fetches.take_waiting()
        {
            under_way.push(keep(shared, sha));
        }
        tokio::select! {
            Some(()) = under_way.next() => {}
            () = shared.fetches.changed.notified(), if under_way.len() < most => {}
        }
    }
}

async fn keep(shared: &Shared, sha: [u8; 32]) {
    shared.count(|c| c.compat_fetches_started += 1);
    let kept = Box::pin(fetch(shared, &sha)).await;
    shared.count(|c| c.compat_fetches_failed += u64::from(!kept));
    shared.fetches.end(&sha);
}

/// Fetches and publishes a transaction. Returns whether it is there.
async fn fetch(shared: &Shared, sha: &[u8; 32]) -> bool {
    let (mut asked, mut wrong): (Vec<String>, Vec<String>) = Default::default();
    for attempt in 0.. {
        if attempt >= ATTEMPTS && shared.fetches.close(sha, &asked) {
            return false;
        }
        if attempt > 0 {
            let doublings = (attempt - 1).min(ATTEMPTS);
            sleep(jittered(FIRST_DELAY * 2u32.pow(doublings))).await;
        }
        let sources = shared.fetches.sources(sha);
        let honest: Vec<_> = sources.iter().filter(|source| !wrong.contains(&source.id)).collect();
        // Who was not asked yet comes first, and then all in turn.
        let new = honest.iter().find(|source| !asked.contains(&source.id));
        let turn = attempt as usize % honest.len().max(1);
        let Some(source) = new.or_else(|| honest.get(turn)) else {
            if shared.fetches.close(sha, &asked) {
                return false;
            }
            continue;
        };
        if !asked.contains(&source.id) {
            asked.push(source.id.clone());
        }
        let Some(payload) = ask(shared, source).await else { continue };
        if source.wanted.size.is_some_and(|size| size != payload.len() as u64)
            || hashes::sha256(&payload).await != *sha
        {
            let client = &source.id;
            tracing::debug!(target: "sorcha_peer::compat", %client, "a payload is another than was told of");
            shared.count(|c| c.compat_fetched_wrong += 1);
            wrong.push(client.clone());
            continue;
        }
        let from = sources.iter().map(|source| source.id.clone()).collect();
        return publish(shared, sha, &source.topic, payload, from).await;
    }
    false
}

async fn ask(shared: &Shared, source: &Source) -> Option<Bytes> {
    let client = &source.id;
    let target = shared.registry().answering(client)?;
    let me = shared.backend.peer_id().to_string();
    let max = shared.settings.max_transaction_size;
    match shared.client.fetch(&target, &me, &source.wanted, max).await {
        Ok(payload) => payload,
        Err(error) => {
            tracing::debug!(target: "sorcha_peer::compat", %client, %error, "a transaction was not fetched");
            None
        }
    }
}

async fn publish(
    shared: &Shared,
    sha: &[u8; 32],
    topic: &str,
    payload: Bytes,
    from: Vec<String>,
) -> bool {
    let payload = compact(payload);
    // The log may show it before the node says that it is published.
    shared.hashes().prepare(*sha, from.clone());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(jittered(FIRST_DELAY * 4u32.pow(attempt))).await;
        }
        match shared.backend.publish(topic, payload.clone()).await {
            Ok(id) => {
                shared.hashes().learn(*sha, id, from);
                shared.count(|c| c.compat_published += 1);
                return true;
            }
            // Such as a full outbox, whose entries leave it as peers confirm them.
            Err(
                error @ (PublishError::QueueFull { .. }
                | PublishError::Store(_)
                | PublishError::OverRate { .. }
                | PublishError::OverShare { .. }),
            ) => {
                tracing::warn!(target: "sorcha_peer::compat", %error, "a fetched transaction waits");
            }
            Err(error) => {
                tracing::warn!(target: "sorcha_peer::compat", %error, "a fetched transaction was not published");
                return false;
            }
        }
    }
    false
}

/// A payload without the buffer that it was read into, which a small one would keep.
pub(super) fn compact(payload: Bytes) -> Bytes {
    if payload.len() < COPY_BELOW { Bytes::copy_from_slice(&payload) } else { payload }
}

/// A delay between half of it and all of it.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random bytes all wait as long, which does no harm.
    let _ = getrandom::fill(&mut random);
    let part = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    delay.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(fetches: &Fetches, n: u16, source: &str) -> bool {
        want_at(fetches, n, source, n)
    }

    fn want_at(fetches: &Fetches, n: u16, source: &str, host: u16) -> bool {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        let wanted = Wanted { hash: n.to_string(), register: String::new(), size: None };
        let [high, low] = host.to_be_bytes();
        let (id, owner) = (source.to_owned(), Owner::Caller([10, 0, high, low].into()));
        fetches.want(&Name::Hex(bytes), Source { id, owner, wanted, topic: "t".to_owned() })
    }

    #[test]
    fn however_many_tell_of_it_a_transaction_is_wanted_once() {
        let fetches = Fetches::default();
        for n in 0..10 {
            let is_promised = want(&fetches, 1, &format!("client {n}"));
            assert_eq!(is_promised, n < MAX_SOURCES, "who will not be asked is promised nothing");
            assert!(want(&fetches, 1, "client 0"));
        }
        let sha = fetches.take_waiting().unwrap();
        assert_eq!(fetches.take_waiting(), None);
        let ids: Vec<_> = fetches.sources(&sha).into_iter().map(|source| source.id).collect();
        assert_eq!(ids, ["client 0", "client 1", "client 2", "client 3"]);
        assert!(!fetches.close(&sha, &ids[..3]), "one was not asked yet");
        assert!(fetches.close(&sha, &ids) && fetches.len() == 0);
        // Promised again in the moment between the last look and the end.
        assert!(want(&fetches, 1, "client 0"));
        fetches.end(&sha);
        assert_eq!(fetches.take_waiting(), Some(sha));
        fetches.end(&sha);
        assert_eq!(fetches.len(), 0);
    }

    #[test]
    fn promises_are_bounded() {
        let fetches = Fetches::default();
        let made = (0..2000).filter(|n| want(&fetches, *n, "a")).count();
        assert_eq!((made, fetches.len()), (MAX_WANTED, MAX_WANTED));
        assert!(want(&fetches, 0, "b"), "what is wanted already costs nothing");
    }

    #[test]
    fn a_host_that_is_slow_holds_up_itself() {
        let fetches = Fetches::default();
        let made = (0..100).filter(|n| want_at(&fetches, *n, "slow", 0)).count();
        assert_eq!(made, MAX_WANTED_OF_HOST);
        assert!(want_at(&fetches, 500, "quick", 1));
        let taken = std::iter::from_fn(|| fetches.take_waiting()).count();
        assert_eq!(taken, MAX_UNDER_WAY_OF_HOST + 1);
    }

    #[test]
    fn a_delay_has_jitter_within_bounds() {
        let delay = Duration::from_secs(1);
        let drawn: Vec<_> = (0..100).map(|_| jittered(delay)).collect();
        assert!(drawn.iter().all(|d| (delay / 2..=delay).contains(d)));
        assert!(drawn.iter().any(|d| *d != drawn[0]));
    }
}
