//! What the documentation says: every command of every page is run, every example is read by what it is meant for, every link leads
//! somewhere, and the page about configuration is made of the program's own definitions.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by a panic what went wrong"
)]

mod commands;
mod configuration;
mod demo;
mod elsewhere;
mod examples;
mod links;
mod page;
mod shell;
mod stage;
mod step;
#[path = "../support/mod.rs"]
mod support;
