//! Secrets that the members of a network share, and what proves that one is known.
//!
//! Contract: a proof is a keyed BLAKE3 hash, under a key derived from the secret, over all that a
//! [`Claim`] says: the channel that the proof is shown on, which side shows it, both peer ids and the
//! network. So a proof holds for one link, one direction and one network: shown on another link, sent
//! back, or passed on by somebody in the middle it is wrong. Comparison takes the same time whatever
//! differs. A proof does not give the secret away, unless the secret can be guessed: whoever is shown
//! a proof can try guesses at leisure.
//!
//! A secret is never shown by `Debug` and never serialised.
//!
//! Tested by: the tests below, `protocol::tests::members`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::IdentityError;
use crate::types::PeerId;

/// Domain of the keys that secrets become.
const KEY_CONTEXT: &str = "sorcha-peer 2026-11-30 network secret";
/// First bytes of what a proof is over.
const PROOF_TAG: &[u8; 24] = b"sorcha-peer/membership-1";
/// Domain of the keys by which members know each other's announcements, without and with a secret.
const NAME_CONTEXT: &str = "sorcha-peer 2026-11-30 announcement by name";
const ANNOUNCEMENT_TAG: &[u8; 26] = b"sorcha-peer/announcement-1";

/// Secret that the members of a network share: [`Trust::Secret`](super::Trust).
///
/// It is 16 to 256 bytes long and should be random: whoever is dialled by a member can try guesses
/// offline, which is hopeless against [`NetworkSecret::generate`] and quick against a word. All
/// members must have the same bytes. `Debug` does not show them, and serde does not write them; an
/// [`Invite`](crate::Invite) does carry them.
///
/// ```
/// use sorcha_peer::NetworkSecret;
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("network.secret");
/// let made = NetworkSecret::generate()?;
/// made.save(&path)?; // mode 0600; an existing file is an error
/// assert_eq!(NetworkSecret::load(&path)?, made);
/// assert!(NetworkSecret::new("too short").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NetworkSecret {
    bytes: Arc<[u8]>,
    key: [u8; 32],
}

impl NetworkSecret {
    /// Minimum length in bytes.
    pub const MIN_BYTES: usize = 16;
    /// Maximum length in bytes.
    pub const MAX_BYTES: usize = 256;

    /// The secret of these bytes, all of which count.
    ///
    /// # Errors
    /// [`IdentityError::SecretLength`] below 16 and above 256 bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, IdentityError> {
        Self::of(bytes.as_ref(), None)
    }

    /// The secret of bytes that stand in the file `path`, where they do.
    fn of(bytes: &[u8], path: Option<&Path>) -> Result<Self, IdentityError> {
        if !(Self::MIN_BYTES..=Self::MAX_BYTES).contains(&bytes.len()) {
            return Err(IdentityError::SecretLength {
                path: path.map(Path::to_owned),
                length: bytes.len(),
                min: Self::MIN_BYTES,
                max: Self::MAX_BYTES,
            });
        }
        Ok(Self { bytes: bytes.into(), key: blake3::derive_key(KEY_CONTEXT, bytes) })
    }

    /// A new secret of 32 random bytes, as 43 characters that can stand in a text file.
    ///
    /// # Errors
    /// [`IdentityError::Random`] when the operating system gives no random bytes.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| IdentityError::Random)?;
        Self::new(URL_SAFE_NO_PAD.encode(random))
    }

    /// Reads a secret from a file. All of its bytes count, but for one line break at the end. A file that
    /// other users can read or change is warned of in the log.
    ///
    /// # Errors
    /// [`IdentityError::SecretFile`] when the file cannot be read, [`IdentityError::SecretLength`]
    /// when it holds too little or too much.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let most = Self::MAX_BYTES as u64 + 3;
        File::open(path)
            .and_then(|file| {
                warn_of_others(&file, path);
                file.take(most).read_to_end(&mut bytes)
            })
            .map_err(|source| IdentityError::SecretFile { path: path.to_owned(), source })?;
        let content = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Self::of(content.strip_suffix(b"\r").unwrap_or(content), Some(path))
    }

    /// Writes the secret and a line break, which [`load`](Self::load) takes off again, to a new
    /// file of mode 0600. A file that could not be written whole is removed.
    ///
    /// # Errors
    /// [`IdentityError::SecretFile`]; a file that exists is left as it is.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        self.write(path)
            .map_err(|source| IdentityError::SecretFile { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        // A `\r` before the `\n` is read as part of the line break.
        let line_break: &[u8] = if self.bytes.ends_with(b"\r") { b"\r\n" } else { b"\n" };
        let written = file.write_all(&[&self.bytes, line_break].concat());
        // Half a secret would be another one.
        written.and_then(|()| file.sync_all()).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// Key by which the members of a network know each other's announcements.
    #[cfg_attr(not(any(test, feature = "mdns")), allow(dead_code))]
    pub(super) fn announcement_key(&self, network: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        *hasher.update(ANNOUNCEMENT_TAG).update(network.as_bytes()).finalize().as_bytes()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Key of announcements in a network that has no secret: whoever guesses the name has it.
#[cfg_attr(not(any(test, feature = "mdns")), allow(dead_code))]
pub(super) fn announcement_key_of_name(network: &str) -> [u8; 32] {
    blake3::derive_key(NAME_CONTEXT, network.as_bytes())
}

impl PartialEq for NetworkSecret {
    fn eq(&self, other: &Self) -> bool {
        // Takes the same time whatever differs.
        blake3::Hash::from_bytes(self.key) == blake3::Hash::from_bytes(other.key)
    }
}

impl Eq for NetworkSecret {}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(…)")
    }
}

/// Warns where other users than its owner and group have rights to a file.
#[cfg(unix)]
fn warn_of_others(file: &File, path: &Path) {
    use std::os::unix::fs::MetadataExt;
    if file.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o007 != 0) {
        tracing::warn!(
            target: "sorcha_peer::config", path = %path.display(),
            "other users of this machine have rights to a network secret: chmod go= would keep them out"
        );
    }
}

