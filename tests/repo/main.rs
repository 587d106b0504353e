//! The repository itself: how the code is cut, and that committed files agree with each other.

mod calls;
mod layering;
mod public_api;
