//! The guide: what a host needs to know to use the crate and to run it.
//!
//! Each page stands alone; the first three are enough to build a service. Every Rust example
//! compiles and, unless it needs a network, runs with the tests.
//!
//! | page | answers |
//! |---|---|
//! | [Getting started](getting_started) | How do I get two nodes to talk, and where do my files go? |
//! | [Guarantees and limits](guarantees) | What may I rely on, and what not? |
//! | [Topics and roles](topics) | Who gets what, from when on, and how do I resume? |
//! | [Messages](messages) | How do I ask one peer, and answer what peers ask? |
//! | [Storage and durability](storage) | What survives a crash, and how do I bring my own database? |
//! | [Security](security) | Who may join, what can a hostile peer do, what is not protected? |
//! | [Operating](operating) | What do I watch, what do events and errors tell me to do? |
//! | [Paths and proxies](paths) | Which connections work, and what about proxies? |
//! | [Reachability](reachability) | Which addresses do others dial, and what about NAT? |
//! | [Tuning](tuning) | Which setting changes what? |
//! | [Testing with the simulator](testing) | How do I test my network without one? |
//! | [Benchmarks](benchmarks) | What does it cost, and how do I measure it myself? |
//! | [Comparison](comparison) | When is something else the better choice? |
//! | [Compatibility](compatibility) | How do clients of the original Sorcha talk to a node? |
//! | [Glossary](glossary) | What does this word mean here? |

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("topics.md")]
pub mod topics {}

#[doc = include_str!("messages.md")]
pub mod messages {}

#[doc = include_str!("storage.md")]
pub mod storage {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("paths.md")]
pub mod paths {}

#[doc = include_str!("reachability.md")]
pub mod reachability {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("compatibility.md")]
pub mod compatibility {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

/// The README's code, so that it compiles too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
