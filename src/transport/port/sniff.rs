//! The first bytes of a connection, looked at and given back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection and what was read from it already.
#[derive(Debug)]
pub(super) struct Sniffed<S> {
    first: Bytes,
    inner: S,
}

impl<S> Sniffed<S> {
    /// A connection that nobody looked at.
    pub(super) fn unread(inner: S) -> Self {
        Self { first: Bytes::new(), inner }
    }
}

/// Reads until it is clear whether HTTP/2 is spoken.
///
/// # Errors
/// Those of the connection, which may end first.
pub(super) async fn is_http2<S: AsyncRead + Unpin>(mut inner: S) -> io::Result<(bool, Sniffed<S>)> {
    let mut first = BytesMut::with_capacity(PREFACE.len());
    loop {
        // Not more than that: what follows is no longer ours to hold.
        let mut rest = (&mut inner).take((PREFACE.len() - first.len()) as u64);
        if rest.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let is_prefix = PREFACE.starts_with(&first);
        if !is_prefix || first.len() == PREFACE.len() {
            return Ok((is_prefix, Sniffed { first: first.freeze(), inner }));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let taken = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..taken]);
        self.first.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// However the bytes come, they are told apart as soon as they can be, and nothing of them is lost.
    #[tokio::test]
    async fn the_first_bytes_tell_and_are_given_back() {
        let more = [PREFACE, b" and more"].concat();
        for (sent, http2) in [
            (&more[..], true),
            (PREFACE, true),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"PRI * HTTP/1.1\r\n\r\n", false),
            (b"\0", false),
        ] {
            for step in [1, 7, sent.len()] {
                let (mut there, here) = duplex(64);
                let write = async {
                    for part in sent.chunks(step) {
                        there.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    there.shutdown().await.unwrap();
                };
                let read = async {
                    let (found, mut stream) = is_http2(here).await.unwrap();
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.unwrap();
                    (found, all)
                };
                let ((), (found, all)) = tokio::join!(write, read);
                assert_eq!((found, all), (http2, sent.to_vec()));
            }
        }
        let (mut there, here) = duplex(64);
        there.write_all(&PREFACE[..5]).await.unwrap();
        drop(there);
        assert_eq!(is_http2(here).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
