//! What is remembered of one agent between reconciles.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use crate::model::{FileName, FileStat};
use crate::plan::ObservedFile;
use crate::store::AgentStatusWrite;

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
    pub(super) fingerprint: Fingerprint,
    pub(super) file: ObservedFile,
}

/// A token that is known to belong to a hash.
#[derive(Clone)]
pub(super) struct KnownToken {
    pub(super) token: SecretString,
    /// The hash that it was verified against.
    pub(super) hash: String,
}

impl AgentMemory {
    /// Whether the files were remembered under this token.
    pub(super) fn is_under(&self, token: Option<&SecretString>) -> bool {
        let expose = ExposeSecret::expose_secret;
        self.files_under.as_ref().map(expose) == token.map(expose)
    }
}

/// What is remembered of one agent.
#[derive(Clone, Default)]
pub(super) struct AgentMemory {
    /// Its files, as last read; empty after any doubt.
    pub(super) files: BTreeMap<FileName, RememberedFile>,
    /// The token in whose place the sentinel stood when the files were remembered: under another one they say nothing.
    pub(super) files_under: Option<SecretString>,
    /// Its token, once verified or promoted.
    pub(super) token: Option<KnownToken>,
    /// A token that was minted and is not the agent's yet, with its candidate's hash.
    pub(super) minted: Option<KnownToken>,
    /// The status last written.
    pub(super) status: Option<AgentStatusWrite>,
    /// Since when the token file was seen not to hold a token that verifies, and as what (its digest): a repair waits until
    /// both the file and the hash have stood still.
    pub(super) token_file_unchanged_since: Option<([u8; 32], DateTime<Utc>)>,
    /// Whether the database is known to hold where the agent is.
    pub(super) placed: bool,
    /// Whether the first provisioning is known to be complete.
    pub(super) provisioned: bool,
}
