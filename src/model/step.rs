//! What a plan is made of. Everything here can be printed: no step holds a secret.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ConfigPart, Effect, FileName, GatewayAgentId, RosterShape};

/// One change of a gateway's config.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum ConfigChange {
    /// Add an agent to the roster.
    AddAgent {
        /// Its id.
        id: GatewayAgentId,
        /// Its name.
        name: String,
        /// Its workspace directory.
        workspace: String,
        /// Its heartbeat.
        heartbeat: Map<String, Value>,
    },
    /// Change the name of an agent.
    SetName {
        /// Its id.
        id: GatewayAgentId,
        /// The name found.
        from: Option<String>,
        /// The name desired.
        to: String,
    },
    /// Change the workspace of an agent.
    SetWorkspace {
        /// Its id.
        id: GatewayAgentId,
        /// The directory found.
        from: Option<String>,
        /// The directory desired.
        to: String,
    },
    /// Change the heartbeat of an agent.
    SetHeartbeat {
        /// Its id.
        id: GatewayAgentId,
        /// The heartbeat found.
        from: Option<Map<String, Value>>,
        /// The heartbeat desired.
        to: Map<String, Value>,
    },
    /// Take something out of the entry of an agent that is to be removed: the gateway refuses a write that loses half of its
    /// config at once, and the whole entry would be more than that.
    Lighten {
        /// Its id.
        id: GatewayAgentId,
        /// The keys that go, and those of which a part goes.
        keys: Vec<String>,
    },
    /// Say that every agent's channels are its own: needed where the roster has more than one agent.
    SetOwnership,
    /// Set `tools.exec.host`, which is missing.
    SetExecHost,
    /// Set one missing key of the channels' default heartbeat visibility.
    SetVisibility {
        /// The path of the object, for example `channels.defaults.heartbeat`.
        path: String,
        /// The missing key.
        key: String,
        /// Its value.
        value: bool,
    },
}

impl ConfigChange {
    /// The agent whose entry is changed, if it is one.
    pub fn agent(&self) -> Option<&GatewayAgentId> {
        match self {
            Self::AddAgent { id, .. }
            | Self::SetName { id, .. }
            | Self::SetWorkspace { id, .. }
            | Self::SetHeartbeat { id, .. }
            | Self::Lighten { id, .. } => Some(id),
            Self::SetOwnership | Self::SetExecHost | Self::SetVisibility { .. } => None,
        }
    }

    /// The path of what is changed, in a config with this shape of roster.
    pub fn field(&self, shape: RosterShape) -> String {
        let entry = |id: &GatewayAgentId, key: &str| match shape {
            RosterShape::List => format!("agents.list[{id}]{key}"),
            RosterShape::Entries => format!("agents.entries.{id}{key}"),
        };
        match self {
            Self::AddAgent { id, .. } | Self::Lighten { id, .. } => entry(id, ""),
            Self::SetName { id, .. } => entry(id, ".name"),
            Self::SetWorkspace { id, .. } => entry(id, ".workspace"),
            Self::SetHeartbeat { id, .. } => entry(id, ".heartbeat"),
            Self::SetOwnership => "agents.ownership".to_owned(),
            Self::SetExecHost => "tools.exec.host".to_owned(),
            Self::SetVisibility { path, key, .. } => format!("{path}.{key}"),
        }
    }

    /// The parts of the config that are changed.
    pub fn parts(&self) -> &'static [ConfigPart] {
        match self {
            Self::AddAgent { .. } => &[ConfigPart::Roster, ConfigPart::Heartbeat],
            Self::SetName { .. } | Self::SetWorkspace { .. } | Self::Lighten { .. } => &[ConfigPart::Roster],
            Self::SetHeartbeat { .. } => &[ConfigPart::Heartbeat],
            Self::SetOwnership => &[ConfigPart::Ownership],
            Self::SetExecHost => &[ConfigPart::Tools],
            Self::SetVisibility { .. } => &[ConfigPart::Channels],
        }
    }
}

