//! The client side of a gateway: frames, handshake, one multiplexed connection, typed methods, probing.
//!
//! A [`Connector`] turns a [`Target`] into a [`Client`]: a cheap handle to one WebSocket, on which many requests are in
//! flight at once. A client never reconnects: when its connection ends, every waiting request is told so, and whoever owns
//! the gateway connects again. [`probe`] learns what the gateway can do.
//!
//! **Secrets.** Tokens and the texts of files pass through here. No error, log line, metric or `Debug` output shows them.

mod classify;
mod client;
mod config;
mod connection;
mod connector;
mod device;
mod device_tokens;
mod endpoint;
mod error;
mod files;
mod frame;
mod handshake;
#[cfg(feature = "sim")]
pub mod heard;
mod methods;
mod metrics;
mod probe;
mod redact;
mod reference;
mod size;
mod tls;

#[cfg(test)]
mod tests;

pub use client::{Client, Hello, REQUEST_DEADLINE};
pub use config::PatchOutcome;
pub use connection::{CloseReason, MAX_INCOMING};
pub use connector::{Connector, Target, WebSocketConnector, websocket_config};
pub use device::{DeviceIdentity, DeviceIdentityError};
pub use error::{ErrorClass, GatewayError};
pub use files::SetOutcome;
pub use handshake::{CONNECT_DEADLINE, handshake};
pub use methods::{AgentsList, ChatReceipt, Removal, SchemaChild, SchemaNode};
pub use metrics::RpcMetrics;
pub use probe::probe;
pub use reference::{TokenDirError, TokenReferences};
pub use tls::{CaFileError, Trust};
