//! What is remembered of one agent between reconciles.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::fights::SeenFiles;
use super::wake::WakeMemory;
use crate::model::{AgentRow, Conditions, FileName, FileStat, GatewayAgentId, GatewayId};
use crate::plan::ObservedFile;

/// What a file's listing said when the file was read, so that an unchanged file is not read again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fingerprint {
    size: Option<u64>,
    updated_at_ms: Option<f64>,
}

impl Fingerprint {
    /// The fingerprint of a listed file; `None` if the listing says too little to tell a change by.
    pub(super) fn of(stat: &FileStat) -> Option<Self> {
        (!stat.missing && stat.size.is_some() && stat.updated_at_ms.is_some()).then_some(Self {
            size: stat.size,
            updated_at_ms: stat.updated_at_ms,
        })
    }
}

/// A file as it was last read.
#[derive(Clone, Debug)]
pub(super) struct RememberedFile {
    /// `None` for a file that the gateway never lists.
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) file: ObservedFile,
    /// The look at everything ([`State::looks`](super::world::State)) in which it was written, if only the answer to the write
    /// tells what it holds. Gateways answer with the text that they were sent and look at the file's size and time after it was in
    /// its place: of somebody who wrote it in between, the fingerprint is theirs already. So it holds for that look only.
    pub(super) written_in: Option<u64>,
}

/// A token that is known to belong to a hash.
#[derive(Clone)]
pub(super) struct KnownToken {
    pub(super) token: SecretString,
    /// The hash that it was verified against.
    pub(super) hash: String,
}

/// The columns of an agent's row that we write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) session_key: Option<String>,
    pub(super) gateway_id: GatewayId,
    pub(super) last_provision_error: Option<String>,
    pub(super) status: String,
}

impl Columns {
    /// As they were loaded.
    pub(super) fn of(row: &AgentRow) -> Self {
        Self {
            session_key: row.session_key.clone(),
            gateway_id: row.gateway_id,
            last_provision_error: row.last_provision_error.clone(),
            status: row.status.clone(),
        }
    }
}

/// Where the database is known to have an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum KnownPlace {
    /// Where it was when its record was last loaded.
    #[default]
    AsLoaded,
    /// On no gateway.
    Nowhere,
    /// On this gateway, under this id.
    At(GatewayId, GatewayAgentId),
}

/// What is remembered of one agent.
#[derive(Clone, Default)]
pub(super) struct AgentMemory {
    /// Its files, as last read; empty after any doubt.
    pub(super) files: BTreeMap<FileName, RememberedFile>,
    /// What was last seen of its files.
    pub(super) seen: Option<SeenFiles>,
    /// Files that did not hold what had just been written.
    pub(super) not_kept: BTreeSet<FileName>,
    /// The look at everything ([`State::looks`](super::world::State)) in which the files that the gateway never lists were read.
    pub(super) unlisted_read: Option<u64>,
    /// The token that was taken out of `files`: under another token they say nothing.
    pub(super) files_token: Option<SecretString>,
    /// Its token, once verified or promoted.
    pub(super) token: Option<KnownToken>,
    /// Since when the agent's token counts as old; `None` if that is not known.
    pub(super) token_since: Option<DateTime<Utc>>,
    /// The request for a new token that the agent's token was last seen to answer.
    pub(super) rotated_for: Option<DateTime<Utc>>,
    /// A token that was minted and is not the agent's yet, with its candidate's hash.
    pub(super) minted: Option<KnownToken>,
    /// The conditions last written.
    pub(super) conditions: Option<Conditions>,
    /// What we last made of the row's columns, and on top of which load of the row.
    pub(super) columns: Option<(Columns, u64)>,
    /// Since when the token file was seen not to hold a token that verifies, and as what (its digest): a repair waits until
    /// both the file and the hash have stood still.
    pub(super) token_file_unchanged_since: Option<([u8; 32], DateTime<Utc>)>,
    /// What the database is known to hold as the agent's place, if that is known better than from the last load.
    pub(super) placed: KnownPlace,
    /// The gateway to whose roster we added it.
    pub(super) registered_by_us: Option<GatewayId>,
    /// The gateway on which its first provisioning is known to be complete.
    pub(super) provisioned: Option<GatewayId>,
    /// Its wakes.
    pub(super) wake: WakeMemory,
    /// Its removal is known to be complete.
    pub(super) removed: bool,
    /// Counts how often it has left a place: what a look that began before found there says nothing of the next.
    pub(super) departures: u64,
}

impl AgentMemory {
    /// Forgets of its files what does not hold any more in this look at everything.
    pub(super) fn keep_files_known_in(&mut self, look: u64) {
        self.files
            .retain(|_, known| known.written_in.is_none_or(|written| written == look));
    }

    /// Forgets all that was true of the agent where it was; it is nowhere now. What was last written into its row and its
    /// record is still there.
    pub(super) fn leave(&mut self) {
        let old = std::mem::take(self);
        *self = Self {
            conditions: old.conditions,
            columns: old.columns,
            placed: KnownPlace::Nowhere,
            departures: old.departures + 1,
            ..Self::default()
        };
    }
}
