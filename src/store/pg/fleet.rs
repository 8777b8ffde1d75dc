//! A fleet file meets the tables: reading what it is compared with, and writing what differs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::PgStore;
use super::errors::About;
use super::fleet_writes::{carry_out, lock, told};
use super::rows::json;
use crate::fleet::{self, AgentRow, BoardRow, Fleet, GatewayRow, OrganizationRow, Plan, Problem, Rows, Table};
use crate::model::User;
use crate::store::StoreError;

/// How long reading or writing a whole fleet may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long to wait for another apply.
const TURN: &str = "1min";

/// How often a plan is made anew because rows changed while it was made.
const ATTEMPTS: u32 = 5;

/// Why a file was not applied. Nothing was written.
#[derive(Debug)]
pub enum ApplyError {
    /// The file does not go with the rows.
    File(Vec<Problem>),
    /// The database.
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for ApplyError {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// How a file is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApplyOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Remove what the file does not name.
    pub prune: bool,
}

impl PgStore {
    /// The rows that a file can be about, as of one instant.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn fleet_rows(&self) -> Result<Rows, StoreError> {
        self.patiently(async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let rows = load(&mut tx, &[]).await?;
            tx.commit().await?;
            session.done();
            Ok(rows)
        })
        .await
    }

    /// Makes the rows say what the file says, in one transaction, and tells what that took. Writes nothing, and takes no lock, if
    /// they say it already. `new_id` gives the ids of new objects, the same for the same object.
    ///
    /// Needs no lease: rows are desired state, and whoever runs the controller acts upon them.
    ///
    /// # Errors
    /// The file does not go with the rows, or the database cannot be used: nothing was written.
    pub async fn apply_fleet(
        &self,
        file: &Fleet,
        options: ApplyOptions,
        mut new_id: impl FnMut(usize) -> Uuid + Send,
    ) -> Result<Plan, ApplyError> {
        let applied = async {
            let mut session = self.session().await?;
            let mut tx = self.begin_read(&mut session).await?;
            let plan = plan(&mut tx, file, options, &mut new_id).await?;
            tx.commit().await?;
            if options.dry_run || plan.is_empty() {
                session.done();
                return Ok(plan);
            }
            let mut tx = self.begin_write(&mut session).await?;
            refuse_read_only(&mut tx).await?;
            take_turn(&mut tx).await.map_err(|error| told(error, "the fleet"))?;
            let mut plan = plan;
            for _ in 0..ATTEMPTS {
                lock(&mut tx, &plan).await?;
                // What was committed until the locks were there counts; from now on these rows stand still.
                let now = self::plan(&mut tx, file, options, &mut new_id).await?;
                if now == plan {
                    carry_out(&mut tx, &plan).await?;
                    tx.commit().await?;
                    session.done();
                    return Ok(plan);
                }
                plan = now;
            }
            tx.rollback().await?;
            session.done();
            Err(ApplyError::Store(StoreError::LockTimeout(
                "the fleet, which keeps changing".to_owned(),
            )))
        };
        tokio::time::timeout(PATIENCE, applied)
            .await
            .unwrap_or_else(|_| Err(ApplyError::Store(too_slow())))
    }

    async fn patiently<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        tokio::time::timeout(PATIENCE, call)
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }
}

fn too_slow() -> StoreError {
    StoreError::Unreachable(format!("no answer within {PATIENCE:?}"))
}

