//! UPnP (Internet Gateway Device): a search in the own network, the description of what answers, and three
//! actions of its service.
//!
//! Contract: who answers describes itself and nobody else: an answer that names another address than it comes
//! from is passed over, and so is one from an address outside of the own network, so that no device makes this
//! node ask another. At most [`MAX_DEVICES`] devices are looked at in one search, and [`MAX_SERVICES`] services of
//! each.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Method, Request, StatusCode};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::ask::{Granted, MapError};
use super::http::{Answer, request};
use super::xml::{elements, value};
use crate::types::AddressScope;

/// Address at which devices listen for searches.
pub(super) const SEARCH: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Time after which a search is over, and delay before it is sent again.
const SEARCH_TIME: Duration = Duration::from_secs(3);
const SEARCH_AGAIN: Duration = Duration::from_millis(500);
/// Number of routers that a search may pass (UPnP Device Architecture 1.1, section 1.3.2).
const SEARCH_TTL: u32 = 2;
/// Devices that are looked for.
const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];
/// Services that map ports.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
const MAX_DEVICES: usize = 8;
const MAX_SERVICES: usize = 4;
/// Maximum size of an answer to a search.
const MAX_ANSWER_BYTES: usize = 1500;
/// Number of ports outside that are tried when the own one is taken.
const OTHER_PORTS: u32 = 3;
/// Name under which routers list the mapping.
const DESCRIPTION: &str = "sorcha-peer";

const CONFLICT: u16 = 718;
const ONLY_PERMANENT: u16 = 725;

/// Search for devices by one interface.
#[derive(Debug)]
pub(super) struct Search {
    socket: UdpSocket,
    to: SocketAddrV4,
    until: Instant,
    again: Option<Instant>,
    looked_at: BTreeSet<Device>,
}

/// Device that answered a search.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    address: SocketAddrV4,
    /// Path of its description.
    path: String,
}

/// Service of a device that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    address: SocketAddrV4,
    control: String,
    kind: &'static str,
    /// Port outside that was asked for last.
    external_port: u16,
    /// True: the router makes no mapping that ends.
    is_permanent: bool,
}

/// Reason why an action failed.
enum ActionError {
    /// The service says so.
    Code(u16),
    Other(MapError),
}

impl Search {
    /// Begins a search.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) async fn begin(interface: Ipv4Addr, to: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind((interface, 0)).await?;
        SockRef::from(&socket).set_multicast_if_v4(&interface)?;
        socket.set_multicast_ttl_v4(SEARCH_TTL)?;
        let now = Instant::now();
        let (until, again) = (now + SEARCH_TIME, Some(now + SEARCH_AGAIN));
        let search = Self { socket, to, until, again, looked_at: BTreeSet::new() };
        search.send().await?;
        Ok(search)
    }

    /// The next device that was not told yet; `None` when the search is over.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) async fn next(&mut self) -> io::Result<Option<Device>> {
        let mut buffer = [0; MAX_ANSWER_BYTES];
        while self.looked_at.len() < MAX_DEVICES && Instant::now() < self.until {
            if self.again.is_some_and(|again| again <= Instant::now()) {
                self.again = None;
                self.send().await?;
            }
            let until = self.again.unwrap_or(self.until);
            let Ok(heard) = timeout_at(until, self.socket.recv_from(&mut buffer)).await else {
                continue;
            };
            let (length, from) = heard?;
            if let Some(device) = Device::of_answer(&buffer[..length], from)
                && self.looked_at.insert(device.clone())
            {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    async fn send(&self) -> io::Result<()> {
        for target in TARGETS {
            let search = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n",
                self.to
            );
            self.socket.send_to(search.as_bytes(), self.to).await?;
        }
        Ok(())
    }
}

