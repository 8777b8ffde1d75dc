//! From a snapshot of rows to what each object's spec is: which agents can be managed at all, why the others can't, and
//! the digests by which a change of a spec is told from a repetition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::model::{
    AgentId, AgentRecord, AgentRole, AgentRow, Board, BoardId, GatewayAgentId, GatewayId, GatewaySnapshot, JsonColumn,
    session_key, workspace_path,
};
use crate::plan::LeadPlan;

/// Why an agent is not managed although its row exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excluded {
    /// Its board does not exist or has no gateway, or is on another one.
    BoardNotFound,
    /// Its board is paused.
    BoardPaused,
    /// Its removal was requested.
    Deleting,
    /// An older row has the same gateway agent id (a second lead of a board, a second main agent of a gateway).
    Duplicate,
    /// Its gateway's `workspace_root` is blank.
    NoWorkspaceRoot,
    /// The gateway's organisation has no owner for whom its main agent could be rendered.
    NoOwner,
}

impl Excluded {
    /// The reason for conditions.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::BoardNotFound => "BoardNotFound",
            Self::BoardPaused => "BoardPaused",
            Self::Deleting => "Deleting",
            Self::Duplicate => "DuplicateAgent",
            Self::NoWorkspaceRoot => "WorkspaceRootNotConfigured",
            Self::NoOwner => "OwnerNotFound",
        }
    }

    /// The message for conditions.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::BoardNotFound => {
                "Skipping agent: board not found for agent. Give its board a gateway_id, or the agent another board."
            }
            Self::BoardPaused => "The board is paused; a /resume in its chat continues.",
            Self::Deleting => "The agent's removal was requested.",
            Self::Duplicate => {
                "An older agent has the same place on the gateway (a board has one lead, a gateway one main agent). \
                 Remove this row, or make it a worker of a board."
            }
            Self::NoWorkspaceRoot => {
                "The gateway's workspace_root is empty, so no workspace path can be derived. Set gateways.workspace_root."
            }
            Self::NoOwner => {
                "The gateway's organisation has no member with the role owner, so the main agent's files cannot be \
                 rendered. Add one to organization_members."
            }
        }
    }
}

/// An agent's spec.
#[derive(Clone, Debug)]
pub(super) struct AgentSpec {
    /// Its row.
    pub row: AgentRow,
    /// The gateway that it belongs to, whatever its row says.
    pub home: GatewayId,
    /// What it is for.
    pub role: AgentRole,
    /// Its id on the gateway.
    pub gateway_agent_id: GatewayAgentId,
    /// The key of its main session.
    pub session_key: String,
    /// Its workspace directory on the gateway; empty if it is excluded for want of a root.
    pub workspace: String,
    /// Why it is not managed, if it is not.
    pub excluded: Option<Excluded>,
    /// What we recorded about it.
    pub record: AgentRecord,
    /// The ids under which it has to go from its gateway, if its removal was requested: its own, and the one under which we last
    /// knew it there. None that another row claims.
    pub removes: Vec<GatewayAgentId>,
    /// Digest of the agent's own row, as far as the agent is told of a change of it. Holds no secret.
    pub own_digest: String,
    /// Digest of all that its files and its roster entry depend on. Holds no secret.
    pub digest: String,
    /// Counts changes of the digest.
    pub generation: i64,
    /// Counts loads of the row: a greater one is newer.
    pub revision: u64,
}

impl AgentSpec {
    /// Whether the database holds this gateway, and the agent's id there, as the agent's place.
    pub(super) fn is_placed_on(&self, gateway: GatewayId) -> bool {
        self.record
            .placement
            .as_ref()
            .is_some_and(|(placed, id)| *placed == gateway && *id == self.gateway_agent_id)
    }
}

