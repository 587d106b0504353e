//! Routers on loopback: right ones, which see the mapping made, renewed and removed, and hostile ones, from which no
//! candidate comes and which hold up nothing.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::*;
use crate::types::CandidateSource;

/// Ends a test that hangs; no test waits for it.
const HANG: Duration = Duration::from_mins(1);
const PORT: u16 = 5001;
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
const KIND: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// Lets time pass a hundred times as fast as it does, as far as the mapper has a say in it.
const QUICK: Pace = Pace {
    look: Duration::from_millis(50),
    retry: Duration::from_millis(100),
    soonest: Duration::from_millis(100),
    latest: Duration::from_millis(100),
};
/// Renews nothing before a test is over.
const SLOW: Pace = Pace { soonest: HANG, latest: HANG, retry: HANG, ..QUICK };

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(v4) = address else { panic!("{address} is IPv6") };
    v4
}

async fn socket() -> (UdpSocket, SocketAddrV4) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = v4(socket.local_addr().unwrap());
    (socket, address)
}

/// Starts a router that answers datagrams; each one that it hears is told.
async fn router(
    answers: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddrV4, mpsc::Receiver<Vec<u8>>) {
    let (socket, address) = socket().await;
    let (told, heard) = mpsc::channel(1024);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        for count in 0.. {
            // An error tells of an earlier answer that nobody waited for.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            for answer in answers(count, &buffer[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
            let _ = told.send(buffer[..length].to_vec()).await;
        }
    });
    (address, heard)
}

/// A right answer over PCP to a question over PCP.
fn pcp(question: &[u8], external: SocketAddrV4, lease: u32) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[1] = 0x81;
    answer[4..8].copy_from_slice(&lease.to_be_bytes());
    answer[8..24].fill(0);
    answer[42..44].copy_from_slice(&external.port().to_be_bytes());
    answer[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
    answer
}

fn is_pcp(question: &[u8]) -> bool {
    question[0] == 2
}

fn lease(question: &[u8]) -> u32 {
    let at = if is_pcp(question) { 4 } else { 8 };
    u32::from_be_bytes(question[at..at + 4].try_into().unwrap())
}

/// A right answer over NAT-PMP.
fn nat_pmp(question: &[u8]) -> Vec<u8> {
    let head = [0, 0x80 | question[1], 0, 0, 0, 0, 0, 9];
    let outside = OUTSIDE.port().to_be_bytes();
    match question[1] {
        0 => [&head[..], &OUTSIDE.ip().octets()].concat(),
        _ => [&head[..], &question[4..6], &outside, &question[8..12]].concat(),
    }
}

/// What a device says when it is asked.
type Device = Box<dyn Fn(&str, &str) -> Reply + Send + Sync>;

enum Reply {
    Http(u16, String),
    Raw(Vec<u8>),
    Silence,
}

/// Starts a device that answers searches and HTTP; each request is told as path or action, and body.
async fn device(
    answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static,
) -> (SocketAddrV4, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/root.xml", listener.local_addr().unwrap());
    let search = answering_searches(vec![located(&location)]).await;
    (search, serve(listener, answer))
}

fn located(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=9\r\nLOCATION: {location}\r\n\r\n").into()
}

async fn answering_searches(answers: Vec<Vec<u8>>) -> SocketAddrV4 {
    let (search, heard) = router(move |_, question| {
        assert!(question.starts_with(b"M-SEARCH * HTTP/1.1\r\n"));
        answers.clone()
    })
    .await;
    // Nobody reads what was heard, and the router goes on.
    drop(heard);
    search
}

