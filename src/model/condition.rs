//! Conditions in the shape that Kubernetes gave them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The reason of what is left undone because somebody else undoes it again and again.
pub const FIGHTING_WRITER: &str = "FightingWriter";

/// The reason of what waits because it would restart a gateway more often than it may be.
pub const RESTART_BUDGET_EXHAUSTED: &str = "RestartBudgetExhausted";

/// What a condition speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// Gateway: a connection could be made.
    Reachable,
    /// Gateway: the token was accepted and the scopes that we need were granted.
    Authorized,
    /// Gateway: it speaks a protocol and a dialect that we can work with.
    Compatible,
    /// Gateway: its config holds what the rows say.
    ConfigSynced,
    /// Gateway: agents that we made are on it, and no row explains them.
    Leftovers,
    /// Gateway: each of its boards that is to have a lead has one.
    LeadsEnsured,
    /// Gateway: its main agent has a row. Without one it is complete all the same.
    MainAgent,
    /// Agent: it is in its gateway's roster as desired.
    Registered,
    /// Agent: its managed files hold what the rows and templates say.
    FilesSynced,
    /// Agent: the token in its file verifies against the stored hash.
    TokenValid,
    /// Agent: it checked in after its last wake.
    CheckedIn,
    /// Agent: its board is paused.
    Paused,
    /// Agent: its removal was requested, and the gateway was seen without it.
    Deleted,
    /// The sum of the others.
    Ready,
}

impl ConditionType {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 14] = [
        Self::Reachable,
        Self::Authorized,
        Self::Compatible,
        Self::ConfigSynced,
        Self::Leftovers,
        Self::LeadsEnsured,
        Self::MainAgent,
        Self::Registered,
        Self::FilesSynced,
        Self::TokenValid,
        Self::CheckedIn,
        Self::Paused,
        Self::Deleted,
        Self::Ready,
    ];
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told at present.
    Unknown,
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One observation of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// A CamelCase word for programs.
    pub reason: String,
    /// A sentence for people: what happened and what to do next. Never holds a secret.
    pub message: String,
    /// The generation of the object that this was observed for.
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: DateTime<Utc>,
}

/// An object's conditions, one of each type at most, ordered by type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// Sets one condition, keeping `last_transition_time` unless the status moved. Returns whether anything changed.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
        generation: i64,
        now: DateTime<Utc>,
    ) -> bool {
        let message = message.into();
        match self.0.binary_search_by_key(&kind, |c| c.kind) {
            Ok(i) => {
                let old = &mut self.0[i];
                if old.status == status
                    && old.reason == reason
                    && old.message == message
                    && old.observed_generation == generation
                {
                    return false;
                }
                if old.status != status {
                    old.last_transition_time = now;
                }
                old.status = status;
                reason.clone_into(&mut old.reason);
                old.message = message;
                old.observed_generation = generation;
            }
            Err(i) => self.0.insert(
                i,
                Condition {
                    kind,
                    status,
                    reason: reason.to_owned(),
                    message,
                    observed_generation: generation,
                    last_transition_time: now,
                },
            ),
        }
        true
    }

    /// Removes a condition that no longer applies. Returns whether it was there.
    pub fn remove(&mut self, kind: ConditionType) -> bool {
        let before = self.0.len();
        self.0.retain(|c| c.kind != kind);
        self.0.len() != before
    }

    /// The condition of this type, if it was ever observed.
    pub fn get(&self, kind: ConditionType) -> Option<&Condition> {
        self.0.iter().find(|c| c.kind == kind)
    }

    /// Whether the condition of this type was observed and holds.
    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.get(kind).is_some_and(|c| c.status == ConditionStatus::True)
    }

    /// All conditions, ordered by type.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_when_the_status_moves() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let mut conditions = Conditions::default();
        let ready = ConditionType::Ready;
        assert!(conditions.set(ready, ConditionStatus::False, "A", "a", 1, at(1)));
        assert!(
            !conditions.set(ready, ConditionStatus::False, "A", "a", 1, at(2)),
            "nothing changed"
        );
        assert!(conditions.set(ready, ConditionStatus::False, "B", "b", 2, at(3)));
        assert_eq!(conditions.get(ready).unwrap().last_transition_time, at(1));
        assert!(conditions.set(ready, ConditionStatus::True, "B", "b", 2, at(4)));
        assert_eq!(conditions.get(ready).unwrap().last_transition_time, at(4));
    }
}
