//! Race over the addresses of a name, which is won by a proven peer.
//!
//! An attempt is everything up to the peer's proof: TCP, TLS, the stream. So an address that answers
//! TCP and is not the peer loses as one does at which nobody listens. The next address gets its turn
//! when an attempt has failed, and beside it when none has come through for [`STAGGER`]: a silent
//! address costs that long and no more. The first attempt that comes through wins, and the others are
//! dropped, with their connections.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::error::{FailureKind, TransportError};

/// Delay before the next address of a name is tried beside the ones under way (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Maximum number of attempts under way: whoever gives a name many addresses does not choose how many
/// sockets that takes here.
const MAX_UNDER_WAY: usize = 12;

/// Returns what the first attempt that succeeds gives.
///
/// Cancel safe: no attempt outlives the future.
///
/// # Errors
/// The error that says most, when all attempts failed: what was there rather than that nothing was.
pub(super) async fn race<T, A>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> A,
) -> Result<T, TransportError>
where
    A: Future<Output = Result<T, TransportError>>,
{
    let mut waiting = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failure = TransportError::new(FailureKind::NoneLeft, "there is no address to dial");
    loop {
        if under_way.len() < MAX_UNDER_WAY
            && let Some(address) = waiting.next()
        {
            under_way.push(attempt(address));
        }
        tokio::select! {
            done = under_way.next() => match done {
                Some(Ok(won)) => return Ok(won),
                Some(Err(error)) if weight(error.kind) >= weight(failure.kind) => failure = error,
                Some(Err(_)) => {}
                None => return Err(failure),
            },
            () = sleep(STAGGER), if waiting.len() > 0 && under_way.len() < MAX_UNDER_WAY => {}
        }
    }
}

/// Rank of a failure among those of one race.
fn weight(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NoneLeft => 0,
        FailureKind::Unreachable => 1,
        FailureKind::Timeout => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|n| SocketAddr::from(([10, 0, 0, 1], n))).collect()
    }

    fn failed<T>(kind: FailureKind) -> Result<T, TransportError> {
        Err(TransportError::new(kind, "lost"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_costs_nothing_and_a_silent_one_a_moment() {
        let begun = Mutex::new(Vec::new());
        let start = tokio::time::Instant::now();
        let won = race(addresses(5), |address| {
            begun.lock().unwrap().push((address.port(), start.elapsed()));
            async move {
                match address.port() {
                    1 => failed(FailureKind::Unreachable),
                    2 | 3 => std::future::pending().await,
                    4 => failed(FailureKind::Protocol),
                    port => Ok(port),
                }
            }
        });
        assert_eq!(won.await.unwrap(), 5);
        let begun = begun.into_inner().unwrap();
        // Paused time passes in steps of a millisecond.
        let staggers = |at: Duration| at.as_millis() / STAGGER.as_millis();
        let begun: Vec<_> = begun.into_iter().map(|(port, at)| (port, staggers(at))).collect();
        assert_eq!(begun, [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_under_way_may_still_win() {
        let won = race(addresses(3), |address| async move {
            match address.port() {
                1 => {
                    sleep(STAGGER * 10).await;
                    Ok(1)
                }
                2 => failed(FailureKind::Closed),
                _ => failed(FailureKind::Unreachable),
            }
        });
        assert_eq!(won.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_failures_the_most_telling_is_given() {
        use FailureKind as K;
        for (kinds, told) in [
            (&[][..], K::NoneLeft),
            (&[K::Unreachable][..], K::Unreachable),
            (&[K::Timeout, K::Unreachable], K::Timeout),
            (&[K::Identity, K::Timeout, K::Unreachable], K::Identity),
        ] {
            let count = u16::try_from(kinds.len()).unwrap();
            let kind = |address: SocketAddr| kinds[usize::from(address.port()) - 1];
            let lost = race(addresses(count), |at| std::future::ready(failed::<()>(kind(at))));
            assert_eq!(lost.await.unwrap_err().kind, told);
        }
    }
}
