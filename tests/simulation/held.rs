//! What is held back, because it would restart the gateway once too often or somebody else insists on something else: the agents
//! that it is about say so, their files are kept, and syncs end.

use std::time::Duration;

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType, SyncOptions};
use openclaw_controller::sim::{Fault, SimDialect};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{Replica, World, edit_entry};
use crate::restarts::{held, restarts};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::syncs::Syncing;
use crate::wakes::until;

const FOUND: Duration = Duration::from_secs(132 + 60);

const HOUR: Duration = Duration::from_hours(1);

/// A converged gateway that may not be restarted for almost an hour, and whose roster, as far as is known, cannot be changed without
/// that.
async fn spent(fleet: &mut Syncing) -> Replica {
    fleet.world.restarts = 1;
    fleet.sim().faults().inject("config.patch", 1, Fault::Restart);
    let replica = fleet.world.start(1);
    converge(&fleet.world, BOUND * 2).await;
    assert_eq!(restarts(&replica), 1);
    replica
}

/// Somebody takes an agent out of the roster.
fn take_out(fleet: &Syncing, agent: AgentId) {
    let id = fleet.name(agent);
    fleet.sim().edit_config(|config| {
        let entries = config["agents"]["entries"].as_object_mut().unwrap();
        assert!(entries.remove(&id).is_some());
    });
}

/// Waits until the agent's condition has this reason.
async fn told(world: &World, agent: AgentId, kind: ConditionType, reason: &str) -> String {
    until(&format!("{kind} {reason}"), FOUND, || {
        let record = world.store.agent_record(agent)?;
        let condition = record.conditions.get(kind)?;
        let is = condition.reason == reason && condition.status != ConditionStatus::True;
        is.then(|| condition.message.clone())
    })
    .await
}

#[test]
fn an_agent_whose_entry_waits_for_a_restart_says_so_and_its_files_are_kept() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = spent(&mut fleet).await;
        let (agent, id) = (fleet.agents[1], fleet.name(fleet.agents[1]));
        fleet.world.store.edit_agent(agent, |row| row.name = "Ada".into());
        held(&fleet.world, fleet.gateway, "RestartBudgetExhausted", BOUND).await;
        for kind in [ConditionType::Registered, ConditionType::Ready] {
            let message = told(&fleet.world, agent, kind, "RestartBudgetExhausted").await;
            assert!(message.contains(".name"), "{message}");
        }
        let soul = || fleet.sim().file(&id, "SOUL.md").unwrap_or_default();
        until("its files have the new name", BOUND, || {
            soul().contains("Ada").then_some(())
        })
        .await;
        sleep(Duration::from_secs(5)).await;
        rest(&fleet.world, &replica).await;

        // One that is taken out of the roster meanwhile.
        let other = fleet.agents[0];
        take_out(&fleet, other);
        for kind in [ConditionType::Registered, ConditionType::Ready] {
            told(&fleet.world, other, kind, "RestartBudgetExhausted").await;
        }
        told(&fleet.world, other, ConditionType::FilesSynced, "NotObserved").await;
        sleep(Duration::from_secs(5)).await;
        rest(&fleet.world, &replica).await;
        converge(&fleet.world, HOUR + BOUND).await;
        replica.stop().await;
    });
}

#[test]
fn an_agent_whose_workspace_somebody_else_insists_on_says_so() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        let (agent, id) = (fleet.agents[1], fleet.name(fleet.agents[1]));
        for _ in 0..2 {
            edit_entry(fleet.sim(), &id, |entry| entry["workspace"] = json!("/elsewhere"));
            converge(&fleet.world, FOUND).await;
        }
        edit_entry(fleet.sim(), &id, |entry| entry["workspace"] = json!("/elsewhere"));
        held(&fleet.world, fleet.gateway, "FightingWriter", FOUND).await;
        let message = told(&fleet.world, agent, ConditionType::Registered, "FightingWriter").await;
        assert!(message.contains(".workspace"), "{message}");
        let begin = Instant::now();
        let result = fleet.sync(&SyncOptions::default()).await;
        assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
        assert_eq!((result.agents_updated, result.agents_skipped), (2, 1), "{result:?}");
        let said = fleet.said(&result);
        assert!(
            said.iter().any(|(of, message)| *of == Some(1)
                && message.contains("FightingWriter")
                && message.contains(".workspace")),
            "{said:?}"
        );
        replica.stop().await;
    });
}

#[test]
fn a_sync_of_a_gateway_with_changes_that_are_held_ends_and_names_them() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = spent(&mut fleet).await;
        let (agent, other) = (fleet.agents[1], fleet.agents[0]);
        fleet.world.store.edit_agent(agent, |row| row.name = "Ada".into());
        take_out(&fleet, other);
        held(&fleet.world, fleet.gateway, "RestartBudgetExhausted", FOUND).await;
        let begin = Instant::now();
        let result = fleet.sync(&SyncOptions::default()).await;
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
        assert_eq!((result.agents_updated, result.agents_skipped), (1, 2), "{result:?}");
        let said = fleet.said(&result);
        for (of, field) in [(Some(1), ".name"), (Some(0), "agents.entries."), (None, ".name")] {
            assert!(
                said.iter().any(|(agent, message)| {
                    *agent == of && message.contains("RestartBudgetExhausted") && message.contains(field)
                }),
                "{of:?} {field}: {said:?}"
            );
        }
        replica.stop().await;
    });
}
