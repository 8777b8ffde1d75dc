//! Convergence as it happens, read from the status that the controller writes: the demo knows nothing that an operator
//! could not see.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Row};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use crate::cli::out::{self, plain};
use crate::model::{ConditionStatus, ConditionType, Conditions};

const POLL: Duration = Duration::from_millis(250);
const QUERY: Duration = Duration::from_secs(10);

/// What makes an agent equal to its row. Checking in is up to the agent, and needs model credentials.
const SYNCED: [ConditionType; 3] = [
    ConditionType::Registered,
    ConditionType::FilesSynced,
    ConditionType::TokenValid,
];

const STATUS: &str = "
    SELECT 'gateway' AS kind, g.id, g.name, '' AS place, coalesce(r.conditions::text, '[]') AS conditions
      FROM gateways g LEFT JOIN openclaw_controller.gateway_records r ON r.gateway_id = g.id
    UNION ALL
    SELECT 'agent', a.id, a.name, coalesce(b.name, 'gateway'), coalesce(r.conditions::text, '[]')
      FROM agents a
      LEFT JOIN boards b ON b.id = a.board_id
      LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
     ORDER BY kind DESC, place, name";

/// One object's status.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    pub(super) is_agent: bool,
    pub(super) id: Uuid,
    pub(super) label: String,
    pub(super) conditions: Conditions,
}

/// Follows the status of everything in one database.
pub(super) struct Progress {
    pool: PgPool,
    started: Instant,
    seen: BTreeMap<Uuid, Conditions>,
}

impl Progress {
    /// Begins to follow; the clock starts here.
    pub(super) async fn of(database_url: &str) -> Result<Self> {
        let options: PgConnectOptions = database_url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(QUERY)
            .connect_with(options.disable_statement_logging())
            .await?;
        Ok(Self {
            pool,
            started: Instant::now(),
            seen: BTreeMap::new(),
        })
    }

    /// Prints what changes until every agent is as its row says; returns the seconds that took.
    pub(super) async fn until_converged(&mut self) -> Result<f64> {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let fleet = self.load().await?;
            self.print(&fleet)?;
            if converged(&fleet) {
                return Ok(self.started.elapsed().as_secs_f64());
            }
        }
    }

    /// Prints what changes, and what `news` has to say of the gateway, for ever.
    pub(super) async fn follow(&mut self, mut news: impl FnMut() -> Vec<String>) -> Result<()> {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            for line in news() {
                out::line(format_args!(
                    "{:>7.1} s  gateway  {line}",
                    self.started.elapsed().as_secs_f64()
                ))?;
            }
            // Postgres may be restarted by whoever tries what happens then.
            match self.load().await {
                Ok(fleet) => self.print(&fleet)?,
                Err(error) => tracing::debug!("the demo cannot read the status: {error:#}"),
            }
        }
    }

    fn print(&mut self, fleet: &[Status]) -> Result<()> {
        let seconds = self.started.elapsed().as_secs_f64();
        for status in fleet {
            let before = self
                .seen
                .insert(status.id, status.conditions.clone())
                .unwrap_or_default();
            for line in changes(&before, &status.conditions) {
                out::line(format_args!("{seconds:>7.1} s  {:<24} {line}", plain(&status.label)))?;
            }
        }
        Ok(())
    }

    async fn load(&self) -> Result<Vec<Status>> {
        let rows = timeout(QUERY, sqlx::query(STATUS).fetch_all(&self.pool))
            .await
            .with_context(|| format!("Postgres did not answer within {} s", QUERY.as_secs()))??;
        rows.iter()
            .map(|row| {
                let (name, place): (Option<String>, String) = (row.try_get("name")?, row.try_get("place")?);
                let name = name.unwrap_or_default();
                let conditions: String = row.try_get("conditions")?;
                Ok(Status {
                    is_agent: row.try_get::<String, _>("kind")? == "agent",
                    id: row.try_get("id")?,
                    label: if place.is_empty() {
                        name
                    } else {
                        format!("{name} ({place})")
                    },
                    conditions: serde_json::from_str(&conditions)?,
                })
            })
            .collect()
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether every agent is as its row says.
pub(super) fn converged(fleet: &[Status]) -> bool {
    let mut agents = fleet.iter().filter(|status| status.is_agent).peekable();
    agents.peek().is_some() && agents.all(|agent| SYNCED.iter().all(|kind| agent.conditions.is_true(*kind)))
}

/// What a person should hear: the conditions that hold now, on one line, and one line for each that does not, with its message.
pub(super) fn changes(before: &Conditions, now: &Conditions) -> Vec<String> {
    let moved = now.iter().filter(|condition| {
        before
            .get(condition.kind)
            .is_none_or(|old| (old.status, &old.reason) != (condition.status, &condition.reason))
    });
    let (hold, fail): (Vec<_>, Vec<_>) = moved.partition(|condition| condition.status == ConditionStatus::True);
    let held = hold
        .iter()
        .map(|condition| condition.kind.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    (!held.is_empty())
        .then_some(held)
        .into_iter()
        .chain(
            fail.iter()
                // "Not paused" and the sum of the others are no news.
                .filter(|condition| !matches!(condition.kind, ConditionType::Paused | ConditionType::Ready))
                .map(|condition| {
                    let (kind, status, reason) = (condition.kind, condition.status, &condition.reason);
                    format!("{kind}={status} ({reason}): {}", condition.message)
                }),
        )
        .collect()
}
