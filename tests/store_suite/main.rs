//! The store, on a real Postgres and in memory.
//!
//! `behaviour` holds one list of tests that runs over both, so that they cannot drift apart; the rest is about Postgres.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

mod behaviour;
mod fencing;
mod leads;
mod listening;
mod memory;
mod migrations;
mod notifications;
mod odd_rows;
mod postgres;
mod proxy;
#[path = "../support/roles.rs"]
mod roles;
mod world;
