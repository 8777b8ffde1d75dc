//! One gateway, one database with a fleet in it, and what can be seen of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use chrono::{Timelike, Utc};
use openclaw_controller::lab::{self, RealGateway};
use openclaw_controller::model::{AgentId, BoardId, GatewayId};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;
use uuid::Uuid;

use crate::binary::{Environment, Running, texts};
use crate::support::{self, Database, PATIENCE, eventually};

/// How a gateway's config keeps its agents, and what else goes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `agents.list`, with `TOOLS.md` and `HEARTBEAT.md`, and restarts for `channels`.
    List,
    /// `agents.entries`, without these files and restarts.
    Entries,
}

impl Shape {
    /// The file that holds an agent's token.
    pub(crate) fn token_file(self) -> &'static str {
        match self {
            Self::List => "TOOLS.md",
            Self::Entries => "AGENTS.md",
        }
    }

    /// A patch of entries of the roster.
    pub(crate) fn roster(self, agents: &[(&str, Value)]) -> Value {
        match self {
            Self::Entries => {
                let entries: Map<_, _> = agents
                    .iter()
                    .map(|(id, entry)| ((*id).to_owned(), entry.clone()))
                    .collect();
                json!({"agents": {"entries": entries}})
            }
            Self::List => {
                let list: Vec<_> = agents
                    .iter()
                    .map(|(id, entry)| {
                        let mut entry = entry.clone();
                        entry["id"] = (*id).into();
                        entry
                    })
                    .collect();
                json!({"agents": {"list": list}})
            }
        }
    }

    fn visibility(self) -> &'static str {
        match self {
            Self::List => "heartbeat",
            Self::Entries => "heartbeatVisibility",
        }
    }
}

/// An agent of the fleet.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) row: AgentId,
    /// Its id on the gateway.
    pub(crate) id: String,
    /// What its workspace directory is called behind `workspace-`.
    pub(crate) slug: String,
}

impl Agent {
    pub(crate) fn worker(row: AgentId) -> Self {
        let id = format!("mc-{row}");
        Self {
            row,
            slug: id.clone(),
            id,
        }
    }
}

/// Half an hour that is far away. Agents' heartbeats are spread over their ten minutes, so some would begin a run during a
/// story; without model credentials it fails, and an old gateway answers nobody for a minute meanwhile.
fn not_now() -> Value {
    let hour = (Utc::now().hour() + 10) % 24;
    json!({"start": format!("{hour:02}:00"), "end": format!("{hour:02}:30"), "timezone": "UTC"})
}

/// A gateway and a database with a fleet.
pub(crate) struct Fixture {
    // Dropped first: it ends the processes that write below the directories.
    pub(crate) gateway: RealGateway,
    pub(crate) shape: Shape,
    pub(crate) database: Database,
    pub(crate) environment: Environment,
    pub(crate) row: GatewayId,
    pub(crate) alpha: BoardId,
    pub(crate) beta: BoardId,
    pub(crate) main: Agent,
    pub(crate) lead: Agent,
    pub(crate) wren: Agent,
    pub(crate) finch: Agent,
    pub(crate) heron: Agent,
    /// What must never be shown.
    pub(crate) secrets: BTreeSet<String>,
    _directory: TempDir,
}

impl Fixture {
    /// A gateway whose operator has set some things, and rows for a fleet that it knows nothing of.
    pub(crate) async fn new(version: &str, shape: Shape) -> Self {
        Self::with(version, shape, false).await
    }

