//! Removals and creations in whose course something changes, or is undone, or is refused.

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::{Store, WriteFault};
use tokio::time::sleep;

use crate::fleet::{World, entry, put_on};
use crate::removal::{deleted, is_there, name, request, world};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::until;

fn removals(world: &World) -> usize {
    let log = world.gateway_write_log();
    let done = |write: &&String| write.starts_with("agents.delete") && !write.ends_with("ok=false");
    log.iter().filter(done).count()
}

fn refusal() -> Fault {
    Fault::Error {
        code: "INVALID_REQUEST".into(),
        message: "no".into(),
        retry_after_ms: None,
    }
}

/// What the gateway's condition `ConfigSynced` says.
fn config_synced(world: &World) -> String {
    let record = world.store.gateway_record(world.places[0].id).unwrap();
    let condition = record.conditions.get(ConditionType::ConfigSynced);
    condition.map_or(String::new(), |told| told.reason.clone())
}

/// A board moves to another gateway and back while its gateway is patched. Rows are loaded in the order of the gateways' ids; the
/// patch begins with the agent's row there, or elsewhere.
fn moves_there_and_back(home_is_first: bool) {
    for pause in [Duration::from_secs(2), Duration::ZERO] {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            world.prune = true;
            let [first, second] = [SimDialect::V2026_9_6; 2].map(|dialect| world.add_gateway(dialect));
            assert!(first < second);
            let (place, here, other) = if home_is_first {
                (0, first, second)
            } else {
                (1, second, first)
            };
            let board = world.add_board(Some(here));
            world.add_agent(here, Some(board), true);
            let worker = world.add_agent(here, Some(board), false);
            let main = world.add_agent(here, None, false);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let id = world.store.agent(worker).unwrap().gateway_agent_id(here);
            let gateway = world.places[place].gateway.clone();
            gateway.edit_file(id.as_str(), "MEMORY.md", "What it remembers.\n");
            gateway.faults().latency("config.patch", Duration::from_secs(30));
            world.store.edit_agent(main, |row| row.name = "Renamed".into());
            sleep(pause).await;
            world.store.edit_board(board, |row| row.gateway_id = Some(other));
            until("it is a leftover", Duration::from_secs(10), || {
                let record = world.store.agent_record(worker)?;
                record.placement.filter(|(placed, _)| *placed == other).map(drop)
            })
            .await;
            world.store.edit_board(board, |row| row.gateway_id = Some(here));
            sleep(BOUND).await;
            gateway.faults().clear();
            converge(&world, BOUND * 2).await;
            assert_eq!(
                gateway.file(id.as_str(), "MEMORY.md").as_deref(),
                Some("What it remembers.\n")
            );
            replica.stop().await;
        });
    }
}

#[test]
fn an_agent_that_a_row_explains_again_while_its_gateway_is_patched_keeps_its_workspace_if_its_home_is_loaded_first() {
    moves_there_and_back(true);
}

#[test]
fn an_agent_that_a_row_explains_again_while_its_gateway_is_patched_keeps_its_workspace_if_its_home_is_loaded_last() {
    moves_there_and_back(false);
}

#[test]
fn a_removal_that_is_taken_back_while_another_is_under_way_does_not_happen() {
    simulate(async {
        let (mut world, [lead, worker, _]) = world(SimDialect::V2026_9_6);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let gateway = world.places[0].gateway.clone();
        gateway.faults().latency("agents.delete", Duration::from_secs(20));
        for agent in [lead, worker] {
            request(&world, agent);
        }
        sleep(Duration::from_secs(10)).await;
        for agent in [lead, worker] {
            world.store.edit_agent(agent, |row| row.delete_requested_at = None);
        }
        sleep(BOUND).await;
        gateway.faults().clear();
        converge(&world, BOUND * 2).await;
        assert_eq!(removals(&world), 1, "the one that the gateway was asked for already");
        replica.stop().await;
    });
}

#[test]
fn a_removal_that_somebody_undoes_is_asked_for_again_with_backoff() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_7_1);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let (id, gateway) = (name(&world, worker), world.places[0].gateway.clone());
        gateway.faults().latency("config.get", Duration::from_millis(200));
        let undo = tokio::spawn({
            let (gateway, id) = (gateway.clone(), id.clone());
            async move {
                loop {
                    sleep(Duration::from_millis(20)).await;
                    if entry(&gateway.config(), id.as_str()).is_none() {
                        put_on(&gateway, &id, "Back");
                    }
                }
            }
        });
        request(&world, worker);
        sleep(BOUND * 5).await;
        assert!((2..25).contains(&removals(&world)), "{}", removals(&world));
        assert_eq!(config_synced(&world), "NotKept");
        undo.abort();
        deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND).await;
        converge(&world, BOUND).await;
        replica.stop().await;
    });
}

