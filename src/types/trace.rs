//! Trace context, as W3C's `traceparent` has it: what makes spans of several processes one trace.
//!
//! The host of the origin gives it, hosts of other nodes get it out, and no node looks into it. It
//! stands beside what is signed, so it proves nothing: a peer that changes it mislabels a trace.

use std::fmt;

use super::hex;

/// Length of the text: two digits of the version, 32 of the trace, 16 of the span, two of flags.
#[cfg(any(test, feature = "node"))]
const TEXT: usize = 55;
/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;
/// The only version that is known, and the one that is never given out.
const VERSION: u8 = 0;
const NO_VERSION: u8 = 0xff;

/// Trace context: version, id of the trace, id of the span in it, flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext([u8; Self::BYTES]);

impl TraceContext {
    /// Number of bytes on the wire.
    pub const BYTES: usize = 26;

    /// Reads a `traceparent`; `None` for a text that is none.
    #[cfg(any(test, feature = "node"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (fixed, more) = text.as_bytes().split_first_chunk::<TEXT>()?;
        let mut bytes = [0; Self::BYTES];
        hex::read_lower(&fixed[..2], &mut bytes[..1])?;
        hex::read_lower(&fixed[3..35], &mut bytes[1..17])?;
        hex::read_lower(&fixed[36..52], &mut bytes[17..25])?;
        hex::read_lower(&fixed[53..], &mut bytes[25..])?;
        let has_dashes = [2, 35, 52].iter().all(|at| fixed[*at] == b'-');
        // A later version may say more behind another dash.
        let ends = more.is_empty() || (bytes[0] != VERSION && more[0] == b'-');
        Self::checked(bytes).filter(|_| has_dashes && ends)
    }

    /// Reads what a peer sends; `None` for what is none, or is not worth its bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::checked(bytes.try_into().ok()?)?.sampled()
    }

    /// The same, if its trace is recorded: others are not carried.
    pub(crate) fn sampled(self) -> Option<Self> {
        (self.0[25] & SAMPLED != 0).then_some(self)
    }

    /// The bytes on the wire.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn checked(mut bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [version, ids @ .., flags] = &mut bytes;
        let (trace, span) = ids.split_at(16);
        let is_zero = |id: &[u8]| id.iter().all(|byte| *byte == 0);
        if *version == NO_VERSION || is_zero(trace) || is_zero(span) {
            return None;
        }
        if *version != VERSION {
            // Of a later one this much is sure to mean the same.
            (*version, *flags) = (VERSION, *flags & SAMPLED);
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.0[..1], &self.0[1..17], &self.0[17..25], &self.0[25..]];
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                f.write_str("-")?;
            }
            hex::write(part, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases::for_all;

    /// The example of the recommendation.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> TraceContext {
        TraceContext::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn what_is_read_is_printed() {
        assert_eq!(read(EXAMPLE).to_string(), EXAMPLE);
        let bytes = *read(EXAMPLE).as_bytes().first_chunk::<26>().unwrap();
        let at = [0, 1, 16, 17, 24, 25].map(|at: usize| bytes[at]);
        assert_eq!(at, [0, 0x4b, 0x36, 0x00, 0xb7, 1]);
        assert_eq!(TraceContext::from_bytes(&bytes), Some(read(EXAMPLE)));
        // Flags that version 0 may come to have stay.
        let flags = EXAMPLE.replace("-01", "-03");
        assert_eq!(read(&flags).to_string(), flags);
    }

    #[test]
    fn what_is_not_recorded_is_not_carried() {
        for flags in ["-00", "-02", "-fe"] {
            let text = EXAMPLE.replace("-01", flags);
            assert_eq!(read(&text).sampled(), None, "{text}");
        }
        let mut bytes = *read(EXAMPLE).as_bytes().first_chunk::<26>().unwrap();
        bytes[25] = 2;
        assert_eq!(TraceContext::from_bytes(&bytes), None);
    }

    #[test]
    fn a_later_version_is_read_for_what_it_must_mean() {
        for later in ["cc-", "01-", "fe-"] {
            let text = EXAMPLE.replacen("00-", later, 1).replace("-01", "-ff");
            assert_eq!(read(&text).to_string(), EXAMPLE, "{text}");
            assert_eq!(read(&format!("{text}-what-the-future")).to_string(), EXAMPLE);
            assert_eq!(TraceContext::parse(&format!("{text}.")), None);
            let mut bytes = *read(EXAMPLE).as_bytes().first_chunk::<26>().unwrap();
            (bytes[0], bytes[25]) = (1, 0xff);
            assert_eq!(TraceContext::from_bytes(&bytes), Some(read(EXAMPLE)));
        }
    }

    #[test]
    fn other_texts_are_none() {
        let zeros = |n: usize| "0".repeat(n);
        let other = [
            String::new(),
            EXAMPLE.replacen("00-", "ff-", 1),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replace('4', "g"),
            EXAMPLE.replace('-', "_"),
            EXAMPLE.replace("-00f0", "000f0"),
            format!(" {EXAMPLE}"),
            format!("{EXAMPLE} "),
            format!("{EXAMPLE}-"),
            format!("{EXAMPLE}-00"),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &zeros(16)),
            EXAMPLE.replace("4736", "473é"),
            EXAMPLE.replace("00f0", "+0f0"),
        ];
        for text in other {
            assert_eq!(TraceContext::parse(&text), None, "{text:?}");
        }
        for end in 0..EXAMPLE.len() {
            assert_eq!(TraceContext::parse(&EXAMPLE[..end]), None);
        }
    }

    #[test]
    fn other_bytes_are_none() {
        let good = *read(EXAMPLE).as_bytes().first_chunk::<26>().unwrap();
        let with = |range: std::ops::Range<usize>, value: u8| {
            let mut bytes = good;
            bytes[range].fill(value);
            TraceContext::from_bytes(&bytes)
        };
        assert_eq!((with(0..1, 0xff), with(1..17, 0), with(17..25, 0)), (None, None, None));
        assert!(with(1..16, 0).is_some() && with(17..24, 0).is_some());
        for length in [0, 25, 27, 64] {
            assert_eq!(TraceContext::from_bytes(&vec![1; length]), None);
        }
    }

    #[test]
    fn any_context_survives_both_ways() {
        for_all(256, |random| {
            let mut bytes: [u8; 26] = random.bytes();
            (bytes[0], bytes[25]) = (0, bytes[25] | SAMPLED);
            let Some(context) = TraceContext::from_bytes(&bytes) else { return };
            assert_eq!((context.as_bytes(), context.to_string().len()), (&bytes[..], TEXT));
            assert_eq!(read(&context.to_string()), context);
            let _ = TraceContext::parse(&random.text(0..70, &['-', '0', 'f', 'é']));
        });
    }
}
