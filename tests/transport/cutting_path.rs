//! A path that cuts every connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a path does to each of its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Ends it after so many bytes from the client.
    Bytes(usize),
    /// Ends it after so long.
    Time(Duration),
}

/// A path to `server` that cuts every connection.
pub(crate) async fn cutting_path(
    server: SocketAddr,
    cut: Cut,
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = socket.accept().await {
            connections.spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                match cut {
                    Cut::Time(span) => {
                        let both = tokio::io::copy_bidirectional(&mut client, &mut server);
                        let _ = tokio::time::timeout(span, both).await;
                    }
                    Cut::Bytes(bytes) => {
                        let (from, mut to) = client.split();
                        let (mut back, mut on) = server.split();
                        let mut from = from.take(bytes as u64);
                        tokio::select! {
                            _ = tokio::io::copy(&mut from, &mut on) => {}
                            _ = tokio::io::copy(&mut back, &mut to) => {}
                        }
                    }
                }
                // A reset, so that nothing that is under way arrives.
                let _ = client.set_zero_linger();
                let _ = server.set_zero_linger();
            });
        }
    });
    address
}
