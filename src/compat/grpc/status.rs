//! What gRPC says for a refusal.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::compat::ops::Refusal;

/// The status of a refused operation.
pub(super) fn status_of(refusal: Refusal) -> Status {
    let (code, text) = match refusal {
        Refusal::Invalid(text) => (Code::InvalidArgument, text),
        Refusal::NotFound(text) => (Code::NotFound, text),
        Refusal::Precondition(text) => (Code::FailedPrecondition, text),
        Refusal::Unavailable(text) => (Code::Unavailable, text),
        Refusal::TooLarge { size, limit } => (
            Code::ResourceExhausted,
            format!("{size} bytes are more than the {limit} that are taken"),
        ),
        Refusal::Busy { retry_after } => {
            let mut status = Status::resource_exhausted("too much was asked for; come again later");
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = MetadataValue::try_from(seconds.to_string()) {
                status.metadata_mut().insert("retry-after", value);
            }
            return status;
        }
    };
    Status::new(code, text)
}
