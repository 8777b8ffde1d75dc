//! From rows to the model.
//!
//! Columns that the other program may leave null have a harmless value here, and timestamps that no calendar holds are
//! brought into the years 1 to 9999, so that one odd row stops nothing else.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::errors::About;
use crate::model::{
    AgentId, AgentRecord, AgentRequests, AgentRow, Board, BoardId, Conditions, GatewayAgentId, GatewayId,
    GatewayRecord, GatewayRow, JsonColumn, LeadSettings, User, WakeRecord,
};
use crate::store::StoreError;

macro_rules! gateways {
    ($filter:literal, $has_vanished:literal) => {
        concat!(
            "
    SELECT g.id, coalesce(g.organization_id, '00000000-0000-0000-0000-000000000000') AS organization_id,
           coalesce(g.name, '') AS name, g.url, g.token, g.workspace_root, g.disable_device_pairing, g.allow_insecure_tls,
           CASE WHEN g.created_at IS NULL THEN '0001-01-01'
                ELSE least(greatest(g.created_at, '0001-01-01'), '9999-12-31') END AS created_at,
           u.id AS user_id, u.email, u.name AS user_name, u.preferred_name, u.pronouns, u.timezone, u.notes, u.context,
           coalesce(r.generation, 0) AS generation, r.spec_digest, r.conditions::text AS conditions, r.server_version, r.protocol,
           ",
            $has_vanished,
            " AS has_vanished
      FROM gateways g
      LEFT JOIN LATERAL (
            SELECT m.user_id FROM organization_members m
             WHERE m.organization_id = g.organization_id AND m.role = 'owner'
             ORDER BY m.created_at NULLS LAST, m.id LIMIT 1) owner ON true
      LEFT JOIN openclaw_controller.gateway_settings s ON s.gateway_id = g.id
      LEFT JOIN users chosen ON chosen.id = s.user_id
      LEFT JOIN users u ON u.id = coalesce(chosen.id, owner.user_id)
      LEFT JOIN openclaw_controller.gateway_records r ON r.gateway_id = g.id
             ",
            $filter,
            " ORDER BY g.id"
        )
    };
}

/// All gateways, with their owners, our records of them, and whether [`VANISHED`] may have agents that were last on them.
pub(super) const GATEWAYS: &str = gateways!("", "true");

/// The same of the gateway `$1`.
///
/// A query of its own, as those below that are about one gateway: Postgres plans one that says "or all", or that takes any number
/// of gateways, anew each time, which takes longer than it runs.
pub(super) const GATEWAY: &str = gateways!(
    "WHERE g.id = $1",
    // Counted, for then all of them are joined at once; one after the other would be looked up to tell that there is none.
    "(SELECT count(*) > 0 FROM openclaw_controller.agent_records v
       WHERE coalesce(v.placement_gateway_id, v.home_gateway_id) = $1
         AND NOT EXISTS (SELECT FROM agents a WHERE a.id = v.agent_id))"
);

