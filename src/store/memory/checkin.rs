//! Heartbeats of agents.

use super::MemoryStore;
use super::state::State;
use crate::model::AgentId;
use crate::store::checkin::same_digest;
use crate::store::{CheckInStore, CheckedIn, StoreError};

impl CheckInStore for MemoryStore {
    async fn check_in(&self, token_sha256: &str) -> Result<Option<CheckedIn>, StoreError> {
        self.reachable()?;
        let now = self.database_now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(agent) = find(state, token_sha256, now) else {
            return Ok(None);
        };
        let Some(row) = state.agents.get_mut(&agent) else {
            return Ok(None);
        };
        row.last_seen_at = Some(now.naive_utc());
        if row.delete_requested_at.is_none() {
            let columns = state.wake_columns.entry(agent).or_default();
            columns.checkin_deadline_at = None;
            columns.wake_attempts = 0;
            "online".clone_into(&mut row.status);
            row.last_provision_error = None;
        }
        Ok(Some(CheckedIn {
            agent,
            name: row.name.clone(),
            status: row.status.clone(),
            last_seen_at: now,
        }))
    }
}

/// Whose token it is.
fn find(state: &State, digest: &str, now: chrono::DateTime<chrono::Utc>) -> Option<AgentId> {
    let is = |known: &str| same_digest(known, digest);
    let verified = |agent: &AgentId, current: Option<&String>| {
        let pair = state.verified.get(agent);
        pair.is_some_and(|pair| is(&pair.token_sha256) && Some(&pair.hash) == current)
    };
    let candidate = |agent: &AgentId, current: Option<&String>| {
        let mut candidates = state.candidates.get(agent).into_iter().flatten();
        candidates.any(|candidate| is(&candidate.token_sha256) && candidate.replaces.as_ref() == current)
    };
    let retired = |agent: &AgentId, _: Option<&String>| {
        let mut retired = state.retired.get(agent).into_iter().flatten();
        retired.any(|(token, until)| is(token) && *until > now)
    };
    let whose = |counts: &dyn Fn(&AgentId, Option<&String>) -> bool| {
        let mut rows = state.agents.values();
        rows.find(|row| counts(&row.id, row.token_hash.as_ref()))
            .map(|row| row.id)
    };
    whose(&verified)
        .or_else(|| whose(&candidate))
        .or_else(|| whose(&retired))
}
