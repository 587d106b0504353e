//! PCP (RFC 6887): the one message that maps, renews and removes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;

use super::ask::{Granted, MapError, ask, open};

const VERSION: u8 = 2;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;
const TCP: u8 = 6;
/// Size of the common header, and of the message with what belongs to the mapping.
const HEADER_BYTES: usize = 24;
const MAP_BYTES: usize = 60;
/// Names of results other than success and a version that is not spoken, from 2 on.
const RESULTS: [&str; 12] = [
    "not authorized",
    "malformed request",
    "unsupported operation",
    "unsupported option",
    "malformed option",
    "network failure",
    "no resources",
    "unsupported protocol",
    "quota exceeded",
    "no such external address",
    "the own address is another one (a NAT stands between)",
    "too many remote peers",
];

/// Number by which a router knows its client again; only who knows it changes a mapping.
pub(super) type Nonce = [u8; 12];

/// Router that is asked over PCP.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) address: SocketAddrV4,
    pub(super) nonce: Nonce,
}

impl Router {
    /// Maps the port, or renews its mapping.
    ///
    /// # Errors
    /// [`MapError`]; `Unsupported` where something else than PCP answers.
    pub(super) async fn map(
        &self,
        port: u16,
        external: Option<SocketAddrV4>,
        lease: Duration,
    ) -> Result<Granted, MapError> {
        let wanted = external.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
        let (socket, own) = open(self.address).await?;
        let question = self.question(own, port, wanted, lease);
        ask(&socket, &question, |data| self.read(data, port)).await
    }

    /// Removes the mapping of the port.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn remove(&self, port: u16) -> Result<(), MapError> {
        let (socket, own) = open(self.address).await?;
        let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let question = self.question(own, port, none, Duration::ZERO);
        ask(&socket, &question, |data| match self.read(data, port) {
            // Of a mapping that is removed, only the success matters.
            Some(Ok(_) | Err(MapError::Nonsense(_))) => Some(Ok(())),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
        .await
    }

    fn question(
        &self,
        own: Ipv4Addr,
        port: u16,
        external: SocketAddrV4,
        lease: Duration,
    ) -> [u8; MAP_BYTES] {
        let mut message = [0; MAP_BYTES];
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        [message[0], message[1]] = [VERSION, MAP];
        message[4..8].copy_from_slice(&seconds.to_be_bytes());
        message[8..24].copy_from_slice(&own.to_ipv6_mapped().octets());
        message[24..36].copy_from_slice(&self.nonce);
        message[36] = TCP;
        message[40..42].copy_from_slice(&port.to_be_bytes());
        message[42..44].copy_from_slice(&external.port().to_be_bytes());
        message[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
        message
    }

    /// Reads an answer; `None` where it is none to this router's client.
    fn read(&self, data: &[u8], port: u16) -> Option<Result<Granted, MapError>> {
        match data {
            // So speaks a router that knows NAT-PMP alone (RFC 6886, section 3.5).
            [0, kind, ..] if kind & ANSWER != 0 => return Some(Err(MapError::Unsupported)),
            [VERSION, kind, _, 1, ..] if *kind == ANSWER | MAP => {
                return Some(Err(MapError::Unsupported));
            }
            [VERSION, kind, ..] if *kind == ANSWER | MAP && data.len() >= HEADER_BYTES => {}
            _ => return None,
        }
        let is_mine = data.get(24..36) == Some(&self.nonce[..])
            && data.get(36) == Some(&TCP)
            && u16_at(data, 40) == Some(port);
        if data[3] != 0 {
            // A refusal may come without what was asked, but not with what another asked.
            return (is_mine || data.len() < MAP_BYTES).then(|| Err(refusal(data[3])));
        }
        if !is_mine {
            return None;
        }
        let seconds = u32::from_be_bytes(data.get(4..8)?.try_into().ok()?);
        let port = u16_at(data, 42)?;
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(data.get(44..60)?).ok()?);
        Some(match ip.to_ipv4_mapped() {
            None => Err(MapError::Nonsense("its address outside is not IPv4")),
            Some(_) if port == 0 || seconds == 0 => Err(MapError::Nonsense("nothing is mapped")),
            Some(ip) => {
                let lifetime = Some(Duration::from_secs(seconds.into()));
                Ok(Granted { external: SocketAddrV4::new(ip, port), lifetime })
            }
        })
    }
}

fn refusal(result: u8) -> MapError {
    let name = usize::from(result).checked_sub(2).and_then(|at| RESULTS.get(at));
    let name = name.map_or_else(|| format!("result {result}"), ToString::to_string);
    MapError::Refused(name)
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Router =
        Router { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), nonce: [7; 12] };

    /// A right answer, byte by byte as the RFC has it.
    fn answer() -> Vec<u8> {
        let mut answer = vec![2, 0x81, 0, 0, 0, 0, 0x1c, 0x20, 0, 0, 0, 9];
        answer.extend([0; 12]);
        answer.extend([7; 12]);
        answer.extend([6, 0, 0, 0, 0x13, 0x89, 0x9c, 0x40]);
        answer.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7]);
        answer
    }

    #[test]
    fn a_question_is_as_the_rfc_has_it() {
        let wanted = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5001);
        let lease = Duration::from_hours(2);
        let question = ROUTER.question(Ipv4Addr::new(10, 0, 0, 2), 5001, wanted, lease);
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x1c, 0x20];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
        expected.extend([7; 12]);
        expected.extend([6, 0, 0, 0, 0x13, 0x89, 0x13, 0x89]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(question[..], expected);
    }

    #[test]
    fn only_an_answer_to_this_very_question_counts() {
        let granted = ROUTER.read(&answer(), 5001).unwrap().unwrap();
        let external = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
        assert_eq!(granted, Granted { external, lifetime: Some(Duration::from_hours(2)) });
        assert!(ROUTER.read(&answer(), 5002).is_none(), "another port");
        // Version, kind, nonce at both ends, protocol, port: one bit of any makes it another's.
        for at in [0, 1, 24, 35, 36, 40, 41] {
            let mut other = answer();
            other[at] ^= 0x40;
            assert!(ROUTER.read(&other, 5001).is_none(), "byte {at}");
        }
        for length in 0..60 {
            assert!(ROUTER.read(&answer()[..length], 5001).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let with = |at: usize, byte: u8| {
            let mut changed = answer();
            changed[at] = byte;
            ROUTER.read(&changed, 5001).unwrap().unwrap_err().to_string()
        };
        assert_eq!(with(3, 1), MapError::Unsupported.to_string());
        assert_eq!(with(3, 2), "the router refuses: not authorized");
        assert_eq!(with(3, 13), "the router refuses: too many remote peers");
        assert_eq!(with(3, 99), "the router refuses: result 99");
        assert!(with(44, 1).contains("not IPv4"));
        let old = ROUTER.read(&[0, 0x80, 0, 1, 0, 0, 0, 9], 5001).unwrap();
        assert!(matches!(old, Err(MapError::Unsupported)));
        let mut others = answer();
        [others[3], others[24]] = [2, 0];
        assert!(ROUTER.read(&others, 5001).is_none(), "a refusal of what another asked");
        let mut nothing = answer();
        nothing[42..44].fill(0);
        assert!(matches!(ROUTER.read(&nothing, 5001), Some(Err(MapError::Nonsense(_)))));
    }
}
