//! The other program, as far as it concerns the controller: what it does to rows and to its gateway, in its order.

use std::time::Duration;

use openclaw_controller::sim::SimGateway;
use openclaw_controller::token::{self, HashFormat};
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::time::sleep;
use uuid::Uuid;

/// Its tables, as its own migrations leave them, with some rows.
pub(crate) const SCHEMA: &str = include_str!("../existing_installation.sql");

/// How long its calls to a gateway take.
const GATEWAY_CALL: Duration = Duration::from_millis(150);

/// The running backend.
pub(crate) struct Backend {
    pool: PgPool,
    sim: SimGateway,
}

/// A row that it holds.
pub(crate) struct Hold(sqlx::Transaction<'static, sqlx::Postgres>);

impl Hold {
    /// Lets the row go.
    pub(crate) async fn release(self) {
        self.0.rollback().await.unwrap();
    }
}

impl Backend {
    /// Connects. None of its statements waits for a lock longer than the controller may hold one: else it fails.
    pub(crate) async fn new(url: &str, sim: SimGateway) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .after_connect(|connection: &mut PgConnection, _| {
                Box::pin(async move {
                    sqlx::query("SET lock_timeout = '5s'").execute(connection).await?;
                    Ok(())
                })
            })
            .connect(url)
            .await
            .unwrap();
        Self { pool, sim }
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Inserts an agent and leaves the rest to others, as its API does before it provisions.
    pub(crate) async fn insert_agent(&self, name: &str) -> String {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts,
                                 created_at, updated_at)
             SELECT $1, b.id, b.gateway_id, $2, 'provisioning', false, 0, 0, clock_timestamp() AT TIME ZONE 'utc',
                    clock_timestamp() AT TIME ZONE 'utc' FROM boards b",
        )
        .bind(id)
        .bind(name)
        .execute(&self.pool)
        .await
        .unwrap();
        id.to_string()
    }

    /// Provisions an agent on its own: the row, the hash, the roster entry and the files.
    pub(crate) async fn create_agent(&self, name: &str) -> String {
        let id = self.insert_agent(name).await;
        let agent = format!("mc-{id}");
        self.sim.edit_config(|config| {
            let entry = json!({ "id": agent, "name": name, "workspace": format!("/ws/workspace-{agent}"),
                "heartbeat": {"every": "10m", "target": "last", "includeReasoning": false} });
            match config.pointer_mut("/agents/list").and_then(|list| list.as_array_mut()) {
                Some(list) => list.push(entry),
                None => config["agents"] = json!({ "list": [{"id": "main"}, entry] }),
            }
        });
        self.edit(&id, name).await;
        id
    }

    /// An edit through its API: name and a new token's hash are committed before anything is written to the gateway, then
    /// the row is held through all its calls to the gateway. Returns the token.
    pub(crate) async fn edit(&self, id: &str, name: &str) -> String {
        let secret = token::mint();
        let hashed = secret.clone();
        let hash = tokio::task::spawn_blocking(move || token::hash(&hashed, HashFormat::Pbkdf2Sha256));
        let hash = hash.await.unwrap().unwrap();
        let uuid: Uuid = id.parse().unwrap();
        sqlx::query(
            "UPDATE agents SET name = $2, agent_token_hash = $3, status = 'updating', provision_action = 'update',
                    updated_at = clock_timestamp() AT TIME ZONE 'utc' WHERE id = $1",
        )
        .bind(uuid)
        .bind(name)
        .bind(hash)
        .execute(&self.pool)
        .await
        .unwrap();
        let mut tx = self.pool.begin().await.unwrap();
        sqlx::query("SELECT id FROM agents WHERE id = $1 FOR UPDATE")
            .bind(uuid)
            .execute(&mut *tx)
            .await
            .unwrap();
        let agent = format!("mc-{id}");
        sleep(GATEWAY_CALL).await;
        self.sim.edit_file(&agent, "SOUL.md", &format!("The soul of {name}."));
        sleep(GATEWAY_CALL).await;
        let tools = format!(
            "# TOOLS.md\n\n- `BASE_URL=http://mission.test`\n- `AUTH_TOKEN={}`\n",
            secret.expose_secret()
        );
        self.sim.edit_file(&agent, "TOOLS.md", &tools);
        sleep(GATEWAY_CALL).await;
        sqlx::query(
            "UPDATE agents SET status = 'online', openclaw_session_id = $2, wake_attempts = 1,
                    last_wake_sent_at = clock_timestamp() AT TIME ZONE 'utc',
                    checkin_deadline_at = (clock_timestamp() + interval '30 s') AT TIME ZONE 'utc',
                    lifecycle_generation = lifecycle_generation + 1, updated_at = clock_timestamp() AT TIME ZONE 'utc'
              WHERE id = $1",
        )
        .bind(uuid)
        .bind(format!("agent:{agent}:main"))
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        secret.expose_secret().to_owned()
    }

    /// Heartbeats of agents, in rounds.
    pub(crate) async fn heartbeats(&self, agents: &[String], rounds: usize) {
        for _ in 0..rounds {
            for agent in agents {
                sqlx::query(
                    "UPDATE agents SET last_seen_at = clock_timestamp() AT TIME ZONE 'utc', status = 'online',
                            wake_attempts = 0, checkin_deadline_at = NULL, last_provision_error = NULL,
                            updated_at = clock_timestamp() AT TIME ZONE 'utc' WHERE id = $1",
                )
                .bind(agent.parse::<Uuid>().unwrap())
                .execute(&self.pool)
                .await
                .unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Holds a row, as it does through its calls to a gateway that does not answer.
    pub(crate) async fn hold(&self, agent: &str) -> Hold {
        let mut tx = self.pool.begin().await.unwrap();
        sqlx::query("SELECT id FROM agents WHERE id = $1 FOR UPDATE")
            .bind(agent.parse::<Uuid>().unwrap())
            .execute(&mut *tx)
            .await
            .unwrap();
        Hold(tx)
    }
}
