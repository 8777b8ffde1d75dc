//! Somebody else who undoes the same thing again and again: it is put right twice, then once an hour, and everything beside it
//! all the same.

use std::time::Duration;

use openclaw_controller::model::{AgentId, Condition, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, SimDialect, SimGateway};
use openclaw_controller::store::Store;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{RESYNC, Replica, World, edit_entry, entry};
use crate::restarts::held;
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};

/// How long until drift that nobody announces is found and put right.
const FOUND: Duration = Duration::from_secs(132 + 60);

const HOUR: Duration = Duration::from_hours(1);

pub(crate) const THEIRS: &str = "Somebody else's words.\n";

/// One agent on one gateway.
pub(crate) struct Fleet {
    pub(crate) world: World,
    gateway: GatewayId,
    pub(crate) agent: AgentId,
    /// Its id on the gateway.
    id: String,
}

pub(crate) fn fleet(dialect: SimDialect) -> Fleet {
    let mut world = World::new(TemplateSet::builtin());
    let gateway = world.add_gateway(dialect);
    let board = world.add_board(Some(gateway));
    let agent = world.add_agent(gateway, Some(board), false);
    let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway).to_string();
    Fleet {
        world,
        gateway,
        agent,
        id,
    }
}

impl Fleet {
    pub(crate) fn sim(&self) -> &SimGateway {
        &self.world.places[0].gateway
    }

    pub(crate) fn soul(&self) -> String {
        self.sim().file(&self.id, "SOUL.md").unwrap_or_default()
    }

    fn undo_soul(&self) {
        self.sim().edit_file(&self.id, "SOUL.md", THEIRS);
    }

