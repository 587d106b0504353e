//! What happens next: a wheel of short spans for the near future, heaps for the span that is being
//! played and for what is far away. Adding costs one append, however much is scheduled.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::sim::rng::nanos;

/// Number of bits of a span: 2^16 ns, 66 microseconds, hold few events, quickly sorted.
const SPAN_BITS: u32 = 16;
/// Number of spans of the wheel, about half a second: longer than frames travel.
const SPANS: u64 = 8192;

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    order: u64,
    event: E,
}

impl<E> Entry<E> {
    fn span(&self) -> u64 {
        self.at >> SPAN_BITS
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest, as a heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Events by time, and in order of scheduling where the times are equal.
#[derive(Debug)]
pub(super) struct EventQueue<E> {
    /// The span that is being played. Nothing in the wheel is earlier than its end.
    span: u64,
    current: BinaryHeap<Entry<E>>,
    /// The spans after the current one, `SPANS - 1` of them.
    wheel: Vec<Vec<Entry<E>>>,
    in_wheel: usize,
    far: BinaryHeap<Entry<E>>,
    scheduled: u64,
}

impl<E> EventQueue<E> {
    pub(super) fn new() -> Self {
        Self {
            span: 0,
            current: BinaryHeap::new(),
            wheel: (0..SPANS).map(|_| Vec::new()).collect(),
            in_wheel: 0,
            far: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    pub(super) fn push(&mut self, at: Duration, event: E) {
        self.scheduled += 1;
        self.insert(Entry { at: nanos(at), order: self.scheduled, event });
    }

    fn insert(&mut self, entry: Entry<E>) {
        let span = entry.span();
        if span <= self.span {
            self.current.push(entry);
        } else if span < self.span + SPANS {
            self.wheel[slot(span)].push(entry);
            self.in_wheel += 1;
        } else {
            self.far.push(entry);
        }
    }

    /// Takes the next event that happens at `end` or before.
    pub(super) fn pop(&mut self, end: Duration) -> Option<(Duration, E)> {
        while self.current.is_empty() {
            self.advance()?;
        }
        if self.current.peek()?.at > nanos(end) {
            return None;
        }
        let next = self.current.pop()?;
        Some((Duration::from_nanos(next.at), next.event))
    }

    /// Goes on to the next span; `None` when nothing is scheduled.
    fn advance(&mut self) -> Option<()> {
        self.span = match self.in_wheel {
            0 => self.far.peek()?.span(),
            _ => self.span + 1,
        };
        while self.far.peek().is_some_and(|entry| entry.span() < self.span + SPANS) {
            let entry = self.far.pop()?;
            self.insert(entry);
        }
        let due = std::mem::take(&mut self.wheel[slot(self.span)]);
        self.in_wheel -= due.len();
        self.current.extend(due);
        Some(())
    }
}

fn slot(span: u64) -> usize {
    usize::try_from(span % SPANS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::SimRng;

    #[test]
    fn equal_times_keep_their_order() {
        let at = Duration::from_millis;
        let mut queue = EventQueue::new();
        for (ms, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(at(ms), event);
        }
        assert_eq!(queue.pop(at(0)), None);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(9))).map(|(_, e)| e).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        assert_eq!(queue.pop(at(9)), None);
    }

    #[test]
    fn near_and_far_come_in_order_whenever_they_were_added() {
        let mut rng = SimRng::new(1);
        let mut queue = EventQueue::new();
        let (mut now, mut taken) = (Duration::ZERO, 0);
        for n in 0..20_000 {
            // From the same instant to a minute ahead, mostly near.
            let bits = rng.below(36);
            let ahead = Duration::from_nanos(rng.below(1 << bits));
            queue.push(now + ahead, n);
            if n % 3 > 0
                && let Some((at, _)) = queue.pop(now + Duration::from_millis(rng.below(50)))
            {
                assert!(at >= now);
                now = at;
                taken += 1;
            }
        }
        while let Some((at, _)) = queue.pop(Duration::from_hours(1)) {
            assert!(at >= now);
            now = at;
            taken += 1;
        }
        assert_eq!(taken, 20_000);
    }
}
