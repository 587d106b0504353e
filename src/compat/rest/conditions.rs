//! Conditional and range requests (RFC 9110, sections 13 and 14) for content that never changes.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::problem::Problem;
use crate::types::WallTime;

/// First second that no date in a header can name: that of the year 10000.
const END_OF_DATES_S: u64 = 253_402_300_800;

/// What conditions compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// Entity tag without its quotes.
    tag: String,
    /// Date to the second; `None` for one that no header can say.
    date: Option<SystemTime>,
}

/// Part of the content that is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Bytes(Range<usize>),
}

/// Verdict of the conditions of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Send(Part),
    NotModified,
}

impl Validators {
    pub(super) fn new(tag: String, created: WallTime) -> Self {
        let seconds = created.as_millis() / 1000;
        let date = (seconds < END_OF_DATES_S)
            .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        Self { tag, date }
    }

    pub(super) fn etag(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("\"{}\"", self.tag)).ok()
    }

    pub(super) fn last_modified(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(httpdate::fmt_http_date(self.date?)).ok()
    }

    /// Verdict on a request for content of this length.
    ///
    /// # Errors
    /// 412 where a condition fails, 416 for a range beyond the end.
    pub(super) fn judge(
        &self,
        method: &Method,
        headers: &HeaderMap,
        len: usize,
    ) -> Result<Verdict, Problem> {
        let failed = |name: HeaderName| {
            let detail = format!("The condition {name} does not hold");
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail))
        };
        if headers.contains_key(IF_MATCH) {
            // A strong comparison: no weak tag equals anything.
            if !self.is_among(headers, IF_MATCH, false) {
                return failed(IF_MATCH);
            }
        } else if let Some(date) = date(headers, IF_UNMODIFIED_SINCE)
            && self.date.is_some_and(|modified| modified > date)
        {
            return failed(IF_UNMODIFIED_SINCE);
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if self.is_among(headers, IF_NONE_MATCH, true) {
                return Ok(Verdict::NotModified);
            }
        } else if let Some(date) = date(headers, IF_MODIFIED_SINCE)
            && self.date.is_some_and(|modified| modified <= date)
        {
            return Ok(Verdict::NotModified);
        }
        // Ranges are defined for this method alone.
        let part = if method == Method::GET && self.is_range_wanted(headers) {
            part(headers, len)?
        } else {
            Part::Whole
        };
        Ok(Verdict::Send(part))
    }

    fn is_among(&self, headers: &HeaderMap, name: HeaderName, is_weak: bool) -> bool {
        headers.get_all(name).iter().any(|value| match value.to_str() {
            Ok(text) if text.trim() == "*" => true,
            Ok(text) => Tags(text).any(|(weak, tag)| tag == self.tag && (is_weak || !weak)),
            Err(_) => false,
        })
    }

    fn is_range_wanted(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(IF_RANGE).iter();
        let Some(value) = values.next() else { return true };
        let Some(text) = value.to_str().ok().filter(|_| values.next().is_none()) else {
            return false;
        };
        if let Some(tag) = text.trim().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            return tag == self.tag;
        }
        let date = httpdate::parse_http_date(text.trim()).ok();
        date.is_some() && date == self.date
    }
}

/// Date of a header that stands there once and is one.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

/// Entity tags of a list, each with whether it is weak; ends at what is none.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = (bool, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([' ', '\t', ',']);
        let (weak, text) = match text.strip_prefix("W/") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (tag, rest) = text.strip_prefix('"')?.split_once('"')?;
        self.0 = rest;
        Some((weak, tag))
    }
}

/// Part that `Range` asks for. Several ranges are answered as a whole, as is what is no range of bytes.
fn part(headers: &HeaderMap, len: usize) -> Result<Part, Problem> {
    let mut values = headers.get_all(RANGE).iter();
    let value = values.next().filter(|_| values.next().is_none());
    let Some(ranges) = value.and_then(|value| ranges(value.to_str().ok()?)) else {
        return Ok(Part::Whole);
    };
    let mut satisfiable = ranges.iter().filter_map(|range| range.within(len));
    match (satisfiable.next(), satisfiable.next()) {
        (None, _) => Err(Problem::range(len as u64)),
        // The end of nothing is all of it, and no range can say so.
        (Some(range), None) if !range.is_empty() => Ok(Part::Bytes(range)),
        _ => Ok(Part::Whole),
    }
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    From(u64, Option<u64>),
    Last(u64),
}

impl Asked {
    /// The bytes of content of a length that are meant; `None` for none.
    fn within(self, len: usize) -> Option<Range<usize>> {
        match self {
            Self::From(first, last) => {
                let first = usize::try_from(first).ok().filter(|first| *first < len)?;
                let last = last.map_or(len - 1, |last| usize::try_from(last).unwrap_or(usize::MAX));
                Some(first..last.min(len - 1) + 1)
            }
            Self::Last(0) => None,
            Self::Last(count) => {
                Some(len.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX))..len)
            }
        }
    }
}

