//! The workspace files that an agent can have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stands where the agent's token goes in everything that is planned, compared, shown or stored; only the very last step
/// before a write to a gateway puts the token in, and the first step after a read takes it out.
pub const TOKEN_SENTINEL: &str = "__OPENCLAW_AGENT_TOKEN__";

/// What a literal [`TOKEN_SENTINEL`] in a text becomes. It shares no character with the ends of the sentinel, so replacing
/// cannot make a new one.
const BROKEN_SENTINEL: &str = "(token placeholder)";

/// Replaces every literal [`TOKEN_SENTINEL`] in a text that comes from outside (a file on a gateway, a row, a template) by
/// something else: it is not a place for a token, and must not compare equal to one.
pub fn break_sentinel(text: &str) -> String {
    text.replace(TOKEN_SENTINEL, BROKEN_SENTINEL)
}

/// A workspace file that this controller knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FileName {
    /// How the agent works.
    Agents,
    /// Who the agent is, at length.
    Soul,
    /// Its tools and its token; retired on newer gateways.
    Tools,
    /// Its name, emoji and role.
    Identity,
    /// The person it works for.
    User,
    /// What it does at every heartbeat; retired on newer gateways.
    Heartbeat,
    /// What it remembers; its own.
    Memory,
    /// What it does first, once.
    Bootstrap,
}

impl FileName {
    /// Every file, in the order in which they are planned and written.
    pub const ALL: [Self; 8] = [
        Self::Agents,
        Self::Soul,
        Self::Tools,
        Self::Identity,
        Self::User,
        Self::Heartbeat,
        Self::Memory,
        Self::Bootstrap,
    ];

    /// The file of that name; `None` for one that we do not know.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|file| file.as_str() == name)
    }

    /// The file's name on the gateway, for example `AGENTS.md`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "AGENTS.md",
            Self::Soul => "SOUL.md",
            Self::Tools => "TOOLS.md",
            Self::Identity => "IDENTITY.md",
            Self::User => "USER.md",
            Self::Heartbeat => "HEARTBEAT.md",
            Self::Memory => "MEMORY.md",
            Self::Bootstrap => "BOOTSTRAP.md",
        }
    }

    /// The file with this name on a gateway, if it is one that we know.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|file| file.as_str() == name)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
