//! Checks of a transport against strangers: an id that is only stated, clients that say nothing, a listener
//! that is none.
//!
//! They speak raw TCP and know nothing of what the transport says over it: what they say is a part of a
//! handshake that they have seen before. A transport that is not over TCP is left alone.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::task::Poll;

use futures::future::{Either, join, select, try_join};

use crate::ports::Accepted;
use crate::types::Endpoint;

use super::transports::{TransportNode, connect_among, listen, yield_now};

/// Number of clients that say nothing, or not all.
const SILENT: usize = 4;
/// Most bytes that such a client says: less than the first step of any handshake.
const MAX_SAID: usize = 48;
/// Maximum number of bytes of a handshake that are kept, in each direction.
const MAX_RECORDED: usize = 1 << 20;

/// Runs the checks.
///
/// # Panics
/// When the transport does not do what the port demands.
pub(super) async fn conformance(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let Some(seen) = record(dialler, listener, bind).await else { return };
    silent_listener_is_no_peer(dialler, listener, bind).await;
    silent_clients_delay_nobody(dialler, listener, bind, &seen.from_dialler).await;
    if !(dialler.proves_ids && listener.proves_ids) {
        return;
    }
    replayed_dialler_is_nobody(dialler, listener, bind, &seen.from_dialler).await;
    replayed_listener_is_nobody(dialler, listener, bind, &seen.from_listener).await;
}

/// What both sides of a link said until both had it.
#[derive(Debug, Default)]
struct Seen {
    from_dialler: Vec<u8>,
    from_listener: Vec<u8>,
}

/// Opens a link through a relay that listens in on its first connection; `None` where the transport does
/// not come by.
async fn record(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) -> Option<Seen> {
    let mut socket = listen(listener, bind).await;
    let stage = stage(bind)?;
    let endpoint = Endpoint::from(stage.local_addr().ok()?);
    let mut relayed: Vec<(TcpStream, TcpStream)> = Vec::new();
    let mut unseen = Vec::new();
    let mut seen = Seen::default();
    let target = socket.local_addr();
    let met = {
        let dial = dialler.transport.dial(&endpoint, Some(listener.id));
        let accepted = async { Ok(TransportNode::accept(&mut socket).await) };
        let relay = poll_fn(|cx| {
            if let Ok((near, _)) = stage.accept() {
                relayed.push((nonblocking(near), nonblocking(connect(target))));
            }
            if let Some(((near, far), others)) = relayed.split_first_mut() {
                copy(near, far, &mut seen.from_dialler);
                copy(far, near, &mut seen.from_listener);
                for (near, far) in others {
                    unseen.clear();
                    copy(near, far, &mut unseen);
                    copy(far, near, &mut unseen);
                }
            }
            cx.waker().wake_by_ref();
            Poll::<Infallible>::Pending
        });
        match select(pin!(try_join(dial, accepted)), relay).await {
            Either::Left((met, _)) => met,
            Either::Right((never, _)) => match never {},
        }
    };
    match met {
        Ok(_) if !relayed.is_empty() => Some(seen),
        Err(error) if !relayed.is_empty() => panic!("a dial through a relay failed: {error}"),
        _ => None,
    }
}

/// A dial is no link before the remote has proven its id.
///
/// # Panics
/// When it is.
async fn silent_listener_is_no_peer(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
) {
    let _: Option<()> = dial_stage(dialler, listener, bind, b"", "that says nothing").await;
}

/// What a listener said to another dialler proves nothing.
///
/// # Panics
/// When it does.
async fn replayed_listener_is_nobody(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
    said: &[u8],
) {
    let _: Option<()> =
        dial_stage(dialler, listener, bind, said, "that plays back what another said").await;
}

