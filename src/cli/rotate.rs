//! `openclaw-controller rotate-token`: asks for new tokens, and waits for them if asked to.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::out::{self, plain};
use super::reference::References;
use super::run::SCOPE;
use super::select::Which;
use super::waiting::{INTERRUPTED, LOOK_EVERY, Shown, interrupted};
use crate::config::Span;
use crate::model::{AgentId, ConditionStatus, ConditionType, Conditions};
use crate::store::{LeaseStore, RequestStore, Requested, RotationProgress, StoreError};
use chrono::{DateTime, Utc};
use clap::Args;
use tokio::time::{Instant, sleep};

/// Exit code when not every agent had its new token in time.
const NOT_ALL: u8 = 1;

/// More agents than these are not listed one by one.
const LISTED: usize = 20;

/// The arguments of `rotate-token`.
#[derive(Args, Debug)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    which: Which,

    /// Wait until every agent's new token is in its file and its hash in the row.
    #[arg(long)]
    wait: bool,

    /// How long to wait: 10m, 90s.
    #[arg(long, value_name = "SPAN", default_value = "10m", requires = "wait")]
    timeout: Span,
}

pub(super) async fn command(args: RotateArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let which = args.which.selector(&References::load(&store).await?)?;
    let requested = store.request_rotation(&which).await?;
    out::line(described(&requested))?;
    if requested.agents.is_empty() || !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    if !store.current(SCOPE).await?.is_some_and(|lease| lease.held) {
        out::note(format_args!(
            "no controller is running on this database: the tokens are rotated once one does (`openclaw-controller run`)"
        ));
    }
    let interrupted = interrupted()?;
    let mut shown = Shown::new(requested.agents.len(), "new tokens");
    let waiting = wait(&store, &requested, args.timeout.0, &mut shown);
    let waited = tokio::select! {
        waited = waiting => waited?,
        () = interrupted => None,
    };
    shown.finish();
    let Some(open) = waited else {
        out::note(format_args!(
            "no longer waiting; the rotation was requested and goes on without this command"
        ));
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let gone = open.gone;
    let done = requested.agents.len() - gone - open.agents.len();
    out::line(format_args!("{} a new token", have(done)))?;
    if gone > 0 {
        out::line(format_args!("{gone} of them no longer have a row"))?;
    }
    if open.agents.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    out::note(format_args!(
        "{} no new token after {}; the rotation goes on without this command:",
        have(open.agents.len()),
        args.timeout
    ));
    for agent in open.agents.iter().take(LISTED) {
        out::note(format_args!(
            "  {} ({}): {}",
            plain(&agent.name),
            agent.agent,
            plain(&reason(agent))
        ));
    }
    if let Some(more @ 1..) = open.agents.len().checked_sub(LISTED) {
        out::note(format_args!(
            "  and {more} more; `openclaw-controller get agents -o wide` lists all"
        ));
    }
    Ok(ExitCode::from(NOT_ALL))
}

fn described(requested: &Requested) -> String {
    let mut text = match requested.agents.len() {
        0 => "no agent was found, so nothing was requested".to_owned(),
        1 => "a new token was requested for 1 agent".to_owned(),
        count => format!("new tokens were requested for {count} agents"),
    };
    if requested.deleting > 0 {
        let _ = write!(text, "; {} being deleted left out", requested.deleting);
    }
    text
}

fn have(count: usize) -> String {
    match count {
        1 => "1 agent has".to_owned(),
        count => format!("{count} agents have"),
    }
}

/// The agents whose tokens are not rotated yet.
struct Open {
    agents: Vec<RotationProgress>,
    /// How many have no row any more.
    gone: usize,
}

/// Looks until all is done or the time is over, whichever is first.
async fn wait(
    store: &impl RequestStore,
    requested: &Requested,
    timeout: Duration,
    shown: &mut Shown,
) -> Result<Option<Open>, StoreError> {
    let end = Instant::now() + timeout;
    let mut left: Vec<AgentId> = requested.agents.clone();
    let mut gone = 0;
    loop {
        let progress = match store.rotation_progress(&left).await {
            Ok(progress) => progress,
            // A database that restarts is waited for like everything else.
            Err(error) if error.is_transient() && Instant::now() < end => {
                sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        gone += left.len() - progress.len();
        let open = still_open(progress, requested.at);
        let open_ids: HashSet<AgentId> = open.iter().map(|agent| agent.agent).collect();
        left.retain(|id| open_ids.contains(id));
        shown.at(requested.agents.len() - left.len());
        if left.is_empty() || Instant::now() >= end {
            return Ok(Some(Open { agents: open, gone }));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn still_open(progress: Vec<RotationProgress>, at: DateTime<Utc>) -> Vec<RotationProgress> {
    progress.into_iter().filter(|agent| !agent.is_done(at)).collect()
}

/// Why an agent has no new token yet, as far as its conditions tell.
fn reason(agent: &RotationProgress) -> String {
    let failing = |conditions: &Conditions, kind: ConditionType| {
        conditions
            .get(kind)
            .filter(|condition| match kind {
                ConditionType::Paused => condition.status == ConditionStatus::True,
                _ => condition.status == ConditionStatus::False,
            })
            .map(|condition| format!("{}: {}", condition.reason, condition.message))
    };
    failing(&agent.conditions, ConditionType::Paused)
        .or_else(|| failing(&agent.gateway, ConditionType::Ready).map(|why| format!("its gateway is not ready: {why}")))
        .or_else(|| failing(&agent.conditions, ConditionType::TokenValid))
        .or_else(|| failing(&agent.conditions, ConditionType::Ready))
        .unwrap_or_else(|| "it was not looked at since; is a controller running?".to_owned())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_770_000_000 + second, 0).unwrap()
    }

    fn progress(requested: i64, done: Option<i64>) -> RotationProgress {
        RotationProgress {
            agent: AgentId(Uuid::nil()),
            name: "Wren".to_owned(),
            requested: Some(at(requested)),
            rotated_for: done.map(at),
            conditions: Conditions::default(),
            gateway: Conditions::default(),
        }
    }

    fn with(kind: ConditionType, status: ConditionStatus, reason: &str) -> Conditions {
        let mut conditions = Conditions::default();
        conditions.set(kind, status, reason, format!("because of {reason}"), 1, at(0));
        conditions
    }

    #[test]
    fn a_request_is_done_when_it_or_one_that_replaced_it_is_answered() {
        let is_open = |progress| !still_open(vec![progress], at(1)).is_empty();
        assert!(is_open(progress(1, None)));
        assert!(is_open(progress(1, Some(0))));
        assert!(!is_open(progress(1, Some(1))));
        assert!(!is_open(progress(2, Some(1))));
        assert!(!is_open(progress(2, Some(2))));
    }

    #[test]
    fn the_reason_that_is_told_is_the_one_that_has_to_go_first() {
        use ConditionType::{Paused, Ready, TokenValid};
        let mut agent = progress(1, None);
        assert!(reason(&agent).contains("is a controller running?"));
        agent.conditions = with(TokenValid, ConditionStatus::False, "Withheld");
        assert_eq!(reason(&agent), "Withheld: because of Withheld");
        agent.gateway = with(Ready, ConditionStatus::False, "ConnectionRefused");
        assert!(reason(&agent).starts_with("its gateway is not ready: ConnectionRefused"));
        agent.conditions = with(Paused, ConditionStatus::True, "BoardPaused");
        assert!(reason(&agent).starts_with("BoardPaused"));
    }
}
