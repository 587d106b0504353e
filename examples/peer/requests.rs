//! Requests: the answers of `--serve`.

use sorcha_peer::error::RequestError;
use sorcha_peer::{PeerNode, Request};

use crate::output::{Line, Out};

/// Answers requests under each of `protocols` with their own bodies, and tells them.
pub(crate) fn serve(node: &PeerNode, protocols: &[String], out: &Out) -> Result<(), RequestError> {
    for protocol in protocols {
        let out = out.clone();
        node.handle_requests(protocol, move |request: Request| {
            let out = out.clone();
            async move {
                let (peer, protocol) = (request.caller().to_owned(), request.protocol().to_owned());
                out.line(Line::Requested { peer, protocol, size: request.body().len() }).await;
                Ok(request.body().clone())
            }
        })?;
    }
    Ok(())
}
