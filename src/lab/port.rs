//! Ports for servers that cannot be told to choose one themselves.

use std::net::TcpListener;

use anyhow::{Result, bail};
use rand::RngExt;

/// Below Linux's ephemeral ports (32768…): a server that is stopped must find its port free when it comes back, and the
/// kernel hands ephemeral ports to anybody's outgoing connection.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// A random TCP port that nobody listens on at 127.0.0.1 just now.
///
/// # Errors
/// When a hundred attempts find none.
pub fn free() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::rng().random_range(RANGE);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free TCP port found on 127.0.0.1 in {RANGE:?} after 100 attempts")
}
