//! Editing rows, as people and other programs do. Each call is one transaction and sends the hints that it would.

use chrono::NaiveDateTime;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::MemoryStore;
use super::state::State;
use crate::model::{
    AgentId, AgentRecord, AgentRow, Board, BoardId, GatewayId, GatewayRecord, GatewayRow, LeadSettings, User,
};

impl MemoryStore {
    /// Inserts a gateway, or replaces the row with its id.
    pub fn upsert_gateway(&self, row: GatewayRow) {
        let id = row.id;
        let mut state = self.state();
        let changed = state.gateways.get(&id).is_none_or(|old| !same_gateway(old, &row));
        state.gateways.insert(id, row);
        drop(state);
        self.hint(changed.then_some(id));
    }

    /// Inserts a board, or replaces the row with its id. Its `paused` is taken as it is.
    pub fn upsert_board(&self, board: Board) {
        let mut state = self.state();
        let old = state.boards.get(&board.id);
        let mut concerned: Vec<GatewayId> = Vec::new();
        if old.is_none_or(|old| !same_board(old, &board)) {
            let old = old.map(|old| old.gateway_id);
            concerned.extend([board.gateway_id, old.flatten()].into_iter().flatten());
            // Its agents belong, or belonged, to the gateways of their own rows.
            if old.is_some_and(|old| old.is_some() != board.gateway_id.is_some()) {
                let on_board = |agent: &&AgentRow| agent.board_id == Some(board.id);
                concerned.extend(state.agents.values().filter(on_board).map(|agent| agent.gateway_id));
            }
        }
        state.boards.insert(board.id, board);
        drop(state);
        self.hint(concerned);
    }

    /// Inserts an agent, or replaces the row with its id.
    pub fn upsert_agent(&self, row: AgentRow) {
        let mut state = self.state();
        let concerned = match state.agents.get(&row.id) {
            Some(old) if same_agent(old, &row) => Vec::new(),
            Some(old) => vec![state.home(old), state.home(&row)],
            None => vec![state.home(&row)],
        };
        state.agents.insert(row.id, row);
        drop(state);
        self.hint(concerned);
    }

    /// Sets or removes what is chosen for the lead of a board.
    pub fn set_lead_settings(&self, board: BoardId, settings: Option<LeadSettings>) {
        let mut state = self.state();
        match settings {
            Some(settings) => state.lead_settings.insert(board, settings),
            None => state.lead_settings.remove(&board),
        };
        let home = state.boards.get(&board).and_then(|board| board.gateway_id);
        drop(state);
        self.hint(home);
    }

    /// Edits a gateway's row, if it is there.
    pub fn edit_gateway(&self, id: GatewayId, edit: impl FnOnce(&mut GatewayRow)) {
        let row = self.state().gateways.get(&id).cloned();
        if let Some(mut row) = row {
            edit(&mut row);
            self.upsert_gateway(row);
        }
    }

    /// Edits a board's row, if it is there.
    pub fn edit_board(&self, id: BoardId, edit: impl FnOnce(&mut Board)) {
        let board = self.state().boards.get(&id).cloned();
        if let Some(mut board) = board {
            edit(&mut board);
            self.upsert_board(board);
        }
    }

    /// Edits an agent's row, if it is there.
    pub fn edit_agent(&self, id: AgentId, edit: impl FnOnce(&mut AgentRow)) {
        let row = self.state().agents.get(&id).cloned();
        if let Some(mut row) = row {
            edit(&mut row);
            self.upsert_agent(row);
        }
    }

    /// Sets or removes an organisation's owner.
    pub fn set_owner(&self, organization: Uuid, owner: Option<User>) {
        let mut state = self.state();
        let concerned = if state.owners.get(&organization) == owner.as_ref() {
            Vec::new()
        } else {
            let of = |gateway: &&GatewayRow| gateway.organization_id == organization;
            state.gateways.values().filter(of).map(|gateway| gateway.id).collect()
        };
        match owner {
            Some(owner) => state.owners.insert(organization, owner),
            None => state.owners.remove(&organization),
        };
        drop(state);
        self.hint(concerned);
    }

