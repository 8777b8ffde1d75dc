//! Rows for board leads.

use uuid::Uuid;

use super::MemoryStore;
use super::store::record_event;
use crate::model::{AgentId, NewLead};
use crate::store::{Fence, LeadCreation, StoreError};

/// The ids of leads that are made here begin with this.
const IDS: u128 = 0x1ead_0000_0000_4000_8000_0000_0000_0000;

impl MemoryStore {
    pub(super) fn insert_lead(&self, fence: &Fence, lead: &NewLead) -> Result<LeadCreation, StoreError> {
        let now = self.database_now();
        let mut made = false;
        let outcome = self.write("create_lead", fence, |state| {
            let board = state.boards.get(&lead.board);
            if board.and_then(|board| board.gateway_id) != Some(lead.gateway) {
                return (false, LeadCreation::BoardElsewhere);
            }
            let mut agents = state.agents.values();
            if agents.any(|agent| agent.board_id == Some(lead.board) && agent.is_board_lead) {
                return (false, LeadCreation::Present);
            }
            state.leads_made += 1;
            let id = AgentId(Uuid::from_u128(IDS | state.leads_made));
            state.agents.insert(id, lead.row(id, now.naive_utc()));
            record_event(state, &lead.created(id), now);
            made = true;
            (true, LeadCreation::Created(id))
        });
        self.hint(made.then_some(lead.gateway));
        outcome
    }
}