#[test]
fn an_agent_that_the_gateway_refuses_to_make_holds_up_nobody_else() {
    simulate(async {
        let (mut world, [lead, worker, main]) = world(SimDialect::V2026_9_6);
        let board = world.store.agent(worker).unwrap().board_id;
        let second = world.add_agent(world.places[0].id, board, false);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let gateway = world.places[0].gateway.clone();
        for agent in [worker, second] {
            request(&world, agent);
            deleted(&world, agent, ConditionStatus::True, "Deleted", BOUND).await;
        }
        // Whichever comes first is refused, the other is not.
        gateway.faults().inject("agents.create", 1, refusal());
        gateway.faults().latency("config.get", Duration::from_secs(2));
        for agent in [worker, second] {
            world.store.edit_agent(agent, |row| row.delete_requested_at = None);
        }
        until("the other is made", BOUND, || {
            [worker, second]
                .into_iter()
                .any(|agent| is_there(&world, &name(&world, agent)))
                .then_some(())
        })
        .await;
        converge(&world, BOUND).await;
        request(&world, worker);
        deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND).await;
        gateway.faults().always("agents.create", refusal());
        world.store.edit_agent(worker, |row| row.delete_requested_at = None);
        until("it is told", BOUND, || {
            (config_synced(&world) == "Invalid").then_some(())
        })
        .await;
        world.store.edit_agent(main, |row| row.name = "Renamed".into());
        request(&world, lead);
        let main = name(&world, main);
        until("the name arrives", BOUND, || {
            let config = gateway.config();
            (entry(&config, main.as_str())?["name"] == "Renamed").then_some(())
        })
        .await;
        deleted(&world, lead, ConditionStatus::True, "Deleted", BOUND).await;
        assert!(!is_there(&world, &name(&world, worker)));
        gateway.faults().clear();
        converge(&world, BOUND * 2).await;
        rest(&world, &replica).await;
        replica.stop().await;
    });
}

#[test]
fn an_agent_whose_row_is_gone_is_told_of_although_the_count_of_changes_failed() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
        let board = world.store.agent(worker).unwrap().board_id.unwrap();
        let found = world.add_existing_worker(0, board);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let id = name(&world, found);
        for fault in [WriteFault::Before, WriteFault::Before] {
            world.store.fail_write(1, fault);
        }
        world.store.delete_agent(found);
        world.store.edit_agent(worker, |row| row.name = "Renamed".into());
        converge(&world, BOUND).await;
        let events = world.store.list_events(100).await.unwrap();
        let told = events
            .iter()
            .filter(|event| event.event.reason == "RowDeleted" && event.event.message.contains(id.as_str()));
        assert_eq!(told.count(), 1, "{events:?}");
        replica.stop().await;
    });
}

#[test]
fn an_agent_that_moves_and_is_to_go_goes_from_where_it_was_before_it_is_said_to_be_gone() {
    for found in [false, true] {
        simulate(async {
            let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
            let board = world.store.agent(worker).unwrap().board_id.unwrap();
            let agent = if found {
                world.add_existing_worker(0, board)
            } else {
                worker
            };
            let other = world.add_gateway(SimDialect::V2026_9_6);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let (here, id, gateway) = (world.places[0].id, name(&world, agent), world.places[0].gateway.clone());
            let url = world.store.load_gateway(here).await.unwrap().unwrap().gateway.url;
            world
                .store
                .edit_gateway(here, |row| row.url = "ws://nowhere.test:1".into());
            request(&world, agent);
            world.store.edit_board(board, |row| row.gateway_id = Some(other));
            sleep(BOUND).await;
            deleted(&world, agent, ConditionStatus::False, "Deleting", BOUND).await;
            assert!(is_there(&world, &id));
            gateway.faults().inject("agents.delete", 1, refusal());
            world.store.edit_gateway(here, |row| row.url = url);
            deleted(&world, agent, ConditionStatus::False, "DeleteRejected", BOUND).await;
            // Another config is a reason to ask again.
            gateway.edit_config(|config| config["logging"]["level"] = "info".into());
            deleted(&world, agent, ConditionStatus::True, "Deleted", BOUND * 2).await;
            assert!(!is_there(&world, &id));
            assert_eq!(removals(&world), 1);
            replica.stop().await;
        });
    }
}
