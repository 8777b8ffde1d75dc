//! Who is woken, when, how often, and what becomes of it.

use std::collections::HashMap;
use std::time::Duration;

use openclaw_controller::model::{AgentId, Condition, ConditionStatus, ConditionType, session_key};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{ChatMessage, Fault, SimDialect};
use openclaw_controller::token::{self, HashFormat};
use tokio::time::{Instant, sleep};

use ConditionStatus::{False, True};

use crate::fleet::{ORGANIZATION, RESYNC, Replica, World, owner};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};

/// How long a check-in may be on its way to a decision, and a due wake on its way to the gateway.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn until<T>(what: &str, within: Duration, probe: impl Fn() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(begin.elapsed() <= within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn world(dialect: SimDialect) -> World {
    let mut world = World::new(TemplateSet::builtin());
    world.wake = true;
    world.add_gateway(dialect);
    world
}

/// Has every woken agent check in, as it would through its backend.
pub(crate) fn all_check_in(world: &World) {
    for place in &world.places {
        let (store, gateway) = (world.store.clone(), place.id);
        place.gateway.on_wake(move |woken| {
            assert!(woken.token.is_some(), "a woken agent has its token");
            let store = store.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                let rows = store.agent_ids().into_iter().filter_map(|id| store.agent(id));
                for row in rows.filter(|row| row.gateway_agent_id(gateway).as_str() == woken.agent) {
                    store.check_in(row.id, store.now().naive_utc());
                }
            });
        });
    }
}

/// The messages that an agent got.
pub(crate) fn messages(world: &World, agent: AgentId) -> Vec<ChatMessage> {
    let row = world.store.agent(agent).unwrap();
    let of = |place: &crate::fleet::Place| {
        let key = session_key(&row.gateway_agent_id(place.id));
        let all = place.gateway.messages();
        all.into_iter().filter(move |message| message.session_key == key)
    };
    world.places.iter().flat_map(of).collect()
}

pub(crate) fn keys(world: &World, agent: AgentId) -> Vec<String> {
    let messages = messages(world, agent);
    messages.into_iter().map(|message| message.idempotency_key).collect()
}

pub(crate) fn condition(world: &World, agent: AgentId, kind: ConditionType) -> Option<Condition> {
    world.store.agent_record(agent)?.conditions.get(kind).cloned()
}

/// Waits until the agent's `CheckedIn` says so.
pub(crate) async fn checked_in(
    world: &World,
    agent: AgentId,
    status: ConditionStatus,
    reason: &str,
    within: Duration,
) -> Condition {
    until(&format!("CheckedIn={status} {reason}"), within, || {
        condition(world, agent, ConditionType::CheckedIn)
            .filter(|found| found.status == status && found.reason == reason)
    })
    .await
}

/// Waits for the agent's nth message.
pub(crate) async fn woken(world: &World, agent: AgentId, times: usize, within: Duration) {
    until(&format!("{times} messages"), within, || {
        (messages(world, agent).len() >= times).then_some(())
    })
    .await;
}

/// An hour passes, and nothing is written anywhere.
pub(crate) async fn silence(world: &World) {
    let before = (world.gateway_write_log(), world.store.write_log());
    sleep(Duration::from_hours(1)).await;
    assert_eq!(world.gateway_write_log()[before.0.len()..], [] as [String; 0]);
    assert_eq!(world.store.write_log()[before.1.len()..], [] as [&str; 0]);
}

pub(crate) async fn settled(world: &World, replica: &Replica) {
    // Drift is found by resyncs only.
    converge(world, RESYNC.mul_f64(1.2) + BOUND).await;
    sleep(Duration::from_secs(20)).await;
    rest(world, replica).await;
}

