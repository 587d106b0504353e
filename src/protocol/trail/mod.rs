//! The life of transactions on this node, for whoever asks why one is not where it should be.
//!
//! Written down is what nothing else knows: when a transaction came and from whom, who was offered
//! it, asked for it and confirmed it, and why it was refused. What log, outbox and the table of
//! fetches know is read there when somebody asks (`explain`). Nothing in the protocol looks at a
//! trail: without them a node would say and do the same.
//!
//! Two rings, so that what is accepted never pushes out what was refused:
//!
//! | ring | its trails | begun by | found by |
//! |---|---|---|---|
//! | `kept` | what stands, or stood, in the log | acceptance | the log's number: what happens often hashes nothing |
//! | `refused` | what was refused here, not kept, refused by peers, given up, published anew | the first such word | the id |
//!
//! One id may have a trail in both. Bound: the bytes of the share, divided below; the oldest goes.
//!
//! Tested by: `protocol::tests::trail`, `sim::tests::trail`.

mod kept;
mod parties;
mod refused;
mod ring;

use crate::error::StoreErrorKind;
use crate::protocol::restored::GivenUp;
use crate::protocol::rng::Rng;
use crate::types::explanation::what;
use crate::types::{
    Header, MonoTime, PeerId, Refusal, Topic, TransactionId, TransportKind, WallTime,
};

use kept::{KEPT_BYTES, Kept};
use parties::{NAME_BYTES, Parties};
use refused::{REFUSED_BYTES, Refused};
use ring::{Packed, Steps, Trail};

/// Sixteenths of the share: for trails and for steps of what was accepted, and of what was refused.
/// One more is for topics, and one for names.
const OF_KEPT: (usize, usize) = (5, 6);
const OF_REFUSED: (usize, usize) = (2, 1);
/// Maximum number of names, however large the share is.
const MAX_NAMES: usize = 1024;
/// Bytes that a topic takes beside its text, and those of a successor.
const TOPIC_BYTES: usize = 16;
const SUCCESSOR_BYTES: usize = 48;

/// Reasons that steps give, by number: of refusals, of failures of the store, of giving up.
const REASONS: [&str; 22] = [
    "wrong_hash",
    "wrong_signature",
    "too_large",
    "skewed",
    "expired",
    "over_share",
    "over_rate",
    "unwanted",
    "rejected",
    "ignored",
    "full",
    "corrupt",
    "locked",
    "version",
    "io",
    "closed",
    GivenUp::NoTaker.reason(),
    GivenUp::Expired.reason(),
    GivenUp::TooLarge.reason(),
    GivenUp::Rejected.reason(),
    GivenUp::Refused.reason(),
    GivenUp::Otherwise.reason(),
];

/// Kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum What {
    Stored,
    NotStored,
    Refused,
    Pushed,
    Announced,
    Wanted,
    Served,
    Confirmed,
    RefusedBy,
    Retried,
    DeadLettered,
    Redelivered,
    Deleted,
    Renewed,
}

impl What {
    fn is_offer(self) -> bool {
        matches!(self, Self::Pushed | Self::Announced)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => what::STORED,
            Self::NotStored => what::NOT_STORED,
            Self::Refused => what::REFUSED,
            Self::Pushed => what::PUSHED,
            Self::Announced => what::ANNOUNCED,
            Self::Wanted => what::WANTED,
            Self::Served => what::SERVED,
            Self::Confirmed => what::CONFIRMED,
            Self::RefusedBy => what::REFUSED_BY,
            Self::Retried => what::RETRIED,
            Self::DeadLettered => what::DEAD_LETTERED,
            Self::Redelivered => what::REDELIVERED,
            Self::Deleted => what::DELETED,
            Self::Renewed => what::RENEWED,
        }
    }
}

/// What is remembered of an accepted transaction beside its steps.
#[derive(Debug)]
pub(super) struct Acceptance {
    /// Number in the log.
    seq: u64,
    pub(super) keep_until: WallTime,
    /// Number of the peer that it came from, with the transport.
    party: u16,
    /// Hops from its origin, as far as a byte tells; 0 where this node published it.
    pub(super) hop: u8,
}

/// What is remembered of a refused transaction beside its steps, as far as its header was seen.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) origin: Option<PeerId>,
    pub(super) topic: Option<Topic>,
    pub(super) size: Option<u64>,
    /// Id under which it was published anew.
    pub(super) successor: Option<Box<TransactionId>>,
}

impl Facts {
    /// Returns the bytes taken beside the trail.
    fn bytes(&self) -> usize {
        let topic = self.topic.as_ref().map_or(0, |topic| topic.as_str().len() + TOPIC_BYTES);
        topic + self.successor.as_ref().map_or(0, |_| SUCCESSOR_BYTES)
    }
}

/// Peer, and the transport that its link had.
type Party = (PeerId, TransportKind);

/// Step as it is told.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) at: MonoTime,
    pub(super) what: &'static str,
    pub(super) party: Option<Party>,
    pub(super) reason: Option<String>,
}

