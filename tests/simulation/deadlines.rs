//! What becomes of a wake: deadlines, answers that are lost, and restarts of the controller.

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType, session_key};
use openclaw_controller::sim::{Fault, SimDialect};
use tokio::time::{Instant, sleep};

use ConditionStatus::{False, True, Unknown};

use crate::runner::simulate;
use crate::steady::{BOUND, converge};
use crate::wakes::{
    DEADLINE, SOON, all_check_in, checked_in, condition, keys, messages, settled, silence, until, woken, world,
};

#[test]
fn without_a_check_in_there_are_three_wakes_with_two_resets_then_silence_until_a_late_one() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = world(dialect);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            woken(&world, agent, 1, BOUND).await;
            let first = Instant::now();
            let waiting = checked_in(&world, agent, Unknown, "AwaitingCheckIn", SOON).await;
            assert!(waiting.message.contains("1 of 3"), "{}", waiting.message);
            // The agent is as desired meanwhile, and counts as online.
            converge(&world, SOON).await;
            assert_eq!(world.store.agent(agent).unwrap().status, "online");
            for times in 2..=3 {
                woken(&world, agent, times, 2 * DEADLINE).await;
                let after = first.elapsed().as_secs_f64() / (times - 1) as f64;
                assert!((29.0..33.0).contains(&after), "{times}: {after}");
            }
            let given_up = checked_in(&world, agent, False, "NoCheckIn", DEADLINE + SOON).await;
            assert!((89.0..96.0).contains(&first.elapsed().as_secs_f64()));
            let row = world.store.agent(agent).unwrap();
            let told = "Agent did not check in after wake; max wake attempts reached";
            assert!(given_up.message.starts_with(told), "{}", given_up.message);
            assert_eq!(row.last_provision_error.as_deref(), Some(told));
            assert_eq!(row.status, "offline");
            let ready = condition(&world, agent, ConditionType::Ready).unwrap();
            assert_eq!((ready.status, ready.reason.as_str()), (False, "NoCheckIn"));
            assert_eq!(world.store.wake_columns(agent).checkin_deadline_at, None);
            assert_eq!(keys(&world, agent), [1, 2, 3].map(|n| format!("{agent}-{n}")));
            let key = session_key(&row.gateway_agent_id(gateway));
            assert_eq!(world.places[0].gateway.session(&key).unwrap().resets, 2);
            assert!((replica.metric("openclaw_controller_checkins_missed_total") - 3.0).abs() < 0.1);
            sleep(Duration::from_secs(5)).await;
            silence(&world).await;

            world.store.check_in(agent, world.store.now().naive_utc());
            checked_in(&world, agent, True, "CheckedIn", SOON).await;
            converge(&world, SOON).await;
            assert_eq!(world.store.agent(agent).unwrap().status, "online");
            sleep(Duration::from_secs(5)).await;
            silence(&world).await;
            assert_eq!(keys(&world, agent).len(), 3);
            replica.stop().await;
        });
    }
}

#[test]
fn a_deadline_survives_the_controller_and_is_neither_late_nor_early() {
    for crash in [false, true] {
        simulate(async {
            let mut world = world(SimDialect::V2026_9_6);
            let gateway = world.places[0].id;
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let replica = world.start(1);
            woken(&world, agent, 1, BOUND).await;
            let first = Instant::now();
            checked_in(&world, agent, Unknown, "AwaitingCheckIn", SOON).await;
            sleep(Duration::from_secs(5)).await;
            if crash {
                replica.crash().await;
            } else {
                replica.stop().await;
            }
            let replica = world.start(2);
            woken(&world, agent, 2, DEADLINE).await;
            let after = first.elapsed().as_secs_f64();
            assert!((29.0..33.0).contains(&after), "{after}");
            world.store.check_in(agent, world.store.now().naive_utc());
            checked_in(&world, agent, True, "CheckedIn", SOON).await;
            sleep(Duration::from_secs(5)).await;
            silence(&world).await;
            assert_eq!(keys(&world, agent), [1, 2].map(|n| format!("{agent}-{n}")));
            replica.stop().await;
        });
    }
}

#[test]
fn a_wake_whose_outcome_is_unknown_is_not_repeated_before_its_deadline() {
    // Whether the message arrives although its answer does not.
    for (fault, arrives) in [
        (Fault::DropAfter, true),
        (Fault::LoseAnswer, true),
        (Fault::Restart, true),
        (Fault::DropBefore, false),
        (Fault::NeverAnswer, false),
    ] {
        simulate(async {
            let mut world = world(SimDialect::V2026_9_6);
            let (gateway, sim) = (world.places[0].id, world.places[0].gateway.clone());
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            sim.faults().inject("chat.send", 1, fault.clone());
            let replica = world.start(1);
            let begun = until("a wake is begun", BOUND, || {
                let wake = world.store.agent_record(agent)?.wake;
                wake.sent_at
            })
            .await;
            let sent = || {
                let journal = sim.journal();
                journal.iter().filter(|entry| entry.method == "chat.send").count()
            };
            let left = (begun - world.store.now()).to_std().unwrap_or_default() + DEADLINE;
            let half = Instant::now() + left - Duration::from_secs(2);
            tokio::time::sleep_until(half).await;
            assert_eq!(sent(), usize::from(arrives), "{fault:?}");
            if arrives {
                world.store.check_in(agent, world.store.now().naive_utc());
                checked_in(&world, agent, True, "CheckedIn", DEADLINE).await;
                assert_eq!(keys(&world, agent), [format!("{agent}-1")], "{fault:?}");
            } else {
                woken(&world, agent, 1, DEADLINE).await;
                world.store.check_in(agent, world.store.now().naive_utc());
                checked_in(&world, agent, True, "CheckedIn", DEADLINE).await;
                assert_eq!(keys(&world, agent), [format!("{agent}-2")], "{fault:?}");
            }
            settled(&world, &replica).await;
            assert_eq!(messages(&world, agent).len(), 1, "{fault:?}");
            replica.stop().await;
        });
    }
}

#[test]
fn what_a_gateway_refuses_is_told_and_covered_by_the_deadline() {
    for method in ["sessions.patch", "chat.send"] {
        simulate(async {
            let mut world = world(SimDialect::V2026_4_29);
            let (gateway, sim) = (world.places[0].id, world.places[0].gateway.clone());
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let error = Fault::Error {
                code: "INVALID_REQUEST".into(),
                message: "label already in use".into(),
                retry_after_ms: None,
            };
            sim.faults().inject(method, 1, error);
            all_check_in(&world);
            let replica = world.start(1);
            let waiting = checked_in(&world, agent, Unknown, "AwaitingCheckIn", BOUND).await;
            assert!(waiting.message.contains("label already in use"), "{}", waiting.message);
            assert!(replica.metric("openclaw_controller_wakes_total") > 0.0);
            checked_in(&world, agent, True, "CheckedIn", DEADLINE + SOON).await;
            assert_eq!(keys(&world, agent), [format!("{agent}-2")]);
            settled(&world, &replica).await;
            replica.stop().await;
        });
    }
}
