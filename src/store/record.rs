//! What goes into and comes out of our own tables, beyond the records in the model.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::CANDIDATE_LIFETIME;
use crate::model::{AgentId, Conditions, Event, GatewayAgentId, GatewayId};

/// Where an agent is managed: the row, the gateway, and its id there.
pub type Placement = (AgentId, GatewayId, GatewayAgentId);

/// The status of a gateway. What equals the record is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayStatusWrite {
    /// All its conditions.
    pub conditions: Conditions,
    /// The server version that it last reported; `None` leaves the recorded one.
    pub server_version: Option<String>,
    /// The protocol that was last agreed on; `None` leaves the recorded one.
    pub protocol: Option<i32>,
}

/// The status of an agent, and its projections onto columns of its row. What equals the record or the row is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatusWrite {
    /// All its conditions.
    pub conditions: Conditions,
    /// `agents.openclaw_session_id`; `None` leaves the column alone.
    pub session_key: Option<String>,
    /// `agents.gateway_id`; `None` leaves the column alone.
    pub gateway_id: Option<GatewayId>,
    /// `agents.last_provision_error`; `None` leaves the column alone, `Some(None)` clears it.
    pub last_provision_error: Option<Option<String>>,
    /// `agents.status`; `None` leaves the column alone.
    pub status: Option<String>,
}

impl AgentStatusWrite {
    /// Whether any column of the row is to be set.
    pub fn projects(&self) -> bool {
        self.session_key.is_some()
            || self.gateway_id.is_some()
            || self.last_provision_error.is_some()
            || self.status.is_some()
    }
}

/// What became of making a lead's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadCreation {
    /// It was made, with this id.
    Created(AgentId),
    /// The board has a lead already.
    Present,
    /// The board is gone, or on another gateway.
    BoardElsewhere,
}

/// Text as Postgres can hold it: it has no NUL.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Conditions as Postgres can hold them.
pub(super) fn storable_conditions(conditions: &Conditions) -> Conditions {
    let mut stored = Conditions::default();
    for condition in conditions.iter() {
        stored.set(
            condition.kind,
            condition.status,
            &storable(&condition.reason),
            storable(&condition.message),
            condition.observed_generation,
            condition.last_transition_time,
        );
    }
    stored
}

/// A hash and the token that it was found to belong to, so that the key derivation runs once.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedPair {
    /// The hash, in one of the formats that `token` verifies.
    pub hash: String,
    /// Hex SHA-256 of the token.
    pub token_sha256: String,
    /// When the token was made, if we made it, else when it was first verified: its age counts from here.
    pub since: DateTime<Utc>,
}

/// A token that was made but is not yet the agent's: its hash is stored before the token leaves this process.
#[derive(Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The hash, in one of the formats that `token` verifies.
    pub hash: String,
    /// Hex SHA-256 of the token.
    pub token_sha256: String,
    /// The agent's hash when it was made: if it is another one since, somebody else has set it.
    pub replaces: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The request for a new token ([`AgentRequests::rotate`](crate::model::AgentRequests)) that it answers once it is
    /// promoted, if there was one when it was made.
    pub rotates: Option<DateTime<Utc>>,
}

impl Candidate {
    /// Whether no write of it can be under way any more.
    pub fn is_stale(&self, now: DateTime<Utc>) -> bool {
        self.created_at < earlier_by_a_lifetime(now)
    }
}

/// A hash that is there: a blank one is as good as none.
fn present(hash: Option<&str>) -> Option<&str> {
    hash.map(str::trim).filter(|hash| !hash.is_empty())
}

/// Candidates from before this were made too long ago.
pub(super) fn earlier_by_a_lifetime(at: DateTime<Utc>) -> DateTime<Utc> {
    TimeDelta::from_std(CANDIDATE_LIFETIME)
        .ok()
        .and_then(|lifetime| at.checked_sub_signed(lifetime))
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// All that the database knows about an agent's token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenState {
    /// `agents.agent_token_hash`.
    pub current_hash: Option<String>,
    /// The last remembered pair; counts only if its hash is the current one.
    pub verified: Option<VerifiedPair>,
    /// Candidates, oldest first.
    pub candidates: Vec<Candidate>,
    /// Since when a mismatch has been observed with this very `current_hash`; `None` if none was, or the hash has changed
    /// since. See [`Store::note_mismatch`](super::Store::note_mismatch).
    pub hash_unchanged_since: Option<DateTime<Utc>>,
    /// The request for a new token that the agent's token answers.
    pub rotated_for: Option<DateTime<Utc>>,
}

impl TokenState {
    /// The candidates that a token in the agent's file may still be of, oldest first. One that was made for another hash than
    /// the current one was overtaken: once no write of it can be under way any more, whoever puts its token into the file
    /// brings back what was replaced.
    pub fn candidates_in_question(&self, now: DateTime<Utc>) -> impl DoubleEndedIterator<Item = &Candidate> {
        let current = present(self.current_hash.as_deref());
        self.candidates
            .iter()
            .filter(move |candidate| present(candidate.replaces.as_deref()) == current || !candidate.is_stale(now))
    }

    /// The remembered pair, if it is about the current hash.
    pub fn verified_current(&self) -> Option<&VerifiedPair> {
        self.verified
            .as_ref()
            .filter(|pair| Some(&pair.hash) == self.current_hash.as_ref())
    }
}

// Hashes are not secrets, but there is no reason why any of them should ever stand in a log.
impl fmt::Debug for VerifiedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPair").finish_non_exhaustive()
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenState")
            .field("has_hash", &self.current_hash.is_some())
            .field("verified", &self.verified_current().is_some())
            .field("candidates", &self.candidates)
            .field("hash_unchanged_since", &self.hash_unchanged_since)
            .field("rotated_for", &self.rotated_for)
            .finish()
    }
}

/// An event as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// What happened.
    pub event: Event,
    /// How often.
    pub count: i64,
    /// When it happened first.
    pub first_seen: DateTime<Utc>,
    /// When it happened last.
    pub last_seen: DateTime<Utc>,
}
