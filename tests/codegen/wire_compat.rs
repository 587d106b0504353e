//! The compatible services are the original's, number for number: a client made from its protos
//! talks to our nodes.

use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// Package, service, then each method as `Name(Request) Response`.
const SERVICES: [(&str, &str, &[&str]); 4] = [
    (
        "sorcha.peer.discovery",
        "PeerDiscovery",
        &[
            "GetPeerList(PeerListRequest) PeerListResponse",
            "RegisterPeer(RegisterPeerRequest) RegisterPeerResponse",
            "Ping(PingRequest) PingResponse",
            "ExchangePeers(PeerExchangeRequest) PeerExchangeResponse",
        ],
    ),
    (
        "sorcha.peer.communication",
        "PeerCommunication",
        &["SendMessage(PeerMessage) MessageAck", "Stream(stream PeerMessage) stream PeerMessage"],
    ),
    (
        "sorcha.peer.transaction",
        "TransactionDistribution",
        &[
            "NotifyTransaction(TransactionNotification) NotificationAck",
            "GetTransaction(TransactionRequest) TransactionResponse",
            "StreamTransaction(TransactionRequest) stream TransactionChunk",
        ],
    ),
    (
        "sorcha.peer.gossip.v1",
        "PeerGossip",
        &[
            "Link(stream Frame) stream Frame",
            "Pipe(stream Chunk) stream Chunk",
            "Exchange(ExchangeRequest) ExchangeResponse",
        ],
    ),
];

/// Message, then its fields as `type name number`.
const MESSAGES: [(&str, &str); 20] = [
    ("discovery.PeerListRequest", "string requesting_peer_id 1, int32 max_peers 2"),
    ("discovery.PeerListResponse", "repeated PeerInfo peers 1, int32 total_peers 2"),
    (
        "discovery.PeerInfo",
        "string peer_id 1, string address 2, int32 port 3, repeated string supported_protocols 4, \
         int64 last_seen 5, PeerCapabilities capabilities 6, \
         repeated PeerRegisterAdvertisement advertised_registers 7, bool is_seed_node 8",
    ),
    (
        "discovery.PeerCapabilities",
        "bool supports_streaming 1, bool supports_transaction_distribution 2, \
         int32 max_transaction_size 3",
    ),
    (
        "discovery.PeerRegisterAdvertisement",
        "string register_id 1, bool has_full_replica 2, int64 latest_version 3, bool is_public 4",
    ),
    ("discovery.RegisterPeerRequest", "PeerInfo peer_info 1"),
    ("discovery.RegisterPeerResponse", "bool success 1, string message 2"),
    ("discovery.PingRequest", "string peer_id 1"),
    ("discovery.PingResponse", "string peer_id 1, int64 timestamp 2, PeerStatus status 3"),
    ("discovery.PeerStatus", "UNKNOWN 0, ONLINE 1, OFFLINE 2, BUSY 3"),
    (
        "discovery.PeerExchangeRequest",
        "string peer_id 1, repeated PeerInfo known_peers 2, int32 max_peers 3",
    ),
    (
        "discovery.PeerExchangeResponse",
        "repeated PeerInfo known_peers 1, bool success 2, string message 3",
    ),
    (
        "communication.PeerMessage",
        "string sender_peer_id 1, string recipient_peer_id 2, MessageType message_type 3, \
         bytes payload 4, int64 timestamp 5",
    ),
    ("communication.MessageAck", "bool received 1, int64 timestamp 2"),
    (
        "communication.MessageType",
        "UNKNOWN 0, TRANSACTION_NOTIFICATION 1, TRANSACTION_REQUEST 2, TRANSACTION_RESPONSE 3, \
         PEER_STATUS_UPDATE 4, HEARTBEAT 5",
    ),
    (
        "transaction.TransactionNotification",
        "string transaction_hash 1, string sender_peer_id 2, int64 timestamp 3, \
         int64 transaction_size 4, string register_id 5",
    ),
    ("transaction.NotificationAck", "bool already_known 1, bool will_request 2"),
    (
        "transaction.TransactionRequest",
        "string transaction_hash 1, string requesting_peer_id 2, string register_id 3",
    ),
    (
        "transaction.TransactionResponse",
        "string transaction_hash 1, bytes transaction_data 2, bool found 3",
    ),
    (
        "transaction.TransactionChunk",
        "string transaction_hash 1, int32 chunk_index 2, int32 total_chunks 3, bytes chunk_data 4",
    ),
];

fn pool() -> DescriptorPool {
    let files = ["discovery", "communication", "transaction", "gossip"]
        .map(|name| format!("sorcha/peer/{name}.proto"));
    let set = protox::compile(files, [super::PROTO]).expect("the protos compile");
    DescriptorPool::from_file_descriptor_set(set).expect("complete descriptors")
}

fn fields(message: &MessageDescriptor) -> String {
    let show = |field: protox::prost_reflect::FieldDescriptor| {
        let kind = match field.kind() {
            Kind::Message(message) => message.name().to_owned(),
            Kind::Enum(kind) => kind.name().to_owned(),
            scalar => format!("{scalar:?}").to_lowercase(),
        };
        let repeated = if field.is_list() { "repeated " } else { "" };
        format!("{repeated}{kind} {} {}", field.name(), field.number())
    };
    message.fields().map(show).collect::<Vec<_>>().join(", ")
}

#[test]
fn services_and_methods_keep_their_names() {
    let pool = pool();
    let mut found = Vec::new();
    for service in pool.services() {
        let streaming = |yes: bool| if yes { "stream " } else { "" };
        let methods: Vec<String> = service
            .methods()
            .map(|method| {
                format!(
                    "{}({}{}) {}{}",
                    method.name(),
                    streaming(method.is_client_streaming()),
                    method.input().name(),
                    streaming(method.is_server_streaming()),
                    method.output().name(),
                )
            })
            .collect();
        found.push((service.package_name().to_owned(), service.name().to_owned(), methods));
    }
    let wanted: Vec<_> = SERVICES
        .iter()
        .map(|(package, name, methods)| {
            let methods = methods.iter().map(ToString::to_string).collect();
            ((*package).to_owned(), (*name).to_owned(), methods)
        })
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn messages_keep_their_fields_and_numbers() {
    let pool = pool();
    for (name, wanted) in MESSAGES {
        let full = format!("sorcha.peer.{name}");
        let found = if let Some(message) = pool.get_message_by_name(&full) {
            fields(&message)
        } else {
            let kind = pool.get_enum_by_name(&full).expect("a message or an enum");
            let values = kind.values().map(|v| format!("{} {}", v.name(), v.number()));
            values.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found, wanted, "{name}");
    }
    let compatible = |package: &str| !package.starts_with("sorcha.peer.gossip");
    let count = pool.all_messages().filter(|m| compatible(m.package_name())).count()
        + pool.all_enums().filter(|e| compatible(e.package_name())).count();
    assert_eq!(count, MESSAGES.len(), "every message is in the table");
}
