//! Small messages that leave together.
//!
//! They leave when 64 have gathered, when 5 ms have passed, or at once when the link has been quiet;
//! a want and the refusal of one never wait.
//!
//! Tested by: `sim::tests::spread`, `protocol::tests::pair`.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::timers::Timer;
use crate::types::{
    Announcement, LinkId, MAX_IDS_PER_MESSAGE, Message, MonoTime, Refusal, TransactionId,
};

/// Maximum delay of small messages that wait for others.
const DRAIN_AFTER: Duration = Duration::from_millis(5);
/// Number of small entries that leave at once, without waiting for others.
const DRAIN_ENTRIES: usize = 64;

/// Constructor of a message of ids.
type Wrap = fn(Vec<TransactionId>) -> Message;

/// Small messages that are waiting for company.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Batch {
    pub(in crate::protocol) announce: Vec<Announcement>,
    pub(in crate::protocol) want: Vec<TransactionId>,
    pub(in crate::protocol) missing: Vec<TransactionId>,
    pub(in crate::protocol) duplicate: Vec<TransactionId>,
    pub(in crate::protocol) early: Vec<TransactionId>,
    pub(in crate::protocol) stored: Vec<TransactionId>,
    pub(in crate::protocol) busy: Vec<TransactionId>,
    pub(in crate::protocol) refused: Vec<(TransactionId, Refusal)>,
    drained: Option<MonoTime>,
}

impl Batch {
    /// Reports whether somebody waits for the batch to leave.
    fn is_urgent(&self) -> bool {
        !(self.want.is_empty() && self.missing.is_empty() && self.busy.is_empty())
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.announce.len()
            + self.missing.len()
            + self.duplicate.len()
            + self.early.len()
            + self.stored.len()
            + self.busy.len()
            + self.refused.len()
    }
}

impl Protocol {
    /// Ends a turn: what gathered leaves, or a timer sees to it.
    pub(in crate::protocol) fn drain_dirty(&mut self) {
        while let Some(link) = self.links.dirty.pop_first() {
            let now = self.env.now;
            let Some(up) = self.links.up(link) else { continue };
            let batch = &up.batch;
            let due = batch.drained.map_or(now, |at| at + DRAIN_AFTER);
            if batch.is_urgent() || batch.len() >= DRAIN_ENTRIES || due <= now {
                self.drain(link);
            } else if batch.len() > 0 {
                self.env.timers.set_earlier(Timer::Drain(link), due);
            }
        }
    }

    /// Sends everything that gathered on a link.
    pub(in crate::protocol) fn drain(&mut self, link: LinkId) {
        let now = self.env.now;
        let Some(up) = self.links.up(link) else { return };
        let batch = std::mem::take(&mut up.batch);
        if batch.len() == 0 && batch.want.is_empty() {
            up.batch.drained = batch.drained;
            return;
        }
        up.batch.drained = Some(now);
        self.env.timers.cancel(Timer::Drain(link));
        for part in batch.want.chunks(MAX_IDS_PER_MESSAGE) {
            self.send(link, Message::Want(part.to_vec()));
        }
        for part in batch.announce.chunks(MAX_IDS_PER_MESSAGE) {
            self.env.counters.announcements_sent += part.len() as u64;
            self.send(link, Message::Announce(part.to_vec()));
        }
        let lists: [(_, Wrap); 5] = [
            (batch.stored, Message::Stored),
            (batch.duplicate, Message::Duplicate),
            (batch.early, Message::Early),
            (batch.missing, Message::Missing),
            (batch.busy, Message::Busy),
        ];
        for (ids, wrap) in lists {
            for part in ids.chunks(MAX_IDS_PER_MESSAGE) {
                self.send(link, wrap(part.to_vec()));
            }
        }
        let clock = self.env.clock.told();
        for part in batch.refused.chunks(MAX_IDS_PER_MESSAGE) {
            self.send(link, Message::Refused { list: part.to_vec(), clock });
        }
    }

    /// Tells who published a transaction why we do not take it.
    pub(in crate::protocol) fn tell_refused(
        &mut self,
        link: LinkId,
        id: TransactionId,
        reason: Refusal,
    ) {
        if let Some(batch) = self.links.batch(link) {
            batch.refused.push((id, reason));
        }
    }

    /// Tells an origin that we have stored its transaction.
    pub(in crate::protocol) fn confirm_to(&mut self, link: LinkId, id: TransactionId) {
        if let Some(batch) = self.links.batch(link) {
            batch.stored.push(id);
        }
    }

    pub(in crate::protocol) fn announce(&mut self, link: LinkId, announcement: Announcement) {
        if let Some(batch) = self.links.batch(link) {
            batch.announce.push(announcement);
        }
    }
}
