//! Listening sockets, alike for peers and for administrators.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Maximum number of connections that wait for being accepted.
const BACKLOG: i32 = 1024;

/// Listens on a TCP port; on `[::]` for both families, whatever the operating system has as its default.
/// Requires a tokio runtime with I/O enabled.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn listen_on(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    // Elsewhere that lets another program take the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if bind.is_ipv6()
        && bind.ip().is_unspecified()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::warn!(target: "sorcha_peer::node", %bind, %error, "this system serves IPv6 alone there");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
