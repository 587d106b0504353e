//! Files and directories that only their owner may read: payloads are nobody else's business.
//!
//! What exists keeps its mode: who has opened it to others may have had a reason. Elsewhere than on Unix
//! files have the rights that their directory gives them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory and those above it that are missing, with mode 0700.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Returns options that give a file which they make the mode 0600.
pub(super) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes are Unix's"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the empty file `path` where there is none. `SQLite` takes that for a new database, and gives
/// what it makes beside it the mode of the database.
///
/// A file that is there is not opened: closing it would take the locks away that `SQLite` has on it in
/// this process. What goes wrong, `SQLite` will say.
pub(super) fn make_database(path: &Path) {
    if fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let _ = options().write(true).create(true).truncate(false).open(path);
    }
}

/// Warns where other users can read files of `dir`.
pub(super) fn warn_of_readers(dir: &Path, files: &[&str]) {
    let readable: Vec<_> = files.iter().filter(|file| is_open(&dir.join(file), 0o004)).collect();
    if !readable.is_empty() && is_open(dir, 0o001) {
        let dir = dir.display();
        tracing::warn!(
            target: "sorcha_peer::store", %dir, ?readable,
            "other users of this machine can read what is stored: chmod -R go= would keep them out"
        );
    }
}

#[cfg(unix)]
fn is_open(path: &Path, bits: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|found| found.mode() & bits != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path, _: u32) -> bool {
    false
}
