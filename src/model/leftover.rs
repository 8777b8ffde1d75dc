//! What the controller left on gateways, and what it has taken away.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{AgentId, GatewayAgentId, GatewayId};

/// Why no row explains an agent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeftoverReason {
    /// Its row was deleted, and its removal had not been requested, or was not complete.
    RowDeleted,
    /// Its row says another gateway.
    Moved,
    /// Its row gives it another id on the same gateway: a worker has become a lead, or the other way round.
    IdChanged,
}

impl LeftoverReason {
    /// The word for events and for the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RowDeleted => "RowDeleted",
            Self::Moved => "Moved",
            Self::IdChanged => "IdChanged",
        }
    }

    /// The reason of that word; one that another version of this program wrote counts as a deleted row.
    pub fn of(word: &str) -> Self {
        match word {
            "Moved" => Self::Moved,
            "IdChanged" => Self::IdChanged,
            _ => Self::RowDeleted,
        }
    }
}

impl fmt::Display for LeftoverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An agent that we put on a gateway and that no row explains any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// The gateway that it is on.
    #[serde(rename = "gatewayId")]
    pub gateway: GatewayId,
    /// Its id there.
    #[serde(rename = "gatewayAgentId")]
    pub id: GatewayAgentId,
    /// The row that it was made for.
    #[serde(rename = "agentId")]
    pub agent: AgentId,
    /// When it was found to be left.
    pub since: DateTime<Utc>,
    /// Why.
    pub reason: LeftoverReason,
}

/// What we know about agents of one gateway beyond the records of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Agents of ours that no row explains, oldest first.
    pub leftovers: Vec<Leftover>,
    /// Agents that we have removed or begun to remove, and whether the gateway has answered that it is done. It is kept after
    /// that: newer gateways remember whom they removed, and take them back by `agents.create` only.
    pub removed: BTreeMap<GatewayAgentId, bool>,
}

impl Traces {
    /// The leftover with this id.
    pub fn leftover(&self, id: &GatewayAgentId) -> Option<&Leftover> {
        self.leftovers.iter().find(|leftover| leftover.id == *id)
    }

    /// Whether a removal was begun and its end is not known.
    pub fn is_begun(&self, id: &GatewayAgentId) -> bool {
        self.removed.get(id) == Some(&false)
    }
}
