//! Kinds of transports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a transport, in the default order of preference. Only those that exist are built in: see
/// [`crate::transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransportKind {
    /// One bidirectional gRPC stream.
    GrpcStream,
    /// WebSocket binary messages.
    #[serde(rename = "websocket")]
    WebSocket,
    /// A byte pipe over unary gRPC calls.
    GrpcUnary,
    /// A byte pipe over plain HTTP requests.
    Rest,
    /// Inside this process.
    Memory,
    /// A transport brought by the host application.
    Custom,
}

impl TransportKind {
    /// The kinds that reach peers over a network, the best first.
    pub(crate) const LADDER: [Self; 4] =
        [Self::GrpcStream, Self::WebSocket, Self::GrpcUnary, Self::Rest];

    /// Reports whether the kind reaches peers over a network by itself.
    pub(crate) fn is_network(self) -> bool {
        Self::LADDER.contains(&self)
    }

    /// Name of the kind in configuration, events and statistics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GrpcStream => "grpc-stream",
            Self::WebSocket => "websocket",
            Self::GrpcUnary => "grpc-unary",
            Self::Rest => "rest",
            Self::Memory => "memory",
            Self::Custom => "custom",
        }
    }

    /// Iterates over all kinds.
    #[cfg_attr(not(any(feature = "sqlite", feature = "node")), allow(dead_code))]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::LADDER.into_iter().chain([Self::Memory, Self::Custom])
    }

    /// Finds the kind by its name.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