    /// The same, if asked to with a gateway as people run them: it starts its channels, and its agents' workspaces are below the
    /// home of its user.
    pub(crate) async fn with(version: &str, shape: Shape, everyday: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let (state, own) = (directory.path().join("gateway"), directory.path().join("controller"));
        fs::create_dir_all(state.join("state")).unwrap();
        fs::create_dir_all(&own).unwrap();
        let config = json!({
            "gateway": {"mode": "local", "bind": "loopback"},
            "logging": {"file": state.join("openclaw.log")},
            "messages": {"responsePrefix": "[operator]"},
            "agents": {"defaults": {"heartbeat": {"activeHours": not_now()}}},
            "channels": {"defaults": {(shape.visibility()): {"showOk": true}}},
        });
        fs::write(state.join("state/openclaw.json"), config.to_string()).unwrap();
        let options = lab::Options {
            state_dir: Some(state),
            channels: everyday,
            below_home: everyday,
            ..lab::Options::default()
        };
        let gateway = RealGateway::start(version, options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let root = gateway.workspace_root().display().to_string();
        let row = database
            .gateway(organization, &gateway.url(), gateway.token(), &root)
            .await;
        let alpha = database.board(organization, Some(row), "alpha").await;
        let beta = database.board(organization, Some(row), "beta").await;
        let lead = Agent {
            row: database.agent(row, Some(alpha), "Lead Agent", true).await,
            id: format!("lead-{alpha}"),
            slug: format!("lead-{alpha}"),
        };
        let wren = Agent::worker(database.agent(row, Some(alpha), "Wren", false).await);
        let finch = Agent::worker(database.agent(row, Some(alpha), "Finch", false).await);
        let heron = Agent::worker(database.agent(row, Some(beta), "Heron", false).await);
        let main = Agent {
            row: database.agent(row, None, "Gateway Agent", false).await,
            id: format!("mc-gateway-{row}"),
            slug: format!("gateway-{row}"),
        };
        let environment = Environment {
            database_url: database.url.clone(),
            directory: own,
            templates: None,
            prune: false,
        };
        let password = lab::shared_postgres().await.password().to_owned();
        let secrets = BTreeSet::from([gateway.token().to_owned(), password]);
        Self {
            gateway,
            shape,
            database,
            environment,
            row,
            alpha,
            beta,
            main,
            lead,
            wren,
            finch,
            heron,
            secrets,
            _directory: directory,
        }
    }

    /// The agents that exist from the beginning.
    pub(crate) fn fleet(&self) -> [&Agent; 5] {
        [&self.main, &self.lead, &self.wren, &self.finch, &self.heron]
    }

    /// A file on the gateway's disk.
    pub(crate) fn file(&self, agent: &Agent, name: &str) -> Option<String> {
        self.gateway.read_file(&agent.slug, name).unwrap()
    }

    /// Waits until a file on the gateway's disk is as wanted.
    pub(crate) async fn file_becomes(&self, agent: &Agent, name: &str, wanted: impl Fn(&str) -> bool) {
        eventually(&format!("{name} of {} is as wanted", agent.id), PATIENCE, async || {
            self.file(agent, name).filter(|text| wanted(text)).map(drop)
        })
        .await;
    }

    /// The config on the gateway's disk. It is replaced while it is read, now and then.
    pub(crate) async fn config(&self) -> Value {
        eventually("the config can be read", PATIENCE, async || self.gateway.config().ok()).await
    }

    /// An agent's roster entry.
    pub(crate) async fn entry(&self, id: &str) -> Option<Value> {
        let config = self.config().await;
        match self.shape {
            Shape::Entries => config["agents"]["entries"].get(id).cloned(),
            Shape::List => {
                let list = config["agents"]["list"].as_array()?;
                list.iter().find(|entry| entry["id"] == id).cloned()
            }
        }
    }

    /// Waits until an agent's roster entry is as wanted.
    pub(crate) async fn entry_becomes(&self, id: &str, wanted: impl Fn(&Value) -> bool) {
        eventually(&format!("the entry of {id} is as wanted"), PATIENCE, async || {
            self.entry(id).await.filter(|entry| wanted(entry)).map(drop)
        })
        .await;
    }

    /// The config without what this controller owns, and without what the gateway itself notes at every write.
    pub(crate) async fn rest_of_config(&self, ours: &[&Agent]) -> Value {
        let mut config = self.config().await;
        let is_ours = |id: &str| ours.iter().any(|agent| agent.id == id);
        if let Some(entries) = config["agents"]["entries"].as_object_mut() {
            entries.retain(|id, _| !is_ours(id));
        }
        if let Some(list) = config["agents"]["list"].as_array_mut() {
            list.retain(|entry| !is_ours(entry["id"].as_str().unwrap()));
        }
        config.as_object_mut().unwrap().remove("meta");
        config
    }

    /// How often the gateway began to serve.
    pub(crate) fn starts(&self) -> usize {
        let log = fs::read_to_string(self.gateway.log_path()).unwrap();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        // The oldest say where they listen, all others this; what they say of being ready some say twice.
        count("[gateway] starting HTTP server").max(count("[gateway] listening on ws://"))
    }

    /// The token in an agent's file, which must belong to the row's hash.
    pub(crate) async fn token(&self, agent: &Agent) -> String {
        let text = self.file(agent, self.shape.token_file()).unwrap();
        let found = token::extract(&text);
        let [token] = found.tokens() else {
            panic!("{} tokens in the file of {}", found.tokens().len(), agent.id)
        };
        let token = token.expose_secret().to_owned();
        let row = sqlx::query("SELECT agent_token_hash FROM agents WHERE id = $1")
            .bind(agent.row.0)
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        let (given, hash) = (token.clone(), row.get::<String, _>(0));
        let verified = tokio::task::spawn_blocking(move || token::verify(&given, &hash).unwrap());
        assert!(verified.await.unwrap(), "the token of {} belongs to its hash", agent.id);
        token
    }

    /// Notes all tokens that are in any file now as secrets.
    pub(crate) fn note_secrets(&mut self) {
        for text in texts(&self.gateway.workspace_root(), ".md") {
            let found = token::extract(&text);
            self.secrets
                .extend(found.tokens().iter().map(|token| token.expose_secret().to_owned()));
        }
    }

    /// Every row of every table but the leases, with the transaction that wrote it and the place where it is: any write
    /// at all changes this, one of equal values too.
    pub(crate) async fn rows(&self) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for table in self.tables("'public', 'openclaw_controller'").await {
            if table == "openclaw_controller.leases" {
                continue;
            }
            let sql = format!(
                "SELECT coalesce(string_agg(concat_ws(' ', t.xmin, t.ctid, t), E'\\n' ORDER BY t.ctid), '') FROM {table} t"
            );
            rows.insert(table, self.text(sql).await);
        }
        rows
    }

