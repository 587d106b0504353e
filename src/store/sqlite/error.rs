//! What errors of `SQLite` mean, and what is damage.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::error::{Source, StoreError, StoreErrorKind};

/// Primary result codes of `SQLite` that leave the reason to the operating system.
const READ_ONLY: u32 = 8;
const CANNOT_OPEN: u32 = 14;

/// Maximum of a number that only rises.
const MAX_COUNTER: u64 = 1 << 62;

/// A file that holds what it cannot hold.
pub(super) fn damaged(name: &str, what: impl std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("{name} is damaged: {what}"))
}

/// Errors that say for sure that nothing was changed.
pub(super) fn changed_nothing(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Full | StoreErrorKind::Locked)
}

/// A number that only rises, as a file has it: no checksum protects it, and from one that is wrong
/// others would be counted on.
pub(super) fn checked_counter(number: i64) -> Result<u64, Source> {
    let checked_counter =
        u64::try_from(number).ok().filter(|checked_counter| *checked_counter <= MAX_COUNTER);
    checked_counter.ok_or_else(|| format!("{number} cannot have been reached").into())
}

/// Translates an error of the file `name`.
pub(super) fn explain(name: &str, error: sqlx::Error) -> StoreError {
    let kind = match &error {
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => StoreErrorKind::Closed,
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => StoreErrorKind::Full,
        sqlx::Error::Database(e) => {
            // https://www.sqlite.org/rescode.html; the low byte is the primary code.
            let code = e.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
            match code & 0xff {
                5 | 6 => StoreErrorKind::Locked,
                11 | 26 => StoreErrorKind::Corrupt,
                13 => StoreErrorKind::Full,
                _ => StoreErrorKind::Io,
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    };
    let message = format!("{name}: {error}");
    match system_error(name, &error) {
        Some(cause) => StoreError::with_source(kind, message, cause),
        None => StoreError::with_source(kind, message, error),
    }
}

/// Returns what the operating system says to opening or making the file `name`, where `SQLite` says
/// only that it cannot: permission denied, a read-only file system, a loop of links. The file is not
/// opened for that: closing it would take the locks away that `SQLite` has on it in this process.
fn system_error(name: &str, error: &sqlx::Error) -> Option<io::Error> {
    let code = error.as_database_error()?.code()?.parse::<u32>().ok()? & 0xff;
    if !matches!(code, READ_ONLY | CANNOT_OPEN) {
        return None;
    }
    let path = Path::new(name);
    let probe = path.with_extension("probe");
    match File::create_new(&probe) {
        Ok(_) => fs::remove_file(&probe).err(),
        Err(error) => return Some(error),
    }
    .or_else(|| match fs::metadata(path) {
        Ok(found) if found.permissions().readonly() => Some(io::ErrorKind::PermissionDenied.into()),
        Ok(_) => None,
        Err(error) => Some(error),
    })
    .filter(|error| error.kind() != io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_told() {
        assert_eq!(checked_counter(0).unwrap(), 0);
        assert_eq!(checked_counter(1 << 62).unwrap(), 1 << 62);
        for wrong in [-1, i64::MIN, i64::MAX] {
            checked_counter(wrong).unwrap_err();
        }
    }
}
