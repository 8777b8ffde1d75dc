//! What there is, as people look at it: some objects of one kind at a time, found and counted by the database.

use std::future::Future;

use chrono::{DateTime, NaiveDateTime, Utc};
use uuid::Uuid;

use super::{RecordedEvent, StoreError};
use crate::model::{AgentId, AgentRole, BoardId, Conditions, GatewayId, ObjectRef};

/// Gateways, boards, agents and events for pages and programs: read only, never under a lease, and from connections of its own,
/// so that whoever looks never holds up the controller. A replica that stands by answers as well as the one that works.
pub trait ViewStore: Send + Sync + 'static {
    /// How many of everything there are.
    fn view_totals(&self) -> impl Future<Output = Result<Totals, StoreError>> + Send;

    /// Gateways: those that are not ready first, then by name.
    fn view_gateways(
        &self,
        filter: &ViewFilter,
        window: Window,
    ) -> impl Future<Output = Result<Listed<GatewaySummary>, StoreError>> + Send;

    /// Boards: those with agents that are not ready first, then by name.
    fn view_boards(
        &self,
        filter: &ViewFilter,
        window: Window,
    ) -> impl Future<Output = Result<Listed<BoardSummary>, StoreError>> + Send;

    /// Agents: those that are not ready first, then by name.
    fn view_agents(
        &self,
        filter: &ViewFilter,
        window: Window,
    ) -> impl Future<Output = Result<Listed<AgentSummary>, StoreError>> + Send;

    /// Events, newest first.
    fn view_events(
        &self,
        filter: &EventFilter,
        window: Window,
    ) -> impl Future<Output = Result<Listed<EventSummary>, StoreError>> + Send;

    /// Up to `limit` events that happened, for the first time or again, after this one; the first of them first.
    fn view_events_after(
        &self,
        after: EventPosition,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<EventSummary>, StoreError>> + Send;

    /// Where the events end at present.
    fn view_last_event(&self) -> impl Future<Output = Result<EventPosition, StoreError>> + Send;
}

/// Which gateways, boards or agents are looked for. What is `None` leaves out nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewFilter {
    /// The one with this id.
    pub id: Option<Uuid>,
    /// What belongs to this gateway.
    pub gateway: Option<GatewayId>,
    /// What belongs to this board.
    pub board: Option<BoardId>,
    /// Whose name or id, or that of what it belongs to, contains this in whatever case.
    pub search: Option<String>,
    /// Those that are ready, or those that are not.
    pub ready: Option<bool>,
}

/// Which events are looked for. What is `None` leaves out nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The one with this id.
    pub id: Option<i64>,
    /// Those of this object.
    pub object: Option<ObjectRef>,
    /// Warnings, or the others.
    pub warning: Option<bool>,
    /// Whose reason, message or object's name contains this in whatever case.
    pub search: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many are left out at the beginning.
    pub offset: u64,
    /// How many are wanted at most.
    pub limit: u32,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in the whole list.
    pub total: u64,
}

/// How many of everything there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of what is counted")]
pub struct Totals {
    pub gateways: u64,
    pub gateways_ready: u64,
    pub boards: u64,
    pub agents: u64,
    pub agents_ready: u64,
}

/// A gateway, without its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySummary {
    /// Its id.
    pub id: GatewayId,
    /// Its name.
    pub name: String,
    /// Its URL as it stands in the row, which may hold a password: never to be shown as it is.
    pub url: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// The server version that it last reported.
    pub server_version: Option<String>,
    /// The protocol that was last agreed on.
    pub protocol: Option<i32>,
    /// Its conditions.
    pub conditions: Conditions,
    /// How many boards are on it.
    pub boards: u64,
    /// How many agents are on it.
    pub agents: u64,
    /// How many of them are ready.
    pub agents_ready: u64,
}

/// A board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardSummary {
    /// Its id.
    pub id: BoardId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub board_type: String,
    /// The gateway that it is on, and that one's name.
    pub gateway: Option<(GatewayId, String)>,
    /// Whether it is paused.
    pub paused: bool,
    /// Its lead, and that one's name.
    pub lead: Option<(AgentId, String)>,
    /// How many agents it has.
    pub agents: u64,
    /// How many of them are ready.
    pub agents_ready: u64,
}

/// An agent, without anything of its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSummary {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: AgentRole,
    /// Its board, and that one's name if it exists.
    pub board: Option<(BoardId, Option<String>)>,
    /// The gateway that it belongs to, and that one's name.
    pub gateway: (GatewayId, String),
    /// The conditions of that gateway.
    pub gateway_conditions: Conditions,
    /// Its status as the row has it.
    pub status: String,
    /// When it last checked in.
    pub last_seen_at: Option<NaiveDateTime>,
    /// Counts changes of its spec.
    pub generation: i64,
    /// When its first provisioning was complete.
    pub first_provisioned_at: Option<DateTime<Utc>>,
    /// Its conditions.
    pub conditions: Conditions,
}

/// An event, with what people call its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSummary {
    /// Its number.
    pub id: i64,
    /// The event.
    pub recorded: RecordedEvent,
    /// The name of its object, if that still has a row.
    pub object_name: Option<String>,
}

impl EventSummary {
    /// Where it stands among all events.
    pub fn position(&self) -> EventPosition {
        EventPosition {
            last_seen: self.recorded.last_seen,
            id: self.id,
        }
    }
}

/// A place among the events in the order in which they last happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// When the event before this place last happened.
    pub last_seen: DateTime<Utc>,
    /// That event's number.
    pub id: i64,
}

impl EventPosition {
    /// Before all events.
    pub const START: Self = Self {
        last_seen: DateTime::<Utc>::UNIX_EPOCH,
        id: 0,
    };
}
