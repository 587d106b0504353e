//! Trace contexts of what was stored lately: stores keep none, and transactions that are read back are
//! given theirs again.
//!
//! Bounds: the latest `MAX_TRACES` of them. One that is gone by then is missing, and nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{TraceContext, Transaction, TransactionId};

/// Maximum number of contexts kept: about 400 KiB.
const MAX_TRACES: usize = 4096;

/// Trace contexts by transaction, shared by who stores and who reads.
#[derive(Debug, Default)]
pub(super) struct RecentTraces(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<TransactionId, TraceContext>,
    /// Their ids, in the order in which they came.
    order: VecDeque<TransactionId>,
}

impl RecentTraces {
    /// Keeps the contexts of those transactions that have one.
    pub(super) fn keep<'a>(&self, transactions: impl IntoIterator<Item = &'a Transaction>) {
        let traced = |t: &'a Transaction| Some((t.id(), t.trace()?));
        let mut traced = transactions.into_iter().filter_map(traced).peekable();
        if traced.peek().is_none() {
            return;
        }
        let mut state = self.state();
        for (id, trace) in traced {
            if state.by_id.insert(id, trace).is_none() {
                state.order.push_back(id);
            }
            if state.order.len() > MAX_TRACES
                && let Some(oldest) = state.order.pop_front()
            {
                state.by_id.remove(&oldest);
            }
        }
    }

    /// Gives transactions that were read the contexts that they had.
    pub(super) fn give_back<'a>(
        &self,
        transactions: impl IntoIterator<Item = &'a mut Transaction>,
    ) {
        let state = self.state();
        if state.by_id.is_empty() {
            return;
        }
        for transaction in transactions {
            if transaction.trace().is_none()
                && let Some(trace) = state.by_id.get(&transaction.id())
            {
                *transaction = transaction.clone().with_trace(Some(*trace));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Header, PeerId, Signature, Topic, WallTime};

    fn transaction(n: u64) -> Transaction {
        let (topic, at) = (Topic::new("t").unwrap(), WallTime::from_millis(n));
        let header = Header::new(topic, PeerId::from_bytes([1; 32]), at, at, b"");
        Transaction::new(header, Signature::None, Bytes::new()).unwrap()
    }

    fn traced(n: u64) -> Transaction {
        let text = format!("00-{:032x}-{:016x}-01", n + 1, n + 1);
        transaction(n).with_trace(TraceContext::parse(&text))
    }

    #[test]
    fn the_latest_contexts_are_given_back_and_within_bounds() {
        let traces = RecentTraces::default();
        let has = |n| {
            let mut read = transaction(n);
            traces.give_back([&mut read]);
            assert!(read.trace().is_none() || read.traceparent() == traced(n).traceparent());
            read.trace().is_some()
        };
        traces.keep([&transaction(0), &traced(1), &traced(1)]);
        assert!(!has(0) && has(1));
        for n in 2..=MAX_TRACES as u64 {
            traces.keep([&traced(n)]);
        }
        assert!(has(1) && has(MAX_TRACES as u64));
        traces.keep([&traced(MAX_TRACES as u64 + 1)]);
        assert!(!has(1) && has(2));
        let state = traces.state();
        assert_eq!((state.by_id.len(), state.order.len()), (MAX_TRACES, MAX_TRACES));
    }
}
