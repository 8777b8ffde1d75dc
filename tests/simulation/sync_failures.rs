//! One-shot syncs when something goes wrong: a gateway that is away, lost answers and notifications, and a crash around each
//! single effect.

use std::time::Duration;

use openclaw_controller::model::SyncOptions;
use openclaw_controller::sim::{Fault, SimDialect};
use openclaw_controller::store::{Store, SyncStore};
use openclaw_controller::token;
use tokio::time::{Instant, sleep, timeout};

use crate::fleet::RESYNC;
use crate::runner::simulate;
use crate::steady::{converge, rest};
use crate::syncs::{BOUND, Syncing, counts, with};

/// What is said of a session of which it is not known whether it was reset.
const MAYBE: &str = "The session may or may not have been reset";

#[test]
fn a_gateway_that_is_away_is_waited_for_until_the_time_limit_and_nothing_is_attempted() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_7_1);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        let before = (fleet.world.store.agent(fleet.agents[1]).unwrap(), fleet.sim().writes());
        fleet.sim().faults().refuse_connects();
        fleet.sim().cut_connections();
        for (limit, told) in [(600, "10 minutes"), (90, "90 seconds")] {
            let options = with(|options| {
                options.rotate_tokens = true;
                options.reset_sessions = true;
                options.time_limit_ms = limit * 1000;
            });
            let begin = Instant::now();
            let sync = fleet.ask(&options).await;
            let result = fleet.answer(sync, Duration::from_secs(limit + 10)).await;
            assert!(begin.elapsed() >= Duration::from_secs(limit), "{:?}", begin.elapsed());
            assert_eq!(counts(&result), (0, 0, false, 1), "{result:?}");
            let start = format!("Gateway unreachable after {told} (template sync timeout). Last error: ");
            assert!(result.errors[0].message.starts_with(&start), "{result:?}");
            assert_eq!(result.errors[0].agent_id, None);
        }
        fleet.sim().faults().clear();
        converge(&fleet.world, BOUND).await;
        let row = fleet.world.store.agent(fleet.agents[1]).unwrap();
        assert_eq!(row.requests, before.0.requests, "no token was asked for");
        rest(&fleet.world, &replica).await;
        assert_eq!(fleet.sim().writes(), before.1);

        // One that is back in time is synced.
        fleet.sim().faults().refuse_next_connects(5);
        fleet.sim().cut_connections();
        assert_eq!(counts(&fleet.sync(&SyncOptions::default()).await), (3, 0, true, 0));
        // One that lets nobody in is not waited for.
        fleet.sim().set_token("another");
        sleep(Duration::from_secs(20)).await;
        let begin = Instant::now();
        let result = fleet.sync(&SyncOptions::default()).await;
        assert_eq!(counts(&result), (0, 0, false, 1), "{result:?}");
        assert!(begin.elapsed() < Duration::from_mins(1), "{result:?}");
        fleet
            .world
            .store
            .edit_gateway(fleet.gateway, |row| row.url = String::new());
        let result = fleet.sync(&SyncOptions::default()).await;
        assert_eq!(
            fleet.said(&result),
            [(None, "Gateway URL is not configured for this gateway.".to_owned())]
        );
        replica.stop().await;
    });
}

#[test]
fn a_time_out_in_the_middle_stops_the_sync_and_any_other_failure_does_not() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        fleet.world.store.edit_agent(fleet.agents[1], |row| {
            row.soul_template = Some("{{ nobody_knows_this }}".into());
        });
        let result = fleet.sync(&SyncOptions::default()).await;
        assert_eq!(counts(&result), (2, 1, true, 1), "{result:?}");
        assert!(result.errors[0].message.contains("nobody_knows_this"), "{result:?}");
        fleet.sim().faults().always("agents.files.list", Fault::NeverAnswer);
        let sync = fleet.ask(&with(|options| options.time_limit_ms = 120_000)).await;
        let result = fleet.answer(sync, Duration::from_mins(4)).await;
        assert_eq!(
            counts(&result),
            (0, 1, false, 1),
            "the first one tells, the others are not attempted"
        );
        assert_eq!(result.errors[0].agent_id, Some(fleet.agents[0]));
        let message = &result.errors[0].message;
        assert!(
            message.starts_with(
                "Gateway unreachable after 2 minutes (template sync timeout). Last error: agents.files.list"
            ),
            "{message}"
        );
        replica.stop().await;
    });
}

