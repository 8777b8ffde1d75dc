//! The controller against the bare minimal calls for the same result, on real gateways, alternating in one run.
//!
//! **Cold convergence**: a hundred agents as rows, a fresh gateway that knows none of them. Ours is timed from the start of the
//! controller until the database says of every agent that it is ready, which it is once its files were read back equal. Bare
//! is one `config.get`, one `config.patch`, then exactly the same file writes, eight in flight, timed from the open connection
//! until the last answer, which carries what the file then holds.
//!
//! **Edit**: on the gateway with a hundred agents, one row's `soul_template` is changed. Ours is timed from before the `COMMIT`
//! until the file on the gateway's disk holds the new text, until the controller has read it back, and until the status says
//! so. Bare is what has to be asked of the gateway for it: one `agents.files.list`, one `agents.files.set`. Both begin when the
//! gateway is at rest: with what it does of its own accord after a cold start it takes the processors away from whoever runs
//! beside it, now from one kind of edit and now from the other.
//!
//! Everything is printed: each sample, the medians, the ratios. Exits with an error if a ratio misses its target.

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "convergence/edits.rs"]
mod edits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use edits::Edits;
use futures::{StreamExt, TryStreamExt};
use openclaw_controller::gateway::{Client, Connector, DeviceIdentity, RpcMetrics, Target, WebSocketConnector};
use openclaw_controller::lab::{self, RealGateway};
use openclaw_controller::model::{AgentId, FileName, GatewayAgentId, GatewayId};
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Row};
use support::{Controller, Database, Options};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How much longer than the bare calls cold convergence may take.
const COLD_TARGET: f64 = 1.5;
/// How much longer than the bare calls an edit may take until it has been read back.
const EDIT_TARGET: f64 = 2.0;
/// Agents on one board, its lead among them.
const AGENTS_PER_BOARD: usize = 25;
/// Writes in flight on one connection.
const IN_FLIGHT: usize = 8;
/// How long anything may take before the benchmark gives up; a patch alone can take minutes where the roster is large.
const PATIENCE: Duration = Duration::from_mins(10);

/// Convergence against the bare minimal calls, on real gateways.
#[derive(Parser)]
struct Arguments {
    /// The version of the gateways.
    #[arg(long, default_value = "2026.9.6", value_name = "VERSION")]
    gateway: String,
    /// How many cold convergences of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many agents.
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// How many edits of each kind, after each cold convergence.
    #[arg(long, default_value_t = 15)]
    edits: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.rounds > 0 && arguments.agents > 1,
        "give at least one round and two agents"
    );
    let met = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(&arguments))?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(arguments: &Arguments) -> Result<bool> {
    println!(
        "OpenClaw {}, {} agents, {} rounds; times in seconds",
        arguments.gateway, arguments.agents, arguments.rounds
    );
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut samples = Edits::default();
    let mut read_back = edits::listen_for_read_backs()?;
    for round in 1..=arguments.rounds {
        let converged = converge(arguments, &mut read_back, &mut samples).await?;
        println!(
            "round {round}: ours {:>7.2}   config after {:.2}; {}",
            converged.seconds, converged.config_seconds, converged.calls
        );
        let replayed = replay(arguments, &converged).await?;
        println!(
            "round {round}: bare {:>7.2}   config after {:.2}; config.get 1, config.patch 1, agents.files.set {}",
            replayed.seconds,
            replayed.config_seconds,
            converged.files.len()
        );
        ours.push(converged.seconds);
        bare.push(replayed.seconds);
    }
    println!("\ncold convergence of {} agents, s", arguments.agents);
    let cold = compare(&ours, &bare, COLD_TARGET, ("ours", "bare"));
    println!("\none-row edit, {} agents on the gateway, ms", arguments.agents);
    show("ours, to the disk", &samples.ours_disk);
    show("bare, to the disk", &samples.bare_disk);
    let edit = compare(
        &samples.ours_read_back,
        &samples.bare_answered,
        EDIT_TARGET,
        ("ours, read back", "bare, answered"),
    );
    show("ours, status written", &samples.ours_status);
    Ok(cold && edit)
}

/// A cold convergence, and what it left on the gateway: what the bare calls have to produce.
struct Converged {
    seconds: f64,
    /// Until the gateway's config was as desired.
    config_seconds: f64,
    calls: String,
    /// Whether the patch restarted the gateway.
    restarted: bool,
    directory: PathBuf,
    /// The roster entries of our agents by id, with the fields that we own.
    roster: BTreeMap<String, Map<String, Value>>,
    config: Value,
    files: Vec<(GatewayAgentId, FileName, String)>,
}

/// The bare calls for the same result.
struct Replayed {
    seconds: f64,
    /// Until the patch was answered, and the restart over if it caused one.
    config_seconds: f64,
}

