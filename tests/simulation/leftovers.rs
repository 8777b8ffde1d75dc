//! Agents that the controller made and that no row explains any more.

use std::time::Duration;

use openclaw_controller::model::{AgentId, ConditionType, GatewayAgentId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::SimDialect;
use openclaw_controller::store::Store;
use tokio::time::sleep;

use crate::fleet::{Replica, World};
use crate::removal::{is_there, name, world};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::{self, until};

/// What the gateway's condition `Leftovers` says, if it holds.
fn told(world: &World) -> Option<String> {
    let record = world.store.gateway_record(world.places[0].id)?;
    let condition = record.conditions.get(ConditionType::Leftovers)?.clone();
    record
        .conditions
        .is_true(ConditionType::Leftovers)
        .then_some(condition.message)
}

async fn reported(world: &World, id: &GatewayAgentId) {
    until("the leftover is told of", BOUND, || {
        told(world).filter(|text| text.contains(id.as_str())).map(drop)
    })
    .await;
}

async fn has_event(world: &World, reason: &str, id: &GatewayAgentId) {
    let events = world.store.list_events(100).await.unwrap();
    let found = events.iter().filter(|event| event.event.reason == reason);
    let count = found.filter(|event| event.event.message.contains(id.as_str())).count();
    assert_eq!(count, 1, "{reason} of {id} in {events:?}");
}

/// Ends the controller, and starts one that removes what no row explains.
async fn prune(world: &mut World, replica: Replica, id: &GatewayAgentId) -> Replica {
    replica.stop().await;
    world.prune = true;
    let replica = world.start(1);
    until("the leftover is gone", BOUND, || (!is_there(world, id)).then_some(())).await;
    until("and forgotten", BOUND, || told(world).is_none().then_some(())).await;
    converge(world, BOUND).await;
    assert!(world.store.leftovers().await.unwrap().is_empty());
    replica
}

/// With an agent that was there before, whose row goes too: it must never be touched.
fn with_an_adopted_one(dialect: SimDialect) -> (World, [AgentId; 3], AgentId) {
    let (mut world, agents) = world(dialect);
    let board = world.store.agent(agents[1]).unwrap().board_id.unwrap();
    let adopted = world.add_existing_worker(0, board);
    (world, agents, adopted)
}

#[test]
fn an_agent_whose_row_was_deleted_is_told_of_and_removed_only_if_asked_to() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [_, worker, _], adopted) = with_an_adopted_one(dialect);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let (id, found) = (name(&world, worker), name(&world, adopted));
            world.store.delete_agent(worker);
            world.store.delete_agent(adopted);
            reported(&world, &id).await;
            has_event(&world, "RowDeleted", &id).await;
            has_event(&world, "RowDeleted", &found).await;
            assert!(!told(&world).unwrap().contains(found.as_str()), "it is not ours");
            converge(&world, BOUND).await;
            rest(&world, &replica).await;
            assert!(is_there(&world, &id));
            let replica = prune(&mut world, replica, &id).await;
            assert!(is_there(&world, &found), "who was there before stays");
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_row_that_is_deleted_while_nobody_looks_is_found_later() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let id = name(&world, worker);
        replica.crash().await;
        world.store.delete_agent(worker);
        let replica = world.start(1);
        reported(&world, &id).await;
        has_event(&world, "RowDeleted", &id).await;
        let replica = prune(&mut world, replica, &id).await;
        replica.stop().await;
    });
}

