//! Every public error says each cause once, with and without a reporter that walks the chain.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use super::*;
use crate::types::CloseReason;

/// Words of the innermost cause, which nothing else says.
const CAUSE: &str = "Read-only file system (os error 30)";

/// Error whose cause stands behind it, as in the libraries below us.
#[derive(Debug, thiserror::Error)]
#[error("the disk said no")]
struct Layer(#[source] io::Error);

/// Error that says the words of its cause by itself, and has it as its source too.
#[derive(Debug, thiserror::Error)]
#[error("error returned from below: {0}")]
struct Echo(#[source] io::Error);

fn innermost() -> io::Error {
    io::Error::other(CAUSE)
}

fn store() -> StoreError {
    StoreError::with_source(StoreErrorKind::Io, "cannot open data/LOCK", Layer(innermost()))
}

fn transport(message: &str) -> TransportError {
    TransportError::with_source(FailureKind::Local, message, innermost())
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5001))
}

fn identity() -> IdentityError {
    let source = io::Error::other(Layer(innermost()));
    IdentityError::Io { path: "data/node.key".into(), source }
}

/// Samples of every public error, each with the name of its type.
#[derive(Default)]
struct Samples(Vec<(&'static str, Box<dyn Error>)>);

/// Adds samples of an enum, one for each variant at least: a variant that is left out does not compile.
macro_rules! add {
    ($samples:ident, $type:ident: $($variant:ident => $sample:expr),+ $(,)?) => {
        let _ = |error: &$type| match error { $($type::$variant { .. } => ()),+ };
        $($samples.0.push((stringify!($type), Box::new($sample)));)+
    };
}

/// Errors about one value, which have no cause.
fn plain(samples: &mut Samples) {
    add!(samples, ConfigError:
        OutOfRange => ConfigError::OutOfRange {
            field: "gossip.fanout",
            value: "400".to_owned(),
            min: "1".to_owned(),
            max: "64".to_owned(),
        },
        Repeated => ConfigError::Repeated {
            field: "connection.transports",
            value: "rest".to_owned(),
        },
        PlaintextTrust => ConfigError::PlaintextTrust { trust: "a secret" },
        PlaintextBeyondLoopback => ConfigError::PlaintextBeyondLoopback { address: address() },
        AdminBeyondLoopback => ConfigError::AdminBeyondLoopback { address: address() },
        AdminNotBuilt => ConfigError::AdminNotBuilt,
        MdnsNotBuilt => ConfigError::MdnsNotBuilt,
        AdminToken => ConfigError::AdminToken,
        Advertise => ConfigError::Advertise { endpoint: "0.0.0.0:1".to_owned() },
        NatServer => ConfigError::NatServer {
            field: "nat.stun",
            server: "http://h".to_owned(),
            reason: CAUSE.to_owned(),
        },
        NatNotBuilt => ConfigError::NatNotBuilt { field: "nat.relays", feature: "turn" },
        CompatAnonymous => ConfigError::CompatAnonymous,
        CompatNotBuilt => ConfigError::CompatNotBuilt,
        CompatCertificate => ConfigError::CompatCertificate { missing: "key_file" },
        Proxy => ConfigError::Proxy { field: "connection.proxy", reason: CAUSE.to_owned() },
    );
    add!(samples, EndpointError:
        Empty => EndpointError::Empty,
        Scheme => EndpointError::Scheme(CAUSE.to_owned()),
        Trailing => EndpointError::Trailing(CAUSE.to_owned()),
        Path => EndpointError::Path(CAUSE.to_owned()),
        Pin => EndpointError::Pin(CAUSE.to_owned()),
        Port => EndpointError::Port,
        Unbracketed => EndpointError::Unbracketed(CAUSE.to_owned()),
        Host => EndpointError::Host(CAUSE.to_owned()),
        Listen => EndpointError::Listen(CAUSE.to_owned()),
        Lookup => EndpointError::Lookup(CAUSE.to_owned()),
    );
    add!(samples, ParseIdError:
        NotHex => ParseIdError::NotHex { length: 1 },
        TopicTooLong => ParseIdError::TopicTooLong { length: 256, limit: 255 },
        EmptyTopic => ParseIdError::EmptyTopic,
        InvitePrefix => ParseIdError::InvitePrefix,
        InviteTooLong => ParseIdError::InviteTooLong { length: 9, limit: 8 },
        InviteDamaged => ParseIdError::InviteDamaged,
        InviteVersion => ParseIdError::InviteVersion { version: 2, known: 1 },
        InvitePart => ParseIdError::InvitePart { part: "address" },
    );
    add!(samples, InvalidTransaction:
        Header => InvalidTransaction::Header,
        Encoding => InvalidTransaction::Encoding,
        Version => InvalidTransaction::Version { found: 9 },
        Id => InvalidTransaction::Id,
        Length => InvalidTransaction::Length { actual: 1, expected: 2 },
        PayloadHash => InvalidTransaction::PayloadHash,
        Unsigned => InvalidTransaction::Unsigned,
        Signature => InvalidTransaction::Signature,
    );
    add!(samples, ReplicationError:
        DeadLetter => ReplicationError::DeadLetter { reason: CAUSE.to_owned() },
        NotCounted => ReplicationError::NotCounted,
        Closed => ReplicationError::Closed,
    );
    add!(samples, ReadyError:
        Timeout => ReadyError::Timeout {
            links: 0,
            wanted: 1,
            waited: Duration::from_secs(1),
            hint: CAUSE.to_owned(),
        },
        NoAddress => ReadyError::NoAddress,
        Closed => ReadyError::Closed,
    );
    samples.0.push(("NodeClosed", Box::new(NodeClosed)));
    samples.0.push(("ProbeError", Box::new(ProbeError::new(FailureKind::Local, CAUSE))));
}

/// Errors of ports, and of what a node does with them.
fn with_causes(samples: &mut Samples) {
    let echo = || TransportError::with_source(FailureKind::Local, "no link", Echo(innermost()));
    let said =
        || StoreError::with_source(StoreErrorKind::Io, format!("a.db: {CAUSE}"), innermost());
    for error in [transport("cannot listen on 127.0.0.1:5001"), echo(), transport("")] {
        samples.0.push(("TransportError", Box::new(error)));
    }
    for error in [store(), said(), StoreError::new(StoreErrorKind::Full, CAUSE)] {
        samples.0.push(("StoreError", Box::new(error)));
    }
    add!(samples, IdentityError:
        Io => identity(),
        Format => IdentityError::Format { path: "data/node.key".into() },
        SecretFile => IdentityError::SecretFile {
            path: "data/network.secret".into(),
            source: io::Error::other(Layer(innermost())),
        },
        SecretLength => IdentityError::SecretLength {
            path: Some("data/network.secret".into()),
            length: 5,
            min: 16,
            max: 256,
        },
        Random => IdentityError::Random,
    );
    let scheme = EndpointError::Scheme(CAUSE.to_owned());
    let listen = |message| StartError::Listen { address: address(), source: transport(message) };
    add!(samples, StartError:
        Config => StartError::from(ConfigError::Advertise { endpoint: "0.0.0.0:1".to_owned() }),
        Address => StartError::Address { text: "x".to_owned(), source: scheme },
        Listen => listen("cannot listen on 127.0.0.1:5001"),
        Transport => StartError::Transport { source: echo() },
        Store => StartError::from(store()),
        RelayTransport => StartError::RelayTransport,
        CompatTransport => StartError::CompatTransport,
        NoTransport => StartError::NoTransport,
        Identity => StartError::from(identity()),
        Random => StartError::Random,
        NoRuntime => StartError::NoRuntime,
    );
    let dial = |reason: TransportError| ConnectError::Dial {
        address: "127.0.0.1:5001".to_owned(),
        kind: reason.kind,
        reason: reason.to_string(),
    };
    add!(samples, TestError:
        Unknown => TestError::Unknown,
        NotLinked => TestError::NotLinked,
        Busy => TestError::Busy,
        TimedOut => TestError::TimedOut,
        Closed => TestError::Closed,
    );
    add!(samples, RequestError:
        UnknownPeer => RequestError::UnknownPeer,
        NoWay => RequestError::NoWay { reason: CAUSE.to_owned() },
        NotServed => RequestError::NotServed { protocol: "p".to_owned() },
        Busy => RequestError::Busy,
        TooLarge => RequestError::TooLarge { size: 2, limit: 1 },
        TimedOut => RequestError::TimedOut { after: Duration::from_secs(1) },
        LinkLost => RequestError::LinkLost { sent: true },
        Refused => RequestError::Refused { reason: CAUSE.to_owned() },
        Failed => RequestError::Failed,
        ToSelf => RequestError::ToSelf,
        InvalidProtocol => RequestError::InvalidProtocol,
        InvalidTraceparent => RequestError::InvalidTraceparent,
        ProtocolTaken => RequestError::ProtocolTaken { protocol: "p".to_owned() },
        Closed => RequestError::Closed,
    );
    add!(samples, ConnectError:
        Address => ConnectError::from(EndpointError::Scheme(CAUSE.to_owned())),
        Dial => dial(echo()),
        Refused => ConnectError::Refused(CloseReason::Banned),
        BreakerOpen => ConnectError::BreakerOpen {
            address: CAUSE.to_owned(),
            retry_in: Duration::from_secs(9),
        },
        Closed => ConnectError::Closed,
    );
    samples.0.push(("StartError", Box::new(listen("no"))));
    let named = dial(transport("cannot connect to 127.0.0.1:5001"));
    samples.0.push(("ConnectError", Box::new(named)));
}

/// Errors of operations that a store may fail.
fn of_operations(samples: &mut Samples) {
    let publish = || PublishError::from(store());
    let id = TransactionId::from_bytes([7; 32]);
    add!(samples, PublishError:
        TooLarge => PublishError::TooLarge { size: 2, limit: 1 },
        Topic => PublishError::from(ParseIdError::EmptyTopic),
        InvalidTraceparent => PublishError::InvalidTraceparent,
        Invalid => PublishError::Invalid(InvalidTransaction::Unsigned),
        TooMany => PublishError::TooMany { max_count: 2, max_bytes: 1 },
        NotValid => PublishError::NotValid { reason: Refusal::Rejected },
        Expired => PublishError::Expired { expires: WallTime::from_millis(1) },
        QueueFull => PublishError::QueueFull { limit: 1 },
        OverShare => PublishError::OverShare { used: 2, limit: 1 },
        OverRate => PublishError::OverRate { used: 2, limit: 1 },
        Store => publish(),
        Closed => PublishError::Closed,
        Unsettled => PublishError::Unsettled,
    );
    add!(samples, DeadLetterError:
        NotFound => DeadLetterError::NotFound { id },
        Store => DeadLetterError::from(store()),
        Closed => DeadLetterError::Closed,
    );
    add!(samples, RedeliverError:
        NotFound => RedeliverError::NotFound { id },
        Publish => RedeliverError::from(publish()),
        Store => RedeliverError::from(store()),
        Closed => RedeliverError::Closed,
    );
    add!(samples, SubscribeError:
        Topic => SubscribeError::from(ParseIdError::EmptyTopic),
        Cursor => SubscribeError::Cursor { cursor: Cursor(2), newest: Cursor(1) },
        Name => SubscribeError::Name { length: 0, max: 1 },
        InUse => SubscribeError::InUse { name: "n".to_owned() },
        Store => SubscribeError::from(store()),
        Closed => SubscribeError::Closed,
    );
    add!(samples, AckError:
        NotDelivered => AckError::NotDelivered { cursor: Cursor(2), delivered: Cursor(1) },
        Store => AckError::from(store()),
    );
    add!(samples, BanError:
        Store => BanError::from(store()),
        Itself => BanError::Itself,
        Closed => BanError::Closed,
    );
}

fn samples() -> Samples {
    let mut samples = Samples::default();
    plain(&mut samples);
    with_causes(&mut samples);
    of_operations(&mut samples);
    samples
}

#[test]
fn every_public_error_is_among_the_samples() {
    let listed = include_str!("../../tests/repo/public_api.txt").lines();
    let listed = listed.filter_map(|line| line.strip_prefix("error::")?.split_once(' '));
    let is_error = |(name, _): &(&str, &str)| name.ends_with("Error") || *name == "NodeClosed";
    let mut listed: BTreeSet<_> = listed.filter(is_error).map(|(name, _)| name).collect();
    listed.insert("InvalidTransaction");
    let sampled: BTreeSet<_> = samples().0.iter().map(|(name, _)| *name).collect();
    assert_eq!(sampled, listed);
}

#[test]
fn a_cause_is_in_the_text_once_also_where_somebody_walks_the_chain() {
    let mut with_cause = 0;
    for (name, error) in samples().0 {
        let text = error.to_string();
        assert!(
            !text.is_empty() && !text.contains(": :") && !text.contains('\n'),
            "{name}: {text}"
        );
        let chain: Vec<_> = std::iter::successors(Some(&*error), |error| (*error).source())
            .map(ToString::to_string)
            .collect();
        assert_eq!(chain, [text.as_str()], "{name}: the text is the whole chain");
        if format!("{error:?}").contains(CAUSE) {
            with_cause += 1;
            assert_eq!(text.matches(CAUSE).count(), 1, "{name}: {text}");
        }
    }
    assert!(with_cause > 25, "{with_cause}");
}

#[test]
fn words_of_a_peer_are_one_line_of_bounded_length() {
    let hostile = "\r\n\u{1b}[2J ok\0".to_owned() + &"é".repeat(100_000);
    let error = TransportError::with_source(FailureKind::Refused, "no stream", hostile);
    let text = error.to_string();
    assert!(text.starts_with(r"no stream: \r\n\u{1b}[2J ok\u{0}éé"), "{text}");
    assert!(!text.contains(char::is_control) && text.chars().count() < 1100, "{}", text.len());
}

#[test]
fn what_failed_is_said_once_beside_the_cause() {
    let listen = |message| {
        let address = address();
        StartError::Listen { address, source: transport(message) }.to_string()
    };
    let wanted = format!("cannot listen on 127.0.0.1:5001: {CAUSE}");
    assert_eq!(listen("cannot listen on 127.0.0.1:5001"), wanted);
    assert_eq!(listen("no"), format!("cannot listen on 127.0.0.1:5001: no: {CAUSE}"));
    let address = |text: &str| {
        let source = text.parse::<crate::types::Endpoint>().unwrap_err();
        StartError::Address { text: text.to_owned(), source }.to_string()
    };
    let wanted =
        "only host and port are allowed in \"a:1/b\", and a path with http, https, ws or wss";
    assert_eq!(address("a:1/b"), wanted);
    let port = "address \"a:0\": the port must be a number from 1 to 65535";
    assert_eq!(address("a:0"), port);
    assert_eq!(
        StartError::from(store()).to_string(),
        format!("cannot restore: storage io: cannot open data/LOCK: the disk said no: {CAUSE}")
    );
    assert_eq!(
        identity().to_string(),
        format!("key file data/node.key: the disk said no: {CAUSE}")
    );
}
