//! The form of what is written: for people, for other programs, or as the node says it.

use std::io::{self, IsTerminal, Write};

use crate::client::Answer;
use crate::failure::Failure;
use crate::table::Table;
use crate::units::{clean, is_odd};

/// What a colour says. Colour is never alone: the text says it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Doubtful,
    Bad,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Doubtful => "33",
            Self::Bad => "31",
        }
    }
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON, as it came.
    Json,
    /// One line for each thing, `key=value`.
    Lines,
    /// Sentences and tables, so many characters wide.
    Tables { width: usize, colour: bool },
}

impl Form {
    /// Chooses by what stdout is.
    pub(crate) fn of_stdout(json: bool) -> Self {
        if json {
            Self::Json
        } else if io::stdout().is_terminal() {
            let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            Self::Tables { width: width(), colour: !is_set("NO_COLOR") && !is_dumb }
        } else {
            Self::Lines
        }
    }

    /// Writes an answer: as it came, or what `shown` makes of it.
    pub(crate) fn show(
        self,
        answer: &Answer,
        shown: impl FnOnce(Self) -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::Json => write(&format!("{}\n", answer.0.trim_end())),
            form => write(&shown(form)),
        }
    }

    /// A sentence, or the line `key="sentence"`.
    pub(crate) fn sentence(self, key: &str, text: &str, tone: Tone) -> String {
        match self {
            Self::Json | Self::Lines => format!("{}\n", pair(key, text)),
            Self::Tables { .. } => format!("{}\n", self.paint(tone, &clean(text))),
        }
    }

    /// A line that only people need.
    pub(crate) fn remark(self, text: &str) -> String {
        match self {
            Self::Json | Self::Lines => String::new(),
            Self::Tables { .. } => format!("{}\n", self.paint(Tone::Faint, text)),
        }
    }

    pub(crate) fn table(self, table: &Table) -> String {
        let lines = match self {
            Self::Json | Self::Lines => table.lines(),
            Self::Tables { width, .. } => table.rows(width, |tone, row| self.paint(tone, row)),
        };
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// One thing, a line for each of its figures.
    pub(crate) fn card(self, table: &Table) -> String {
        match self {
            Self::Json | Self::Lines => self.table(table),
            Self::Tables { .. } => table.card().into_iter().map(|line| line + "\n").collect(),
        }
    }

    /// The text in this colour, where there is colour.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        match self {
            Self::Tables { colour: true, .. } if tone != Tone::Plain => {
                format!("\x1b[{}m{text}\x1b[0m", tone.code())
            }
            _ => text.to_owned(),
        }
    }
}

/// Writes lines at once.
pub(crate) fn write(lines: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    Ok(stdout.flush()?)
}

/// `key=value`, the value in quotes as in JSON where it is more than a word.
pub(crate) fn pair(key: &str, value: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !is_odd(c) && !"\"'\\=".contains(c);
    if !value.is_empty() && value.chars().all(is_word) {
        format!("{key}={value}")
    } else {
        format!("{key}={}", serde_json::Value::from(clean(value)))
    }
}

/// Characters in a line of the terminal.
fn width() -> usize {
    #[cfg(unix)]
    if let Some((width, _)) = crate::screen::size() {
        return width;
    }
    80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_more_than_a_word_are_quoted() {
        assert_eq!(pair("a", "10.0.0.1:5001"), "a=10.0.0.1:5001");
        assert_eq!(pair("a", ""), r#"a="""#);
        assert_eq!(pair("a", "two words"), r#"a="two words""#);
        assert_eq!(pair("a", "b=c \"d\""), r#"a="b=c \"d\"""#);
        assert_eq!(pair("a", "b\x1bc\nd"), "a=\"b\u{fffd}c\u{fffd}d\"");
        assert_eq!(pair("a", "b\u{202e}c"), "a=\"b\u{fffd}c\"");
    }

    #[test]
    fn colour_is_on_terminals_alone_and_only_where_it_is_wanted() {
        let paint = |form: Form| form.paint(Tone::Bad, "no");
        assert_eq!(paint(Form::Tables { width: 80, colour: true }), "\x1b[31mno\x1b[0m");
        assert_eq!(paint(Form::Tables { width: 80, colour: false }), "no");
        assert_eq!(paint(Form::Lines), "no");
    }
}
