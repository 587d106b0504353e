//! A real TURN server, coturn, for tests here and in `tests/node`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Time for the server to listen.
const READY: Duration = Duration::from_mins(1);

/// Running coturn, with a port for TURN and one for TURN over TLS.
pub(crate) struct Coturn {
    process: Child,
    ports: [u16; 2],
    _dir: TempDir,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coturn {
    /// Starts one; `None`, said aloud: it is not installed.
    pub(crate) async fn start(more: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        let ports = [free_port().await, free_port().await];
        let file = |name: &str| dir.path().join(name).display().to_string();
        let flags = [
            "-n --no-cli --no-udp --no-dtls --allow-loopback-peers --lt-cred-mech".to_owned(),
            "--listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --realm=example.org --user=me:s3cret"
                .to_owned(),
            format!("--listening-port={} --tls-listening-port={}", ports[0], ports[1]),
            format!("--cert={} --pkey={}", file("cert.pem"), file("key.pem")),
            format!("--userdb={} --pidfile={} --log-file=stdout", file("db"), file("pid")),
        ];
        let flags = flags.iter().flat_map(|flags| flags.split(' ')).chain(more.iter().copied());
        let mut command = Command::new("turnserver");
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(process) = command.spawn() else {
            eprintln!("SKIPPED: no turnserver (coturn) is installed");
            return None;
        };
        let server = Self { process, ports, _dir: dir };
        for port in ports {
            let listening = async {
                while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(READY, listening).await.expect("coturn listens");
        }
        Some(server)
    }

    /// The server as a host names it.
    pub(crate) fn account(&self, scheme: &str, password: &str) -> String {
        let port = self.ports[usize::from(scheme == "turns")];
        format!("{scheme}:me:{password}@127.0.0.1:{port}")
    }
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Writes a certificate and its key.
fn certificate(dir: &Path) {
    let pem = |label: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: String =
            text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
    };
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(["turn.example.org".to_owned()]).unwrap();
    let made = params.self_signed(&pair).unwrap();
    std::fs::write(dir.join("cert.pem"), pem("CERTIFICATE", made.der())).unwrap();
    std::fs::write(dir.join("key.pem"), pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
}
