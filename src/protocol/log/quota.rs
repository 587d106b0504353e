//! What each origin takes up of the store, and how much it publishes, so that none can fill it.
//!
//! Bytes are counted by payload length and a fixed allowance for the header, which is all that a
//! record and a restart know; the store's own figure differs from it by the length of topics. A
//! store that drops whole generations keeps what expired a little longer than it is counted here.
//!
//! Bounds: 65,535 origins; those beyond are not held to a share (nor could they be: keys are free).
//! Where there is neither share nor rate nothing is counted at all.
//!
//! A rate is held by what is retained at one time: an origin that has as many transactions there as
//! its rate makes in the retention is over it. So a burst is taken whole, a node that joins late is
//! not held up by what was published in an hour, and a restart knows all that counts.
//!
//! Tested by: the tests below, `sim::tests::full_stores`.

use crate::protocol::interner::{self, Interner};
use crate::types::PeerId;

/// Number of nobody in particular.
pub(super) const NOBODY: u16 = interner::NONE;
/// Number of bytes counted for a header: its 105 bytes and a topic.
const HEADER: u64 = 128;

/// Part of the store that an origin uses.
#[derive(Debug, Default)]
struct Used {
    /// Bytes of what is retained.
    bytes: u64,
    /// Number of transactions that are retained.
    entries: u64,
    /// Records of what was turned away.
    turned_away: u32,
}

/// Bounds of what one origin may have.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::protocol) struct Bounds {
    /// Bytes of one origin.
    pub(in crate::protocol) bytes: Option<u64>,
    /// Transactions of one origin.
    pub(in crate::protocol) entries: Option<u64>,
}

/// Excess of an origin over what it may have: both figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Excess {
    Bytes { used: u64, limit: u64 },
    Entries { used: u64, limit: u64 },
}

/// Part that each origin has of the store.
#[derive(Debug)]
pub(in crate::protocol) struct Quota {
    bounds: Bounds,
    origins: Interner<PeerId, Used>,
}

impl Quota {
    pub(in crate::protocol) fn new(bounds: Bounds) -> Self {
        Self { bounds, origins: Interner::default() }
    }

    /// Tells why one transaction of `size` bytes would be too much, with so many transactions and
    /// bytes of the origin under way. Somebody who has nothing may have one of any size.
    pub(in crate::protocol) fn excess(
        &self,
        origin: &PeerId,
        (count, bytes): (usize, u64),
        size: u64,
    ) -> Option<Excess> {
        let (has, bytes_of) = self.origins.get(origin).map_or((0, 0), |o| (o.entries, o.bytes));
        let used = has.saturating_add(count as u64);
        if let Some(limit) = self.bounds.entries.filter(|limit| used >= *limit) {
            return Some(Excess::Entries { used, limit });
        }
        let used = bytes_of.saturating_add(bytes);
        let too_much = |limit: &u64| used > 0 && used.saturating_add(cost(size)) > *limit;
        let limit = self.bounds.bytes.filter(too_much)?;
        Some(Excess::Bytes { used, limit })
    }

    /// The number of an origin, for one record.
    pub(super) fn enter(&mut self, origin: &PeerId) -> u16 {
        if self.bounds.bytes.or(self.bounds.entries).is_none() {
            return NOBODY;
        }
        self.origins.enter(*origin)
    }

    /// Takes one record off an origin, by its number.
    pub(super) fn leave(&mut self, number: u16) {
        self.origins.leave(number);
    }

    pub(super) fn charge(&mut self, number: u16, size: u32) {
        if let Some(used) = self.origins.get_mut(number) {
            used.bytes += cost(u64::from(size));
            used.entries += 1;
        }
    }

    pub(super) fn refund(&mut self, number: u16, size: u32) {
        if let Some(used) = self.origins.get_mut(number) {
            used.bytes = used.bytes.saturating_sub(cost(u64::from(size)));
            used.entries = used.entries.saturating_sub(1);
        }
    }

    /// Counts one more record of what was turned away, or one less.
    pub(in crate::protocol) fn turn_away(&mut self, number: u16, more: bool) {
        if let Some(used) = self.origins.get_mut(number) {
            let less = used.turned_away.saturating_sub(1);
            used.turned_away = if more { used.turned_away + 1 } else { less };
        }
    }

