//! Connecting to gateways: private CAs, proxies, URLs, token references, and devices that somebody has to approve.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests are tests; clippy knows only functions that carry the attribute"
)]

mod certificates;
mod devices;
mod fixture;
mod insecure;
mod paths;
mod proxy;
mod real;
mod references;
mod remote;
#[path = "../support/mod.rs"]
mod support;
mod tls;