impl Device {
    /// Reads an answer; `None` where it is none, or speaks of somebody else.
    fn of_answer(answer: &[u8], from: SocketAddr) -> Option<Self> {
        let IpAddr::V4(from) = from.ip() else { return None };
        if !matches!(AddressScope::of(from.into()), AddressScope::Private | AddressScope::Loopback)
        {
            return None;
        }
        let mut lines = std::str::from_utf8(answer).ok()?.lines();
        let is_success = |line: &str| line.starts_with("HTTP/1.") && line.contains(" 200");
        lines.next().filter(|line| is_success(line))?;
        let location = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
        })?;
        let (address, path) = place(location)?;
        (*address.ip() == from).then_some(Self { address, path })
    }

    /// Reads the description of the device.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn services(&self) -> Result<Vec<Service>, MapError> {
        let get = Request::get(&self.path).body(String::new()).map_err(io::Error::other)?;
        let Answer { status, body, .. } = request(self.address, get).await?;
        if status != StatusCode::OK {
            return Err(MapError::Nonsense("it has no description"));
        }
        let services = elements(&body, "service").filter_map(|text| self.service(text));
        let services: Vec<_> = services.take(MAX_SERVICES).collect();
        if services.is_empty() {
            return Err(MapError::Nonsense("it has no service that maps ports"));
        }
        Ok(services)
    }

    fn service(&self, text: &str) -> Option<Service> {
        let kind = value(text, "serviceType")?;
        let kind = *SERVICES.iter().find(|known| **known == kind)?;
        let control = value(text, "controlURL")?;
        let (address, control) = if control.contains("://") {
            place(&control)?
        } else {
            let base = if control.starts_with('/') { "" } else { self.folder() };
            (self.address, format!("{base}{control}").parse::<PathAndQuery>().ok()?.to_string())
        };
        if address.ip() != self.address.ip() {
            return None;
        }
        Some(Service { address, control, kind, external_port: 0, is_permanent: false })
    }

    /// Path of what the description stands in, with a slash at the end.
    fn folder(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rfind('/').map_or("/", |at| &path[..=at])
    }
}

impl Service {
    /// Maps the port, or renews its mapping.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn map(
        &mut self,
        port: u16,
        external: Option<SocketAddrV4>,
        lease: Duration,
    ) -> Result<Granted, MapError> {
        let answer = self.act("GetExternalIPAddress", "").await.map_err(ActionError::told)?;
        let ip = value(&answer.body, "NewExternalIPAddress").and_then(|ip| ip.parse().ok());
        let ip: Ipv4Addr = ip.ok_or(MapError::Nonsense("it names no address outside"))?;
        if ip.is_unspecified() {
            return Err(MapError::Refused("it has no address outside".to_owned()));
        }
        self.external_port = external.map_or(port, |external| external.port());
        let mut others = OTHER_PORTS;
        loop {
            let seconds = if self.is_permanent { 0 } else { lease.as_secs() };
            match self.add(port, answer.own, seconds).await {
                Ok(()) => {
                    let external = SocketAddrV4::new(ip, self.external_port);
                    return Ok(Granted { external, lifetime: (seconds > 0).then_some(lease) });
                }
                Err(ActionError::Code(ONLY_PERMANENT)) if !self.is_permanent => {
                    self.is_permanent = true;
                }
                Err(ActionError::Code(CONFLICT)) if others > 0 => {
                    others -= 1;
                    self.external_port = any_port();
                }
                Err(error) => return Err(error.told()),
            }
        }
    }

    /// Removes the mapping.
    ///
    /// # Errors
    /// [`MapError`].
    pub(super) async fn remove(&self) -> Result<(), MapError> {
        let arguments = format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort>\
             <NewProtocol>TCP</NewProtocol>",
            self.external_port
        );
        self.act("DeletePortMapping", &arguments).await.map(|_| ()).map_err(ActionError::told)
    }

    async fn add(&self, port: u16, own: Ipv4Addr, seconds: u64) -> Result<(), ActionError> {
        let arguments = format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort>\
             <NewProtocol>TCP</NewProtocol><NewInternalPort>{port}</NewInternalPort>\
             <NewInternalClient>{own}</NewInternalClient><NewEnabled>1</NewEnabled>\
             <NewPortMappingDescription>{DESCRIPTION}</NewPortMappingDescription>\
             <NewLeaseDuration>{seconds}</NewLeaseDuration>",
            self.external_port
        );
        self.act("AddPortMapping", &arguments).await.map(|_| ())
    }

    async fn act(&self, action: &str, arguments: &str) -> Result<Answer, ActionError> {
        let kind = self.kind;
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n\
             <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{kind}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let post = Request::builder()
            .method(Method::POST)
            .uri(&self.control)
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header(HeaderName::from_static("soapaction"), format!("\"{kind}#{action}\""))
            .body(body)
            .map_err(|error| MapError::Io(io::Error::other(error)))?;
        let answer = request(self.address, post).await?;
        let has_done = elements(&answer.body, &format!("{action}Response")).next().is_some();
        if answer.status == StatusCode::OK && has_done {
            return Ok(answer);
        }
        let code = value(&answer.body, "errorCode").and_then(|code| code.parse().ok());
        Err(match code {
            Some(code) => ActionError::Code(code),
            None => MapError::Nonsense("it is no answer to what was asked").into(),
        })
    }
}