macro_rules! paused {
    ($($boards:literal),+) => {
        concat!(
            r"
    SELECT board_id FROM (
        SELECT DISTINCT ON (board_id) board_id,
               lower(btrim(content::text, E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000')) AS word
          FROM board_memory
         WHERE board_id = ANY (",
            $($boards,)+
            r") AND is_chat
           AND lower(btrim(content::text, E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000')) IN ('/pause', '/resume')
         ORDER BY board_id, created_at DESC NULLS LAST, id DESC) newest
     WHERE word = '/pause'"
        )
    };
}

/// Those boards among `$1` whose newest word is `/pause`. The whitespace is Python's, and the expression that of our index.
pub(super) const PAUSED: &str = paused!("$1");

macro_rules! boards {
    ($filter:literal) => {
        concat!(
            "
    SELECT b.id, coalesce(b.organization_id, '00000000-0000-0000-0000-000000000000') AS organization_id,
           coalesce(b.name, '') AS name, coalesce(slug, '') AS slug, gateway_id, coalesce(board_type, '') AS board_type,
           objective, success_metrics::text AS success_metrics,
           CASE WHEN target_date IS NOT NULL THEN least(greatest(target_date, '0001-01-01'), '9999-12-31') END AS target_date,
           coalesce(goal_confirmed, false) AS goal_confirmed,
           coalesce(require_approval_for_done, true) AS require_approval_for_done,
           coalesce(require_review_before_done, false) AS require_review_before_done,
           coalesce(block_status_changes_with_pending_approval, false) AS block_status_changes_with_pending_approval,
           coalesce(only_lead_can_change_status, false) AS only_lead_can_change_status,
           coalesce(comment_required_for_review, false) AS comment_required_for_review,
           max_agents::integer AS max_agents,
           b.id IN (",
            // By ids, not by a join: only so is it looked for by an index, whichever there is.
            paused!("ARRAY (SELECT b.id FROM boards b WHERE ", $filter, ")"),
            ") AS paused,
           s.board_id IS NOT NULL AS has_settings, s.lead_name, s.lead_identity::text AS lead_identity
      FROM boards b LEFT JOIN openclaw_controller.board_settings s ON s.board_id = b.id
     WHERE ",
            $filter
        )
    };
}

/// All boards, with what was chosen for their leads.
pub(super) const BOARDS: &str = boards!("true");

/// The same of the boards on the gateway `$1`.
pub(super) const BOARDS_ON: &str = boards!("b.gateway_id = $1");

/// The same of the boards `$1`.
pub(super) const BOARDS_OF: &str = boards!("b.id = ANY ($1)");

/// Our record of an agent, as [`agent_record`] reads it.
macro_rules! record {
    ($conditions:literal) => {
        concat!(
            "r.agent_id, r.generation, r.spec_digest, CASE WHEN ",
            $conditions,
            " THEN r.conditions::text END AS conditions, r.placement_gateway_id, r.placement_agent_id,
           r.registering_since, r.first_provisioned_at, r.rotated_for,
           r.woken_for, r.wake_asked, r.wake_counter, r.wake_attempts, r.wake_first, r.wake_sent_at, r.wake_deadline,
           r.wake_gave_up, r.wake_foreign"
        )
    };
}

macro_rules! agents {
    ($filter:literal, $conditions:literal) => {
        concat!(
            "
    SELECT a.id, a.board_id, a.gateway_id, coalesce(b.gateway_id, a.gateway_id) AS home_gateway_id,
           coalesce(a.name, '') AS name, coalesce(a.status, '') AS status, a.openclaw_session_id, a.agent_token_hash,
           a.heartbeat_config::text AS heartbeat_config, a.identity_profile::text AS identity_profile,
           a.identity_template, a.soul_template,
           CASE WHEN a.delete_requested_at IS NOT NULL
                THEN least(greatest(a.delete_requested_at, '0001-01-01'), '9999-12-31') END AS delete_requested_at,
           CASE WHEN a.last_seen_at IS NOT NULL
                THEN least(greatest(a.last_seen_at, '0001-01-01'), '9999-12-31') END AS last_seen_at,
           coalesce(a.is_board_lead, false) AS is_board_lead, a.last_provision_error,
           CASE WHEN a.created_at IS NULL THEN '0001-01-01'
                ELSE least(greatest(a.created_at, '0001-01-01'), '9999-12-31') END AS created_at,
           q.rotate_requested_at, q.wake_requested_at, ",
            record!($conditions),
            "
      FROM agents a
      LEFT JOIN boards b ON b.id = a.board_id
      LEFT JOIN openclaw_controller.agent_requests q ON q.agent_id = a.id
      LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
              ",
            $filter,
            " ORDER BY created_at, a.id"
        )
    };
}

/// All agents, oldest first, with the gateway that they belong to and our records of them; `$1`: whether with their conditions.
pub(super) const AGENTS: &str = agents!("", "$1");

/// The agents that belong to the gateway `$1`; `$2`: whether with their conditions. So written that indexes can find them.
pub(super) const AGENTS_ON: &str = agents!(
    "WHERE (a.gateway_id = $1 OR a.board_id = ANY (ARRAY (SELECT id FROM boards WHERE gateway_id = $1)))
       AND coalesce(b.gateway_id, a.gateway_id) = $1",
    "$2"
);

macro_rules! vanished {
    ($filter:literal, $conditions:literal) => {
        concat!(
            "SELECT ",
            record!($conditions),
            ", coalesce(r.placement_gateway_id, r.home_gateway_id) AS last_gateway_id
      FROM openclaw_controller.agent_records r
     WHERE NOT EXISTS (SELECT FROM agents a WHERE a.id = r.agent_id)",
            $filter
        )
    };
}

/// Our records of all agents without a row, with the gateway that they were last on; `$1`: whether with their conditions.
pub(super) const VANISHED: &str = vanished!("", "$1");

/// The same of those that were last on the gateway `$1`; `$2`: whether with their conditions.
pub(super) const VANISHED_FROM: &str = vanished!(" AND coalesce(r.placement_gateway_id, r.home_gateway_id) = $1", "$2");

/// A row of [`GATEWAYS`].
pub(super) fn gateway(row: &PgRow) -> Result<(GatewayRow, Option<User>, GatewayRecord), StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let owner = match row.try_get::<Option<Uuid>, _>("user_id")? {
            None => None,
            Some(id) => Some(User {
                id,
                email: row.try_get("email")?,
                name: row.try_get("user_name")?,
                preferred_name: row.try_get("preferred_name")?,
                pronouns: row.try_get("pronouns")?,
                timezone: row.try_get("timezone")?,
                notes: row.try_get("notes")?,
                context: row.try_get("context")?,
            }),
        };
        let gateway = GatewayRow {
            id: GatewayId(id),
            organization_id: row.try_get("organization_id")?,
            name: row.try_get("name")?,
            url: row.try_get("url")?,
            token: row.try_get::<Option<String>, _>("token")?.map(Into::into),
            workspace_root: row.try_get("workspace_root")?,
            disable_device_pairing: row.try_get("disable_device_pairing")?,
            allow_insecure_tls: row.try_get("allow_insecure_tls")?,
            created_at: row.try_get("created_at")?,
        };
        Ok((gateway, owner, gateway_record(row)?))
    };
    read().about(|| format!("gateway {id}"))
}

/// Our record in a row of [`GATEWAYS`].
fn gateway_record(row: &PgRow) -> Result<GatewayRecord, sqlx::Error> {
    Ok(GatewayRecord {
        generation: row.try_get("generation")?,
        spec_digest: row.try_get("spec_digest")?,
        conditions: conditions(row)?,
        server_version: row.try_get("server_version")?,
        protocol: row.try_get("protocol")?,
    })
}

/// A row of [`BOARDS`].
pub(super) fn board(row: &PgRow) -> Result<Board, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        Ok(Board {
            id: BoardId(id),
            organization_id: row.try_get("organization_id")?,
            name: row.try_get("name")?,
            slug: row.try_get("slug")?,
            gateway_id: row.try_get::<Option<Uuid>, _>("gateway_id")?.map(GatewayId),
            board_type: row.try_get("board_type")?,
            objective: row.try_get("objective")?,
            success_metrics: json(row, "success_metrics")?,
            target_date: row.try_get("target_date")?,
            goal_confirmed: row.try_get("goal_confirmed")?,
            require_approval_for_done: row.try_get("require_approval_for_done")?,
            require_review_before_done: row.try_get("require_review_before_done")?,
            block_status_changes_with_pending_approval: row.try_get("block_status_changes_with_pending_approval")?,
            only_lead_can_change_status: row.try_get("only_lead_can_change_status")?,
            comment_required_for_review: row.try_get("comment_required_for_review")?,
            max_agents: row.try_get("max_agents")?,
            paused: row.try_get("paused")?,
        })
    };
    read().about(|| format!("board {id}"))
}

/// What was chosen for the lead of the board in a row of [`BOARDS`], if anything was.
pub(super) fn lead_settings(row: &PgRow) -> Result<Option<LeadSettings>, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        if !row.try_get::<bool, _>("has_settings")? {
            return Ok(None);
        }
        Ok(Some(LeadSettings {
            name: row.try_get("lead_name")?,
            identity: json(row, "lead_identity")?,
        }))
    };
    read().about(|| format!("settings of board {id}"))
}

