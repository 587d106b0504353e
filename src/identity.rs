//! The node's key pair: what its peer id is, and what signs its transactions and records.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};

use crate::error::IdentityError;
use crate::types::{
    Header, InvalidTransaction, MAX_BATCH, PeerId, PeerRecord, RecordDraft, Signature, Transaction,
    TransactionId, sign_batch,
};

/// PKCS#8 version 1 (RFC 5958) around a 32-byte Ed25519 seed (RFC 8410), as it is written here.
/// Version 2, which adds the public key, is read too, and not written: OpenSSL 3.0 cannot read it.
const PKCS8_PREFIX: &[u8; 16] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Algorithm of a key: Ed25519, without parameters (RFC 8410).
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// Maximum number of bytes of a key file that are looked at.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Number of times that an empty key file is looked at again: another process may be about to fill it.
const MAX_LOOKS: u32 = 50;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// An Ed25519 key pair. Cloning shares it; `Debug` shows the public half only.
///
/// ```
/// use sorcha_peer::Identity;
/// let dir = tempfile::tempdir()?;
/// let first = Identity::load_or_create(dir.path().join("node.key"))?;
/// let again = Identity::load_or_create(dir.path().join("node.key"))?;
/// assert_eq!(first.peer_id(), again.peer_id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    key: Arc<SigningKey>,
    peer_id: PeerId,
}

impl Identity {
    /// A new key from the operating system's random bytes.
    ///
    /// # Errors
    /// [`IdentityError::Random`] when there are none.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| IdentityError::Random)?;
        Ok(Self::from_seed(seed))
    }

    /// The key of a 32-byte seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let peer_id = PeerId::from_bytes(key.verifying_key().to_bytes());
        Self { key: Arc::new(key), peer_id }
    }

    /// Reads the key file, or makes a key and writes it with mode 0600. The file is PEM-encoded
    /// PKCS#8, as `openssl genpkey -algorithm ed25519` writes it (version 1) or as ring and rcgen do
    /// (version 2, with the public key). Missing parent folders are made, with mode 0700. The file
    /// system needs no hard links. Of processes that start together all use the same key.
    ///
    /// Blocks the thread for a moment; for up to a second where the file is empty, since another process
    /// may be about to fill it.
    ///
    /// # Errors
    /// [`IdentityError`]; an existing file is never overwritten, whatever is in it.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let io = |source| IdentityError::Io { path: path.to_owned(), source };
        if let Some(found) = read(path)? {
            return Ok(found);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        make_private_dir(parent).map_err(io)?;
        let made = Self::generate()?;
        // Written aside and put into place whole, so that a crash leaves no half a key.
        let aside = path.with_extension(format!("new-{}", made.peer_id));
        let written = write_private(&aside, made.to_pem().as_bytes());
        let placed = written.and_then(|()| place(&aside, path));
        let _ = fs::remove_file(&aside);
        placed.map_err(io)?;
        // The name of the file is to survive a power failure too. Not every file system can sync that.
        let _ = File::open(parent).and_then(|parent| parent.sync_all());
        // What stands there counts: of two processes that start together both use the same key.
        read(path)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))
    }

    /// The public key, which is the peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The private key as PKCS#8 DER.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        [PKCS8_PREFIX.as_slice(), self.key.as_bytes()].concat()
    }

    /// Signs arbitrary bytes. What is signed must start with a domain tag of its own.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Puts together and signs a transaction of this node.
    ///
    /// # Errors
    /// [`InvalidTransaction::Length`] when the header is of another payload,
    /// [`InvalidTransaction::Signature`] when it names another origin.
    pub fn sign_transaction(
        &self,
        header: Header,
        payload: Bytes,
    ) -> Result<Transaction, InvalidTransaction> {
        if header.origin != self.peer_id {
            return Err(InvalidTransaction::Signature);
        }
        let id = blake3::hash(&header.to_bytes());
        Transaction::new(header, Signature::Ed25519(self.sign(id.as_bytes())), payload)
    }

    /// Puts together and signs transactions of this node: one signature over all of them, which
    /// every one carries with its path to the root of their Merkle tree.
    ///
    /// # Errors
    /// As [`Identity::sign_transaction`]; [`InvalidTransaction::Signature`] also for more than
    /// 64 at once.
    pub fn sign_transactions(
        &self,
        parts: Vec<(Header, Bytes)>,
    ) -> Result<Vec<Transaction>, InvalidTransaction> {
        if parts.len() > MAX_BATCH || parts.iter().any(|(h, _)| h.origin != self.peer_id) {
            return Err(InvalidTransaction::Signature);
        }
        if parts.len() < 2 {
            return parts.into_iter().map(|(h, p)| self.sign_transaction(h, p)).collect();
        }
        let id = |(header, _): &(Header, Bytes)| {
            TransactionId::from_bytes(*blake3::hash(&header.to_bytes()).as_bytes())
        };
        let ids: Vec<_> = parts.iter().map(id).collect();
        let signatures = sign_batch(&ids, |message| self.sign(message));
        let whole = |((header, payload), s)| Transaction::new(header, s, payload);
        parts.into_iter().zip(signatures).map(whole).collect()
    }

    /// Signs a record of this node.
    #[cfg_attr(not(any(test, feature = "node", feature = "sim")), allow(dead_code))]
    pub(crate) fn sign_record(&self, mut draft: RecordDraft) -> PeerRecord {
        draft.peer = self.peer_id;
        draft.sign_with(|message| self.sign(message))
    }

    fn to_pem(&self) -> String {
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(self.to_pkcs8()))
    }

    fn from_pem(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(PEM_BEGIN)?;
        let (body, _) = rest.split_once(PEM_END)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).ok()?;
        Self::from_pkcs8(&der)
    }

    /// Reads PKCS#8 of version 1 or 2. A public key beside the private one must belong to it.
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let mut key = Der(Der(der).only(Der::SEQUENCE)?);
        let has_public = match key.take(Der::INTEGER)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        if key.take(Der::SEQUENCE)? != ED25519 {
            return None;
        }
        let seed = Der(key.take(Der::OCTET_STRING)?).only(Der::OCTET_STRING)?;
        let identity = Self::from_seed(seed.try_into().ok()?);
        let _attributes = key.take(Der::ATTRIBUTES);
        if has_public && !key.0.is_empty() {
            // Old versions of ring wrapped the bit string once more.
            let wrapped =
                key.take(Der::WRAPPED_PUBLIC_KEY).map(|inner| Der(inner).only(Der::BIT_STRING));
            let public = wrapped.unwrap_or_else(|| key.take(Der::PUBLIC_KEY))?;
            let (unused_bits, public) = public.split_first()?;
            if *unused_bits != 0 || public != identity.peer_id.as_bytes() {
                return None;
            }
        }
        key.0.is_empty().then_some(identity)
    }
}

