//! What a gateway says, read without a connection: for fuzzing and property tests.

use serde_json::Value;

use super::client::Hello;
use super::config::{self, PatchOutcome};
use super::error::GatewayError;
use super::files::{self, SetOutcome};
use super::frame::{self, Incoming};
use super::methods::{self, SchemaNode};
use super::{error, handshake};
use crate::model::{FileContent, FileStat, ObservedConfig};

/// A frame that was read.
#[derive(Debug)]
pub enum Heard {
    /// An answer with its payload.
    Answer(Value),
    /// An answer that is an error.
    Refusal(GatewayError),
    /// An event with its name and payload.
    Event(String, Value),
    /// A kind of frame that is not known.
    Unknown,
}

/// Reads the text of a frame, as a connection does.
///
/// # Errors
/// It is no frame.
pub fn frame(text: &str) -> Result<Heard, GatewayError> {
    Ok(match frame::parse(text)? {
        Incoming::Response {
            result: Ok(payload), ..
        } => Heard::Answer(payload),
        Incoming::Response { result: Err(error), .. } => Heard::Refusal(error::GatewayError::from_response(&error)),
        Incoming::Event { name, payload } => Heard::Event(name, payload),
        Incoming::Unknown => Heard::Unknown,
    })
}

/// Reads the payload of `hello-ok`.
///
/// # Errors
/// It cannot be worked with such a gateway.
pub fn hello(payload: &Value) -> Result<Hello, GatewayError> {
    handshake::parse_hello(payload)
}

/// Reads what `config.get` answered.
///
/// # Errors
/// It cannot be understood.
pub fn config(payload: &Value) -> Result<ObservedConfig, GatewayError> {
    config::observed(payload)
}

/// Reads what `config.patch` answered.
pub fn patched(payload: &Value) -> PatchOutcome {
    config::patched(payload)
}

/// Reads what `config.schema.lookup` answered.
pub fn schema_node(payload: &Value) -> SchemaNode {
    methods::schema_node(payload)
}

/// Reads what `agents.files.list` answered.
///
/// # Errors
/// It cannot be understood.
pub fn files_list(payload: &Value) -> Result<Vec<FileStat>, GatewayError> {
    files::listed(payload)
}

/// Reads what `agents.files.get` answered.
///
/// # Errors
/// It cannot be understood.
pub fn file(payload: &Value) -> Result<FileContent, GatewayError> {
    files::content(payload)
}

/// Reads what `agents.files.set` answered.
pub fn file_set(payload: &Value) -> SetOutcome {
    files::written(payload)
}
