//! HTTP with the admin listener.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, Error, RequestBuilder};

use crate::failure::Failure;

/// Maximum time for a connection.
const MAX_CONNECT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of an answer: a thousand peers may have much to tell.
const MAX_BYTES: u64 = 64 << 20;
/// Maximum time for an answer: a test of a thin link takes its time, and so do many peers.
const MAX_ANSWER: Duration = Duration::from_mins(1);

/// The admin listener of one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    admin: String,
    token: Option<String>,
}

/// JSON as it came.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) String);

impl Answer {
    /// Reads what is of interest; fields that are missing have their default.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.0).map_err(|error| {
            Failure::Unreachable(format!(
                "what answers there is no admin listener of a node: {error}"
            ))
        })
    }
}

/// What is wrong, as a problem document (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Client {
    pub(crate) fn new(admin: &str, token: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The listener is on this machine, or at the end of a tunnel.
            .proxy(None)
            .timeout_connect(Some(MAX_CONNECT))
            .timeout_global(Some(MAX_ANSWER));
        Self {
            agent: config.build().into(),
            admin: admin.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, Failure> {
        let request = self.signed(self.agent.get(format!("{}{path}", self.admin)));
        self.answer(request.header("accept", "application/json, application/problem+json").call())
    }

    pub(crate) fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let request = self.signed(self.agent.post(format!("{}{path}", self.admin)));
        self.answer(match body {
            Some(body) => request.header("content-type", "application/json").send(body.to_string()),
            None => request.send_empty(),
        })
    }

    /// Lines of an answer that goes on for as long as the node runs.
    pub(crate) fn lines(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Failure> {
        let request = self.signed(self.agent.get(format!("{}{path}", self.admin)));
        let request = request.header("accept", "text/event-stream");
        let response = self.checked(request.config().timeout_global(None).build().call())?;
        Ok(BufReader::new(response.into_body().into_reader()).lines())
    }

    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer(&self, sent: Result<Response<Body>, Error>) -> Result<Answer, Failure> {
        let text = self.checked(sent)?.body_mut().with_config().limit(MAX_BYTES).read_to_string();
        text.map(Answer).map_err(|error| self.unreachable(&error))
    }

    /// Takes an answer that is a good one.
    fn checked(&self, sent: Result<Response<Body>, Error>) -> Result<Response<Body>, Failure> {
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem = response.body_mut().read_to_string().unwrap_or_default();
        let problem: Problem = serde_json::from_str(&problem).unwrap_or_default();
        let why = problem.detail.or(problem.title);
        let said = why.clone().unwrap_or_else(|| format!("it answers {status}"));
        Err(match status.as_u16() {
            401 if self.token.is_none() => Failure::Unauthorised(format!(
                "{} wants a token: set SORCHA_ADMIN_TOKEN, or give --token",
                self.admin
            )),
            401 => Failure::Unauthorised(format!(
                "{} does not take this token: is it that of `[listen] admin_token`?",
                self.admin
            )),
            403 => Failure::Unauthorised(format!("{} does not do that: {said}", self.admin)),
            _ if why.is_none() => Failure::Unreachable(format!(
                "{} is no admin listener of a node: {said}",
                self.admin
            )),
            _ => Failure::Refused(said),
        })
    }

    fn unreachable(&self, error: &Error) -> Failure {
        Failure::Unreachable(format!(
            "no node answers at {}: {error}. Does one run there, with --admin?",
            self.admin
        ))
    }
}
