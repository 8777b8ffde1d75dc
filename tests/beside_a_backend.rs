//! Beside a backend that runs: it inserts, edits, heartbeats and re-keys on the same rows and the same gateway, as the
//! original does, and neither side loses anything, locks an agent out, or waits longer than the lock timeout.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed; this says where")]

#[path = "beside/backend.rs"]
mod backend;
mod support;

use backend::{Backend, SCHEMA};
use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use support::contract::Watch;
use support::{Controller, Database, Options, PATIENCE, eventually};
use tempfile::TempDir;
use tokio::time::Duration;

/// The templates of the backend, which a user gives to the controller too.
const TEMPLATES: [(&str, &str); 3] = [
    ("BOARD_SOUL.md.j2", "The soul of {{ agent_name }}."),
    ("BOARD_AGENTS.md.j2", "# AGENTS.md\n\nYou are {{ agent_name }}."),
    (
        "BOARD_TOOLS.md.j2",
        "# TOOLS.md\n\n- `BASE_URL={{ base_url }}`\n- `AUTH_TOKEN={{ auth_token }}`",
    ),
];

struct Fleet {
    database: Database,
    sim: SimGateway,
    backend: Backend,
    templates: TempDir,
    agents: Vec<String>,
    _server: openclaw_controller::sim::SimServer,
    _watch: Watch,
}

impl Fleet {
    /// A database of the backend's, with agents that it has provisioned.
    async fn new(agents: usize) -> Self {
        let database = Database::empty().await;
        database.execute(SCHEMA).await;
        // Its words of pausing are another test's.
        database.execute("DELETE FROM board_memory").await;
        let sim = SimGateway::new(SimDialect::V2026_7_1, "gateway-token");
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        database
            .execute(&format!(
                "DELETE FROM agents;
                 UPDATE gateways SET url = '{}', token = 'gateway-token', workspace_root = '/ws'",
                server.url()
            ))
            .await;
        let templates = TempDir::new().unwrap();
        for (name, text) in TEMPLATES {
            std::fs::write(templates.path().join(name), text).unwrap();
        }
        let backend = Backend::new(&database.url, sim.clone()).await;
        let mut ids = Vec::new();
        for n in 0..agents {
            ids.push(backend.create_agent(&format!("Agent {n}")).await);
        }
        Self {
            database,
            sim,
            backend,
            templates,
            agents: ids,
            _server: server,
            _watch: watch,
        }
    }

    async fn start(&self) -> Controller {
        let options = Options {
            templates_dir: Some(self.templates.path().to_owned()),
            base_url: Some("http://mission.test".into()),
            // Often, so that looks fall into everything that the backend does.
            resync: Duration::from_millis(300),
            ..Options::default()
        };
        Controller::start(&self.database.url, options).await
    }

    /// The token in an agent's file.
    fn token(&self, agent: &str) -> Option<String> {
        let text = self.sim.file(&format!("mc-{agent}"), "TOOLS.md")?;
        let found = token::extract(&text);
        found.tokens().first().map(|token| token.expose_secret().to_owned())
    }

