//! Agents whose removal is requested.

use std::time::Duration;

use chrono::NaiveDateTime;
use openclaw_controller::model::{AgentId, AgentRecord, ConditionStatus, ConditionType, GatewayAgentId, session_key};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::Store;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, World};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::{all_check_in, checked_in, condition, messages, until, woken};

/// A lead and a worker of one board, and the gateway's main agent.
pub(crate) fn world(dialect: SimDialect) -> (World, [AgentId; 3]) {
    let mut world = World::new(TemplateSet::builtin());
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    let agents = [
        world.add_agent(id, Some(board), true),
        world.add_agent(id, Some(board), false),
        world.add_agent(id, None, false),
    ];
    (world, agents)
}

pub(crate) fn request(world: &World, agent: AgentId) {
    world
        .store
        .edit_agent(agent, |row| row.delete_requested_at = Some(NaiveDateTime::default()));
}

/// The agent's id on the first gateway.
pub(crate) fn name(world: &World, agent: AgentId) -> GatewayAgentId {
    world.store.agent(agent).unwrap().gateway_agent_id(world.places[0].id)
}

pub(crate) fn is_there(world: &World, id: &GatewayAgentId) -> bool {
    world.places[0]
        .gateway
        .roster()
        .iter()
        .any(|there| there == id.as_str())
}

/// Waits until `Deleted` says so.
pub(crate) async fn deleted(world: &World, agent: AgentId, status: ConditionStatus, reason: &str, within: Duration) {
    until(&format!("Deleted={status} {reason}"), within, || {
        condition(world, agent, ConditionType::Deleted)
            .filter(|found| found.status == status && found.reason == reason)
            .map(drop)
    })
    .await;
}

#[test]
fn an_agent_goes_with_its_session_and_its_row_stays() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [_, worker, _]) = world(dialect);
            world.wake = true;
            all_check_in(&world);
            let replica = world.start(1);
            checked_in(&world, worker, ConditionStatus::True, "CheckedIn", BOUND).await;
            let id = name(&world, worker);
            assert!(world.places[0].gateway.session(&session_key(&id)).is_some());
            request(&world, worker);
            deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND).await;
            converge(&world, BOUND).await;
            let row = world.store.agent(worker).unwrap();
            assert_eq!((row.status.as_str(), row.last_provision_error), ("deleting", None));
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            // The row may go now, and leaves nothing.
            world.store.delete_agent(worker);
            until("the record is gone", BOUND, || {
                world.store.agent_record(worker).is_none().then_some(())
            })
            .await;
            let events = world.store.list_events(100).await.unwrap();
            assert!(
                events.iter().all(|event| event.event.reason != "RowDeleted"),
                "{events:?}"
            );
            converge(&world, BOUND).await;
            replica.stop().await;
        });
    }
}

#[test]
fn what_a_gateway_cannot_remove_with_an_agent_is_told_and_is_finished_before_it_is_made_again() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let gateway = world.places[0].gateway.clone();
        let workspace = gateway.workspace(name(&world, worker).as_str()).unwrap();
        gateway.pin_workspace(&workspace, true);
        request(&world, worker);
        deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND).await;
        let events = world.store.list_events(100).await.unwrap();
        let told = events.iter().find(|event| event.event.reason == "FilesLeft").unwrap();
        assert!(told.event.message.contains(&workspace), "{}", told.event.message);

        // Wanted again, it waits for somebody who removes what is left.
        world.store.edit_agent(worker, |row| row.delete_requested_at = None);
        until("the gateway's refusal is told", BOUND, || {
            let record = world.store.gateway_record(world.places[0].id)?;
            let ready = record.conditions.get(ConditionType::Ready)?;
            ready
                .message
                .contains("deletion cleanup is still pending")
                .then_some(())
        })
        .await;
        gateway.pin_workspace(&workspace, false);
        converge(&world, BOUND).await;
        replica.stop().await;
    });
}

