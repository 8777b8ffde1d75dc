//! What is in `deploy/`: it is valid, it says the same as the binary does, and the binary runs with it.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

mod boot;
mod compose;
mod image;
mod kubernetes;
mod names;
mod role;
#[path = "../support/roles.rs"]
mod roles;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod tools;
