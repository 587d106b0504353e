//! Addresses of this machine's network interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use getifaddrs::{InterfaceFlags, getifaddrs};

use super::outside::Family;
use crate::types::{AddressScope, host_of};

/// Maximum number of addresses that are told.
const MAX_ADDRESSES: usize = 16;

/// Addresses of this machine by which others may reach it, best first: public ones before private ones, of
/// these IPv6 before IPv4 (RFC 6724 with its default table), and of each kind first the one that the
/// operating system would itself use. Loopback and link-local addresses are left out, and so are interfaces
/// that are down. Of one IPv6 /64 a single address is told, since the others are mostly temporary
/// (RFC 8981). At most 16 are told; none, where the operating system refuses.
///
/// Costs microseconds and sends nothing.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let up = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::UP)
            && !interface.flags.contains(InterfaceFlags::LOOPBACK)
    });
    let found = up.filter_map(|interface| interface.address.ip_addr()).collect();
    ordered(found, &Family::BOTH.map(preferred))
}

/// Address from which this machine would talk to the outside. Sends nothing.
pub(crate) fn preferred(family: Family) -> Option<IpAddr> {
    // Documentation addresses, to which no network has a shorter way than the usual one.
    towards(match family {
        Family::V4 => SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 9),
        Family::V6 => SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 9),
    })
}

/// Address from which this machine would talk to `remote`. Sends nothing.
pub(super) fn towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Family::of(remote.ip()).unspecified(), 0)).ok()?;
    socket.connect(remote).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified()).then_some(own)
}

fn ordered(mut found: Vec<IpAddr>, preferred: &[Option<IpAddr>]) -> Vec<IpAddr> {
    found
        .retain(|ip| matches!(AddressScope::of(*ip), AddressScope::Public | AddressScope::Private));
    // Stable: what the operating system lists first stays first.
    found.sort_by_key(|ip| {
        let is_private = AddressScope::of(*ip) == AddressScope::Private;
        (is_private, ip.is_ipv4(), !preferred.contains(&Some(*ip)))
    });
    let mut told: Vec<IpAddr> = Vec::new();
    for ip in found {
        if told.len() < MAX_ADDRESSES && told.iter().all(|other| host_of(*other) != host_of(ip)) {
            told.push(ip);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_are_told_in_the_documented_order() {
        let found = ips(&[
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.2",
            "203.0.113.7",
            "::1",
            "fe80::1",
            "fd00::5",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8:0:1::1",
            "169.254.3.4",
            "0.0.0.0",
        ]);
        let preferred =
            [Some("192.168.1.2".parse().unwrap()), Some("2001:db8::2".parse().unwrap())];
        let told = ips(&[
            "2001:db8::2",
            "2001:db8:0:1::1",
            "203.0.113.7",
            "fd00::5",
            "192.168.1.2",
            "10.0.0.1",
        ]);
        assert_eq!(ordered(found, &preferred), told);
    }

    #[test]
    fn a_machine_with_many_addresses_tells_some() {
        let many = (0..200).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect();
        assert_eq!(ordered(many, &[]).len(), MAX_ADDRESSES);
    }

    #[test]
    fn this_machine_tells_nothing_that_others_cannot_dial() {
        for ip in addresses() {
            assert!(AddressScope::of(ip) >= AddressScope::Private, "{ip}");
        }
        // Where there is a way out at all, its address is among them.
        let ways_out = Family::BOTH.into_iter().filter_map(preferred);
        for ip in ways_out.filter(|ip| AddressScope::of(*ip) >= AddressScope::Private) {
            assert!(addresses().contains(&ip), "{ip}");
        }
        assert!(towards("127.0.0.2:9".parse().unwrap()).unwrap().is_loopback());
    }
}