#[test]
fn a_removal_that_is_taken_back_provisions_the_agent_anew() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [lead, ..]) = world(dialect);
            world.wake = true;
            all_check_in(&world);
            let replica = world.start(1);
            woken(&world, lead, 1, BOUND).await;
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            let gateway = world.places[0].gateway.clone();
            let (id, restarts) = (name(&world, lead), gateway.restarts());
            gateway.delete_file(id.as_str(), "BOOTSTRAP.md");
            request(&world, lead);
            deleted(&world, lead, ConditionStatus::True, "Deleted", BOUND).await;
            world.store.edit_agent(lead, |row| row.delete_requested_at = None);
            converge(&world, BOUND).await;
            woken(&world, lead, 2, BOUND).await;
            let text = messages(&world, lead).pop().unwrap().text;
            assert!(text.contains("has been provisioned"), "{text}");
            assert!(
                gateway.file(id.as_str(), "BOOTSTRAP.md").is_some(),
                "as for the first time"
            );
            assert!(condition(&world, lead, ConditionType::Deleted).is_none());
            until("it is online", BOUND, || {
                (world.store.agent(lead).unwrap().status == "online").then_some(())
            })
            .await;
            assert_eq!(gateway.restarts(), restarts, "{dialect:?}");
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_removal_waits_for_its_gateway_and_says_so() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let place = world.places[0].id;
        let url = world.store.load_gateway(place).await.unwrap().unwrap().gateway.url;
        world
            .store
            .edit_gateway(place, |row| row.url = "ws://nowhere.test:1".into());
        request(&world, worker);
        deleted(&world, worker, ConditionStatus::False, "Deleting", BOUND).await;
        sleep(RESYNC * 3).await;
        deleted(&world, worker, ConditionStatus::False, "Deleting", BOUND).await;
        assert_eq!(world.store.agent(worker).unwrap().status, "deleting");
        assert!(
            world.store.agent(worker).unwrap().token_hash.is_some(),
            "its token is left alone until then"
        );
        world.store.edit_gateway(place, |row| row.url = url);
        deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND).await;
        converge(&world, BOUND).await;
        replica.stop().await;
    });
}

#[test]
fn an_agent_of_a_paused_board_is_removed_and_so_is_one_that_never_was_there() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_7_1);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        for board in world.store.board_ids() {
            world.store.edit_board(board, |row| row.paused = true);
        }
        converge(&world, BOUND).await;
        let board = world.store.agent(worker).unwrap().board_id;
        let never = world.add_agent(world.places[0].id, board, false);
        for agent in [worker, never] {
            request(&world, agent);
        }
        for agent in [worker, never] {
            deleted(&world, agent, ConditionStatus::True, "Deleted", BOUND).await;
        }
        converge(&world, BOUND).await;
        let deletes = world
            .gateway_write_log()
            .into_iter()
            .filter(|write| write.starts_with("agents.delete"));
        assert_eq!(deletes.count(), 1, "who was never there is not removed");
        replica.stop().await;
    });
}

#[test]
fn a_lead_that_goes_leaves_its_place_to_the_lead_that_stays() {
    simulate(async {
        let (mut world, [lead, ..]) = world(SimDialect::V2026_4_29);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let id = name(&world, lead);
        let board = world.store.agent(lead).unwrap().board_id;
        let next = world.add_agent(world.places[0].id, board, true);
        request(&world, lead);
        deleted(&world, lead, ConditionStatus::True, "Deleted", BOUND).await;
        converge(&world, BOUND).await;
        assert_eq!(name(&world, next), id);
        assert!(is_there(&world, &id));
        until("that it is ours is not forgotten", BOUND, || {
            world
                .store
                .agent_record(next)
                .filter(AgentRecord::created_by_us)
                .map(drop)
        })
        .await;
        converge(&world, BOUND).await;
        assert!(
            world
                .gateway_write_log()
                .iter()
                .all(|write| !write.starts_with("agents.delete"))
        );
        replica.stop().await;
    });
}

