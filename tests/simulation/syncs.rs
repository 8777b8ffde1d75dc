//! One-shot syncs: what each option does and does once, what is said of agents that cannot be synced, and crashes after each
//! single effect.

use std::time::Duration;

use openclaw_controller::model::{AgentId, BoardId, GatewayId, SyncError, SyncId, SyncOptions, SyncResult};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect, SimGateway};
use openclaw_controller::store::{Store, SyncStore};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::fleet::{RESYNC, World, owner};
use crate::promise;
use crate::runner::simulate;
use crate::steady::{converge, rest};

/// How long a sync may take, a crash included: the lease of the dead expires after 15 s, an old gateway restarts for about
/// 10 s, and a request whose answer is lost is waited for for 30 s.
const BOUND: Duration = Duration::from_secs(90);

const LOOK: Duration = Duration::from_millis(10);

/// What is said of a session of which it is not known whether it was reset.
const MAYBE: &str = "The session may or may not have been reset";

/// A gateway with a board: a lead, a worker, a worker of before, whose token is written as a Markdown bullet, and a main
/// agent.
struct Syncing {
    world: World,
    gateway: GatewayId,
    board: BoardId,
    /// Oldest first; the main agent last.
    agents: Vec<AgentId>,
}

impl Syncing {
    fn new(dialect: SimDialect) -> Self {
        let mut world = World::new(TemplateSet::builtin());
        let gateway = world.add_gateway(dialect);
        let board = world.add_board(Some(gateway));
        let agents = vec![
            world.add_agent(gateway, Some(board), true),
            world.add_agent(gateway, Some(board), false),
            world.add_existing_worker(0, board),
            world.add_agent(gateway, None, false),
        ];
        Self {
            world,
            gateway,
            board,
            agents,
        }
    }

    fn sim(&self) -> &SimGateway {
        &self.world.places[0].gateway
    }

    fn name(&self, agent: AgentId) -> String {
        let row = self.world.store.agent(agent).unwrap();
        row.gateway_agent_id(self.gateway).to_string()
    }

    fn session(&self, agent: AgentId) -> String {
        format!("agent:{}:main", self.name(agent))
    }

    fn token_file(&self) -> &'static str {
        self.sim().dialect().expected().token_file().as_str()
    }

    fn secret(&self, agent: AgentId) -> String {
        let text = self.sim().file(&self.name(agent), self.token_file()).unwrap();
        token::extract(&text).tokens()[0].expose_secret().to_owned()
    }

    async fn ask(&self, options: &SyncOptions) -> SyncId {
        self.world.store.request_sync(self.gateway, options).await.unwrap()
    }

    async fn answer(&self, sync: SyncId, within: Duration) -> SyncResult {
        let begin = Instant::now();
        loop {
            if let Some(result) = self
                .world
                .store
                .sync_progress(sync)
                .await
                .ok()
                .flatten()
                .unwrap()
                .result
            {
                return result;
            }
            assert!(begin.elapsed() <= within, "no answer within {within:?}");
            sleep(LOOK).await;
        }
    }

    async fn sync(&self, options: &SyncOptions) -> SyncResult {
        let sync = self.ask(options).await;
        self.answer(sync, BOUND).await
    }

    /// Of which agent what is said, in order.
    fn said(&self, result: &SyncResult) -> Vec<(Option<usize>, String)> {
        let place = |error: &SyncError| {
            let agent = error.agent_id?;
            self.agents.iter().position(|known| *known == agent)
        };
        let errors = result.errors.iter();
        errors.map(|error| (place(error), error.message.clone())).collect()
    }
}

fn counts(result: &SyncResult) -> (usize, usize, bool, usize) {
    (
        result.agents_updated,
        result.agents_skipped,
        result.main_updated,
        result.errors.len(),
    )
}

fn with(change: impl FnOnce(&mut SyncOptions)) -> SyncOptions {
    let mut options = SyncOptions::default();
    change(&mut options);
    options
}