/// A row of [`AGENTS`], with the gateway that it belongs to.
pub(super) fn agent(row: &PgRow) -> Result<(GatewayId, AgentRow), StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let agent = AgentRow {
            id: AgentId(id),
            board_id: row.try_get::<Option<Uuid>, _>("board_id")?.map(BoardId),
            gateway_id: GatewayId(row.try_get("gateway_id")?),
            name: row.try_get("name")?,
            status: row.try_get("status")?,
            session_key: row.try_get("openclaw_session_id")?,
            token_hash: row.try_get("agent_token_hash")?,
            heartbeat_config: json(row, "heartbeat_config")?,
            identity_profile: json(row, "identity_profile")?,
            identity_template: row.try_get("identity_template")?,
            soul_template: row.try_get("soul_template")?,
            delete_requested_at: row.try_get("delete_requested_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
            is_board_lead: row.try_get("is_board_lead")?,
            last_provision_error: row.try_get("last_provision_error")?,
            created_at: row.try_get("created_at")?,
            requests: AgentRequests {
                rotate: row.try_get("rotate_requested_at")?,
                wake: row.try_get("wake_requested_at")?,
            },
        };
        Ok((GatewayId(row.try_get("home_gateway_id")?), agent))
    };
    read().about(|| format!("agent {id}"))
}