/// Converges a fresh gateway with the controller, then measures edits on it.
async fn converge(
    arguments: &Arguments,
    read_back: &mut UnboundedReceiver<Instant>,
    samples: &mut Edits,
) -> Result<Converged> {
    let gateway = RealGateway::start(&arguments.gateway, lab::Options::default()).await?;
    let root = gateway.workspace_root();
    let root = root.to_str().context("the temporary directory is not UTF-8")?;
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let id = database
        .gateway(organization, &gateway.url(), gateway.token(), root)
        .await;
    let mut agents = Vec::with_capacity(arguments.agents);
    let mut board = None;
    for n in 0..arguments.agents {
        let lead = n % AGENTS_PER_BOARD == 0;
        if lead {
            board = Some(database.board(organization, Some(id), &format!("board-{n}")).await);
        }
        agents.push(database.agent(id, board, &format!("Agent {n}"), lead).await);
    }
    let started = Instant::now();
    let controller = Controller::start(&database.url, options()).await;
    timeout(PATIENCE, ready(&database, "gateway_records", 1))
        .await
        .context("the gateway did not become ready")??;
    let config_seconds = started.elapsed().as_secs_f64();
    timeout(PATIENCE, ready(&database, "agent_records", agents.len()))
        .await
        .context("not all agents became ready")??;
    let seconds = started.elapsed().as_secs_f64();
    let calls = calls(&controller).await;
    let converged = Converged {
        seconds,
        config_seconds,
        calls,
        restarted: controller
            .metric("openclaw_controller_gateway_restarts_caused_total", "")
            .await
            > 0.0,
        roster: roster(&gateway.config()?),
        config: gateway.config()?,
        files: files(&gateway, &agents, &database).await?,
        directory: gateway.directory().to_owned(),
    };
    let started = Instant::now();
    gateway.at_rest(PATIENCE).await?;
    println!(
        "         the gateway is at rest {:.1} s later",
        started.elapsed().as_secs_f64()
    );
    edits::measure(arguments, &gateway, &database, &agents, read_back, samples).await?;
    controller.stop().await;
    tokio::task::spawn_blocking(move || drop(gateway)).await?;
    Ok(converged)
}

/// The controller's options: nothing but the first look and hints.
fn options() -> Options {
    Options {
        resync: Duration::from_hours(1),
        ..Options::default()
    }
}

/// Waits until so many objects are ready.
async fn ready(database: &Database, table: &str, count: usize) -> Result<()> {
    let count = i64::try_from(count)?;
    let query = format!(
        r#"SELECT count(*) FROM openclaw_controller.{table} WHERE conditions @> '[{{"type": "Ready", "status": "True"}}]'"#
    );
    let query = || sqlx::query_scalar::<_, i64>(AssertSqlSafe(query.clone()));
    while query().fetch_one(&database.pool).await? < count {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The calls that the controller made, by method: how many, and how long one took on average.
async fn calls(controller: &Controller) -> String {
    let (_, text) = controller.page("/metrics").await;
    let mut calls: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in text.lines() {
        let Some((kind, rest)) = line
            .strip_prefix("openclaw_controller_rpc_duration_seconds_")
            .and_then(|rest| rest.split_once("{method=\""))
        else {
            continue;
        };
        let (Some((method, _)), Some((_, value))) = (rest.split_once('"'), rest.rsplit_once(' ')) else {
            continue;
        };
        let entry = calls.entry(method.to_owned()).or_default();
        let value = value.parse().unwrap_or_default();
        match kind {
            "count" => entry.0 = value,
            "sum" => entry.1 = value,
            _ => {}
        }
    }
    let made = calls.into_iter().filter(|(_, (count, _))| *count > 0.0);
    made.map(|(method, (count, sum))| format!("{method} {count} x {:.0} ms", sum / count * 1e3))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The entries of our agents in a config of either shape, with the fields that we own.
fn roster(config: &Value) -> BTreeMap<String, Map<String, Value>> {
    let agents = &config["agents"];
    let listed = agents["list"].as_array().into_iter().flatten();
    let listed = listed.filter_map(|entry| Some((entry["id"].as_str()?.to_owned(), entry)));
    let entries = agents["entries"].as_object().into_iter().flatten();
    let entries = entries.map(|(id, entry)| (id.clone(), entry));
    listed
        .chain(entries)
        .filter(|(id, _)| GatewayAgentId::observed(id).looks_managed())
        .map(|(id, entry)| {
            let owned = ["name", "workspace", "heartbeat"]
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), entry.get(key)?.clone())));
            (id, owned.collect())
        })
        .collect()
}

