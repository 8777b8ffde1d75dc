//! Agents on a gateway that no row explains.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{GatewayAgentId, GatewayId};

/// Why an agent is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum UnmanagedReason {
    /// It stands in the place of an agent with a row: its id is one that is derived from rows, or its name or its workspace is
    /// that of a managed agent.
    Duplicate,
    /// This controller made it, and no row explains it any more.
    Leftover,
    /// It is somebody else's.
    Unmanaged,
}

impl fmt::Display for UnmanagedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "Duplicate",
            Self::Leftover => "Leftover",
            Self::Unmanaged => "Unmanaged",
        })
    }
}

/// An agent on a gateway that no row explains. It is never written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmanaged {
    /// The gateway that it is on.
    #[serde(rename = "gatewayId")]
    pub gateway: GatewayId,
    /// Its id there.
    #[serde(rename = "gatewayAgentId")]
    pub id: GatewayAgentId,
    /// Its name there, if it has one.
    pub name: Option<String>,
    /// Its workspace directory, if the config names one.
    pub workspace: Option<String>,
    /// Why it is listed.
    pub reason: UnmanagedReason,
    /// What it is, as far as can be told.
    pub message: String,
    /// What to do about it.
    pub advice: String,
    /// When it was found to be left, of leftovers.
    pub since: Option<DateTime<Utc>>,
}
