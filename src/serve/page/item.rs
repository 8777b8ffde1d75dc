//! Objects as they are shown, to people and to programs alike.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use crate::model::{Condition, ConditionStatus, ConditionType, Conditions, EventKind, GatewayAgentId, ObjectRef};
use crate::reconcile::{Difference, LiveObject};
use crate::store::{AgentSummary, BoardSummary, EventSummary, GatewaySummary};
use crate::view::{self, Ready, shown_url};

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) limit: u32,
    /// Where the next part is, if there is one.
    pub(super) next: Option<String>,
    /// Where the part before is.
    pub(super) previous: Option<String>,
}

/// What the replica that works knows beyond the database.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Live {
    failures: u32,
    retry_at: Option<String>,
    retry_in_seconds: Option<u64>,
    waits_for_gateway: bool,
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gateway {
    kind: &'static str,
    id: String,
    pub(super) name: String,
    url: String,
    boards: u64,
    agents: u64,
    ready_agents: u64,
    pub(super) ready: Ready,
    status: GatewayStatus,
    live: Option<Live>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayStatus {
    generation: i64,
    server_version: Option<String>,
    protocol: Option<i32>,
    conditions: Vec<Shown>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentStatus {
    generation: i64,
    first_provisioned_at: Option<String>,
    conditions: Vec<Shown>,
}

/// A condition, with its time in the form of all others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    r#type: ConditionType,
    status: ConditionStatus,
    reason: String,
    message: String,
    observed_generation: i64,
    last_transition_time: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Board {
    kind: &'static str,
    id: String,
    pub(super) name: String,
    r#type: String,
    gateway_id: Option<String>,
    gateway_name: Option<String>,
    paused: bool,
    lead_id: Option<String>,
    lead_name: Option<String>,
    agents: u64,
    ready_agents: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Agent {
    kind: &'static str,
    id: String,
    pub(super) name: String,
    role: &'static str,
    board_id: Option<String>,
    board_name: Option<String>,
    gateway_id: String,
    gateway_name: String,
    gateway_agent_id: GatewayAgentId,
    online: bool,
    shown_status: String,
    last_seen_at: Option<String>,
    pub(super) ready: Ready,
    status: AgentStatus,
    live: Option<Live>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    kind: &'static str,
    id: i64,
    object: ObjectRef,
    /// Null once its row is gone.
    name: Option<String>,
    r#type: EventKind,
    reason: String,
    message: String,
    count: i64,
    first_seen: String,
    last_seen: String,
}

/// An instant, as all are written.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Live {
    fn new(object: LiveObject, now: DateTime<Utc>) -> Self {
        let retry_at = object.retry_in.and_then(|wait| TimeDelta::from_std(wait).ok());
        Self {
            failures: object.failures,
            retry_at: retry_at.and_then(|wait| now.checked_add_signed(wait)).map(instant),
            retry_in_seconds: object
                .retry_in
                .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            waits_for_gateway: object.waits_for_gateway,
            differences: object.differences,
        }
    }
}

impl Gateway {
    pub(super) fn new(view: GatewaySummary, live: Option<LiveObject>, now: DateTime<Utc>) -> Self {
        Self {
            kind: "Gateway",
            id: view.id.to_string(),
            name: view.name,
            url: shown_url(&view.url),
            boards: view.boards,
            agents: view.agents,
            ready_agents: view.agents_ready,
            ready: Ready::of(&view.conditions),
            status: GatewayStatus {
                generation: view.generation,
                server_version: view.server_version,
                protocol: view.protocol,
                conditions: shown(&view.conditions),
            },
            live: live.map(|live| Live::new(live, now)),
        }
    }
}

impl From<BoardSummary> for Board {
    fn from(view: BoardSummary) -> Self {
        let (gateway_id, gateway_name) = view.gateway.unzip();
        let (lead_id, lead_name) = view.lead.unzip();
        Self {
            kind: "Board",
            id: view.id.to_string(),
            name: view.name,
            r#type: view.board_type,
            gateway_id: gateway_id.map(|id| id.to_string()),
            gateway_name,
            paused: view.paused,
            lead_id: lead_id.map(|id| id.to_string()),
            lead_name,
            agents: view.agents,
            ready_agents: view.agents_ready,
        }
    }
}

impl Agent {
    pub(super) fn new(view: AgentSummary, live: Option<LiveObject>, now: DateTime<Utc>) -> Self {
        let ready = Ready::of_agent(&view.conditions, &view.gateway_conditions, &view.gateway.1);
        let last_seen = view.last_seen_at.map(|at| at.and_utc());
        let seen = last_seen.map(|at| now.signed_duration_since(at));
        let (gateway, gateway_name) = view.gateway;
        let (board_id, board_name) = view.board.unzip();
        Self {
            kind: "Agent",
            id: view.id.to_string(),
            name: view.name,
            role: view::role(view.role),
            board_id: board_id.map(|id| id.to_string()),
            board_name: board_name.flatten(),
            gateway_id: gateway.to_string(),
            gateway_name,
            gateway_agent_id: GatewayAgentId::derive(view.role, view.id, gateway),
            online: view::is_online(seen),
            shown_status: view::shown_status(&view.status, seen).to_owned(),
            last_seen_at: last_seen.map(instant),
            ready,
            status: AgentStatus {
                generation: view.generation,
                first_provisioned_at: view.first_provisioned_at.map(instant),
                conditions: shown(&view.conditions),
            },
            live: live.map(|live| Live::new(live, now)),
        }
    }
}

impl From<EventSummary> for Event {
    fn from(view: EventSummary) -> Self {
        let event = view.recorded.event;
        Self {
            kind: "Event",
            id: view.id,
            object: event.object,
            name: view.object_name,
            r#type: event.kind,
            reason: event.reason,
            message: event.message,
            count: view.recorded.count,
            first_seen: instant(view.recorded.first_seen),
            last_seen: instant(view.recorded.last_seen),
        }
    }
}

fn shown(conditions: &Conditions) -> Vec<Shown> {
    let one = |condition: &Condition| Shown {
        r#type: condition.kind,
        status: condition.status,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        observed_generation: condition.observed_generation,
        last_transition_time: instant(condition.last_transition_time),
    };
    conditions.iter().map(one).collect()
}
