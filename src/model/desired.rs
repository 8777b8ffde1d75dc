//! Desired state, as the rows say it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDateTime, Utc};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{AgentId, AgentRecord, AgentRole, BoardId, GatewayAgentId, GatewayId, GatewayRecord, LeadSettings};

/// A `json` column: absent (SQL NULL), parsed, or the reason why it could not be parsed.
///
/// Kept unparsed-or-parsed rather than failing the load, so that one bad row stops nothing else.
pub type JsonColumn = Option<Result<Value, String>>;

/// A row of `gateways`.
#[derive(Clone, Debug)]
pub struct GatewayRow {
    /// Primary key.
    pub id: GatewayId,
    /// The organisation it belongs to.
    pub organization_id: Uuid,
    /// Display name.
    pub name: String,
    /// WebSocket URL (`ws://` or `wss://`); may be blank or malformed.
    pub url: String,
    /// The gateway's token. Never shown.
    pub token: Option<SecretString>,
    /// Directory on the gateway's host below which workspaces lie.
    pub workspace_root: String,
    /// Connect as a control UI, without a device identity.
    pub disable_device_pairing: bool,
    /// Accept any TLS certificate.
    pub allow_insecure_tls: bool,
    /// When the row was made (UTC).
    pub created_at: NaiveDateTime,
}

impl GatewayRow {
    /// Whether the connection is encrypted to somebody of whom nobody knows who it is.
    pub fn is_unverified(&self) -> bool {
        let scheme = self.url.trim().get(..6);
        self.allow_insecure_tls && scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("wss://"))
    }
}

/// A row of `users`, as far as templates use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct User {
    pub id: Uuid,
    pub email: Option<String>,
    pub name: Option<String>,
    pub preferred_name: Option<String>,
    pub pronouns: Option<String>,
    pub timezone: Option<String>,
    pub notes: Option<String>,
    pub context: Option<String>,
}

/// A row of `boards`.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct Board {
    pub id: BoardId,
    pub organization_id: Uuid,
    pub name: String,
    pub slug: String,
    pub gateway_id: Option<GatewayId>,
    pub board_type: String,
    pub objective: Option<String>,
    pub success_metrics: JsonColumn,
    pub target_date: Option<NaiveDateTime>,
    pub goal_confirmed: bool,
    pub require_approval_for_done: bool,
    pub require_review_before_done: bool,
    pub block_status_changes_with_pending_approval: bool,
    pub only_lead_can_change_status: bool,
    pub comment_required_for_review: bool,
    pub max_agents: i32,
    /// Whether the newest `/pause` or `/resume` in the board's chat memory is `/pause`.
    pub paused: bool,
}

/// What was asked for an agent in our own schema. A request is a time, as of a rollout restart: another time asks once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgentRequests {
    /// A new token is wanted.
    pub rotate: Option<DateTime<Utc>>,
    /// A wake is wanted.
    pub wake: Option<DateTime<Utc>>,
}

/// A row of `agents`. Columns that only other programs use are left out.
#[derive(Clone, Debug)]
pub struct AgentRow {
    /// Primary key.
    pub id: AgentId,
    /// The board it belongs to; `None` for a gateway's main agent.
    pub board_id: Option<BoardId>,
    /// The row's own `gateway_id`; the board's decides where the two differ.
    pub gateway_id: GatewayId,
    /// Display name.
    pub name: String,
    /// `provisioning`, `online`, `offline`, `updating`, `deleting`, …
    pub status: String,
    /// `openclaw_session_id` as it stands in the row; corrected, never believed.
    pub session_key: Option<String>,
    /// Hash of the agent's token, in one of the formats that `token` verifies.
    pub token_hash: Option<String>,
    /// Overlay for the default heartbeat: a JSON object.
    pub heartbeat_config: JsonColumn,
    /// Overrides of the identity template variables: a JSON object.
    pub identity_profile: JsonColumn,
    /// Replaces the template of `IDENTITY.md`.
    pub identity_template: Option<String>,
    /// Replaces the template of `SOUL.md`.
    pub soul_template: Option<String>,
    /// Set when somebody asked for the agent's removal (UTC).
    pub delete_requested_at: Option<NaiveDateTime>,
    /// When the agent last checked in (UTC).
    pub last_seen_at: Option<NaiveDateTime>,
    /// Whether it leads its board.
    pub is_board_lead: bool,
    /// The last error that we or another program left in the row.
    pub last_provision_error: Option<String>,
    /// When the row was made (UTC); the older of two rows with the same gateway agent id wins.
    pub created_at: NaiveDateTime,
    /// What was asked for it in our own schema.
    pub requests: AgentRequests,
}

impl AgentRow {
    /// What the agent is for.
    pub fn role(&self) -> AgentRole {
        match self.board_id {
            None => AgentRole::Main,
            Some(board) if self.is_board_lead => AgentRole::Lead(board),
            Some(board) => AgentRole::Worker(board),
        }
    }

    /// The id it must have on this gateway.
    pub fn gateway_agent_id(&self, gateway: GatewayId) -> GatewayAgentId {
        GatewayAgentId::derive(self.role(), self.id, gateway)
    }
}

/// Everything the database says about one gateway, read in one transaction.
#[derive(Clone, Debug)]
pub struct GatewaySnapshot {
    /// The gateway's row.
    pub gateway: GatewayRow,
    /// For whom files are rendered: the user who was chosen for this gateway, or else the oldest member of its organisation
    /// with the role `owner`.
    pub owner: Option<User>,
    /// The boards whose `gateway_id` is this gateway, and any other board that one of `agents` names.
    pub boards: HashMap<BoardId, Board>,
    /// What was chosen for the leads of the boards on this gateway, where anything was.
    pub lead_settings: BTreeMap<BoardId, LeadSettings>,
    /// Agents of this gateway's boards; its main agents; and agents whose own `gateway_id` is this gateway but whose board
    /// has none (they can only be reported). Oldest first, ties by id.
    pub agents: Vec<AgentRow>,
    /// What we recorded about the gateway.
    pub record: GatewayRecord,
    /// What we recorded about each agent, by row id; also of agents whose row is gone but which we last knew here.
    pub agent_records: HashMap<AgentId, AgentRecord>,
}
