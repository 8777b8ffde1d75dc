//! What people look at.

use super::MemoryStore;
use super::state::State;
use crate::model::{AgentRow, ConditionType, Conditions, EventKind, GatewayId, ObjectRef};
use crate::store::view::{
    AgentSummary, BoardSummary, EventFilter, EventPosition, EventSummary, GatewaySummary, Listed, Totals, ViewFilter,
    ViewStore, Window,
};
use crate::store::{RecordedEvent, StoreError};

impl ViewStore for MemoryStore {
    async fn view_totals(&self) -> Result<Totals, StoreError> {
        self.read(|state| {
            let gateways = || state.gateways.keys().map(|id| state.gateway_conditions(*id));
            Totals {
                gateways: number(gateways().count()),
                gateways_ready: number(
                    gateways()
                        .filter(|conditions| conditions.is_true(ConditionType::Ready))
                        .count(),
                ),
                boards: number(state.boards.len()),
                agents: number(state.agents.len()),
                agents_ready: number(state.agents.values().filter(|agent| state.is_ready(agent)).count()),
            }
        })
    }

    async fn view_gateways(&self, filter: &ViewFilter, window: Window) -> Result<Listed<GatewaySummary>, StoreError> {
        self.read(|state| {
            let board = filter
                .board
                .map(|id| state.boards.get(&id).and_then(|board| board.gateway_id));
            let found = state
                .gateways
                .values()
                .filter(|row| filter.id.is_none_or(|id| row.id.0 == id))
                .filter(|row| filter.gateway.is_none_or(|id| row.id == id))
                .filter(|row| board.is_none_or(|id| id == Some(row.id)))
                .filter(|row| contains(filter.search.as_ref(), &[&row.name, &row.id.to_string()]))
                .map(|row| (state.gateway_conditions(row.id).is_true(ConditionType::Ready), row))
                .filter(|(ready, _)| filter.ready.is_none_or(|wanted| wanted == *ready));
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|(ready, row)| (*ready, row.name.to_lowercase(), row.id));
            part(&found, window, |(_, row)| {
                let record = state.gateway_records.get(&row.id).cloned().unwrap_or_default();
                let agents = || state.agents.values().filter(|agent| state.home(agent) == row.id);
                GatewaySummary {
                    id: row.id,
                    name: row.name.clone(),
                    url: row.url.clone(),
                    generation: record.generation,
                    server_version: record.server_version,
                    protocol: record.protocol,
                    conditions: record.conditions,
                    boards: number(
                        state
                            .boards
                            .values()
                            .filter(|board| board.gateway_id == Some(row.id))
                            .count(),
                    ),
                    agents: number(agents().count()),
                    agents_ready: number(agents().filter(|agent| state.is_ready(agent)).count()),
                }
            })
        })
    }

    async fn view_boards(&self, filter: &ViewFilter, window: Window) -> Result<Listed<BoardSummary>, StoreError> {
        self.read(|state| {
            let found = state
                .boards
                .values()
                .filter(|board| filter.id.is_none_or(|id| board.id.0 == id))
                .filter(|board| filter.gateway.is_none_or(|id| board.gateway_id == Some(id)))
                .filter(|board| filter.board.is_none_or(|id| board.id == id))
                .filter(|board| {
                    let gateway = board.gateway_id.map(|id| state.gateway_name(id)).unwrap_or_default();
                    contains(filter.search.as_ref(), &[&board.name, &board.id.to_string(), &gateway])
                })
                .map(|board| {
                    let agents = || state.agents.values().filter(|agent| agent.board_id == Some(board.id));
                    (
                        agents().count(),
                        agents().filter(|agent| state.is_ready(agent)).count(),
                        board,
                    )
                })
                .filter(|(all, ready, _)| filter.ready.is_none_or(|wanted| wanted == (all == ready)));
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|(all, ready, board)| (all == ready, board.name.to_lowercase(), board.id));
            part(&found, window, |(all, ready, board)| {
                let leads = state
                    .agents
                    .values()
                    .filter(|agent| agent.board_id == Some(board.id) && agent.is_board_lead);
                let lead = leads.min_by_key(|agent| (agent.created_at, agent.id));
                BoardSummary {
                    id: board.id,
                    name: board.name.clone(),
                    board_type: board.board_type.clone(),
                    gateway: board.gateway_id.map(|id| (id, state.gateway_name(id))),
                    paused: board.paused,
                    lead: lead.map(|agent| (agent.id, agent.name.clone())),
                    agents: number(*all),
                    agents_ready: number(*ready),
                }
            })
        })
    }

    async fn view_agents(&self, filter: &ViewFilter, window: Window) -> Result<Listed<AgentSummary>, StoreError> {
        self.read(|state| {
            let found = state
                .agents
                .values()
                .filter(|agent| state.gateways.contains_key(&state.home(agent)))
                .filter(|agent| filter.id.is_none_or(|id| agent.id.0 == id))
                .filter(|agent| filter.gateway.is_none_or(|id| state.home(agent) == id))
                .filter(|agent| filter.board.is_none_or(|id| agent.board_id == Some(id)))
                .filter(|agent| {
                    let board = agent.board_id.and_then(|id| state.boards.get(&id));
                    let home = state.home(agent);
                    let texts = [
                        agent.name.clone(),
                        agent.id.to_string(),
                        board.map(|board| board.name.clone()).unwrap_or_default(),
                        board.map(|board| board.id.to_string()).unwrap_or_default(),
                        state.gateway_name(home),
                        home.to_string(),
                    ];
                    contains(filter.search.as_ref(), &texts.each_ref().map(String::as_str))
                })
                .filter(|agent| filter.ready.is_none_or(|wanted| wanted == state.is_ready(agent)));
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|agent| (state.is_ready(agent), agent.name.to_lowercase(), agent.id));
            part(&found, window, |agent| {
                let remembered = state.agent_records.get(&agent.id).cloned().unwrap_or_default();
                let home = state.home(agent);
                AgentSummary {
                    id: agent.id,
                    name: agent.name.clone(),
                    role: agent.role(),
                    board: agent
                        .board_id
                        .map(|id| (id, state.boards.get(&id).map(|board| board.name.clone()))),
                    gateway: (home, state.gateway_name(home)),
                    gateway_conditions: state.gateway_conditions(home),
                    status: agent.status.clone(),
                    last_seen_at: agent.last_seen_at,
                    generation: remembered.record.generation,
                    first_provisioned_at: remembered.record.first_provisioned_at,
                    conditions: remembered.record.conditions,
                }
            })
        })
    }

    async fn view_events(&self, filter: &EventFilter, window: Window) -> Result<Listed<EventSummary>, StoreError> {
        self.read(|state| {
            let found = state
                .events
                .iter()
                .map(|(id, recorded)| state.event(*id, recorded))
                .filter(|view| filter.id.is_none_or(|id| view.id == id))
                .filter(|view| filter.object.is_none_or(|object| view.recorded.event.object == object))
                .filter(|view| {
                    let warning = view.recorded.event.kind == EventKind::Warning;
                    filter.warning.is_none_or(|wanted| wanted == warning)
                })
                .filter(|view| {
                    let event = &view.recorded.event;
                    let id = match event.object {
                        ObjectRef::Gateway(id) => id.0,
                        ObjectRef::Agent(id) => id.0,
                    };
                    let name = view.object_name.as_deref().unwrap_or_default();
                    contains(
                        filter.search.as_ref(),
                        &[&event.reason, &event.message, name, &id.to_string()],
                    )
                });
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|view| std::cmp::Reverse(view.position()));
            part(&found, window, Clone::clone)
        })
    }

    async fn view_events_after(&self, after: EventPosition, limit: u32) -> Result<Vec<EventSummary>, StoreError> {
        self.read(|state| {
            let mut found: Vec<_> = state
                .events
                .iter()
                .map(|(id, recorded)| state.event(*id, recorded))
                .filter(|view| view.position() > after)
                .collect();
            found.sort_by_key(EventSummary::position);
            found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found
        })
    }

    async fn view_last_event(&self) -> Result<EventPosition, StoreError> {
        self.read(|state| {
            let positions = state
                .events
                .iter()
                .map(|(id, recorded)| state.event(*id, recorded).position());
            positions.max().unwrap_or(EventPosition::START)
        })
    }
}

