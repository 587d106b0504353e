//! One HTTP request to a device in the own network.
//!
//! Contract: over within [`LIMIT`], whatever the device does; of an answer at most [`MAX_BODY_BYTES`] are read, and
//! one that is larger is none. Nothing is followed anywhere else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::{Pin, pin};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ask::MapError;

/// Maximum time for a request and its answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Maximum size of a body. The largest descriptions of routers have some 20 KB.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum number of headers of an answer, and of bytes that they take.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Answer of a device.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// Own address, as the device sees it.
    pub(super) own: Ipv4Addr,
}

/// Makes a request, whose URI is path and query.
///
/// # Errors
/// `Silent`, `Io`, or `Nonsense` where the answer is no HTTP or too large.
pub(super) async fn request(
    device: SocketAddrV4,
    mut request: Request<String>,
) -> Result<Answer, MapError> {
    let host = HeaderValue::from_str(&device.to_string()).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    timeout(LIMIT, exchange(device, request)).await.unwrap_or(Err(MapError::Silent))
}

async fn exchange(device: SocketAddrV4, request: Request<String>) -> Result<Answer, MapError> {
    let stream = TcpStream::connect(device).await?;
    let SocketAddr::V4(own) = stream.local_addr()? else {
        return Err(MapError::Io(io::ErrorKind::AddrNotAvailable.into()));
    };
    let (mut requests, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .ignore_invalid_headers_in_responses(true)
        // Some devices know the names of headers in this spelling alone.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answered = async move {
        let (head, body) = requests.send_request(request).await.map_err(failed)?.into_parts();
        let body = read(body).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status, body, own: *own.ip() })
    };
    let (mut answered, mut connection) = (pin!(answered), pin!(connection));
    let mut is_open = true;
    loop {
        // What came before the connection ended is still to be read, and the request knows why it ended.
        tokio::select! {
            answer = &mut answered => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, MapError> {
    let mut read = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        if read.len() + data.len() > MAX_BODY_BYTES {
            return Err(MapError::Nonsense("it is larger than it may be"));
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

fn failed(error: hyper::Error) -> MapError {
    if error.is_parse() || error.is_parse_too_large() {
        return MapError::Nonsense("it is no HTTP");
    }
    MapError::Io(io::Error::other(error))
}
