//! Questions to servers outside, against servers of all kinds on the loopback interface.

mod behaviour;
pub(super) mod encoding;
mod hostile;
#[cfg(feature = "grpc")]
mod http;
#[cfg(feature = "grpc")]
mod tcp;

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::outside::StunServer;

/// Server that answers each datagram with those that `answer` makes of it, until it is dropped.
struct Server {
    at: StunServer,
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(
        ip: &str,
        answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = [0; 2000];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                for datagram in answer(&buffer[..length], from) {
                    socket.send_to(&datagram, from).await.unwrap();
                }
            }
        });
        Self { at: address.to_string().parse().unwrap(), address, _task: task }
    }

    /// One that tells each client the address that it has.
    async fn honest(ip: &str) -> Self {
        Self::start(ip, |request, from| vec![encoding::success(request, from)]).await
    }

    /// One that tells everybody this address.
    async fn liar(lie: &str) -> Self {
        let lie: SocketAddr = lie.parse().unwrap();
        Self::start("127.0.0.1", move |request, _| vec![encoding::success(request, lie)]).await
    }
}

/// The servers' addresses, as they are configured.
fn configured<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Vec<StunServer> {
    servers.into_iter().map(|server| server.at.clone()).collect()
}
