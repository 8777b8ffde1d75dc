//! What each version is expected to be.

use std::collections::BTreeSet;

use openclaw_controller::gateway::ErrorClass;
use openclaw_controller::model::{Dialect, Effect, FileName, RosterShape, Visibility};

/// What differs between the versions.
pub(crate) struct Expected {
    pub(crate) version: &'static str,
    pub(crate) dialect: fn() -> Dialect,
    /// Whether `agents.files.get` gives a hash and `set` takes one.
    pub(crate) hashes: bool,
    /// Why a control UI without a device is refused where the config lets it in; newer gateways ignore that key.
    pub(crate) control_ui_refused: Option<ErrorClass>,
    /// Whether the answer of a patch tells its effect.
    pub(crate) tells_effect: bool,
}

pub(crate) fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

pub(crate) const OLD_HEARTBEAT: [&str; 17] = [
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

pub(crate) fn dialect_of_2026_4_29() -> Dialect {
    Dialect {
        protocol: 3,
        roster: RosterShape::List,
        heartbeat_keys: Some(keys(&OLD_HEARTBEAT)),
        visibility: Some(Visibility::Heartbeat),
        retired_files: BTreeSet::new(),
        unlisted_files: BTreeSet::new(),
        channels_effect: Effect::Restart,
        roster_effect: Effect::Hot,
        heartbeat_effect: Effect::Hot,
        ownership_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

pub(crate) fn dialect_of_2026_7_1() -> Dialect {
    Dialect {
        protocol: 4,
        tools_effect: Effect::None,
        ..dialect_of_2026_4_29()
    }
}

pub(crate) fn dialect_of_2026_9_6() -> Dialect {
    Dialect {
        protocol: 4,
        roster: RosterShape::Entries,
        heartbeat_keys: Some(keys(&[
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
        ])),
        visibility: Some(Visibility::HeartbeatVisibility),
        retired_files: [FileName::Tools, FileName::Heartbeat].into(),
        unlisted_files: [FileName::Identity].into(),
        channels_effect: Effect::None,
        roster_effect: Effect::Hot,
        heartbeat_effect: Effect::Hot,
        ownership_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}