#[test]
fn a_sync_without_options_tells_who_matches_and_writes_nothing_on_the_gateway() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            let replica = fleet.world.start(1);
            // The first one finds nothing there yet, and ends when everything is.
            assert_eq!(
                counts(&fleet.sync(&SyncOptions::default()).await),
                (3, 0, true, 0),
                "{dialect:?}"
            );
            converge(&fleet.world, BOUND).await;
            sleep(Duration::from_secs(20)).await;
            let before = (fleet.sim().writes(), fleet.sim().restarts());
            let result = fleet.sync(&SyncOptions::default()).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{dialect:?}: {result:?}");
            assert_eq!(
                (result.gateway_id, result.include_main, result.reset_sessions),
                (fleet.gateway, true, false)
            );
            // An update that changed nothing has once restarted gateways.
            assert_eq!((fleet.sim().writes(), fleet.sim().restarts()), before, "{dialect:?}");
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn the_token_written_as_a_markdown_bullet_is_found_and_kept() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            let existing = fleet.agents[2];
            let text = fleet.sim().file(&fleet.name(existing), fleet.token_file()).unwrap();
            assert!(text.contains("- `AUTH_TOKEN="), "{text}");
            let secret = fleet.secret(existing);
            let replica = fleet.world.start(1);
            let result = fleet.sync(&SyncOptions::default()).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{dialect:?}: {result:?}");
            assert_eq!(fleet.secret(existing), secret);
            replica.stop().await;
        });
    }
}

#[test]
fn every_option_does_what_it_says_and_does_it_once() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let sim = fleet.sim().clone();
            let (lead, worker) = (fleet.agents[0], fleet.agents[1]);
            let old: Vec<_> = fleet.agents.iter().map(|agent| fleet.secret(*agent)).collect();
            let own = |file| sim.edit_file(&fleet.name(worker), file, "The agent's own words.");
            own("USER.md");
            own("MEMORY.md");
            assert!(sim.delete_file(&fleet.name(lead), "BOOTSTRAP.md"));

            let result = fleet.sync(&with(|options| options.force_bootstrap = true)).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
            assert!(sim.file(&fleet.name(lead), "BOOTSTRAP.md").is_some());
            assert!(sim.delete_file(&fleet.name(lead), "BOOTSTRAP.md"));

            let result = fleet.sync(&with(|options| options.overwrite = true)).await;
            assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
            for file in ["USER.md", "MEMORY.md"] {
                assert_ne!(
                    sim.file(&fleet.name(worker), file).as_deref(),
                    Some("The agent's own words.")
                );
                own(file);
            }

            let options = with(|options| {
                options.reset_sessions = true;
                options.rotate_tokens = true;
            });
            let result = fleet.sync(&options).await;
            assert_eq!(
                (counts(&result), result.reset_sessions),
                ((3, 0, true, 0), true),
                "{result:?}"
            );
            for (agent, old) in fleet.agents.iter().zip(&old) {
                assert_ne!(fleet.secret(*agent), *old);
                assert_eq!(sim.session(&fleet.session(*agent)).unwrap().resets, 1);
            }
            // What was asked for once is not done again, and what belongs to the agent is its own again.
            rest(&fleet.world, &replica).await;
            assert_eq!(sim.file(&fleet.name(lead), "BOOTSTRAP.md"), None);
            assert_eq!(
                sim.file(&fleet.name(worker), "MEMORY.md").as_deref(),
                Some("The agent's own words.")
            );
            assert!(promise::broken(&fleet.world).await.is_empty());
            replica.stop().await;
        });
    }
}

