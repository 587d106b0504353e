//! Invites: all that a newcomer needs to join a network, in one line of text.
//!
//! ```text
//! "sorcha:" base64url( version 1 | part … | first 4 bytes of BLAKE3 over all before )
//! part      = kind, length (2 bytes, big endian), that many bytes
//! kind 1      name of the network, once
//! kind 2      peer id, of the peer that the addresses after it belong to
//! kind 3      address, as `host:port`
//! kind 4      secret of the network, the newest first
//! ```
//!
//! Contract: an unknown kind is passed over, so that later versions may say more. What is damaged in
//! any place is refused, and so is a part that is too long, too many, or not what its kind says.
//!
//! Tested by: the tests below.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Config, NetworkSecret, Trust};
use crate::error::ParseIdError;
use crate::types::{Endpoint, MAX_ENDPOINTS, MAX_NETWORK_BYTES, MAX_PROOFS, PeerId};

const PREFIX: &str = "sorcha:";
const VERSION: u8 = 1;
/// Maximum length of the text: all that may be in it, and as much of parts to come.
const MAX_TEXT: usize = 16 * 1024;
const CHECKSUM: usize = 4;

const NETWORK: u8 = 1;
const PEER: u8 = 2;
const ADDRESS: u8 = 3;
const SECRET: u8 = 4;

/// Invitation into a network: its name, addresses to dial and who must answer there, and the
/// network's secret where it has one.
///
/// Made by `PeerNode::invite` and taken by `PeerNodeBuilder::join`. As text it is one word that begins
/// with `sorcha:`. **The text contains the secret**: whoever reads it may join, for as long as the
/// network keeps that secret. `Display` shows the text, `Debug` shows everything but the secret. An
/// address is only good while its peer keeps its key.
///
/// ```
/// use sorcha_peer::{Invite, error::ParseIdError};
/// let damaged = "sorcha:AQEABHNob3A".parse::<Invite>();
/// assert_eq!(damaged, Err(ParseIdError::InviteDamaged));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    network: String,
    contacts: Vec<(Endpoint, Option<PeerId>)>,
    secrets: Vec<NetworkSecret>,
}

impl Invite {
    /// An invite into the network of `config` by a peer that can be dialled at `addresses`.
    #[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
    pub(crate) fn new(config: &Config, peer: PeerId, addresses: &[Endpoint]) -> Self {
        let contacts = addresses.iter().take(MAX_ENDPOINTS);
        Self {
            network: config.network.name.clone(),
            contacts: contacts.map(|address| (address.with_pin(None), Some(peer))).collect(),
            secrets: config.network.trust.secrets().unwrap_or_default().to_vec(),
        }
    }

    /// Name of the network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Addresses to dial, at least one, each with the peer that must answer there.
    pub fn contacts(&self) -> impl Iterator<Item = (&Endpoint, Option<PeerId>)> {
        self.contacts.iter().map(|(address, peer)| (address, *peer))
    }

