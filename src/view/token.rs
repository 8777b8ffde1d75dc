//! What is known of an agent's token, without a word of it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::store::TokenState;

/// An agent's token as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// Whether the agent has one.
    pub present: bool,
    /// When it was made, if we made it, or else when it was first verified; `None` if it was not verified yet.
    pub since: Option<DateTime<Utc>>,
    /// When a new one was stored that is not in use yet, if there is one.
    pub new_since: Option<DateTime<Utc>>,
    /// Since when the one on the gateway has been seen not to belong to the stored hash.
    pub mismatch_since: Option<DateTime<Utc>>,
}

impl TokenView {
    /// What is known of a token.
    pub fn of(state: &TokenState) -> Self {
        let present = state
            .current_hash
            .as_deref()
            .is_some_and(|hash| !hash.trim().is_empty());
        let new = state
            .candidates
            .iter()
            .filter(|candidate| Some(&candidate.hash) != state.current_hash.as_ref())
            .map(|candidate| candidate.created_at)
            .max();
        Self {
            present,
            since: state.verified_current().map(|pair| pair.since),
            new_since: new,
            mismatch_since: state.hash_unchanged_since,
        }
    }
}
