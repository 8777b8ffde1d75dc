//! What happened on a gateway lately that decides what may be done there: restarts that we caused, and fields that somebody
//! else undoes.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::ObjectRef;

/// A part of a gateway's config of which it is known by itself what a change does to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigPart {
    /// The entries of the roster.
    Roster,
    /// The heartbeats in them.
    Heartbeat,
    /// `agents.ownership`.
    Ownership,
    /// `tools.exec.host`.
    Tools,
    /// `channels.defaults`.
    Channels,
}

impl ConfigPart {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Roster,
        Self::Heartbeat,
        Self::Ownership,
        Self::Tools,
        Self::Channels,
    ];

    /// The word for the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roster => "roster",
            Self::Heartbeat => "heartbeat",
            Self::Ownership => "ownership",
            Self::Tools => "tools",
            Self::Channels => "channels",
        }
    }

    /// The part of that word; `None` for one that another version of this program wrote.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == word)
    }
}

impl fmt::Display for ConfigPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A restart of a gateway that a write of ours caused, or is about to cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CausedRestart {
    /// Its number in the database.
    pub id: i64,
    /// When the write was made, or the restart noticed.
    pub at: DateTime<Utc>,
    /// Whether it was foreseen. What restarted a gateway unforeseen is expected to do so again.
    pub foreseen: bool,
    /// What the write changed.
    pub parts: BTreeSet<ConfigPart>,
}

/// A field that we have put right and that was found changed again although nothing else was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undoing {
    /// The object that the field belongs to.
    pub object: ObjectRef,
    /// A path in the gateway's config, or the name of a file.
    pub field: String,
    /// The generation of the object for which it is fought over: another one ends it.
    pub generation: i64,
    /// When it was found undone, oldest first; at most as many as make a fight.
    pub times: Vec<DateTime<Utc>>,
    /// When it was last put right, or would have been if it were not for the fight.
    pub tried_at: DateTime<Utc>,
}

impl Undoing {
    /// How often within [`Undoing::SPAN`] makes a fight.
    pub const FIGHT: usize = 3;

    /// How long undoings count, how long there is between two tries in a fight, and for how long a field has to stay as desired
    /// until the fight is over.
    pub const SPAN: TimeDelta = TimeDelta::hours(1);

    /// Whether somebody else insists on another value: the field is tried once an hour from then on.
    pub fn is_fight(&self) -> bool {
        self.times.len() >= Self::FIGHT
    }

    /// When the next try is due.
    pub fn next_try(&self) -> DateTime<Utc> {
        self.tried_at + Self::SPAN
    }
}

/// What happened on one gateway lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayHistory {
    /// Restarts that we caused or are about to, oldest first. Those of more than an hour ago may be missing.
    pub restarts: Vec<CausedRestart>,
    /// Fields that somebody else undoes, the gateway's own and those of its agents.
    pub undone: Vec<Undoing>,
}