    /// Reports whether the invite has a secret of the network.
    pub fn has_secret(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Makes `config` that of a node which joins. Without a secret its trust stays as it is.
    #[cfg_attr(not(any(test, feature = "node")), allow(dead_code))]
    pub(crate) fn apply(&self, config: &mut Config) {
        config.network.name.clone_from(&self.network);
        if self.has_secret() {
            config.network.trust =
                Trust::Secret { secrets: self.secrets.clone(), files: Vec::new() };
        }
        let discovery = &mut config.discovery;
        for (address, peer) in &self.contacts {
            let contact = address.with_pin(*peer);
            // Whoever else was to answer there, the invite knows better.
            discovery.bootstrap.retain(|known| known.with_pin(None) != *address);
            discovery.bootstrap.push(contact);
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        part(&mut out, NETWORK, self.network.as_bytes());
        let mut of = None;
        for (address, peer) in &self.contacts {
            if *peer != of
                && let Some(peer) = peer
            {
                part(&mut out, PEER, peer.as_bytes());
            }
            of = *peer;
            part(&mut out, ADDRESS, address.to_string().as_bytes());
        }
        for secret in &self.secrets {
            part(&mut out, SECRET, secret.as_bytes());
        }
        let sum = checksum(&out);
        out.extend(sum);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ParseIdError> {
        let (body, sum) = bytes.split_last_chunk().ok_or(ParseIdError::InviteDamaged)?;
        if *sum != checksum(body) {
            return Err(ParseIdError::InviteDamaged);
        }
        let (version, mut rest) = body.split_first().ok_or(ParseIdError::InviteDamaged)?;
        if *version != VERSION {
            return Err(ParseIdError::InviteVersion { version: *version, known: VERSION });
        }
        let (mut network, mut of, mut contacts) = (None, None, Vec::new());
        let mut secrets = Vec::new();
        while let Some((kind, value)) = next_part(&mut rest)? {
            let bad = |part| ParseIdError::InvitePart { part };
            match kind {
                NETWORK if network.is_none() && (1..=MAX_NETWORK_BYTES).contains(&value.len()) => {
                    let name = std::str::from_utf8(value).map_err(|_| bad("network"))?;
                    network = Some(name.to_owned());
                }
                NETWORK => return Err(bad("network")),
                PEER => {
                    let id = value.try_into().map_err(|_| bad("peer"))?;
                    of = Some(PeerId::from_bytes(id));
                }
                ADDRESS if contacts.len() < MAX_ENDPOINTS => {
                    let text = std::str::from_utf8(value).map_err(|_| bad("address"))?;
                    contacts.push((text.parse().map_err(|_| bad("address"))?, of));
                }
                ADDRESS => return Err(bad("address")),
                SECRET if secrets.len() < MAX_PROOFS => {
                    secrets.push(NetworkSecret::new(value).map_err(|_| bad("secret"))?);
                }
                SECRET => return Err(bad("secret")),
                _ => {}
            }
        }
        let network = network.ok_or(ParseIdError::InvitePart { part: "network" })?;
        if contacts.is_empty() {
            return Err(ParseIdError::InvitePart { part: "address" });
        }
        Ok(Self { network, contacts, secrets })
    }
}

/// Adds a part; none is longer than its length can say.
fn part(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(value.iter().take(usize::from(u16::MAX)));
}

/// Takes the next part off `rest`.
fn next_part<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, ParseIdError> {
    let Some((kind, after)) = rest.split_first() else { return Ok(None) };
    let (length, after) = after.split_first_chunk().ok_or(ParseIdError::InviteDamaged)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (value, after) = after.split_at_checked(length).ok_or(ParseIdError::InviteDamaged)?;
    *rest = after;
    Ok(Some((*kind, value)))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d]
}

impl fmt::Display for Invite {
    /// Shows the whole invite, **with the secret**.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("network", &self.network)
            .field("contacts", &self.contacts)
            .field("secrets", &self.secrets)
            .finish()
    }
}

impl FromStr for Invite {
    type Err = ParseIdError;

