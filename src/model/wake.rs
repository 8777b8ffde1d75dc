//! What the controller remembers of waking an agent.

use chrono::{DateTime, Utc};

/// Our record of an agent's wakes; the default is that of one never woken.
///
/// It is changed by its own methods only, each of which is one transition: whatever is in the database was made by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WakeRecord {
    /// Digest of the agent's own row that it was last woken for, or that it was found with.
    pub woken_for: Option<String>,
    /// The request for a wake ([`AgentRequests::wake`](super::AgentRequests)) that was answered.
    pub asked: Option<DateTime<Utc>>,
    /// Counts every wake ever, and never goes back: half of a wake's idempotency key.
    pub counter: i64,
    /// Counts the wakes since the last change or check-in.
    pub attempts: i32,
    /// Whether these wakes tell of a first provisioning, rather than of an update.
    pub first: bool,
    /// When the last wake was decided on, which is committed before it is sent.
    pub sent_at: Option<DateTime<Utc>>,
    /// Until when the agent must have checked in; `None` if nothing is awaited.
    pub deadline: Option<DateTime<Utc>>,
    /// The agent did not check in after the last attempt.
    pub gave_up: bool,
    /// The time of the last wake that another program sent and that counted in the place of one of ours.
    pub foreign: Option<DateTime<Utc>>,
}

impl WakeRecord {
    /// Whether a check-in would be news: one is awaited, or the agent was given up.
    pub fn awaits_check_in(&self) -> bool {
        self.deadline.is_some() || self.gave_up
    }

    /// Whether a check-in at this time answers the last wake.
    pub fn is_answered_by(&self, seen: Option<DateTime<Utc>>) -> bool {
        self.sent_at.is_some_and(|sent| seen.is_some_and(|seen| seen >= sent))
    }

    /// Whether another program was the last to wake the agent.
    pub fn is_foreign(&self) -> bool {
        self.foreign > self.sent_at
    }

    /// After one more wake of ours.
    #[must_use]
    pub fn begun(&self, wake: &Wake, sent_at: DateTime<Utc>, deadline: DateTime<Utc>) -> Self {
        Self {
            woken_for: Some(wake.digest.clone()),
            asked: wake.asked,
            counter: self.counter.saturating_add(1),
            attempts: wake.attempt,
            first: wake.first,
            sent_at: Some(sent_at),
            deadline: Some(deadline),
            gave_up: false,
            foreign: None,
        }
    }

    /// After the agent has checked in.
    #[must_use]
    pub fn checked_in(&self) -> Self {
        Self {
            attempts: 0,
            deadline: None,
            gave_up: false,
            ..self.clone()
        }
    }

    /// After the agent was given up.
    #[must_use]
    pub fn given_up(&self) -> Self {
        Self {
            deadline: None,
            gave_up: true,
            ..self.clone()
        }
    }

    /// With this digest and this request as what the agent knows of, although we have not woken it: it was found like that,
    /// or another program woke it.
    #[must_use]
    pub fn settled(&self, digest: &str, asked: Option<DateTime<Utc>>, foreign: Option<DateTime<Utc>>) -> Self {
        Self {
            woken_for: Some(digest.to_owned()),
            asked,
            foreign,
            ..self.checked_in()
        }
    }
}

/// One wake, as it was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Which attempt it is; the first is 1.
    pub attempt: i32,
    /// Whether the session is reset before.
    pub reset: bool,
    /// Whether it tells of a first provisioning, rather than of an update.
    pub first: bool,
    /// Digest of the agent's own row that it is about.
    pub digest: String,
    /// The request that it answers, if there is any.
    pub asked: Option<DateTime<Utc>>,
}

/// All that the database knows about an agent's wakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WakeState {
    /// Our record.
    pub record: WakeRecord,
    /// `agents.last_seen_at`.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// `agents.last_wake_sent_at`: of the last wake, ours or another program's.
    pub last_wake_sent_at: Option<DateTime<Utc>>,
}

impl WakeState {
    /// Whether nobody has ever woken the agent, and it was never seen.
    pub fn was_never_woken(&self) -> bool {
        self.last_seen_at.is_none() && self.last_wake_sent_at.is_none() && self.record.sent_at.is_none()
    }

    /// The time of another program's wake that is newer than all that are known.
    pub fn foreign_wake(&self) -> Option<DateTime<Utc>> {
        self.last_wake_sent_at
            .filter(|_| self.last_wake_sent_at > self.record.sent_at.max(self.record.foreign))
    }
}
