//! What the original got wrong: each of its known failures, and what becomes of it here. (That a token in a Markdown bullet
//! is found is shown beside the code that reads tokens, and on real gateways by the agent that is adopted there.)

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, JournalEntry, SimDialect};
use tokio::time::sleep;

use ConditionStatus::False;

use crate::fleet::{RESYNC, World, put_on};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::{all_check_in, condition, keys, settled, until, world};

fn refused(code: &str, message: &str) -> Fault {
    Fault::Error {
        code: code.to_owned(),
        message: message.to_owned(),
        retry_after_ms: None,
    }
}

#[test]
fn an_agent_whose_calls_failed_is_not_left_in_provisioning_or_updating() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = world(dialect);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            all_check_in(&world);
            let faults = world.places[0].gateway.faults();
            let replica = world.start(1);
            for phase in ["provisioning", "updating"] {
                faults.always("agents.files.set", refused("UNAVAILABLE", "disk full"));
                world.store.edit_agent(agent, |row| {
                    phase.clone_into(&mut row.status);
                    row.soul_template = Some(format!("A soul while {phase}."));
                });
                until("the failure is told", BOUND, || {
                    let row = world.store.agent(agent)?;
                    let told = row
                        .last_provision_error
                        .is_some_and(|error| error.contains("disk full"));
                    let synced = condition(&world, agent, ConditionType::FilesSynced)?;
                    (told && synced.status == False && row.status == phase).then_some(())
                })
                .await;
                // Longer than the original tries for.
                sleep(Duration::from_mins(11)).await;
                faults.clear();
                converge(&world, BOUND).await;
                until("the row says that it is over", BOUND, || {
                    let row = world.store.agent(agent)?;
                    (row.status == "online" && row.last_provision_error.is_none()).then_some(())
                })
                .await;
            }
            settled(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn an_agent_that_another_program_left_in_provisioning_is_completed_and_woken_once() {
    simulate(async {
        let mut world = world(SimDialect::V2026_7_1);
        world.second_writer = true;
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let agent = world.add_agent(gateway, Some(board), false);
        let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway);
        // It got as far as the roster.
        put_on(&world.places[0].gateway, &id, "Half-done");
        all_check_in(&world);
        let replica = world.start(1);
        until("it is online", BOUND, || {
            (world.store.agent(agent)?.status == "online").then_some(())
        })
        .await;
        settled(&world, &replica).await;
        assert_eq!(keys(&world, agent), [format!("{agent}-1")]);
        replica.stop().await;
    });
}

#[test]
fn a_new_hash_is_not_the_agents_before_its_file_was_written() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = world(dialect);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            all_check_in(&world);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let hash = || world.store.agent(agent).and_then(|row| row.token_hash);
            let before = hash();
            assert!(before.is_some());
            let faults = world.places[0].gateway.faults();
            faults.always("agents.files.set", refused("UNAVAILABLE", "disk full"));
            let now = world.store.now();
            world.store.edit_agent(agent, |row| row.requests.rotate = Some(now));
            until("the rotation fails", BOUND, || {
                (replica.metric("openclaw_controller_token_rotations_total") > 2.5).then_some(())
            })
            .await;
            assert_eq!(hash(), before, "the agent can authenticate as before");
            faults.clear();
            until("the rotation is done", BOUND, || (hash() != before).then_some(())).await;
            settled(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn an_agent_that_somebody_else_adds_at_the_same_time_is_no_failure() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            let agents = [
                world.add_agent(gateway, Some(board), false),
                world.add_agent(gateway, Some(board), false),
            ];
            let id = world.store.agent(agents[0]).unwrap().gateway_agent_id(gateway);
            let sim = world.places[0].gateway.clone();
            // Between our reading of the config and our patch.
            sim.faults()
                .inject("config.patch", 1, Fault::Delay(Duration::from_secs(2)));
            let replica = world.start(1);
            until("the patch is under way", BOUND, || {
                sim.journal()
                    .iter()
                    .any(|entry| entry.method == "config.get")
                    .then_some(())
            })
            .await;
            sleep(Duration::from_secs(1)).await;
            put_on(&sim, &id, "Added by somebody else");
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            let refused = |entry: &JournalEntry| entry.method == "config.patch" && !entry.ok;
            assert!(sim.journal().iter().any(refused), "the patch came too late");
            for agent in agents {
                assert_eq!(world.store.agent(agent).unwrap().last_provision_error, None);
            }
            replica.stop().await;
        });
    }
}

#[test]
fn an_agent_that_its_gateway_does_not_know_right_after_it_was_added_is_no_failure() {
    for dialect in SimDialect::ALL {
        for method in ["agents.files.list", "agents.files.get", "agents.files.set"] {
            simulate(async {
                let mut world = world(dialect);
                let gateway = world.places[0].id;
                let board = world.add_board(Some(gateway));
                let agent = world.add_agent(gateway, Some(board), false);
                all_check_in(&world);
                let faults = world.places[0].gateway.faults();
                // On 2026.2.26 for 0.75 s.
                for nth in 1..=2 {
                    faults.inject(method, nth, refused("INVALID_REQUEST", "unknown agent id"));
                }
                let replica = world.start(1);
                converge(&world, BOUND).await;
                until("it has checked in", BOUND, || {
                    condition(&world, agent, ConditionType::CheckedIn).filter(|found| found.reason == "CheckedIn")
                })
                .await;
                settled(&world, &replica).await;
                assert_eq!(keys(&world, agent).len(), 1);
                replica.stop().await;
            });
        }
    }
}

#[test]
fn no_write_that_changes_nothing_restarts_a_gateway() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            let before = (world.places[0].gateway.restarts(), world.gateway_write_log().len());
            assert!(before.0 <= 1, "{before:?}");
            // Touched in every way that leaves it what it is.
            for status in ["updating", "online"] {
                world.store.edit_agent(agent, |row| status.clone_into(&mut row.status));
                sleep(RESYNC).await;
            }
            replica.stop().await;
            let replica = world.start(2);
            rest(&world, &replica).await;
            let after = (world.places[0].gateway.restarts(), world.gateway_write_log().len());
            assert_eq!(after, before, "{dialect:?}");
            replica.stop().await;
        });
    }
}