    fn heartbeat(&self) -> String {
        let config = self.sim().config();
        entry(&config, &self.id).unwrap()["heartbeat"]["every"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn undo_heartbeat(&self) {
        edit_entry(self.sim(), &self.id, |entry| entry["heartbeat"]["every"] = json!("7m"));
    }

    fn told(&self, kind: ConditionType) -> Option<Condition> {
        let record = self.world.store.agent_record(self.agent)?;
        record.conditions.get(kind).cloned()
    }

    /// Waits until the agent has this condition for this reason; returns what is told.
    async fn told_of_agent(&self, kind: ConditionType, reason: &str, within: Duration) -> String {
        let begin = Instant::now();
        loop {
            let told = self.told(kind);
            if let Some(told) = &told
                && (told.status, told.reason.as_str()) == (ConditionStatus::False, reason)
            {
                return told.message.clone();
            }
            assert!(begin.elapsed() < within, "{told:?}");
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Undoes what is as desired so often that it becomes a fight.
    async fn fight_over_soul(&self) {
        for _ in 0..2 {
            self.undo_soul();
            converge(&self.world, FOUND).await;
        }
        self.undo_soul();
        let told = self
            .told_of_agent(ConditionType::FilesSynced, "FightingWriter", FOUND)
            .await;
        assert!(
            told.contains("SOUL.md") && told.contains("3 times within an hour"),
            "{told}"
        );
    }
}

/// Waits until something is so.
async fn until(within: Duration, what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < within, "{what}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// How often files were written so far.
fn file_writes(world: &World) -> usize {
    let log = world.gateway_write_log();
    log.iter().filter(|write| write.starts_with("agents.files.set")).count()
}

#[test]
fn a_file_that_is_undone_twice_is_put_back_each_time_at_the_next_resync() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            // Never three within an hour, for hours.
            for _ in 0..6 {
                sleep(Duration::from_mins(31)).await;
                fleet.undo_soul();
                until(FOUND, "put back", || fleet.soul() != THEIRS).await;
                converge(&fleet.world, BOUND).await;
            }
            sleep(Duration::from_secs(5)).await;
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_file_that_is_fought_over_is_tried_once_an_hour_and_all_others_are_kept() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            fleet.fight_over_soul().await;
            sleep(Duration::from_secs(5)).await;
            rest(&fleet.world, &replica).await;
            assert_eq!(fleet.soul(), THEIRS, "left as somebody else wants it");

            // Another file is put back at the next resync.
            let agents = fleet.sim().file(&fleet.id, "AGENTS.md").unwrap();
            fleet.sim().edit_file(&fleet.id, "AGENTS.md", &agents.replace('a', "e"));
            until(FOUND, "AGENTS.md", || {
                fleet.sim().file(&fleet.id, "AGENTS.md").as_deref().map(str::trim_end) == Some(agents.trim_end())
            })
            .await;
            assert_eq!(fleet.soul(), THEIRS);

            // Once an hour, and undone again at once.
            let before = file_writes(&fleet.world);
            for nth in 1..=3 {
                until(HOUR + FOUND, "a try", || fleet.soul() != THEIRS).await;
                assert_eq!(file_writes(&fleet.world), before + nth);
                fleet.undo_soul();
                sleep(Duration::from_mins(30)).await;
                assert_eq!(fleet.soul(), THEIRS, "{dialect:?}: not tried before the hour is over");
            }

            // Once it stays for an hour, all is forgotten.
            until(HOUR + FOUND, "a try", || fleet.soul() != THEIRS).await;
            sleep(Duration::from_mins(50)).await;
            assert_eq!(fleet.told(ConditionType::FilesSynced).unwrap().reason, "FightingWriter");
            converge(&fleet.world, Duration::from_mins(10) + FOUND).await;
            assert!(
                fleet
                    .world
                    .store
                    .history(fleet.gateway)
                    .await
                    .unwrap()
                    .undone
                    .is_empty()
            );
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_new_word_of_the_row_ends_a_fight_at_once() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            fleet.fight_over_soul().await;
            fleet
                .world
                .store
                .edit_agent(fleet.agent, |row| row.soul_template = Some("New words.".into()));
            converge(&fleet.world, BOUND).await;
            assert_eq!(fleet.soul().trim_end(), "New words.");
            sleep(Duration::from_secs(5)).await;
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_controller_that_crashes_again_and_again_does_not_fight_for_ever() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let mut replica: Replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let mut written = Vec::new();
            for nth in 2..12 {
                fleet.undo_soul();
                replica.crash().await;
                let before = file_writes(&fleet.world);
                replica = fleet.world.start(nth);
                sleep(Duration::from_mins(2)).await;
                written.push(file_writes(&fleet.world) - before);
            }
            assert_eq!(written, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], "{dialect:?}");
            replica.stop().await;
        });
    }
}

