//! Hashing of payloads without holding up whoever shares the thread.

use tokio::runtime::Handle;

/// Maximum size in bytes of a payload that is hashed where its task stands. Hashing so much took 24 us
/// with AVX-512 and takes about 0.1 ms without; the way to another thread and back took 11 us.
pub(super) const MAX_INLINE: usize = 256 * 1024;

/// Runs `work`, which hashes `bytes` bytes: in place where that is short, and on a blocking thread
/// of the node's runtime otherwise. `None` when the runtime goes down. Cancel safe: work that has
/// begun runs to its end and its result is dropped.
pub(super) async fn hash<T: Send + 'static>(
    runtime: &Handle,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= MAX_INLINE {
        return Some(work());
    }
    runtime.spawn_blocking(work).await.ok()
}
