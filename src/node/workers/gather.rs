//! Making a batch of what is on its way.

use tokio::sync::mpsc;

/// Turns that everybody else has while they bring nothing, before a batch is closed.
const TURNS: u32 = 3;

/// Takes what is on its way too, up to `most`. The answers to one batch wake many publishers; to
/// commit or sign what the first of them brings would pay for a sync, or a signature, each time. So
/// everybody who is awake has a turn, for as long as each turn brings more: microseconds, and no
/// time at all is waited.
pub(super) async fn gather<T>(from: &mut mpsc::Receiver<T>, taken: &mut Vec<T>, most: usize) {
    let mut idle = 0;
    while idle < TURNS && taken.len() < most {
        let before = taken.len();
        while taken.len() < most
            && let Ok(next) = from.try_recv()
        {
            taken.push(next);
        }
        idle = if taken.len() > before { 0 } else { idle + 1 };
        tokio::task::yield_now().await;
    }
}