#[test]
fn a_first_provisioning_and_a_change_of_the_row_wake_once_each() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = world(dialect);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agents = [
                world.add_agent(gateway, Some(board), true),
                world.add_agent(gateway, Some(board), false),
                world.add_agent(gateway, None, false),
            ];
            all_check_in(&world);
            let replica = world.start(1);
            for agent in agents {
                checked_in(&world, agent, True, "CheckedIn", BOUND).await;
            }
            settled(&world, &replica).await;
            for agent in agents {
                let row = world.store.agent(agent).unwrap();
                let key = session_key(&row.gateway_agent_id(gateway));
                let all = messages(&world, agent);
                let [message] = all.as_slice() else { panic!("{all:?}") };
                let begin = format!("Hello {}. Your workspace has been provisioned. ", row.name);
                assert!(message.text.starts_with(&begin), "{}", message.text);
                assert!(message.deliver);
                assert_eq!(message.idempotency_key, format!("{agent}-1"));
                let session = world.places[0].gateway.session(&key).unwrap();
                assert_eq!((session.label.as_deref(), session.resets), (Some(row.name.as_str()), 0));
                assert_eq!(row.status, "online");
                assert_eq!(world.store.wake_columns(agent).checkin_deadline_at, None);
            }
            let agent = agents[1];
            world.store.edit_agent(agent, |row| row.name = "Renamed".into());
            woken(&world, agent, 2, SOON).await;
            settled(&world, &replica).await;
            let all = messages(&world, agent);
            assert_eq!(all.len(), 2);
            assert!(
                all[1]
                    .text
                    .starts_with("Hello Renamed. Your workspace has been updated. ")
            );
            assert_eq!(all[1].idempotency_key, format!("{agent}-2"));
            let key = session_key(&world.store.agent(agent).unwrap().gateway_agent_id(gateway));
            let session = world.places[0].gateway.session(&key).unwrap();
            assert_eq!((session.label.as_deref(), session.resets), (Some("Renamed"), 0));
            assert_eq!(world.places[0].gateway.messages().len(), 4, "and nobody else");
            replica.stop().await;
        });
    }
}

#[test]
fn drift_templates_boards_users_and_tokens_wake_nobody_and_an_adopted_agent_sleeps_on() {
    simulate(async {
        let mut world = world(SimDialect::V2026_4_29);
        let (gateway, sim) = (world.places[0].id, world.places[0].gateway.clone());
        let board = world.add_board(Some(gateway));
        let adopted = world.add_existing_worker(0, board);
        let ours = world.add_agent(gateway, Some(board), false);
        all_check_in(&world);
        let replica = world.start(1);
        checked_in(&world, ours, True, "CheckedIn", BOUND).await;
        checked_in(&world, adopted, True, "NoWakeOutstanding", BOUND).await;
        settled(&world, &replica).await;
        for agent in [ours, adopted] {
            let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway);
            sim.edit_file(id.as_str(), "SOUL.md", "vandalised");
        }
        settled(&world, &replica).await;
        let id = world.store.agent(ours).unwrap().gateway_agent_id(gateway);
        sim.remove_agent(id.as_str());
        settled(&world, &replica).await;
        world
            .store
            .edit_board(board, |board| board.objective = Some("Win".into()));
        world.store.set_owner(ORGANIZATION, Some(owner("Kim Other")));
        settled(&world, &replica).await;
        let hash = token::hash(&token::mint(), HashFormat::Pbkdf2OneRound).ok();
        world.store.edit_agent(ours, |row| row.token_hash = hash);
        converge(&world, token::STABLE_FOR + BOUND).await;
        replica.stop().await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("BOARD_SOUL.md.j2"), "Another soul.").unwrap();
        world.templates = std::sync::Arc::new(TemplateSet::load(directory.path()).unwrap());
        let replica = world.start(2);
        settled(&world, &replica).await;
        assert_eq!(sim.file(id.as_str(), "SOUL.md").as_deref(), Some("Another soul."));
        assert_eq!((keys(&world, ours).len(), keys(&world, adopted).len()), (1, 0));
        // Its own row, at last; and a request.
        world
            .store
            .edit_agent(adopted, |row| row.soul_template = Some("Mine.".into()));
        woken(&world, adopted, 1, SOON).await;
        assert!(messages(&world, adopted)[0].text.contains("has been updated"));
        let asked = world.store.now();
        world.store.edit_agent(ours, |row| row.requests.wake = Some(asked));
        woken(&world, ours, 2, SOON).await;
        settled(&world, &replica).await;
        assert_eq!((keys(&world, ours).len(), keys(&world, adopted).len()), (2, 1));
        replica.stop().await;
    });
}

#[test]
fn a_gateway_gets_at_most_four_wakes_in_five_seconds() {
    simulate(async {
        let mut world = world(SimDialect::V2026_9_6);
        world.add_gateway(SimDialect::V2026_4_29);
        for place in 0..2 {
            let gateway = world.places[place].id;
            let board = world.add_board(Some(gateway));
            for _ in 0..18 {
                world.add_agent(gateway, Some(board), false);
            }
        }
        all_check_in(&world);
        let replica = world.start(1);
        let mut times: HashMap<usize, Vec<Instant>> = HashMap::new();
        let begin = Instant::now();
        while times.values().map(Vec::len).sum::<usize>() < 36 {
            assert!(begin.elapsed() < 2 * BOUND, "{times:?}");
            sleep(Duration::from_millis(20)).await;
            for (place, it) in world.places.iter().enumerate() {
                let seen = times.entry(place).or_default();
                seen.resize(it.gateway.messages().len(), Instant::now());
            }
        }
        for seen in times.values() {
            for window in seen.windows(5) {
                // A message takes a moment from its turn to the gateway.
                assert!(window[4] - window[0] > Duration::from_millis(4500), "{seen:?}");
            }
            let all = *seen.last().unwrap() - seen[0];
            assert!(all < Duration::from_secs(25), "{all:?}");
        }
        settled(&world, &replica).await;
        let each = world
            .store
            .agent_ids()
            .into_iter()
            .map(|agent| keys(&world, agent).len());
        assert_eq!(each.collect::<Vec<_>>(), [1; 36]);
        replica.stop().await;
    });
}

