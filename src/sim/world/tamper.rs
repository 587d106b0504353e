//! What misbehaving nodes do to their messages.

use bytes::Bytes;

use crate::types::{Announcement, DialBackOutcome, Head, Message, PeerId, Signature, Transaction};

use crate::sim::config::Behaviour;

/// Changes what a misbehaving node sends; `false` when the message is to be withheld.
pub(super) fn tamper(behaviour: Behaviour, own: PeerId, message: &mut Message) -> bool {
    match (behaviour, message) {
        (Behaviour::Stalling, message) => withhold(message),
        (Behaviour::WrongPayload, Message::Push { transaction, .. })
            if transaction.origin() != own =>
        {
            let payload = flipped(transaction.payload());
            rebuild(transaction, transaction.signature().clone(), payload);
            true
        }
        (Behaviour::WrongPayload | Behaviour::PoisonThenStall, Message::Piece(piece)) => {
            if behaviour == Behaviour::PoisonThenStall && piece.index > 0 {
                return false;
            }
            piece.bytes = flipped(&piece.bytes);
            true
        }
        (Behaviour::WrongSignature, Message::Push { transaction, .. })
            if transaction.origin() != own =>
        {
            let payload = transaction.payload().clone();
            rebuild(transaction, Signature::Ed25519([7; 64]), payload);
            true
        }
        (Behaviour::WrongSignature, Message::Offer(offer)) if offer.head.header().origin != own => {
            let header = offer.head.header_bytes().clone();
            if let Ok(head) = Head::from_parts(header, Signature::Ed25519([7; 64])) {
                offer.head = head;
            }
            true
        }
        (Behaviour::WrongRecord, Message::Peers { records, .. }) => {
            records.iter_mut().filter(|r| r.peer() != own).for_each(|r| r.draft.seq += 1000);
            true
        }
        (Behaviour::SaysReached, Message::DialBackResult { outcome, .. }) => {
            *outcome = DialBackOutcome::Reached;
            true
        }
        (Behaviour::SaysFailed, Message::DialBackResult { outcome, .. }) => {
            *outcome = DialBackOutcome::Failed;
            true
        }
        (Behaviour::WrongVersion, Message::Hello(hello)) => {
            (hello.version_min, hello.version_max) = (1000, 1001);
            true
        }
        _ => true,
    }
}

/// A push becomes an announcement, a piece nothing.
fn withhold(message: &mut Message) -> bool {
    if let Message::Push { transaction, hop } = message {
        let (id, size) = (transaction.id(), transaction.header().payload_len);
        *message = Message::Announce(vec![Announcement { id, size, hop: *hop }]);
    }
    !matches!(message, Message::Piece(_))
}

/// Announcements that a staller makes at once when told this.
pub(super) fn hearsay(message: &Message) -> Vec<Announcement> {
    match message {
        Message::Announce(list) => list.clone(),
        Message::Push { transaction, hop } => {
            let (id, size) = (transaction.id(), transaction.header().payload_len);
            vec![Announcement { id, size, hop: *hop }]
        }
        _ => Vec::new(),
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

fn rebuild(transaction: &mut Transaction, signature: Signature, payload: Bytes) {
    let header = transaction.header_bytes().clone();
    if let Ok(changed) = Transaction::from_parts(header, signature, payload) {
        *transaction = changed;
    }
}
