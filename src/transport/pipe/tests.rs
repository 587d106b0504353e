//! Links over a pipe in memory, and pipes that end, break or lie.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use futures::{SinkExt, StreamExt};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;
use crate::identity::Identity;
use crate::testing::TransportNode;
use crate::transport::GrpcOptions;
use crate::types::MAX_FRAME_BYTES;

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn shared(seed: u8, plaintext: bool) -> Shared {
    let options = GrpcOptions { plaintext, ..GrpcOptions::default() };
    Shared::new(identity(seed), options).unwrap()
}

fn way() -> Way {
    Way { kind: TransportKind::WebSocket, address: None, traffic: Traffic::default() }
}

/// A link of 1 to 2 over a pipe that holds `size` bytes.
async fn open(size: usize, plaintext: bool) -> (RawLink, RawLink) {
    let (here, there) = duplex(size);
    let (ours, theirs) = (shared(1, plaintext), shared(2, plaintext));
    let expected = Some(identity(2).peer_id());
    let (dialled, accepted) =
        join(dial(&ours, here, way(), expected), accept(&theirs, there, way())).await;
    (dialled.unwrap(), accepted.unwrap())
}

/// A plain link whose other end writes bytes as it likes.
async fn raw() -> (RawLink, DuplexStream) {
    let (mut here, there) = duplex(1 << 16);
    let theirs = shared(2, true);
    let claim = async {
        here.write_all(identity(1).peer_id().as_bytes()).await.unwrap();
        here.read_exact(&mut [0; 32]).await.unwrap();
    };
    let ((), link) = join(claim, accept(&theirs, there, way())).await;
    (link.unwrap(), here)
}

#[tokio::test]
async fn both_ends_are_proven_and_frames_pass_however_little_the_pipe_holds() {
    for (size, plaintext) in [(100, false), (1 << 20, false), (100, true)] {
        let (mut a, mut b) = open(size, plaintext).await;
        assert_eq!((a.remote, b.remote), (identity(2).peer_id(), identity(1).peer_id()));
        assert_eq!(a.kind, TransportKind::WebSocket);
        assert_eq!(a.binding, b.binding);
        assert_eq!(a.binding.is_none(), plaintext);
        let sizes = [0, 1, 3, 4000, 5000, 4096, 4097, 0, 70_000, 1, MAX_FRAME_BYTES];
        let frames = sizes.map(|size| Bytes::from(vec![7; size]));
        let send = async {
            for frame in &frames {
                a.sink.send(frame.clone()).await.unwrap();
            }
        };
        let check = async {
            for frame in &frames {
                assert!(b.stream.next().await.unwrap().unwrap() == *frame);
            }
        };
        join(send, check).await;
        let long = Bytes::from(vec![0; MAX_FRAME_BYTES + 1]);
        assert_eq!(a.sink.send(long).await.unwrap_err().kind, FailureKind::Malformed);
        TransportNode::assert_open(a, b).await;
    }
}