#[cfg(not(unix))]
fn warn_of_others(_: &File, _: &Path) {}

/// Claim of membership: what a proof is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// Value that both ends of the link have, and no other link.
    pub(crate) binding: &'a [u8; 32],
    /// True: it is made by the side that dialled.
    pub(crate) by_dialler: bool,
    pub(crate) sender: &'a PeerId,
    pub(crate) receiver: &'a PeerId,
    pub(crate) network: &'a str,
}

impl Claim<'_> {
    /// Proves the claim by a secret.
    pub(crate) fn prove(&self, secret: &NetworkSecret) -> [u8; 32] {
        *self.hash(secret).as_bytes()
    }

    /// Reports whether one of `proofs` is by one of `secrets`.
    pub(crate) fn is_proven(&self, proofs: &[[u8; 32]], secrets: &[NetworkSecret]) -> bool {
        secrets.iter().any(|secret| {
            let right = self.hash(secret);
            proofs.iter().any(|proof| right == blake3::Hash::from_bytes(*proof))
        })
    }

    fn hash(&self, secret: &NetworkSecret) -> blake3::Hash {
        // Of fixed lengths but for the last, so that no two claims are the same bytes.
        blake3::Hasher::new_keyed(&secret.key)
            .update(PROOF_TAG)
            .update(self.binding)
            .update(&[u8::from(self.by_dialler)])
            .update(self.sender.as_bytes())
            .update(self.receiver.as_bytes())
            .update(self.network.as_bytes())
            .finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(fill: u8) -> NetworkSecret {
        NetworkSecret::new([fill; 32]).unwrap()
    }

    #[test]
    fn a_proof_is_for_one_link_one_side_one_pair_and_one_network() {
        let (a, b) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let binding = [7; 32];
        let claim =
            Claim { binding: &binding, by_dialler: true, sender: &a, receiver: &b, network: "n" };
        let proof = claim.prove(&secret(1));
        assert!(claim.is_proven(&[proof], &[secret(2), secret(1)]));
        assert!(claim.is_proven(&[[0; 32], proof], &[secret(1)]));
        assert!(!claim.is_proven(&[proof], &[secret(2)]));
        assert!(!claim.is_proven(&[], &[secret(1)]) && !claim.is_proven(&[proof], &[]));
        let others = [
            Claim { binding: &[8; 32], ..claim },
            Claim { by_dialler: false, ..claim },
            Claim { sender: &b, receiver: &a, ..claim },
            Claim { receiver: &a, ..claim },
            Claim { network: "m", ..claim },
        ];
        for other in others {
            assert!(!other.is_proven(&[proof], &[secret(1)]), "{other:?}");
        }
    }

    #[test]
    fn announcements_have_a_key_for_each_secret_and_network() {
        let keys = [
            secret(1).announcement_key("n"),
            secret(2).announcement_key("n"),
            secret(1).announcement_key("m"),
            announcement_key_of_name("n"),
            announcement_key_of_name("m"),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(keys[0], secret(1).announcement_key("n"));
    }

    #[test]
    fn a_secret_has_a_length_and_is_not_shown() {
        for length in [0, 15, 257, 1000] {
            let error = NetworkSecret::new(vec![b'x'; length]).unwrap_err();
            assert!(matches!(error, IdentityError::SecretLength { .. }), "{error}");
        }
        for length in [16, 256] {
            let secret = NetworkSecret::new(vec![b'x'; length]).unwrap();
            assert!(!format!("{secret:?}").contains("xx"));
        }
        assert_ne!(NetworkSecret::generate().unwrap(), NetworkSecret::generate().unwrap());
    }

    #[test]
    fn a_file_holds_it_with_or_without_a_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let wanted = NetworkSecret::new("0123456789abcdef").unwrap();
        for text in ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(NetworkSecret::load(&path).unwrap(), wanted);
        }
        for text in ["", "\n", "0123456789abcde\n", &"x".repeat(1000)] {
            std::fs::write(&path, text).unwrap();
            let error = NetworkSecret::load(&path).unwrap_err();
            assert!(matches!(error, IdentityError::SecretLength { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        assert!(matches!(wanted.save(&path), Err(IdentityError::SecretFile { .. })));
        let missing = NetworkSecret::load(dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, IdentityError::SecretFile { .. }), "{missing}");
    }

    #[test]
    fn what_was_saved_is_loaded_whatever_its_last_bytes_are() {
        let dir = tempfile::tempdir().unwrap();
        let ends = ["", "x", "\0", "\r", "\n", "\r\n", "\n\r", "\r\r", "\n\n", "\r\r\n", "\r\n\r"];
        // Of the greatest length as well.
        for (start, end) in [16, NetworkSecret::MAX_BYTES].iter().flat_map(|n| ends.map(|e| (n, e)))
        {
            let text = format!("{}{end}", "s".repeat(start - end.len()));
            let saved = NetworkSecret::new(text).unwrap();
            let path = dir.path().join("secret");
            saved.save(&path).unwrap();
            assert_eq!(NetworkSecret::load(&path).unwrap().as_bytes(), saved.as_bytes(), "{end:?}");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
}
