//! Tables: each cell is written as it is for programs, and as people read it.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint};

use crate::form::{Tone, pair};
use crate::units::{self, clean};

/// Spaces between columns.
const GAP: u16 = 2;
/// Shown for what there is none of.
const NONE: &str = "–";

/// A column: the key in lines, and the heading in tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    key: &'static str,
    heading: &'static str,
    is_figure: bool,
}

impl Column {
    pub(crate) const fn text(key: &'static str, heading: &'static str) -> Self {
        Self { key, heading, is_figure: false }
    }

    /// A column that is aligned at its end.
    pub(crate) const fn figure(key: &'static str, heading: &'static str) -> Self {
        Self { key, heading, is_figure: true }
    }
}

/// One value, for programs and for people. Those without one are left out of lines.
#[derive(Debug)]
pub(crate) struct Cell {
    raw: Option<String>,
    shown: String,
}

#[expect(clippy::needless_pass_by_value, reason = "figures and texts alike")]
impl Cell {
    pub(crate) fn new(raw: impl ToString, shown: impl ToString) -> Self {
        Self { raw: Some(raw.to_string()), shown: clean(&shown.to_string()) }
    }

    pub(crate) fn text(text: impl ToString) -> Self {
        let text = text.to_string();
        if text.is_empty() { Self::none() } else { Self::new(&text, &text) }
    }

    pub(crate) fn none() -> Self {
        Self { raw: None, shown: NONE.to_owned() }
    }

    pub(crate) fn id(id: &str) -> Self {
        Self::new(id, units::short(id))
    }

    pub(crate) fn yes(is: bool) -> Self {
        Self::new(is, if is { "yes" } else { "no" })
    }

    /// What there may be none of.
    pub(crate) fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or_else(Self::none, cell)
    }
}

/// Rows of one kind.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<(Tone, Vec<Cell>)>,
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, tone: Tone, cells: impl Into<Vec<Cell>>) {
        self.rows.push((tone, cells.into()));
    }

    /// One line for each row, `key=value`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |cells: &[Cell]| {
            let cells = self.columns.iter().zip(cells);
            let pairs =
                cells.filter_map(|(column, cell)| Some(pair(column.key, cell.raw.as_ref()?)));
            pairs.collect::<Vec<_>>().join(" ")
        };
        self.rows.iter().map(|(_, cells)| line(cells)).collect()
    }

    /// The heading and one line for each row, no wider than this: the last columns give way.
    pub(crate) fn rows(&self, width: usize, paint: impl Fn(Tone, &str) -> String) -> Vec<String> {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(self.columns.iter().map(|column| column.heading));
        for (_, cells) in &self.rows {
            table.add_row(cells.iter().map(|cell| &cell.shown));
        }
        let widths = table.column_max_content_widths();
        // The first column stays whatever happens.
        let mut room = width.max(widths.first().copied().unwrap_or_default().into());
        for ((column, made), wide) in self.columns.iter().zip(table.column_iter_mut()).zip(widths) {
            if column.is_figure {
                made.set_cell_alignment(CellAlignment::Right);
            }
            made.set_padding((0, GAP));
            // The gap behind the last column may lie outside.
            let fits = room >= usize::from(wide);
            room = if fits { room.saturating_sub((wide + GAP).into()) } else { 0 };
            if !fits {
                made.set_constraint(ColumnConstraint::Hidden);
            }
        }
        let tones = self.rows.iter().map(|(tone, _)| *tone);
        let lines = table.lines().zip([Tone::Strong].into_iter().chain(tones));
        lines.map(|(line, tone)| paint(tone, line.trim_end())).collect()
    }

    /// A line for each cell of the first row, behind its heading.
    pub(crate) fn card(&self) -> Vec<String> {
        let headings = self.columns.iter().map(|column| column.heading);
        let wide =
            headings.clone().map(|heading| heading.chars().count()).max().unwrap_or_default();
        let cells = self.rows.first().map(|(_, cells)| cells.as_slice()).unwrap_or_default();
        headings
            .zip(cells)
            .map(|(heading, cell)| format!("{heading:wide$}  {}", cell.shown))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [Column::text("peer", "PEER"), Column::figure("rtt_us", "RTT")];
        let mut table = Table::new(&[&columns[..], &[Column::text("address", "ADDRESS")]].concat());
        let row = |id: &str, rtt, address: &str| {
            [Cell::id(id), Cell::new(rtt, units::micros(rtt)), Cell::text(address)]
        };
        table.row(Tone::Plain, row(&"5f".repeat(32), 1200, "10.0.0.1:5001"));
        table.row(Tone::Bad, row(&"a1".repeat(32), 77, ""));
        table
    }

    #[test]
    fn lines_have_whole_ids_and_raw_figures() {
        let lines = table().lines();
        let first = format!("peer={} rtt_us=1200 address=10.0.0.1:5001", "5f".repeat(32));
        assert_eq!(lines, [first, format!("peer={} rtt_us=77", "a1".repeat(32))]);
    }

    #[test]
    fn rows_are_aligned_and_painted_as_a_whole() {
        let rows = table().rows(80, |tone, row| format!("{tone:?} {row}"));
        assert_eq!(
            rows,
            [
                "Strong PEER             RTT  ADDRESS",
                "Plain 5f5f5f5f5f5f  1.2 ms  10.0.0.1:5001",
                "Bad a1a1a1a1a1a1   77 µs  –",
            ]
        );
    }

    #[test]
    fn the_last_columns_give_way_in_a_narrow_window() {
        for (width, widest) in [(35, 35), (34, 20), (20, 20), (19, 12), (5, 12)] {
            let rows = table().rows(width, |_, row| row.to_owned());
            assert_eq!(rows.iter().map(|row| row.chars().count()).max(), Some(widest), "{rows:?}");
        }
    }
}
