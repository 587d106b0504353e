//! What is known of a handover: which connection takes over which link, and how far it is.
//!
//! The contract is that of `protocol::lifecycle::handover`.
//!
//! Tested by: `protocol::tests::handover`.

use std::collections::VecDeque;

use crate::types::{Endpoint, Hello, LinkId, Message, MonoTime, TransportKind};

use super::Links;

/// Maximum number of messages that wait for the connection that takes over.
const MAX_HELD: usize = 4096;

/// Reason for which a link goes over to another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Why {
    /// A transport that is preferred works too.
    Upgrade,
    /// The connection is as old as it may be.
    Age,
    /// Connections of this kind are cut after so many bytes.
    BodyLimit,
    /// Connections of this kind are cut after so much time.
    TimeLimit,
    /// The connection is about to be closed.
    Leaving,
    /// The peer has its reasons.
    Peer,
}

impl Why {
    /// Returns the reason as events name it.
    pub(in crate::protocol) fn as_str(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Age => "max link age",
            Self::BodyLimit => "proxy body limit",
            Self::TimeLimit => "proxy time limit",
            Self::Leaving => "closing",
            Self::Peer => "peer",
        }
    }
}

/// Progress of a handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Stage {
    /// Who dialled has said hello and waits for the other's.
    Greeting,
    /// Who dialled has said step 1, and waits for step 2.
    Leaving,
    /// Who was dialled has agreed, and waits for step 1.
    Agreed,
    /// Who was dialled has said step 2, and waits for step 3.
    Arriving,
}

/// Handover, as the connection that is to take over knows it.
#[derive(Debug)]
pub(in crate::protocol) struct Handover {
    /// Link that is to be taken over.
    pub(in crate::protocol) link: LinkId,
    pub(in crate::protocol) stage: Stage,
    pub(in crate::protocol) why: Why,
    /// The peer's hello on this connection, once it has come.
    pub(in crate::protocol) hello: Option<Box<Hello>>,
}

/// Dial of a connection that is to take over a link.
#[derive(Debug)]
pub(in crate::protocol) struct Attempt {
    pub(in crate::protocol) link: LinkId,
    pub(in crate::protocol) endpoint: Endpoint,
    pub(in crate::protocol) rung: TransportKind,
    pub(in crate::protocol) why: Why,
}

/// Handover, as the link that is to be taken over knows it.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Succession {
    /// Connection in its hello that is to take over.
    pub(in crate::protocol) heir: Option<LinkId>,
    /// What is said meanwhile, between the last step said on the old connection and the new one.
    held: Option<VecDeque<Message>>,
    /// The old connection is gone before the new one has taken over.
    pub(in crate::protocol) is_orphaned: bool,
    /// The connection that was to take over has been lost before step 1 came.
    pub(in crate::protocol) is_heirless: bool,
    /// Time of the latest handover.
    pub(in crate::protocol) moved: Option<MonoTime>,
}

impl Succession {
    /// Reports whether what is said waits for the new connection.
    pub(in crate::protocol) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets what is said from now on wait.
    pub(in crate::protocol) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Takes a message that waits; gives it back where none does. `false`: too many wait.
    pub(super) fn keep(&mut self, message: Message) -> Result<bool, Message> {
        let Some(held) = &mut self.held else { return Err(message) };
        held.push_back(message);
        Ok(held.len() <= MAX_HELD)
    }

    /// Returns what has waited; nothing does any more.
    pub(in crate::protocol) fn release(&mut self) -> VecDeque<Message> {
        self.held.take().unwrap_or_default()
    }
}

impl Links {
    /// Returns the link that a connection carries; `None` for one that is closed, or was left.
    pub(in crate::protocol) fn link_of(&self, wire: LinkId) -> Option<LinkId> {
        let link = self.wires.get(&wire).copied().unwrap_or(wire);
        self.all.get(&link).filter(|l| l.wire == wire).map(|l| l.id)
    }

    /// Returns the connection that carries a link.
    pub(in crate::protocol) fn wire_of(&self, link: LinkId) -> Option<LinkId> {
        self.all.get(&link).map(|l| l.wire)
    }

    /// Returns the handover of a connection that is to take over a link, and has agreed on it.
    pub(in crate::protocol) fn agreed(&self, heir: LinkId) -> Option<Stage> {
        let stage = self.all.get(&heir)?.takes_over.as_ref()?.stage;
        (stage != Stage::Greeting).then_some(stage)
    }
}