#[test]
fn a_board_or_the_main_agent_can_be_left_out_and_a_user_stays_chosen() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let (elsewhere, other) = (fleet.world.add_board(Some(fleet.gateway)), fleet.world.add_board(None));
        let stranger = fleet.world.add_agent(fleet.gateway, Some(elsewhere), false);
        let replica = fleet.world.start(1);
        converge(&fleet.world, BOUND).await;
        let (board, secret) = (fleet.board, fleet.secret(stranger));
        let options = with(|options| {
            options.board = Some(board);
            options.include_main = false;
            options.rotate_tokens = true;
        });
        let main = fleet.secret(fleet.agents[3]);
        let result = fleet.sync(&options).await;
        assert_eq!(
            (counts(&result), result.include_main),
            ((3, 0, false, 0), false),
            "{result:?}"
        );
        assert_eq!((fleet.secret(stranger), fleet.secret(fleet.agents[3])), (secret, main));
        let with_main = fleet.sync(&with(|options| options.board = Some(elsewhere))).await;
        assert_eq!(
            counts(&with_main),
            (1, 0, true, 0),
            "a board says nothing of the main agent"
        );
        for unknown in [other, BoardId(Uuid::from_u128(99))] {
            let result = fleet.sync(&with(|options| options.board = Some(unknown))).await;
            assert_eq!(
                fleet.said(&result),
                [(None, "Board does not belong to this gateway.".to_owned())]
            );
            assert_eq!(counts(&result), (0, 0, false, 1));
        }

        let user = openclaw_controller::model::User {
            id: Uuid::from_u128(77),
            ..owner("Kim Second")
        };
        fleet.world.store.set_owner(Uuid::from_u128(78), Some(user));
        let options = with(|options| options.user = Some(Uuid::from_u128(77)));
        let text = || fleet.sim().file(&fleet.name(fleet.agents[3]), "USER.md").unwrap();
        assert!(!text().contains("Kim"));
        assert_eq!(counts(&fleet.sync(&options).await), (4, 0, true, 0));
        assert!(text().contains("Kim"), "{}", text());
        rest(&fleet.world, &replica).await;
        assert!(text().contains("Kim"));
        replica.stop().await;
    });
}

#[test]
fn agents_that_cannot_be_synced_are_told_with_the_words_of_the_contract() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = Syncing::new(dialect);
            let homeless_board = fleet.world.add_board(None);
            let homeless = fleet.world.add_agent(fleet.gateway, Some(homeless_board), false);
            let paused_board = fleet.world.add_board(Some(fleet.gateway));
            let paused = fleet.world.add_agent(fleet.gateway, Some(paused_board), false);
            fleet.agents.extend([homeless, paused]);
            let replica = fleet.world.start(1);
            sleep(BOUND).await;
            fleet.world.store.edit_board(paused_board, |board| board.paused = true);
            fleet.world.store.delete_agent(fleet.agents[3]);
            // A person edits what holds the tokens. The loop would put it right at its next look; the sync looks first.
            let sim = fleet.sim().clone();
            let edit = |agent: AgentId, with: &str| {
                let (name, secret) = (fleet.name(agent), fleet.secret(agent));
                let text = sim.file(&name, fleet.token_file()).unwrap();
                sim.edit_file(&name, fleet.token_file(), &text.replace(&secret, with));
            };
            let wrong = token::mint();
            edit(fleet.agents[1], "");
            edit(fleet.agents[2], wrong.expose_secret());
            // A fresh process knows no token by heart.
            replica.stop().await;
            let sync = fleet.ask(&SyncOptions::default()).await;
            let replica = fleet.world.start_only(fleet.gateway, 2);
            let result = fleet.answer(sync, BOUND).await;
            let unreadable =
                "Skipping agent: unable to read AUTH_TOKEN from TOOLS.md (run with rotate_tokens=true to re-key).";
            let mismatch = "AUTH_TOKEN in TOOLS.md does not match backend token hash (agent auth may be broken).";
            let no_main = "Gateway agent record not found; skipping gateway agent template sync.";
            let expected = [
                (Some(1), unreadable),
                (Some(2), mismatch),
                (Some(4), "Skipping agent: board not found for agent."),
                (None, no_main),
            ];
            let expected = expected.map(|(place, text)| (place, text.to_owned()));
            assert_eq!(fleet.said(&result), expected, "{dialect:?}");
            // The lead, and the one with a warning; skipped are the unreadable, the homeless and the paused one.
            assert_eq!(counts(&result), (2, 3, false, 4), "{dialect:?}");
            assert_eq!(fleet.secret(fleet.agents[2]), wrong.expose_secret());
            let error = &result.errors[0];
            assert_eq!(
                (error.agent_name.as_deref(), error.board_id),
                (Some("Agent 4"), Some(fleet.board))
            );

            let options = with(|options| {
                options.rotate_tokens = true;
                options.include_main = false;
            });
            let result = fleet.sync(&options).await;
            assert_eq!(
                fleet.said(&result),
                [(Some(4), "Skipping agent: board not found for agent.".to_owned())]
            );
            assert_eq!(counts(&result), (3, 2, false, 1), "{dialect:?}");
            assert_ne!(fleet.secret(fleet.agents[2]), wrong.expose_secret());
            replica.stop().await;
        });
    }
}

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

