//! A gateway is stopped as one version and started as another on the same state, its `doctor` run in between, while the
//! controller runs all the time: it converges again without an edit, and nobody is locked out meanwhile.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a step that cannot go on has failed; these say where")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openclaw_controller::lab::{Options, RealGateway};
use openclaw_controller::model::{AgentId, ConditionType, Conditions, GatewayId};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::sleep;

use support::{Controller, Database, PATIENCE, eventually};

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// All files that may hold a token, as far as any version knows them.
const FILES: [&str; 8] = [
    "AGENTS.md",
    "SOUL.md",
    "TOOLS.md",
    "IDENTITY.md",
    "USER.md",
    "HEARTBEAT.md",
    "MEMORY.md",
    "BOOTSTRAP.md",
];

/// An agent of the fleet: its row, and what its workspace directory is called behind `workspace-`.
struct Agent {
    row: AgentId,
    id: String,
    slug: String,
}

struct Story {
    gateway: RealGateway,
    database: Database,
    row: GatewayId,
    agents: Vec<Agent>,
    clock: Instant,
}

impl Story {
    async fn new(version: &str) -> Self {
        let clock = Instant::now();
        let gateway = RealGateway::start(version, Options::default()).await.unwrap();
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let root = gateway.workspace_root().display().to_string();
        let row = database
            .gateway(organization, &gateway.url(), gateway.token(), &root)
            .await;
        let board = database.board(organization, Some(row), "alpha").await;
        let mut agents = Vec::new();
        for name in ["Wren", "Finch"] {
            let row = database.agent(row, Some(board), name, false).await;
            let id = format!("mc-{row}");
            let slug = id.clone();
            agents.push(Agent { row, id, slug });
        }
        let lead = database.agent(row, Some(board), "Lead Agent", true).await;
        let id = format!("lead-{board}");
        let slug = id.clone();
        agents.push(Agent { row: lead, id, slug });
        let main = database.agent(row, None, "Gateway Agent", false).await;
        agents.push(Agent {
            row: main,
            id: format!("mc-gateway-{row}"),
            slug: format!("gateway-{row}"),
        });
        Self {
            gateway,
            database,
            row,
            agents,
            clock,
        }
    }

    fn step(&self, what: &str) {
        println!("{:6.1} s  {what}", self.clock.elapsed().as_secs_f64());
    }

    /// Waits until the gateway was seen as this version, and everything is ready and stays so through a look.
    async fn converged(&self, version: &str) {
        eventually(&format!("converged on {version}"), PATIENCE * 2, async || {
            let told = self.told_version().await?;
            let gateway = self.database.gateway_conditions(self.row).await;
            let mut all = told == version && is_ready(&gateway);
            for agent in &self.agents {
                all &= is_ready(&self.database.agent_conditions(agent.row).await) && self.is_written(agent);
            }
            all.then_some(())
        })
        .await;
    }

    async fn told_version(&self) -> Option<String> {
        let row = sqlx::query("SELECT server_version FROM openclaw_controller.gateway_records WHERE gateway_id = $1")
            .bind(self.row.0)
            .fetch_optional(&self.database.pool)
            .await
            .unwrap();
        row.and_then(|row| row.get(0))
    }

    /// Whether the roster, and the files that may have the token, are as this version wants them.
    fn is_written(&self, agent: &Agent) -> bool {
        let Ok(config) = self.gateway.config() else {
            return false;
        };
        let entries = config["agents"].get("entries").is_some();
        let entry = if entries {
            config["agents"]["entries"].get(&agent.id).cloned()
        } else {
            let list = config["agents"]["list"].as_array();
            list.and_then(|list| list.iter().find(|entry| entry["id"] == agent.id.as_str()).cloned())
        };
        let Some(entry) = entry else { return false };
        if entries && entry["heartbeat"].get("includeReasoning").is_some() {
            return false;
        }
        let home = if entries { "AGENTS.md" } else { "TOOLS.md" };
        let text = self.file(agent, home).unwrap_or_default();
        let places = self.places(agent);
        // Files are written several at a time.
        places.len() == 1 && places.contains_key(home) && !text.contains("migrated from TOOLS.md")
    }

