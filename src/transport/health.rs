//! The standard health service of gRPC, on the port of the node.
//!
//! Contract: the node as a whole, `""`, and each service that it serves are `SERVING` while the
//! node runs, and `NOT_SERVING` before and while it shuts down, of which those who watch are told.
//! Nothing else is known: whether there are peers is no matter of restarts. Of a service that is
//! not served, a check is `NOT_FOUND`, and a watch says `SERVICE_UNKNOWN`.

use std::fmt;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, Request, Response};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as Service, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_service::Service as _;

use super::port::{Guest, Visitor};

/// Paths of the service.
const PREFIX: &str = "/grpc.health.v1.Health/";
/// Maximum number of bytes of a request, which holds the name of a service.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Answers how the node is.
#[derive(Clone)]
pub(super) struct Health {
    is_running: watch::Receiver<bool>,
    services: &'static [&'static str],
}

impl Health {
    /// The service of a node that runs while `is_running` says so, and serves these services.
    pub(super) fn new(
        is_running: watch::Receiver<bool>,
        services: &'static [&'static str],
    ) -> Self {
        Self { is_running, services }
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Guest for Health {
    fn serves(&self, path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    fn call(&self, request: Request<Body>, visitor: Visitor) -> BoxFuture<'static, Response<Body>> {
        if !visitor.is_http2 {
            let status = Status::unimplemented("gRPC needs HTTP/2");
            return std::future::ready(status.into_http()).boxed();
        }
        let server = HealthServer::new(self.clone());
        let mut server = server.max_decoding_message_size(MAX_MESSAGE_BYTES);
        async move {
            let Ok(mut response) = server.call(request).await;
            // What does not decode is the caller's fault, and the codec says that it is ours.
            if let Some(code) = response.headers_mut().get_mut("grpc-status")
                && Code::from_bytes(code.as_bytes()) == Code::Internal
            {
                *code = HeaderValue::from(Code::InvalidArgument as u16);
            }
            response
        }
        .boxed()
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn of_node(is_running: bool) -> ServingStatus {
    if is_running { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("no such service"));
        }
        Ok(tonic::Response::new(answer(of_node(*self.is_running.borrow()))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let mut is_running = self.is_running.clone();
        let stream = if self.knows(&request.get_ref().service) {
            // Whatever it is now, is news to whoever asks.
            is_running.mark_changed();
            stream::unfold(is_running, |mut is_running| async {
                // It ends with the node.
                is_running.changed().await.ok()?;
                let now = *is_running.borrow_and_update();
                Some((Ok(answer(of_node(now))), is_running))
            })
            .boxed()
        } else {
            // The service may come later; here, it does not.
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            let end = async move { while is_running.changed().await.is_ok() {} };
            unknown.chain(end.into_stream().filter_map(|()| async { None })).boxed()
        };
        Ok(tonic::Response::new(stream))
    }
}
