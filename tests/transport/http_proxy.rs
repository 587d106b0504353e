//! An HTTP proxy that opens tunnels, or does something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Behaviour of a proxy once it was asked.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// It opens tunnels to addresses, and to names that it knows.
    Tunnels(BTreeMap<String, SocketAddr>),
    /// It says this, and nothing more.
    Says(String),
    /// It says this over and over.
    Repeats(String),
    /// It says this and ends the connection.
    Leaves(String),
}

/// A running proxy, which ends with its handle.
#[derive(Debug)]
pub(crate) struct HttpProxy {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl HttpProxy {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), manner).await
    }

    pub(crate) async fn start_at(bind: SocketAddr, manner: Manner) -> Self {
        let socket = TcpListener::bind(bind).await.unwrap();
        let address = socket.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let asked = Arc::clone(&heads);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let (manner, asked) = (manner.clone(), Arc::clone(&asked));
                connections.spawn(async move {
                    let _ = serve(stream, &manner, &asked).await;
                });
            }
        });
        Self { address, heads, _tasks: tasks }
    }

    /// A proxy that knows one name.
    pub(crate) async fn with_name(name: &str, address: SocketAddr) -> Self {
        Self::start(Manner::Tunnels([(name.to_owned(), address)].into())).await
    }

    /// Returns what it was asked so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    manner: &Manner,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let authority = head.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(head);
    match manner {
        Manner::Tunnels(names) => {
            let known = authority.rsplit_once(':').and_then(|(host, _)| names.get(host)).copied();
            let target = match known.or_else(|| authority.parse().ok()) {
                Some(address) => TcpStream::connect(address).await,
                None => Err(std::io::ErrorKind::NotFound.into()),
            };
            let Ok(mut target) = target else {
                return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            };
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            copy_bidirectional(&mut stream, &mut target).await?;
        }
        Manner::Says(text) => {
            stream.write_all(text.as_bytes()).await?;
            // Until the other side ends it.
            while stream.read(&mut [0; 1024]).await? > 0 {}
        }
        Manner::Repeats(text) => loop {
            stream.write_all(text.as_bytes()).await?;
        },
        Manner::Leaves(text) => stream.write_all(text.as_bytes()).await?,
    }
    Ok(())
}
