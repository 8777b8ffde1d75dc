//! How often gateways are restarted: as often as the operator allows, whatever crashes, and not for what needs no restart.

use std::time::Duration;

use openclaw_controller::model::{Condition, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::Store;
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, Replica, World, entry};
use crate::promise;
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};

/// How long until drift that nobody announces is found and put right, a restart included.
const FOUND: Duration = Duration::from_secs(132 + 60);

const HOUR: Duration = Duration::from_hours(1);

/// The gateways that restart when `channels` changes.
const RESTARTING: [SimDialect; 2] = [SimDialect::V2026_4_29, SimDialect::V2026_7_1];

fn world(dialect: SimDialect, restarts: u32) -> (World, GatewayId) {
    let mut world = World::new(TemplateSet::builtin());
    world.restarts = restarts;
    let gateway = world.add_gateway(dialect);
    let board = world.add_board(Some(gateway));
    world.add_agent(gateway, Some(board), false);
    (world, gateway)
}

async fn synced(world: &World, gateway: GatewayId) -> Option<Condition> {
    let snapshot = world.store.load_gateway(gateway).await.unwrap().unwrap();
    snapshot.record.conditions.get(ConditionType::ConfigSynced).cloned()
}

/// Waits until the gateway's config is not synced for this reason; returns what is told.
pub(crate) async fn held(world: &World, gateway: GatewayId, reason: &str, within: Duration) -> String {
    let begin = Instant::now();
    loop {
        let told = synced(world, gateway).await;
        if let Some(told) = &told
            && (told.status, told.reason.as_str()) == (ConditionStatus::False, reason)
        {
            return told.message.clone();
        }
        assert!(begin.elapsed() < within, "{told:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

pub(crate) fn restarts(replica: &Replica) -> usize {
    let caused = replica.metric("openclaw_controller_gateway_restarts_caused_total");
    format!("{caused:.0}").parse().unwrap()
}

/// Somebody takes away one key of the channels' visibility, and waits until the gateway is back.
async fn take_away(world: &World, key: &str) {
    // Longer after our own last write than a restart could still be its consequence.
    sleep(Duration::from_secs(30)).await;
    world.places[0].gateway.edit_config(|config| {
        let heartbeat = &mut config["channels"]["defaults"]["heartbeat"];
        assert!(heartbeat.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    });
    sleep(Duration::from_secs(15)).await;
}

fn has(world: &World, key: &str) -> bool {
    let config = world.places[0].gateway.config();
    !config["channels"]["defaults"]["heartbeat"][key].is_null()
}

#[test]
fn what_would_restart_a_gateway_once_too_often_waits_and_everything_else_goes_on() {
    for dialect in RESTARTING {
        simulate(async {
            let (mut world, gateway) = world(dialect, 4);
            let agent = world.store.agent_ids()[0];
            let replica = world.start(1);
            let begin = Instant::now();
            converge(&world, BOUND).await;
            assert_eq!(restarts(&replica), 1, "{dialect:?}: a cold start is one restart");
            for (nth, key) in ["showOk", "showAlerts", "useIndicator"].into_iter().enumerate() {
                take_away(&world, key).await;
                converge(&world, FOUND).await;
                assert_eq!(restarts(&replica), nth + 2, "{dialect:?}");
            }
            take_away(&world, "showOk").await;
            let told = held(&world, gateway, "RestartBudgetExhausted", FOUND).await;
            for part in [
                "channels.defaults.heartbeat.showOk",
                "4 times",
                "--max-restarts-per-hour",
            ] {
                assert!(told.contains(part), "{part}: {told}");
            }

            // What needs no restart does not wait.
            world.store.edit_agent(agent, |row| row.name = "Ada".into());
            let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway);
            let edited = Instant::now();
            loop {
                let config = world.places[0].gateway.config();
                let name = entry(&config, id.as_str()).map(|entry| entry["name"].clone());
                let soul = world.places[0].gateway.file(id.as_str(), "SOUL.md").unwrap_or_default();
                if name.as_ref().and_then(|name| name.as_str()) == Some("Ada") && soul.contains("Ada") {
                    break;
                }
                assert!(edited.elapsed() < BOUND, "{dialect:?}: {name:?}");
                sleep(Duration::from_secs(1)).await;
            }
            assert!(!has(&world, "showOk"));
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            assert_eq!(restarts(&replica), 4, "{dialect:?}");

            // As soon as the first one is an hour old.
            let left = HOUR.saturating_sub(begin.elapsed());
            assert!(!left.is_zero());
            converge(&world, left + BOUND).await;
            assert_eq!(restarts(&replica), 5, "{dialect:?}");
            assert!(has(&world, "showOk"));
            replica.stop().await;
        });
    }
}

#[test]
fn a_gateway_that_may_never_be_restarted_gets_all_that_needs_no_restart() {
    for dialect in RESTARTING {
        simulate(async {
            let (mut world, gateway) = world(dialect, 0);
            let agent = world.store.agent_ids()[0];
            let replica = world.start(1);
            let told = held(&world, gateway, "RestartBudgetExhausted", BOUND).await;
            for part in ["channels.defaults.heartbeat.showAlerts", "--max-restarts-per-hour=0"] {
                assert!(told.contains(part), "{part}: {told}");
            }
            let begin = Instant::now();
            while !world
                .store
                .agent_record(agent)
                .unwrap()
                .conditions
                .is_true(ConditionType::Ready)
            {
                assert!(
                    begin.elapsed() < BOUND,
                    "{dialect:?}: the agent is complete all the same"
                );
                sleep(Duration::from_secs(1)).await;
            }
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            assert_eq!((restarts(&replica), world.places[0].gateway.restarts()), (0, 0));
            replica.stop().await;
        });
    }
}

#[test]
fn no_crash_makes_it_one_restart_too_many() {
    for dialect in RESTARTING {
        // The word that a restart is about to come is the last thing before the patch, and the patch the next thing after it.
        for (nth, before) in [(1, true), (1, false)] {
            simulate(async {
                let (mut world, gateway) = world(dialect, 1);
                let first = world.start(1);
                let frozen = async {
                    while !world.store.write_log().contains(&"record_restart") {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                frozen.await;
                let frozen = if before {
                    world.places[0].gateway.freeze_before(nth)
                } else {
                    world.places[0].gateway.freeze_after(nth)
                };
                frozen.await.unwrap();
                first.crash().await;
                world.places[0].gateway.thaw();
                let begin = Instant::now();
                let second = world.start(2);
                if before {
                    let told = held(&world, gateway, "RestartBudgetExhausted", BOUND * 2).await;
                    assert!(told.contains("1 times"), "{told}");
                    assert_eq!(world.places[0].gateway.restarts(), 0, "{dialect:?}: nothing was sent");
                    second.crash().await;
                    let third = world.start(3);
                    sleep(RESYNC * 2).await;
                    assert_eq!(world.places[0].gateway.restarts(), 0, "{dialect:?}");
                    converge(&world, HOUR + BOUND).await;
                    assert!(begin.elapsed() + BOUND > HOUR);
                    third.stop().await;
                } else {
                    converge(&world, BOUND * 2).await;
                    second.stop().await;
                }
                assert!(world.places[0].gateway.restarts() <= 1, "{dialect:?}");
            });
        }
    }
}

#[test]
fn a_restart_that_nobody_foresaw_is_counted_told_once_and_foreseen_the_next_time() {
    simulate(async {
        let (mut world, gateway) = world(SimDialect::V2026_9_6, 1);
        let agent = world.store.agent_ids()[0];
        world.places[0]
            .gateway
            .faults()
            .inject("config.patch", 1, Fault::Restart);
        let replica = world.start(1);
        converge(&world, BOUND * 2).await;
        assert_eq!(restarts(&replica), 1);
        let mismatches = replica.metric("openclaw_controller_restart_prediction_mismatches_total");
        assert!((mismatches - 1.0).abs() < 0.1, "{mismatches}");
        let events = world.store.list_events(100).await.unwrap();
        let told = events
            .iter()
            .filter(|event| event.event.reason == "RestartPredictionMismatch");
        assert_eq!(told.map(|event| event.count).sum::<i64>(), 1);

        // The budget is spent, and a change of the roster is expected to need it.
        world.store.edit_agent(agent, |row| row.name = "Ada".into());
        let told = held(&world, gateway, "RestartBudgetExhausted", BOUND).await;
        assert!(told.contains(".name"), "{told}");
        converge(&world, HOUR + BOUND).await;
        assert_eq!(restarts(&replica), 1, "it was applied while the gateway runs");
        replica.stop().await;
    });
}

#[test]
fn a_restart_is_put_down_to_the_write_before_it_by_when_it_began_and_not_by_when_it_was_noticed() {
    for (pause, caused) in [(19_400, 1), (21_000, 0)] {
        simulate(async {
            let (mut world, _) = world(SimDialect::V2026_9_6, 4);
            let agent = world.store.agent_ids()[0];
            let replica = world.start(1);
            converge(&world, BOUND).await;
            sleep(Duration::from_mins(1)).await;
            let patches = || {
                let log = world.gateway_write_log();
                log.iter().filter(|write| write.starts_with("config.patch")).count()
            };
            let before = patches();
            world.store.edit_agent(agent, |row| row.name = "Ada".into());
            while patches() == before {
                sleep(Duration::from_millis(10)).await;
            }
            sleep(Duration::from_millis(pause)).await;
            world.places[0].gateway.restart();
            sleep(Duration::from_secs(30)).await;
            assert_eq!(restarts(&replica), caused, "{pause} ms after the write");
            replica.stop().await;
        });
    }
}

#[test]
fn a_gateway_that_is_restarted_is_knocked_at_until_it_is_back_and_nothing_is_said_of_a_failure() {
    for dialect in RESTARTING {
        simulate(async {
            let (mut world, _) = world(dialect, 4);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let errors = replica.metric("controller_runtime_reconcile_errors_total");
            assert!(errors < 0.1, "{dialect:?}: {errors} errors");
            assert!(promise::broken(&world).await.is_empty());
            replica.stop().await;
        });
    }
}
