//! What commands look up for people: who there is by name, and what happened to whom.

use std::future::Future;

use super::{RecordedEvent, StoreError};
use crate::model::{AgentId, AgentRole, BoardId, GatewayAgentId, GatewayId, ObjectRef};

/// An object that people may mean, by whatever they call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A gateway.
    Gateway {
        /// Its id.
        id: GatewayId,
        /// Its display name.
        name: String,
    },
    /// A board.
    Board {
        /// Its id.
        id: BoardId,
        /// Its display name.
        name: String,
        /// Its name in URLs.
        slug: String,
        /// The gateway that it is on.
        gateway: Option<GatewayId>,
    },
    /// An agent.
    Agent {
        /// Its id.
        id: AgentId,
        /// Its display name.
        name: String,
        /// Its board.
        board: Option<BoardId>,
        /// The gateway that it belongs to.
        gateway: GatewayId,
        /// Its id there.
        gateway_agent_id: GatewayAgentId,
    },
}

/// An agent, of what its row says of it.
pub(super) fn named_agent(id: AgentId, name: String, board: Option<BoardId>, lead: bool, gateway: GatewayId) -> Named {
    let role = match board {
        None => AgentRole::Main,
        Some(board) if lead => AgentRole::Lead(board),
        Some(board) => AgentRole::Worker(board),
    };
    Named::Agent {
        id,
        name,
        board,
        gateway,
        gateway_agent_id: GatewayAgentId::derive(role, id, gateway),
    }
}

/// Looking up for people. Needs no lease, and writes nothing.
pub trait LookupStore: Send + Sync + 'static {
    /// All gateways, boards and agents that have rows: each kind by id.
    fn names(&self) -> impl Future<Output = Result<Vec<Named>, StoreError>> + Send;

    /// The newest events of these objects, or of all; newest first.
    fn events_of(
        &self,
        objects: Option<&[ObjectRef]>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RecordedEvent>, StoreError>> + Send;
}
