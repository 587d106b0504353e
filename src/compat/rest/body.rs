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

/// Reads a body of at most `limit` bytes, and no more of a larger one. What was announced of it is known to
/// the permit; what goes beyond is told to it before it is kept.
///
/// # Errors
/// 413, 408, 429, and 400 for a body that breaks off.
pub(super) async fn read<B>(mut body: B, limit: u64, permit: &mut Permit) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(Problem::too_large(limit));
    }
    let start = Instant::now();
    let (mut first, mut rest, mut len, mut admitted) =
        (Bytes::new(), BytesMut::new(), 0, announced);
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
        match len.saturating_sub(admitted) {
            0 => permit.hold(bytes.len() as u64)?,
            more => {
                permit.hold(bytes.len() as u64 - more)?;
                permit.grow(more)?;
                admitted = len;
            }
        }
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
