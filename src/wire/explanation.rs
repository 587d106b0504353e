//! Explanations as linked peers tell them: a body of an answer, and no part of any frame.
//!
//! The types are those generated from the proto. What is read is bounded by its whole length before
//! anything is allocated for it, and then piece by piece.

use bytes::Bytes;
use prost::Message as _;

use super::WireError;
use super::generated::gossip as pb;
use crate::types::{
    Explanation, MAX_EXPLANATION_BYTES, MAX_EXPLANATION_STEPS, MAX_REASON_BYTES, MAX_WORD_BYTES,
    PeerId, Step, TransactionId, TransportKind, WallTime,
};

/// Encodes what is told of one transaction, without topic and summary: who asked knows the former
/// or may not, and writes the latter. The earliest steps are left out where there are too many.
pub(crate) fn encode_explanation(told: &Explanation) -> Bytes {
    let skipped = told.steps.len().saturating_sub(MAX_EXPLANATION_STEPS);
    let lost = u32::try_from(skipped).unwrap_or(u32::MAX);
    let message = pb::Explanation {
        state: told.state.clone(),
        origin: told.origin.map(|peer| Bytes::copy_from_slice(peer.as_bytes())).unwrap_or_default(),
        size: told.size,
        own: told.own,
        links: told.links,
        left_out: told.left_out.saturating_add(lost),
        steps: told.steps.iter().skip(skipped).map(encode_step).collect(),
    };
    message.encode_to_vec().into()
}

fn encode_step(step: &Step) -> pb::ExplanationStep {
    let mut reason = step.reason.clone().unwrap_or_default();
    let end = (0..=MAX_REASON_BYTES.min(reason.len())).rfind(|at| reason.is_char_boundary(*at));
    reason.truncate(end.unwrap_or(0));
    pb::ExplanationStep {
        at_ms: step.at.as_millis(),
        what: step.what.clone(),
        peer: step.peer.map(|peer| Bytes::copy_from_slice(peer.as_bytes())).unwrap_or_default(),
        transport: step.transport.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        hop: step.hop.map(u32::from),
        reason,
    }
}

/// Decodes what a peer tells of the transaction that it was asked about.
pub(crate) fn decode_explanation(id: TransactionId, body: &[u8]) -> Result<Explanation, WireError> {
    WireError::bound("explanation (bytes)", body.len(), MAX_EXPLANATION_BYTES)?;
    let read = pb::Explanation::decode(body).map_err(|_| WireError::Protobuf("explanation"))?;
    WireError::bound("steps", read.steps.len(), MAX_EXPLANATION_STEPS)?;
    let mut told = Explanation::new(id);
    told.state = word("state", read.state)?;
    told.origin = peer("origin", &read.origin)?;
    (told.size, told.own, told.links) = (read.size, read.own, read.links);
    told.left_out = read.left_out;
    told.steps = read.steps.into_iter().map(decode_step).collect::<Result<_, _>>()?;
    Ok(told)
}

fn decode_step(read: pb::ExplanationStep) -> Result<Step, WireError> {
    WireError::bound("reason (bytes)", read.reason.len(), MAX_REASON_BYTES)?;
    let what = word("what", read.what)?;
    let mut step = Step::new(WallTime::from_millis(read.at_ms), &what);
    step.peer = peer("peer", &read.peer)?;
    step.transport = TransportKind::named(&read.transport);
    step.hop = read.hop.map(|hop| u16::try_from(hop).unwrap_or(u16::MAX));
    step.reason = Some(read.reason).filter(|reason| !reason.is_empty());
    Ok(step)
}

/// One of the words that the contract lists, or a later version's.
fn word(what: &'static str, text: String) -> Result<String, WireError> {
    WireError::bound(what, text.len(), MAX_WORD_BYTES)?;
    Ok(text)
}

fn peer(what: &'static str, bytes: &[u8]) -> Result<Option<PeerId>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong = || WireError::Length { what, actual: bytes.len(), expected: "32, or none" };
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| wrong())?;
    Ok(Some(PeerId::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steps: usize) -> Explanation {
        let mut told = Explanation::new(TransactionId::from_bytes([7; 32]));
        told.state = "refused".to_owned();
        (told.origin, told.size) = (Some(PeerId::from_bytes([1; 32])), Some(0));
        (told.own, told.links, told.left_out) = (true, 3, 2);
        let step = |n: usize| {
            let at = WallTime::from_millis(n as u64);
            let peer = PeerId::from_bytes([2; 32]);
            let mut step = Step::new(at, "refused").with(peer, TransportKind::GrpcUnary);
            (step.hop, step.reason) = (Some(0), Some("rejected".to_owned()));
            step
        };
        told.steps = (0..steps).map(step).collect();
        told
    }

    #[test]
    fn what_is_told_arrives() {
        let sent = told(3);
        assert_eq!(decode_explanation(sent.id, &encode_explanation(&sent)), Ok(sent));
        let nothing = Explanation::new(TransactionId::from_bytes([8; 32]));
        assert_eq!(decode_explanation(nothing.id, &encode_explanation(&nothing)), Ok(nothing));
    }

    #[test]
    fn the_latest_steps_are_told_within_the_limits() {
        let mut sent = told(MAX_EXPLANATION_STEPS + 10);
        for step in &mut sent.steps {
            step.reason = Some("ä".repeat(MAX_REASON_BYTES));
        }
        let body = encode_explanation(&sent);
        assert!(body.len() <= MAX_EXPLANATION_BYTES, "{}", body.len());
        let got = decode_explanation(sent.id, &body).unwrap();
        assert_eq!((got.steps.len(), got.left_out), (MAX_EXPLANATION_STEPS, 12));
        assert_eq!(got.steps[0].at, WallTime::from_millis(10));
        assert_eq!(got.steps[0].reason.as_ref().map(String::len), Some(MAX_REASON_BYTES));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let id = TransactionId::from_bytes([7; 32]);
        let refused = |spoil: fn(&mut pb::Explanation)| {
            let mut message = pb::Explanation::decode(encode_explanation(&told(1))).unwrap();
            spoil(&mut message);
            decode_explanation(id, &message.encode_to_vec()).unwrap_err()
        };
        let spoils: [fn(&mut pb::Explanation); 6] = [
            |m| m.origin = Bytes::from_static(&[1; 31]),
            |m| m.steps[0].peer = Bytes::from_static(&[1; 33]),
            |m| m.state = "x".repeat(MAX_WORD_BYTES + 1),
            |m| m.steps[0].what = "x".repeat(MAX_WORD_BYTES + 1),
            |m| m.steps[0].reason = "x".repeat(MAX_REASON_BYTES + 1),
            |m| m.steps = vec![m.steps[0].clone(); MAX_EXPLANATION_STEPS + 1],
        ];
        for spoil in spoils {
            refused(spoil);
        }
        let long = vec![0; MAX_EXPLANATION_BYTES + 1];
        assert!(matches!(decode_explanation(id, &long), Err(WireError::Limit { .. })));
        assert!(decode_explanation(id, b"\xff").is_err());
    }
}
