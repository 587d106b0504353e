//! The same over TLS, as a common client sees it.

use std::process::Command;

use super::Server;
use crate::common::address;

/// What `curl` prints: headers and body.
async fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--insecure", "--max-time", "60"]);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.expect("curl is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn curl_hears_what_is_too_large() {
    let server = Server::start_with(|config| config.gossip.max_transaction_size = 64 << 10).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let body = format!("@{}", file.path().display());
    // Over HTTP/2, this client takes the end of its own sending for a failure where more is left to send.
    for (size, version) in [
        (100_000, "--http2-prior-knowledge"),
        (100_000, "--http1.1"),
        (1 << 20, "--http1.1"),
        (20 << 20, "--http1.1"),
    ] {
        std::fs::write(file.path(), vec![7; size]).unwrap();
        let bytes = "content-type: application/octet-stream";
        let url = format!("http://{}/api/v1/transactions", server.http);
        let refused = curl(&[version, "-H", bytes, "--data-binary", &body, &url]).await;
        let status =
            refused.lines().find(|line| !line.contains(" 100 ") && line.starts_with("HTTP"));
        assert!(status.is_some_and(|line| line.contains(" 413")), "{version} {size}: {refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn curl_is_served_over_tls_and_without() {
    let server = Server::start().await;
    let secure = format!("https://{}", address(&server.node));
    let plain = format!("http://{}", server.http);
    for (base, version, line) in [
        (&secure, "--http2", "HTTP/2 "),
        (&secure, "--http1.1", "HTTP/1.1 "),
        (&plain, "--http2-prior-knowledge", "HTTP/2 "),
        (&plain, "--http1.1", "HTTP/1.1 "),
    ] {
        let url = |path: &str| format!("{base}{path}");
        let list = curl(&[version, &url("/api/v1/peers/list")]).await;
        assert!(list.starts_with(&format!("{line}200")) && list.ends_with("\r\n\r\n[]"), "{list}");
        let bytes = "content-type: application/octet-stream";
        let publish = url("/api/v1/transactions?topic=t");
        let published =
            curl(&[version, "-H", bytes, "--data-binary", "0123456789", &publish]).await;
        assert!(published.starts_with(&format!("{line}201")), "{published}");
        let location = published.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let transaction = url(&location.expect("a location"));
        let part = curl(&[version, "--range", "3-5", &transaction]).await;
        assert!(part.starts_with(&format!("{line}206")) && part.ends_with("\r\n\r\n345"), "{part}");
        let head = curl(&[version, "--head", &transaction]).await;
        assert!(head.contains("ontent-length: 10") || head.contains("ontent-Length: 10"), "{head}");
        let form = curl(&[version, "--data", "x", &publish]).await;
        assert!(form.starts_with(&format!("{line}415")), "{form}");
    }
    server.stop().await;
}
