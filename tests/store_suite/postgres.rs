//! The world in Postgres: a fresh database on the tests' own server.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use openclaw_controller::lab::shared_postgres;
use openclaw_controller::model::{
    AgentId, AgentRow, Board, BoardId, GatewayId, GatewayRow, JsonColumn, LeadSettings, User,
};
use openclaw_controller::store::{HintSource, PgOptions, PgStore, Store as _};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::roles::Roles;
use super::world::World;

pub(crate) struct Postgres {
    pub(crate) store: PgStore,
    pub(crate) url: String,
    /// Another program, which can do anything.
    pub(crate) admin: PgPool,
}

impl Postgres {
    /// A fresh database at the newest version.
    pub(crate) async fn new() -> Self {
        let world = Self::empty().await;
        world.store.migrate().await.unwrap();
        world
    }

    /// A fresh database with nothing in it.
    pub(crate) async fn empty() -> Self {
        let url = shared_postgres().await.fresh_database().await.unwrap();
        Self::at(url).await
    }

    /// A fresh database at the newest version, where the store has the rights of `deploy/postgres/role.sql` and no others.
    pub(crate) async fn with_few_rights() -> Self {
        let world = Self::empty().await;
        let roles = Roles::make(&world.url).await;
        Self {
            store: connect(&roles.daemon_url).await,
            ..world
        }
    }

    /// The database with this URL.
    pub(crate) async fn at(url: String) -> Self {
        let admin = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
        Self {
            store: connect(&url).await,
            url,
            admin,
        }
    }

    /// Runs statements as another program.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = sql.to_owned();
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&self.admin)
            .await
            .unwrap_or_else(|error| panic!("{error} in {sql}"));
    }

    /// One value, as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(format!("SELECT ({sql})::text"));
        sqlx::query_scalar::<_, Option<String>>(sql)
            .fetch_one(&self.admin)
            .await
            .unwrap()
            .unwrap_or_default()
    }
}

pub(crate) async fn connect(url: &str) -> PgStore {
    // What a busy machine delays is not what these tests are about.
    let patience = Duration::from_mins(2);
    let options = PgOptions {
        connect_timeout: patience,
        statement_timeout: patience,
        call_timeout: 2 * patience,
        ..PgOptions::default()
    };
    PgStore::connect(&SecretString::from(url), options).await.unwrap()
}

fn json(column: &JsonColumn) -> Option<String> {
    column.as_ref().map(|parsed| parsed.as_ref().unwrap().to_string())
}

impl World for Postgres {
    type Store = PgStore;

    fn store(&self) -> &PgStore {
        &self.store
    }

    fn hints(&self) -> impl HintSource {
        self.store.listen()
    }