/// Dials somebody who says this much, and then closes.
async fn dial_stage(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
    said: &[u8],
    who: &str,
) -> Option<()> {
    let stage = stage(bind)?;
    let endpoint = Endpoint::from(stage.local_addr().ok()?);
    let mut clients = Vec::new();
    let acting = poll_fn(|cx| {
        if let Ok((mut client, _)) = stage.accept() {
            let _ = client.write_all(said);
            let _ = client.shutdown(Shutdown::Write);
            clients.push(nonblocking(client));
        }
        for client in &mut clients {
            is_ended(client);
        }
        cx.waker().wake_by_ref();
        Poll::<Infallible>::Pending
    });
    let dial = dialler.transport.dial(&endpoint, Some(listener.id));
    match select(pin!(dial), acting).await {
        Either::Left((Ok(_), _)) => {
            panic!("a dial made a link with somebody {who}: the remote's id was not proven")
        }
        Either::Left((Err(_), _)) => Some(()),
        Either::Right((never, _)) => match never {},
    }
}

/// Clients that say nothing, or stop in the middle, are waited for beside others, not before them.
///
/// # Panics
/// When somebody else is served later.
async fn silent_clients_delay_nobody(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
    said: &[u8],
) {
    let mut socket = listen(listener, bind).await;
    let mut silent: Vec<_> = (0..SILENT).map(|_| connect(socket.local_addr())).collect();
    for client in silent.iter_mut().skip(SILENT / 2) {
        client
            .write_all(&said[..MAX_SAID.min(said.len() / 2)])
            .expect("a new connection takes some bytes");
    }
    let mut silent: Vec<_> = silent.into_iter().map(nonblocking).collect();
    let endpoint = Endpoint::from(socket.local_addr());
    let dial = dialler.transport.dial(&endpoint, Some(listener.id));
    let first = async {
        match socket.accept().await {
            Accepted::Link(link) => link,
            Accepted::Failed { error, .. } => panic!(
                "a client that says nothing was waited for before another was served: {error}"
            ),
            Accepted::Closed => panic!("the listener closed by itself"),
        }
    };
    let (dialled, theirs) = join(dial, first).await;
    let ended = silent.iter_mut().filter_map(|client| is_ended(client).then_some(())).count();
    assert_eq!(ended, 0, "clients that say nothing were waited for before another was served");
    let ours = dialled.unwrap_or_else(|e| panic!("a dial beside silent clients failed: {e}"));
    TransportNode::assert_open(ours, theirs).await;
}

/// What a dialler said in another handshake proves nothing.
///
/// # Panics
/// When it does.
async fn replayed_dialler_is_nobody(
    dialler: &TransportNode,
    listener: &TransportNode,
    bind: SocketAddr,
    said: &[u8],
) {
    let mut socket = listen(listener, bind).await;
    let mut stranger = connect(socket.local_addr());
    stranger.write_all(said).expect("a new connection takes some bytes");
    stranger.shutdown(Shutdown::Write).expect("it is open");
    let mut strays = Vec::new();
    // The second comes long after the stranger.
    for _ in 0..2 {
        let (ours, theirs) = connect_among(dialler, listener, &mut socket, &mut strays).await;
        TransportNode::assert_open(ours, theirs).await;
        yield_now().await;
    }
    let named: Vec<_> = strays.iter().map(|link| link.remote).collect();
    assert!(
        named.is_empty(),
        "a handshake that was played back made links with {named:?}: an id that is stated was believed"
    );
}

/// A socket on a free port, which does not block; `None` where there is none.
fn stage(bind: SocketAddr) -> Option<TcpListener> {
    let stage = TcpListener::bind(SocketAddr::new(bind.ip(), 0)).ok()?;
    stage.set_nonblocking(true).ok()?;
    Some(stage)
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("the listener takes connections")
}

fn nonblocking(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(true).expect("an open socket");
    stream
}

/// Copies what has come, and keeps it too.
fn copy(from: &mut TcpStream, to: &mut TcpStream, seen: &mut Vec<u8>) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..length]);
        assert!(seen.len() <= MAX_RECORDED, "a handshake has more than {MAX_RECORDED} bytes");
        let mut left = &bytes[..length];
        while !left.is_empty() {
            match to.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Takes what has come; returns whether the other side has closed.
fn is_ended(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
