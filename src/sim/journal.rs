//! What was asked of the gateway, for tests to look at.

use serde_json::{Map, Value};

/// Methods that change something.
const WRITES: [&str; 9] = [
    "agents.create",
    "agents.delete",
    "agents.files.set",
    "agents.update",
    "chat.send",
    "config.patch",
    "sessions.delete",
    "sessions.patch",
    "sessions.reset",
];

/// One request that the gateway processed, whether or not its answer arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The method.
    pub method: String,
    /// Its parameters in brief: short texts as they are, long ones by their length. Holds no content of files.
    pub summary: String,
    /// Whether the method is one that changes something.
    pub write: bool,
    /// Whether it succeeded.
    pub ok: bool,
}

impl JournalEntry {
    /// The entry for one request.
    pub(super) fn new(method: &str, params: &Map<String, Value>, ok: bool) -> Self {
        let summary = params
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) if matches!(key.as_str(), "content" | "raw" | "message") => {
                    format!("{key}=<{} bytes>", text.len())
                }
                Value::String(text) => format!("{key}={text}"),
                other => format!("{key}={other}"),
            })
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            method: method.to_owned(),
            summary,
            write: WRITES.contains(&method),
            ok,
        }
    }
}