#[test]
fn beside_an_existing_installation_each_agent_whose_files_are_withheld_is_an_error() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_7_1);
        (fleet.world.withhold, fleet.world.second_writer) = (true, true);
        let secret = fleet.secret(fleet.agents[2]);
        let before = fleet.sim().file(&fleet.name(fleet.agents[2]), fleet.token_file());
        let replica = fleet.world.start(1);
        for rotate in [false, true] {
            let result = fleet.sync(&with(|options| options.rotate_tokens = rotate)).await;
            assert_eq!(counts(&result), (2, 1, true, 1), "{result:?}");
            assert_eq!(result.errors[0].agent_id, Some(fleet.agents[2]));
            assert!(
                result.errors[0].message.contains("--templates-dir and --base-url"),
                "{result:?}"
            );
            assert_eq!(fleet.secret(fleet.agents[2]), secret);
        }
        assert_eq!(
            fleet.sim().file(&fleet.name(fleet.agents[2]), fleet.token_file()),
            before
        );
        let row = fleet.world.store.agent(fleet.agents[2]).unwrap();
        assert_eq!(
            row.requests.rotate, None,
            "nothing waits for a day when files are written"
        );
        replica.stop().await;
    });
}

#[test]
fn a_process_that_is_there_for_one_sync_touches_nothing_else() {
    simulate(async {
        let mut fleet = Syncing::new(SimDialect::V2026_9_6);
        let aside = fleet.world.add_gateway(SimDialect::V2026_9_6);
        let board = fleet.world.add_board(Some(aside));
        fleet.world.add_agent(aside, Some(board), false);
        let elsewhere = fleet.world.add_board(Some(fleet.gateway));
        let stranger = fleet.world.add_agent(fleet.gateway, Some(elsewhere), false);
        fleet.world.wake = true;
        let untouched = fleet.world.places[1].gateway.journal().len();
        let here = fleet.board;
        let sync = fleet.ask(&with(|options| options.board = Some(here))).await;
        let other = fleet
            .world
            .store
            .request_sync(aside, &SyncOptions::default())
            .await
            .unwrap();
        let replica = fleet.world.start_only(fleet.gateway, 1);
        let result = fleet.answer(sync, BOUND).await;
        assert_eq!(counts(&result), (3, 0, true, 0), "{result:?}");
        sleep(RESYNC.mul_f64(2.2)).await;
        assert_eq!(fleet.sim().file(&fleet.name(stranger), "SOUL.md"), None);
        assert_eq!(fleet.sim().messages(), [], "nobody is woken");
        assert_eq!(fleet.world.places[1].gateway.journal().len(), untouched);
        assert_eq!(
            fleet.world.store.sync_progress(other).await.unwrap().unwrap().result,
            None
        );
        replica.stop().await;
        let replica = fleet.world.start(2);
        assert_eq!(
            counts(&fleet.answer(other, BOUND).await),
            (1, 0, false, 1),
            "it has no main agent"
        );
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
