//! Paths and queries: percent-decoding, and parameters by name.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// Decodes a part of a path.
///
/// # Errors
/// 400 for an escape that is none, and for bytes that are no UTF-8.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    let escapes = text.match_indices('%').map(|(at, _)| text.as_bytes().get(at + 1..at + 3));
    for escape in escapes {
        if !escape.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Problem::invalid("A % is not followed by two hexadecimal digits"));
        }
    }
    let utf8 = percent_decode_str(text).decode_utf8();
    utf8.map_err(|_| Problem::invalid("A percent-encoded text is not UTF-8"))
}

/// Parameters of a query, decoded as forms are: a plus is a space.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(query: Option<&str>) -> Result<Self, Problem> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| decode(&text.replace('+', " ")).map(Cow::into_owned);
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// Value of a parameter; an empty one is none.
    ///
    /// # Errors
    /// 400 where it stands there twice.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() {
            return Err(Problem::invalid(format!("The parameter {name} stands there twice")));
        }
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The first name with an empty value.
    #[cfg(feature = "admin")]
    pub(crate) fn empty(&self) -> Option<&str> {
        self.0.iter().find(|(_, value)| value.is_empty()).map(|(name, _)| name.as_str())
    }

    /// The first name that is not among `known`.
    pub(crate) fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| !known.contains(name))
    }

    /// Value of a parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i32>, Problem> {
        let number = self.text(name)?.map(str::parse).transpose();
        number.map_err(|_| {
            let detail = format!("The parameter {name} is no whole number of 32 bits");
            Problem::invalid(detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_bad_ones_refused() {
        assert_eq!(decode("a%2Fb%c3%A4+").unwrap(), "a/b\u{e4}+");
        for bad in ["%", "%2", "a%zz", "%%", "%ff", "%c3%28", "%+1", "%\u{e4}"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_stands_once_and_an_empty_one_is_none() {
        let query = Query::of(Some("a=1&&b=&c=x+y%2B&d&a%62=7&n=-3&big=2147483648&e=1=2")).unwrap();
        assert_eq!(query.text("a").unwrap(), Some("1"));
        assert_eq!(query.text("c").unwrap(), Some("x y+"));
        assert_eq!(query.text("ab").unwrap(), Some("7"));
        assert_eq!(query.text("e").unwrap(), Some("1=2"));
        for none in ["b", "d", "A", "z"] {
            assert_eq!(query.text(none).unwrap(), None, "{none}");
        }
        #[cfg(feature = "admin")]
        assert_eq!(query.empty(), Some("b"));
        assert_eq!(query.number("n").unwrap(), Some(-3));
        assert_eq!(query.number("b").unwrap(), None);
        for bad in ["c", "big"] {
            assert!(query.number(bad).unwrap_err().detail.contains(bad));
        }
        let twice = Query::of(Some("a=1&a=1")).unwrap();
        assert!(twice.text("a").is_err() && twice.text("b").is_ok());
        assert!(Query::of(Some("x=%ff")).is_err());
        assert!(Query::of(None).unwrap().text("a").unwrap().is_none());
    }
}