#[test]
fn retries_never_reset_a_session_twice() {
    for (fault, says) in [
        (
            Fault::Error {
                code: "UNAVAILABLE".into(),
                message: "busy".into(),
                retry_after_ms: Some(500),
            },
            None,
        ),
        (Fault::DropBefore, Some(MAYBE)),
        (Fault::DropAfter, Some(MAYBE)),
        (Fault::LoseAnswer, Some(MAYBE)),
        (Fault::Restart, Some(MAYBE)),
        (
            Fault::Error {
                code: "INVALID_REQUEST".into(),
                message: "no".into(),
                retry_after_ms: None,
            },
            Some("Failed to reset session: "),
        ),
    ] {
        simulate(async {
            let mut fleet = Syncing::new(SimDialect::V2026_7_1);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            fleet.sim().faults().inject("sessions.reset", 1, fault.clone());
            let result = fleet.sync(&with(|options| options.reset_sessions = true)).await;
            let resets: Vec<_> = fleet
                .agents
                .iter()
                .map(|agent| {
                    fleet
                        .sim()
                        .session(&fleet.session(*agent))
                        .map_or(0, |session| session.resets)
                })
                .collect();
            assert!(resets.iter().all(|resets| *resets <= 1), "{fault:?}: {resets:?}");
            let missing = resets.iter().filter(|resets| **resets == 0).count();
            match says {
                None => assert_eq!(
                    (missing, counts(&result)),
                    (0, (3, 0, true, 0)),
                    "{fault:?}: {result:?}"
                ),
                Some(says) => {
                    // A connection that ends takes others' requests with it.
                    assert!(
                        (missing.max(1)..=3).contains(&result.errors.len()),
                        "{fault:?}: {result:?}"
                    );
                    for (agent, resets) in fleet.agents.iter().zip(resets) {
                        let told = result.errors.iter().any(|error| error.agent_id == Some(*agent));
                        assert!(resets == 1 || told, "{fault:?}: {result:?}");
                    }
                    let mut errors = result.errors.iter();
                    assert!(
                        errors.all(|error| error.message.starts_with(says)),
                        "{fault:?}: {result:?}"
                    );
                }
            }
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_request_whose_notification_is_lost_is_found_at_the_next_resync_and_syncs_of_a_gateway_take_turns() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_7_1);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        fleet.world.store.lose_hints(true);
        let options = with(|options| options.rotate_tokens = true);
        let first = fleet.ask(&options).await;
        let second = fleet.ask(&SyncOptions::default()).await;
        let result = fleet.answer(first, RESYNC.mul_f64(1.1) + BOUND).await;
        assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
        assert_eq!(counts(&fleet.answer(second, BOUND).await), (3, 0, true, 0));
        replica.stop().await;
    });
}

/// Around which effect the controller crashes.
#[derive(Clone, Copy, Debug)]
enum Point {
    BeforeRequest(usize),
    AfterRequest(usize),
    BeforeWrite(usize),
    AfterWrite(usize),
}

#[test]
fn a_sync_that_crashes_around_any_single_effect_is_completed_and_does_nothing_twice() {
    std::thread::scope(|scope| {
        for dialect in SimDialect::ALL {
            scope.spawn(move || crash_everywhere(dialect));
        }
    });
}

fn crash_everywhere(dialect: SimDialect) {
    let calm = simulate(crashed(dialect, None)).unwrap();
    let requests = (1..=calm.requests).flat_map(|nth| [Point::BeforeRequest(nth), Point::AfterRequest(nth)]);
    let writes = (1..=calm.store_writes).flat_map(|nth| [Point::BeforeWrite(nth), Point::AfterWrite(nth)]);
    let points: Vec<_> = requests.chain(writes).collect();
    let (mut wrong, mut unknown) = (Vec::new(), 0);
    for &point in &points {
        match simulate(crashed(dialect, Some(point))) {
            Ok(run) => unknown += run.unknown,
            Err(problem) => wrong.push(format!("{point:?}: {problem}")),
        }
    }
    eprintln!(
        "{dialect:?}: a sync crashed before and after each of {} requests and {} writes in the store, {} points; of {unknown} \
         sessions it could not be told whether they were reset",
        calm.requests,
        calm.store_writes,
        points.len()
    );
    assert!(wrong.is_empty(), "{dialect:?}:\n{}", wrong.join("\n"));
}

