//! Objects as they are shown, to people and to programs alike.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use crate::model::{
    AgentRole, Condition, ConditionStatus, ConditionType, Conditions, EventKind, GatewayAgentId, ObjectRef,
};
use crate::reconcile::{Difference, LiveObject};
use crate::store::{AgentView, BoardView, EventView, GatewayView};

/// How long after its last heartbeat an agent counts as offline; heartbeats come every ten minutes. Computed here and stored
/// nowhere.
const OFFLINE_AFTER: TimeDelta = TimeDelta::minutes(10);

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

/// The sum of an object's conditions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ready {
    pub(super) status: ConditionStatus,
    pub(super) reason: String,
    pub(super) message: String,
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
    gateway: Option<String>,
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
    board: Option<String>,
    gateway_id: String,
    gateway: String,
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
    id: i64,
    object: Object,
    kind: EventKind,
    reason: String,
    message: String,
    count: i64,
    first_seen: String,
    last_seen: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    kind: &'static str,
    id: String,
    /// Null once its row is gone.
    name: Option<String>,
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
    pub(super) fn new(view: GatewayView, live: Option<LiveObject>, now: DateTime<Utc>) -> Self {
        Self {
            kind: "Gateway",
            id: view.id.to_string(),
            name: view.name,
            url: shown_url(&view.url),
            boards: view.boards,
            agents: view.agents,
            ready_agents: view.agents_ready,
            ready: ready(&view.conditions),
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

impl From<BoardView> for Board {
    fn from(view: BoardView) -> Self {
        let (gateway_id, gateway) = view.gateway.unzip();
        let (lead_id, lead_name) = view.lead.unzip();
        Self {
            kind: "Board",
            id: view.id.to_string(),
            name: view.name,
            r#type: view.board_type,
            gateway_id: gateway_id.map(|id| id.to_string()),
            gateway,
            paused: view.paused,
            lead_id: lead_id.map(|id| id.to_string()),
            lead_name,
            agents: view.agents,
            ready_agents: view.agents_ready,
        }
    }
}

impl Agent {
    pub(super) fn new(view: AgentView, live: Option<LiveObject>, now: DateTime<Utc>) -> Self {
        let ready = agent_ready(&view);
        let last_seen = view.last_seen_at.map(|at| at.and_utc());
        let seen = last_seen.map(|at| now.signed_duration_since(at));
        let (gateway, gateway_name) = view.gateway;
        let (board_id, board) = view.board.unzip();
        Self {
            kind: "Agent",
            id: view.id.to_string(),
            name: view.name,
            role: match view.role {
                AgentRole::Lead(_) => "lead",
                AgentRole::Worker(_) => "worker",
                AgentRole::Main => "main",
            },
            board_id: board_id.map(|id| id.to_string()),
            board: board.flatten(),
            gateway_id: gateway.to_string(),
            gateway: gateway_name,
            gateway_agent_id: GatewayAgentId::derive(view.role, view.id, gateway),
            online: seen.is_some_and(|ago| ago < OFFLINE_AFTER),
            shown_status: shown_status(&view.status, seen).to_owned(),
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

impl From<EventView> for Event {
    fn from(view: EventView) -> Self {
        let event = view.recorded.event;
        let (kind, id) = match event.object {
            ObjectRef::Gateway(id) => ("gateway", id.to_string()),
            ObjectRef::Agent(id) => ("agent", id.to_string()),
        };
        Self {
            id: view.id,
            object: Object {
                kind,
                id,
                name: view.object_name,
            },
            kind: event.kind,
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

fn ready(conditions: &Conditions) -> Ready {
    match conditions.get(ConditionType::Ready) {
        Some(ready) => Ready {
            status: ready.status,
            reason: ready.reason.clone(),
            message: ready.message.clone(),
        },
        None => Ready {
            status: ConditionStatus::Unknown,
            reason: "NotObserved".into(),
            message: "no controller has looked at it yet; is one running?".into(),
        },
    }
}

/// Whether an agent is ready, as far as can be told through its gateway.
fn agent_ready(view: &AgentView) -> Ready {
    let mut ready = ready(&view.conditions);
    let gateway = view.gateway_conditions.get(ConditionType::Ready);
    if ready.status == ConditionStatus::True && !view.gateway_conditions.is_true(ConditionType::Reachable) {
        // One condition of the gateway stands for all its agents: what was true of them was true when last looked at.
        ready = Ready {
            status: ConditionStatus::Unknown,
            reason: "GatewayNotReachable".into(),
            message: format!("its gateway {} is not reachable", view.gateway.1),
        };
    } else if let (None, Some(gateway)) = (view.conditions.get(ConditionType::Ready), gateway)
        && gateway.status != ConditionStatus::True
    {
        ready.reason = "GatewayNotReady".into();
        ready.message = format!(
            "its gateway {} is not ready: {}: {}",
            view.gateway.1, gateway.reason, gateway.message
        );
    }
    ready
}

/// An agent's status as it is shown: who has not been seen for a while is offline, whatever the row says.
fn shown_status(stored: &str, seen: Option<TimeDelta>) -> &str {
    match seen {
        _ if matches!(stored, "deleting" | "updating" | "offline") => stored,
        Some(ago) if ago >= OFFLINE_AFTER => "offline",
        _ => stored,
    }
}

/// A gateway's URL without user, password or query: people have been seen to put tokens there.
fn shown_url(url: &str) -> String {
    match url::Url::parse(url.trim()) {
        Ok(mut url) => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) if url.trim().is_empty() => "(none)".to_owned(),
        Err(_) => "(malformed)".to_owned(),
    }
}

/// A span as kubectl shows it: its largest unit.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
