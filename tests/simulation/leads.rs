//! Leads that the controller makes, and what it says of main agents.

use std::time::Duration;

use openclaw_controller::model::{
    AgentId, AgentRow, BoardId, ConditionStatus, ConditionType, EnsureLeads, GatewayId, LeadSettings, ObjectRef,
};
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::Store;
use serde_json::{Value, json};
use tokio::time::sleep;

use ConditionStatus::{False, True};

use crate::fleet::{ORGANIZATION, Replica, World, entry, owner};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::{SOON, all_check_in, checked_in, condition, keys, messages, until, world};

fn unled(dialect: SimDialect, leads: EnsureLeads) -> World {
    let mut world = world(dialect);
    world.wake = false;
    world.leads = leads;
    world
}

fn leads(world: &World, board: BoardId) -> Vec<AgentRow> {
    let rows = world
        .store
        .agent_ids()
        .into_iter()
        .filter_map(|id| world.store.agent(id));
    rows.filter(|row| row.is_board_lead && row.board_id == Some(board))
        .collect()
}

async fn lead(world: &World, board: BoardId, within: Duration) -> AgentRow {
    until(&format!("board {board} has a lead"), within, || {
        leads(world, board).pop()
    })
    .await
}

fn patches(world: &World) -> usize {
    let log = world.gateway_write_log();
    log.iter().filter(|write| write.starts_with("config.patch")).count()
}

async fn reasons(world: &World, object: ObjectRef) -> Vec<String> {
    let events = world.store.list_events(1000).await.unwrap();
    let of = events.into_iter().filter(|recorded| recorded.event.object == object);
    of.map(|recorded| recorded.event.reason).collect()
}

async fn settled(world: &World, replica: &Replica) {
    converge(world, BOUND).await;
    sleep(Duration::from_secs(20)).await;
    rest(world, replica).await;
}

#[test]
fn a_cold_start_with_leads_to_make_is_one_patch_and_each_lead_is_woken_once_although_no_notification_arrives() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = unled(dialect, EnsureLeads::Confirmed);
            world.wake = true;
            world.store.lose_hints(true);
            let gateway = world.places[0].id;
            let boards: Vec<BoardId> = (0..4).map(|_| world.add_board(Some(gateway))).collect();
            world.add_agent(gateway, Some(boards[0]), false);
            let own = world.add_agent(gateway, Some(boards[3]), true);
            all_check_in(&world);
            let replica = world.start(1);
            for board in &boards {
                let row = lead(&world, *board, BOUND).await;
                checked_in(&world, row.id, True, "CheckedIn", BOUND).await;
            }
            converge(&world, BOUND).await;
            assert_eq!(patches(&world), 1, "{dialect:?}");
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            assert_eq!(leads(&world, boards[3])[0].id, own);
            for board in &boards[..3] {
                let [row] = &leads(&world, *board)[..] else {
                    panic!("{:?}", leads(&world, *board))
                };
                assert_eq!((row.name.as_str(), row.status.as_str()), ("Lead Agent", "online"));
                assert_eq!(row.gateway_id, gateway);
                assert_eq!(row.session_key, Some(format!("agent:lead-{board}:main")));
                let identity = row.identity_profile.clone().unwrap().unwrap();
                assert_eq!(
                    identity,
                    json!({"role": "Board Lead", "communication_style": "direct, concise, practical", "emoji": ":gear:"})
                );
                let id = format!("lead-{board}");
                let identity = world.places[0].gateway.file(&id, "IDENTITY.md").unwrap();
                assert!(identity.contains("Board Lead"), "{identity}");
                let all = messages(&world, row.id);
                assert_eq!(all.len(), 1);
                assert!(
                    all[0]
                        .text
                        .starts_with("Hello Lead Agent. Your workspace has been provisioned."),
                    "{}",
                    all[0].text
                );
                assert!(
                    reasons(&world, ObjectRef::Agent(row.id))
                        .await
                        .contains(&"LeadCreated".into())
                );
            }
            replica.stop().await;
        });
    }
}

