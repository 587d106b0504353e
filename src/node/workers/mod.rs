//! Tasks that work for the driver: signing, checking and storing. Each takes jobs from a bounded
//! channel and answers with inputs of the protocol.

pub(super) mod known_signatures;
pub(super) mod log_backfill;
#[cfg(feature = "mdns")]
pub(super) mod nearby;
pub(super) mod own_validator;
pub(super) mod peer_writer;
pub(super) mod piece_verifier;
pub(super) mod republisher;
pub(super) mod signer;
pub(super) mod store_health;
pub(super) mod store_writer;
pub(super) mod verifier;

mod gather;
mod split_on_full;
