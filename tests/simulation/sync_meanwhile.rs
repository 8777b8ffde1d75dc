//! One-shot syncs while somebody else is at work on the same agents.

use std::time::Duration;

use openclaw_controller::model::SyncOptions;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::token::{self, HashFormat};
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};

use crate::runner::simulate;
use crate::steady::converge;
use crate::syncs::{BOUND, Syncing, counts, with};
use crate::wakes::{all_check_in, woken};

#[test]
fn an_agent_that_is_to_go_since_the_sync_began_is_skipped_and_holds_up_nobody() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        // It waits for its place in the roster when its removal is asked for.
        let slow = Fault::Delay(Duration::from_secs(20));
        fleet.sim().faults().inject("config.patch", 1, slow);
        let late = fleet.world.add_agent(fleet.gateway, Some(fleet.board), false);
        let begin = Instant::now();
        let sync = fleet.ask(&SyncOptions::default()).await;
        sleep(Duration::from_secs(5)).await;
        let at = fleet.world.store.now().naive_utc();
        fleet
            .world
            .store
            .edit_agent(late, |row| row.delete_requested_at = Some(at));
        let result = fleet.answer(sync, BOUND).await;
        assert_eq!(counts(&result), (3, 1, true, 0), "{result:?}");
        assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
        replica.stop().await;
    });
}

#[test]
fn what_is_not_the_gateways_silence_fails_agents_and_not_the_sync() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        let worker = fleet.agents[1];
        fleet.world.store.edit_agent(worker, |row| {
            row.soul_template = Some("One more soul.".into());
        });
        let full = Fault::Error {
            code: "UNAVAILABLE".into(),
            message: "disk full".into(),
            retry_after_ms: Some(500),
        };
        fleet.sim().faults().always("agents.files.set", full);
        let sync = fleet.ask(&with(|options| options.time_limit_ms = 30_000)).await;
        let result = fleet.answer(sync, BOUND).await;
        assert_eq!(counts(&result), (2, 1, true, 1), "{result:?}");
        let error = &result.errors[0];
        assert_eq!(error.agent_id, Some(worker));
        assert!(error.message.starts_with("Failed to sync templates: "), "{error:?}");
        assert!(error.message.contains("disk full"), "{error:?}");
        replica.stop().await;
    });
}

#[test]
fn a_token_that_another_program_is_about_to_write_is_waited_for_and_not_written_over() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            fleet.world.second_writer = true;
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let worker = fleet.agents[1];
            let (old, new) = (fleet.secret(worker), token::mint());
            let hash = token::hash(&new, HashFormat::Pbkdf2OneRound).ok();
            fleet
                .world
                .store
                .edit_agent(worker, |row| row.token_hash.clone_from(&hash));
            let sync = fleet.ask(&SyncOptions::default()).await;
            sleep(Duration::from_secs(20)).await;
            // As the original does: the hash is committed, and the file is written when the gateway has time for it.
            let text = fleet.sim().file(&fleet.name(worker), fleet.token_file()).unwrap();
            assert!(text.contains(&old), "nobody has written it meanwhile");
            let text = text.replace(&old, new.expose_secret());
            fleet.sim().edit_file(&fleet.name(worker), fleet.token_file(), &text);
            let result = fleet.answer(sync, BOUND).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
            assert_eq!(fleet.secret(worker), new.expose_secret());
            assert_eq!(fleet.world.store.agent(worker).unwrap().token_hash, hash);
            replica.stop().await;
        });
    }
}

#[test]
fn wakes_wait_until_the_sync_of_their_gateway_has_ended() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            fleet.world.wake = true;
            all_check_in(&fleet.world);
            // The files of everybody are slow, so that whoever is first is done long before the last.
            let slow = Fault::Delay(Duration::from_millis(200));
            fleet.sim().faults().always("agents.files.set", slow);
            let sync = fleet.ask(&with(|options| options.rotate_tokens = true)).await;
            let replica = fleet.world.start(1);
            let result = fleet.answer(sync, BOUND).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
            let messages = fleet.sim().messages();
            assert!(messages.is_empty(), "woken during the sync: {messages:?}");
            // All but the worker that was there before us, whom another program has woken.
            for place in [0, 1, 3] {
                woken(&fleet.world, fleet.agents[place], 1, Duration::from_secs(10)).await;
            }
            converge(&fleet.world, BOUND).await;
            assert_eq!(fleet.sim().messages().len(), 3);
            replica.stop().await;
        });
    }
}
