//! Requests for agents.

use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::model::{AgentId, AgentRequests, AgentRow, BoardId, GatewayId};
use crate::store::request::unknown;
use crate::store::{AgentSelector, RequestStore, Requested, RotationProgress, StoreError};

impl RequestStore for MemoryStore {
    async fn request_rotation(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        self.ask(of, |requests, at| requests.rotate = Some(at))
    }

    async fn request_wake(&self, of: &AgentSelector) -> Result<Requested, StoreError> {
        self.ask(of, |requests, at| requests.wake = Some(at))
    }

    async fn set_paused(&self, boards: &[BoardId], paused: bool) -> Result<Vec<BoardId>, StoreError> {
        self.reachable()?;
        let mut state = self.state();
        let missing = absent(boards, |id| state.boards.contains_key(id));
        if !missing.is_empty() {
            return Err(unknown("board", &missing));
        }
        let (mut told, mut homes) = (Vec::new(), Vec::new());
        for board in state.boards.values_mut() {
            if boards.contains(&board.id) && board.paused != paused {
                board.paused = paused;
                told.push(board.id);
                homes.extend(board.gateway_id);
            }
        }
        drop(state);
        self.hint(homes);
        Ok(told)
    }

    async fn rotation_progress(&self, agents: &[AgentId]) -> Result<Vec<RotationProgress>, StoreError> {
        self.read(|state| {
            let asked = state.agents.values().filter(|agent| agents.contains(&agent.id));
            asked
                .map(|agent| {
                    let record = state.agent_records.get(&agent.id).map(|known| known.record.clone());
                    let record = record.unwrap_or_default();
                    let gateway = state.gateway_records.get(&state.home(agent));
                    RotationProgress {
                        agent: agent.id,
                        name: agent.name.clone(),
                        requested: agent.requests.rotate,
                        rotated_for: record.rotated_for,
                        conditions: record.conditions,
                        gateway: gateway.map(|record| record.conditions.clone()).unwrap_or_default(),
                    }
                })
                .collect()
        })
    }
}

impl MemoryStore {
    fn ask(
        &self,
        of: &AgentSelector,
        set: impl Fn(&mut AgentRequests, DateTime<Utc>),
    ) -> Result<Requested, StoreError> {
        self.reachable()?;
        let at = self.database_now();
        let mut state = self.state();
        let missing: Vec<String> = match of {
            AgentSelector::Agents(ids) => absent(ids, |id| state.agents.contains_key(id)),
            AgentSelector::Boards(ids) => absent(ids, |id| state.boards.contains_key(id)),
            AgentSelector::Gateways(ids) => absent(ids, |id| state.gateways.contains_key(id)),
            AgentSelector::All => Vec::new(),
        };
        if !missing.is_empty() {
            let kind = match of {
                AgentSelector::Boards(_) => "board",
                AgentSelector::Gateways(_) => "gateway",
                AgentSelector::Agents(_) | AgentSelector::All => "agent",
            };
            return Err(unknown(kind, &missing));
        }
        let selected = |agent: &&AgentRow| match of {
            AgentSelector::Agents(ids) => ids.contains(&agent.id),
            AgentSelector::Boards(ids) => agent.board_id.is_some_and(|board| ids.contains(&board)),
            AgentSelector::Gateways(ids) => ids.contains(&state.home(agent)),
            AgentSelector::All => true,
        };
        let (deleting, agents): (Vec<&AgentRow>, Vec<_>) = state
            .agents
            .values()
            .filter(selected)
            .partition(|agent| agent.delete_requested_at.is_some());
        let deleting = deleting.len();
        let homes: Vec<GatewayId> = agents.iter().map(|agent| state.home(agent)).collect();
        let agents: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
        for id in &agents {
            if let Some(row) = state.agents.get_mut(id) {
                set(&mut row.requests, at);
            }
        }
        drop(state);
        self.hint(homes);
        Ok(Requested { at, agents, deleting })
    }
}

fn absent<Id: ToString>(ids: &[Id], known: impl Fn(&Id) -> bool) -> Vec<String> {
    ids.iter().filter(|id| !known(id)).map(ToString::to_string).collect()
}