impl State {
    fn gateway_conditions(&self, id: GatewayId) -> Conditions {
        let record = self.gateway_records.get(&id);
        record.map(|record| record.conditions.clone()).unwrap_or_default()
    }

    fn gateway_name(&self, id: GatewayId) -> String {
        self.gateways.get(&id).map(|row| row.name.clone()).unwrap_or_default()
    }

    /// What is true of an agent was true when it was last looked at: it counts only while its gateway can be reached.
    fn is_ready(&self, agent: &AgentRow) -> bool {
        let own = self.agent_records.get(&agent.id);
        own.is_some_and(|remembered| remembered.record.conditions.is_true(ConditionType::Ready))
            && self
                .gateway_conditions(self.home(agent))
                .is_true(ConditionType::Reachable)
    }

    fn event(&self, id: i64, recorded: &RecordedEvent) -> EventSummary {
        let object_name = match recorded.event.object {
            ObjectRef::Gateway(id) => self.gateways.get(&id).map(|row| row.name.clone()),
            ObjectRef::Agent(id) => self.agents.get(&id).map(|row| row.name.clone()),
        };
        EventSummary {
            id,
            recorded: recorded.clone(),
            object_name,
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Whether the texts, one after the other, contain what is searched for, in whatever case.
fn contains(search: Option<&String>, texts: &[&str]) -> bool {
    search.is_none_or(|search| texts.join(" ").to_lowercase().contains(&search.to_lowercase()))
}

/// A part of what was found.
fn part<T, V>(found: &[T], window: Window, view: impl Fn(&T) -> V) -> Listed<V> {
    let skipped = usize::try_from(window.offset).unwrap_or(usize::MAX);
    let limit = usize::try_from(window.limit).unwrap_or(usize::MAX);
    Listed {
        items: found.iter().skip(skipped).take(limit).map(view).collect(),
        total: number(found.len()),
    }
}