/// A gateway's spec and those of its agents.
#[derive(Clone, Debug)]
pub(super) struct GatewaySpec {
    /// The rows that it was made from. `agents` is moved into the field of that name here.
    pub snapshot: GatewaySnapshot,
    /// The agents, oldest first.
    pub agents: Vec<Arc<AgentSpec>>,
    /// Agents without a row that were last known here, with what we recorded about them.
    pub vanished: Vec<(AgentId, AgentRecord)>,
    /// Counts loads of the rows: a greater one is newer.
    pub revision: u64,
    /// The leads that its boards want and have no rows for.
    pub leads: LeadPlan,
    /// Digest of the gateway's own spec. Holds no secret.
    pub digest: String,
    /// Counts changes of the digest.
    pub generation: i64,
    /// Digest of all that the gateway's config depends on: a change of it concerns the gateway reconciler.
    pub roster_digest: String,
}

impl GatewaySpec {
    /// The gateway's id.
    pub(super) fn id(&self) -> GatewayId {
        self.snapshot.gateway.id
    }

    /// The agents that are managed.
    pub(super) fn managed(&self) -> impl Iterator<Item = &Arc<AgentSpec>> {
        self.agents.iter().filter(|agent| agent.excluded.is_none())
    }

    /// The board of an agent.
    pub(super) fn board(&self, agent: &AgentSpec) -> Option<&Board> {
        agent.row.board_id.and_then(|id| self.snapshot.boards.get(&id))
    }

    /// The session key of the gateway's main agent, whether or not it has a row.
    pub(super) fn main_session_key(&self) -> String {
        let gateway = self.id();
        session_key(&GatewayAgentId::derive(AgentRole::Main, AgentId(gateway.0), gateway))
    }
}

/// Derives the specs from a snapshot. `environment` is a digest of what else every agent's files depend on: the template set
/// and the base URL.
///
/// Generations are those recorded so far; whoever records a changed digest has to raise them. `revision` counts the loads.
pub(super) fn derive(mut snapshot: GatewaySnapshot, environment: &str, revision: u64) -> GatewaySpec {
    let rows = std::mem::take(&mut snapshot.agents);
    let mut records = std::mem::take(&mut snapshot.agent_records);
    let mut taken = HashSet::new();
    let common = Common::of(&snapshot, &rows, environment, revision);
    let agents: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let record = records.remove(&row.id).unwrap_or_default();
            Arc::new(derive_agent(&common, row, record, &mut taken))
        })
        .collect();
    let mut vanished: Vec<_> = records.into_iter().collect();
    vanished.sort_by_key(|(agent, _)| *agent);
    let roster: Vec<_> = agents
        .iter()
        .filter(|agent| agent.excluded.is_none())
        .map(|agent| {
            (
                &agent.gateway_agent_id,
                &agent.row.name,
                &agent.workspace,
                Column(&agent.row.heartbeat_config),
            )
        })
        .collect();
    let gateway = &snapshot.gateway;
    let own = json!([
        gateway.organization_id,
        gateway.name,
        gateway.url,
        gateway.workspace_root,
        gateway.disable_device_pairing,
        gateway.allow_insecure_tls,
    ]);
    let digest = digest(&own);
    // What is to go, and what has to be put in order in our own records.
    let going: Vec<_> = agents
        .iter()
        .filter(|agent| !agent.removes.is_empty())
        .map(|agent| &agent.removes)
        .collect();
    let strays: Vec<_> = agents
        .iter()
        .filter(|agent| agent.record.placement.is_some() && !agent.is_placed_on(gateway.id))
        .map(|agent| (agent.row.id, &agent.record.placement))
        .collect();
    let gone: Vec<_> = vanished.iter().map(|(agent, _)| agent).collect();
    GatewaySpec {
        roster_digest: self::digest(&(&digest, roster, going, strays, gone)),
        vanished,
        revision,
        generation: snapshot.record.generation,
        digest,
        leads: LeadPlan::default(),
        agents,
        snapshot,
    }
}

