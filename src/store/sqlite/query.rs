//! Statements: how many rows and numbers go with one.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Sqlite};

/// A query with its arguments.
pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

/// Statements that insert many rows at once. A statement costs about 40 us whatever it does, a row
/// 7: so rows go in by 64, and the rest by 16, 4 and 1.
#[derive(Debug)]
pub(super) struct Insert {
    sizes: [(usize, Arc<str>); 4],
}

impl Insert {
    /// `into` is all up to and with `VALUES`; each row has `columns` values.
    pub(super) fn new(into: &str, columns: usize) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let sizes = [64, 16, 4, 1];
        Self { sizes: sizes.map(|n| (n, format!("{into} {}", vec![&*row; n].join(",")).into())) }
    }

    /// Splits rows into those of one statement each.
    pub(super) fn chunks<'r, T>(
        &self,
        mut rows: &'r [T],
    ) -> Vec<(AssertSqlSafe<Arc<str>>, &'r [T])> {
        let mut chunks = Vec::new();
        for (size, sql) in &self.sizes {
            while rows.len() >= *size {
                let (chunk, rest) = rows.split_at(*size);
                chunks.push((AssertSqlSafe(Arc::clone(sql)), chunk));
                rows = rest;
            }
        }
        chunks
    }
}

/// Numbers as a list that `json_each` reads: one argument, however many there are.
pub(super) fn json<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<_> = numbers.iter().map(T::to_string).collect();
    format!("[{}]", numbers.join(","))
}
