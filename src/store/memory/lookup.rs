//! What people mean, and what happened to it.

use super::MemoryStore;
use crate::model::ObjectRef;
use crate::store::lookup::named_agent;
use crate::store::{LookupStore, Named, RecordedEvent, StoreError};

impl LookupStore for MemoryStore {
    async fn names(&self) -> Result<Vec<Named>, StoreError> {
        self.read(|state| {
            let gateways = state.gateways.values().map(|gateway| Named::Gateway {
                id: gateway.id,
                name: gateway.name.clone(),
            });
            let boards = state.boards.values().map(|board| Named::Board {
                id: board.id,
                name: board.name.clone(),
                slug: board.slug.clone(),
                gateway: board.gateway_id,
            });
            let agents = state.agents.values().map(|agent| {
                let name = agent.name.clone();
                named_agent(agent.id, name, agent.board_id, agent.is_board_lead, state.home(agent))
            });
            gateways.chain(boards).chain(agents).collect()
        })
    }

    async fn events_of(&self, objects: Option<&[ObjectRef]>, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        let meant = |recorded: &&RecordedEvent| objects.is_none_or(|objects| objects.contains(&recorded.event.object));
        self.read(|state| {
            let events = state.events.iter().rev().map(|(_, recorded)| recorded);
            events.filter(meant).take(limit).cloned().collect()
        })
    }
}
