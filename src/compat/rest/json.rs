//! JSON bodies: one object whose fields are texts, numbers and lists of texts.
//!
//! Contract: what is not asked for is skipped without being kept, as is whatever lies deeper; so the
//! memory that a body takes is bounded by its bytes. A field that stands there twice is refused.

use std::borrow::Cow;
use std::fmt;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;

/// Maximum number of elements of a list that are kept.
const MAX_ELEMENTS: usize = 1024;

const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// The fields of an object that were asked for.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(&'static str, Value<'a>)>);

/// Value of a field, as far as any field may have it.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(i64),
    Texts(Vec<String>),
    /// Another value, by the name of its type.
    Other(&'static str),
}

impl<'a> Fields<'a> {
    /// Reads the fields with these names.
    ///
    /// # Errors
    /// 400 with the place in the body where it is no JSON, or no object.
    pub(super) fn of(body: &'a [u8], names: &'static [&'static str]) -> Result<Self, Problem> {
        let mut deserializer = serde_json::Deserializer::from_str(text_of(body)?);
        let fields = deserializer.deserialize_map(Object(names));
        let fields = fields.and_then(|fields| deserializer.end().map(|()| fields));
        fields.map_err(|error| refused(&error))
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).filter(|value| **value != Value::Null)
    }

    /// A text that has to be there.
    pub(super) fn text(&self, name: &str) -> Result<&str, Problem> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a text", other)),
        }
    }

    /// The first text that is there under one of these names and is not empty.
    pub(super) fn first_text(&self, names: &[&str]) -> Result<Option<&str>, Problem> {
        let mut found = None;
        for name in names {
            let text = self.optional_text(name)?;
            found = found.or(text.filter(|text| !text.is_empty()));
        }
        Ok(found)
    }

    pub(super) fn optional_number(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(*number)),
            Some(other) => Err(wrong(name, "a whole number of 64 bits", other)),
        }
    }

    /// A number of 32 bits that has to be there.
    pub(super) fn number(&self, name: &str) -> Result<i32, Problem> {
        let number = self.optional_number(name)?.ok_or_else(|| missing(name))?;
        i32::try_from(number).map_err(|_| {
            Problem::invalid(format!("The field {name} is no whole number of 32 bits"))
        })
    }

    /// Seconds or milliseconds, or a date as a text, which says nothing here and counts as none.
    pub(super) fn time(&self, name: &str) -> Result<i64, Problem> {
        match self.get(name) {
            None | Some(Value::Text(_)) => Ok(0),
            Some(Value::Number(number)) => Ok(*number),
            Some(other) => Err(wrong(name, "a whole number of 64 bits or a date", other)),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Texts(texts)) => Ok(texts.clone()),
            Some(other) => Err(wrong(name, "a list of texts", other)),
        }
    }

    /// Bytes that stand there in Base64, of either alphabet, padded or not.
    pub(super) fn bytes(&self, name: &str) -> Result<Bytes, Problem> {
        let text = self.text(name)?;
        let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let bytes = engine.decode(text);
        bytes
            .map(Bytes::from)
            .map_err(|_| Problem::invalid(format!("The field {name} is not in Base64")))
    }

    /// Reports whether a field is a text or a number.
    pub(super) fn is_scalar(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Text(_) | Value::Number(_)))
    }
}

fn missing(name: &str) -> Problem {
    Problem::invalid(format!("The field {name} is missing"))
}

fn wrong(name: &str, expected: &str, value: &Value<'_>) -> Problem {
    let got = match value {
        Value::Null => "null",
        Value::Text(_) => "a text",
        Value::Number(_) => "a number",
        Value::Texts(_) => "a list",
        Value::Other(name) => name,
    };
    Problem::invalid(format!("The field {name} has to be {expected}, not {got}"))
}

/// The text that a body has to be.
pub(super) fn text_of(body: &[u8]) -> Result<&str, Problem> {
    if body.is_empty() {
        return Err(Problem::invalid("The body is empty: it has to be JSON"));
    }
    std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::invalid(format!("The body is no JSON: it is not UTF-8 (byte {at})"))
    })
}

/// Says what is wrong with a body and where, without what was sent.
pub(super) fn refused(error: &serde_json::Error) -> Problem {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data if error.to_string().starts_with(TWICE) => TWICE,
        serde_json::error::Category::Data => "it is no object",
        _ => "a character does not belong there",
    };
    let (line, column) = (error.line(), error.column());
    Problem::invalid(format!("The body is no such JSON: {what} (line {line}, column {column})"))
}

/// Words that an error begins with which is about a field.
const TWICE: &str = "a field stands there twice";

/// Reads an object.
struct Object(&'static [&'static str]);

impl<'de> Visitor<'de> for Object {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields: Vec<(&'static str, Value<'de>)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let Some(name) = self.0.iter().find(|known| ***known == *name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if fields.iter().any(|(known, _)| known == name) {
                return Err(de::Error::custom(TWICE));
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

/// Name of a field, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(AnyValue)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(de::Error::custom("no name")),
        }
    }
}

