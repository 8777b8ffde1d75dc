//! What the database holds of a fleet, as far as a file can say it.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDateTime;
use secrecy::SecretString;
use uuid::Uuid;

use super::change::Table;
use crate::model::{JsonColumn, User};

/// Rows of a fleet, read as of one instant. Columns that may be null are so here.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Whether another program's installation is in this database.
    pub beside: bool,
    /// All organisations.
    pub organizations: Vec<OrganizationRow>,
    /// Gateways, ordered by id.
    pub gateways: Vec<GatewayRow>,
    /// Boards, ordered by id.
    pub boards: Vec<BoardRow>,
    /// Agents, oldest first.
    pub agents: Vec<AgentRow>,
    /// Users whom the file names, by that name.
    pub users: HashMap<String, Uuid>,
    /// How many rows of which tables refer to an object that might be deleted, other than those that a file is about.
    pub references: HashMap<(Table, Uuid), BTreeMap<String, i64>>,
}

/// A row of `organizations`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct OrganizationRow {
    pub id: Uuid,
    pub name: Option<String>,
    /// The oldest member with the role `owner`, with the name that they sign in by.
    pub owner: Option<(String, User)>,
}

/// A row of `gateways`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct GatewayRow {
    pub id: Uuid,
    pub organization_id: Option<Uuid>,
    pub name: Option<String>,
    pub url: String,
    pub token: Option<SecretString>,
    pub workspace_root: String,
    pub disable_device_pairing: bool,
    pub allow_insecure_tls: bool,
}

/// A row of `boards`, with what was chosen for its lead.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct BoardRow {
    pub id: Uuid,
    pub organization_id: Option<Uuid>,
    pub name: Option<String>,
    pub slug: Option<String>,
    pub gateway_id: Option<Uuid>,
    pub board_type: Option<String>,
    pub description: String,
    pub objective: Option<String>,
    pub success_metrics: JsonColumn,
    pub target_date: Option<NaiveDateTime>,
    pub goal_confirmed: Option<bool>,
    pub require_approval_for_done: Option<bool>,
    pub require_review_before_done: Option<bool>,
    pub block_status_changes_with_pending_approval: Option<bool>,
    pub only_lead_can_change_status: Option<bool>,
    pub comment_required_for_review: Option<bool>,
    pub max_agents: i32,
    pub lead_name: Option<String>,
    pub lead_identity: JsonColumn,
}

/// A row of `agents`, without what is no desired state.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "columns under their own names")]
pub struct AgentRow {
    pub id: Uuid,
    pub board_id: Option<Uuid>,
    pub gateway_id: Uuid,
    pub name: Option<String>,
    pub is_board_lead: bool,
    pub heartbeat_config: JsonColumn,
    pub identity_profile: JsonColumn,
    pub identity_template: Option<String>,
    pub soul_template: Option<String>,
    pub delete_requested_at: Option<NaiveDateTime>,
    /// Whether the controller has seen its gateway without it since its removal was requested.
    pub is_gone: bool,
}
