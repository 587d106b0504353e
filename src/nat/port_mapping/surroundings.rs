//! Network around this machine, as far as it matters to port mapping.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::upnp::SEARCH;
use crate::nat::interfaces::{addresses, towards};
use crate::types::AddressScope;

/// Port of routers that speak NAT-PMP or PCP.
const ROUTER_PORT: u16 = 5351;
/// Address at which a router on the way answers PCP, whichever it is (RFC 7723).
const ANYCAST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 9);
/// Maximum number of interfaces by which a router is looked for.
const MAX_INTERFACES: usize = 4;
/// The system's table of routes.
const ROUTES: &str = "/proc/net/route";

/// Interfaces behind which a router may be, and where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Own addresses of private scope, each with the router that is asked over PCP and NAT-PMP by way of it. Who
    /// has a public address needs no mapping for that.
    pub(super) interfaces: Vec<(Ipv4Addr, Option<SocketAddrV4>)>,
    /// Address at which devices are searched.
    pub(super) search: SocketAddrV4,
}

impl Surroundings {
    /// Looks around. Sends nothing.
    pub(super) fn look() -> Self {
        // Small, and made by the kernel while it is read.
        let routes = std::fs::read_to_string(ROUTES).unwrap_or_default();
        let gateway = default_gateway(&routes).unwrap_or(ANYCAST);
        let router = SocketAddrV4::new(gateway, ROUTER_PORT);
        let by = towards(SocketAddr::V4(router));
        let own = addresses().into_iter().filter_map(|ip| match ip {
            IpAddr::V4(v4) if AddressScope::of(ip) == AddressScope::Private => Some(v4),
            _ => None,
        });
        let interfaces = own.map(|own| (own, (by == Some(IpAddr::V4(own))).then_some(router)));
        let mut interfaces: Vec<_> = interfaces.collect();
        // The one with the router is not what is left out, and the order changes nothing.
        interfaces.sort_by_key(|(own, router)| (router.is_none(), *own));
        interfaces.truncate(MAX_INTERFACES);
        Self { interfaces, search: SEARCH }
    }
}

/// The gateway of the best default route, in Linux's table.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    const UP_AND_GATEWAY: u32 = 3;
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, destination, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else {
            return None;
        };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        let is_default = hex(destination)? == 0 && hex(mask)? == 0;
        if !is_default || hex(flags)? & UP_AND_GATEWAY != UP_AND_GATEWAY {
            return None;
        }
        // Bytes as they lie in memory, printed as a number of this machine.
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        Some((metric.parse::<u32>().ok()?, gateway))
    };
    routes.lines().filter_map(read).min().map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_gateway_is_that_of_the_best_default_route() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
        let wifi = "wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        let cable = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let link = "eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        let half = "tun0\t00000000\t0900000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n";
        let direct = "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
        let table = format!("{head}{wifi}{cable}{link}{half}{direct}");
        assert_eq!(default_gateway(&table), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(default_gateway(&format!("{head}{wifi}")), Some([192, 168, 2, 1].into()));
        for none in [head, link, "", "x", "a b c d e f g h"] {
            assert_eq!(default_gateway(none), None, "{none}");
        }
    }

    #[test]
    fn looking_around_finds_private_addresses_only() {
        let found = Surroundings::look();
        assert!(found.interfaces.len() <= MAX_INTERFACES);
        for (own, _) in found.interfaces {
            assert_eq!(AddressScope::of(own.into()), AddressScope::Private);
        }
    }
}