/// A change of a gateway's config, with the reason for it and what it is expected to do to the gateway.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigStep {
    /// What is changed.
    #[serde(flatten)]
    pub change: ConfigChange,
    /// Why, in a few words.
    pub why: String,
    /// What it does to the gateway.
    pub effect: Effect,
}

/// An agent that the gateway has to make itself: it was removed there before, and is not brought back by a patch alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CreationStep {
    /// Its id, which is also the name under which it is made; the next patch gives it its own.
    pub id: GatewayAgentId,
    /// Its workspace directory.
    pub workspace: String,
    /// Why, in a few words.
    pub why: String,
    /// What it does to the gateway.
    pub effect: Effect,
}

/// An agent to remove, with its files and sessions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RemovalStep {
    /// Its id.
    pub id: GatewayAgentId,
    /// Why, in a few words.
    pub why: String,
    /// What it does to the gateway.
    pub effect: Effect,
}

/// All that has to change in one gateway's config: agents to be made, one patch, agents to be removed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GatewayPlan {
    /// Agents that the gateway has to make itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub creations: Vec<CreationStep>,
    /// Agents that the gateway is not asked to make at present, because that would restart it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_creations: Vec<CreationStep>,
    /// The steps, in the order in which they are printed; all of them go in one patch.
    pub steps: Vec<ConfigStep>,
    /// The JSON merge patch that carries out the steps; `None` if there are none.
    pub patch: Option<Value>,
    /// Steps that are not made at present: they would restart the gateway, which may not be restarted now, or somebody else
    /// insists on another value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<ConfigStep>,
    /// How many agents were left for the next patch because this one is full.
    pub deferred: usize,
    /// Agents to remove, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<RemovalStep>,
    /// Agents that are not removed at present, because that would restart the gateway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_removals: Vec<RemovalStep>,
    /// How many more are to be removed after these.
    pub removals_deferred: usize,
    /// What could not be planned, and why: told in a condition; the rest goes on.
    pub warnings: Vec<String>,
}

impl GatewayPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.creations.is_empty() && self.removals.is_empty()
    }

    /// The effect of the whole patch: that of its most disturbing step.
    pub fn effect(&self) -> Effect {
        self.steps.iter().map(|step| step.effect).max().unwrap_or(Effect::None)
    }

    /// The effect of the creations.
    pub fn creation_effect(&self) -> Effect {
        let effects = self.creations.iter().map(|step| step.effect);
        effects.max().unwrap_or(Effect::None)
    }

    /// The effect of the removals.
    pub fn removal_effect(&self) -> Effect {
        self.removals
            .iter()
            .map(|step| step.effect)
            .max()
            .unwrap_or(Effect::None)
    }

    /// Whether something of it is expected to restart the gateway.
    pub fn restarts(&self) -> bool {
        self.effect().max(self.creation_effect()).max(self.removal_effect()) == Effect::Restart
    }

    /// The parts of the config that the patch changes.
    pub fn parts(&self) -> BTreeSet<ConfigPart> {
        let parts = self.steps.iter().flat_map(|step| step.change.parts());
        parts.copied().collect()
    }
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FileWrite {
    /// It does not exist yet.
    Create,
    /// It exists and differs.
    Replace,
}

/// One file to write.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileStep {
    /// Which file.
    pub file: FileName,
    /// Whether it is there.
    pub write: FileWrite,
    /// The text to write, with [`TOKEN_SENTINEL`](super::TOKEN_SENTINEL) where the token goes.
    pub text: String,
    /// The gateway's hash of what was read, where it gave one: the write is refused if somebody was faster.
    pub expected_hash: Option<String>,
    /// Why, in a few words.
    pub why: String,
}

/// All that has to change in one agent's workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AgentPlan {
    /// The files to write, in order.
    pub files: Vec<FileStep>,
    /// What could not be planned, and why: told in a condition; the rest goes on.
    pub warnings: Vec<String>,
}

impl AgentPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
