//! Checks of headers and pieces of large payloads off the driver, and proofs of pieces.
//!
//! Waiting checks are taken in batches, on blocking threads where that would take long, at most one
//! batch per core. Results may come back in another order.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::node::messages::Completion;
use crate::protocol::{Input, Ticket};
use crate::types::{Head, Piece, Proofs, Transaction, verify_piece};

use super::known_signatures::KnownSignatures;
use super::verifier::catch_panic;

/// Maximum number of checks taken in one go.
const MAX_BATCH: usize = 16;
/// Maximum number of bytes that are checked on the spot: one piece, about 30 us.
const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Maximum number of checks that are done on the spot.
const MAX_INLINE_CHECKS: usize = 2;

/// A check of a header or a piece, or proofs to be made.
#[derive(Debug)]
pub(in crate::node) enum PieceCheck {
    Head { ticket: Ticket, head: Head },
    Piece { ticket: Ticket, root: [u8; 32], len: u64, piece: Piece },
    Prove { ticket: Ticket, transaction: Transaction },
}

impl PieceCheck {
    fn bytes(&self) -> usize {
        match self {
            Self::Head { .. } => 0,
            Self::Piece { piece, .. } => piece.bytes.len(),
            Self::Prove { transaction, .. } => transaction.payload().len(),
        }
    }

    pub(in crate::node) fn ticket(&self) -> Ticket {
        match self {
            Self::Head { ticket, .. } | Self::Piece { ticket, .. } | Self::Prove { ticket, .. } => {
                *ticket
            }
        }
    }

    fn run(self, known: &KnownSignatures, require_signature: bool) -> Input {
        let ticket = self.ticket();
        catch_panic(|| self.answer(known, require_signature)).unwrap_or(Input::Unchecked { ticket })
    }

    fn answer(self, known: &KnownSignatures, require_signature: bool) -> Input {
        match self {
            Self::Head { ticket, head } => {
                let result = head.verify_with(require_signature, |signed| {
                    known.check(head.header().origin, signed)
                });
                Input::HeadVerified { ticket, result }
            }
            Self::Piece { ticket, root, len, piece } => {
                let valid = verify_piece(&root, len, piece.index, &piece.bytes, &piece.proof);
                Input::PieceVerified { ticket, valid }
            }
            Self::Prove { ticket, transaction } => {
                Input::Proved { ticket, proofs: Proofs::of(transaction.payload()) }
            }
        }
    }
}

/// Does what comes out of `checks` until it is closed.
pub(in crate::node) async fn run(
    mut checks: mpsc::Receiver<PieceCheck>,
    known: Arc<KnownSignatures>,
    require_signature: bool,
    done: mpsc::Sender<Completion>,
) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let batches = stream::poll_fn(move |cx| {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        checks.poll_recv_many(cx, &mut batch, MAX_BATCH).map(|n| (n > 0).then_some(batch))
    });
    batches
        .map(|batch| run_all(batch, Arc::clone(&known), require_signature))
        .buffer_unordered(cores)
        .for_each(|inputs| async {
            let _ = done.send(Completion::Inputs(inputs)).await;
        })
        .await;
}

async fn run_all(
    batch: Vec<PieceCheck>,
    known: Arc<KnownSignatures>,
    require_signature: bool,
) -> Vec<Input> {
    let bytes: usize = batch.iter().map(PieceCheck::bytes).sum();
    let little = bytes <= MAX_INLINE_BYTES && batch.len() <= MAX_INLINE_CHECKS;
    let all = move || batch.into_iter().map(|check| check.run(&known, require_signature)).collect();
    if little {
        return all();
    }
    // Nothing comes back only when the runtime goes down.
    tokio::task::spawn_blocking(all).await.unwrap_or_default()
}
