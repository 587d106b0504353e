//! Checks of the protos and of the code that is generated from them.

/// The folder that protos name each other from.
#[cfg(test)]
const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

#[cfg(test)]
mod fresh;
#[cfg(test)]
mod wire_compat;
