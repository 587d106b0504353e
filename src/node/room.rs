//! Room in memory for what waits outside the core: it is taken before something waits, and given
//! back when the core, which counts by itself, has it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for a number of bytes. Who came first gets room first.
#[derive(Debug, Clone)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    size: u32,
}

/// Room that is taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for `bytes`, of which at most 4 GiB are given out.
    pub(super) fn new(bytes: u64) -> Self {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Waits for room for `bytes`; what is larger than all of it waits for all of it. Cancel safe.
    pub(super) async fn take(&self, bytes: usize) -> Taken {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.size);
        // It is never closed.
        Taken { _permit: Arc::clone(&self.free).acquire_many_owned(bytes).await.ok() }
    }

    /// Returns the number of bytes that are taken.
    pub(super) fn taken(&self) -> u64 {
        u64::from(self.size).saturating_sub(self.free.available_permits() as u64)
    }

    /// Returns the number of bytes that there are.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.size)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn room_is_given_in_the_order_of_asking_and_comes_back() {
        let room = Room::new(10);
        let first = room.take(7).await;
        assert_eq!(room.taken(), 7);
        let mut large = Box::pin(room.take(1000));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(room.take(1));
        assert!(small.as_mut().now_or_never().is_none(), "nobody overtakes");
        drop(first);
        let all = large.await;
        assert_eq!((room.taken(), room.size()), (10, 10), "what is larger takes all");
        assert!(small.as_mut().now_or_never().is_none());
        drop(all);
        drop(small.await);
        assert_eq!(room.taken(), 0);
    }
}
