//! Rotations: which one is due, and what is told and remembered once it is done.
//!
//! A request is honoured by its equality with the one that the agent's token answers: no clocks are compared. Age is counted
//! at every look, and a resync looks at every agent, so no agent needs a timer for it.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::failure::AgentFailure;
use super::memory::AgentMemory;
use super::spec::AgentSpec;
use super::tokens::{Promotion, TokenUse};
use super::world::World;
use crate::gateway::Connector;
use crate::model::{Event, EventKind, ObjectRef};
use crate::runtime::RotationOutcome;
use crate::store::{Candidate, Store, TokenState};
use crate::token::{MintReason, Rotation};

/// What the operator wants of agents' tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// Tokens older than this are replaced; `None`: tokens do not age.
    pub max_age: Option<Duration>,
    /// Whether a token that is lost or does not match its hash is replaced without being asked.
    pub repair_auto: bool,
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            max_age: None,
            repair_auto: true,
        }
    }
}

impl TokenPolicy {
    fn is_of_age(self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        // A token from the future is new.
        self.max_age
            .is_some_and(|max_age| (now - since).to_std().is_ok_and(|age| age >= max_age))
    }
}

/// The rotation that is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The request that the next token answers.
    pub(super) request: Option<DateTime<Utc>>,
    /// Why the present token is to be replaced.
    pub(super) rotation: Option<Rotation>,
}

impl Due {
    /// Finds what is due, from what the database says of the agent's token.
    pub(super) fn of(
        request: Option<DateTime<Utc>>,
        state: &TokenState,
        policy: TokenPolicy,
        now: DateTime<Utc>,
    ) -> Self {
        let request = request.filter(|request| state.rotated_for != Some(*request));
        let since = state.verified_current().map(|pair| pair.since);
        let rotation = if request.is_some() {
            Some(Rotation::Requested)
        } else if since.is_some_and(|since| policy.is_of_age(since, now)) {
            Some(Rotation::Age)
        } else {
            None
        };
        Self { request, rotation }
    }

    /// Whether any is.
    pub(super) fn is_any(&self) -> bool {
        self.rotation.is_some()
    }

    /// Why a token would be made.
    pub(super) fn mint_reason(&self) -> Option<MintReason> {
        self.rotation.map(|rotation| match rotation {
            Rotation::Requested => MintReason::Requested,
            Rotation::Age => MintReason::Age,
        })
    }
}

