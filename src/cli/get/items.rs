//! Views as rows of tables.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::cli::table::{Item, cell, wide};
use crate::model::{ConditionStatus, EventKind, ObjectRef};
use crate::view::{AgentView, BoardView, EventView, GatewayView, ago};

/// Whether all is well, by a number of agents.
fn by_count(ready: usize, all: usize) -> ConditionStatus {
    if ready == all {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    }
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

pub(super) fn gateway(view: &GatewayView) -> Item {
    let status = &view.status;
    let protocol = status.protocol.map(|protocol| protocol.to_string());
    let cells = vec![
        cell("NAME", &view.name),
        cell("READY", view.ready.status).by(view.ready.status),
        cell("REASON", &view.ready.reason),
        cell("VERSION", or_dash(status.server_version.as_deref())),
        cell("AGENTS", view.agents),
        wide("AGENTS READY", view.ready_agents).by(by_count(view.ready_agents, view.agents)),
        wide("ID", view.id),
        wide("URL", &view.url),
        wide("PROTOCOL", or_dash(protocol.as_deref())),
        wide("LEFTOVERS", view.leftovers.len()),
        wide("MESSAGE", &view.ready.message),
    ];
    Item::new(view.id, cells, json!(view))
}

pub(super) fn board(view: &BoardView) -> Item {
    let ready = by_count(view.ready_agents, view.agents);
    let cells = vec![
        cell("NAME", &view.name),
        cell("READY", format!("{}/{}", view.ready_agents, view.agents)).by(ready),
        cell("LEAD", or_dash(view.lead_name.as_deref())),
        cell("GATEWAY", or_dash(view.gateway_name.as_deref())),
        cell("PAUSED", view.paused),
        wide("ID", view.id),
        wide("SLUG", &view.slug),
        wide("TYPE", &view.board_type),
        wide("QUALIFIES FOR LEAD", view.qualifies_for_lead),
    ];
    Item::new(view.id, cells, json!(view))
}

pub(super) fn agent(view: &AgentView, now: DateTime<Utc>) -> Item {
    let seen = view.last_seen_at.map_or_else(|| "never".to_owned(), |at| ago(now - at));
    let cells = vec![
        cell("NAME", &view.name),
        cell("ROLE", view.role),
        cell("BOARD", or_dash(view.board_name.as_deref())),
        cell("READY", view.ready.status).by(view.ready.status),
        cell("REASON", &view.ready.reason),
        cell("STATUS", &view.shown_status),
        cell("LAST SEEN", seen),
        wide("GENERATION", view.status.generation),
        wide("ID", view.id),
        wide("GATEWAY AGENT", &view.gateway_agent_id),
        wide("GATEWAY", &view.gateway_name),
        wide("MESSAGE", &view.ready.message),
    ];
    // That it is still there is no news: every agent says so every ten minutes.
    Item::new(view.id, cells, json!(view)).but_for(&["lastSeenAt"])
}

/// What an event happened to: its kind, and its name or else its id.
pub(super) fn object(view: &EventView) -> String {
    let (kind, id) = match view.object {
        ObjectRef::Gateway(id) => ("gateway", id.0),
        ObjectRef::Agent(id) => ("agent", id.0),
    };
    let name = view.name.clone().unwrap_or_else(|| id.to_string());
    format!("{kind}/{name}")
}

pub(super) fn event(view: &EventView, now: DateTime<Utc>) -> Item {
    let kind = match view.event_kind {
        EventKind::Normal => cell("TYPE", "Normal"),
        EventKind::Warning => cell("TYPE", "Warning").by(ConditionStatus::Unknown),
    };
    let id = match view.object {
        ObjectRef::Gateway(id) => id.0,
        ObjectRef::Agent(id) => id.0,
    };
    let cells = vec![
        cell("LAST SEEN", ago(now - view.last_seen)),
        kind,
        cell("REASON", &view.reason),
        cell("OBJECT", object(view)),
        cell("COUNT", view.count),
        wide("FIRST SEEN", ago(now - view.first_seen)),
        wide("ID", id),
        cell("MESSAGE", &view.message),
    ];
    let key = format!("{id} {:?} {} {}", view.event_kind, view.reason, view.message);
    Item::new(key, cells, json!(view))
}
