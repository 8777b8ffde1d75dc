//! What one gateway can do, as learnt from it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{ConfigPart, FileName};

/// Where and how the gateway's config keeps its agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RosterShape {
    /// `agents.list`: an array of objects with an `id`.
    List,
    /// `agents.entries`: an object by agent id, with `agents.ownership` beside it.
    Entries,
}

/// Where the config keeps the default visibility of heartbeats in channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Visibility {
    /// `channels.defaults.heartbeat`.
    Heartbeat,
    /// `channels.defaults.heartbeatVisibility`.
    HeartbeatVisibility,
}

impl Effect {
    /// The word for metrics, logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hot => "hot",
            Self::Restart => "restart",
        }
    }
}

impl Visibility {
    /// The key below `channels.defaults`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatVisibility => "heartbeatVisibility",
        }
    }
}

/// What a config write does to a gateway; ordered by how much it disturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing but the write.
    None,
    /// Applied while running.
    Hot,
    /// The gateway restarts.
    Restart,
}

/// What one gateway can do. Learnt by probing; never by comparing version strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dialect {
    /// The protocol agreed on in the handshake.
    pub protocol: u32,
    /// Shape of the roster in the config.
    pub roster: RosterShape,
    /// The keys that a roster entry's `heartbeat` may have; `None` if the gateway cannot tell (then all are tried).
    pub heartbeat_keys: Option<BTreeSet<String>>,
    /// Where channel visibility is kept; `None` if the gateway has no such setting.
    pub visibility: Option<Visibility>,
    /// Files that `agents.files.get/set` refuse.
    pub retired_files: BTreeSet<FileName>,
    /// Files that `agents.files.list` never names although they can be read and written.
    pub unlisted_files: BTreeSet<FileName>,
    /// Effect of a patch of `channels`.
    pub channels_effect: Effect,
    /// Effect of a patch of the roster.
    pub roster_effect: Effect,
    /// Effect of a patch of heartbeats in the roster.
    pub heartbeat_effect: Effect,
    /// Effect of a patch of `agents.ownership`.
    pub ownership_effect: Effect,
    /// Effect of a patch of `tools`.
    pub tools_effect: Effect,
}

impl Dialect {
    /// What a patch of this part does to the gateway, as far as can be foreseen.
    pub fn effect(&self, part: ConfigPart) -> Effect {
        match part {
            ConfigPart::Roster => self.roster_effect,
            ConfigPart::Heartbeat => self.heartbeat_effect,
            ConfigPart::Ownership => self.ownership_effect,
            ConfigPart::Tools => self.tools_effect,
            ConfigPart::Channels => self.channels_effect,
        }
    }

    /// The same gateway, of which it was learnt that patches of these parts restart it.
    #[must_use]
    pub fn restarted_by<'a>(mut self, parts: impl IntoIterator<Item = &'a ConfigPart>) -> Self {
        for part in parts {
            let effect = match part {
                ConfigPart::Roster => &mut self.roster_effect,
                ConfigPart::Heartbeat => &mut self.heartbeat_effect,
                ConfigPart::Ownership => &mut self.ownership_effect,
                ConfigPart::Tools => &mut self.tools_effect,
                ConfigPart::Channels => &mut self.channels_effect,
            };
            *effect = Effect::Restart;
        }
        self
    }

    /// Whether the gateway takes this file.
    pub fn has_file(&self, file: FileName) -> bool {
        !self.retired_files.contains(&file)
    }

    /// The file that holds the agent's token: `TOOLS.md`, or `AGENTS.md` where that was retired.
    pub fn token_file(&self) -> FileName {
        if self.has_file(FileName::Tools) {
            FileName::Tools
        } else {
            FileName::Agents
        }
    }
}