/// What is remembered of transactions.
#[derive(Debug)]
pub(super) struct Trails {
    kept: Kept,
    kept_steps: Steps,
    refused: Refused,
    refused_steps: Steps,
    parties: Parties,
    /// Bytes of topics and successors in `refused`, and the most of them.
    fact_bytes: usize,
    max_fact_bytes: usize,
}

impl Trails {
    /// Trails in at most `share` bytes.
    pub(super) fn new(rng: &mut Rng, share: u64) -> Self {
        let part = usize::try_from(share).unwrap_or(usize::MAX) / 16;
        let steps = |parts: usize| Steps::new(parts * part / size_of::<Packed>());
        Self {
            kept: Kept::new(OF_KEPT.0 * part / KEPT_BYTES),
            kept_steps: steps(OF_KEPT.1),
            refused: Refused::new(rng, OF_REFUSED.0 * part / REFUSED_BYTES),
            refused_steps: steps(OF_REFUSED.1),
            parties: Parties::new((part / NAME_BYTES).min(MAX_NAMES)),
            fact_bytes: 0,
            max_fact_bytes: part,
        }
    }

    /// A slot has a new owner, or its link another transport.
    pub(super) fn seat(&mut self, slot: u8, peer: PeerId, kind: TransportKind) {
        self.parties.seat(slot, peer, kind);
    }

    /// A transaction is in the log as number `seq`: published here at hop 0, else from the peer at a slot.
    pub(super) fn accept(
        &mut self,
        (seq, id): (u64, TransactionId),
        (ingress, hop): (u8, u16),
        keep_until: WallTime,
        now: MonoTime,
    ) {
        let party = self.parties.enter(Some(ingress));
        let hop = u8::try_from(hop).unwrap_or(u8::MAX);
        let trail = Trail::new(id, now, Acceptance { seq, keep_until, party, hop });
        if let Some(gone) = self.kept.begin(trail) {
            self.parties.leave(gone.facts.party);
        }
    }

    /// Notes a step of what has this number in the log; none where that is not remembered any more.
    pub(super) fn note(&mut self, seq: u64, what: What, slot: Option<u8>, now: MonoTime) {
        self.add_kept(seq, what, (slot, 0), now);
    }

    /// An own transaction was offered once more; `attempts` rounds had no taker.
    pub(super) fn note_retry(&mut self, seq: u64, attempts: u32, now: MonoTime) {
        let detail = u8::try_from(attempts).unwrap_or(u8::MAX);
        self.add_kept(seq, What::Retried, (None, detail), now);
    }

    fn add_kept(&mut self, seq: u64, what: What, with: (Option<u8>, u8), now: MonoTime) {
        if let Some(trail) = self.kept.get_mut(seq) {
            self.kept_steps.add(trail, what, with, now, &mut self.parties);
        }
    }

    /// Returns the number in the log that a transaction has or had.
    pub(super) fn seq_of(&self, id: &TransactionId) -> Option<u64> {
        self.kept.of(id).next().map(|trail| trail.facts.seq)
    }

    /// A transaction was refused here, of the peer at a slot.
    pub(super) fn refuse(
        &mut self,
        id: &TransactionId,
        slot: Option<u8>,
        reason: Refusal,
        now: MonoTime,
    ) {
        self.add_refused(id, What::Refused, (slot, number_of(reason.as_str())), now);
    }

    /// Notes what the header of a refused transaction says.
    pub(super) fn describe(&mut self, id: &TransactionId, header: &Header) {
        let Some(trail) = self.refused.get_mut(id) else { return };
        let before = trail.facts.bytes();
        trail.facts.topic.get_or_insert_with(|| header.topic.clone());
        trail.facts.origin = Some(header.origin);
        trail.facts.size = Some(header.payload_len);
        self.fact_bytes += trail.facts.bytes() - before;
        while self.fact_bytes > self.max_fact_bytes && self.forget_refused() {}
    }

    /// A transaction could not be stored.
    pub(super) fn note_failed(&mut self, id: &TransactionId, kind: StoreErrorKind, now: MonoTime) {
        self.add_refused(id, What::NotStored, (None, number_of(kind.as_str())), now);
    }

    /// A peer refused an own transaction.
    pub(super) fn note_refused_by(
        &mut self,
        id: &TransactionId,
        slot: Option<u8>,
        reason: Refusal,
        now: MonoTime,
    ) {
        self.add_refused(id, What::RefusedBy, (slot, number_of(reason.as_str())), now);
    }

    /// An own transaction was given up.
    pub(super) fn note_buried(&mut self, id: &TransactionId, why: GivenUp, now: MonoTime) {
        self.add_refused(id, What::DeadLettered, (None, number_of(why.reason())), now);
    }

    /// The host did something about a dead letter.
    pub(super) fn note_dead(&mut self, id: &TransactionId, what: What, now: MonoTime) {
        self.add_refused(id, what, (None, 0), now);
    }

