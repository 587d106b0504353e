//! Both ends of OTLP over plain HTTP, as small as may be: a client that the exporter calls from its own
//! thread, and a receiver for the example's check.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Maximum time for each step of a connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read of a message.
const MAX_BYTES: u64 = 4 << 20;

/// Client that blocks: the exporter has a thread for it.
#[derive(Debug)]
pub(crate) struct PlainHttp;

#[async_trait::async_trait]
impl HttpClient for PlainHttp {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        post(&request)
    }
}

fn post(request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (uri, body) = (request.uri(), request.body());
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or("this client speaks plain HTTP alone")?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80)))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut message = Vec::new();
    write!(message, "{} {path} HTTP/1.1\r\n", request.method())?;
    write!(message, "host: {}\r\n", uri.authority().map_or(host, |authority| authority.as_str()))?;
    for (name, value) in request.headers() {
        write!(message, "{name}: {}\r\n", value.to_str()?)?;
    }
    write!(message, "content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    message.extend_from_slice(body);
    (&stream).write_all(&message)?;
    let mut answer = BufReader::new(&stream).take(MAX_BYTES);
    let mut status = String::new();
    answer.read_line(&mut status)?;
    let code = status.split(' ').nth(1).ok_or("no status line")?.parse::<u16>()?;
    // The answer says nothing that the exporter needs.
    Ok(Response::builder().status(code).body(Bytes::new())?)
}

/// Collector of its own.
pub(crate) struct Receiver {
    port: u16,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Receiver {
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let received = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match receive(&stream) {
                    Ok(more) => {
                        received.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
                    }
                    Err(error) => eprintln!("otel: what was exported cannot be read: {error}"),
                }
            }
        });
        Ok(Self { port, spans })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.port)
    }

    /// Checks that one span is the child of another, in one trace.
    pub(crate) fn check_child(&self, parent: &str, child: &str) -> Result<(), String> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |name: &str| {
            let mut named = spans.iter().filter(|span| span.name == name);
            match (named.next(), named.next()) {
                (Some(span), None) => Ok(span),
                (None, _) => Err(format!("no span {name} was exported")),
                _ => Err(format!("more than one span {name} was exported")),
            }
        };
        let (parent, child) = (find(parent)?, find(child)?);
        if parent.trace_id != child.trace_id {
            return Err(format!("{} and {} are two traces", parent.name, child.name));
        }
        if parent.span_id != child.parent_span_id {
            return Err(format!("{} is not the parent of {}", parent.name, child.name));
        }
        Ok(())
    }
}

/// Takes one request and answers that it was taken.
fn receive(mut stream: &TcpStream) -> Result<Vec<Span>, HttpError> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream).take(MAX_BYTES);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>()?;
        }
        line.clear();
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let request = ExportTraceServiceRequest::decode(&body[..])?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    Ok(scopes.flat_map(|scope| scope.spans).collect())
}
