//! Bodies: read and sent within bounds of size and time.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::problem::Problem;

/// Time for a body to be complete, in either direction, beyond what its bytes may take.
const BODY_TIME: Duration = Duration::from_secs(20);
/// Number of bytes in a second below which a body is too slow.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;
/// Number of bytes of an answer that are handed out at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Maximum number of bytes of a refused body that are read, and dropped.
const DRAINED_BYTES: u64 = 1024 * 1024;
/// Time that reading them may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Reads a body of at most `limit` bytes, and no more of a larger one. `may` is asked about the bytes of each
/// piece before that is kept; what a header announces is not believed.
///
/// # Errors
/// 413, 408, 400 for a body that breaks off, and what `may` refuses with.
pub(crate) async fn read<B>(
    mut body: B,
    limit: u64,
    mut may: impl FnMut(u64) -> Result<(), Problem>,
) -> Result<Bytes, Problem>
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
        may(bytes.len() as u64)?;
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
pub(crate) async fn drain<B>(body: B)
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

/// Body of an answer, which keeps the request's place, a `P`, until it is handed to the connection.
///
/// A connection asks for no more while the client does not read. So what is left is not the body's
/// alone: when its time is over it is dropped, with the place, and the body ends with an error.
#[derive(Debug)]
pub(crate) struct Sending<P> {
    /// Number of bytes that were not handed out.
    left: u64,
    rest: Arc<Mutex<Option<Rest<P>>>>,
    /// What ends it in time.
    _timer: JoinSet<()>,
}

/// Part of an answer that was not handed out.
#[derive(Debug)]
struct Rest<P> {
    bytes: Bytes,
    _place: P,
}

impl<P: Send + 'static> Sending<P> {
    pub(crate) fn new(bytes: Bytes, place: P) -> Self {
        let left = bytes.len() as u64;
        let rest = (left > 0).then_some(Rest { bytes, _place: place });
        let rest = Arc::new(Mutex::new(rest));
        let mut timer = JoinSet::new();
        if left > 0 {
            let late = Arc::clone(&rest);
            timer.spawn(async move {
                sleep(BODY_TIME + Duration::from_secs(left / MIN_BYTES_PER_SECOND)).await;
                drop(lock(&late).take());
            });
        }
        Self { left, rest, _timer: timer }
    }
}

fn lock<P>(rest: &Mutex<Option<Rest<P>>>) -> MutexGuard<'_, Option<Rest<P>>> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P> Body for Sending<P> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut slot = lock(&self.rest);
        let Some(rest) = slot.as_mut() else {
            let late = "the client takes too long";
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, late))));
        };
        // A copy: what the connection keeps does not hold on to the whole.
        let piece = Bytes::copy_from_slice(&rest.bytes[..rest.bytes.len().min(PIECE_BYTES)]);
        rest.bytes.advance(piece.len());
        if rest.bytes.is_empty() {
            *slot = None;
        }
        drop(slot);
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

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
        let mut held = 0;
        let start = Instant::now();
        let sending = async move {
            for _ in 0..count {
                sleep(Duration::from_secs(1)).await;
                // Whoever refuses hears no more.
                let _ = pieces.send(vec![7; bytes].into()).await;
            }
        };
        let may = |bytes: u64| {
            held += bytes;
            Ok(())
        };
        let read = read(Pieces(body), limit, may);
        let (read, ()) = tokio::join!(
            async {
                let read = read.await;
                let read = read.map(|bytes| bytes.len()).map_err(|problem| problem.status.as_u16());
                (read, start.elapsed().as_secs())
            },
            sending
        );
        (read.0, read.1, held)
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
            pieces.try_send(vec![7; 2048].into()).unwrap();
        }
        let start = Instant::now();
        drain(Pieces(body)).await;
        assert!(start.elapsed() < DRAIN_TIME, "too much comes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_dropped_in_time() {
        let answer = || Sending::new(vec![7; 2 * PIECE_BYTES + 1].into(), "a place");
        let read = async |sending: &mut Sending<&str>| {
            let frame = poll_fn(|cx| Pin::new(&mut *sending).poll_frame(cx)).await;
            frame.map(|frame| frame.map(|frame| frame.into_data().unwrap().len()))
        };
        let mut read_at_once = answer();
        for len in [PIECE_BYTES, PIECE_BYTES, 1] {
            assert!(lock(&read_at_once.rest).is_some());
            assert_eq!(read(&mut read_at_once).await.unwrap().unwrap(), len);
        }
        assert!(lock(&read_at_once.rest).is_none(), "the place is given back");
        assert!(read_at_once.is_end_stream() && read(&mut read_at_once).await.is_none());

        let mut late = answer();
        read(&mut late).await.unwrap().unwrap();
        sleep(BODY_TIME).await;
        assert!(lock(&late.rest).is_some());
        sleep(BODY_TIME).await;
        assert!(lock(&late.rest).is_none(), "the place is given back");
        assert_eq!(late.size_hint().exact(), Some(PIECE_BYTES as u64 + 1));
        read(&mut late).await.unwrap().unwrap_err();
    }
}
