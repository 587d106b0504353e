//! Places of connections, and who gives one up for a newcomer.
//!
//! Contract: there are so many places and no more. Where all are taken, the connection gives way that has been at rest
//! for the longest time: on which nothing is asked, or only by somebody who has not shown the token. So whoever
//! holds connections and says nothing keeps nobody out, and what is answered to those who may ask is not cut off for
//! others. While all are at work, newcomers wait for the first that is not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Told of whenever one comes to rest.
    rested: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Number of the next connection.
    next: u64,
    /// Those at rest, the one that has been for the longest time first.
    resting: VecDeque<(u64, Arc<Notify>)>,
    /// The one that was told to leave and has not yet.
    leaving: Option<u64>,
}

/// Place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    number: u64,
    leave: Arc<Notify>,
    /// Number of requests that keep it from being at rest.
    at_work: AtomicUsize,
    _permit: OwnedSemaphorePermit,
}

/// What keeps a connection from giving way.
#[derive(Debug)]
pub(super) struct Work(Arc<Place>);

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one at rest to leave, unless one is about to.
    fn send_one_away(&self) {
        let mut table = self.table();
        if table.leaving.is_none()
            && let Some((number, leave)) = table.resting.pop_front()
        {
            table.leaving = Some(number);
            leave.notify_one();
        }
    }
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), shared: Arc::default() }
    }

    /// Waits for a place, which somebody else may have to give up. `None` never comes: places are not closed.
    pub(super) async fn take(&self) -> Option<Arc<Place>> {
        let free = Arc::clone(&self.free).acquire_owned();
        tokio::pin!(free);
        let permit = loop {
            let rested = self.shared.rested.notified();
            if self.free.available_permits() == 0 {
                self.shared.send_one_away();
            }
            tokio::select! {
                biased;
                permit = &mut free => break permit.ok()?,
                () = rested => {}
            }
        };
        let (shared, leave) = (Arc::clone(&self.shared), Arc::new(Notify::new()));
        let number = {
            let mut table = shared.table();
            table.next += 1;
            let number = table.next;
            table.resting.push_back((number, Arc::clone(&leave)));
            number
        };
        let at_work = AtomicUsize::new(0);
        Some(Arc::new(Place { shared, number, leave, at_work, _permit: permit }))
    }
}

impl Place {
    /// Comes to an end when the place is to be given up.
    pub(super) async fn is_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Keeps the place until what is returned is dropped.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        if self.at_work.fetch_add(1, Ordering::Relaxed) == 0 {
            self.shared.table().resting.retain(|(number, _)| *number != self.number);
        }
        Work(Arc::clone(self))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let place = &self.0;
        if place.at_work.fetch_sub(1, Ordering::Relaxed) == 1 {
            place.shared.table().resting.push_back((place.number, Arc::clone(&place.leave)));
            place.shared.rested.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.resting.retain(|(number, _)| *number != self.number);
        if table.leaving == Some(self.number) {
            table.leaving = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    async fn full(count: usize) -> (Places, Vec<Arc<Place>>) {
        let places = Places::new(count);
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(places.take().await.unwrap());
        }
        (places, taken)
    }

    fn is_told(place: &Place) -> bool {
        place.is_to_leave().now_or_never().is_some()
    }

    #[tokio::test]
    async fn who_has_been_at_rest_for_the_longest_time_gives_way() {
        let (places, mut taken) = full(3).await;
        // The first has asked since.
        drop(taken[0].work());
        let newcomer = places.take();
        tokio::pin!(newcomer);
        assert!((&mut newcomer).now_or_never().is_none(), "all are taken");
        assert!((&mut newcomer).now_or_never().is_none());
        assert_eq!([0, 1, 2].map(|at: usize| is_told(&taken[at])), [false, true, false]);
        taken.remove(1);
        let newcomer = newcomer.await.unwrap();
        // The next in turn.
        assert!(places.take().now_or_never().is_none());
        assert!(is_told(&taken[1]) && !is_told(&taken[0]) && !is_told(&newcomer));
    }

    #[tokio::test]
    async fn nobody_at_work_gives_way_and_who_is_done_does() {
        let (places, taken) = full(2).await;
        let (first, second) = (taken[0].work(), (taken[1].work(), taken[1].work()));
        let newcomer = places.take();
        tokio::pin!(newcomer);
        assert!((&mut newcomer).now_or_never().is_none());
        drop(second.0);
        assert!((&mut newcomer).now_or_never().is_none());
        assert!(!is_told(&taken[0]) && !is_told(&taken[1]));
        drop(first);
        assert!((&mut newcomer).now_or_never().is_none());
        assert!(is_told(&taken[0]) && !is_told(&taken[1]));
        drop(taken);
        drop(second.1);
        assert!(newcomer.await.is_some());
        assert_eq!(places.shared.table().leaving, None);
    }

    #[tokio::test]
    async fn nobody_has_to_leave_while_there_is_room() {
        let (places, mut taken) = full(2).await;
        taken.pop();
        taken.push(places.take().await.unwrap());
        assert!(taken.iter().all(|place| !is_told(place)));
        drop(taken);
        assert!(places.shared.table().resting.is_empty());
    }
}
