//! Hexadecimal, written in lower case.

/// Writes `bytes` as lower-case hex digits.
pub(crate) fn write(bytes: &[u8], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // 64 digits cover the longest id; longer input goes out in several pieces.
    let mut buf = [0u8; 64];
    for part in bytes.chunks(32) {
        for (i, b) in part.iter().enumerate() {
            buf[2 * i] = DIGITS[usize::from(b >> 4)];
            buf[2 * i + 1] = DIGITS[usize::from(b & 15)];
        }
        let text = std::str::from_utf8(&buf[..2 * part.len()]).map_err(|_| std::fmt::Error)?;
        f.write_str(text)?;
    }
    Ok(())
}

/// Parses exactly 64 hex digits, upper or lower case.
pub(crate) fn parse32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0u8; 32];
    for (i, pair) in digits.chunks_exact(2).enumerate() {
        out[i] = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

/// Reads two lower-case digits for each byte of `out`; `None` where `digits` are others.
#[cfg(any(test, feature = "node"))]
pub(super) fn read_lower(digits: &[u8], out: &mut [u8]) -> Option<()> {
    let pairs = digits.as_chunks::<2>().0.iter();
    for (byte, pair) in out.iter_mut().zip(pairs) {
        if pair.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(())
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