#[test]
fn boards_get_leads_as_their_goals_are_confirmed_and_as_the_operator_chose() {
    for ensure in [EnsureLeads::Confirmed, EnsureLeads::All, EnsureLeads::None] {
        simulate(async {
            let mut world = unled(SimDialect::V2026_9_6, ensure);
            let gateway = world.places[0].id;
            let mut board = |goal: bool, confirmed: bool| {
                let board = world.add_board(Some(gateway));
                world.store.edit_board(board, |board| {
                    if goal {
                        board.board_type = "goal".into();
                    }
                    board.goal_confirmed = confirmed;
                });
                board
            };
            let (open, confirmed, general) = (board(true, false), board(true, true), board(false, false));
            world.add_board(None);
            let replica = world.start(1);
            settled(&world, &replica).await;
            let counts = |world: &World| [open, confirmed, general].map(|board| leads(world, board).len());
            assert_eq!(
                counts(&world),
                match ensure {
                    EnsureLeads::Confirmed => [0, 1, 1],
                    EnsureLeads::All => [1, 1, 1],
                    EnsureLeads::None => [0, 0, 0],
                }
            );
            world.store.edit_board(open, |board| board.goal_confirmed = true);
            if ensure == EnsureLeads::Confirmed {
                lead(&world, open, SOON).await;
            }
            settled(&world, &replica).await;
            let each = usize::from(ensure != EnsureLeads::None);
            assert_eq!(counts(&world), [each; 3]);
            replica.stop().await;
        });
    }
}

#[test]
fn a_paused_board_gets_its_lead_once_it_goes_on() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_7_1, EnsureLeads::All);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        world.store.edit_board(board, |board| board.paused = true);
        let replica = world.start(1);
        settled(&world, &replica).await;
        assert_eq!(leads(&world, board).len(), 0);
        world.store.edit_board(board, |board| board.paused = false);
        lead(&world, board, SOON).await;
        settled(&world, &replica).await;
        assert_eq!(leads(&world, board).len(), 1);
        replica.stop().await;
    });
}

#[test]
fn what_was_chosen_for_a_lead_counts_when_it_is_made_and_not_afterwards() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::All);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let settings = |name: &str, identity: Value| LeadSettings {
            name: Some(name.into()),
            identity: Some(Ok(identity)),
        };
        world
            .store
            .set_lead_settings(board, Some(settings(" Marlow ", json!("a captain"))));
        let other = world.add_board(Some(gateway));
        let replica = world.start(1);
        // The other board's lead is not held up, and the problem is told where it belongs.
        let ready = world_condition(&world, gateway, ConditionType::LeadsEnsured, "LeadNotCreated").await;
        assert!(
            ready.contains(&board.to_string()) && ready.contains("not an object"),
            "{ready}"
        );
        world_condition(&world, gateway, ConditionType::Ready, "LeadNotCreated").await;
        let beside = lead(&world, other, SOON).await;
        until("it is ready", BOUND, || {
            condition(&world, beside.id, ConditionType::Ready).filter(|ready| ready.status == True)
        })
        .await;
        assert_eq!(leads(&world, board).len(), 0);
        assert!(
            reasons(&world, ObjectRef::Gateway(gateway))
                .await
                .contains(&"LeadNotCreated".into())
        );
        world.store.set_lead_settings(
            board,
            Some(settings(" Marlow ", json!({"role": "Captain", "emoji": ""}))),
        );
        let row = lead(&world, board, SOON).await;
        assert_eq!(row.name, "Marlow");
        let identity = row.identity_profile.unwrap().unwrap();
        assert_eq!(
            (&identity["role"], &identity["emoji"]),
            (&json!("Captain"), &json!(":gear:"))
        );
        settled(&world, &replica).await;
        world.store.set_lead_settings(board, Some(settings("Other", json!({}))));
        settled(&world, &replica).await;
        assert_eq!(leads(&world, board)[0].name, "Marlow");
        replica.stop().await;
    });
}

async fn world_condition(world: &World, gateway: GatewayId, kind: ConditionType, reason: &str) -> String {
    until(&format!("{kind} {reason}"), BOUND, || {
        let record = world.store.gateway_record(gateway)?;
        let found = record.conditions.get(kind).filter(|found| found.reason == reason)?;
        Some(found.message.clone())
    })
    .await
}