/// Ranges of bytes of a header; `None` where it is no list of them.
fn ranges(text: &str) -> Option<Vec<Asked>> {
    let (unit, list) = text.trim().split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-')?;
        ranges.push(match (first.trim(), last.trim()) {
            ("", count) => Asked::Last(number(count)?),
            (first, "") => Asked::From(number(first)?, None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                Asked::From(first, Some(last))
            }
        });
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// A number of any length; what is beyond all content stands for itself.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds after midnight of 2001-09-09 at 01:46:40 and a bit.
    const CREATED: WallTime = WallTime::from_millis(1_000_000_000_999);
    const DATE: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

    fn judge(method: &Method, pairs: &[(HeaderName, &str)], len: usize) -> Result<Verdict, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().unwrap());
        }
        let validators = Validators::new("ab".to_owned(), CREATED);
        validators.judge(method, &headers, len).map_err(|problem| problem.status.as_u16())
    }

    fn get(pairs: &[(HeaderName, &str)]) -> Result<Verdict, u16> {
        judge(&Method::GET, pairs, 10)
    }

    const WHOLE: Result<Verdict, u16> = Ok(Verdict::Send(Part::Whole));

    #[test]
    fn validators_are_said_as_headers() {
        let validators = Validators::new("ab".to_owned(), CREATED);
        assert_eq!(validators.etag().unwrap(), "\"ab\"");
        assert_eq!(validators.last_modified().unwrap(), DATE);
        let never = Validators::new("ab".to_owned(), WallTime::from_millis(u64::MAX));
        assert_eq!(never.last_modified(), None);
        let last =
            Validators::new("ab".to_owned(), WallTime::from_millis(END_OF_DATES_S * 1000 - 1));
        assert_eq!(last.last_modified().unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn conditions_hold_or_not() {
        let unmodified = Ok(Verdict::NotModified);
        for (name, value, verdict) in [
            (IF_NONE_MATCH, "\"ab\"", &unmodified),
            (IF_NONE_MATCH, "W/\"ab\"", &unmodified),
            (IF_NONE_MATCH, "*", &unmodified),
            (IF_NONE_MATCH, "\"x,y\", \"ab\"", &unmodified),
            (IF_NONE_MATCH, "\"x\"", &WHOLE),
            (IF_NONE_MATCH, "ab", &WHOLE),
            (IF_NONE_MATCH, "\"ab", &WHOLE),
            (IF_NONE_MATCH, "\"AB\"", &WHOLE),
            (IF_MATCH, "\"ab\"", &WHOLE),
            (IF_MATCH, "*", &WHOLE),
            (IF_MATCH, "\"x\",\"ab\"", &WHOLE),
            (IF_MATCH, "W/\"ab\"", &Err(412)),
            (IF_MATCH, "\"x\"", &Err(412)),
            (IF_MATCH, "", &Err(412)),
            (IF_MODIFIED_SINCE, DATE, &unmodified),
            (IF_MODIFIED_SINCE, "Sunday, 09-Sep-01 01:46:40 GMT", &unmodified),
            (IF_MODIFIED_SINCE, "Sun Sep  9 01:46:40 2001", &unmodified),
            (IF_MODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:39 GMT", &WHOLE),
            (IF_MODIFIED_SINCE, "yesterday", &WHOLE),
            (IF_UNMODIFIED_SINCE, DATE, &WHOLE),
            (IF_UNMODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:39 GMT", &Err(412)),
            (IF_UNMODIFIED_SINCE, "1", &WHOLE),
        ] {
            assert_eq!(get(&[(name.clone(), value)]), *verdict, "{name}: {value}");
        }
        assert_eq!(get(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, DATE)]), WHOLE);
        assert_eq!(get(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"ab\"")]), unmodified);
        assert_eq!(get(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"ab\"")]), Err(412));
        assert_eq!(get(&[(IF_NONE_MATCH, "\"ab\""), (RANGE, "bytes=99-")]), unmodified);
    }

    #[test]
    fn one_range_is_cut_and_several_are_the_whole() {
        let bytes = |range| Ok(Verdict::Send(Part::Bytes(range)));
        for (value, verdict) in [
            ("bytes=0-0", bytes(0..1)),
            ("bytes=2-5", bytes(2..6)),
            ("Bytes = 2 - 5 ", bytes(2..6)),
            ("bytes=9-", bytes(9..10)),
            ("bytes=-3", bytes(7..10)),
            ("bytes=-99", bytes(0..10)),
            ("bytes=5-99999999999999999999999", bytes(5..10)),
            ("bytes=10-20,1-2", bytes(1..3)),
            ("bytes=,1-2,", bytes(1..3)),
            ("bytes=10-", Err(416)),
            ("bytes=-0", Err(416)),
            ("bytes=99999999999999999999999-", Err(416)),
            ("bytes=10-11,12-13", Err(416)),
            ("bytes=0-1,3-4", WHOLE),
            ("bytes=3-2", WHOLE),
            ("bytes=0-1,x", WHOLE),
            ("bytes=", WHOLE),
            ("bytes=-", WHOLE),
            ("bytes=+1-2", WHOLE),
            ("bytes=0x1-2", WHOLE),
            ("bytes 0-1", WHOLE),
            ("items=0-1", WHOLE),
            ("bytes=--1", WHOLE),
        ] {
            assert_eq!(get(&[(RANGE, value)]), verdict, "{value}");
        }
        assert_eq!(get(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=0-1")]), WHOLE);
        assert_eq!(judge(&Method::HEAD, &[(RANGE, "bytes=99-")], 10), WHOLE);
        let empty = |value| judge(&Method::GET, &[(RANGE, value)], 0);
        assert_eq!(empty("bytes=0-"), Err(416));
        assert_eq!(empty("bytes=-1"), WHOLE);
    }

    #[test]
    fn a_range_may_depend_on_the_content() {
        let cut = Ok(Verdict::Send(Part::Bytes(1..2)));
        for (value, verdict) in [
            ("\"ab\"", &cut),
            (DATE, &cut),
            ("W/\"ab\"", &WHOLE),
            ("\"x\"", &WHOLE),
            ("*", &WHOLE),
            ("ab", &WHOLE),
            ("Sun, 09 Sep 2001 01:46:41 GMT", &WHOLE),
        ] {
            assert_eq!(get(&[(RANGE, "bytes=1-1"), (IF_RANGE, value)]), *verdict, "{value}");
        }
    }
}