    fn file(&self, agent: &Agent, name: &str) -> Option<String> {
        self.gateway.read_file(&agent.slug, name).unwrap()
    }

    /// The files of an agent that hold a token, with it.
    fn places(&self, agent: &Agent) -> BTreeMap<&'static str, Vec<String>> {
        let files = FILES.into_iter().filter_map(|name| {
            let found = tokens_in(&self.file(agent, name)?);
            (!found.is_empty()).then_some((name, found))
        });
        files.collect()
    }

    /// The one token of each agent, which is in one file only and belongs to the stored hash.
    async fn tokens(&self, home: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        for agent in &self.agents {
            let places = self.places(agent);
            assert_eq!(places.keys().copied().collect::<Vec<_>>(), [home], "{}", agent.id);
            assert_eq!(places[home].len(), 1, "{}", agent.id);
            let token = places[home][0].clone();
            let hash = self.hash(agent).await;
            let given = token.clone();
            let verified = tokio::task::spawn_blocking(move || token::verify(&given, &hash).unwrap());
            assert!(verified.await.unwrap(), "the token of {} belongs to its hash", agent.id);
            tokens.push(token);
        }
        tokens
    }

    async fn hash(&self, agent: &Agent) -> String {
        let sql = format!("SELECT agent_token_hash FROM agents WHERE id = '{}'", agent.row);
        self.database.text(&sql).await.unwrap()
    }

    /// What people may edit: none of it is touched in this story.
    async fn rows(&self) -> String {
        let sql = "SELECT string_agg(concat_ws(' ', id, name, board_id, gateway_id, heartbeat_config, identity_profile,
                       identity_template, soul_template, delete_requested_at), E'\n' ORDER BY id) FROM agents";
        self.database.text(sql).await.unwrap()
    }

    /// Stops the gateway, puts another version in its place, has that put the state in order, and starts it.
    async fn become_version(&self, version: &str) {
        self.gateway.stop().await.unwrap();
        self.gateway.replace_version(version).await.unwrap();
        let said = self.gateway.doctor().await.unwrap();
        self.step(&format!(
            "stopped; the doctor of {version} has said {} lines",
            said.lines().count()
        ));
        self.gateway.start_again().await.unwrap();
    }

    /// Two resyncs in which everything was looked at and nothing written.
    async fn rests(&self, controller: &Controller) {
        let looks = async || controller.metric("controller_runtime_reconcile_total", "").await;
        let writes = async || {
            let mut sum = 0.0;
            for method in [
                "config.patch",
                "agents.files.set",
                "agents.create",
                "agents.delete",
                "sessions.patch",
            ] {
                sum += controller
                    .metric("openclaw_controller_rpc_total", &format!("method=\"{method}\""))
                    .await;
            }
            sum
        };
        let objects = (self.agents.len() + 1) as f64;
        let two_rounds = async || {
            let looked = looks().await;
            eventually("two resyncs", PATIENCE, async || {
                (looks().await >= looked + 2.0 * objects).then_some(())
            })
            .await;
        };
        // What was under way when the last condition was written.
        two_rounds().await;
        let before = writes().await;
        two_rounds().await;
        assert!(
            (writes().await - before).abs() < 0.1,
            "a converged gateway gets no write"
        );
    }
}

const RESYNC: Duration = Duration::from_secs(3);

fn is_ready(conditions: &Conditions) -> bool {
    conditions.is_true(ConditionType::Ready)
}

fn tokens_in(text: &str) -> Vec<String> {
    let found = token::extract(text);
    found
        .tokens()
        .iter()
        .map(|token| token.expose_secret().to_owned())
        .collect()
}