/// The original made the row, failed to provision the agent, and never came back to it, because the board had a lead.
#[test]
fn a_lead_never_retried_after_its_row_was_created() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = unled(dialect, EnsureLeads::All);
            world.wake = true;
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            all_check_in(&world);
            let error = || Fault::Error {
                code: "INVALID_REQUEST".into(),
                message: "no".into(),
                retry_after_ms: None,
            };
            let faults = |method: &str, times: usize| {
                for _ in 0..times {
                    world.places[0].gateway.faults().inject(method, 1, error());
                }
            };
            faults("config.patch", 2);
            faults("agents.files.set", 30);
            let replica = world.start(1);
            let row = lead(&world, board, BOUND).await;
            assert!(condition(&world, row.id, ConditionType::Ready).is_none_or(|ready| ready.status != True));
            replica.crash().await;
            let replica = world.start(2);
            checked_in(&world, row.id, True, "CheckedIn", 6 * BOUND).await;
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            rest(&world, &replica).await;
            assert_eq!(leads(&world, board).len(), 1);
            assert_eq!(keys(&world, row.id).len(), 1);
            assert_eq!(world.store.agent(row.id).unwrap().status, "online");
            replica.stop().await;
        });
    }
}

#[test]
fn of_two_leads_the_older_has_the_place_and_the_other_says_so_until_the_place_is_free() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::All);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let older = world.add_agent(gateway, Some(board), true);
        let younger = world.add_agent(gateway, Some(board), true);
        let replica = world.start(1);
        settled(&world, &replica).await;
        let id = format!("lead-{board}");
        let name_on_gateway = || {
            let config = world.places[0].gateway.config();
            entry(&config, &id).map(|entry| entry["name"].clone())
        };
        let name = |agent: AgentId| Some(json!(world.store.agent(agent).unwrap().name));
        assert_eq!(name_on_gateway(), name(older));
        let told = condition(&world, younger, ConditionType::Ready).unwrap();
        assert_eq!((told.status, told.reason.as_str()), (False, "DuplicateAgent"));
        let row = world.store.agent(younger).unwrap();
        assert_eq!((row.session_key, row.token_hash), (None, None));
        world.store.delete_agent(older);
        // The token in the file is the older one's: it is replaced once nobody has touched it for a minute.
        converge(&world, Duration::from_mins(1) + BOUND).await;
        assert_eq!(name_on_gateway(), name(younger));
        assert_eq!(leads(&world, board).len(), 1, "no third one");
        replica.stop().await;
    });
}

#[test]
fn the_gateway_and_the_session_key_of_a_lead_are_corrected_and_its_name_is_left_alone() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::Confirmed);
        let here = world.places[0].id;
        let elsewhere = world.add_gateway(SimDialect::V2026_4_29);
        let board = world.add_board(Some(here));
        let agent = world.add_agent(elsewhere, Some(board), true);
        world.store.edit_agent(agent, |row| {
            row.session_key = Some("agent:main:main".into());
            row.name = "Marlow".into();
        });
        let replica = world.start(1);
        settled(&world, &replica).await;
        let right = |row: AgentRow| {
            let key = format!("agent:lead-{board}:main");
            (row.gateway_id, row.session_key) == (here, Some(key)) && row.name == "Marlow"
        };
        assert!(right(world.store.agent(agent).unwrap()));
        let told = reasons(&world, ObjectRef::Agent(agent)).await;
        for reason in ["GatewayCorrected", "SessionKeyCorrected"] {
            assert!(told.contains(&reason.into()), "{told:?}");
        }
        // Both again, while it runs: found by the notification, and by it alone.
        for _ in 0..2 {
            world.store.edit_agent(agent, |row| row.gateway_id = elsewhere);
            until("the gateway is corrected", SOON, || {
                right(world.store.agent(agent).unwrap()).then_some(())
            })
            .await;
        }
        // The board moves, and its lead with it.
        world
            .store
            .edit_board(board, |board| board.gateway_id = Some(elsewhere));
        settled(&world, &replica).await;
        assert_eq!(world.store.agent(agent).unwrap().gateway_id, elsewhere);
        assert_eq!(leads(&world, board).len(), 1);
        for place in &world.places {
            let session = place.gateway.session("agent:main:main");
            assert!(session.is_none(), "the operator's own session was touched");
        }
        replica.stop().await;
    });
}

