//! What goes wrong: somebody else works on the gateways, connections and answers are lost, the database fails, controllers
//! crash.

use std::time::Duration;

use openclaw_controller::model::{FileName, GatewayAgentId};
use openclaw_controller::sim::{Fault, SimGateway};
use openclaw_controller::store::{Hint, WriteFault};
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::json;
use tokio::time::sleep;

use crate::fleet::edit_entry;
use crate::schedule::{Schedule, workspace_of};

impl Schedule {
    /// Somebody else works on a gateway.
    pub(crate) fn drift(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.choose(&mut self.rng) else { return };
        let place = self.pick_place();
        let (place, gateway) = (&self.world.places[place], self.world.places[place].gateway.clone());
        let (place, id) = (place.id, row.gateway_agent_id(place.id));
        let agent = id.as_str();
        let dialect = gateway.dialect().expected();
        let kind = self.rng.random_range(0..10);
        let mut names: Vec<FileName> = FileName::ALL
            .into_iter()
            .filter(|file| dialect.has_file(*file))
            .collect();
        names.retain(|file| !matches!(file, FileName::User | FileName::Memory));
        let file = *names.choose(&mut self.rng).unwrap();
        self.say(format!("drift {kind} of {agent} on {place}, {file}"));
        match kind {
            0 | 1 if exists(&gateway, &id, file) => gateway.edit_file(agent, file.as_str(), "Scribbled over."),
            2 | 3 => {
                gateway.delete_file(agent, file.as_str());
            }
            4 => {
                let token_file = dialect.token_file();
                if exists(&gateway, &id, token_file) {
                    gateway.edit_file(
                        agent,
                        token_file.as_str(),
                        "AUTH_TOKEN=bm90LXRoZS10b2tlbi1vZi10aGlzLWFnZW50LWF0LWFsbA",
                    );
                }
            }
            5 => edit_entry(&gateway, agent, |entry| {
                entry["heartbeat"] = json!({ "every": "99h", "model": "m" });
            }),
            6 => edit_entry(&gateway, agent, |entry| entry["name"] = json!("Somebody")),
            7 => {
                gateway.remove_agent(agent);
                self.kept.retain(|(p, a, _), _| (*p, a.as_str()) != (place, agent));
            }
            _ => {
                let own = if row.role().is_main() || self.rng.random_bool(0.5) {
                    FileName::Memory
                } else {
                    FileName::User
                };
                if exists(&gateway, &id, own) {
                    let text = format!("The agent's own words at {:?}.", self.begin.elapsed());
                    gateway.edit_file(agent, own.as_str(), &text);
                    if !self.delays && !self.world.prune {
                        let workspace = workspace_of(&gateway, agent);
                        self.kept.insert((place, agent.to_owned(), own), (workspace, text));
                    }
                }
            }
        }
    }

    pub(crate) fn gateway_fault(&mut self) {
        let place = self.pick_place();
        let (id, gateway) = (self.world.places[place].id, self.world.places[place].gateway.clone());
        let faults = gateway.faults();
        let kind = self.rng.random_range(0..12);
        self.say(format!("fault {kind} of gateway {id}"));
        match kind {
            0..=4 => {
                for _ in 0..self.rng.random_range(1..=4) {
                    let method = *[
                        "*",
                        "config.patch",
                        "config.get",
                        "agents.files.set",
                        "agents.files.get",
                        "agents.files.list",
                        "agents.delete",
                        "agents.create",
                        "connect",
                    ]
                    .choose(&mut self.rng)
                    .unwrap();
                    let fault = self.fault();
                    let nth = self.rng.random_range(1..=12);
                    self.say(format!("  {method} #{nth}: {fault:?}"));
                    faults.inject(method, nth, fault);
                }
            }
            5 | 6 if self.delays => faults.seeded(self.seed ^ 0x5eed, self.rng.random_range(10..300)),
            5 | 6 | 9 => gateway.cut_connections(),
            7 => faults.clear(),
            8 => gateway.restart(),
            10 => faults.refuse_next_connects(self.rng.random_range(1..6)),
            _ => {
                let token = if self.rng.random_bool(0.5) {
                    "wrong"
                } else {
                    "gateway-token"
                };
                self.world.store.edit_gateway(id, |row| row.token = Some(token.into()));
            }
        }
    }

    fn fault(&mut self) -> Fault {
        match self.rng.random_range(0..if self.delays { 9 } else { 8 }) {
            0 => Fault::DropBefore,
            1 => Fault::DropAfter,
            2 => Fault::CutFrame,
            3 => Fault::Nonsense,
            4 => Fault::LoseAnswer,
            5 => Fault::NeverAnswer,
            6 => Fault::Restart,
            7 => Fault::Error {
                code: "UNAVAILABLE".into(),
                message: "temporarily unavailable".into(),
                retry_after_ms: self.rng.random_bool(0.5).then_some(1500),
            },
            _ => Fault::Delay(Duration::from_millis(self.rng.random_range(0..20_000))),
        }
    }

    pub(crate) async fn store_fault(&mut self) {
        let kind = self.rng.random_range(0..8);
        self.say(format!("store fault {kind}"));
        let store = self.world.store.clone();
        match kind {
            0..=2 => {
                for _ in 0..self.rng.random_range(1..=3) {
                    let fault = *[WriteFault::Before, WriteFault::After].choose(&mut self.rng).unwrap();
                    store.fail_write(self.rng.random_range(1..=12), fault);
                }
            }
            3 => {
                store.set_unreachable(true);
                sleep(Duration::from_millis(self.rng.random_range(0..25_000))).await;
                store.set_unreachable(false);
            }
            4 => store.lose_hints(true),
            5 => store.lose_hints(false),
            6 => store.send_hint(Hint::Everything),
            _ => {
                let place = self.pick_place();
                for _ in 0..3 {
                    store.send_hint(Hint::Gateway(self.world.places[place].id));
                }
            }
        }
    }

    pub(crate) fn start_replica(&mut self) {
        let replica = self.world.start(self.seed);
        self.replicas.push(replica);
    }

    pub(crate) async fn replicas_come_and_go(&mut self) {
        let crash = self.rng.random_bool(0.7);
        if !self.replicas.is_empty() && (self.replicas.len() > 1 || self.rng.random_bool(0.7)) {
            let which = self.rng.random_range(0..self.replicas.len());
            let replica = self.replicas.swap_remove(which);
            self.say(if crash { "crash" } else { "stop" });
            if crash {
                self.crashes += 1;
                replica.crash().await;
            } else {
                replica.stop().await;
            }
            if self.rng.random_bool(0.3) {
                return;
            }
            sleep(Duration::from_millis(self.rng.random_range(0..20_000))).await;
        }
        self.say("start a replica");
        self.start_replica();
    }
}

fn exists(gateway: &SimGateway, agent: &GatewayAgentId, file: FileName) -> bool {
    gateway.file(agent.as_str(), file.as_str()).is_some()
}
