//! Gateways that are not written to: too old for the operator, or of a kind that is not known.

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::SimDialect;
use openclaw_controller::store::Store;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, World};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};

/// Waits until the gateway is not compatible for this reason; returns what is told.
async fn refused(world: &World, reason: &str) -> String {
    let begin = Instant::now();
    loop {
        let snapshot = world.store.load_gateway(world.places[0].id).await.unwrap().unwrap();
        let told = snapshot.record.conditions.get(ConditionType::Compatible).cloned();
        if let Some(told) = &told
            && (told.status, told.reason.as_str()) == (ConditionStatus::False, reason)
        {
            return told.message.clone();
        }
        assert!(begin.elapsed() < RESYNC + BOUND, "{told:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_gateway_that_is_too_old_is_told_and_not_written_to_until_it_is_upgraded() {
    simulate(async {
        let mut world = World::new(TemplateSet::builtin());
        world.min_version = "2026.7.1".parse().ok();
        let gateway = world.add_gateway(SimDialect::V2026_4_29);
        let board = world.add_board(Some(gateway));
        world.add_agent(gateway, Some(board), false);
        let replica = world.start(1);
        let told = refused(&world, "VersionTooOld").await;
        assert!(told.contains("2026.4.29") && told.contains("2026.7.1"), "{told}");
        assert_eq!(world.diff(0).await.error, Some(told), "a dry run shows no plan either");
        sleep(RESYNC * 2).await;
        assert_eq!(world.gateway_writes(), 0);
        world.places[0].gateway.restart();

        let mut newer = World::new(TemplateSet::builtin());
        newer.add_gateway(SimDialect::V2026_7_1);
        let newer = newer.places.remove(0);
        world.replace_gateway(0, newer.gateway, newer.baseline);
        converge(&world, BOUND * 2).await;
        sleep(Duration::from_secs(20)).await;
        rest(&world, &replica).await;
        replica.stop().await;
    });
}

#[test]
fn a_config_with_two_rosters_is_not_written_to() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let before = world.gateway_writes();
            let other = if dialect.has_entries() { "list" } else { "entries" };
            let second = if other == "list" {
                json!([{ "id": "x" }])
            } else {
                json!({ "x": {} })
            };
            world.places[0]
                .gateway
                .edit_config(|config| config["agents"][other] = second);
            let told = refused(&world, "UnknownRosterShape").await;
            assert!(
                told.contains("agents.list") && told.contains("agents.entries"),
                "{told}"
            );
            let id = world.store.agent_ids()[0];
            world.store.edit_agent(id, |row| row.name = "Ada".into());
            assert_eq!(world.diff(0).await.error, Some(told), "a dry run shows no plan either");
            sleep(RESYNC * 2).await;
            assert_eq!(world.gateway_writes(), before, "{dialect:?}");

            world.places[0].gateway.edit_config(|config| {
                config["agents"].as_object_mut().unwrap().remove(other);
            });
            converge(&world, RESYNC + BOUND).await;
            replica.stop().await;
        });
    }
}
