//! Whether an agent is to be woken, and what becomes of a wake.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::{Wake, WakeRecord, WakeState};

/// How long after a wake the agent must have checked in.
pub const CHECK_IN_WITHIN: Duration = Duration::from_secs(30);

/// How many wakes there are in all before the agent is given up.
pub const MAX_WAKES: i32 = 3;

/// How long a change waits for its wake where another program wakes agents too: it is to be first.
pub const SECOND_WRITER_PAUSE: Duration = Duration::from_secs(10);

/// A wake of another program may seem to be this much older than the change that it tells of: it is dated by that program's
/// clock, and the change is seen only once it is committed.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// All that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct WakeInput<'a> {
    /// What the database says.
    pub state: &'a WakeState,
    /// Digest of the agent's own row, as it is now on the gateway.
    pub digest: &'a str,
    /// The wake that was asked for, if any was: another time asks once more.
    pub requested: Option<DateTime<Utc>>,
    /// Whether this controller put the agent on its gateway, rather than finding it there.
    pub ours: bool,
    /// Whether the row says that another program has begun to provision or update the agent.
    pub begun_elsewhere: bool,
    /// What time it is.
    pub now: DateTime<Utc>,
    /// Until when another program may still wake the agent for what has changed.
    pub hold_until: Option<DateTime<Utc>>,
    /// When the change was first seen, if the agent was seen without it before.
    pub changed_at: Option<DateTime<Utc>>,
}

/// What to do about an agent's wakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WakeDecision {
    /// Nothing is wanted and nothing is awaited.
    Nothing,
    /// The agent was found on its gateway: record what it is like, and wake nobody.
    Baseline(WakeRecord),
    /// Another program has woken the agent since: record that, and wake nobody.
    Adopt(WakeRecord),
    /// Wake it.
    Begin(Wake),
    /// A check-in is awaited.
    Wait {
        /// Its deadline.
        until: DateTime<Utc>,
    },
    /// It has checked in, in time or late.
    CheckedIn,
    /// It did not check in after the last wake.
    GiveUp,
    /// A wake is wanted, but another program may be about to send it.
    Postpone {
        /// When to decide again.
        until: DateTime<Utc>,
    },
}

/// Decides.
pub fn decide_wake(input: &WakeInput<'_>) -> WakeDecision {
    let WakeState {
        record, last_seen_at, ..
    } = input.state;
    let request = input.requested.filter(|_| input.requested != record.asked);
    let is_first = record.woken_for.is_none();
    let changed = record.woken_for.as_deref() != Some(input.digest);
    // Somebody put it there and went away before waking it. Nobody else would.
    let abandoned = input.begun_elsewhere && input.state.was_never_woken();
    if is_first && !input.ours && !abandoned && request.is_none() {
        return WakeDecision::Baseline(record.settled(input.digest, record.asked, input.state.last_wake_sent_at));
    }
    let foreign = input.state.foreign_wake();
    if changed || request.is_some() {
        // A wake before the request does not answer it, nor does one from long before the change tell of it.
        let since = input.changed_at.filter(|_| changed).map(|seen| seen - CLOCK_SKEW);
        let tells = |sent: &DateTime<Utc>| {
            request.is_none_or(|request| *sent >= request) && since.is_none_or(|since| *sent >= since)
        };
        if let Some(sent) = foreign.filter(tells) {
            let asked = request.or(record.asked);
            return WakeDecision::Adopt(record.settled(input.digest, asked, Some(sent)));
        }
        if let Some(until) = input.hold_until.filter(|until| changed && input.now < *until) {
            return WakeDecision::Postpone { until };
        }
        return WakeDecision::Begin(Wake {
            attempt: 1,
            reset: false,
            first: is_first && (input.ours || abandoned),
            digest: input.digest.to_owned(),
            asked: request.or(record.asked),
        });
    }
    if record.awaits_check_in() && record.is_answered_by(*last_seen_at) {
        return WakeDecision::CheckedIn;
    }
    let Some(deadline) = record.deadline else {
        return WakeDecision::Nothing;
    };
    if let Some(sent) = foreign {
        return WakeDecision::Adopt(record.settled(input.digest, record.asked, Some(sent)));
    }
    if input.now < deadline {
        return WakeDecision::Wait { until: deadline };
    }
    if record.attempts >= MAX_WAKES {
        return WakeDecision::GiveUp;
    }
    WakeDecision::Begin(Wake {
        attempt: record.attempts.saturating_add(1),
        reset: true,
        first: record.first,
        digest: input.digest.to_owned(),
        asked: record.asked,
    })
}

/// When a wake that is sent now must be answered.
pub fn check_in_deadline(now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::from_std(CHECK_IN_WITHIN).unwrap_or_default()
}

#[cfg(test)]
mod tests;