/// One apply at a time: two could make the same object twice. It keeps nobody else from anything.
async fn take_turn(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    type Timeouts = (String, String);
    let usual: Timeouts =
        sqlx::query_as("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
            .fetch_one(&mut *tx)
            .await?;
    let set = "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)";
    sqlx::query(set).bind(TURN).bind(TURN).execute(&mut *tx).await?;
    sqlx::query("LOCK TABLE openclaw_controller.board_settings IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await?;
    sqlx::query(set).bind(usual.0).bind(usual.1).execute(&mut *tx).await?;
    Ok(())
}

/// A server that takes no writes says so in words of its own for each statement; these say what to do.
async fn refuse_read_only(tx: &mut PgConnection) -> Result<(), StoreError> {
    let (standby, read_only): (bool, bool) =
        sqlx::query_as("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean")
            .fetch_one(tx)
            .await?;
    if standby {
        return Err(StoreError::Permission(
            "the server is a read-only standby: connect to the primary".to_owned(),
        ));
    }
    if read_only {
        return Err(StoreError::Permission(
            "the database is read-only (default_transaction_read_only): let this role write, or use `apply --dry-run`"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Compares the file with the rows as they are now.
async fn plan(
    tx: &mut PgConnection,
    file: &Fleet,
    options: ApplyOptions,
    new_id: &mut (impl FnMut(usize) -> Uuid + Send),
) -> Result<Plan, ApplyError> {
    let users: Vec<String> = file
        .organizations
        .iter()
        .filter_map(|it| it.owner.as_ref())
        .map(|owner| owner.user.value.clone())
        .collect();
    let mut rows = load(tx, &users).await?;
    let plan = fleet::diff(file, &rows, options.prune, &mut *new_id).map_err(ApplyError::File)?;
    let deletions = plan.deletions();
    if deletions.is_empty() {
        return Ok(plan);
    }
    // Only now is it known about which rows other tables have to be asked.
    rows.references = references(tx, &deletions).await?;
    fleet::diff(file, &rows, options.prune, new_id).map_err(ApplyError::File)
}

async fn load(tx: &mut PgConnection, users: &[String]) -> Result<Rows, StoreError> {
    let beside: bool = sqlx::query_scalar("SELECT to_regclass('alembic_version') IS NOT NULL")
        .fetch_one(&mut *tx)
        .await?;
    let mut rows = Rows {
        beside,
        ..Rows::default()
    };
    let found = sqlx::query(
        "SELECT o.id, o.name AS organization, u.id AS user_id, u.clerk_user_id, u.email, u.name, u.preferred_name, u.pronouns,
                u.timezone, u.notes, u.context
           FROM organizations o
           LEFT JOIN LATERAL (
                SELECT m.user_id FROM organization_members m
                 WHERE m.organization_id = o.id AND m.role = 'owner'
                 ORDER BY m.created_at NULLS LAST, m.id LIMIT 1) owner ON true
           LEFT JOIN users u ON u.id = owner.user_id
          ORDER BY o.id",
    );
    for row in &found.fetch_all(&mut *tx).await? {
        rows.organizations.push(organization(row)?);
    }
    let found = sqlx::query(
        "SELECT id, organization_id, name, url, token, workspace_root, disable_device_pairing, allow_insecure_tls
           FROM gateways ORDER BY id",
    );
    for row in &found.fetch_all(&mut *tx).await? {
        rows.gateways.push(gateway(row)?);
    }
    let found = sqlx::query(
        "SELECT b.id, organization_id, b.name, slug, gateway_id, board_type, description, objective,
                success_metrics::text AS success_metrics,
                CASE WHEN target_date IS NOT NULL THEN least(greatest(target_date, '0001-01-01'), '9999-12-31') END AS target_date,
                goal_confirmed, require_approval_for_done, require_review_before_done,
                block_status_changes_with_pending_approval, only_lead_can_change_status, comment_required_for_review,
                max_agents::integer AS max_agents, s.lead_name, s.lead_identity::text AS lead_identity
           FROM boards b LEFT JOIN openclaw_controller.board_settings s ON s.board_id = b.id ORDER BY b.id",
    );
    for row in &found.fetch_all(&mut *tx).await? {
        rows.boards.push(board(row)?);
    }
    let found = sqlx::query(
        r#"SELECT a.id, a.board_id, a.gateway_id, a.name, coalesce(a.is_board_lead, false) AS is_board_lead,
                  a.heartbeat_config::text AS heartbeat_config, a.identity_profile::text AS identity_profile,
                  a.identity_template, a.soul_template,
                  CASE WHEN a.delete_requested_at IS NOT NULL
                       THEN least(greatest(a.delete_requested_at, '0001-01-01'), '9999-12-31') END AS delete_requested_at,
                  coalesce(r.conditions @> '[{"type": "Deleted", "status": "True"}]', false) AS is_gone
             FROM agents a LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
            ORDER BY a.created_at NULLS FIRST, a.id"#,
    );
    for row in &found.fetch_all(&mut *tx).await? {
        rows.agents.push(agent(row)?);
    }
    if !users.is_empty() {
        let found: Vec<(String, Uuid)> =
            sqlx::query_as("SELECT clerk_user_id::text, id FROM users WHERE clerk_user_id = ANY ($1)")
                .bind(users)
                .fetch_all(&mut *tx)
                .await?;
        rows.users = found.into_iter().collect();
    }
    Ok(rows)
}

type PgRow = sqlx::postgres::PgRow;

fn organization(row: &PgRow) -> Result<OrganizationRow, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        let owner = match row.try_get::<Option<Uuid>, _>("user_id")? {
            None => None,
            Some(id) => Some((
                row.try_get("clerk_user_id")?,
                User {
                    id,
                    email: row.try_get("email")?,
                    name: row.try_get("name")?,
                    preferred_name: row.try_get("preferred_name")?,
                    pronouns: row.try_get("pronouns")?,
                    timezone: row.try_get("timezone")?,
                    notes: row.try_get("notes")?,
                    context: row.try_get("context")?,
                },
            )),
        };
        Ok(OrganizationRow {
            id,
            name: row.try_get("organization")?,
            owner,
        })
    };
    read().about(|| format!("organization {id}"))
}

fn gateway(row: &PgRow) -> Result<GatewayRow, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        Ok(GatewayRow {
            id,
            organization_id: row.try_get("organization_id")?,
            name: row.try_get("name")?,
            url: row.try_get("url")?,
            token: row.try_get::<Option<String>, _>("token")?.map(Into::into),
            workspace_root: row.try_get("workspace_root")?,
            disable_device_pairing: row.try_get("disable_device_pairing")?,
            allow_insecure_tls: row.try_get("allow_insecure_tls")?,
        })
    };
    read().about(|| format!("gateway {id}"))
}

fn board(row: &PgRow) -> Result<BoardRow, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        Ok(BoardRow {
            id,
            organization_id: row.try_get("organization_id")?,
            name: row.try_get("name")?,
            slug: row.try_get("slug")?,
            gateway_id: row.try_get("gateway_id")?,
            board_type: row.try_get("board_type")?,
            description: row.try_get("description")?,
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
            lead_name: row.try_get("lead_name")?,
            lead_identity: json(row, "lead_identity")?,
        })
    };
    read().about(|| format!("board {id}"))
}

