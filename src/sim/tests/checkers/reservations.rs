//! Who asks whom for the pieces of a payload: three nodes with a link between any two, and what they say to
//! each other.

use super::*;
use crate::types::{ALL_PIECES, PieceRange, Reservation};

/// The end at `of` of its link to `to`.
fn end(of: u8, to: u8) -> LinkId {
    let pipe = u64::from(of.min(to) * 3 + of.max(to));
    crate::sim::link_id::link_of(pipe, usize::from(of > to))
}

enum Step {
    Sends(u8, u8, Message),
    Gets(u8, u8, Message),
    Loses(u8, u8),
}

fn reserve(from: u32, count: u32) -> Message {
    let (id, ranges) = (transaction().id(), vec![PieceRange { first: from, count }]);
    let (head, force, narrow) = (false, false, false);
    Message::Reserve(Reservation { id, place: 256, head, force, narrow, ranges })
}

fn back() -> Message {
    let (id, ranges) = (transaction().id(), Vec::new());
    let (head, force, narrow) = (false, false, true);
    Message::Reserve(Reservation { id, place: 256, head, force, narrow, ranges })
}

/// Reports whether a checker finds something in what follows the hellos.
fn bites_among(checker: impl Checker, steps: &[Step]) -> bool {
    let mut all = Vec::new();
    for (of, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let (link, hello) = (end(of, to), Message::Hello(Box::new(hello(of))));
        all.push((of, Ok(opened(link, Identity::from_seed([to; 32]).peer_id()))));
        all.push((of, Err(Output::Send { link, message: hello })));
    }
    all.extend(steps.iter().map(|step| match step {
        Step::Sends(of, to, message) => {
            (*of, Err(Output::Send { link: end(*of, *to), message: message.clone() }))
        }
        Step::Gets(of, to, message) => {
            let (link, messages) = (end(*of, *to), vec![message.clone()]);
            (*of, Ok(Input::Received { link, messages, bytes: 1 }))
        }
        Step::Loses(of, to) => (*of, Ok(Input::LinkClosed { link: end(*of, *to) })),
    }));
    let calm = Seen::Calm { nodes: &[] };
    let seen = all.iter().map(|(node, what)| match what {
        Ok(input) => Seen::Input { node: usize::from(*node), input },
        Err(output) => Seen::Output { node: usize::from(*node), output },
    });
    bites(checker, &seen.chain([calm]).collect::<Vec<_>>())
}

#[test]
fn one_parent() {
    let check = |steps: &[Step]| bites_among(OneParent::default(), steps);
    let first = || Step::Sends(0, 1, reserve(0, 8));
    let other = |from| Step::Sends(0, 2, reserve(from, 2));
    assert!(check(&[first(), other(7)]));
    assert!(!check(&[first(), other(8)]), "different pieces");
    assert!(!check(&[first(), Step::Sends(0, 1, reserve(0, 7)), other(7)]), "asked for less");
    assert!(!check(&[first(), Step::Sends(0, 1, back()), other(0)]), "taken back");
    assert!(!check(&[first(), Step::Loses(0, 1), other(0)]), "its link is gone");
    assert!(!check(&[first(), Step::Sends(1, 2, reserve(0, 8))]), "of another node");
    let busy = || Message::Busy(vec![transaction().id()]);
    assert!(check(&[first(), Step::Sends(1, 0, busy()), other(0)]), "it cannot know yet");
    assert!(!check(&[first(), Step::Gets(0, 1, busy()), other(0)]), "refused");
    let leave = || Step::Sends(0, 1, Message::Switch { step: 1 });
    assert!(!check(&[first(), leave(), other(0)]), "what takes it back may wait");
    let again = Step::Sends(0, 1, Message::Receiving { id: transaction().id(), place: 0 });
    assert!(check(&[first(), leave(), again, other(0)]), "the link stays as it is");
    let mut here = Message::Piece(Piece {
        id: transaction().id(),
        index: 7,
        bytes: Bytes::new(),
        proof: Bytes::new(),
    });
    assert!(!check(&[first(), Step::Gets(0, 1, here.clone()), Step::Sends(0, 2, reserve(7, 1))]));
    if let Message::Piece(piece) = &mut here {
        piece.index = 6;
    }
    assert!(check(&[first(), Step::Gets(0, 1, here), Step::Sends(0, 2, reserve(7, 1))]));
}

#[test]
fn reservation_acyclic() {
    let check = |steps: Vec<Step>| bites_among(ReservationAcyclic::default(), &steps);
    let all = || reserve(0, ALL_PIECES);
    let asks = |of, to| [Step::Sends(of, to, all()), Step::Gets(to, of, all())];
    let two = || asks(0, 1).into_iter().chain(asks(1, 2));
    assert!(!check(two().collect()), "a line");
    assert!(check(two().chain(asks(2, 0)).collect()), "a ring of three");
    assert!(check(asks(0, 1).into_iter().chain(asks(1, 0)).collect()), "a ring of two");
    // On its way it is not waited for.
    let sent = || two().chain([Step::Sends(2, 0, all())]);
    assert!(!check(sent().collect()));
    let missing = || Message::Missing(vec![transaction().id()]);
    let refused = [Step::Gets(0, 2, all()), Step::Sends(0, 2, missing())];
    assert!(!check(sent().chain(refused).collect()), "refused when it came");
    assert!(!check(two().chain([Step::Sends(1, 0, missing())]).chain(asks(2, 0)).collect()));
    assert!(!check(two().chain([Step::Sends(0, 1, back())]).chain(asks(2, 0)).collect()));
    // Dead at one end is dead.
    for (of, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        assert!(!check(two().chain([Step::Loses(of, to)]).chain(asks(2, 0)).collect()));
    }
    // Without a place, only who has all of it serves.
    let mut blind = all();
    if let Message::Reserve(reservation) = &mut blind {
        reservation.place = 0;
    }
    let blind = [Step::Sends(2, 0, blind.clone()), Step::Gets(0, 2, blind)];
    assert!(!check(two().chain(blind).collect()));
}