#[test]
fn a_board_that_moves_leaves_its_agents_and_takes_them_back_when_it_returns() {
    for prune in [false, true] {
        simulate(async {
            let (mut world, [_, worker, main]) = world(SimDialect::V2026_9_6);
            world.prune = prune;
            let other = world.add_gateway(SimDialect::V2026_7_1);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let (here, id) = (world.places[0].id, name(&world, worker));
            let board = world.store.agent(worker).unwrap().board_id.unwrap();
            world.store.edit_board(board, |row| row.gateway_id = Some(other));
            if prune {
                until("they are gone", BOUND, || (!is_there(&world, &id)).then_some(())).await;
            } else {
                reported(&world, &id).await;
                assert!(told(&world).unwrap().starts_with("2 agents"), "the lead as well");
                has_event(&world, "Moved", &id).await;
            }
            converge(&world, BOUND).await;
            rest(&world, &replica).await;
            let restarts = world.places[0].gateway.restarts();
            world.store.edit_board(board, |row| row.gateway_id = Some(here));
            converge(&world, BOUND).await;
            until("they are nobody's leftovers", BOUND, || {
                told(&world).is_none().then_some(())
            })
            .await;
            assert_eq!(world.places[0].gateway.restarts(), restarts);
            assert!(
                world.store.agent_record(worker).unwrap().created_by_us(),
                "we have made it"
            );
            assert!(is_there(&world, &name(&world, main)));
            converge(&world, BOUND * 4).await;
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_move_to_a_gateway_that_is_away_is_told_where_the_agent_is() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_7_1);
        let other = world.add_gateway(SimDialect::V2026_7_1);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let id = name(&world, worker);
        world
            .store
            .edit_gateway(other, |row| row.url = "ws://nowhere.test:1".into());
        let board = world.store.agent(worker).unwrap().board_id.unwrap();
        world.store.edit_board(board, |row| row.gateway_id = Some(other));
        reported(&world, &id).await;
        replica.stop().await;
    });
}

#[test]
fn a_worker_that_becomes_a_lead_leaves_the_worker_that_it_was() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            let id = name(&world, agent);
            world.store.edit_agent(agent, |row| row.is_board_lead = true);
            reported(&world, &id).await;
            has_event(&world, "IdChanged", &id).await;
            converge(&world, BOUND * 2).await;
            let lead = name(&world, agent);
            let bootstrap = world.places[0].gateway.file(lead.as_str(), "BOOTSTRAP.md");
            assert!(bootstrap.is_some(), "it is provisioned for the first time");
            rest(&world, &replica).await;
            let replica = prune(&mut world, replica, &id).await;
            assert!(is_there(&world, &lead));
            replica.stop().await;
        });
    }
}

#[test]
fn a_row_that_comes_back_has_its_agent_again() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_7_1);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let (id, row) = (name(&world, worker), world.store.agent(worker).unwrap());
        world.store.delete_agent(worker);
        reported(&world, &id).await;
        world.store.upsert_agent(row);
        until("it is nobody's leftover", BOUND, || {
            told(&world).is_none().then_some(())
        })
        .await;
        converge(&world, BOUND * 2).await;
        let creations = world
            .gateway_write_log()
            .iter()
            .filter(|write| write.starts_with("agents."))
            .count();
        let files = world
            .gateway_write_log()
            .iter()
            .filter(|write| write.starts_with("agents.files"))
            .count();
        assert_eq!(creations, files, "it was neither removed nor made again");
        replica.stop().await;
        world.prune = true;
        let replica = world.start(1);
        rest(&world, &replica).await;
        assert!(is_there(&world, &id));
        replica.stop().await;
    });
}

#[test]
fn a_look_that_began_before_an_agent_moved_wakes_nobody_and_is_forgotten() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = wakes::world(dialect);
            world.add_gateway(dialect);
            let (old, new) = (world.places[0].id, world.places[1].id);
            let board = world.add_board(Some(old));
            let agent = world.add_agent(old, Some(board), false);
            wakes::all_check_in(&world);
            let slow = Duration::from_secs(10);
            world.places[0].gateway.faults().latency("agents.files.get", slow);
            let replica = world.start(1);
            let id = name(&world, agent);
            until("it is looked at", BOUND, || is_there(&world, &id).then_some(())).await;
            sleep(slow / 2).await;
            world.store.edit_board(board, |board| board.gateway_id = Some(new));
            // Before a resync would find what is missing.
            converge(&world, 8 * slow).await;
            until("it is woken where it is", slow, || {
                let messages = world.places[1].gateway.messages().len();
                (messages == 1).then_some(())
            })
            .await;
            converge(&world, Duration::ZERO).await;
            assert!(world.places[0].gateway.messages().is_empty(), "it had moved");
            replica.stop().await;
        });
    }
}