/// Elements of DER, one after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const OCTET_STRING: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    const PUBLIC_KEY: u8 = 0x81;
    const ATTRIBUTES: u8 = 0xa0;
    const WRAPPED_PUBLIC_KEY: u8 = 0xa1;

    /// Takes the content of the next element, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (length, rest) = match rest {
            [length @ 0..=0x7f, rest @ ..] | [0x81, length @ 0x80..=0xff, rest @ ..] => {
                (usize::from(*length), rest)
            }
            [0x82, high @ 1..=0xff, low, rest @ ..] => {
                (usize::from(u16::from_be_bytes([*high, *low])), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Returns the content of the only element.
    fn only(mut self, tag: u8) -> Option<&'a [u8]> {
        let content = self.take(tag)?;
        self.0.is_empty().then_some(content)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer_id).finish()
    }
}

/// Reads a key file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let io = |source| IdentityError::Io { path: path.to_owned(), source };
    let mut looks = 0..MAX_LOOKS;
    loop {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
        if bytes.is_empty() && looks.next().is_some() {
            std::thread::sleep(BETWEEN_LOOKS);
            continue;
        }
        let identity = std::str::from_utf8(&bytes).ok().and_then(Identity::from_pem);
        return identity.map(Some).ok_or_else(|| IdentityError::Format { path: path.to_owned() });
    }
}

/// Puts the file `aside` at `path`, unless there is one already: that one stays.
fn place(aside: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(aside, path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Many file systems have no links, and each says so in another way.
        Err(_) => place_by_rename(aside, path),
    }
}

