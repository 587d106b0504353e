//! The checkers: invariants of the protocol, each a named type that looks at everything a node is
//! given and does. Each has a test that shows it a violation and sees it bite.

mod bounds;
mod breakers;
mod checker;
mod handover;
mod marks;
mod outbox_replay;
mod peers;
mod per_link;
mod requests;
mod reservations;
mod storage;
mod unwanted;
mod verification;

use std::collections::BTreeSet;

pub use bounds::{Bounded, ControlFirst};
pub use breakers::BreakersHold;
pub use checker::{Checker, Holdings, Seen, Violation};
pub use handover::InOrder;
pub use outbox_replay::ReplayEndsOnce;
pub use peers::{NoBanForLoss, OneLinkPerPeer, RecordsMonotone};
pub use requests::RequestsOnce;
pub use reservations::{OneParent, ReservationAcyclic};
pub use storage::{AtMostOnce, NoLoss, StoreBeforePublished};
pub use unwanted::Unwanted;
pub use verification::VerifyBeforeForward;

pub use crate::protocol::Gauge;
use crate::types::PeerId;

/// All checkers; `hostile` are the peers that may be banned.
pub fn all(hostile: BTreeSet<PeerId>) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(NoLoss),
        Box::new(AtMostOnce::default()),
        Box::new(StoreBeforePublished::default()),
        Box::new(VerifyBeforeForward::default()),
        Box::new(ReservationAcyclic::default()),
        Box::new(OneParent::default()),
        Box::new(Bounded),
        Box::new(ControlFirst::default()),
        Box::new(RecordsMonotone::default()),
        Box::new(OneLinkPerPeer),
        Box::new(BreakersHold::default()),
        Box::new(NoBanForLoss { hostile }),
        Box::new(Unwanted::default()),
        Box::new(ReplayEndsOnce::default()),
        Box::new(RequestsOnce::default()),
    ]
}
