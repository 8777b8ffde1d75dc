//! Observed state, as a gateway tells it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{GatewayAgentId, RosterShape};

/// One agent in a gateway's config.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RosterEntry {
    /// Its id.
    pub id: GatewayAgentId,
    /// Its name, if set.
    pub name: Option<String>,
    /// Its workspace directory, if set.
    pub workspace: Option<String>,
    /// Its heartbeat, if set.
    pub heartbeat: Option<Map<String, Value>>,
}

/// The part of a gateway's config that this controller looks at. The rest is never looked at and never written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedConfig {
    /// The config's hash, which goes back as `baseHash`.
    pub hash: Option<String>,
    /// Which shape of roster the config holds; `None` if it holds none yet.
    pub shape: Option<RosterShape>,
    /// Whether it holds the other one as well.
    pub both_shapes: bool,
    /// The version that has written it last, as it says itself.
    pub written_by: Option<String>,
    /// The roster, in the config's order.
    pub roster: Vec<RosterEntry>,
    /// `agents.ownership`.
    pub ownership: Option<String>,
    /// Whether `tools.exec.host` is set, to whatever value.
    pub has_exec_host: bool,
    /// `channels.defaults.heartbeat`.
    pub heartbeat: Map<String, Value>,
    /// `channels.defaults.heartbeatVisibility`.
    pub heartbeat_visibility: Map<String, Value>,
    /// How large the config file and its entries are.
    #[serde(skip)]
    pub sizes: ConfigSizes,
}

/// How large a config file is, as far as its reader can tell: gateways refuse a write that loses half of it at once. What the
/// default says is that nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSizes {
    /// The whole file in bytes.
    pub file: usize,
    /// Each entry of the roster.
    pub entries: BTreeMap<GatewayAgentId, EntrySize>,
}

/// How much of a config file is one entry of the roster, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntrySize {
    /// All of it.
    pub total: usize,
    /// Each of its keys.
    pub keys: BTreeMap<String, usize>,
}

impl ObservedConfig {
    /// The roster entry with this id.
    pub fn entry(&self, id: &GatewayAgentId) -> Option<&RosterEntry> {
        self.roster.iter().find(|entry| entry.id == *id)
    }
}

/// What `agents.files.list` says of one file: enough to see whether it changed since it was last read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileStat {
    /// The file's name, which may be one that we do not know.
    pub name: String,
    /// Whether it does not exist.
    pub missing: bool,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Modification time in milliseconds; a fraction on some gateways.
    pub updated_at_ms: Option<f64>,
}

/// What `agents.files.get` says of one file.
#[derive(Clone, PartialEq)]
pub struct FileContent {
    /// Whether it does not exist; the text is then empty.
    pub missing: bool,
    /// The text, with whatever secrets are in it: neither `Debug` nor `Serialize`, on purpose.
    pub text: String,
    /// The gateway's own hash of it, where it gives one; goes back as `expectedHash`.
    pub hash: Option<String>,
}
