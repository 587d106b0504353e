//! Bodies: read within bounds of size and time, and sent while the request keeps its place.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::compat::Permit;

/// Time for a body to be complete, beyond what its bytes may take.
const BODY_TIME: Duration = Duration::from_secs(20);
/// Number of bytes in a second below which a body is too slow.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;
/// Maximum number of bytes of a refused body that are read, and dropped.
const DRAINED_BYTES: u64 = 256 * 1024;
/// Time that reading them may take.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Reads a body of at most `limit` bytes, and no more of a larger one. Each piece is told to the permit before
/// it is kept; what a header announces is not believed.
///
/// # Errors
/// 413, 408, 429, and 400 for a body that breaks off.
pub(super) async fn read<B>(mut body: B, limit: u64, permit: &mut Permit) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > limit {
        return Err(Problem::too_large(limit));
    }
    let start = Instant::now();
    let (mut first, mut rest, mut len) = (Bytes::new(), BytesMut::new(), 0);
    loop {
        let deadline = start + BODY_TIME + Duration::from_secs(len / MIN_BYTES_PER_SECOND);
        let frame = timeout_at(deadline, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        let Ok(frame) = frame else {
            let detail = "The body takes too long";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Problem::invalid("The body broke off"))?;
        // Trailers say nothing here.
        let Ok(bytes) = frame.into_data() else { continue };
        len += bytes.len() as u64;
        if len > limit {
            return Err(Problem::too_large(limit));
        }
        permit.grow(bytes.len() as u64)?;
        // Most bodies come in one piece, which is taken as it is.
        if first.is_empty() && rest.is_empty() {
            first = bytes;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&bytes);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Reads on past what is refused, within bounds: clients that are still sending would else take the end of
/// the stream for a failure, and the refusal would be lost.
pub(super) async fn drain<B>(body: B)
where
    B: Body<Data = Bytes>,
{
    if body.size_hint().lower() > DRAINED_BYTES {
        return;
    }
    let mut body = pin!(body);
    let reading = async {
        let mut len = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            len += frame.data_ref().map_or(0, Bytes::len) as u64;
            if len > DRAINED_BYTES {
                break;
            }
        }
    };
    // What is late is left.
    let _ = timeout(DRAIN_TIME, reading).await;
}

/// Body of an answer, which keeps the request's place until it is sent.
#[derive(Debug)]
pub(super) struct Sending {
    bytes: Option<Bytes>,
    _permit: Option<Permit>,
}

impl Sending {
    pub(super) fn new(bytes: Bytes, permit: Option<Permit>) -> Self {
        Self { bytes: (!bytes.is_empty()).then_some(bytes), _permit: permit }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;
    use crate::config::CompatConfig;

    /// A body that comes in pieces, and breaks off with an empty one.
    struct Pieces(mpsc::Receiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = ();

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
            let frame = |bytes: Bytes| {
                if bytes.is_empty() { Err(()) } else { Ok(Frame::data(bytes)) }
            };
            self.0.poll_recv(cx).map(|bytes| bytes.map(frame))
        }
    }

    /// Reads a body of which so many bytes come each second, `count` times.
    async fn read_slowly(bytes: usize, count: u32, limit: u64) -> (Result<usize, u16>, u64, u64) {
        let (pieces, body) = mpsc::channel(1);
        let mut permit = Permit::alone(&CompatConfig::default());
        let start = Instant::now();
        let sending = async move {
            for _ in 0..count {
                sleep(Duration::from_secs(1)).await;
                // Whoever refuses hears no more.
                let _ = pieces.send(vec![7; bytes].into()).await;
            }
        };
        let read = read(Pieces(body), limit, &mut permit);
        let (read, ()) = tokio::join!(
            async {
                let read = read.await;
                let read = read.map(|bytes| bytes.len()).map_err(|problem| problem.status.as_u16());
                (read, start.elapsed().as_secs())
            },
            sending
        );
        (read.0, read.1, permit.held())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time_while_enough_of_it_comes() {
        let (kib, mib) = (1024, 1024 * 1024);
        assert_eq!(read_slowly(32 * kib, 100, mib * 9).await, (Ok(3200 * kib), 100, 3200 << 10));
        assert_eq!(read_slowly(1, 100, mib * 9).await, (Err(408), 20, 19));
        assert_eq!(read_slowly(8 * kib, 100, mib * 9).await.0, Err(408));
        assert_eq!(read_slowly(32 * kib, 100, 64 * 1024).await, (Err(413), 3, 64 << 10));
        assert_eq!(read_slowly(0, 1, mib).await, (Err(400), 1, 0), "it breaks off");
        assert_eq!(read_slowly(0, 0, mib).await, (Ok(0), 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_read_on_for_a_moment() {
        let (pieces, body) = mpsc::channel(1000);
        let start = Instant::now();
        drain(Pieces(body)).await;
        assert_eq!(start.elapsed(), DRAIN_TIME, "nothing comes");
        assert!(pieces.is_closed());

        let (pieces, body) = mpsc::channel(1000);
        for _ in 0..1000 {
            pieces.try_send(vec![7; 1024].into()).unwrap();
        }
        let start = Instant::now();
        drain(Pieces(body)).await;
        assert!(start.elapsed() < DRAIN_TIME, "too much comes");
    }
}