    /// Records a heartbeat of an agent, as its backend does: no hint, unless a check-in is awaited or the agent was offline.
    pub fn check_in(&self, id: AgentId, at: NaiveDateTime) {
        let mut state = self.state();
        let columns = state.wake_columns.entry(id).or_default();
        let mut awaited = columns.checkin_deadline_at.take().is_some();
        columns.wake_attempts = 0;
        let Some(row) = state.agents.get_mut(&id) else { return };
        awaited |= row.status == "offline";
        awaited &= row.last_seen_at != Some(at);
        row.last_seen_at = Some(at);
        "online".clone_into(&mut row.status);
        row.last_provision_error = None;
        let home = state.agents.get(&id).map(|row| state.home(row));
        drop(state);
        self.hint(home.filter(|_| awaited));
    }

    /// Deletes a gateway's row.
    pub fn delete_gateway(&self, id: GatewayId) {
        let old = self.state().gateways.remove(&id);
        self.hint(old.map(|old| old.id));
    }

    /// Deletes a board's row.
    pub fn delete_board(&self, id: BoardId) {
        let old = self.state().boards.remove(&id);
        self.hint(old.and_then(|old| old.gateway_id));
    }

    /// Deletes an agent's row.
    pub fn delete_agent(&self, id: AgentId) {
        let mut state = self.state();
        state.wake_columns.remove(&id);
        let home = state.agents.remove(&id).map(|old| state.home(&old));
        drop(state);
        self.hint(home);
    }

    /// Sets whether another program's backend owns the tables.
    pub fn set_existing_installation(&self, existing: bool) {
        self.state().existing_installation = existing;
    }

    /// An agent's row.
    pub fn agent(&self, id: AgentId) -> Option<AgentRow> {
        self.state().agents.get(&id).cloned()
    }

    /// Our record of an agent, if there is one.
    pub fn agent_record(&self, id: AgentId) -> Option<AgentRecord> {
        let state = self.state();
        state.agent_records.get(&id).map(|remembered| remembered.record.clone())
    }

    /// Our record of a gateway, if there is one.
    pub fn gateway_record(&self, id: GatewayId) -> Option<GatewayRecord> {
        self.state().gateway_records.get(&id).cloned()
    }

    /// How many tokens are remembered as retired.
    pub fn retired_tokens(&self) -> usize {
        self.state().retired.values().map(Vec::len).sum()
    }

    /// The ids of all boards, ordered.
    pub fn board_ids(&self) -> Vec<BoardId> {
        let state: &State = &self.state();
        state.boards.keys().copied().collect()
    }

    /// The ids of all agents that have a row, ordered.
    pub fn agent_ids(&self) -> Vec<AgentId> {
        let state: &State = &self.state();
        state.agents.keys().copied().collect()
    }
}

/// Whether two rows are the same to the triggers.
fn same_gateway(a: &GatewayRow, b: &GatewayRow) -> bool {
    let token = |row: &GatewayRow| row.token.as_ref().map(|token| token.expose_secret().to_owned());
    (a.organization_id, &a.name, &a.url, &a.workspace_root) == (b.organization_id, &b.name, &b.url, &b.workspace_root)
        && (a.disable_device_pairing, a.allow_insecure_tls) == (b.disable_device_pairing, b.allow_insecure_tls)
        && token(a) == token(b)
}

fn same_board(a: &Board, b: &Board) -> bool {
    // Every field of the model is one of the spec, or whether the board is paused.
    format!("{a:?}") == format!("{b:?}")
}

fn same_agent(a: &AgentRow, b: &AgentRow) -> bool {
    let spec = |row: &AgentRow| {
        let mut row = row.clone();
        row.status.clear();
        row.session_key = None;
        row.last_seen_at = None;
        row.last_provision_error = None;
        format!("{row:?}")
    };
    spec(a) == spec(b)
}
