//! What a converged fleet costs: nothing; and what a large one costs: one patch.

use std::time::Duration;

use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::WriteFault;
use openclaw_controller::token::{self, HashFormat};
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, Replica, World};
use crate::promise;
use crate::runner::simulate;

/// How long a fleet without faults may take to converge: 100 agents in one patch, and the restart of an old gateway.
pub(crate) const BOUND: Duration = Duration::from_mins(1);

pub(crate) async fn converge(world: &World, within: Duration) {
    let begin = Instant::now();
    loop {
        let problems = promise::broken(world).await;
        if problems.is_empty() {
            return;
        }
        assert!(
            begin.elapsed() <= within,
            "not within {within:?}:\n{}",
            problems.join("\n")
        );
        sleep(Duration::from_secs(1)).await;
    }
}

/// Lets three resyncs pass and asserts that everything was looked at and nothing was written.
pub(crate) async fn rest(world: &World, replica: &Replica) {
    let looks = || replica.metric("controller_runtime_reconcile_total");
    let before = (world.gateway_write_log(), world.store.write_log(), looks());
    sleep(RESYNC.mul_f64(3.3)).await;
    let objects = world.places.len() + world.store.agent_ids().len();
    assert!(
        looks() - before.2 >= (3 * objects) as f64,
        "three resyncs look at everything"
    );
    assert_eq!(world.gateway_write_log()[before.0.len()..], [] as [String; 0]);
    assert_eq!(world.store.write_log()[before.1.len()..], [] as [&str; 0]);
}

#[test]
fn a_converged_fleet_costs_no_write_through_resyncs_restarts_and_a_change_of_leader() {
    simulate(async {
        let mut world = World::new(TemplateSet::builtin());
        for (place, dialect) in SimDialect::ALL.into_iter().enumerate() {
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            world.add_agent(gateway, Some(board), true);
            world.add_agent(gateway, Some(board), false);
            world.add_agent(gateway, None, false);
            world.add_existing_worker(place, board);
        }
        let first = world.start(1);
        converge(&world, BOUND).await;
        sleep(Duration::from_secs(20)).await;
        rest(&world, &first).await;
        let before = (world.gateway_write_log(), world.store.write_log());
        first.stop().await;
        let second = world.start(2);
        let third = world.start(3);
        rest(&world, &second).await;
        second.crash().await;
        sleep(Duration::from_secs(20)).await;
        rest(&world, &third).await;
        for place in &world.places {
            place.gateway.restart();
        }
        sleep(Duration::from_secs(20)).await;
        assert_eq!(
            world.gateway_write_log(),
            before.0,
            "neither restarts nor takeovers write on gateways"
        );
        // A gateway that goes away and comes back is worth a word in its status.
        let quiet = world.store.write_log()[before.1.len()..]
            .iter()
            .all(|name| matches!(*name, "write_gateway_status" | "record_events"));
        assert!(quiet, "{:?}", &world.store.write_log()[before.1.len()..]);
        rest(&world, &third).await;
        third.stop().await;
    });
}

#[test]
fn a_hundred_new_agents_cost_one_config_patch() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            world.add_agent(gateway, None, false);
            world.add_agent(gateway, Some(board), true);
            for _ in 0..98 {
                world.add_agent(gateway, Some(board), false);
            }
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let patches = || {
                let log = world.gateway_write_log();
                log.iter().filter(|write| write.starts_with("config.patch")).count()
            };
            assert_eq!(patches(), 1, "{dialect:?}");
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            assert_eq!(patches(), 1, "{dialect:?}");
            replica.stop().await;
        });
    }
}

