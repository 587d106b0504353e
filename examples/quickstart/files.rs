//! Files to publish, and those that cannot be.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// A file that is not read within this time is left out: it may be one of those that wait for
/// somebody else, as some of `/proc` do.
const MAX_READ_TIME: Duration = Duration::from_secs(10);

/// Content of a tree.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) found: Vec<PathBuf>,
    pub(crate) skipped: Vec<Skipped>,
}

/// A file or directory that is not published.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped {
    pub(crate) path: String,
    #[serde(serialize_with = "text")]
    pub(crate) reason: Reason,
}

/// Reason why a file is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("{size} bytes, the limit is {limit}: see `[gossip] max_transaction_size`")]
    TooLarge { size: u64, limit: u64 },
    #[error("refused by its node: {0}")]
    Refused(String),
    #[error("unreadable: {0}")]
    Unreadable(String),
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Files {
    /// Looks below `path` (default: `src` and `proto` of this repository) for regular files, in the
    /// order of their names. Symbolic links to files are followed, those to directories are not.
    pub(crate) fn find(path: Option<PathBuf>) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let roots =
            path.map_or_else(|| vec![here.join("src"), here.join("proto")], |path| vec![path]);
        let mut files = Self::default();
        for root in roots {
            // Who names a link means what it leads to.
            let target = if root.is_symlink() { fs::canonicalize(&root).ok() } else { None };
            let mut ahead = vec![target.unwrap_or(root)];
            while let Some(path) = ahead.pop() {
                match look(&path) {
                    Ok(Kind::File) => files.found.push(path),
                    Ok(Kind::Directory(mut entries)) => {
                        entries.sort_unstable_by(|a, b| b.cmp(a));
                        ahead.append(&mut entries);
                    }
                    Err(reason) => files.skip(&path, reason),
                }
            }
        }
        files
    }

    pub(crate) fn skip(&mut self, path: &Path, reason: Reason) {
        self.skipped.push(Skipped { path: path.display().to_string(), reason });
    }
}

enum Kind {
    File,
    Directory(Vec<PathBuf>),
}

fn look(path: &Path) -> Result<Kind, Reason> {
    let is_link = fs::symlink_metadata(path)?.is_symlink();
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() && is_link {
        return Err(Reason::Unreadable(
            "a link to a directory, which may lead back here".to_owned(),
        ));
    }
    if kind.is_dir() {
        let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        return Ok(Kind::Directory(entries.collect::<io::Result<_>>()?));
    }
    if kind.is_file() { Ok(Kind::File) } else { Err(not_regular()) }
}

fn not_regular() -> Reason {
    Reason::Unreadable("not a regular file".to_owned())
}

/// The content of a file of at most `limit` bytes.
pub(crate) async fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Reason> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&path, limit));
    match tokio::time::timeout(MAX_READ_TIME, read).await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => Err(Reason::Unreadable(error.to_string())),
        Err(_) => Err(Reason::Unreadable(format!("not read within {MAX_READ_TIME:?}"))),
    }
}

fn read_now(path: &Path, limit: u64) -> Result<Vec<u8>, Reason> {
    // Once more, since to open a FIFO is to wait for somebody who writes.
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut content = Vec::new();
    if size <= limit {
        // The size may be unknown, or grow meanwhile.
        file.take(limit + 1).read_to_end(&mut content)?;
    }
    let size = size.max(content.len() as u64);
    if size > limit { Err(Reason::TooLarge { size, limit }) } else { Ok(content) }
}

fn text<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}
