//! What is known of a board.

use serde::Serialize;

use super::AgentView;
use crate::model::{AgentId, Board, BoardId, EnsureLeads, GatewayId, GatewaySnapshot};

/// A board as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename = "Board", rename_all = "camelCase")]
pub struct BoardView {
    /// Its id.
    pub id: BoardId,
    /// Its display name.
    pub name: String,
    /// Its name in URLs.
    pub slug: String,
    /// The gateway that it is on.
    pub gateway_id: Option<GatewayId>,
    /// That gateway's name.
    pub gateway_name: Option<String>,
    /// Whether its last word was `/pause`.
    pub paused: bool,
    /// Its type.
    #[serde(rename = "type")]
    pub board_type: String,
    /// How many agents it has.
    pub agents: usize,
    /// How many of them are as desired.
    pub ready_agents: usize,
    /// Its lead.
    pub lead_id: Option<AgentId>,
    /// The lead's name.
    pub lead_name: Option<String>,
    /// Whether it gets a lead if it has none.
    pub qualifies_for_lead: bool,
}

impl BoardView {
    /// The boards of a snapshot, by name.
    pub fn all(snapshot: &GatewaySnapshot) -> Vec<Self> {
        let mut boards: Vec<_> = snapshot.boards.values().collect();
        boards.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        boards.into_iter().map(|board| Self::of(snapshot, board)).collect()
    }

    /// What is known of a board.
    pub fn of(snapshot: &GatewaySnapshot, board: &Board) -> Self {
        let agents = || snapshot.agents.iter().filter(|agent| agent.board_id == Some(board.id));
        let lead = agents().find(|agent| agent.is_board_lead);
        let on_gateway = board.gateway_id == Some(snapshot.gateway.id);
        Self {
            id: board.id,
            name: board.name.clone(),
            slug: board.slug.clone(),
            gateway_id: board.gateway_id,
            gateway_name: on_gateway.then(|| snapshot.gateway.name.clone()),
            paused: board.paused,
            board_type: board.board_type.clone(),
            agents: agents().count(),
            ready_agents: agents()
                .filter(|agent| AgentView::ready(snapshot, agent.id).is_true())
                .count(),
            lead_id: lead.map(|lead| lead.id),
            lead_name: lead.map(|lead| lead.name.clone()),
            qualifies_for_lead: EnsureLeads::Confirmed.wants(board),
        }
    }

    /// Whether all its agents are as desired.
    pub fn is_ready(&self) -> bool {
        self.ready_agents == self.agents
    }
}
