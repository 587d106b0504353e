//! Unary calls that are answered with their own bodies.

use std::convert::Infallible;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Ready, ready};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use super::{MAX_BYTES, Messages, ORIGIN, Requests, connect};

/// Client of an echo. Cloning shares the connection.
#[derive(Clone)]
pub(crate) struct Unary(Requests);

impl Unary {
    pub(crate) async fn open() -> Self {
        Self(connect(Echo).await)
    }

    pub(crate) async fn call(&self, body: Bytes) -> Bytes {
        let mut client = tonic::client::Grpc::with_origin(self.0.clone(), Uri::from_static(ORIGIN));
        client.ready().await.expect("a connection");
        let path = PathAndQuery::from_static("/raw.Unary/Echo");
        let answer = client.unary(tonic::Request::new(body), path, Messages::default()).await;
        answer.expect("an answer").into_inner()
    }
}

#[derive(Clone)]
struct Echo;

impl tonic::server::UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

impl hyper::service::Service<Request<Incoming>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        async move {
            let mut grpc =
                tonic::server::Grpc::new(Messages::default()).max_decoding_message_size(MAX_BYTES);
            Ok(grpc.unary(Self, request).await)
        }
        .boxed()
    }
}