/// What a sync took.
struct Taken {
    requests: usize,
    store_writes: usize,
    /// Of how many sessions it was not known whether they were reset.
    unknown: usize,
}

/// Syncs with all options in a converged fleet; crashes once, if asked to.
async fn crashed(dialect: SimDialect, point: Option<Point>) -> Result<Taken, String> {
    let mut fleet = Syncing::new(dialect);
    let mut replica = fleet.world.start(1);
    converge(&fleet.world, BOUND).await;
    sleep(Duration::from_secs(20)).await;
    let sim = fleet.sim().clone();
    let old: Vec<_> = fleet.agents.iter().map(|agent| fleet.secret(*agent)).collect();
    let before = (sim.journal().len(), fleet.world.store.writes());
    let reached = point.map(|point| match point {
        Point::BeforeRequest(nth) => sim.freeze_before(nth),
        Point::AfterRequest(nth) => sim.freeze_after(nth),
        Point::BeforeWrite(nth) => fleet.world.store.cut_before_write(nth),
        Point::AfterWrite(nth) => fleet.world.store.cut_after_write(nth),
    });
    let options = with(|options| {
        options.reset_sessions = true;
        options.rotate_tokens = true;
        options.force_bootstrap = true;
        options.overwrite = true;
    });
    let sync = fleet.ask(&options).await;
    let requested_at = fleet.world.store.open_syncs().await.unwrap()[0].requested_at;
    if let Some(reached) = reached {
        let reached = timeout(BOUND, reached).await;
        reached
            .map_err(|_| "the point was never reached")?
            .map_err(|_| "the point was forgotten")?;
        replica.crash().await;
        fleet.world.calm();
        replica = fleet.world.start(2);
    }
    let result = fleet.answer(sync, BOUND).await;
    let taken = (sim.journal().len() - before.0, fleet.world.store.writes() - before.1);
    if (result.agents_updated, result.agents_skipped, result.main_updated) != (3, 0, true) {
        return Err(format!("not everybody is updated: {result:?}"));
    }
    let unknown = result.errors.iter().filter(|error| error.message.starts_with(MAYBE));
    let unknown: Vec<_> = unknown.filter_map(|error| error.agent_id).collect();
    if unknown.len() != result.errors.len() {
        return Err(format!("errors: {result:?}"));
    }
    for (agent, old) in fleet.agents.iter().zip(&old) {
        let resets = sim.session(&fleet.session(*agent)).map_or(0, |session| session.resets);
        if resets > 1 || (resets == 0 && !unknown.contains(agent)) {
            return Err(format!("{agent}: its session was reset {resets} times: {result:?}"));
        }
        if fleet.secret(*agent) == *old {
            return Err(format!("{agent}: it has its old token"));
        }
        let record = fleet.world.store.agent_record(*agent).unwrap();
        if record.rotated_for != Some(requested_at) {
            return Err(format!("{agent}: the request for a new token is not answered"));
        }
        let state = fleet.world.store.token_state(*agent).await.unwrap();
        if token::verify(&fleet.secret(*agent), &state.current_hash.unwrap_or_default()) != Ok(true) {
            return Err(format!("{agent}: its token does not belong to its hash"));
        }
    }
    converge(&fleet.world, BOUND).await;
    sleep(Duration::from_secs(20)).await;
    let writes = (sim.writes(), fleet.world.store.writes());
    let tokens: Vec<_> = fleet.agents.iter().map(|agent| fleet.secret(*agent)).collect();
    sleep(RESYNC.mul_f64(1.1)).await;
    if (sim.writes(), fleet.world.store.writes()) != writes {
        return Err("written again after it was answered".to_owned());
    }
    if fleet
        .agents
        .iter()
        .map(|agent| fleet.secret(*agent))
        .collect::<Vec<_>>()
        != tokens
    {
        return Err("rotated again".to_owned());
    }
    replica.stop().await;
    Ok(Taken {
        requests: taken.0,
        store_writes: taken.1,
        unknown: unknown.len(),
    })
}
