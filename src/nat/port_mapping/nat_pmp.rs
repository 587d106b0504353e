//! NAT-PMP (RFC 6886): one message that asks for the address outside, and one that maps, renews and removes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::ask::{Granted, MapError, ask, open};

const VERSION: u8 = 0;
const EXTERNAL_ADDRESS: u8 = 0;
const MAP_TCP: u8 = 2;
const ANSWER: u8 = 0x80;

/// Router that is asked over NAT-PMP.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) address: SocketAddrV4,
}

impl Router {
    /// Maps the port, or renews its mapping.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn map(
        &self,
        port: u16,
        external: Option<SocketAddrV4>,
        lease: Duration,
    ) -> Result<Granted, MapError> {
        let (socket, _) = open(self.address).await?;
        let ip = ask(&socket, &[VERSION, EXTERNAL_ADDRESS], read_address).await?;
        let wanted = external.map_or(port, |external| external.port());
        let question = question(port, wanted, lease);
        let (port, seconds) = ask(&socket, &question, |data| read_mapping(data, port)).await?;
        if port == 0 || seconds == 0 {
            return Err(MapError::Nonsense("nothing is mapped"));
        }
        let lifetime = Some(Duration::from_secs(seconds.into()));
        Ok(Granted { external: SocketAddrV4::new(ip, port), lifetime })
    }

    /// Removes the mapping of the port.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn remove(&self, port: u16) -> Result<(), MapError> {
        let (socket, _) = open(self.address).await?;
        let question = question(port, 0, Duration::ZERO);
        ask(&socket, &question, |data| read_mapping(data, port)).await.map(|_| ())
    }
}

fn question(port: u16, external: u16, lease: Duration) -> [u8; 12] {
    let mut message = [0; 12];
    let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
    [message[0], message[1]] = [VERSION, MAP_TCP];
    message[4..6].copy_from_slice(&port.to_be_bytes());
    message[6..8].copy_from_slice(&external.to_be_bytes());
    message[8..12].copy_from_slice(&seconds.to_be_bytes());
    message
}

fn read_address(data: &[u8]) -> Option<Result<Ipv4Addr, MapError>> {
    let body = match read_head(data, EXTERNAL_ADDRESS)? {
        Ok(body) => body,
        Err(error) => return Some(Err(error)),
    };
    let ip = <[u8; 4]>::try_from(body.get(..4)?).ok()?;
    Some(Ok(ip.into()))
}

/// Reads the port outside, and the seconds for which it counts.
fn read_mapping(data: &[u8], port: u16) -> Option<Result<(u16, u32), MapError>> {
    let body = match read_head(data, MAP_TCP)? {
        Ok(body) => body,
        Err(error) => return Some(Err(error)),
    };
    let (&inside, rest) = body.split_first_chunk()?;
    let (&outside, rest) = rest.split_first_chunk()?;
    let mapped = (u16::from_be_bytes(outside), u32::from_be_bytes(*rest.first_chunk()?));
    (u16::from_be_bytes(inside) == port).then_some(Ok(mapped))
}

/// Returns what follows the head; `None` where it is no answer to a question of this kind.
fn read_head(data: &[u8], kind: u8) -> Option<Result<&[u8], MapError>> {
    let (head, body) = data.split_at_checked(8)?;
    if head[0] != VERSION || head[1] != ANSWER | kind {
        return None;
    }
    Some(match u16::from_be_bytes([head[2], head[3]]) {
        0 => Ok(body),
        1 | 5 => Err(MapError::Unsupported),
        2 => Err(MapError::Refused("not authorized".to_owned())),
        3 => Err(MapError::Refused("network failure".to_owned())),
        4 => Err(MapError::Refused("no resources".to_owned())),
        result => Err(MapError::Refused(format!("result {result}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: [u8; 12] = [0, 0x80, 0, 0, 0, 0, 0, 9, 198, 51, 100, 7];
    const MAPPING: [u8; 16] = [0, 0x82, 0, 0, 0, 0, 0, 9, 0x13, 0x89, 0x9c, 0x40, 0, 0, 0x1c, 0x20];

    #[test]
    fn messages_are_as_the_rfc_has_them() {
        let asked = question(5001, 5001, Duration::from_hours(2));
        assert_eq!(asked, [0, 2, 0, 0, 0x13, 0x89, 0x13, 0x89, 0, 0, 0x1c, 0x20]);
        let ip = read_address(&ADDRESS).unwrap().unwrap();
        assert_eq!(ip, Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!(read_mapping(&MAPPING, 5001).unwrap().unwrap(), (40_000, 7200));
    }

    #[test]
    fn what_is_no_answer_is_passed_over_and_refusals_are_told_apart() {
        assert!(read_mapping(&MAPPING, 5002).is_none(), "another port");
        assert!(read_mapping(&ADDRESS, 5001).is_none() && read_address(&MAPPING).is_none());
        for length in 0..ADDRESS.len() {
            assert!(read_address(&ADDRESS[..length]).is_none());
        }
        for length in 0..MAPPING.len() {
            assert!(read_mapping(&MAPPING[..length], 5001).is_none());
        }
        let refused = |result: u8| {
            let mut answer = MAPPING;
            answer[3] = result;
            read_mapping(&answer[..8], 5001).unwrap().unwrap_err().to_string()
        };
        assert_eq!(refused(1), MapError::Unsupported.to_string());
        assert_eq!(refused(2), "the router refuses: not authorized");
        assert_eq!(refused(77), "the router refuses: result 77");
    }
}
