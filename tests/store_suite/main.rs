//! The store, on a real Postgres and in memory.
//!
//! `behaviour` holds one list of tests that runs over both, so that they cannot drift apart; the rest is about Postgres.
#![cfg(feature = "sim")]

mod behaviour;
mod fencing;
mod listening;
mod memory;
mod migrations;
mod notifications;
mod postgres;
mod world;
