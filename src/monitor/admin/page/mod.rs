//! The page at `/` of the admin listener: one document that asks for nothing else.
//!
//! Its sources are files beside this one, joined when the listener starts. The policy that it is served
//! with names the hash of its style and of its script, so a browser runs these and nothing that a
//! stranger managed to put in between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

const SHELL: &str = include_str!("index.html");
const STYLE: &str = include_str!("page.css");
/// One script, in the order in which its parts use each other.
const SCRIPT: &str = concat!(
    include_str!("base.js"),
    include_str!("peers.js"),
    include_str!("why.js"),
    include_str!("charts.js"),
    include_str!("lists.js"),
    include_str!("page.js"),
);

/// Places of style and script in the shell.
const STYLE_HERE: &str = "/* page.css */";
const SCRIPT_HERE: &str = "/* page.js */";

/// The page as it is served.
#[derive(Debug)]
pub(super) struct Page {
    /// The document.
    pub(super) html: Bytes,
    /// Value of `Content-Security-Policy`.
    pub(super) policy: String,
    /// Value of `ETag`: another one for another document.
    pub(super) etag: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = SHELL.replacen(STYLE_HERE, STYLE, 1).replacen(SCRIPT_HERE, SCRIPT, 1);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let etag = format!("\"{}\"", &blake3::hash(html.as_bytes()).to_hex()[..32]);
        Self { html: html.into(), policy, etag }
    }
}

/// Source of a policy that allows exactly this text.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole_and_asks_for_nothing_else() {
        let page = Page::new();
        let html = std::str::from_utf8(&page.html).unwrap();
        for marker in [STYLE_HERE, SCRIPT_HERE] {
            assert_eq!(SHELL.matches(marker).count(), 1, "{marker}");
            assert!(!html.contains(marker), "{marker}");
        }
        // The policy hashes what stands between the tags.
        let between =
            |from: &str, to: &str| html.split(from).nth(1).unwrap().split(to).next().unwrap();
        assert!(page.policy.contains(&hash(between("<style>", "</style>"))));
        assert!(page.policy.contains(&hash(between("<script type=\"module\">", "</script>"))));
        for elsewhere in ["src=\"", "http://", "https://", "@import", "url("] {
            let known = html.matches("http://www.w3.org/2000/svg").count();
            let allowed = if elsewhere == "http://" { known } else { 0 };
            assert_eq!(html.matches(elsewhere).count(), allowed, "{elsewhere}");
        }
    }

    #[test]
    fn every_kind_of_step_and_state_has_words() {
        let kinds = include_str!("../../../types/explanation.rs");
        let (_, kinds) = kinds.split_once("pub(crate) mod state {").unwrap();
        let names: Vec<_> = kinds.split('"').skip(1).step_by(2).collect();
        assert!(names.len() > 30, "{names:?}");
        let why = include_str!("why.js");
        for name in names {
            assert!(why.contains(&format!(" {name}: ")), "{name}");
        }
    }

    #[test]
    fn what_strangers_wrote_is_text() {
        for writes_html in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".href"]
        {
            assert!(!SCRIPT.contains(writes_html), "{writes_html}");
        }
    }
}