    /// Whether the agent could authenticate: its file's token belongs to the row's hash.
    async fn is_let_in(&self, agent: &str) -> bool {
        let hash = self
            .database
            .text(&format!("SELECT agent_token_hash FROM agents WHERE id = '{agent}'"))
            .await;
        let (Some(hash), Some(token)) = (hash, self.token(agent)) else {
            return false;
        };
        let verified = tokio::task::spawn_blocking(move || token::verify(&token, &hash) == Ok(true));
        verified.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_running_backend_converge_and_its_own_statements_work_as_before() {
    let fleet = Fleet::new(3).await;
    let tokens: Vec<_> = fleet.agents.iter().map(|agent| fleet.token(agent)).collect();
    let controller = fleet.start().await;
    for agent in &fleet.agents {
        let id = openclaw_controller::model::AgentId(agent.parse().unwrap());
        let ready = fleet
            .database
            .agent_condition(id, ConditionType::Ready, ConditionStatus::True, "Converged");
        ready.await;
        assert!(fleet.is_let_in(agent).await, "{agent}");
    }
    let after: Vec<_> = fleet.agents.iter().map(|agent| fleet.token(agent)).collect();
    assert_eq!(after, tokens, "tokens that match are kept");
    // What the backend inserts later is found, and its rows can refer to agents as before.
    let new = fleet.backend.insert_agent("Later").await;
    fleet
        .backend
        .execute(&format!(
            "INSERT INTO tasks (id, title, assigned_agent_id) VALUES (gen_random_uuid(), 'Do', '{new}');
             INSERT INTO activity_events (id, event_type, agent_id) VALUES (gen_random_uuid(), 'agent.created', '{new}')"
        ))
        .await;
    eventually(
        "the agent that was inserted later can authenticate",
        PATIENCE,
        async || fleet.is_let_in(&new).await.then_some(()),
    )
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_edits_through_its_api_interleave_without_a_lost_update_or_a_lock_out() {
    let fleet = Fleet::new(3).await;
    let controller = fleet.start().await;
    for agent in &fleet.agents {
        let id = openclaw_controller::model::AgentId(agent.parse().unwrap());
        fleet.database.agent_ready(id).await;
    }
    let mut last = Vec::new();
    for round in 0..4 {
        for agent in &fleet.agents {
            let heartbeats = fleet.backend.heartbeats(&fleet.agents, 10);
            let name = format!("Round {round}");
            let edit = fleet.backend.edit(agent, &name);
            let ((), token) = tokio::join!(heartbeats, edit);
            last.retain(|(edited, _)| edited != agent);
            last.push((agent.clone(), token));
        }
    }
    for (agent, token) in &last {
        eventually(&format!("{agent} has its last name and soul"), PATIENCE, async || {
            let soul = fleet.sim.file(&format!("mc-{agent}"), "SOUL.md")?;
            (soul == "The soul of Round 3.").then_some(())
        })
        .await;
        assert_eq!(fleet.token(agent).as_ref(), Some(token), "the backend's token is kept");
        assert!(fleet.is_let_in(agent).await, "{agent}");
        let row = fleet
            .database
            .text(&format!(
                "SELECT concat_ws(' ', name, status, last_seen_at IS NOT NULL) FROM agents WHERE id = '{agent}'"
            ))
            .await;
        assert_eq!(
            row.as_deref(),
            Some("Round 3 online t"),
            "no update of the backend's is lost"
        );
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_backend_holds_for_long_holds_up_nothing_else() {
    let fleet = Fleet::new(2).await;
    let (held, free) = (&fleet.agents[0], &fleet.agents[1]);
    // Something to project onto the held row: its session key is wrong.
    fleet
        .database
        .execute("UPDATE agents SET openclaw_session_id = 'agent:main:main'")
        .await;
    let hold = fleet.backend.hold(held).await;
    let controller = fleet.start().await;
    let session = async |agent: &str| {
        let sql = format!("SELECT openclaw_session_id FROM agents WHERE id = '{agent}'");
        fleet.database.text(&sql).await
    };
    eventually("the other agent's row is corrected meanwhile", PATIENCE, async || {
        (session(free).await == Some(format!("agent:mc-{free}:main"))).then_some(())
    })
    .await;
    assert_eq!(session(held).await.as_deref(), Some("agent:main:main"));
    // The controller waits for a lock for some seconds, gives up and comes again.
    eventually("the controller gives the held row up", PATIENCE, async || {
        let failed = controller
            .metric("controller_runtime_reconcile_errors_total", "agent")
            .await;
        (failed > 0.5).then_some(())
    })
    .await;
    hold.release().await;
    eventually("the held row is corrected once it is free", PATIENCE, async || {
        (session(held).await == Some(format!("agent:mc-{held}:main"))).then_some(())
    })
    .await;
    controller.stop().await;
}