/// Every file of every agent, as it is on the gateway's disk.
async fn files(
    gateway: &RealGateway,
    agents: &[AgentId],
    database: &Database,
) -> Result<Vec<(GatewayAgentId, FileName, String)>> {
    let mut files = Vec::new();
    for agent in agents {
        let id = gateway_agent_id(*agent, database).await?;
        for file in FileName::ALL {
            if let Some(text) = gateway.read_file(id.as_str(), file.as_str())? {
                files.push((id.clone(), file, text));
            }
        }
    }
    Ok(files)
}

async fn gateway_agent_id(agent: AgentId, database: &Database) -> Result<GatewayAgentId> {
    let row = sqlx::query("SELECT is_board_lead, board_id FROM agents WHERE id = $1")
        .bind(agent.0)
        .fetch_one(&database.pool)
        .await?;
    Ok(GatewayAgentId::observed(if row.get::<bool, _>(0) {
        format!("lead-{}", row.get::<Uuid, _>(1))
    } else {
        format!("mc-{agent}")
    }))
}

/// Brings another fresh gateway to the same state by the least calls.
async fn replay(arguments: &Arguments, model: &Converged) -> Result<Replayed> {
    let gateway = RealGateway::start(&arguments.gateway, lab::Options::default()).await?;
    let (from, to) = (text_of(&model.directory)?, text_of(gateway.directory())?);
    let patch: Value = serde_json::from_str(&patch(model).to_string().replace(&from, &to))?;
    let files: Vec<_> = model
        .files
        .iter()
        .map(|(agent, file, text)| (agent, *file, text.replace(&from, &to)))
        .collect();
    let mut client = connect(&gateway).await?;
    let started = Instant::now();
    let config = client.config_get().await?;
    let answer = client.config_patch(&patch, config.hash.as_deref(), &[], PATIENCE).await;
    if model.restarted {
        // The answer may be lost with the connection.
        timeout(PATIENCE, client.closed()).await?;
        client = loop {
            match connect(&gateway).await {
                Ok(client) => break client,
                Err(_) if started.elapsed() < PATIENCE => sleep(Duration::from_millis(100)).await,
                Err(error) => return Err(error),
            }
        };
    } else {
        answer?;
    }
    let config_seconds = started.elapsed().as_secs_f64();
    let client = &client;
    futures::stream::iter(&files)
        .map(|(agent, file, text)| async move {
            let answer = client.files_set(agent, *file, text, None).await?;
            ensure!(
                answer.text.as_ref() == Some(text),
                "{file} of {agent} does not hold what was written"
            );
            Ok(())
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    let seconds = started.elapsed().as_secs_f64();

    let (have, want) = (roster(&gateway.config()?), &model.roster);
    ensure!(
        have.keys().eq(want.keys()),
        "the bare calls did not lead to the same roster"
    );
    client.close();
    tokio::task::spawn_blocking(move || drop(gateway)).await?;
    Ok(Replayed {
        seconds,
        config_seconds,
    })
}

fn text_of(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .context("the temporary directory is not UTF-8")?
        .to_owned())
}

/// The one patch that leads from a fresh config to the model's.
fn patch(model: &Converged) -> Value {
    let agents = if model.config["agents"]["list"].is_array() {
        let ours = model.roster.iter().map(|(id, entry)| {
            let mut entry = entry.clone();
            entry.insert("id".into(), json!(id));
            Value::from(entry)
        });
        let list: Vec<_> = std::iter::once(json!({"id": "main"})).chain(ours).collect();
        json!({"list": list})
    } else {
        json!({"ownership": "explicit", "entries": model.roster})
    };
    let host = &model.config["tools"]["exec"]["host"];
    let defaults = &model.config["channels"]["defaults"];
    json!({"agents": agents, "tools": {"exec": {"host": host}}, "channels": {"defaults": defaults}})
}

async fn connect(gateway: &RealGateway) -> Result<Client> {
    let connector = WebSocketConnector::new(Arc::new(DeviceIdentity::generate()), RpcMetrics::unregistered());
    let target = Target {
        gateway: GatewayId(Uuid::new_v4()),
        url: gateway.url(),
        token: Some(gateway.token().into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    };
    Ok(connector.connect(&target).await?)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn show(name: &str, samples: &[f64]) {
    let all: Vec<_> = samples.iter().map(|sample| format!("{sample:.1}")).collect();
    println!("  {name:<22} median {:>8.2}   all: {}", median(samples), all.join(" "));
}

/// Prints two rows of samples and their ratio; whether it keeps to the target.
fn compare(ours: &[f64], bare: &[f64], target: f64, names: (&str, &str)) -> bool {
    show(names.0, ours);
    show(names.1, bare);
    let ratio = median(ours) / median(bare);
    let met = ratio <= target;
    let verdict = if met { "met" } else { "MISSED" };
    println!("  ratio                  {ratio:.2} (target {target:.1}: {verdict})");
    met
}
