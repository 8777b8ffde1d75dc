//! Heartbeats of agents: from a token's digest to the agent's row.

use std::fmt;
use std::future::Future;

use chrono::{DateTime, Utc};
use subtle::ConstantTimeEq;

use super::StoreError;
use crate::model::AgentId;

/// An agent that checked in.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedIn {
    /// Whose token it was.
    pub agent: AgentId,
    /// The agent's display name.
    pub name: String,
    /// `agents.status` after the check-in: `online`, or what it was if the agent's removal was requested.
    pub status: String,
    /// `agents.last_seen_at` after the check-in.
    pub last_seen_at: DateTime<Utc>,
}

impl fmt::Debug for CheckedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedIn")
            .field("agent", &self.agent)
            .field("status", &self.status)
            .field("last_seen_at", &self.last_seen_at)
            .finish_non_exhaustive()
    }
}

/// Where agents check in. Every replica serves it, so it needs no lease: what is written is the agent's own word.
pub trait CheckInStore: Send + Sync + 'static {
    /// Records a heartbeat of the agent whose token has this hex SHA-256: `last_seen_at` is now, the status `online`, its wake
    /// is answered and its last error gone. Of an agent whose removal was requested only `last_seen_at` is written.
    /// `None` if it is nobody's token: nothing was written.
    ///
    /// A token counts if it is the agent's current one, if it was written to the agent's file and is about to become that, or
    /// if it was one until [`ROTATION_GRACE`](super::ROTATION_GRACE) ago. It is looked up by an index on the digest, and no key
    /// is ever derived. That lookup takes longer the more leading characters of a stored digest it meets, which is of no use to
    /// anybody: a token with a given beginning of its SHA-256 can only be guessed, and tells nothing of the one that is stored.
    fn check_in(&self, token_sha256: &str) -> impl Future<Output = Result<Option<CheckedIn>, StoreError>> + Send;
}

/// Whether two digests are the same, in the same time wherever they differ.
pub(super) fn same_digest(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
