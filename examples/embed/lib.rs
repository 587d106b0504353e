//! Nothing: the service is the example `embed`.
