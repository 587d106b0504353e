//! Only the example `otel` is of use here.
