//! Tunnel through an HTTP proxy (`CONNECT`, RFC 9110, section 9.3.6).
//!
//! Contract: one request and one answer, of at most [`MAX_HEAD_BYTES`] and [`MAX_FIELDS`]; what follows
//! the answer is not touched, since it is the peer's. Any 2xx opens the tunnel, whatever its fields say
//! of a body. Time is for the caller to bound. What the proxy says is shown as plain letters and cut
//! short; its credentials are not shown at all.
//!
//! Tested by: the tests below, `tests/transport/connect.rs`.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Proxy;
use crate::error::{FailureKind, TransportError};
use crate::types::{Endpoint, Host};

/// Maximum number of bytes of an answer, those before the final one included.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Maximum number of header fields of an answer.
const MAX_FIELDS: usize = 64;
/// Maximum number of characters of a reason that the proxy gives.
const MAX_REASON_CHARS: usize = 64;

/// Asks the proxy at the other end of `stream` for a tunnel to `endpoint`. Names are resolved there.
///
/// # Errors
/// By what the proxy answers: `Timeout` for 504, `Unreachable` for another 5xx, `Refused` for 4xx and 3xx,
/// `Protocol` for what is no answer, `Closed` for an end without one.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    proxy: &Proxy,
    endpoint: &Endpoint,
) -> Result<(), TransportError> {
    let closed = |error| {
        let message = format!("the proxy {} ended the connection", proxy.endpoint());
        TransportError::with_source(FailureKind::Closed, message, error)
    };
    stream.write_all(request(proxy, endpoint).as_bytes()).await.map_err(closed)?;
    let mut head = Vec::new();
    loop {
        let start = head.len();
        read_head(stream, &mut head).await.map_err(|fault| match fault {
            Fault::Io(error) => closed(error),
            Fault::TooLong => no_answer(proxy, "its answer is too long"),
        })?;
        let (status, reason) =
            parse_head(&head[start..]).map_err(|fault| no_answer(proxy, fault))?;
        match status {
            // What comes before the final answer.
            100..=199 if status != 101 => {}
            200..=299 => return Ok(()),
            _ => return Err(refused(proxy, endpoint, status, &reason)),
        }
    }
}