/// Checks in as every agent again and again, with the token that it knows, and counts those that are turned away.
struct CheckIns {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl CheckIns {
    fn start(controller: &Controller, tokens: Vec<String>) -> Self {
        let (stop, taken, refused) = (Arc::default(), Arc::default(), Arc::default());
        let address = controller.address;
        let task = tokio::spawn({
            let (stop, taken, refused) = (
                Arc::<AtomicBool>::clone(&stop),
                Arc::<AtomicUsize>::clone(&taken),
                Arc::<AtomicUsize>::clone(&refused),
            );
            async move {
                while !stop.load(Ordering::Relaxed) {
                    for token in &tokens {
                        match check_in(address, token).await {
                            Some(200) => taken.fetch_add(1, Ordering::Relaxed),
                            Some(401) => refused.fetch_add(1, Ordering::Relaxed),
                            // The database or this process are busy.
                            _ => 0,
                        };
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
        });
        Self {
            stop,
            taken,
            refused,
            task,
        }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let (taken, refused) = (self.taken.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        assert!(
            taken > 0 && refused == 0,
            "{taken} check-ins taken, {refused} turned away"
        );
    }
}

async fn check_in(address: std::net::SocketAddr, token: &str) -> Option<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!(
            "POST /api/v1/agent/heartbeat HTTP/1.1\r\nHost: x\r\nX-Agent-Token: {token}\r\nContent-Length: 0\r\nConnection: \
             close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    };
    tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .ok()
        .flatten()
}

/// Which file has the token on a version.
fn home(version: &str) -> &'static str {
    if version == "2026.9.6" { "AGENTS.md" } else { "TOOLS.md" }
}

/// Converges on one version, then on each of the others after it, on the same state and without an edit.
async fn tell(versions: &[&str]) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let story = Story::new(versions[0]).await;
    story.step(&format!("{} serves", versions[0]));
    let options = support::Options {
        resync: RESYNC,
        ..support::Options::default()
    };
    let controller = Controller::start(&story.database.url, options).await;
    story.converged(versions[0]).await;
    story.step(&format!("converged on {}", versions[0]));
    let rows = story.rows().await;
    let mut before = story.tokens(home(versions[0])).await;
    for version in &versions[1..] {
        let check_ins = CheckIns::start(&controller, before.clone());
        story.become_version(version).await;
        story.step(&format!("upgraded to {version}"));
        story.converged(version).await;
        story.step(&format!("converged on {version}"));
        check_ins.stop().await;
        let after = story.tokens(home(version)).await;
        assert_eq!(after, before, "every agent keeps its token");
        assert_eq!(story.rows().await, rows, "nobody has edited anything");
        story.rests(&controller).await;
        story.step("nothing is written any more");
        before = after;
    }
    controller.stop().await;
}

/// Upgrades, and then goes back as far as the gateway can: its own doctor cannot read the newer state, so an operator puts the
/// state of before back. The workspaces are then those of the newer version.
async fn tell_back(older: &str, newer: &str) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let story = Story::new(older).await;
    let options = support::Options {
        resync: RESYNC,
        ..support::Options::default()
    };
    let controller = Controller::start(&story.database.url, options).await;
    story.converged(older).await;
    story.step(&format!("converged on {older}"));
    let before = story.tokens(home(older)).await;
    story.gateway.stop().await.unwrap();
    let (state, backup) = (story.gateway.state_dir(), story.gateway.directory().join("backup"));
    copy(&state, &backup);
    story.become_version(newer).await;
    story.converged(newer).await;
    story.step(&format!("converged on {newer}"));
    assert_eq!(story.tokens(home(newer)).await, before);

    story.gateway.stop().await.unwrap();
    story.gateway.replace_version(older).await.unwrap();
    let refused = story.gateway.doctor().await.unwrap_err().to_string();
    assert!(refused.contains("newer schema version"), "{refused}");
    story.step(&format!("the doctor of {older} refuses the state of {newer}"));
    let check_ins = CheckIns::start(&controller, before.clone());
    std::fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);
    story.gateway.start_again().await.unwrap();
    story.step(&format!("{older} serves again, on its state of before"));
    story.converged(older).await;
    story.step(&format!("converged on {older}"));
    check_ins.stop().await;
    assert_eq!(story.tokens(home(older)).await, before, "every agent keeps its token");
    story.rests(&controller).await;
    story.step("nothing is written any more");
    controller.stop().await;
}

/// Copies a directory with all that is in it, links as links.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success(), "{} is copied", from.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_becomes_another_version_on_the_same_state_converges_again_without_an_edit() {
    tell(&["2026.7.1", "2026.9.6"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_protocol_changes_with_its_version_converges_again_without_an_edit() {
    tell(&["2026.4.29", "2026.7.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_put_back_to_its_older_version_converges_again_without_an_edit() {
    tell_back("2026.7.1", "2026.9.6").await;
}
