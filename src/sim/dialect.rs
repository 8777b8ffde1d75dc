//! What the three dialects have and have not. Every line was measured on a real gateway of that version.

use std::time::Duration;

use crate::model::{Dialect, Effect, FileName, RosterShape, Visibility};

/// Which real gateway is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimDialect {
    /// OpenClaw 2026.4.29: protocol 3, `agents.list`.
    V2026_4_29,
    /// OpenClaw 2026.7.1: protocol 4, `agents.list`.
    V2026_7_1,
    /// OpenClaw 2026.9.6: protocol 4, `agents.entries`, without `TOOLS.md` and `HEARTBEAT.md`.
    V2026_9_6,
}

/// The heartbeat keys of 2026.4.29 and 2026.7.1.
const HEARTBEAT_KEYS_LIST: [&str; 17] = [
    "every",
    "activeHours",
    "model",
    "session",
    "includeReasoning",
    "target",
    "directPolicy",
    "to",
    "accountId",
    "prompt",
    "includeSystemPromptSection",
    "ackMaxChars",
    "suppressToolErrorWarnings",
    "timeoutSeconds",
    "lightContext",
    "isolatedSession",
    "skipWhenBusy",
];

/// The heartbeat keys of 2026.9.6.
const HEARTBEAT_KEYS_ENTRIES: [&str; 12] = [
    "every",
    "activeHours",
    "model",
    "session",
    "target",
    "directPolicy",
    "to",
    "accountId",
    "prompt",
    "timeoutSeconds",
    "lightContext",
    "isolatedSession",
];

impl SimDialect {
    /// All dialects, oldest first.
    pub const ALL: [Self; 3] = [Self::V2026_4_29, Self::V2026_7_1, Self::V2026_9_6];

    /// The version that the gateway reports.
    pub fn version(self) -> &'static str {
        match self {
            Self::V2026_4_29 => "2026.4.29",
            Self::V2026_7_1 => "2026.7.1",
            Self::V2026_9_6 => "2026.9.6",
        }
    }

    /// The dialect with this version.
    pub fn of_version(version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.version() == version)
    }

    /// The only protocol that it accepts.
    pub fn protocol(self) -> u32 {
        match self {
            Self::V2026_4_29 => 3,
            Self::V2026_7_1 | Self::V2026_9_6 => 4,
        }
    }

    /// Whether the roster is `agents.entries` and not `agents.list`.
    pub fn has_entries(self) -> bool {
        self == Self::V2026_9_6
    }

    /// Where the roster is, below `agents`.
    pub(super) fn roster_key(self) -> &'static str {
        if self.has_entries() { "entries" } else { "list" }
    }

    /// The key of the heartbeat visibility, below `channels.defaults`.
    pub(super) fn visibility_key(self) -> &'static str {
        if self.has_entries() {
            "heartbeatVisibility"
        } else {
            "heartbeat"
        }
    }

    /// Whether the schema tells what a change of a key does to the gateway.
    pub(super) fn tells_effects(self) -> bool {
        self != Self::V2026_4_29
    }

    /// What a client that probes this gateway should find out.
    pub fn expected(self) -> Dialect {
        let entries = self.has_entries();
        Dialect {
            protocol: self.protocol(),
            roster: if entries {
                RosterShape::Entries
            } else {
                RosterShape::List
            },
            heartbeat_keys: Some(self.heartbeat_keys().iter().map(ToString::to_string).collect()),
            visibility: Some(if entries {
                Visibility::HeartbeatVisibility
            } else {
                Visibility::Heartbeat
            }),
            retired_files: if entries {
                [FileName::Tools, FileName::Heartbeat].into()
            } else {
                [].into()
            },
            unlisted_files: if entries {
                [FileName::Identity].into()
            } else {
                [].into()
            },
            channels_effect: if entries { Effect::None } else { Effect::Restart },
            roster_effect: Effect::Hot,
            heartbeat_effect: Effect::Hot,
            ownership_effect: Effect::Hot,
            tools_effect: if self == Self::V2026_7_1 {
                Effect::None
            } else {
                Effect::Hot
            },
        }
    }

    /// The keys that an agent's `heartbeat` may have.
    pub(super) fn heartbeat_keys(self) -> &'static [&'static str] {
        if self.has_entries() {
            &HEARTBEAT_KEYS_ENTRIES
        } else {
            &HEARTBEAT_KEYS_LIST
        }
    }

    /// The files that `agents.files.list` names, in its order.
    pub(super) fn listed_files(self) -> &'static [&'static str] {
        if self.has_entries() {
            &["AGENTS.md", "SOUL.md", "USER.md", "BOOTSTRAP.md", "MEMORY.md"]
        } else {
            &[
                "AGENTS.md",
                "SOUL.md",
                "TOOLS.md",
                "IDENTITY.md",
                "USER.md",
                "HEARTBEAT.md",
                "BOOTSTRAP.md",
                "MEMORY.md",
            ]
        }
    }

    /// Whether `agents.files.get` and `set` take this file.
    pub(super) fn supports_file(self, name: &str) -> bool {
        self.listed_files().contains(&name) || (self.has_entries() && name == "IDENTITY.md")
    }

    /// The files that `agents.create` puts into a new workspace.
    pub(super) fn seeded_files(self) -> &'static [&'static str] {
        if self.has_entries() {
            &["AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "BOOTSTRAP.md"]
        } else {
            &[
                "AGENTS.md",
                "SOUL.md",
                "TOOLS.md",
                "IDENTITY.md",
                "USER.md",
                "HEARTBEAT.md",
                "BOOTSTRAP.md",
            ]
        }
    }

    /// How many control-plane writes one device may ask for in 60 s.
    pub(super) fn writes_per_minute(self) -> u32 {
        if self.has_entries() { 30 } else { 3 }
    }

    /// What happens to the process when `channels` changes: the time until the sockets close, the time until connections are
    /// accepted again, and whether the answer is sent before. `None`: nothing.
    pub(super) fn restart_on_channels(self) -> Option<Restart> {
        let ms = Duration::from_millis;
        match self {
            Self::V2026_4_29 => Some(Restart {
                close_after: ms(900),
                down_for: ms(4300),
                answers: false,
            }),
            Self::V2026_7_1 => Some(Restart {
                close_after: ms(3400),
                down_for: ms(3900),
                answers: true,
            }),
            Self::V2026_9_6 => None,
        }
    }
}

/// How a gateway restarts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// From the write until the sockets close.
    pub(super) close_after: Duration,
    /// From there until connections are accepted again.
    pub(super) down_for: Duration,
    /// Whether the request that caused it is answered.
    pub(super) answers: bool,
}