#[test]
fn another_programs_wake_counts_and_its_deadlines_are_its_own() {
    simulate(async {
        let mut world = world(SimDialect::V2026_9_6);
        world.second_writer = true;
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let agent = world.add_existing_worker(0, board);
        let replica = world.start(1);
        settled(&world, &replica).await;
        // That program commits the edit, and wakes the agent a few seconds later.
        let wake = |world: &World| {
            let now = world.store.now();
            world.store.edit_wake_columns(agent, |columns| {
                columns.last_wake_sent_at = Some(now);
                columns.checkin_deadline_at = Some(now + chrono::TimeDelta::seconds(30));
                columns.wake_attempts += 1;
            });
        };
        world.store.edit_agent(agent, |row| row.name = "By them".into());
        sleep(Duration::from_secs(6)).await;
        wake(&world);
        let theirs = world.store.wake_columns(agent);
        settled(&world, &replica).await;
        silence(&world).await;
        assert_eq!(keys(&world, agent), [] as [String; 0]);
        assert_eq!(world.store.wake_columns(agent), theirs, "its deadline is left to it");
        // An edit without a wake of theirs: ours follows after the pause.
        world.store.edit_agent(agent, |row| row.name = "By hand".into());
        let edited = Instant::now();
        woken(&world, agent, 1, 2 * DEADLINE).await;
        let after = edited.elapsed().as_secs_f64();
        assert!((10.0..16.0).contains(&after), "{after}");
        // They wake it too, before ours was answered: from then on it is theirs.
        wake(&world);
        let theirs = world.store.wake_columns(agent);
        checked_in(&world, agent, True, "NoWakeOutstanding", DEADLINE + SOON).await;
        settled(&world, &replica).await;
        assert_eq!(keys(&world, agent), [format!("{agent}-1")]);
        assert_eq!(world.store.wake_columns(agent), theirs);
        replica.stop().await;
    });
}

#[test]
fn with_waking_turned_off_nothing_is_sent_or_said_and_later_the_first_wake_follows() {
    simulate(async {
        let mut world = world(SimDialect::V2026_7_1);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let woken_before = world.add_agent(gateway, Some(board), false);
        all_check_in(&world);
        let replica = world.start(1);
        checked_in(&world, woken_before, True, "CheckedIn", BOUND).await;
        replica.stop().await;
        world.wake = false;
        let agent = world.add_agent(gateway, Some(board), false);
        let replica = world.start(2);
        settled(&world, &replica).await;
        for agent in [woken_before, agent] {
            assert_eq!(condition(&world, agent, ConditionType::CheckedIn), None);
        }
        assert!(!world.store.agent_record(agent).unwrap().wake.awaits_check_in());
        assert_eq!(keys(&world, agent), [] as [String; 0]);
        replica.stop().await;
        world.wake = true;
        let replica = world.start(3);
        checked_in(&world, agent, True, "CheckedIn", BOUND).await;
        checked_in(&world, woken_before, True, "CheckedIn", BOUND).await;
        settled(&world, &replica).await;
        assert_eq!((keys(&world, woken_before).len(), keys(&world, agent).len()), (1, 1));
        replica.stop().await;
    });
}

#[test]
fn a_paused_agent_and_one_whose_files_cannot_be_written_are_not_woken() {
    simulate(async {
        let mut world = world(SimDialect::V2026_9_6);
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let agent = world.add_agent(gateway, Some(board), false);
        world
            .store
            .edit_agent(agent, |row| row.soul_template = Some("{{ no_such_variable }}".into()));
        all_check_in(&world);
        let replica = world.start(1);
        until("its files cannot be rendered", BOUND, || {
            condition(&world, agent, ConditionType::FilesSynced).filter(|found| found.status == False)
        })
        .await;
        silence(&world).await;
        assert_eq!(keys(&world, agent), [] as [String; 0]);
        world.store.edit_board(board, |board| board.paused = true);
        world.store.edit_agent(agent, |row| row.soul_template = None);
        silence_after(&world, Duration::from_secs(10)).await;
        assert_eq!(keys(&world, agent), [] as [String; 0]);
        world.store.edit_board(board, |board| board.paused = false);
        checked_in(&world, agent, True, "CheckedIn", BOUND).await;
        assert_eq!(keys(&world, agent), [format!("{agent}-1")]);
        assert!(messages(&world, agent)[0].text.contains("has been provisioned"));
        replica.stop().await;
    });
}

