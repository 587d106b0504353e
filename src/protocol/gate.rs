//! Amounts under way that decide whether more may begin.
//!
//! Tested by: the tests below.

/// Amount of something that is under way.
///
/// It never wraps: a gate that fell below nothing would be closed for ever, and with it what waits
/// for it. Whoever leaves more than entered has a bug, which debug builds say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gate(u64);

impl Gate {
    pub(super) fn enter(&mut self, amount: u64) {
        self.0 = self.0.saturating_add(amount);
    }

    pub(super) fn leave(&mut self, amount: u64) {
        debug_assert!(self.0 >= amount, "{amount} left where {} had entered", self.0);
        self.0 = self.0.saturating_sub(amount);
    }

    pub(super) fn level(self) -> u64 {
        self.0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reports whether this much more fits under a limit. What is alone always does.
    pub(super) fn has_room(self, amount: u64, limit: u64) -> bool {
        self.is_empty() || self.0.saturating_add(amount) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_again_whatever_entered() {
        let mut gate = Gate::default();
        gate.enter(u64::MAX);
        gate.enter(7);
        assert!(!gate.has_room(1, u64::MAX - 1));
        gate.leave(u64::MAX);
        assert!(gate.is_empty() && gate.has_room(u64::MAX, 1));
    }

    /// A bug, which debug builds say and release builds survive.
    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "left where"))]
    fn a_gate_that_is_left_too_often_stays_open() {
        let mut gate = Gate::default();
        gate.enter(1);
        gate.leave(2);
        assert!(gate.has_room(1, 1) && gate.is_empty());
    }
}
