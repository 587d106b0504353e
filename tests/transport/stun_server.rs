//! A STUN server on the loopback interface that answers what a test says.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A success response that says "I see you at `seen`" in XOR-MAPPED-ADDRESS.
pub(crate) fn response(request: &[u8], seen: SocketAddr) -> Vec<u8> {
    assert!(request.len() >= 20 && request[..2] == [0, 1], "a binding request");
    assert_eq!(request[4..8], MAGIC);
    let mask = &request[4..20];
    let [p0, p1] = seen.port().to_be_bytes();
    let (family, octets) = match seen.ip() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let length = u8::try_from(4 + octets.len()).unwrap();
    let mut out = vec![1, 1, 0, 4 + length];
    out.extend_from_slice(mask);
    out.extend_from_slice(&[0, 0x20, 0, length, 0, family, p0 ^ mask[0], p1 ^ mask[1]]);
    out.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    out
}

/// Answers every request with what `answer` makes of it; nothing where that is empty.
pub(crate) async fn serve(
    bind: &str,
    answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let socket = UdpSocket::bind(bind).await?;
    let address = socket.local_addr()?;
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], from);
            if !answer.is_empty() {
                socket.send_to(&answer, from).await.expect("loopback takes it");
            }
        }
    });
    Ok((address, task))
}