#[tokio::test]
async fn another_peer_than_expected_is_told_apart() {
    for plaintext in [false, true] {
        let (here, there) = duplex(1 << 16);
        let (ours, theirs) = (shared(1, plaintext), shared(2, plaintext));
        let expected = Some(identity(3).peer_id());
        let (dialled, accepted) =
            join(dial(&ours, here, way(), expected), accept(&theirs, there, way())).await;
        assert_eq!(dialled.unwrap_err().kind, FailureKind::Identity);
        if !plaintext {
            assert_eq!(accepted.unwrap_err().kind, FailureKind::Closed);
        }
    }
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A session that proves the right key and was made for something else, and one that proves none.
#[tokio::test]
async fn only_a_session_for_a_pipe_counts() {
    let (ours, theirs) = (shared(1, false), shared(2, false));
    let Security::Tls(tls) = &ours.security else { unreachable!() };
    let direct = tls.client_config(None);
    let mut no_protocol = (*tls.pipe_client(None)).clone();
    no_protocol.alpn_protocols.clear();
    let mut nobody = (*tls.pipe_client(None)).clone();
    nobody.client_auth_cert_resolver = Arc::new(NoCertificate);
    for (config, kind) in [
        (direct, FailureKind::Protocol),
        (Arc::new(no_protocol), FailureKind::Protocol),
        (Arc::new(nobody), FailureKind::Identity),
    ] {
        let (here, there) = duplex(1 << 16);
        let name = ServerName::try_from("x").unwrap();
        let attack = async {
            let tls = TlsConnector::from(config).connect(name, here).await;
            if let Ok(mut tls) = tls {
                let _ = tls.read(&mut [0]).await;
            }
        };
        let ((), accepted) = join(attack, accept(&theirs, there, way())).await;
        assert_eq!(accepted.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn what_comes_after_a_length_is_bounded_by_it_and_by_the_limit() {
    let oversize = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    for (sent, frames, kind) in [
        (&oversize[..], 0, Some(FailureKind::Malformed)),
        (&[0xff, 0xff, 0xff, 0xfe], 0, Some(FailureKind::Malformed)),
        (&[0, 0, 0, 1, 9, 0, 0, 0, 2, 9], 1, Some(FailureKind::Closed)),
        (&[0, 0, 0, 0, 0, 0], 1, Some(FailureKind::Closed)),
        (&[0, 0, 0, 1, 9], 1, Some(FailureKind::Closed)),
        (&[0, 0, 0, 1, 9, 0xff, 0xff, 0xff, 0xff], 1, None),
    ] {
        let (mut link, mut there) = raw().await;
        there.write_all(sent).await.unwrap();
        // An end that was announced, or a wrong length, does not wait for the pipe's end.
        let kept = matches!(kind, None | Some(FailureKind::Malformed)).then_some(there);
        for _ in 0..frames {
            link.stream.next().await.unwrap().unwrap();
        }
        let last = link.stream.next().await;
        assert_eq!(last.map(|last| last.unwrap_err().kind), kind, "{sent:?}");
        assert!(link.stream.next().await.is_none());
        drop(kept);
    }
}

#[tokio::test]
async fn a_byte_that_is_changed_on_the_way_breaks_the_link() {
    let (here, mut near) = duplex(1 << 16);
    let (mut far, there) = duplex(1 << 16);
    let (ours, theirs) = (shared(1, false), shared(2, false));
    let relay = async {
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    let links = join(dial(&ours, here, way(), None), accept(&theirs, there, way()));
    let (dialled, accepted) = tokio::select! {
        links = links => links,
        () = relay => panic!("the relay ended"),
    };
    let (mut a, mut b) = (dialled.unwrap(), accepted.unwrap());
    a.sink.send(Bytes::from_static(b"a frame")).await.unwrap();
    let mut record = vec![0; 1000];
    let length = near.read(&mut record).await.unwrap();
    record[length - 1] ^= 1;
    far.write_all(&record[..length]).await.unwrap();
    assert_eq!(b.stream.next().await.unwrap().unwrap_err().kind, FailureKind::Protocol);
}

/// Whatever a dropped link was doing, nothing of it is left.
#[tokio::test(start_paused = true)]
async fn no_task_outlives_its_link() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (mut a, mut b) = open(1 << 16, false).await;
    assert_eq!(alive(), 2);
    a.sink.send(Bytes::from_static(b"the last")).await.unwrap();
    drop(a);
    assert_eq!(b.stream.next().await.unwrap().unwrap(), "the last");
    assert!(b.stream.next().await.is_none());
    // One that is stuck, since nobody reads.
    let (mut stuck, unread) = open(1 << 16, false).await;
    let write = async { while stuck.sink.send(Bytes::from(vec![0; 9000])).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(1), write).await.is_err());
    drop((b, stuck, unread));
    while alive() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
