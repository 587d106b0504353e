//! Answers that clients of the original get over REST, from a node with a real socket.

mod bodies;
pub(crate) mod client;
mod content;
mod over_curl;
mod paths;
mod values;

use std::net::SocketAddr;

use sorcha_peer::{Config, PeerNode};

use self::client::{Answer, Ask, BOTH, Http, ask};
use crate::common::{start_with, stop};

/// A node that serves clients, and the port where no TLS is before them.
struct Server {
    node: PeerNode,
    http: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let node = start_with(|config| {
            config.listen.http = Some(([127, 0, 0, 1], 0).into());
            config.compat.enabled = true;
            config.compat.max_requests_per_minute = 100_000;
            config.compat.max_transactions_per_minute = 100_000;
            change(config);
        });
        let node = node.await;
        let http = node.http_addr().expect("a port for proxies");
        Self { node, http }
    }

    /// The answer to a request over one version of HTTP.
    async fn ask(&self, ask: Ask<'_>) -> Answer {
        client::ask(Http::One, self.http, ask).await
    }

    /// The answers to a request over both versions, which have to be alike.
    async fn ask_both(&self, asked: Ask<'_>) -> Answer {
        let mut answers = Vec::new();
        for http in BOTH {
            let mut answer = ask(http, self.http, asked).await;
            // An id of its own has each transaction.
            for name in ["date", "connection", "location"] {
                answer.headers.remove(name);
            }
            answers.push(answer);
        }
        assert_eq!(answers[0].status, answers[1].status, "{asked:?}: {answers:?}");
        assert_eq!(answers[0].headers, answers[1].headers, "{asked:?}");
        answers.swap_remove(0)
    }

    /// Publishes a payload, and returns the id of the transaction.
    async fn publish(&self, payload: &[u8]) -> String {
        let bytes = [("content-type", "application/octet-stream")];
        let ask = Ask { body: payload, ..Ask::new("POST", "/api/v1/transactions?topic=t") };
        let answer = self.ask(ask.with(&bytes)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.json()["transactionId"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("location"), Some(format!("/api/v1/transactions/{id}").as_str()));
        id
    }

    async fn stop(self) {
        stop(&self.node).await;
    }
}