impl ActionError {
    fn told(self) -> MapError {
        let name = match self {
            Self::Other(error) => return error,
            Self::Code(402) => "invalid arguments",
            Self::Code(501) => "action failed",
            Self::Code(606) => "not authorized",
            Self::Code(CONFLICT) => "the port is taken",
            Self::Code(ONLY_PERMANENT) => "only permanent mappings",
            Self::Code(code) => return MapError::Refused(format!("error {code}")),
        };
        MapError::Refused(name.to_owned())
    }
}

impl From<MapError> for ActionError {
    fn from(error: MapError) -> Self {
        Self::Other(error)
    }
}

/// Host and path of a URL whose host is an IPv4 address.
fn place(url: &str) -> Option<(SocketAddrV4, String)> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme() != Some(&Scheme::HTTP) {
        return None;
    }
    let ip: Ipv4Addr = uri.host()?.parse().ok()?;
    // A port that is none would otherwise count as not given.
    let is_given = uri.authority()?.as_str().contains(':');
    let port = if is_given { uri.port_u16()? } else { 80 };
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    (port != 0).then(|| (SocketAddrV4::new(ip, port), path.to_owned()))
}

/// A port that nothing well-known has.
fn any_port() -> u16 {
    let [a, b, ..] = getrandom::u32().unwrap_or_default().to_be_bytes();
    32_768 | u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(location: &str, from: &str) -> Option<Device> {
        let answer = format!("HTTP/1.1 200 OK\r\nST: x\r\nlocation:{location}\r\n\r\n");
        Device::of_answer(answer.as_bytes(), format!("{from}:1900").parse().unwrap())
    }

    #[test]
    fn who_answers_speaks_of_itself_alone() {
        let device = heard(" http://192.168.1.1:5000/root.xml?x=1", "192.168.1.1").unwrap();
        assert_eq!(device.address, "192.168.1.1:5000".parse().unwrap());
        assert_eq!(device.path, "/root.xml?x=1");
        assert_eq!(heard("http://10.0.0.1", "10.0.0.1").unwrap().path, "/");
        for (location, from) in [
            ("http://192.168.1.2:5000/root.xml", "192.168.1.1"),
            ("http://198.51.100.1/root.xml", "198.51.100.1"),
            ("http://router.lan/root.xml", "192.168.1.1"),
            ("http://[fe80::1]/root.xml", "192.168.1.1"),
            ("https://192.168.1.1/root.xml", "192.168.1.1"),
            ("http://192.168.1.1:0/root.xml", "192.168.1.1"),
            ("http://192.168.1.1:99999/", "192.168.1.1"),
            ("", "192.168.1.1"),
        ] {
            assert_eq!(heard(location, from), None, "{location} from {from}");
        }
        let from: SocketAddr = "192.168.1.1:1900".parse().unwrap();
        let noise: [&[u8]; 4] =
            [b"", b"\xff\xfe", b"HTTP/1.1 200 OK\r\n", b"NOTIFY * HTTP/1.1\r\n"];
        for noise in noise {
            assert_eq!(Device::of_answer(noise, from), None);
        }
    }

    #[test]
    fn a_service_is_controlled_where_its_device_is() {
        let device = Device {
            address: "192.168.1.1:5000".parse().unwrap(),
            path: "/upnp/root.xml?v=1".to_owned(),
        };
        let control = |kind: &str, url: &str| {
            let text = format!(
                "<serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>\
                 <SCPDURL>/x</SCPDURL><controlURL> {url} </controlURL>"
            );
            let found = device.service(&text)?;
            Some(format!("{}{}", found.address, found.control))
        };
        let ip = "WANIPConnection:1";
        let at = |place: &str| Some(format!("192.168.1.1{place}"));
        assert_eq!(control(ip, "/ctl?a&amp;b"), at(":5000/ctl?a&b"));
        assert_eq!(control(ip, "ctl"), at(":5000/upnp/ctl"));
        assert_eq!(control(ip, "http://192.168.1.1:80/c"), at(":80/c"));
        assert_eq!(control("WANPPPConnection:1", "/c"), at(":5000/c"));
        for (kind, url) in [
            (ip, "http://192.168.1.2/c"),
            (ip, "http://198.51.100.1/c"),
            (ip, "https://192.168.1.1/c"),
            (ip, "/c\r\nx: y"),
            ("Layer3Forwarding:1", "/c"),
            ("WANIPConnection:9", "/c"),
        ] {
            assert_eq!(control(kind, url), None, "{kind} {url}");
        }
    }
}