#[test]
fn while_a_lead_is_being_deleted_there_is_no_second_one_and_once_its_row_is_gone_there_is() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::All);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let replica = world.start(1);
        let first = lead(&world, board, BOUND).await;
        settled(&world, &replica).await;
        world.store.edit_agent(first.id, |row| {
            row.delete_requested_at = Some(row.created_at);
            row.status = "deleting".into();
        });
        settled(&world, &replica).await;
        assert_eq!(leads(&world, board).len(), 1);
        world.store.delete_agent(first.id);
        let second = lead(&world, board, SOON).await;
        assert_ne!(second.id, first.id);
        converge(&world, Duration::from_mins(1) + BOUND).await;
        assert_eq!(leads(&world, board).len(), 1);
        replica.stop().await;
    });
}

#[test]
fn replicas_that_take_over_in_the_middle_make_one_lead_for_each_board() {
    for nth in 1..=12 {
        simulate(async {
            let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::All);
            let gateway = world.places[0].id;
            let boards: Vec<BoardId> = (0..3).map(|_| world.add_board(Some(gateway))).collect();
            let told = world.store.cut_after_write(nth);
            let first = world.start(1);
            let second = world.start(2);
            until("the write", BOUND, || (world.store.writes() >= nth).then_some(())).await;
            told.await.unwrap();
            first.crash().await;
            world.calm();
            settled(&world, &second).await;
            assert_eq!(
                boards
                    .iter()
                    .map(|board| leads(&world, *board).len())
                    .collect::<Vec<_>>(),
                [1; 3]
            );
            assert_eq!(patches(&world), 1);
            second.stop().await;
        });
    }
}

#[test]
fn a_gateway_that_cannot_be_reached_gets_no_leads_and_says_that_they_wait() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::All);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        world
            .store
            .edit_gateway(gateway, |row| row.url = "ws://nobody.test:1".into());
        let replica = world.start(1);
        let message = world_condition(&world, gateway, ConditionType::LeadsEnsured, "NotObserved").await;
        assert!(message.contains("once the gateway is reached"), "{message}");
        sleep(Duration::from_mins(1)).await;
        assert_eq!(leads(&world, board).len(), 0);
        replica.stop().await;
    });
}

#[test]
fn a_gateway_without_a_main_agent_is_ready_all_the_same_and_says_what_is_missing() {
    simulate(async {
        let mut world = unled(SimDialect::V2026_9_6, EnsureLeads::None);
        let gateway = world.places[0].id;
        let replica = world.start(1);
        let message = world_condition(&world, gateway, ConditionType::MainAgent, "RecordNotFound").await;
        assert!(message.starts_with("Gateway agent record not found; "), "{message}");
        settled(&world, &replica).await;
        world_condition(&world, gateway, ConditionType::Ready, "Converged").await;
        let told = reasons(&world, ObjectRef::Gateway(gateway)).await;
        assert!(told.contains(&"RecordNotFound".into()), "{told:?}");
        let agent = world.add_agent(gateway, None, false);
        world_condition(&world, gateway, ConditionType::MainAgent, "RecordFound").await;
        settled(&world, &replica).await;
        world.store.delete_agent(agent);
        world_condition(&world, gateway, ConditionType::MainAgent, "RecordNotFound").await;
        // One that cannot be managed for want of an owner is found as well, at once, and told in the gateway's conditions.
        world.store.set_owner(ORGANIZATION, None);
        let agent = world.add_agent(gateway, None, false);
        until("the owner is missed", SOON, || {
            let record = world.store.gateway_record(gateway)?;
            let reason = |kind| record.conditions.get(kind).map(|found| found.reason.clone());
            let told = (reason(ConditionType::MainAgent), reason(ConditionType::ConfigSynced));
            (told == (Some("RecordFound".into()), Some("OwnerNotFound".into()))).then_some(())
        })
        .await;
        settled(&world, &replica).await;
        let id = format!("mc-gateway-{gateway}");
        let writes = || {
            let log = world.gateway_write_log();
            log.iter().filter(|write| write.contains(&id)).count()
        };
        let before = writes();
        world.store.edit_agent(agent, |row| row.name = "Another name".into());
        settled(&world, &replica).await;
        assert_eq!(writes(), before, "nothing is written for a main agent without an owner");
        world.store.set_owner(ORGANIZATION, Some(owner("Kim Other")));
        world_condition(&world, gateway, ConditionType::Ready, "Converged").await;
        settled(&world, &replica).await;
        replica.stop().await;
    });
}
