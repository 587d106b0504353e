//! Figures as people read them, and texts that may come from anywhere.

use std::time::{Duration, UNIX_EPOCH};

/// Digits of an id that are shown on a terminal: enough to tell peers apart, and to name them by.
const SHORT: usize = 12;
/// The last moment that has a date of four digits.
const LAST_MS: u64 = 253_402_300_799_999;

/// The text without what a terminal would obey, and what turns or hides what stands beside it: much of it comes
/// from other peers.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if is_odd(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character commands a terminal, or is not seen where it stands.
pub(crate) fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The beginning of an id.
pub(crate) fn short(id: &str) -> String {
    clean(id).chars().take(SHORT).collect()
}

/// Whether this is an id, of a peer or of a transaction.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A span in the two largest units that say something.
pub(crate) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

pub(crate) fn millis(ms: u64) -> String {
    if ms < 10_000 { micros(ms * 1000) } else { seconds(ms / 1000) }
}

pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..10_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => seconds(us / 1_000_000),
    }
}

/// A difference of two clocks.
pub(crate) fn offset(ms: i64) -> String {
    let sign = if ms < 0 { '−' } else { '+' };
    format!("{sign}{}", if ms == 0 { "0 ms".to_owned() } else { millis(ms.unsigned_abs()) })
}

pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() as usize / 10).min(UNITS.len());
    let figure = bytes as f64 / 1024_f64.powi(i32::try_from(unit).unwrap_or_default());
    format!("{figure:.*} {}", usize::from(figure < 10.0), UNITS[unit - 1])
}

pub(crate) fn rate(per_second: f64) -> String {
    let digits = usize::from(per_second > 0.0 && per_second < 100.0);
    format!("{per_second:.digits$}/s")
}

/// A moment, to the second, in UTC.
pub(crate) fn date(ms: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS));
    humantime::format_rfc3339_seconds(moment).to_string().replace('T', " ").replace('Z', " UTC")
}

/// The time of day, in UTC.
pub(crate) fn time(ms: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS));
    humantime::format_rfc3339_millis(moment).to_string()[11..23].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_000_000].map(seconds);
        let shown =
            ["0 s", "59 s", "1 min", "59 min", "1 h 0 min", "23 h 59 min", "1 d 0 h", "11 d 13 h"];
        assert_eq!(spans, shown);
        let trips = [0, 999, 1000, 9999, 34_567, 1_300_000, 75_000_000].map(micros);
        assert_eq!(trips, ["0 µs", "999 µs", "1.0 ms", "10.0 ms", "34 ms", "1.3 s", "1 min"]);
        let sizes = [0, 1023, 1024, 10_240, 1 << 20, 3 << 29, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 MiB", "1.5 GiB", "16777216 TiB"]
        );
        assert_eq!([0.0, 0.25, 12.34, 123.4].map(rate), ["0/s", "0.2/s", "12.3/s", "123/s"]);
        assert_eq!([0, 3, -2500, 61_000].map(offset), ["+0 ms", "+3.0 ms", "−2.5 s", "+1 min"]);
    }

    #[test]
    fn moments_are_shown_whatever_they_are() {
        assert_eq!(date(1_796_000_000_123), "2026-11-30 00:53:20 UTC");
        assert_eq!(time(1_796_000_000_123), "00:53:20.123");
        assert_eq!(date(u64::MAX), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn texts_cannot_command_the_terminal() {
        assert_eq!(clean("a\x1b]0;b\x07\n\u{9b}"), "a\u{fffd}]0;b\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(clean("a\u{202e}b\u{2066}c\u{feff}ä"), "a\u{fffd}b\u{fffd}c\u{fffd}ä");
        assert_eq!(short(&"5f".repeat(32)), "5f5f5f5f5f5f");
    }
}
