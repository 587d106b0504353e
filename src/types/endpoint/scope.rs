//! What an IP address says about who may reach it, and whose it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reach of an address; decides which addresses may be believed from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressScope {
    /// Cannot be dialled at all: unspecified, multicast, broadcast, link-local.
    Unusable,
    /// Only this machine.
    Loopback,
    /// Only this site: RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// Anywhere, or a DNS name.
    Public,
}

impl AddressScope {
    /// Scope of one IP address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Self::of_v4(v4),
                None => Self::of_v6(v6),
            },
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, ..] = ip.octets();
        if ip.is_loopback() {
            Self::Loopback
        } else if a == 0 || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local() {
            Self::Unusable
        } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let first = ip.segments()[0];
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_unspecified() || ip.is_multicast() || first & 0xffc0 == 0xfe80 {
            Self::Unusable
        } else if first & 0xfe00 == 0xfc00 {
            Self::Private
        } else {
            Self::Public
        }
    }
}

/// Address that counts as one host: an IPv4 address, or the /64 of an IPv6 address, the least that
/// its owner has. All hosts of all attached links share the /64 of link-local addresses, so of these
/// each is one.
#[cfg_attr(
    not(any(test, feature = "node", feature = "grpc", feature = "unstable-core")),
    allow(dead_code)
)]
pub(crate) fn host_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => v6.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// The socket address in the one spelling that is compared and shown: an IPv4-mapped IPv6 address is the
/// IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // What else an IPv6 socket address holds, the scope of a link-local one, stays.
        IpAddr::V6(_) => address,
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
    }
}

/// Keeps the order within a family and what is first, but never has one family twice in a row while the other
/// has any left: one whole family is often a black hole.
#[cfg_attr(
    not(any(test, feature = "node", feature = "grpc", feature = "unstable-core")),
    allow(dead_code)
)]
pub(crate) fn alternate_families<T>(all: Vec<T>, is_v6: impl Fn(&T) -> bool) -> Vec<T> {
    let total = all.len();
    let first_is_v6 = all.first().is_some_and(&is_v6);
    let (first, second): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| is_v6(one) == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(total);
    while ordered.len() < total {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_keep_their_order() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let ordered = |list: &[&str]| alternate_families(parse(list), SocketAddr::is_ipv6);
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"];
        let wanted = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"];
        assert_eq!(ordered(&given), parse(&wanted));
        assert_eq!(ordered(&["1.0.0.1:1", "[::1]:1"]), parse(&["1.0.0.1:1", "[::1]:1"]));
        assert_eq!(ordered(&[]), []);
    }
}
