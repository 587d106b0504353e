//! The little of XML that UPnP needs: text of elements by their name.
//!
//! Contract: one pass over the text, no recursion, nothing is built; a text that is no XML has no elements. The
//! name's prefix does not count. Of elements of one name inside each other the outer one ends where the inner
//! one does: UPnP nests none that are looked for here.

/// Inner text of each element of this name, in order; empty where the element is one tag.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, inside) = rest.split_once('<')?;
            let (tag, after) = inside.split_once('>')?;
            rest = after;
            if let Some(tag) = tag.strip_suffix('/')
                && is_named(tag, name)
            {
                return Some("");
            }
            if !tag.starts_with('/') && is_named(tag, name) {
                let end = end_of(after, name)?;
                rest = &after[end..];
                return Some(&after[..end]);
            }
        }
    })
}

/// Text of the first element of this name, without what surrounds it.
pub(super) fn value(text: &str, name: &str) -> Option<String> {
    let found = elements(text, name).next()?.trim();
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    Some(found.replace("&apos;", "'").replace("&amp;", "&"))
}

/// Reports whether a tag, without its angle brackets, is of this name.
fn is_named(tag: &str, name: &str) -> bool {
    let full = tag.split_ascii_whitespace().next().unwrap_or_default();
    full.rsplit(':').next() == Some(name)
}

/// Place at which the element ends that is open where the text begins.
fn end_of(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let open = at + text[at..].find("</")?;
        let (tag, _) = text[open + 2..].split_once('>')?;
        if is_named(tag, name) {
            return Some(open);
        }
        at = open + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_name_whatever_their_prefix() {
        let text = r#"<?xml version="1.0"?><r xmlns:s="x"><a>1</a><s:a k="v"> 2 </s:a><a/><ab>3</ab>
            <b><a>4</a></b></r>"#;
        assert_eq!(elements(text, "a").collect::<Vec<_>>(), ["1", " 2 ", "", "4"]);
        let empty = r#"<u:aResponse xmlns:u="urn:x/"/><b k="1" /></c/>"#;
        assert_eq!(["aResponse", "b"].map(|name| elements(empty, name).next()), [Some(""); 2]);
        assert_eq!(elements(empty, "c").next(), None);
        assert_eq!(value(text, "b").as_deref(), Some("<a>4</a>"));
        assert_eq!(value(text, "c"), None);
        assert_eq!(value("<u> /c?a=1&amp;lt;b </u>", "u").as_deref(), Some("/c?a=1&lt;b"));
    }

    #[test]
    fn what_is_no_xml_has_no_elements_and_costs_one_pass() {
        for text in ["", "<", "<a", "<a>", "<a>1", "<a>1</", "<a>1</b>", "</a>", "><", "<\u{e9}>"] {
            assert_eq!(elements(text, "a").next(), None, "{text}");
        }
        let (deep, flat) = ("<a>".repeat(100_000), "<b>1</b>".repeat(100_000));
        assert_eq!(elements(&deep, "a").next(), None);
        assert_eq!(elements(&flat, "b").count(), 100_000);
    }
}
