//! Which peers there are and which of them to be linked with.
//!
//! `address_book` knows who is where, `peer_exchange` learns of more, `overlay` dials.

mod address_book;
mod overlay;
mod peer_exchange;

pub(super) use overlay::Dial;

pub(super) use address_book::Book;