impl<'de> de::Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Reads whatever value there is.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other("true or false"))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(number.try_into().map_or(Value::Other("a larger number"), Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other("a fraction or a larger number"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(Element(element)) = list.next_element()? {
            match (&mut texts, element) {
                (Some(texts), Some(text)) if texts.len() < MAX_ELEMENTS => texts.push(text),
                _ => texts = None,
            }
        }
        let other = "a list of other things or of too many";
        Ok(texts.map_or(Value::Other(other), Value::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
}

/// Element of a list: its text, if it is one.
struct Element(Option<String>);

impl<'de> de::Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyElement).map(Self)
    }
}

struct AnyElement;

impl<'de> Visitor<'de> for AnyElement {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<String>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["text", "number", "list", "bytes"];

    fn refusal(body: impl AsRef<[u8]>) -> String {
        let problem = Fields::of(body.as_ref(), NAMES).unwrap_err();
        assert_eq!(problem.status, 400);
        problem.detail.into_owned()
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_place() {
        assert!(refusal("").contains("empty"));
        for (body, words) in [
            ("{\n\"text\": x}", "line 2, column 9"),
            ("{\"text\": 1", "ends too early"),
            ("[1]", "no object"),
            ("null", "no object"),
            ("\"text\"", "no object"),
            ("{} x", "does not belong"),
            ("{\"text\":\"\\ud800\"}", "line 1"),
            ("{\"text\":1,\"text\":1}", "twice"),
            ("{\"te\\u0078t\":1,\"text\":1}", "twice"),
            ("{'text':1}", "line 1"),
            ("{\"text\":01}", "line 1"),
            ("{\"text\":NaN}", "line 1"),
            ("{\"text\":1,}", "line 1"),
            ("{\"text\":1e999}", "line 1"),
            ("\u{feff}{}", "line 1"),
        ] {
            let detail = refusal(body);
            assert!(detail.contains(words), "{body}: {detail}");
        }
        assert!(refusal(b"{\"text\":\"\xff\"}").contains("byte 9"));
        assert!(refusal(b"{\"other\":\"\xff\"}").contains("byte 10"));
        refusal(format!("{{\"text\":{}", "[".repeat(1_000_000)));
        refusal(format!("{{\"other\":{}", "{\"a\":".repeat(1_000_000)));
    }

    #[test]
    fn fields_are_named_where_they_are_missing_or_wrong() {
        let body =
            br#"{"text":"a\n","number":-5,"list":["x","y"],"other":{"text":[1]},"bytes":"-_8"}"#;
        let fields = Fields::of(body, NAMES).unwrap();
        assert_eq!(fields.text("text").unwrap(), "a\n");
        assert_eq!(fields.number("number").unwrap(), -5);
        assert_eq!(fields.texts("list").unwrap(), ["x", "y"]);
        assert_eq!(fields.bytes("bytes").unwrap(), [0xfb, 0xff][..]);
        assert!(
            fields.is_scalar("text") && !fields.is_scalar("list") && !fields.is_scalar("other")
        );

        let none = Fields::of(br#"{"text":null}"#, NAMES).unwrap();
        assert!(none.text("text").unwrap_err().detail.contains("text is missing"));
        assert!(none.number("number").unwrap_err().detail.contains("number is missing"));
        assert_eq!(none.optional_text("text").unwrap(), None);
        assert!(none.texts("list").unwrap().is_empty());

        for value in ["true", "1.0", "\"5\"", "18446744073709551615", "{}", "[]", "1e3"] {
            let body = format!("{{\"number\":{value}}}");
            let fields = Fields::of(body.as_bytes(), NAMES).unwrap();
            let detail = fields.number("number").unwrap_err().detail;
            assert!(detail.contains("The field number"), "{value}: {detail}");
        }
        for value in ["2147483648", "-2147483649", "9223372036854775807"] {
            let body = format!("{{\"number\":{value}}}");
            let fields = Fields::of(body.as_bytes(), NAMES).unwrap();
            assert!(fields.number("number").is_err() && fields.optional_number("number").is_ok());
        }
        for value in ["1", "false", "[\"a\"]", "{\"text\":\"a\"}"] {
            let body = format!("{{\"text\":{value}}}");
            let fields = Fields::of(body.as_bytes(), NAMES).unwrap();
            assert!(fields.text("text").unwrap_err().detail.contains("a text"), "{value}");
        }
        let many = format!("{{\"list\":[{}\"x\"]}}", "\"x\",".repeat(MAX_ELEMENTS));
        for list in [r#"{"list":"x"}"#, r#"{"list":[1]}"#, r#"{"list":[["x"]]}"#, &many] {
            let fields = Fields::of(list.as_bytes(), NAMES).unwrap();
            assert!(fields.texts("list").unwrap_err().detail.contains("list of texts"));
        }
        for bytes in ["a", "a===", "????", "+-==", "YQ==\\n"] {
            let body = format!("{{\"bytes\":\"{bytes}\"}}");
            let fields = Fields::of(body.as_bytes(), NAMES).unwrap();
            assert!(fields.bytes("bytes").is_err(), "{bytes}");
        }
    }
}
