//! What happens next: a heap of small keys, and the events themselves aside, so that sorting moves
//! 24 bytes and not an event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::dice::nanos;

/// Events by time, and in order of scheduling where the times are equal.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    pub(super) fn push(&mut self, at: Duration, event: E) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(event);
            slot
        } else {
            self.slots.push(Some(event));
            u32::try_from(self.slots.len() - 1).unwrap_or_else(|_| unreachable!("2^32 events"))
        };
        self.scheduled += 1;
        self.heap.push(Reverse((nanos(at), self.scheduled, slot)));
    }

    /// Takes the next event that happens at `end` or before.
    pub(super) fn pop(&mut self, end: Duration) -> Option<(Duration, E)> {
        let Reverse((at, ..)) = *self.heap.peek()?;
        if at > nanos(end) {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take()?;
        Some((Duration::from_nanos(at), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_their_order_and_slots_are_reused() {
        let at = Duration::from_millis;
        let mut queue = Queue::new();
        for (ms, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(at(ms), event);
        }
        assert_eq!(queue.pop(at(0)), None);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(9))).map(|(_, e)| e).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        queue.push(at(1), 'e');
        assert_eq!(queue.slots.len(), 4);
    }
}