#[test]
fn a_field_of_the_config_that_is_fought_over_is_named_and_everything_else_converges() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            for _ in 0..2 {
                fleet.undo_heartbeat();
                until(FOUND, "put back", || fleet.heartbeat() == "10m").await;
                converge(&fleet.world, BOUND).await;
            }
            fleet.undo_heartbeat();
            let told = held(&fleet.world, fleet.gateway, "FightingWriter", FOUND).await;
            assert!(told.contains(&fleet.id) && told.contains("heartbeat"), "{told}");
            fleet
                .told_of_agent(ConditionType::Registered, "FightingWriter", FOUND)
                .await;
            sleep(Duration::from_secs(5)).await;
            rest(&fleet.world, &replica).await;
            assert_eq!(fleet.heartbeat(), "7m");

            // Another field of the same entry, and the files.
            edit_entry(fleet.sim(), &fleet.id, |entry| entry["name"] = json!("Somebody"));
            fleet.undo_soul();
            until(FOUND, "the name", || {
                let config = fleet.sim().config();
                entry(&config, &fleet.id).unwrap()["name"] != "Somebody"
            })
            .await;
            until(FOUND, "the file", || fleet.soul() != THEIRS).await;
            assert_eq!(fleet.heartbeat(), "7m");

            // The hourly try; it stays; the fight is over an hour later.
            until(HOUR + FOUND, "a try", || fleet.heartbeat() == "10m").await;
            sleep(Duration::from_mins(50)).await;
            held(&fleet.world, fleet.gateway, "FightingWriter", BOUND).await;
            converge(&fleet.world, Duration::from_mins(10) + FOUND).await;
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_gateway_that_loses_its_channels_whenever_it_restarts_is_not_restarted_for_ever() {
    for dialect in [SimDialect::V2026_4_29, SimDialect::V2026_7_1] {
        simulate(async {
            let mut fleet = fleet(dialect);
            // Restarts are not what ends this.
            fleet.world.restarts = 1000;
            let replica = fleet.world.start(1);
            let caused = || replica.metric("openclaw_controller_gateway_restarts_caused_total");
            let begin = Instant::now();
            let mut after = 0.0;
            while begin.elapsed() < Duration::from_mins(45) {
                sleep(Duration::from_secs(1)).await;
                // As soon as a restart has begun, somebody writes the config back as it was.
                if fleet.sim().is_down() {
                    fleet.sim().edit_config(|config| {
                        config.as_object_mut().unwrap().remove("channels");
                    });
                    sleep(Duration::from_secs(6)).await;
                }
                if begin.elapsed() < Duration::from_mins(10) {
                    after = caused();
                }
            }
            let told = held(&fleet.world, fleet.gateway, "FightingWriter", BOUND).await;
            for key in ["showOk", "showAlerts", "useIndicator"] {
                assert!(told.contains(key), "{dialect:?}: {told}");
            }
            assert!(
                caused() <= 3.0 && (caused() - after).abs() < 0.1,
                "{dialect:?}: {}",
                caused()
            );
            assert!(fleet.told(ConditionType::Ready).unwrap().status == ConditionStatus::True);
            sleep(RESYNC).await;
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_patch_that_fails_again_and_again_is_no_fight_and_uses_up_no_restarts() {
    let unavailable = Fault::Error {
        code: "UNAVAILABLE".into(),
        message: "gateway starting; retry shortly".into(),
        retry_after_ms: None,
    };
    for dialect in SimDialect::ALL {
        for fault in [unavailable.clone(), Fault::DropBefore] {
            simulate(async {
                let mut fleet = fleet(dialect);
                let faults = fleet.sim().faults();
                // The first patch of all, which restarts old gateways, is the one that fails.
                faults.always("config.patch", fault);
                let replica = fleet.world.start(1);
                sleep(Duration::from_mins(10)).await;
                fleet.sim().faults().clear();
                converge(&fleet.world, BOUND).await;
                replica.stop().await;
            });
        }
    }
}

#[test]
fn a_token_that_somebody_replaces_again_and_again_is_named_and_replaced_each_time() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let file = dialect.expected().token_file().as_str();
            let text = || fleet.sim().file(&fleet.id, file).unwrap_or_default();
            let theirs = format!("AUTH_TOKEN={}\n", token::mint().expose_secret());
            for _ in 0..3 {
                fleet.sim().edit_file(&fleet.id, file, &theirs);
                until(FOUND, "another token is there", || text() != theirs).await;
            }
            let told = fleet
                .told_of_agent(ConditionType::FilesSynced, "FightingWriter", BOUND)
                .await;
            assert!(told.contains(file), "{dialect:?}: {told}");
            fleet.sim().edit_file(&fleet.id, file, &theirs);
            until(FOUND, "its agent is not locked out", || text() != theirs).await;
            replica.stop().await;
        });
    }
}

#[test]
fn a_token_that_is_taken_away_again_and_again_is_put_back_each_time() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let file = dialect.expected().token_file().as_str();
            let holds = || {
                let text = fleet.sim().file(&fleet.id, file).unwrap_or_default();
                text.contains("AUTH_TOKEN=")
            };
            assert!(holds());
            for _ in 0..5 {
                fleet.sim().edit_file(&fleet.id, file, THEIRS);
                assert!(!holds());
                until(FOUND, "the token is back", holds).await;
            }
            replica.stop().await;
        });
    }
}