fn agent(row: &PgRow) -> Result<AgentRow, StoreError> {
    let id: Uuid = row.try_get("id")?;
    let read = || -> Result<_, sqlx::Error> {
        Ok(AgentRow {
            id,
            board_id: row.try_get("board_id")?,
            gateway_id: row.try_get("gateway_id")?,
            name: row.try_get("name")?,
            is_board_lead: row.try_get("is_board_lead")?,
            heartbeat_config: json(row, "heartbeat_config")?,
            identity_profile: json(row, "identity_profile")?,
            identity_template: row.try_get("identity_template")?,
            soul_template: row.try_get("soul_template")?,
            delete_requested_at: row.try_get("delete_requested_at")?,
            is_gone: row.try_get("is_gone")?,
        })
    };
    read().about(|| format!("agent {id}"))
}

/// How many rows of other tables refer to these, by the foreign keys that there are. Tables that we may not read are left out:
/// the deletion itself finds them.
async fn references(
    tx: &mut PgConnection,
    to: &[(Table, Uuid)],
) -> Result<HashMap<(Table, Uuid), BTreeMap<String, i64>>, StoreError> {
    let mut found: HashMap<(Table, Uuid), BTreeMap<String, i64>> = HashMap::new();
    for table in [Table::Gateways, Table::Boards, Table::Agents] {
        let ids: Vec<Uuid> = to.iter().filter(|(of, _)| *of == table).map(|(_, id)| *id).collect();
        if ids.is_empty() {
            continue;
        }
        let keys: Vec<(String, String)> = sqlx::query_as(
            "SELECT format('%s', c.conrelid::regclass), format('%I', a.attname)
               FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
              WHERE c.contype = 'f' AND c.confrelid = to_regclass($1) AND cardinality(c.conkey) = 1
                AND c.confdeltype IN ('a', 'r')
                AND c.conrelid <> ALL (ARRAY[to_regclass('agents'), to_regclass('boards')]::oid[])
                AND has_table_privilege(c.conrelid, 'SELECT')
              ORDER BY 1, 2",
        )
        .bind(table.name())
        .fetch_all(&mut *tx)
        .await?;
        for (referring, column) in keys {
            let counts: Vec<(Uuid, i64)> = sqlx::query_as(AssertSqlSafe(format!(
                "SELECT {column}, count(*) FROM {referring} WHERE {column} = ANY ($1) GROUP BY 1"
            )))
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await?;
            for (id, count) in counts {
                *found
                    .entry((table, id))
                    .or_default()
                    .entry(referring.clone())
                    .or_default() += count;
            }
        }
    }
    Ok(found)
}
