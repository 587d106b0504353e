//! Making a batch of what is on its way.

use tokio::sync::mpsc;

/// Number of turns of everybody else that bring nothing before a batch is closed.
const MAX_IDLE_TURNS: u32 = 3;

/// Fills `taken` up to `most` with what is about to come. The answers to one batch wake many
/// publishers; to commit or sign what the first of them brings would pay for a sync, or a signature,
/// each time. So every task that is awake has a turn, for as long as each turn brings more:
/// microseconds, without any wait. Cancel safe: what was taken is in `taken`.
pub(super) async fn gather<T>(from: &mut mpsc::Receiver<T>, taken: &mut Vec<T>, most: usize) {
    let mut idle = 0;
    while idle < MAX_IDLE_TURNS && taken.len() < most {
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