    /// An own transaction was published anew.
    pub(super) fn note_renewed(&mut self, id: &TransactionId, by: TransactionId, now: MonoTime) {
        self.add_refused(id, What::Renewed, (None, 0), now);
        let Some(trail) = self.refused.get_mut(id) else { return };
        let before = trail.facts.bytes();
        trail.facts.successor = Some(Box::new(by));
        self.fact_bytes += trail.facts.bytes() - before;
        while self.fact_bytes > self.max_fact_bytes && self.forget_refused() {}
    }

    fn add_refused(
        &mut self,
        id: &TransactionId,
        what: What,
        with: (Option<u8>, u8),
        now: MonoTime,
    ) {
        if self.refused.get(id).is_none() {
            while self.refused.is_full() && self.forget_refused() {}
            self.refused.begin(Trail::new(*id, now, Facts::default()));
        }
        if let Some(trail) = self.refused.get_mut(id) {
            self.refused_steps.add(trail, what, with, now, &mut self.parties);
        }
    }

    /// Forgets the oldest trail of what was refused; `false` when there is none.
    fn forget_refused(&mut self) -> bool {
        let Some(oldest) = self.refused.forget_oldest() else { return false };
        self.fact_bytes = self.fact_bytes.saturating_sub(oldest.facts.bytes());
        true
    }

    /// Returns when a transaction was accepted, from whom, and what else is known of that.
    pub(super) fn acceptance(
        &self,
        id: &TransactionId,
    ) -> Option<(MonoTime, Option<Party>, &Acceptance)> {
        let trail = self.kept.of(id).next()?;
        Some((trail.began, self.parties.name(trail.facts.party), &trail.facts))
    }

    /// Returns what is known of a transaction that was refused.
    pub(super) fn facts(&self, id: &TransactionId) -> Option<&Facts> {
        self.refused.get(id).map(|trail| &trail.facts)
    }

    /// Returns the steps of a transaction that are left, each ring's in their order, and the number
    /// of those that are not.
    pub(super) fn steps(&self, id: &TransactionId) -> (Vec<Told>, u32) {
        let (mut told, mut left_out) = (Vec::new(), 0);
        for trail in self.kept.of(id) {
            let (steps, lost) = self.kept_steps.of(trail);
            told.extend(steps.iter().map(|step| self.tell(step, trail.began, None)));
            left_out += lost;
        }
        if let Some(trail) = self.refused.get(id) {
            let (steps, lost) = self.refused_steps.of(trail);
            let successor = trail.facts.successor.as_deref();
            told.extend(steps.iter().map(|step| self.tell(step, trail.began, successor)));
            left_out += lost;
        }
        (told, left_out)
    }

    fn tell(&self, step: &Packed, began: MonoTime, successor: Option<&TransactionId>) -> Told {
        let reason = match step.what {
            What::NotStored | What::Refused | What::RefusedBy | What::DeadLettered => {
                REASONS.get(usize::from(step.detail)).map(|reason| (*reason).to_owned())
            }
            What::Retried if step.detail > 0 => {
                Some(format!("{} rounds without a taker", step.detail))
            }
            What::Renewed => successor.map(TransactionId::to_string),
            _ => None,
        };
        let after = std::time::Duration::from_millis(u64::from(step.after));
        let party = self.parties.name(step.party);
        Told { at: began + after, what: step.what.as_str(), party, reason }
    }

    /// Bytes taken by all of this.
    pub(super) fn bytes(&self) -> u64 {
        let trails = self.kept.bytes() + self.refused.bytes();
        let steps = self.kept_steps.bytes() + self.refused_steps.bytes();
        (trails + steps + self.fact_bytes + self.parties.bytes()) as u64
    }
}

/// Returns the number of a reason.
fn number_of(reason: &str) -> u8 {
    let at = REASONS.iter().position(|known| *known == reason);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number() {
        use GivenUp::{Expired, NoTaker, Otherwise, Refused, Rejected, TooLarge};
        use StoreErrorKind::{Closed, Corrupt, Full, Io, Locked, Version};

        let refusals = [
            Refusal::WrongHash,
            Refusal::WrongSignature,
            Refusal::TooLarge,
            Refusal::Skewed,
            Refusal::Expired,
            Refusal::OverShare,
            Refusal::OverRate,
            Refusal::Unwanted,
            Refusal::Rejected,
            Refusal::Ignored,
        ];
        for refusal in refusals {
            assert_ne!(number_of(refusal.as_str()), u8::MAX, "{refusal:?}");
            let written = serde_json::to_value(refusal).unwrap();
            assert_eq!(written, refusal.as_str());
        }
        for kind in [Full, Corrupt, Locked, Version, Io, Closed] {
            assert_ne!(number_of(kind.as_str()), u8::MAX, "{kind:?}");
        }
        for why in [NoTaker, Expired, TooLarge, Rejected, Refused, Otherwise] {
            assert_ne!(number_of(why.reason()), u8::MAX, "{why:?}");
        }
    }
}
