//! The status page and the API: through the real server, on real Postgres and simulated gateways, and in a real browser.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

mod access;
mod api;
mod browser;
mod fixture;
mod html;
mod many;
mod stream;
#[path = "../support/mod.rs"]
mod support;