    /// All that this controller stored.
    pub(crate) async fn dump(&self) -> String {
        let mut dump = String::new();
        let mut tables = self.tables("'openclaw_controller'").await;
        tables.push("public.agents".to_owned());
        for table in tables {
            let sql = format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t");
            dump.extend([&table, ":\n", &self.text(sql).await, "\n"]);
        }
        dump
    }

    async fn tables(&self, schemas: &str) -> Vec<String> {
        let sql = format!(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables
             WHERE table_schema IN ({schemas}) AND table_type = 'BASE TABLE' ORDER BY 1"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&self.database.pool)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn text(&self, sql: String) -> String {
        let row = sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        row.get(0)
    }

    /// An agent's column.
    pub(crate) async fn column(&self, agent: &Agent, column: &str) -> String {
        let id = agent.row;
        self.text(format!(
            "SELECT coalesce({column}::text, '') FROM agents WHERE id = '{id}'"
        ))
        .await
    }

    /// Sets a column of an agent's row to an SQL expression.
    pub(crate) fn set(agent: &Agent, assignments: &str) -> String {
        format!("UPDATE agents SET {assignments} WHERE id = '{}';", agent.row)
    }

    /// A row for an agent that is on the gateway already, with the hash of its token.
    pub(crate) async fn row_of_existing(&self, id: Uuid, name: &str, hash: &str) -> Agent {
        let (board, gateway) = (self.beta, self.row);
        self.database
            .execute(&format!(
                "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation,
                     wake_attempts, agent_token_hash, created_at, updated_at)
                 VALUES ('{id}', '{board}', '{gateway}', '{name}', 'online', false, 0, 0, '{hash}', clock_timestamp(),
                     clock_timestamp())"
            ))
            .await;
        Agent::worker(AgentId(id))
    }
}

/// How many calls that write were made.
pub(crate) async fn writes(controller: &Running) -> u64 {
    let page = controller.page("/metrics").await;
    [
        "agents.create",
        "agents.update",
        "agents.delete",
        "agents.files.set",
        "config.patch",
        "sessions.patch",
        "sessions.reset",
        "sessions.delete",
        "chat.send",
    ]
    .iter()
    .map(|method| calls(&page, method))
    .sum()
}

/// How many calls of a method a metrics page tells of, whatever became of them.
pub(crate) fn calls(page: &str, method: &str) -> u64 {
    let labels = format!("method=\"{method}\"");
    count(support::sum(page, "openclaw_controller_rpc_total", &labels))
}

/// A counter as a number that can be compared.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what a test counts is whole, small and never negative"
)]
pub(crate) fn count(value: f64) -> u64 {
    value.round() as u64
}

/// A directory with one template of its own.
pub(crate) fn templates(directory: &std::path::Path, soul: &str) -> PathBuf {
    let templates = directory.join("templates");
    fs::create_dir_all(&templates).unwrap();
    fs::write(templates.join("BOARD_SOUL.md.j2"), soul).unwrap();
    templates
}

/// Asserts that everything in the first value is in the second, unchanged.
pub(crate) fn assert_kept(before: &Value, after: &Value, path: &str) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                if path.is_empty() && key == "meta" {
                    continue;
                }
                assert_kept(value, after.get(key).unwrap_or(&Value::Null), &format!("{path}/{key}"));
            }
        }
        _ => assert_eq!(before, after, "{path}"),
    }
}