    /// Reads the text of an invite; white space around it does not count.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(ParseIdError::InviteTooLong { length: text.len(), limit: MAX_TEXT });
        }
        let coded = text.strip_prefix(PREFIX).ok_or(ParseIdError::InvitePrefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(coded).map_err(|_| ParseIdError::InviteDamaged)?;
        Self::from_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cases::{Random, for_all};

    fn config(secrets: &[&str]) -> Config {
        let mut config = Config::default();
        config.network.name = "shop".to_owned();
        for secret in secrets {
            config.network.trust.add_secret(NetworkSecret::new(secret).unwrap());
        }
        config
    }

    fn invite() -> Invite {
        let addresses = ["peer0.example.com:5001", "[2001:db8::1]:7"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        let config = config(&["correct horse battery", "the older of the two"]);
        Invite::new(&config, PeerId::from_bytes([7; 32]), &addresses)
    }

    /// The text of these parts, whatever they are.
    fn text(version: u8, parts: &[(u8, &[u8])]) -> String {
        let mut out = vec![version];
        for (kind, value) in parts {
            part(&mut out, *kind, value);
        }
        let sum = checksum(&out);
        out.extend(sum);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(out))
    }

    #[test]
    fn it_round_trips_and_makes_a_configuration() {
        let invite = invite();
        let shown = format!(" {invite}\n");
        assert_eq!(shown.parse::<Invite>().unwrap(), invite);
        assert!(!format!("{invite:?}").contains("horse"));
        let mut joined = config(&[]);
        joined.network.name = "other".to_owned();
        invite.apply(&mut joined);
        joined.validate().unwrap();
        assert_eq!(joined.network.name, "shop");
        assert_eq!(joined.network.trust.secrets().unwrap().len(), 2);
        assert_eq!(joined.discovery.bootstrap.len(), 2);
        let pins: Vec<_> = joined.discovery.bootstrap.iter().map(Endpoint::pin).collect();
        assert_eq!(pins, [Some(PeerId::from_bytes([7; 32])); 2]);
    }

    #[test]
    fn the_text_of_version_1_is_locked() {
        let address = ["127.0.0.1:5001".parse().unwrap()];
        let invite =
            Invite::new(&config(&["0123456789abcdef"]), PeerId::from_bytes([7; 32]), &address);
        let wanted = "sorcha:AQEABHNob3ACACAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwMADjEyNy4wLj\
                      AuMTo1MDAxBAAQMDEyMzQ1Njc4OWFiY2RlZpVGWA8";
        assert_eq!(invite.to_string(), wanted);
    }

    #[test]
    fn parts_to_come_are_passed_over() {
        let parts: [(u8, &[u8]); 4] =
            [(99, b"news"), (NETWORK, b"n"), (ADDRESS, b"localhost:1"), (255, b"")];
        let invite = text(VERSION, &parts).parse::<Invite>().unwrap();
        assert_eq!((invite.network(), invite.has_secret()), ("n", false));
        assert_eq!(invite.contacts().count(), 1);
        assert_eq!(invite.contacts().next().unwrap().1, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use ParseIdError as E;
        let read = |text: &str| text.parse::<Invite>().unwrap_err();
        assert_eq!(read("https://example.com"), E::InvitePrefix);
        assert_eq!(read(""), E::InvitePrefix);
        let long = format!("{PREFIX}{}", "A".repeat(MAX_TEXT));
        assert!(matches!(read(&long), E::InviteTooLong { .. }));
        for damaged in ["sorcha:", "sorcha:A", "sorcha:AAAA", "sorcha:!!!!", "sorcha:AAAAAAAAAAAA"]
        {
            assert_eq!(read(damaged), E::InviteDamaged, "{damaged}");
        }
        assert_eq!(read(&text(2, &[])), E::InviteVersion { version: 2, known: VERSION });
        let network: (u8, &[u8]) = (NETWORK, b"n");
        let address: (u8, &[u8]) = (ADDRESS, b"localhost:1");
        let secret: (u8, &[u8]) = (SECRET, b"0123456789abcdef");
        for (part, parts) in [
            ("network", vec![address]),
            ("network", vec![network, network, address]),
            ("network", vec![(NETWORK, b""), address]),
            ("network", vec![(NETWORK, &[0xff]), address]),
            ("network", vec![(NETWORK, &[b'n'; 65]), address]),
            ("address", vec![network]),
            ("address", vec![network, (ADDRESS, b"not an address")]),
            ("address", [vec![network], vec![address; 17]].concat()),
            ("peer", vec![network, (PEER, &[1; 31]), address]),
            ("secret", vec![network, address, (SECRET, b"short")]),
            ("secret", vec![network, address, secret, secret, secret]),
        ] {
            assert_eq!(read(&text(VERSION, &parts)), E::InvitePart { part });
        }
    }

    #[test]
    fn no_change_goes_unnoticed() {
        let shown = invite().to_string();
        for cut in 0..shown.len() {
            shown[..cut].parse::<Invite>().unwrap_err();
        }
        for_all(2000, |random: &mut Random| {
            let mut changed = shown.clone().into_bytes();
            let at = random.index(changed.len());
            let [new] = random.bytes::<1>();
            if changed[at] != new {
                changed[at] = new;
                let changed = String::from_utf8_lossy(&changed).into_owned();
                assert_ne!(changed.trim(), shown);
                changed.parse::<Invite>().unwrap_err();
            }
        });
    }
}
