//! One-shot syncs: what each option does and does once, and what is said of agents that cannot be synced.

use std::time::Duration;

use openclaw_controller::model::{
    AgentId, BoardId, EnsureLeads, GatewayId, SyncError, SyncId, SyncOptions, SyncResult,
};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::store::SyncStore;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::fleet::{RESYNC, World, owner};
use crate::promise;
use crate::runner::simulate;
use crate::steady::{converge, rest};

/// How long a sync may take, a crash included: the lease of the dead expires after 15 s, an old gateway restarts for about
/// 10 s, and a request whose answer is lost is waited for for 30 s.
pub(crate) const BOUND: Duration = Duration::from_secs(90);

const LOOK: Duration = Duration::from_millis(10);

/// A gateway with a board: a lead, a worker, a worker of before, whose token is written as a Markdown bullet, and a main
/// agent.
pub(crate) struct Syncing {
    pub(crate) world: World,
    pub(crate) gateway: GatewayId,
    pub(crate) board: BoardId,
    /// Oldest first; the main agent last.
    pub(crate) agents: Vec<AgentId>,
}

impl Syncing {
    pub(crate) fn new(dialect: SimDialect) -> Self {
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

    pub(crate) fn sim(&self) -> &SimGateway {
        &self.world.places[0].gateway
    }

    pub(crate) fn name(&self, agent: AgentId) -> String {
        let row = self.world.store.agent(agent).unwrap();
        row.gateway_agent_id(self.gateway).to_string()
    }

    pub(crate) fn session(&self, agent: AgentId) -> String {
        format!("agent:{}:main", self.name(agent))
    }

    pub(crate) fn token_file(&self) -> &'static str {
        self.sim().dialect().expected().token_file().as_str()
    }

    pub(crate) fn secret(&self, agent: AgentId) -> String {
        let text = self.sim().file(&self.name(agent), self.token_file()).unwrap();
        token::extract(&text).tokens()[0].expose_secret().to_owned()
    }

    pub(crate) async fn ask(&self, options: &SyncOptions) -> SyncId {
        self.world.store.request_sync(self.gateway, options).await.unwrap()
    }

    pub(crate) async fn answer(&self, sync: SyncId, within: Duration) -> SyncResult {
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

    pub(crate) async fn sync(&self, options: &SyncOptions) -> SyncResult {
        let sync = self.ask(options).await;
        self.answer(sync, BOUND).await
    }

    /// Of which agent what is said, in order.
    pub(crate) fn said(&self, result: &SyncResult) -> Vec<(Option<usize>, String)> {
        let place = |error: &SyncError| {
            let agent = error.agent_id?;
            self.agents.iter().position(|known| *known == agent)
        };
        let errors = result.errors.iter();
        errors.map(|error| (place(error), error.message.clone())).collect()
    }
}

pub(crate) fn counts(result: &SyncResult) -> (usize, usize, bool, usize) {
    (
        result.agents_updated,
        result.agents_skipped,
        result.main_updated,
        result.errors.len(),
    )
}

pub(crate) fn with(change: impl FnOnce(&mut SyncOptions)) -> SyncOptions {
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
        // What is to be made and what is to go is left to a controller that stays.
        fleet.world.leads = EnsureLeads::All;
        let at = fleet.world.store.now().naive_utc();
        fleet
            .world
            .store
            .edit_agent(stranger, |row| row.delete_requested_at = Some(at));
        let rows = fleet.world.store.agent_ids().len();
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
        assert_eq!(fleet.world.store.agent_ids().len(), rows, "no lead is made");
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
