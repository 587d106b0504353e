//! Look at a message before it is decoded: a field of two bytes may become a structure of a hundred.

/// Maximum number of fields of a message with lists of peers in it, all in all. A thousand peers have less.
const MAX_FIELDS: usize = 32 * 1024;
/// Number of the field of a registration that holds the peer.
const PEER_INFO: u32 = 1;
/// Number of the field of an exchange that holds the peers.
const KNOWN_PEERS: u32 = 2;

/// Reports whether a registration is no larger when it is decoded than it pretends.
pub(super) fn is_modest_registration(message: &[u8]) -> bool {
    is_modest(message, PEER_INFO)
}

/// The same of an exchange of peers.
pub(super) fn is_modest_exchange(message: &[u8]) -> bool {
    is_modest(message, KNOWN_PEERS)
}

/// Counts the fields of a message, and those of the messages in one of its fields. What is malformed counts up to
/// there: whoever decodes it finds out.
fn is_modest(message: &[u8], inner: u32) -> bool {
    let mut left = MAX_FIELDS;
    for (number, value) in Fields(message) {
        let within = if number == inner { Fields(value).take(left).count() } else { 0 };
        let Some(rest) = left.checked_sub(1 + within) else { return false };
        left = rest;
    }
    true
}

/// Fields of a message: the number of each, and its bytes where it has a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let length = match key & 7 {
            0 => {
                self.varint()?;
                return Some((number, &[]));
            }
            1 => 8,
            2 => usize::try_from(self.varint()?).ok()?,
            // What is in a group counts on the level of the group: it is skipped when it is decoded.
            3 | 4 => return Some((number, &[])),
            5 => 4,
            _ => return None,
        };
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((number, if key & 7 == 2 { value } else { &[] }))
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::generated::discovery::{PeerExchangeRequest, PeerInfo, RegisterPeerRequest};

    #[test]
    fn what_a_client_may_mean_is_modest_and_what_blows_up_is_not() {
        let peer = PeerInfo {
            peer_id: "a peer".to_owned(),
            address: "peer.example.com".to_owned(),
            port: 5001,
            supported_protocols: vec!["GrpcStream".to_owned(); 8],
            last_seen: i64::MAX,
            ..PeerInfo::default()
        };
        let exchange = PeerExchangeRequest {
            peer_id: "b".to_owned(),
            known_peers: vec![peer.clone(); 1000],
            max_peers: -1,
        };
        assert!(is_modest_exchange(&exchange.encode_to_vec()));
        let register = RegisterPeerRequest { peer_info: Some(peer.clone()) };
        assert!(is_modest_registration(&register.encode_to_vec()));
        let peers = vec![PeerInfo::default(); MAX_FIELDS + 1];
        let many = PeerExchangeRequest { known_peers: peers, ..exchange };
        assert!(!is_modest_exchange(&many.encode_to_vec()));
        let protocols = vec![String::new(); MAX_FIELDS];
        let large = PeerInfo { supported_protocols: protocols, ..peer };
        let large = RegisterPeerRequest { peer_info: Some(large) }.encode_to_vec();
        assert!(!is_modest_registration(&large));
        assert!(is_modest_exchange(&large), "the field means something else there");
        // A group, which is skipped, hides nothing that follows, on either level.
        let group = [0x7b, 0x7c];
        let hidden = [&group[..], &many.encode_to_vec()].concat();
        assert!(!is_modest_exchange(&hidden));
        let inside = [&group[..], &[0x22, 0].repeat(MAX_FIELDS)].concat();
        let mut outside = vec![0x12];
        prost::encoding::encode_varint(inside.len() as u64, &mut outside);
        outside.extend(inside);
        assert!(!is_modest_exchange(&outside));
        // Whatever it is, it is looked at no further than it goes.
        for garbage in
            [&b""[..], b"\xff", &[0xff; 20], b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x12\x02\x08"]
        {
            assert!(is_modest_exchange(garbage), "{garbage:?}");
        }
    }
}
