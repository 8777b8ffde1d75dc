//! What the tables hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::model::{
    AgentId, AgentRecord, AgentRow, Board, BoardId, CausedRestart, GatewayAgentId, GatewayId, GatewayRecord,
    GatewayRow, GatewaySnapshot, LeadSettings, Leftover, ObjectRef, SyncRequest, SyncResult, SyncedAgent, Undoing,
    User,
};
use crate::store::{Candidate, Fence, RecordedEvent, VerifiedPair, WakeColumns};

#[derive(Clone)]
pub(super) struct Lease {
    pub(super) holder: Option<String>,
    pub(super) term: i64,
    pub(super) expires_at: DateTime<Utc>,
}

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) gateways: BTreeMap<GatewayId, GatewayRow>,
    pub(super) boards: BTreeMap<BoardId, Board>,
    pub(super) lead_settings: HashMap<BoardId, LeadSettings>,
    /// How many leads were made: numbers their ids, so that a run can be repeated.
    pub(super) leads_made: u128,
    pub(super) agents: BTreeMap<AgentId, AgentRow>,
    /// Those of their columns that the rows leave out.
    pub(super) wake_columns: HashMap<AgentId, WakeColumns>,
    /// The owner of each organisation.
    pub(super) owners: HashMap<Uuid, User>,
    pub(super) existing_installation: bool,
    pub(super) gateway_records: BTreeMap<GatewayId, GatewayRecord>,
    pub(super) agent_records: BTreeMap<AgentId, Remembered>,
    pub(super) verified: HashMap<AgentId, VerifiedPair>,
    pub(super) candidates: HashMap<AgentId, Vec<Candidate>>,
    /// SHA-256 digests of tokens that were replaced, and until when they are taken.
    pub(super) retired: HashMap<AgentId, Vec<(String, DateTime<Utc>)>>,
    /// The hash that did not match, and since when.
    pub(super) mismatches: HashMap<AgentId, (Option<String>, DateTime<Utc>)>,
    /// By their numbers; oldest sighting first.
    pub(super) events: Vec<(i64, RecordedEvent)>,
    /// How many events were ever recorded for the first time: numbers them.
    pub(super) events_ever: i64,
    pub(super) leases: HashMap<String, Lease>,
    /// For whom a gateway's files are rendered, where somebody said so.
    pub(super) rendered_for: HashMap<GatewayId, User>,
    /// How many syncs were ever asked for.
    pub(super) syncs_ever: u128,
    /// One-shot syncs, oldest first.
    pub(super) syncs: Vec<Sync>,
    /// By gateway and by the id there.
    pub(super) leftovers: BTreeMap<(GatewayId, GatewayAgentId), Leftover>,
    /// Whether the gateway has answered.
    pub(super) removed: BTreeMap<(GatewayId, GatewayAgentId), bool>,
    /// Restarts of each gateway that we caused, oldest first.
    pub(super) restarts: HashMap<GatewayId, Vec<CausedRestart>>,
    /// How many restarts were ever recorded: numbers them.
    pub(super) restarts_ever: i64,
    /// Fields that somebody else undoes.
    pub(super) undone: BTreeMap<(GatewayId, ObjectRef, String), Undoing>,
}

/// A one-shot sync, and what is done of it.
#[derive(Clone)]
pub(super) struct Sync {
    pub(super) request: SyncRequest,
    pub(super) started: bool,
    pub(super) agents: Option<usize>,
    pub(super) resets: BTreeSet<AgentId>,
    pub(super) done: BTreeMap<AgentId, SyncedAgent>,
    pub(super) result: Option<SyncResult>,
}

impl Sync {
    pub(super) fn new(request: SyncRequest) -> Self {
        Self {
            request,
            started: false,
            agents: None,
            resets: BTreeSet::new(),
            done: BTreeMap::new(),
            result: None,
        }
    }
}

/// A record, and the gateway that the rows last said.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    pub(super) record: AgentRecord,
    pub(super) home: Option<GatewayId>,
}

impl Remembered {
    fn last_gateway(&self) -> Option<GatewayId> {
        self.record
            .placement
            .as_ref()
            .map(|(gateway, _)| *gateway)
            .or(self.home)
    }
}

impl State {
    /// Whether the lease is still held under this term.
    pub(super) fn holds(&self, fence: &Fence) -> bool {
        self.leases
            .get(&fence.scope)
            .is_some_and(|lease| lease.term == fence.term && lease.holder.as_deref() == Some(fence.holder.as_str()))
    }

    /// The gateway that an agent belongs to: its board's; its own where there is no board or the board has none.
    pub(super) fn home(&self, agent: &AgentRow) -> GatewayId {
        agent
            .board_id
            .and_then(|board| self.boards.get(&board))
            .and_then(|board| board.gateway_id)
            .unwrap_or(agent.gateway_id)
    }

    pub(super) fn snapshot(&self, gateway: &GatewayRow) -> GatewaySnapshot {
        let id = gateway.id;
        let mut agents: Vec<AgentRow> = self
            .agents
            .values()
            .filter(|agent| self.home(agent) == id)
            .cloned()
            .collect();
        agents.sort_by_key(|agent| (agent.created_at, agent.id));
        let boards: HashMap<BoardId, Board> = self
            .boards
            .values()
            .filter(|board| board.gateway_id == Some(id) || agents.iter().any(|agent| agent.board_id == Some(board.id)))
            .map(|board| (board.id, board.clone()))
            .collect();
        let agent_records = self
            .agent_records
            .iter()
            .filter(|(agent, remembered)| match self.agents.get(agent) {
                Some(row) => self.home(row) == id,
                None => remembered.last_gateway() == Some(id),
            })
            .map(|(agent, remembered)| (*agent, remembered.record.clone()))
            .collect();
        GatewaySnapshot {
            gateway: gateway.clone(),
            lead_settings: self
                .lead_settings
                .iter()
                .filter(|(board, _)| boards.get(board).is_some_and(|board| board.gateway_id == Some(id)))
                .map(|(board, settings)| (*board, settings.clone()))
                .collect(),
            owner: self
                .rendered_for
                .get(&id)
                .or_else(|| self.owners.get(&gateway.organization_id))
                .cloned(),
            boards,
            agents,
            record: self.gateway_records.get(&id).cloned().unwrap_or_default(),
            agent_records,
        }
    }
}