    async fn put_gateway(&self, row: &GatewayRow) {
        sqlx::query("INSERT INTO organizations (id) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(row.organization_id)
            .execute(&self.admin)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO gateways (id, organization_id, name, url, token, workspace_root, disable_device_pairing,
                                   allow_insecure_tls, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET organization_id = $2, name = $3, url = $4, token = $5, workspace_root = $6,
                                            disable_device_pairing = $7, allow_insecure_tls = $8, created_at = $9",
        )
        .bind(row.id.0)
        .bind(row.organization_id)
        .bind(&row.name)
        .bind(&row.url)
        .bind(row.token.as_ref().map(ExposeSecret::expose_secret))
        .bind(&row.workspace_root)
        .bind(row.disable_device_pairing)
        .bind(row.allow_insecure_tls)
        .bind(row.created_at)
        .execute(&self.admin)
        .await
        .unwrap();
    }

    async fn put_board(&self, board: &Board) {
        sqlx::query("INSERT INTO organizations (id) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(board.organization_id)
            .execute(&self.admin)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, objective, success_metrics,
                                 target_date, goal_confirmed, require_approval_for_done, require_review_before_done,
                                 block_status_changes_with_pending_approval, only_lead_can_change_status,
                                 comment_required_for_review, max_agents, description)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11, $12, $13, $14, $15, $16, '')
             ON CONFLICT (id) DO UPDATE SET name = $3, slug = $4, gateway_id = $5, board_type = $6, objective = $7,
                success_metrics = $8::json, target_date = $9, goal_confirmed = $10, require_approval_for_done = $11,
                require_review_before_done = $12, block_status_changes_with_pending_approval = $13,
                only_lead_can_change_status = $14, comment_required_for_review = $15, max_agents = $16",
        )
        .bind(board.id.0)
        .bind(board.organization_id)
        .bind(&board.name)
        .bind(&board.slug)
        .bind(board.gateway_id.map(|id| id.0))
        .bind(&board.board_type)
        .bind(&board.objective)
        .bind(json(&board.success_metrics))
        .bind(board.target_date)
        .bind(board.goal_confirmed)
        .bind(board.require_approval_for_done)
        .bind(board.require_review_before_done)
        .bind(board.block_status_changes_with_pending_approval)
        .bind(board.only_lead_can_change_status)
        .bind(board.comment_required_for_review)
        .bind(board.max_agents)
        .execute(&self.admin)
        .await
        .unwrap();
        let paused: bool = sqlx::query_scalar(
            "SELECT coalesce((SELECT content = '/pause' FROM board_memory WHERE board_id = $1
                              ORDER BY created_at DESC LIMIT 1), false)",
        )
        .bind(board.id.0)
        .fetch_one(&self.admin)
        .await
        .unwrap();
        if paused != board.paused {
            sqlx::query(
                "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
                 VALUES (gen_random_uuid(), $1, $2, true, clock_timestamp())",
            )
            .bind(board.id.0)
            .bind(if board.paused { "/pause" } else { "/resume" })
            .execute(&self.admin)
            .await
            .unwrap();
        }
    }

    async fn put_agent(&self, row: &AgentRow) {
        sqlx::query(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, openclaw_session_id, agent_token_hash,
                                 heartbeat_config, identity_profile, identity_template, soul_template,
                                 delete_requested_at, last_seen_at, is_board_lead, last_provision_error, created_at,
                                 lifecycle_generation, wake_attempts)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9::json, $10, $11, $12, $13, $14, $15, $16, 0, 0)
             ON CONFLICT (id) DO UPDATE SET board_id = $2, gateway_id = $3, name = $4, status = $5,
                openclaw_session_id = $6, agent_token_hash = $7, heartbeat_config = $8::json,
                identity_profile = $9::json, identity_template = $10, soul_template = $11, delete_requested_at = $12,
                last_seen_at = $13, is_board_lead = $14, last_provision_error = $15, created_at = $16",
        )
        .bind(row.id.0)
        .bind(row.board_id.map(|id| id.0))
        .bind(row.gateway_id.0)
        .bind(&row.name)
        .bind(&row.status)
        .bind(&row.session_key)
        .bind(&row.token_hash)
        .bind(json(&row.heartbeat_config))
        .bind(json(&row.identity_profile))
        .bind(&row.identity_template)
        .bind(&row.soul_template)
        .bind(row.delete_requested_at)
        .bind(row.last_seen_at)
        .bind(row.is_board_lead)
        .bind(&row.last_provision_error)
        .bind(row.created_at)
        .execute(&self.admin)
        .await
        .unwrap();
    }

    async fn put_owner(&self, organization: Uuid, owner: &User) {
        sqlx::query(
            "INSERT INTO users (id, clerk_user_id, email, name, preferred_name, pronouns, timezone, notes, context,
                                is_super_admin)
             VALUES ($1, $1::text, $2, $3, $4, $5, $6, $7, $8, false)
             ON CONFLICT (id) DO UPDATE SET email = $2, name = $3, preferred_name = $4, pronouns = $5, timezone = $6,
                                            notes = $7, context = $8",
        )
        .bind(owner.id)
        .bind(&owner.email)
        .bind(&owner.name)
        .bind(&owner.preferred_name)
        .bind(&owner.pronouns)
        .bind(&owner.timezone)
        .bind(&owner.notes)
        .bind(&owner.context)
        .execute(&self.admin)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO organization_members (id, organization_id, user_id, role, all_boards_read, all_boards_write, created_at)
             VALUES (gen_random_uuid(), $1, $2, 'owner', true, true, clock_timestamp()) ON CONFLICT DO NOTHING",
        )
        .bind(organization)
        .bind(owner.id)
        .execute(&self.admin)
        .await
        .unwrap();
    }

    async fn put_lead_settings(&self, board: BoardId, settings: &LeadSettings) {
        sqlx::query(
            "INSERT INTO openclaw_controller.board_settings (board_id, lead_name, lead_identity) VALUES ($1, $2, $3::json)
             ON CONFLICT (board_id) DO UPDATE SET lead_name = $2, lead_identity = $3::json",
        )
        .bind(board.0)
        .bind(&settings.name)
        .bind(json(&settings.identity))
        .execute(&self.admin)
        .await
        .unwrap();
    }

    async fn delete_agent(&self, id: AgentId) {
        self.run(&format!("DELETE FROM agents WHERE id = '{id}'")).await;
    }

    async fn delete_gateway(&self, id: GatewayId) {
        self.run(&format!(
            "DELETE FROM agents WHERE gateway_id = '{id}' OR board_id IN (SELECT id FROM boards WHERE gateway_id = '{id}');
             DELETE FROM board_memory WHERE board_id IN (SELECT id FROM boards WHERE gateway_id = '{id}');
             DELETE FROM boards WHERE gateway_id = '{id}';
             DELETE FROM gateways WHERE id = '{id}'"
        ))
        .await;
    }

    async fn agent_row(&self, id: AgentId) -> AgentRow {
        let fleet = self.store.load_fleet().await.unwrap();
        let mut agents = fleet.into_iter().flat_map(|snapshot| snapshot.agents);
        agents.find(|agent| agent.id == id).unwrap()
    }

    async fn pass(&self, time: Duration) {
        self.run(&format!(
            "UPDATE openclaw_controller.retired_tokens SET until = until - interval '{0} s';
             UPDATE openclaw_controller.sync_requests SET requested_at = requested_at - interval '{0} s'",
            time.as_secs()
        ))
        .await;
    }

    async fn wake_columns(&self, id: AgentId) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>, i32) {
        let (sent, deadline, attempts): (Option<NaiveDateTime>, Option<NaiveDateTime>, i32) =
            sqlx::query_as("SELECT last_wake_sent_at, checkin_deadline_at, wake_attempts FROM agents WHERE id = $1")
                .bind(id.0)
                .fetch_one(&self.admin)
                .await
                .unwrap();
        (sent.map(|at| at.and_utc()), deadline.map(|at| at.and_utc()), attempts)
    }

    async fn set_wake_sent(&self, id: AgentId, at: DateTime<Utc>) {
        let at = at.naive_utc();
        self.run(&format!(
            "UPDATE agents SET last_wake_sent_at = '{at}', lifecycle_generation = lifecycle_generation + 1 WHERE id = '{id}'"
        ))
        .await;
    }

    async fn retired(&self) -> usize {
        let count = self
            .text("SELECT count(*) FROM openclaw_controller.retired_tokens")
            .await;
        count.parse().unwrap()
    }

    async fn heartbeat(&self, id: AgentId, at: NaiveDateTime) {
        self.run(&format!(
            "UPDATE agents SET last_seen_at = '{at}', status = 'online', wake_attempts = 0, checkin_deadline_at = NULL,
                    last_provision_error = NULL, updated_at = '{at}' WHERE id = '{id}'"
        ))
        .await;
    }

    async fn mark(&self) -> String {
        // Where every row is and which transaction wrote it: an UPDATE that changes nothing shows too.
        let mut mark = String::new();
        for table in [
            "agents",
            "boards",
            "gateways",
            "openclaw_controller.agent_records",
            "openclaw_controller.gateway_records",
            "openclaw_controller.verified_tokens",
            "openclaw_controller.token_candidates",
            "openclaw_controller.token_mismatches",
            "openclaw_controller.retired_tokens",
            "openclaw_controller.agent_requests",
            "openclaw_controller.sync_requests",
            "openclaw_controller.sync_agents",
            "openclaw_controller.leftovers",
            "openclaw_controller.removed_agents",
            "openclaw_controller.events",
        ] {
            mark += &self
                .text(&format!(
                    "SELECT coalesce(string_agg(xmin || ' ' || xmax || ' ' || ctid, ';' ORDER BY ctid), '') FROM {table}"
                ))
                .await;
            mark += "|";
        }
        mark
    }
}