fn request(proxy: &Proxy, endpoint: &Endpoint) -> String {
    let port = endpoint.port();
    let authority = match endpoint.host() {
        Host::Ip(IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
        Host::Ip(IpAddr::V4(v4)) => format!("{v4}:{port}"),
        Host::Name(name) => format!("{name}:{port}"),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request.extend(["Proxy-Authorization: ", authorization, "\r\n"]);
    }
    request + "\r\n"
}

enum Fault {
    Io(std::io::Error),
    TooLong,
}

/// Appends an answer up to the empty line that ends it, and leaves all that follows in the socket.
async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> Result<(), Fault> {
    let start = head.len();
    let mut ahead = [0; 1024];
    loop {
        let seen = stream.peek(&mut ahead).await.map_err(Fault::Io)?;
        if seen == 0 {
            return Err(Fault::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let before = head.len();
        head.extend_from_slice(&ahead[..seen]);
        let end = end_of_head(&head[start..]).map(|end| start + end);
        let taken = end.unwrap_or(head.len()) - before;
        head.truncate(before + taken);
        // What was seen is there.
        stream.read_exact(&mut ahead[..taken]).await.map_err(Fault::Io)?;
        if head.len() > MAX_HEAD_BYTES {
            return Err(Fault::TooLong);
        }
        if end.is_some() {
            return Ok(());
        }
    }
}

/// The length up to the empty line that ends an answer; some proxies end lines without `\r`.
fn end_of_head(head: &[u8]) -> Option<usize> {
    let ends = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1)
        .find(|end| {
            let rest = &head[*end..];
            rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
        })
        .map(|end| if head[end] == b'\n' { end + 1 } else { end + 2 })
}

/// Status and reason of an answer.
fn parse_head(head: &[u8]) -> Result<(u16, String), &'static str> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    if lines.filter(|line| !matches!(line, [] | [b'\r'])).count() > MAX_FIELDS {
        return Err("its answer has too many header fields");
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some([b'0' | b'1', b' ', rest @ ..]) = line.strip_prefix(b"HTTP/1.") else {
        return Err("its answer is not HTTP/1");
    };
    let (digits, reason) = rest.split_at(rest.len().min(3));
    let is_status = digits.len() == 3 && digits.iter().all(u8::is_ascii_digit);
    if !is_status || !matches!(reason, [] | [b' ', ..]) {
        return Err("its answer has no status");
    }
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let printable = reason.iter().filter(|byte| matches!(byte, b' '..=b'~'));
    let reason: String = printable.map(|byte| char::from(*byte)).take(MAX_REASON_CHARS).collect();
    Ok((status, reason.trim().to_owned()))
}

fn no_answer(proxy: &Proxy, fault: &str) -> TransportError {
    let message = format!("{} is no HTTP proxy: {fault}", proxy.endpoint());
    TransportError::new(FailureKind::Protocol, message)
}

fn refused(proxy: &Proxy, endpoint: &Endpoint, status: u16, reason: &str) -> TransportError {
    let kind = match status {
        504 => FailureKind::Timeout,
        500..=599 => FailureKind::Unreachable,
        300..=499 => FailureKind::Refused,
        _ => FailureKind::Protocol,
    };
    let hint = match (status, proxy.authorization()) {
        (407, None) => ": it asks for a user and a password",
        (407, Some(_)) => ": it does not take the user and the password",
        _ => "",
    };
    let space = if reason.is_empty() { "" } else { " " };
    let proxy = proxy.endpoint();
    let message =
        format!("the proxy {proxy} opens no tunnel to {endpoint}: {status}{space}{reason}{hint}");
    TransportError::new(kind, message)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_follows_the_answer_is_left_for_the_peer_however_it_comes() {
        let answer = b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nB: c\r\n\r\n\r\npeer";
        for at_once in [1, 2, 7, 31, answer.len()] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let answering = async {
                let (mut stream, _) = socket.accept().await.unwrap();
                for part in answer.chunks(at_once) {
                    stream.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                stream
            };
            let asking = async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let proxy = Proxy::new(&address.to_string(), &[]).unwrap();
                tunnel(&mut stream, &proxy, &"h:1".parse().unwrap()).await.unwrap();
                let mut rest = [0; 6];
                stream.read_exact(&mut rest).await.unwrap();
                assert_eq!(&rest, b"\r\npeer");
            };
            tokio::join!(answering, asking);
        }
    }

    #[test]
    fn the_request_names_host_and_port_and_proves_who_asks() {
        let proxy = |url| Proxy::new(url, &[]).unwrap();
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        assert_eq!(
            request(&proxy("p:1"), &endpoint("peer.example.com:5001")),
            "CONNECT peer.example.com:5001 HTTP/1.1\r\nHost: peer.example.com:5001\r\n\r\n"
        );
        assert_eq!(
            request(&proxy("a:b@p:1"), &endpoint("[2001:db8::1]:7")),
            "CONNECT [2001:db8::1]:7 HTTP/1.1\r\nHost: [2001:db8::1]:7\r\n\
             Proxy-Authorization: Basic YTpi\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_ends_with_an_empty_line() {
        for (head, end) in [
            ("HTTP/1.1 200 OK\r\n\r\nrest", Some(19)),
            ("HTTP/1.1 200 OK\n\nrest", Some(17)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n\r\n", Some(25)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r", None),
            ("", None),
        ] {
            assert_eq!(end_of_head(head.as_bytes()), end, "{head:?}");
        }
    }

    #[test]
    fn only_a_status_of_http_1_is_an_answer() {
        for (line, status, reason) in [
            ("HTTP/1.1 200 Connection established", 200, "Connection established"),
            ("HTTP/1.0 407 Who\x1b[31m?\u{e9}", 407, "Who[31m?"),
            ("HTTP/1.1 200", 200, ""),
            ("HTTP/1.1 200 ", 200, ""),
        ] {
            let read = parse_head(format!("{line}\r\nA: b\r\n\r\n").as_bytes());
            assert_eq!(read, Ok((status, reason.to_owned())), "{line}");
        }
        for line in
            ["HTTP/2 200 OK", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1  200", "SSH-2.0", ""]
        {
            assert!(parse_head(format!("{line}\r\n\r\n").as_bytes()).is_err(), "{line}");
        }
        let long = parse_head(format!("HTTP/1.1 500 {}\r\n\r\n", "x".repeat(999)).as_bytes());
        assert_eq!(long.unwrap().1.len(), MAX_REASON_CHARS - 1);
        let fields = "A: b\r\n".repeat(MAX_FIELDS + 1);
        assert!(parse_head(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).is_err());
    }
}
