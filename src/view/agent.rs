//! What is known of an agent.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::Ready;
use crate::model::{
    AgentId, AgentRequests, AgentRole, AgentRow, BoardId, Conditions, GatewayAgentId, GatewayId, GatewaySnapshot,
};

/// How long after its last heartbeat an agent counts as offline; heartbeats come every ten minutes. Computed when it is shown, and
/// stored nowhere.
pub const OFFLINE_AFTER: TimeDelta = TimeDelta::minutes(10);

/// An agent as it is shown. Neither its token nor that token's hash is in it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename = "Agent", rename_all = "camelCase")]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// Its display name.
    pub name: String,
    /// `lead`, `worker` or `main`.
    pub role: &'static str,
    /// Its board, unless it is a gateway's main agent.
    pub board_id: Option<BoardId>,
    /// That board's name.
    pub board_name: Option<String>,
    /// The gateway that it belongs to.
    pub gateway_id: GatewayId,
    /// That gateway's name.
    pub gateway_name: String,
    /// Its id there.
    pub gateway_agent_id: GatewayAgentId,
    /// Whether it was seen lately.
    pub online: bool,
    /// The status to show: who has not been seen for a while is offline, whatever the row says.
    pub shown_status: String,
    /// When it last checked in.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Whether it is as desired.
    pub ready: Ready,
    /// What was asked for it.
    pub requests: AgentRequests,
    /// What we recorded about it.
    pub status: AgentStatus,
}

/// What we recorded about an agent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Counts changes of what is desired.
    pub generation: i64,
    /// When its first provisioning was complete.
    pub first_provisioned_at: Option<DateTime<Utc>>,
    /// The last wake of ours.
    pub last_wake_sent_at: Option<DateTime<Utc>>,
    /// Until when it must have checked in, if that is awaited.
    pub check_in_deadline: Option<DateTime<Utc>>,
    /// How often it was woken since the last change or check-in.
    pub wake_attempts: i32,
    /// Its conditions.
    pub conditions: Conditions,
}

impl AgentView {
    /// What is known of an agent of a snapshot.
    pub fn of(snapshot: &GatewaySnapshot, agent: &AgentRow, now: DateTime<Utc>) -> Self {
        let record = snapshot.agent_records.get(&agent.id).cloned().unwrap_or_default();
        let last_seen_at = agent.last_seen_at.map(|at| at.and_utc());
        let seen = last_seen_at.map(|at| now - at);
        let board = agent.board_id.and_then(|id| snapshot.boards.get(&id));
        Self {
            id: agent.id,
            name: agent.name.clone(),
            role: role(agent.role()),
            board_id: agent.board_id,
            board_name: board.map(|board| board.name.clone()),
            gateway_id: snapshot.gateway.id,
            gateway_name: snapshot.gateway.name.clone(),
            gateway_agent_id: agent.gateway_agent_id(snapshot.gateway.id),
            online: is_online(seen),
            shown_status: shown_status(&agent.status, seen).to_owned(),
            last_seen_at,
            ready: Self::ready(snapshot, agent.id),
            requests: agent.requests,
            status: AgentStatus {
                generation: record.generation,
                first_provisioned_at: record.first_provisioned_at,
                last_wake_sent_at: record.wake.sent_at,
                check_in_deadline: record.wake.deadline,
                wake_attempts: record.wake.attempts,
                conditions: record.conditions,
            },
        }
    }

    /// Whether an agent of a snapshot is as desired.
    pub fn ready(snapshot: &GatewaySnapshot, agent: AgentId) -> Ready {
        let none = Conditions::default();
        let record = snapshot.agent_records.get(&agent);
        let conditions = record.map_or(&none, |record| &record.conditions);
        Ready::of_agent(conditions, &snapshot.record.conditions, &snapshot.gateway.name)
    }
}

/// What an agent is for, in a word.
pub fn role(role: AgentRole) -> &'static str {
    match role {
        AgentRole::Lead(_) => "lead",
        AgentRole::Worker(_) => "worker",
        AgentRole::Main => "main",
    }
}

/// Whether an agent that was last seen so long ago is online.
pub fn is_online(seen: Option<TimeDelta>) -> bool {
    seen.is_some_and(|ago| ago < OFFLINE_AFTER)
}

/// An agent's status as it is shown: who was last seen too long ago is offline, whatever the row says.
pub fn shown_status(stored: &str, seen: Option<TimeDelta>) -> &str {
    match seen {
        _ if matches!(stored, "deleting" | "updating" | "offline") => stored,
        Some(ago) if ago >= OFFLINE_AFTER => "offline",
        _ => stored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_seen_for_ten_minutes_is_shown_as_offline() {
        let minutes = |n| Some(TimeDelta::minutes(n));
        for (stored, seen, shown) in [
            ("online", minutes(9), "online"),
            ("online", minutes(10), "offline"),
            ("provisioning", None, "provisioning"),
            ("online", None, "online"),
            ("offline", minutes(1), "offline"),
            ("updating", minutes(60), "updating"),
            ("deleting", minutes(60), "deleting"),
        ] {
            assert_eq!(shown_status(stored, seen), shown, "{stored} {seen:?}");
        }
    }
}