/// Why a candidate replaces a token, in a word; `None` if the agent had none and nobody asked for it.
pub(super) fn why(candidate: &Candidate, state: &TokenState, policy: TokenPolicy) -> Option<&'static str> {
    let was_of_age = || {
        state
            .verified_current()
            .is_some_and(|pair| policy.is_of_age(pair.since, candidate.created_at))
    };
    let had_one = state
        .current_hash
        .as_deref()
        .is_some_and(|hash| !hash.trim().is_empty());
    if candidate.rotates.is_some() {
        Some("requested")
    } else if !had_one {
        None
    } else if was_of_age() {
        Some("age")
    } else {
        Some("repair")
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Whether a rotation may be due, as far as is known without asking the database.
    pub(super) fn may_be_due(&self, agent: &AgentSpec, memory: &AgentMemory) -> bool {
        let request = agent.row.requests.rotate;
        let asked = request.is_some() && request != agent.record.rotated_for && request != memory.rotated_for;
        let policy = self.settings.tokens;
        let aged = policy.max_age.is_some()
            && memory
                .token_since
                .is_none_or(|since| policy.is_of_age(since, self.now()));
        asked || aged
    }

    /// Finds what is due, and remembers what the database says of it.
    pub(super) fn due(&self, agent: &AgentSpec, state: &TokenState) -> Due {
        {
            let mut world = self.state();
            let memory = world.agents.entry(agent.row.id).or_default();
            memory.rotated_for = state.rotated_for;
            memory.token_since = state.verified_current().map(|pair| pair.since);
        }
        Due::of(agent.row.requests.rotate, state, self.settings.tokens, self.now())
    }

    /// Counts an attempt to give the agent a new token that came to nothing; the next look continues it.
    pub(super) fn not_promoted(&self, token: &TokenUse) {
        if token.promote.is_some() {
            self.metrics.rotated(RotationOutcome::Failed);
        }
    }

    /// After a promotion: counts it, remembers it, and tells of a rotation.
    pub(super) async fn promoted(&self, agent: &AgentSpec, promotion: &Promotion) -> Result<(), AgentFailure> {
        let id = agent.row.id;
        self.metrics.rotated(RotationOutcome::Promoted);
        {
            let mut state = self.state();
            let memory = state.agents.entry(id).or_default();
            memory.token_since = Some(promotion.candidate.created_at);
            if promotion.candidate.rotates.is_some() {
                memory.rotated_for = promotion.candidate.rotates;
            }
        }
        let Some(why) = promotion.why else { return Ok(()) };
        let message = match why {
            "requested" => "The agent has a new token, as was requested (requested).",
            "age" => "The agent has a new token, because the one before had come of age (age).",
            _ => "The agent has a token that counts again; the one before was lost or did not match its hash (repair).",
        };
        let event = Event {
            object: ObjectRef::Agent(id),
            kind: EventKind::Normal,
            reason: "TokenRotated".into(),
            message: message.into(),
        };
        self.store.record_events(&self.fence, &[event]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::store::VerifiedPair;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_770_000_000 + second, 0).unwrap()
    }

    fn state(rotated_for: Option<DateTime<Utc>>, since: DateTime<Utc>, hash: &str) -> TokenState {
        TokenState {
            current_hash: Some("hash".to_owned()),
            verified: Some(VerifiedPair {
                hash: hash.to_owned(),
                token_sha256: "sha".to_owned(),
                since,
            }),
            rotated_for,
            ..TokenState::default()
        }
    }

    const YEAR: TokenPolicy = TokenPolicy {
        max_age: Some(Duration::from_hours(365 * 24)),
        repair_auto: true,
    };

    #[test]
    fn a_request_is_due_until_a_token_answers_that_very_one() {
        let due = |request, answered| {
            let state = state(answered, at(0), "hash");
            Due::of(request, &state, TokenPolicy::default(), at(9)).rotation
        };
        assert_eq!(due(None, None), None);
        assert_eq!(due(None, Some(at(1))), None);
        assert_eq!(due(Some(at(1)), None), Some(Rotation::Requested));
        assert_eq!(due(Some(at(1)), Some(at(1))), None);
        assert_eq!(due(Some(at(2)), Some(at(1))), Some(Rotation::Requested));
        // Whatever clock it was taken from.
        assert_eq!(due(Some(at(1)), Some(at(2))), Some(Rotation::Requested));
    }

    #[test]
    fn a_token_is_of_age_by_the_time_since_it_was_made_or_verified() {
        let year = TimeDelta::days(365);
        let due = |hash, policy, now| Due::of(None, &state(None, at(0), hash), policy, now).rotation;
        assert_eq!(due("hash", YEAR, at(-1)), None);
        assert_eq!(due("hash", YEAR, at(-1) + year), None);
        assert_eq!(due("hash", YEAR, at(0) + year), Some(Rotation::Age));
        assert_eq!(due("hash", TokenPolicy::default(), at(0) + year), None);
        assert_eq!(due("of another token", YEAR, at(0) + year), None);
    }

    #[test]
    fn the_reason_of_a_rotation_is_told() {
        let why = |current: Option<&str>, created_at, rotates| {
            let state = TokenState {
                current_hash: current.map(ToOwned::to_owned),
                ..state(None, at(0), "hash")
            };
            let candidate = Candidate {
                hash: "new".to_owned(),
                token_sha256: "sha".to_owned(),
                replaces: None,
                created_at,
                rotates,
            };
            why(&candidate, &state, YEAR)
        };
        assert_eq!(why(None, at(5), None), None);
        assert_eq!(why(Some(" "), at(5), None), None);
        assert_eq!(why(None, at(5), Some(at(1))), Some("requested"));
        assert_eq!(why(Some("hash"), at(5), None), Some("repair"));
        assert_eq!(why(Some("hash"), at(0) + TimeDelta::days(366), None), Some("age"));
    }
}
