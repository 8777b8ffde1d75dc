//! What the end-to-end tests share: a database with rows, a controller that runs on it, and waiting for conditions.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unused_async,
    reason = "each test binary uses its own part, and says by a panic what went wrong"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use openclaw_controller::cli::run;
use openclaw_controller::config::{
    ConnectionArgs, DesiredArgs, ExistenceArgs, GatewayArgs, LeadBoards, PageArgs, RunArgs, Span, TokenArgs, TokenHash,
};
use openclaw_controller::gateway::{Connector, WebSocketConnector};
use openclaw_controller::lab;
use openclaw_controller::model::{AgentId, BoardId, Condition, ConditionStatus, ConditionType, Conditions, GatewayId};
use openclaw_controller::store::{PgOptions, PgStore};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[path = "../contract/mod.rs"]
pub mod contract;
pub mod process;

/// How long things may take that take seconds at most on an idle machine; tests share two cores.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// For a store that only prepares a test: the machine may be too busy for what a controller waits.
pub fn patient() -> PgOptions {
    PgOptions {
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        call_timeout: 2 * PATIENCE,
        ..PgOptions::default()
    }
}

/// Waits until the closure gives a value, and panics with `what` if it does not in time.
pub async fn eventually<T>(what: &str, deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A database of its own, on the test process's private Postgres.
pub struct Database {
    pub url: String,
    pub pool: PgPool,
}

impl Database {
    /// An empty database.
    pub async fn empty() -> Self {
        let url = lab::shared_postgres().await.fresh_database().await.unwrap();
        Self::at(url).await
    }

    /// The database at this URL.
    pub async fn at(url: String) -> Self {
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE);
        let pool = options.connect_lazy(&url).unwrap();
        Self { url, pool }
    }

    /// A database with all tables and no rows.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        let store = PgStore::connect(&database.url.clone().into(), patient()).await.unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        database
    }

    /// Another database with the same rows, as another program would have them: nothing of the controller's own is in it.
    pub async fn copy_of_rows(&self) -> Self {
        const TABLES: [&str; 7] = [
            "organizations",
            "users",
            "organization_members",
            "gateways",
            "boards",
            "board_memory",
            "agents",
        ];
        let copy = Self::migrated().await;
        for table in TABLES {
            let rows = self
                .text(&format!("SELECT coalesce(json_agg(t), '[]')::text FROM {table} t"))
                .await;
            sqlx::query(AssertSqlSafe(format!(
                "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)"
            )))
            .bind(rows)
            .execute(&copy.pool)
            .await
            .unwrap();
        }
        copy
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// An organisation with an owner.
    pub async fn organization(&self) -> Uuid {
        let (organization, user) = (Uuid::new_v4(), Uuid::new_v4());
        self.execute(&format!(
            "INSERT INTO organizations (id, name, created_at, updated_at) VALUES ('{organization}', 'Org', now(), now());
             INSERT INTO users (id, clerk_user_id, email, name, is_super_admin)
             VALUES ('{user}', '{user}', 'robin@example.org', 'Robin Keeper', false);
             INSERT INTO organization_members
                 (id, organization_id, user_id, role, all_boards_read, all_boards_write, created_at, updated_at)
             VALUES ('{}', '{organization}', '{user}', 'owner', true, true, now(), now());",
            Uuid::new_v4()
        ))
        .await;
        organization
    }

    /// A gateway's row.
    pub async fn gateway(&self, organization: Uuid, url: &str, token: &str, workspace_root: &str) -> GatewayId {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO gateways (id, organization_id, name, url, token, workspace_root, disable_device_pairing,
                 allow_insecure_tls, created_at, updated_at)
             VALUES ($1, $2, 'Gateway', $3, $4, $5, false, false, now(), now())",
        )
        .bind(id)
        .bind(organization)
        .bind(url)
        .bind(token)
        .bind(workspace_root)
        .execute(&self.pool)
        .await
        .unwrap();
        GatewayId(id)
    }

    /// A board's row.
    pub async fn board(&self, organization: Uuid, gateway: Option<GatewayId>, name: &str) -> BoardId {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, goal_confirmed, description,
                 max_agents, created_at, updated_at)
             VALUES ($1, $2, $3, $3, $4, 'general', false, 'A board.', 5, now(), now())",
        )
        .bind(id)
        .bind(organization)
        .bind(name)
        .bind(gateway.map(|gateway| gateway.0))
        .execute(&self.pool)
        .await
        .unwrap();
        BoardId(id)
    }

    /// An agent's row: a main agent without a board, else a lead or a worker.
    pub async fn agent(&self, gateway: GatewayId, board: Option<BoardId>, name: &str, lead: bool) -> AgentId {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation,
                 wake_attempts, created_at, updated_at)
             VALUES ($1, $2, $3, $4, 'provisioning', $5, 0, 0, clock_timestamp(), clock_timestamp())",
        )
        .bind(id)
        .bind(board.map(|board| board.0))
        .bind(gateway.0)
        .bind(name)
        .bind(lead)
        .execute(&self.pool)
        .await
        .unwrap();
        AgentId(id)
    }

    /// The conditions last written for an agent.
    pub async fn agent_conditions(&self, agent: AgentId) -> Conditions {
        self.conditions("agent_records", "agent_id", agent.0).await
    }

    /// The conditions last written for a gateway.
    pub async fn gateway_conditions(&self, gateway: GatewayId) -> Conditions {
        self.conditions("gateway_records", "gateway_id", gateway.0).await
    }

    async fn conditions(&self, table: &str, key: &str, id: Uuid) -> Conditions {
        let sql = format!("SELECT conditions FROM openclaw_controller.{table} WHERE {key} = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&self.pool)
            .await;
        match row {
            Ok(Some(row)) => serde_json::from_value(row.get::<Value, _>(0)).unwrap(),
            _ => Conditions::default(),
        }
    }

    /// All that the controller has written for people to read, as one text: conditions, events, errors in rows.
    pub async fn everything_told(&self) -> String {
        let rows = sqlx::query_scalar::<_, String>(
            "SELECT conditions::text FROM openclaw_controller.gateway_records
             UNION ALL SELECT conditions::text FROM openclaw_controller.agent_records
             UNION ALL SELECT reason || ' ' || message FROM openclaw_controller.events
             UNION ALL SELECT last_provision_error FROM agents WHERE last_provision_error IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        rows.join("\n")
    }

    /// One text from the database.
    pub async fn text(&self, sql: &str) -> Option<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until the agent is ready for its newest generation.
    pub async fn agent_ready(&self, agent: AgentId) {
        self.agent_condition(agent, ConditionType::Ready, ConditionStatus::True, "Converged")
            .await;
    }

    /// Waits until the gateway is ready.
    pub async fn gateway_ready(&self, gateway: GatewayId) {
        self.gateway_condition(gateway, ConditionType::Ready, ConditionStatus::True, "Converged")
            .await;
    }

    /// Waits until an agent's condition has this status and reason, and returns it.
    pub async fn agent_condition(
        &self,
        agent: AgentId,
        kind: ConditionType,
        status: ConditionStatus,
        reason: &str,
    ) -> Condition {
        let what = format!("agent {agent} has {kind}={status} {reason}");
        condition(&what, kind, status, reason, async || self.agent_conditions(agent).await).await
    }

    /// Waits until a gateway's condition has this status and reason, and returns it.
    pub async fn gateway_condition(
        &self,
        gateway: GatewayId,
        kind: ConditionType,
        status: ConditionStatus,
        reason: &str,
    ) -> Condition {
        let what = format!("gateway {gateway} has {kind}={status} {reason}");
        condition(&what, kind, status, reason, async || {
            self.gateway_conditions(gateway).await
        })
        .await
    }
}

/// Waits until a condition has this status and reason; if it does not, says what there is instead.
async fn condition(
    what: &str,
    kind: ConditionType,
    status: ConditionStatus,
    reason: &str,
    load: impl AsyncFn() -> Conditions,
) -> Condition {
    let end = Instant::now() + PATIENCE;
    loop {
        let conditions = load().await;
        let found = conditions
            .get(kind)
            .filter(|c| c.status == status && c.reason == reason);
        if let Some(found) = found {
            return found.clone();
        }
        assert!(
            Instant::now() < end,
            "not within {PATIENCE:?}: {what}; there are {conditions:#?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// How a test's controller runs.
pub struct Options {
    pub resync: Duration,
    /// Whether it migrates first, which also brings back triggers that are missing.
    pub migrate: bool,
    pub templates_dir: Option<PathBuf>,
    pub base_url: Option<String>,
    pub token_hash: TokenHash,
    pub tokens: TokenArgs,
    pub gateways: GatewayArgs,
    pub agent_listen: Option<SocketAddr>,
    /// Whether agents are woken.
    pub wake: bool,
    /// Whether leftovers are removed.
    pub prune: bool,
    /// Which boards are given a lead; by default none, so that tests see the agents that they made.
    pub leads: Option<LeadBoards>,
    /// How gateways are connected to.
    pub connections: ConnectionArgs,
    /// Who may look.
    pub page: PageArgs,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resync: Duration::from_mins(10),
            migrate: true,
            templates_dir: None,
            base_url: Some("http://mission.test".into()),
            token_hash: TokenHash::Auto,
            tokens: TokenArgs::default(),
            gateways: GatewayArgs::default(),
            agent_listen: None,
            wake: false,
            prune: false,
            leads: Some(LeadBoards::None),
            connections: ConnectionArgs::default(),
            page: PageArgs::default(),
        }
    }
}

/// A controller in this process, exactly as `openclaw-controller run` runs it.
pub struct Controller {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    _state: TempDir,
}

impl Controller {
    /// Starts a controller on a database.
    pub async fn start(database_url: &str, options: Options) -> Self {
        Self::start_with(|connector| connector, database_url, options).await
    }

    /// The same with another way to gateways.
    pub async fn start_with<C: Connector>(
        way: impl FnOnce(WebSocketConnector) -> C + Send + 'static,
        database_url: &str,
        options: Options,
    ) -> Self {
        let state = TempDir::new().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, lab::free_port().unwrap()));
        let args = RunArgs {
            desired: DesiredArgs {
                base_url: options.base_url,
                templates_dir: options.templates_dir,
                connections: ConnectionArgs {
                    device_identity: Some(state.path().join("device.json")),
                    ..options.connections
                },
                listen: address,
                agent_listen: options.agent_listen,
                tokens: options.tokens,
                gateways: options.gateways,
            },
            existence: ExistenceArgs {
                prune: options.prune,
                ensure_leads: options.leads,
            },
            page: options.page,
            resync_interval: Span(options.resync),
            token_hash: options.token_hash,
            no_migrate: !options.migrate,
            no_wake: !options.wake,
            agent_workers: 16,
            gateway_workers: 8,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run::run_with(way, database_url.into(), args, stop.clone()));
        Self {
            address,
            stop,
            task,
            _state: state,
        }
    }

    /// Stops it in an orderly way.
    pub async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task)
            .await
            .expect("the controller stops")
            .unwrap()
            .unwrap();
    }

    /// Ends it as a crash would: nothing is finished, nothing is released.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// A page that it serves: status and body. Empty if it does not serve yet.
    pub async fn page(&self, path: &str) -> (u16, String) {
        page(self.address, path).await
    }

    /// The sum of all series of a metric whose labels contain this text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.address, name, labels).await
    }
}

/// All that a controller shows of what there is, to people and to programs, as one text.
pub async fn everything_shown(address: SocketAddr) -> String {
    let mut shown = String::new();
    for path in ["/metrics", "/readyz", "/", "/gateways", "/boards", "/agents", "/events"] {
        shown.push_str(&page(address, path).await.1);
    }
    for kind in ["gateways", "boards", "agents", "events"] {
        let (status, list) = page(address, &format!("/api/v1/{kind}?limit=500")).await;
        assert_eq!(status, 200, "{kind}: {list}");
        shown.push_str(&list);
    }
    shown
}

/// A page that a controller serves at this address: status and body. Empty if it does not serve yet.
pub async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?;
        Some((status, body))
    };
    timeout(Duration::from_secs(10), exchange)
        .await
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// The sum of all series of a metric at this address whose labels contain this text.
pub async fn metric(address: SocketAddr, name: &str, labels: &str) -> f64 {
    sum(&page(address, "/metrics").await.1, name, labels)
}

/// The sum of all series of a metric, in the text of a metrics page, whose labels contain this text.
pub fn sum(page: &str, name: &str, labels: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with(name) && line.contains(labels))
        .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b'{' | b' ')))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
