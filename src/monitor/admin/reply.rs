//! Answers: whole ones and streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use super::places::Work;
use crate::web::Problem;
use crate::web::body::Sending;

/// What a handler answers with.
pub(super) type Reply = Response<Content>;

/// Content of an answer.
pub(super) enum Content {
    Whole(Bytes),
    /// Pieces as they come, without an end.
    Stream(BoxStream<'static, Bytes>),
}

/// An answer of a media type.
pub(super) fn of_type(media_type: &'static str, content: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Content::Whole(content.into()));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

pub(super) fn text(content: impl Into<Bytes>) -> Reply {
    of_type("text/plain; charset=utf-8", content)
}

/// An answer in JSON.
///
/// # Errors
/// 503 for what cannot be written, which no view holds.
pub(super) fn json(value: &impl Serialize) -> Result<Reply, Problem> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Problem::unavailable(format!("The answer cannot be written: {error}")))?;
    Ok(of_type("application/json", bytes))
}

pub(super) fn with_status(status: StatusCode, mut reply: Reply) -> Reply {
    *reply.status_mut() = status;
    reply
}

/// Body of an answer on its way, with what keeps its connection from giving way meanwhile.
pub(super) enum Body {
    Whole(Sending<Option<Work>>),
    Stream { pieces: BoxStream<'static, Bytes>, _work: Option<Work> },
}

impl Body {
    pub(super) fn new(content: Content, work: Option<Work>) -> Self {
        match content {
            Content::Whole(bytes) => Self::Whole(Sending::new(bytes, work)),
            Content::Stream(pieces) => Self::Stream { pieces, _work: work },
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Stream { pieces, .. } => {
                pieces.as_mut().poll_next(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(whole) if whole.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
