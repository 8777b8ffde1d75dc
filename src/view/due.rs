//! When something happens to an object again, as far as the database tells.
//!
//! How long the controller that runs still waits before it tries again is known to that process alone; what is known here is by
//! when it will have.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{AgentView, Ready};
use crate::model::{AgentRow, ConditionStatus, ConditionType, GatewayHistory, GatewaySnapshot, ObjectRef};
use crate::plan::MAX_WAKES;

/// Something that is to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Due {
    /// When, or since when it is due.
    pub at: DateTime<Utc>,
    /// What.
    pub what: String,
}

/// When an object that is not as desired is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Retry {
    /// It is as desired.
    NotNeeded,
    /// No controller runs.
    NoController,
    /// When its gateway is ready.
    WithGateway,
    /// When its board goes on.
    WithBoard,
    /// Every ten seconds, until somebody has approved the device.
    Approval,
    /// With growing pauses of 36 s at most, and at once when a row of it changes.
    Backoff,
}

impl Retry {
    /// When a gateway is tried again. `runs`: whether a controller does.
    pub fn of_gateway(ready: &Ready, runs: bool) -> Self {
        match ready.reason.as_str() {
            _ if ready.is_true() => Self::NotNeeded,
            _ if !runs => Self::NoController,
            "PairingRequired" => Self::Approval,
            _ => Self::Backoff,
        }
    }

    /// When an agent is tried again. `gateway`: whether its gateway is as desired.
    pub fn of_agent(agent: &AgentView, gateway: &Ready, runs: bool) -> Self {
        let ready = &agent.ready;
        match ready.reason.as_str() {
            _ if ready.is_true() => Self::NotNeeded,
            _ if !runs => Self::NoController,
            _ if agent.status.conditions.is_true(ConditionType::Paused) => Self::WithBoard,
            "GatewayNotReachable" | "GatewayNotReady" => Self::WithGateway,
            _ if gateway.status == ConditionStatus::False => Self::WithGateway,
            _ => Self::Backoff,
        }
    }

    /// As a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotNeeded => "nothing to do until a row changes or the next resync",
            Self::NoController => "never: no controller is running on this database (`openclaw-controller run`)",
            Self::WithGateway => "as soon as its gateway is ready",
            Self::WithBoard => "as soon as its board goes on (`openclaw-controller resume`)",
            Self::Approval => "every 10 s, until the device is approved",
            Self::Backoff => {
                "within 36 s after a failure (pauses grow from 0.75 s to 30 s, ±20 %), at once when one of its rows changes, \
                 and at the next resync at the latest"
            }
        }
    }
}

/// What is to happen to a gateway, soonest first.
pub fn gateway_due(snapshot: &GatewaySnapshot, history: &GatewayHistory) -> Vec<Due> {
    let object = ObjectRef::Gateway(snapshot.gateway.id);
    sorted(fights(history, object, snapshot.record.generation).collect())
}

/// What is to happen to an agent, soonest first.
pub fn agent_due(snapshot: &GatewaySnapshot, agent: &AgentRow, history: &GatewayHistory) -> Vec<Due> {
    let record = snapshot.agent_records.get(&agent.id).cloned().unwrap_or_default();
    let mut due: Vec<_> = fights(history, ObjectRef::Agent(agent.id), record.generation).collect();
    let wake = &record.wake;
    due.extend(wake.deadline.map(|at| {
        let attempt = format!("wake {} of {MAX_WAKES} must be answered by a check-in", wake.attempts);
        let else_ = if wake.attempts >= MAX_WAKES {
            "it is given up"
        } else {
            "its session is reset and it is woken again"
        };
        Due {
            at,
            what: format!("{attempt}, or {else_}"),
        }
    }));
    let asked = agent.requests.wake.filter(|_| agent.requests.wake != wake.asked);
    due.extend(asked.map(|at| Due {
        at,
        what: "a wake was asked for, and is not sent yet".to_owned(),
    }));
    let asked = agent
        .requests
        .rotate
        .filter(|_| agent.requests.rotate != record.rotated_for);
    due.extend(asked.map(|at| Due {
        at,
        what: "a new token was asked for, and is not in place yet".to_owned(),
    }));
    let to_go = agent
        .delete_requested_at
        .filter(|_| !record.conditions.is_true(ConditionType::Deleted));
    due.extend(to_go.map(|at| Due {
        at: at.and_utc(),
        what: "its removal was asked for".to_owned(),
    }));
    sorted(due)
}

fn fights(history: &GatewayHistory, object: ObjectRef, generation: i64) -> impl Iterator<Item = Due> {
    history
        .undone
        .iter()
        .filter(move |undoing| (undoing.object, undoing.generation) == (object, generation) && undoing.is_fight())
        .map(|undoing| Due {
            at: undoing.next_try(),
            what: format!(
                "{} is put right again if something else still changes it",
                undoing.field
            ),
        })
}

fn sorted(mut due: Vec<Due>) -> Vec<Due> {
    due.sort_by_key(|due| due.at);
    due
}