/// Puts a file into place without a link: takes the name with an empty file, which one process alone
/// can make, and replaces that. Others wait for it to be filled. A crash right between leaves it empty.
fn place_by_rename(aside: &Path, path: &Path) -> io::Result<()> {
    match File::create_new(path) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(e),
    }
    fs::rename(aside, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Topic, WallTime};

    #[test]
    fn a_key_file_is_private_and_stable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/node.key");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(Identity::load_or_create(&path).unwrap().peer_id(), first.peer_id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn who_starts_together_has_the_same_key() {
        type Place = fn(&Path, &Path) -> io::Result<()>;
        for place in [place as Place, place_by_rename] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("node.key");
            let start = std::sync::Barrier::new(8);
            let one = |n: u8| {
                let aside = path.with_extension(n.to_string());
                let key = Identity::from_seed([n; 32]);
                write_private(&aside, key.to_pem().as_bytes()).unwrap();
                start.wait();
                place(&aside, &path).unwrap();
                let _ = fs::remove_file(&aside);
                read(&path).unwrap().unwrap().peer_id()
            };
            let found = std::thread::scope(|scope| {
                let threads = [1, 2, 3, 4, 5, 6, 7, 8].map(|n| scope.spawn(move || one(n)));
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(found, [found[0]; 8]);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        for content in [&b""[..], b"hello", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----"] {
            fs::write(&path, content).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Format { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    /// RFC 8410, section 10.3: with the public key and an attribute.
    const VERSION_2: &str = "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
";

    /// A version 2 key around `seed` that ends with these bytes.
    fn version_2(seed: [u8; 32], end: &[u8]) -> Vec<u8> {
        let mut der = [PKCS8_PREFIX.as_slice(), &seed, end].concat();
        der[1] = u8::try_from(der.len() - 2).unwrap();
        der[4] = 1;
        der
    }

    #[test]
    fn keys_of_other_libraries_are_read() {
        let read = Identity::from_pem(VERSION_2).unwrap();
        let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(read.peer_id().to_string(), public);
        let ours = Identity::from_seed([3; 32]);
        let public = ours.peer_id();
        let implicit = [b"\x81\x21\0".as_slice(), public.as_bytes()].concat();
        let wrapped = [b"\xa1\x23\x03\x21\0".as_slice(), public.as_bytes()].concat();
        for der in [
            ours.to_pkcs8(),
            version_2([3; 32], b""),
            version_2([3; 32], &implicit),
            version_2([3; 32], &wrapped),
        ] {
            let read = Identity::from_pkcs8(&der).map(|read| read.peer_id());
            assert_eq!(read, Some(public), "{der:02x?}");
            for end in 0..der.len() {
                assert!(Identity::from_pkcs8(&der[..end]).is_none(), "{end} of {der:02x?}");
            }
        }
        let of_another = version_2([4; 32], &implicit);
        let trailing = version_2([3; 32], &[implicit.as_slice(), b"\0"].concat());
        let mut as_version_1 = version_2([3; 32], &implicit);
        as_version_1[4] = 0;
        for der in [of_another, trailing, as_version_1] {
            assert!(Identity::from_pkcs8(&der).is_none(), "{der:02x?}");
        }
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn a_key_of_rcgen_is_read() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let read = Identity::from_pkcs8(&key.serialize_der()).unwrap();
        assert_eq!(read.peer_id().as_bytes(), key.public_key_raw());
    }

    #[test]
    fn signatures_verify_and_bind_the_origin() {
        let identity = Identity::from_seed([3; 32]);
        let payload = Bytes::from_static(b"hello");
        let at = WallTime::from_millis(5);
        let header = Header::new(Topic::new("t").unwrap(), identity.peer_id(), at, at, &payload);
        let signed = identity.sign_transaction(header.clone(), payload.clone()).unwrap();
        assert_eq!(signed.verify(true), Ok(()));
        let other = Identity::from_seed([4; 32]);
        assert!(other.sign_transaction(header.clone(), payload.clone()).is_err());
        let forged = Transaction::new(
            header,
            Signature::Ed25519(other.sign(signed.id().as_bytes())),
            payload,
        )
        .unwrap();
        assert_eq!(forged.id(), signed.id());
        assert_eq!(forged.verify(true), Err(InvalidTransaction::Signature));
        assert_eq!(forged.verify(false), Err(InvalidTransaction::Signature));
    }

    #[test]
    fn records_verify_only_as_signed() {
        let identity = Identity::from_seed([3; 32]);
        let mut record = identity.sign_record(RecordDraft {
            peer: PeerId::from_bytes([0; 32]),
            seq: 1,
            issued: WallTime::from_millis(9),
            endpoints: vec!["peer.example.com:1".parse().unwrap()],
        });
        assert_eq!(record.peer(), identity.peer_id());
        assert!(record.verify());
        record.draft.seq = 2;
        assert!(!record.verify());
    }
}
