//! A simulated OpenClaw gateway that speaks the real protocol, in three dialects, with fault injection.
//!
//! [`SimGateway`] holds the state of one gateway and serves WebSocket connections on any byte stream, so that the controller's
//! real client can be tested over `tokio::io::duplex` under a paused clock ([`SimConnector`]) or over TCP
//! ([`SimGateway::listen`]). What it answers was measured on real gateways; `tests/conformance.rs` asks both the same questions,
//! so that it cannot drift from the truth.
//!
//! It uses tokio's time only: its clock starts at a fixed date and advances with the runtime's.

mod agents;
mod clock;
mod config;
mod connection;
mod connector;
mod devices;
mod dialect;
mod faults;
mod files;
mod frames;
mod gateway;
mod handshake;
mod journal;
mod limits;
mod methods;
mod patch;
mod rpc;
mod schema;
mod server;
mod sessions;
mod state;
mod validate;
mod wake;

#[cfg(test)]
mod tests;

pub use connector::SimConnector;
pub use dialect::SimDialect;
pub use faults::{Fault, Faults};
pub use frames::{SeenFrame, Sender};
pub use gateway::SimGateway;
pub use journal::JournalEntry;
pub use patch::{merged_config, shown_config};
pub use server::SimServer;
pub use sessions::{ChatMessage, SimSession};
pub use wake::Woken;
