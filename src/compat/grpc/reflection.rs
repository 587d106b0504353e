//! Reflection: what is served, for tools that have no protos.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower_service::Service;

/// Descriptors of the three services; `tests/codegen/fresh.rs` writes the file.
const DESCRIPTORS: &[u8] = include_bytes!("../../wire/generated/compat.bin");
/// Paths of the two versions of the service, which differ in nothing else.
const V1: &str = "/grpc.reflection.v1.ServerReflection/";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

type Serve = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The service, in both versions; none where the descriptors do not decode.
pub(super) struct Reflection {
    versions: Vec<(&'static str, Serve)>,
}

impl Reflection {
    pub(super) fn new() -> Self {
        let mut versions: Vec<(&'static str, Serve)> = Vec::new();
        if let Ok(server) = builder().build_v1() {
            versions.push((V1, serve(server)));
        }
        if let Ok(server) = builder().build_v1alpha() {
            versions.push((V1ALPHA, serve(server)));
        }
        Self { versions }
    }

    pub(super) fn serves(&self, path: &str) -> bool {
        self.versions.iter().any(|(prefix, _)| path.starts_with(prefix))
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let version = self.versions.iter().find(|(prefix, _)| path.starts_with(prefix));
        match version {
            Some((_, serve)) => serve(request).await,
            None => super::no_method().into_http(),
        }
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reflection").finish_non_exhaustive()
    }
}

fn builder() -> Builder<'static> {
    let builder = Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    #[cfg(feature = "health")]
    let builder =
        builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    builder
}

fn serve<S>(server: S) -> Serve
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Arc::new(move |request| {
        let call = server.clone().call(request);
        async move {
            let Ok(response) = call.await;
            response
        }
        .boxed()
    })
}