#[test]
fn an_outstanding_wake_is_followed_whatever_else_is_wrong() {
    for (paused, checks_in) in [(true, true), (true, false), (false, true), (false, false)] {
        simulate(async {
            let mut world = world(SimDialect::V2026_9_6);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            woken(&world, agent, 1, BOUND).await;
            let sent = Instant::now();
            sleep(Duration::from_secs(2)).await;
            if paused {
                world.store.edit_board(board, |board| board.paused = true);
            } else {
                let bad = Some("{{ no_such_variable }}".into());
                world.store.edit_agent(agent, |row| row.soul_template = bad);
            }
            sleep(SOON).await;
            if checks_in {
                world.store.check_in(agent, world.store.now().naive_utc());
                checked_in(&world, agent, True, "CheckedIn", SOON).await;
            } else {
                until("it is offline", DEADLINE, || {
                    (world.store.agent(agent).unwrap().status == "offline").then_some(())
                })
                .await;
                let missed = sent.elapsed();
                assert!(
                    missed + Duration::from_secs(1) >= DEADLINE && missed < DEADLINE + SOON,
                    "{missed:?}"
                );
                let pending = condition(&world, agent, ConditionType::CheckedIn).unwrap();
                assert_eq!(
                    (pending.status, pending.reason.as_str()),
                    (ConditionStatus::Unknown, "WakePending")
                );
            }
            assert_eq!(world.store.wake_columns(agent).checkin_deadline_at, None);
            silence_after(&world, SOON).await;
            assert_eq!(keys(&world, agent).len(), 1, "nobody is woken meanwhile");
            all_check_in(&world);
            world.store.edit_agent(agent, |row| row.soul_template = None);
            world.store.edit_board(board, |board| board.paused = false);
            if !checks_in {
                woken(&world, agent, 2, BOUND).await;
            }
            checked_in(&world, agent, True, "CheckedIn", BOUND).await;
            settled(&world, &replica).await;
            assert_eq!(world.store.agent(agent).unwrap().status, "online");
            assert_eq!(keys(&world, agent).len(), if checks_in { 1 } else { 2 });
            replica.stop().await;
        });
    }
}

#[test]
fn another_programs_wake_from_long_before_an_edit_does_not_swallow_its_wake() {
    simulate(async {
        let mut world = world(SimDialect::V2026_9_6);
        world.second_writer = true;
        let gateway = world.places[0].id;
        let board = world.add_board(Some(gateway));
        let agent = world.add_existing_worker(0, board);
        let replica = world.start(1);
        settled(&world, &replica).await;
        let now = world.store.now();
        world
            .store
            .edit_wake_columns(agent, |columns| columns.last_wake_sent_at = Some(now));
        sleep(Duration::from_hours(5)).await;
        world
            .store
            .edit_agent(agent, |row| row.soul_template = Some("By hand.".into()));
        woken(&world, agent, 1, Duration::from_secs(16)).await;
        replica.stop().await;
    });
}

async fn silence_after(world: &World, settle: Duration) {
    sleep(settle).await;
    silence(world).await;
}

/// 2026.2.26 takes labels of 64 characters, all others of 512; neither tells.
#[test]
fn a_name_that_is_too_long_for_the_gateway_is_cut_and_keeps_nobody_from_being_woken() {
    simulate(async {
        let mut world = world(SimDialect::V2026_4_29);
        let (gateway, sim) = (world.places[0].id, world.places[0].gateway.clone());
        let board = world.add_board(Some(gateway));
        let agent = world.add_agent(gateway, Some(board), false);
        let name = "Wren ".repeat(30).trim_end().to_owned();
        world.store.edit_agent(agent, |row| row.name.clone_from(&name));
        let refusal = Fault::Error {
            code: "INVALID_REQUEST".into(),
            message: "invalid sessions.patch params: at /label: must NOT have more than 64 characters".into(),
            retry_after_ms: None,
        };
        sim.faults().inject("sessions.patch", 1, refusal);
        all_check_in(&world);
        let replica = world.start(1);
        checked_in(&world, agent, True, "CheckedIn", BOUND).await;
        let key = session_key(&world.store.agent(agent).unwrap().gateway_agent_id(gateway));
        assert_eq!(sim.session(&key).unwrap().label.as_deref(), Some(&name[..64]));
        assert_eq!(messages(&world, agent).len(), 1);
        replica.stop().await;
    });
}