/// The record in a row of [`AGENTS`] or [`VANISHED`], if there is one.
pub(super) fn agent_record(row: &PgRow) -> Result<Option<(AgentId, AgentRecord)>, StoreError> {
    let Some(id): Option<Uuid> = row.try_get("agent_id")? else {
        return Ok(None);
    };
    let read = || -> Result<_, sqlx::Error> {
        let gateway: Option<Uuid> = row.try_get("placement_gateway_id")?;
        let agent: Option<String> = row.try_get("placement_agent_id")?;
        Ok(AgentRecord {
            generation: row.try_get("generation")?,
            spec_digest: row.try_get("spec_digest")?,
            conditions: conditions(row)?,
            placement: gateway
                .zip(agent)
                .map(|(gateway, agent)| (GatewayId(gateway), GatewayAgentId::observed(agent))),
            registering_since: row.try_get("registering_since")?,
            first_provisioned_at: row.try_get("first_provisioned_at")?,
            rotated_for: row.try_get("rotated_for")?,
            wake: wake_record(row)?,
        })
    };
    let record = read().about(|| format!("record of agent {id}"))?;
    Ok(Some((AgentId(id), record)))
}

/// The columns of a record that are about wakes.
pub(super) fn wake_record(row: &PgRow) -> Result<WakeRecord, sqlx::Error> {
    Ok(WakeRecord {
        woken_for: row.try_get("woken_for")?,
        asked: row.try_get("wake_asked")?,
        counter: row.try_get("wake_counter")?,
        attempts: row.try_get("wake_attempts")?,
        first: row.try_get("wake_first")?,
        sent_at: row.try_get("wake_sent_at")?,
        deadline: row.try_get("wake_deadline")?,
        gave_up: row.try_get("wake_gave_up")?,
        foreign: row.try_get("wake_foreign")?,
    })
}

/// Conditions; those that another version of this program wrote and this one cannot read are written anew.
fn conditions(row: &PgRow) -> Result<Conditions, sqlx::Error> {
    let json: Option<String> = row.try_get("conditions")?;
    Ok(json
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default())
}

/// A `json` column that was read as text.
pub(super) fn json(row: &PgRow, column: &str) -> Result<JsonColumn, sqlx::Error> {
    let text: Option<String> = row.try_get(column)?;
    // JSON's own null means what SQL's does: nothing was given.
    Ok(text
        .filter(|text| text.trim() != "null")
        .map(|text| serde_json::from_str(&text).map_err(|error| error.to_string())))
}