/// What many agents of a gateway share, digested once.
struct Common<'a> {
    snapshot: &'a GatewaySnapshot,
    /// Digest of what all of them depend on.
    environment: String,
    /// Digests of their boards.
    boards: HashMap<BoardId, String>,
    /// The ids of those whose removal was not requested.
    claimed: HashSet<GatewayAgentId>,
    revision: u64,
}

impl<'a> Common<'a> {
    fn of(snapshot: &'a GatewaySnapshot, rows: &[AgentRow], environment: &str, revision: u64) -> Self {
        let gateway = &snapshot.gateway;
        let boards = snapshot.boards.values();
        Self {
            snapshot,
            environment: digest(&json!([
                environment,
                gateway.id,
                gateway.workspace_root,
                snapshot.owner
            ])),
            boards: boards.map(|board| (board.id, digest(&json!(board)))).collect(),
            claimed: rows
                .iter()
                .filter(|row| row.delete_requested_at.is_none())
                .map(|row| row.gateway_agent_id(gateway.id))
                .collect(),
            revision,
        }
    }
}

fn derive_agent(
    common: &Common<'_>,
    row: AgentRow,
    record: AgentRecord,
    taken: &mut HashSet<GatewayAgentId>,
) -> AgentSpec {
    let snapshot = common.snapshot;
    let gateway = &snapshot.gateway;
    let role = row.role();
    let gateway_agent_id = row.gateway_agent_id(gateway.id);
    let board = row.board_id.and_then(|id| snapshot.boards.get(&id));
    let workspace = workspace_path(&gateway.workspace_root, &gateway_agent_id);
    let excluded = if row.delete_requested_at.is_some() {
        Some(Excluded::Deleting)
    } else if row.board_id.is_some() && board.is_none_or(|board| board.gateway_id != Some(gateway.id)) {
        Some(Excluded::BoardNotFound)
    } else if !taken.insert(gateway_agent_id.clone()) {
        Some(Excluded::Duplicate)
    } else if board.is_some_and(|board| board.paused) {
        Some(Excluded::BoardPaused)
    } else if workspace.is_none() {
        Some(Excluded::NoWorkspaceRoot)
    } else if role.is_main() && snapshot.owner.is_none() {
        Some(Excluded::NoOwner)
    } else {
        None
    };
    let removes = if excluded == Some(Excluded::Deleting) {
        let here = record.placement.iter().filter(|(placed, _)| *placed == gateway.id);
        let mut ids: Vec<_> = [gateway_agent_id.clone()]
            .into_iter()
            .chain(here.map(|(_, id)| id.clone()))
            .filter(|id| !common.claimed.contains(id))
            .collect();
        ids.dedup();
        ids
    } else {
        Vec::new()
    };
    let own_digest = digest(&(
        &row.name,
        Column(&row.heartbeat_config),
        Column(&row.identity_profile),
        &row.identity_template,
        &row.soul_template,
    ));
    let digest = digest(&(
        &common.environment,
        row.board_id,
        row.board_id.and_then(|id| common.boards.get(&id)),
        &own_digest,
        row.is_board_lead,
        row.requests,
        row.delete_requested_at.is_some(),
        excluded.map(Excluded::reason),
    ));
    AgentSpec {
        session_key: session_key(&gateway_agent_id),
        workspace: workspace.unwrap_or_default(),
        generation: record.generation,
        home: gateway.id,
        role,
        gateway_agent_id,
        excluded,
        record,
        removes,
        own_digest,
        digest,
        revision: common.revision,
        row,
    }
}

/// A JSON column, written so that NULL, a value and a broken one are told apart.
struct Column<'a>(&'a JsonColumn);

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_none(),
            Some(Ok(value)) => [value].serialize(serializer),
            Some(Err(error)) => serializer.collect_map([("error", error)]),
        }
    }
}

/// Hex SHA-256 of a value's JSON. Objects in columns are ordered by key.
///
/// Every load digests every row of its gateway, so nothing is copied into values only to be written.
fn digest(value: &impl Serialize) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // All keys are texts, so there is nothing that cannot be written.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let bytes = Sha256::digest(text);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests;
