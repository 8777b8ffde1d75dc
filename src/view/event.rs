//! What happened, as people are shown it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::model::{EventKind, GatewaySnapshot, ObjectRef};
use crate::store::RecordedEvent;

/// The names of objects, by id.
pub type Names = HashMap<Uuid, String>;

/// An event as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename = "Event", rename_all = "camelCase")]
pub struct EventView {
    /// What it happened to.
    pub object: ObjectRef,
    /// That object's name; `None` if it has no row any more.
    pub name: Option<String>,
    /// How much it matters.
    #[serde(rename = "type")]
    pub event_kind: EventKind,
    /// A CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// How often it happened.
    pub count: i64,
    /// When it happened first.
    pub first_seen: DateTime<Utc>,
    /// When it happened last.
    pub last_seen: DateTime<Utc>,
}

impl EventView {
    /// What is known of an event.
    pub fn of(recorded: RecordedEvent, names: &Names) -> Self {
        let RecordedEvent {
            event,
            count,
            first_seen,
            last_seen,
        } = recorded;
        let id = match event.object {
            ObjectRef::Gateway(id) => id.0,
            ObjectRef::Agent(id) => id.0,
        };
        Self {
            object: event.object,
            name: names.get(&id).cloned(),
            event_kind: event.kind,
            reason: event.reason,
            message: event.message,
            count,
            first_seen,
            last_seen,
        }
    }

    /// The names of the gateway and the agents of these snapshots.
    pub fn names<'a>(snapshots: impl IntoIterator<Item = &'a GatewaySnapshot>) -> Names {
        let names = snapshots.into_iter().flat_map(|snapshot| {
            let agents = snapshot.agents.iter().map(|agent| (agent.id.0, agent.name.clone()));
            agents.chain([(snapshot.gateway.id.0, snapshot.gateway.name.clone())])
        });
        names.collect()
    }
}
