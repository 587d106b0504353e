//! The checker of outbox replays: a peer that was told to wait for the end of one hears of it,
//! once.

use std::collections::BTreeSet;

use crate::protocol::{Input, Output};
use crate::types::{LinkId, Message};

use super::checker::{Checker, Seen};
use super::per_link::PerLink;

/// The step after which a connection is a link of its own after all.
const AFRESH: u32 = 4;

/// One end of a link.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
struct ReplayState {
    /// The hello said that something is owed.
    owes: bool,
    /// True: the peer has said hello as well.
    up: bool,
    /// Both hellos say that the connection takes over, so it is no link of its own.
    is_heir: bool,
    ended: bool,
}

/// `Flushed` is said once on each link whose hello said that something is owed, and on no other.
#[derive(Debug, Default)]
pub struct ReplayEndsOnce(PerLink<ReplayState>);

impl Checker for ReplayEndsOnce {
    fn name(&self) -> &'static str {
        "one_flush"
    }

    fn look(&mut self, seen: &Seen<'_>, found: &mut Vec<String>) -> u64 {
        self.0.follow(seen);
        match seen {
            Seen::Input { node, input: Input::Received { link, messages, .. } } => {
                let Some(state) = self.0.get_mut(*node, *link) else { return 0 };
                for message in messages {
                    match message {
                        Message::Hello(hello) => {
                            (state.up, state.is_heir) = (true, hello.takes_over);
                        }
                        Message::Switch { step: AFRESH } => state.is_heir = false,
                        _ => {}
                    }
                }
            }
            Seen::Output { node, output: Output::Send { link, message } } => {
                return self.check(*node, *link, message, found);
            }
            Seen::Calm { nodes } => {
                let running: BTreeSet<_> = nodes.iter().map(|n| n.node).collect();
                let ours = self.0.iter().filter(|((node, _), _)| running.contains(node));
                for ((node, link), state) in ours {
                    if state.owes && state.up && !state.is_heir && !state.ended {
                        found.push(format!("node {node}: a replay without end on {link:?}"));
                    }
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}

impl ReplayEndsOnce {
    fn check(
        &mut self,
        node: usize,
        link: LinkId,
        message: &Message,
        found: &mut Vec<String>,
    ) -> u64 {
        let Some(state) = self.0.get_mut(node, link) else { return 0 };
        match message {
            Message::Hello(hello) => {
                state.owes = hello.owes;
                state.is_heir &= hello.takes_over;
            }
            Message::Switch { step: AFRESH } => state.is_heir = false,
            Message::Flushed => {
                if !state.owes || std::mem::replace(&mut state.ended, true) {
                    found.push(format!(
                        "node {node}: the end of a replay on {link:?}, which nobody waits for"
                    ));
                }
                return 1;
            }
            _ => {}
        }
        0
    }
}