    /// Numbers of origins that were turned away and have a quarter of what they may have free again:
    /// less would not be worth asking around for.
    pub(super) fn with_room(&self) -> Vec<u16> {
        let below = |used: u64, limit: Option<u64>| limit.is_none_or(|l| used <= l - l.div_ceil(4));
        let room = |used: &Used| {
            used.turned_away > 0
                && below(used.bytes, self.bounds.bytes)
                && below(used.entries, self.bounds.entries)
        };
        self.origins.iter().filter(|(_, used)| room(used)).map(|(number, _)| number).collect()
    }

    /// Reports whether one more transaction of `size` bytes has room.
    pub(super) fn has_room_for(&self, number: u16, size: u32) -> bool {
        let origin = self.origins.key(number);
        origin.is_some_and(|origin| self.excess(&origin, (0, 0), u64::from(size)).is_none())
    }
}

/// Returns what counts for a payload of `size` bytes.
pub(in crate::protocol) fn cost(size: u64) -> u64 {
    size.saturating_add(HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(n: u32) -> PeerId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(id)
    }

    fn share(limit: u64) -> Quota {
        Quota::new(Bounds { bytes: Some(limit), entries: None })
    }

    fn bytes(used: u64, limit: u64) -> Excess {
        Excess::Bytes { used, limit }
    }

    #[test]
    fn an_origin_has_its_share_and_gets_it_back() {
        let mut shares = share(1000);
        assert_eq!(shares.excess(&origin(1), (0, 0), 5000), None, "one of any size");
        let number = shares.enter(&origin(1));
        shares.charge(number, 700);
        assert_eq!(shares.excess(&origin(1), (0, 0), 44), None);
        assert_eq!(shares.excess(&origin(1), (0, 0), 45), Some(bytes(828, 1000)));
        let under_way = shares.excess(&origin(1), (1, 10), 44);
        assert_eq!(under_way, Some(bytes(838, 1000)), "what is under way counts");
        assert_eq!(shares.excess(&origin(2), (0, 0), 900), None, "others have theirs");
        assert_eq!(shares.enter(&origin(1)), number);
        shares.turn_away(number, true);
        assert!(shares.with_room().is_empty());
        shares.refund(number, 700);
        shares.charge(number, 400);
        assert_eq!(shares.with_room(), [number]);
        assert!(shares.has_room_for(number, 344) && !shares.has_room_for(number, 345));
        shares.refund(number, 400);
        assert!(shares.has_room_for(number, 5000), "one of any size");
        shares.leave(number);
        shares.leave(number);
        assert_eq!(shares.enter(&origin(3)), number, "a number without a record is given anew");
        assert!(shares.with_room().is_empty() && shares.origins.len() == 1);
    }

    #[test]
    fn an_origin_has_as_many_as_its_rate_makes() {
        let mut shares = Quota::new(Bounds { bytes: None, entries: Some(3) });
        let number = shares.enter(&origin(1));
        for used in 0..3 {
            assert_eq!(shares.excess(&origin(1), (0, 0), 1 << 40), None, "{used}");
            shares.charge(number, 1);
        }
        let over = Some(Excess::Entries { used: 3, limit: 3 });
        assert_eq!(shares.excess(&origin(1), (0, 0), 0), over);
        assert_eq!(shares.excess(&origin(2), (3, 0), 0), over, "what is under way counts");
        assert_eq!(shares.excess(&origin(2), (0, 0), 0), None, "others have theirs");
        shares.turn_away(number, true);
        assert!(shares.with_room().is_empty());
        shares.refund(number, 1);
        assert_eq!(shares.with_room(), [number]);
        // One at a time has room when there is none.
        let mut one = Quota::new(Bounds { bytes: None, entries: Some(1) });
        let number = one.enter(&origin(1));
        one.turn_away(number, true);
        one.charge(number, 1);
        assert!(one.with_room().is_empty());
        one.refund(number, 1);
        assert_eq!(one.with_room(), [number]);
    }

    #[test]
    fn origins_beyond_the_table_have_no_share() {
        let mut shares = share(10);
        for n in 0..u32::from(u16::MAX) {
            assert_ne!(shares.enter(&origin(n)), NOBODY);
        }
        assert_eq!(shares.enter(&origin(70_000)), NOBODY);
        shares.charge(NOBODY, 9);
        shares.leave(NOBODY);
        assert_eq!(shares.excess(&origin(70_000), (0, 0), 9), None);
        let mut none = Quota::new(Bounds::default());
        assert_eq!(none.enter(&origin(1)), NOBODY, "no bound, no table");
    }
}