#[test]
fn with_every_hint_lost_changes_are_found_within_one_resync() {
    simulate(async {
        let mut world = World::new(TemplateSet::builtin());
        let gateway = world.add_gateway(SimDialect::V2026_9_6);
        let board = world.add_board(Some(gateway));
        let agent = world.add_agent(gateway, Some(board), false);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        world.store.lose_hints(true);
        for round in 0..3 {
            world
                .store
                .edit_agent(agent, |row| row.name = format!("Renamed {round}"));
            world.add_agent(gateway, Some(board), false);
            assert!(!promise::broken(&world).await.is_empty());
            // The interval, its jitter of a tenth, and what the work takes.
            converge(&world, RESYNC.mul_f64(1.1) + Duration::from_secs(15)).await;
        }
        replica.stop().await;
    });
}

#[test]
fn a_status_whose_write_was_not_answered_is_written_again() {
    simulate(async {
        let mut world = World::new(TemplateSet::builtin());
        let id = world.add_gateway(SimDialect::V2026_9_6);
        let board = world.add_board(Some(id));
        world.add_agent(id, Some(board), false);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let gateway = world.places[0].gateway.clone();
        // Longer than a restart could be the consequence of a write of ours.
        sleep(Duration::from_secs(30)).await;
        // The gateway's status: it goes away, and the answer to the write that says so is lost.
        world.store.fail_write(1, WriteFault::After);
        gateway.restart();
        converge_after(&world, "write_gateway_status").await;
        // The agent's: a look at it fails once, and likewise.
        let error = Fault::Error {
            code: "INVALID_REQUEST".into(),
            message: "no".into(),
            retry_after_ms: None,
        };
        world.store.fail_write(1, WriteFault::After);
        gateway.faults().inject("agents.files.list", 1, error);
        converge_after(&world, "write_agent_status").await;
        replica.stop().await;
    });
}

#[test]
fn a_hash_that_somebody_else_replaced_gets_its_token_into_the_file_although_no_file_has_changed() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let id = world.add_gateway(dialect);
            let board = world.add_board(Some(id));
            let agents = [
                world.add_existing_worker(0, board),
                world.add_agent(id, Some(board), false),
            ];
            let replica = world.start(1);
            converge(&world, BOUND).await;
            for hash in [None, token::hash(&token::mint(), HashFormat::Pbkdf2OneRound).ok()] {
                for agent in agents {
                    world.store.edit_agent(agent, |row| row.token_hash.clone_from(&hash));
                }
                // A mismatch is repaired once hash and file have stood still for 60 s.
                converge(&world, token::STABLE_FOR + BOUND).await;
                sleep(Duration::from_secs(5)).await;
                rest(&world, &replica).await;
            }
            replica.stop().await;
        });
    }
}

/// Waits until the next write, which must be this one, was made, and then until the promise holds again.
async fn converge_after(world: &World, name: &str) {
    let before = world.store.writes();
    let begin = Instant::now();
    while world.store.writes() == before {
        assert!(begin.elapsed() < RESYNC.mul_f64(1.2), "no {name}");
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.store.write_log()[before], name);
    converge(world, BOUND).await;
}

#[test]
fn an_agent_that_waits_is_as_old_under_the_next_tenure_and_its_wait_ends_when_it_matches() {
    simulate(async {
        let mut world = World::new(TemplateSet::builtin());
        let gateway = world.add_gateway(SimDialect::V2026_9_6);
        let board = world.add_board(Some(gateway));
        let agent = world.add_agent(gateway, Some(board), false);
        world.add_agent(gateway, Some(board), false);
        world
            .store
            .edit_agent(agent, |row| row.soul_template = Some("{{ nobody }}".into()));
        let age = |replica: &Replica| replica.metric("openclaw_controller_oldest_unconverged_age_seconds");
        let first = world.start(1);
        sleep(Duration::from_mins(20)).await;
        assert!((1195.0..1201.0).contains(&age(&first)), "{}", age(&first));
        first.stop().await;
        let second = world.start(2);
        sleep(Duration::from_mins(1)).await;
        assert!((1250.0..1270.0).contains(&age(&second)), "{}", age(&second));
        world.store.edit_agent(agent, |row| row.soul_template = None);
        sleep(Duration::from_mins(1)).await;
        assert!(age(&second) < 0.001, "{}", age(&second));
        second.stop().await;
    });
}
