//! One-row edits: by the row, and by the bare calls.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use openclaw_controller::lab::RealGateway;
use openclaw_controller::model::{AgentId, FileName, GatewayAgentId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::support::Database;
use super::{Arguments, PATIENCE, connect, gateway_agent_id};

/// How often the disk is looked at. Short against the calls that are measured (milliseconds).
const DISK_POLL: Duration = Duration::from_micros(200);

/// The samples of the edits, in milliseconds.
#[derive(Default)]
pub(super) struct Edits {
    pub(super) ours_disk: Vec<f64>,
    pub(super) ours_read_back: Vec<f64>,
    pub(super) ours_status: Vec<f64>,
    pub(super) bare_disk: Vec<f64>,
    pub(super) bare_answered: Vec<f64>,
}

/// Edits two agents in turn: one by its row, the other by the bare calls.
pub(super) async fn measure(
    arguments: &Arguments,
    gateway: &RealGateway,
    database: &Database,
    agents: &[AgentId],
    read_back: &mut UnboundedReceiver<Instant>,
    samples: &mut Edits,
) -> Result<()> {
    let [.., by_row, by_call] = agents else {
        bail!("two agents are needed");
    };
    let [row_id, call_id] = [
        gateway_agent_id(*by_row, database).await?,
        gateway_agent_id(*by_call, database).await?,
    ];
    let path = |id: &GatewayAgentId| gateway.workspace(id.as_str()).join("SOUL.md");
    let client = connect(gateway).await?;
    // The controller's write says what it replaces, where the gateway offers that; so does the bare one.
    let mut hash = client.files_get(&call_id, FileName::Soul).await?.hash;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    for n in 0..arguments.edits {
        let text = format!("The soul of agent {by_row} after edit {n}.");
        while read_back.try_recv().is_ok() {}
        let mut transaction = database.pool.begin().await?;
        sqlx::query("UPDATE agents SET soul_template = $1 WHERE id = $2")
            .bind(&text)
            .bind(by_row.0)
            .execute(&mut *transaction)
            .await?;
        let watch = watch(path(&row_id), text);
        let started = Instant::now();
        transaction.commit().await?;
        let on_disk = watch.await??;
        let told = timeout(PATIENCE, read_back.recv()).await?;
        let told = told.context("the controller's log has ended")?;
        while !is_reported(database, *by_row).await? {
            ensure!(started.elapsed() < PATIENCE, "the status never followed");
        }
        samples.ours_status.push(ms(started.elapsed()));
        samples.ours_disk.push(ms(on_disk - started));
        samples.ours_read_back.push(ms(told - started));

        let text = format!("The soul of agent {by_call} after edit {n}.");
        let watch = self::watch(path(&call_id), text.clone());
        let started = Instant::now();
        client.files_list(&call_id).await?;
        let answer = client
            .files_set(&call_id, FileName::Soul, &text, hash.as_deref())
            .await?;
        let answered = started.elapsed();
        ensure!(
            answer.text.as_ref() == Some(&text),
            "the file does not hold what was written"
        );
        hash = answer.hash;
        samples.bare_disk.push(ms(watch.await?? - started));
        samples.bare_answered.push(ms(answered));
    }
    client.close();
    Ok(())
}

/// Gives the moments at which the controller says that it has read a file back.
pub(super) fn listen_for_read_backs() -> Result<UnboundedReceiver<Instant>> {
    let (sender, receiver) = unbounded_channel();
    let filter = Targets::new().with_target("openclaw_controller::reconcile::apply", Level::DEBUG);
    let layer = ReadBacks(sender).with_filter(filter);
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(receiver)
}

/// Picks "read back equal" out of the controller's log.
struct ReadBacks(UnboundedSender<Instant>);

impl<S: tracing::Subscriber> Layer<S> for ReadBacks {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let now = Instant::now();
        let mut message = Message::default();
        event.record(&mut message);
        if message.0 == "read back equal" {
            // Nobody listens any more when the benchmark is over.
            let _ = self.0.send(now);
        }
    }
}

/// An event's message.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Watches a file until it holds this text; gives the moment.
fn watch(path: PathBuf, text: String) -> tokio::task::JoinHandle<Result<Instant>> {
    tokio::task::spawn_blocking(move || {
        let end = Instant::now() + PATIENCE;
        while std::fs::read_to_string(&path).is_ok_and(|now| now != text) {
            ensure!(Instant::now() < end, "{} never held the new text", path.display());
            thread::sleep(DISK_POLL);
        }
        Ok(Instant::now())
    })
}

/// Whether the status speaks of the agent's newest generation, and says that it is ready.
async fn is_reported(database: &Database, agent: AgentId) -> Result<bool> {
    let query = "SELECT conditions @> jsonb_build_array(jsonb_build_object(
                            'type', 'Ready', 'status', 'True', 'observedGeneration', generation))
                   FROM openclaw_controller.agent_records WHERE agent_id = $1";
    Ok(sqlx::query_scalar(query)
        .bind(agent.0)
        .fetch_one(&database.pool)
        .await?)
}