#[test]
fn a_refused_removal_is_told_and_holds_up_nobody_until_the_config_is_another_one() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [lead, worker, main]) = world(dialect);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let gateway = world.places[0].gateway.clone();
            let refusal = Fault::Error {
                code: "INVALID_REQUEST".into(),
                message: "it is the only configured agent".into(),
                retry_after_ms: None,
            };
            // The other's removal changes the config, so that this one is asked for once more.
            gateway.faults().inject("agents.delete", 1, refusal.clone());
            gateway.faults().inject("agents.delete", 3, refusal);
            for agent in [lead, worker] {
                request(&world, agent);
            }
            until("one is refused and the other gone", BOUND, || {
                let reasons = [lead, worker].map(|agent| condition(&world, agent, ConditionType::Deleted));
                let reasons: Vec<_> = reasons.into_iter().flatten().map(|found| found.reason).collect();
                (reasons.contains(&"DeleteRejected".to_owned()) && reasons.contains(&"Deleted".to_owned()))
                    .then_some(())
            })
            .await;
            let refused = [lead, worker]
                .into_iter()
                .find(|agent| is_there(&world, &name(&world, *agent)))
                .unwrap();
            let told = condition(&world, refused, ConditionType::Deleted).unwrap();
            assert!(told.message.contains("only configured agent"), "{}", told.message);
            let error = world.store.agent(refused).unwrap().last_provision_error.unwrap();
            assert!(error.contains("only configured agent"), "{error}");
            sleep(Duration::from_secs(5)).await;
            rest(&world, &replica).await;
            // Anybody's change of the config is a reason to ask again.
            world.store.edit_agent(main, |row| row.name = "Renamed".into());
            deleted(&world, refused, ConditionStatus::True, "Deleted", BOUND).await;
            converge(&world, BOUND).await;
            replica.stop().await;
        });
    }
}

#[test]
fn what_somebody_else_removes_by_hand_is_gone() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_7_1);
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let gateway = world.places[0].gateway.clone();
        let refusal = Fault::Error {
            code: "INVALID_REQUEST".into(),
            message: "no".into(),
            retry_after_ms: None,
        };
        gateway.faults().inject("agents.delete", 1, refusal);
        request(&world, worker);
        deleted(&world, worker, ConditionStatus::False, "DeleteRejected", BOUND).await;
        gateway.remove_agent(name(&world, worker).as_str());
        deleted(&world, worker, ConditionStatus::True, "Deleted", RESYNC * 2).await;
        converge(&world, BOUND).await;
        replica.stop().await;
    });
}

#[test]
fn the_entry_that_is_most_of_the_config_is_removed_without_a_refused_write() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [_, worker, _]) = world(dialect);
            world.store.edit_agent(worker, |row| {
                row.heartbeat_config = Some(Ok(json!({ "every": "10m", "prompt": "Look around. ".repeat(2_000) })));
            });
            let replica = world.start(1);
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            let (log, restarts) = (world.gateway_write_log().len(), world.places[0].gateway.restarts());
            request(&world, worker);
            // Old gateways take three patches a minute.
            deleted(&world, worker, ConditionStatus::True, "Deleted", BOUND * 5).await;
            converge(&world, BOUND).await;
            let refused: Vec<_> = world.gateway_write_log().split_off(log);
            let limited = |write: &String| write.starts_with("config.patch") && write.ends_with("ok=false");
            let unexpected: Vec<_> = refused
                .iter()
                .filter(|write| write.ends_with("ok=false") && (dialect.has_entries() || !limited(write)))
                .collect();
            assert!(unexpected.is_empty(), "{unexpected:?}");
            assert_eq!(world.places[0].gateway.restarts(), restarts);
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn many_removals_hold_up_an_edit_no_longer_than_a_few_of_them_take() {
    simulate(async {
        let (mut world, [_, worker, _]) = world(SimDialect::V2026_9_6);
        let (place, board) = (world.places[0].id, world.store.agent(worker).unwrap().board_id);
        let many: Vec<_> = (0..30).map(|_| world.add_agent(place, board, false)).collect();
        let replica = world.start(1);
        converge(&world, BOUND).await;
        for agent in &many {
            request(&world, *agent);
        }
        sleep(Duration::from_secs(2)).await;
        let begin = Instant::now();
        world.store.edit_agent(worker, |row| row.name = "Ada".into());
        let id = name(&world, worker);
        until("the name arrives", BOUND, || {
            let config = world.places[0].gateway.config();
            let entry = crate::fleet::entry(&config, id.as_str())?;
            (entry["name"] == "Ada").then_some(())
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
        assert!(
            many.iter().any(|agent| is_there(&world, &name(&world, *agent))),
            "not after all of them"
        );
        converge(&world, BOUND * 2).await;
        rest(&world, &replica).await;
        replica.stop().await;
    });
}