fn serve(
    listener: TcpListener,
    answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static,
) -> mpsc::Receiver<(String, String)> {
    let (told, heard) = mpsc::channel(1024);
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (told, answer) = (told.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let Some((what, body)) = read_request(&mut stream).await else { return };
                let reply = answer(&what, &body);
                let _ = told.send((what, body)).await;
                match reply {
                    Reply::Silence => std::future::pending().await,
                    Reply::Raw(bytes) => drop(stream.write_all(&bytes).await),
                    Reply::Http(status, body) => {
                        let length = body.len();
                        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
                        let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
                    }
                }
            });
        }
    });
    heard
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| {
                head.lines().find_map(|line| {
                    let (field, value) = line.split_once(':')?;
                    field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length = field("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let action = field("soapaction");
                let action =
                    action.and_then(|a| Some(a.trim_matches('"').split_once('#')?.1.to_owned()));
                let path = head.split(' ').nth(1)?.to_owned();
                return Some((action.unwrap_or(path), body.to_owned()));
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

fn description() -> Reply {
    let service = format!(
        "<service><serviceType>{KIND}</serviceType><SCPDURL>/scpd.xml</SCPDURL>\
         <controlURL>/control</controlURL></service>"
    );
    let root = format!(
        "<?xml version=\"1.0\"?><root><device><serviceList><service><serviceType>x</serviceType>\
         <controlURL>/x</controlURL></service></serviceList><deviceList><device>\
         <serviceList>{service}</serviceList></device></deviceList></device></root>"
    );
    Reply::Http(200, root)
}

fn done(action: &str, inner: &str) -> Reply {
    // What has nothing inside is one tag, as miniupnpd writes it.
    let response = match inner {
        "" => format!("<u:{action}Response xmlns:u=\"{KIND}\"/>"),
        _ => format!("<u:{action}Response xmlns:u=\"{KIND}\">{inner}</u:{action}Response>"),
    };
    Reply::Http(200, format!("<s:Envelope><s:Body>{response}</s:Body></s:Envelope>"))
}

fn fault(code: u16) -> Reply {
    let error = format!("<UPnPError><errorCode>{code}</errorCode></UPnPError>");
    Reply::Http(500, format!("<s:Body><s:Fault><detail>{error}</detail></s:Fault></s:Body>"))
}

/// What a device that does everything says.
fn obliging(what: &str, _: &str) -> Reply {
    match what {
        "/root.xml" => description(),
        "GetExternalIPAddress" => {
            let ip = OUTSIDE.ip();
            done(what, &format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>"))
        }
        "AddPortMapping" | "DeletePortMapping" => done(what, ""),
        other => panic!("nobody asked for {other}"),
    }
}

/// Starts a mapper that finds these, and nothing else, around it.
fn mapper(
    router: Option<SocketAddrV4>,
    search: SocketAddrV4,
    pace: Pace,
) -> (PortMapper, watch::Receiver<Mappings>) {
    let (found, told) = watch::channel(Mappings::default());
    let interfaces = vec![(Ipv4Addr::LOCALHOST, router)];
    let look = move || Surroundings { interfaces: interfaces.clone(), search };
    (PortMapper::start_in(PORT, found, pace, look), told)
}

/// A place where nobody ever answers.
async fn nobody() -> (UdpSocket, SocketAddrV4) {
    socket().await
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(HANG, work).await.expect("the test hangs")
}

async fn told(told: &mut watch::Receiver<Mappings>) -> Mappings {
    in_time(told.changed()).await.unwrap();
    told.borrow_and_update().clone()
}

fn only(external: SocketAddrV4, source: CandidateSource) -> Mappings {
    let endpoint = SocketAddr::V4(external).into();
    Mappings { candidates: vec![CandidateDraft { endpoint, source }], ..Mappings::default() }
}

#[tokio::test]
async fn pcp_maps_renews_with_one_nonce_and_removes() {
    let (address, mut heard) = router(|_, q| vec![pcp(q, OUTSIDE, lease(q))]).await;
    let (_nobody, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(address), search, QUICK);
    assert_eq!(told(&mut found).await, only(OUTSIDE, CandidateSource::Pcp));
    let first = in_time(heard.recv()).await.unwrap();
    let renewal = in_time(heard.recv()).await.unwrap();
    assert_eq!((lease(&first), lease(&renewal)), (7200, 7200));
    assert_eq!(first[24..36], renewal[24..36], "the nonce");
    assert_ne!(first[24..36], [0; 12]);
    assert_eq!(renewal[42..44], OUTSIDE.port().to_be_bytes(), "the port that it has is asked for");
    assert_eq!(first[42..44], PORT.to_be_bytes());
    let mut last = in_time(heard.recv()).await.unwrap();
    assert!(!found.has_changed().unwrap(), "renewals are no news");
    in_time(mapper.stop()).await;
    while let Ok(question) = heard.try_recv() {
        last = question;
    }
    assert_eq!((lease(&last), &last[24..36]), (0, &first[24..36]), "it is removed");
}

#[tokio::test]
async fn who_knows_nat_pmp_alone_is_asked_so() {
    let answers = |_: usize, q: &[u8]| match q[0] {
        2 => vec![vec![0, 0x81, 0, 1, 0, 0, 0, 9]],
        _ => vec![nat_pmp(q)],
    };
    let (address, mut heard) = router(answers).await;
    let (_nobody, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(address), search, SLOW);
    assert_eq!(told(&mut found).await, only(OUTSIDE, CandidateSource::NatPmp));
    in_time(mapper.stop()).await;
    let mut questions = Vec::new();
    while let Ok(question) = heard.try_recv() {
        questions.push(question);
    }
    let [_, address, map, removal] = questions.as_slice() else { panic!("{questions:?}") };
    assert_eq!((address.as_slice(), lease(map), lease(removal)), (&[0, 0][..], 7200, 0));
}

#[tokio::test]
async fn upnp_maps_and_removes() {
    let (search, mut heard) = device(obliging).await;
    let (mapper, mut found) = mapper(None, search, SLOW);
    let external = SocketAddrV4::new(*OUTSIDE.ip(), PORT);
    assert_eq!(told(&mut found).await, only(external, CandidateSource::Upnp));
    in_time(mapper.stop()).await;
    let mut requests = Vec::new();
    while let Ok(request) = heard.try_recv() {
        requests.push(request);
    }
    let names: Vec<_> = requests.iter().map(|(what, _)| what.as_str()).collect();
    let actions = ["/root.xml", "GetExternalIPAddress", "AddPortMapping", "DeletePortMapping"];
    assert_eq!(names, actions);
    for part in [
        "<NewExternalPort>5001</NewExternalPort>",
        "<NewProtocol>TCP</NewProtocol>",
        "<NewInternalPort>5001</NewInternalPort>",
        "<NewInternalClient>127.0.0.1</NewInternalClient>",
        "<NewLeaseDuration>7200</NewLeaseDuration>",
    ] {
        assert!(requests[2].1.contains(part), "{part}");
    }
    assert!(requests[3].1.contains("<NewExternalPort>5001</NewExternalPort>"));
}

#[tokio::test]
async fn a_router_without_leases_is_asked_for_ever_once_and_another_port_where_one_is_taken() {
    let answer = |what: &str, body: &str| match what {
        "AddPortMapping" if !body.contains("<NewLeaseDuration>0<") => fault(725),
        "AddPortMapping" if body.contains("<NewExternalPort>5001<") => fault(718),
        _ => obliging(what, body),
    };
    let (search, mut heard) = device(answer).await;
    let (mapper, mut found) = mapper(None, search, QUICK);
    let first = told(&mut found).await;
    let port = first.candidates[0].endpoint.port();
    assert!(port != PORT && port >= 32_768, "{first:?}");
    let mut additions = Vec::new();
    while additions.len() < 4 {
        let (what, body) = in_time(heard.recv()).await.unwrap();
        if what == "AddPortMapping" {
            additions.push(body);
        }
    }
    // Asked with a lease once, then for the own port, then for the other one: that is also the renewal.
    let same = format!("<NewExternalPort>{port}<");
    let shown: Vec<_> = additions.iter().map(|body| body.contains(&same)).collect();
    assert_eq!(shown, [false, false, true, true]);
    assert!(additions[3].contains("<NewLeaseDuration>0<"));
    in_time(mapper.stop()).await;
    let mut removal = None;
    while let Ok((what, body)) = heard.try_recv() {
        removal = (what == "DeletePortMapping").then_some(body);
    }
    assert!(removal.is_some_and(|body| body.contains(&same)), "what never ends is deleted");
}

#[tokio::test]
async fn a_renewal_that_fails_is_followed_by_a_new_mapping() {
    let count = AtomicUsize::new(0);
    let answers = move |_: usize, q: &[u8]| {
        // It maps once over PCP, then refuses; over NAT-PMP it always does.
        match (is_pcp(q), count.fetch_add(1, Ordering::Relaxed)) {
            (true, 0) => vec![pcp(q, OUTSIDE, 7200)],
            (true, _) => {
                let mut refusal = pcp(q, OUTSIDE, 7200);
                refusal[3] = 2;
                vec![refusal]
            }
            (false, _) => vec![nat_pmp(q)],
        }
    };
    let (address, _heard) = router(answers).await;
    let (_nobody, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(address), search, QUICK);
    assert_eq!(told(&mut found).await, only(OUTSIDE, CandidateSource::Pcp));
    assert_eq!(told(&mut found).await, only(OUTSIDE, CandidateSource::NatPmp));
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn a_router_behind_another_nat_gives_no_candidate() {
    for ip in ["100.64.0.9", "10.0.0.1", "192.168.1.7"] {
        let external = SocketAddrV4::new(ip.parse().unwrap(), PORT);
        let (address, mut heard) = router(move |_, q| vec![pcp(q, external, lease(q))]).await;
        let (_nobody, search) = nobody().await;
        let (mapper, mut found) = mapper(Some(address), search, SLOW);
        let told = told(&mut found).await;
        assert!(told.candidates.is_empty(), "{told:?}");
        assert!(
            told.failed["pcp"].contains("behind another NAT") && told.failed["pcp"].contains(ip)
        );
        in_time(mapper.stop()).await;
        heard.try_recv().unwrap();
        assert_eq!(lease(&heard.try_recv().unwrap()), 0, "it is removed all the same");
    }
}

#[tokio::test]
async fn another_network_is_asked_anew_and_the_old_one_is_left_clean() {
    let (first, mut at_first) = router(|_, q| vec![pcp(q, OUTSIDE, lease(q))]).await;
    let other = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 1);
    let (second, _at_second) = router(move |_, q| vec![pcp(q, other, lease(q))]).await;
    let (_nobody, search) = nobody().await;
    let (found, mut told_of) = watch::channel(Mappings::default());
    let (moved, has_moved) = watch::channel(false);
    let look = move || {
        let router = if *has_moved.borrow() { second } else { first };
        Surroundings { interfaces: vec![(Ipv4Addr::LOCALHOST, Some(router))], search }
    };
    let mapper = PortMapper::start_in(PORT, found, Pace { look: QUICK.look, ..SLOW }, look);
    assert_eq!(told(&mut told_of).await, only(OUTSIDE, CandidateSource::Pcp));
    moved.send(true).unwrap();
    assert_eq!(told(&mut told_of).await, only(other, CandidateSource::Pcp));
    at_first.try_recv().unwrap();
    assert_eq!(lease(&at_first.try_recv().unwrap()), 0);
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn noise_is_passed_over_and_the_right_answer_counts() {
    let answers = |_: usize, q: &[u8]| {
        let liar = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 66), 6666);
        let mut wrong_nonce = pcp(q, liar, 7200);
        wrong_nonce[24] ^= 1;
        let mut wrong_port = pcp(q, liar, 7200);
        wrong_port[41] ^= 1;
        let echo = q.to_vec();
        let cut = pcp(q, liar, 7200)[..59].to_vec();
        let noise = vec![vec![], vec![2], vec![0xff; 1500], echo, cut, wrong_nonce, wrong_port];
        noise.into_iter().chain([pcp(q, OUTSIDE, lease(q))]).collect()
    };
    let (address, _heard) = router(answers).await;
    let (_nobody, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(address), search, SLOW);
    assert_eq!(told(&mut found).await, only(OUTSIDE, CandidateSource::Pcp));
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn a_flood_of_wrong_answers_ends_in_time_and_gives_nothing() {
    let (socket, address) = socket().await;
    let socket = Arc::new(socket);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if !is_pcp(&buffer[..length]) {
                continue;
            }
            let mut lie = pcp(&buffer[..length], OUTSIDE, 7200);
            lie[30] ^= 0xff;
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                loop {
                    let _ = socket.send_to(&lie, from).await;
                    tokio::task::yield_now().await;
                }
            });
        }
    });
    let (_nobody, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(address), search, SLOW);
    let told = told(&mut found).await;
    assert!(told.candidates.is_empty(), "{told:?}");
    assert_eq!(told.failed["pcp"], "no answer");
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn where_nobody_answers_that_is_said_and_stopping_is_bounded() {
    let (_first, router) = nobody().await;
    let (_second, search) = nobody().await;
    let (mapper, mut found) = mapper(Some(router), search, QUICK);
    let told = told(&mut found).await;
    let failed: Vec<_> = told.failed.iter().map(|(way, why)| (*way, why.as_str())).collect();
    let upnp = "no router answers the search";
    assert_eq!(failed, [("nat-pmp", "no answer"), ("pcp", "no answer"), ("upnp", upnp)]);
    assert!(told.candidates.is_empty());
    timeout(REMOVAL_TIME * 2, mapper.stop()).await.expect("it stops, whatever is under way");
}

#[tokio::test]
async fn hostile_devices_give_nothing_and_the_right_one_is_found_behind_them() {
    // What each of them says when it is asked to describe itself.
    let padding = "x".repeat(2 * 1024 * 1024);
    let raw = |text: String| move |_: &str, _: &str| Reply::Raw(text.clone().into_bytes());
    let deep = "<a>".repeat(20_000);
    let oversize = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{padding}", padding.len());
    let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let mut locations = Vec::new();
    let mut all_heard = Vec::new();
    for reply in [oversize, headers, "\u{0}\u{1}garbage\r\n\r\n".to_owned(), String::new()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        locations.push(listener.local_addr().unwrap());
        all_heard.push(serve(listener, raw(reply)));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    locations.push(listener.local_addr().unwrap());
    all_heard.push(serve(listener, move |_, _| Reply::Http(200, deep.clone())));
    let right = TcpListener::bind("127.0.0.1:0").await.unwrap();
    locations.push(right.local_addr().unwrap());
    all_heard.push(serve(right, obliging));
    let answers = locations.iter().map(|at| located(&format!("http://{at}/root.xml"))).collect();
    let search = answering_searches(answers).await;
    let (mapper, mut found) = mapper(None, search, SLOW);
    let external = SocketAddrV4::new(*OUTSIDE.ip(), PORT);
    assert_eq!(told(&mut found).await, only(external, CandidateSource::Upnp));
    for heard in &mut all_heard {
        assert!(heard.try_recv().is_ok(), "each was asked");
    }
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn a_device_that_never_answers_http_ends_in_time() {
    let (search, _heard) = device(|_, _| Reply::Silence).await;
    let (mapper, mut found) = mapper(None, search, SLOW);
    let told = told(&mut found).await;
    assert_eq!(told.failed["upnp"], "no answer");
    assert!(told.candidates.is_empty());
    in_time(mapper.stop()).await;
}

#[tokio::test]
async fn wrong_answers_of_a_service_give_nothing() {
    let ip = |text: &str| {
        let text = text.to_owned();
        move |what: &str, body: &str| match what {
            "GetExternalIPAddress" => {
                done(what, &format!("<NewExternalIPAddress>{text}</NewExternalIPAddress>"))
            }
            _ => obliging(what, body),
        }
    };
    let cases: Vec<Device> = vec![
        Box::new(ip("")),
        Box::new(ip("0.0.0.0")),
        Box::new(ip("999.1.1.1")),
        Box::new(ip("2001:db8::1")),
        // Success, but of something else.
        Box::new(|what, body| match what {
            "AddPortMapping" => done("DeletePortMapping", ""),
            _ => obliging(what, body),
        }),
        Box::new(|what, body| match what {
            "AddPortMapping" => fault(501),
            _ => obliging(what, body),
        }),
        Box::new(|what, body| match what {
            "AddPortMapping" => fault(718),
            _ => obliging(what, body),
        }),
    ];
    let each = cases.into_iter().map(|answer| async move {
        let (search, _heard) = device(answer).await;
        let (mapper, mut found) = mapper(None, search, SLOW);
        let told = told(&mut found).await;
        assert!(told.candidates.is_empty() && told.failed.contains_key("upnp"), "{told:?}");
        in_time(mapper.stop()).await;
    });
    join_all(each).await;
}
