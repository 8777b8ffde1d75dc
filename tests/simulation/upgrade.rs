//! A gateway becomes another version on the same state, while the controller runs: what its doctor did was measured on a real one.

use std::collections::BTreeMap;
use std::time::Duration;

use openclaw_controller::model::{FileName, GatewayId};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::fleet::{FOREIGN, World};
use crate::promise;
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};

/// How long until a gateway that has gone is noticed and looked at again, and everything on it.
const FOUND: Duration = Duration::from_secs(132 + 60);

/// The gateway of this world as another version, on the same state, as the doctor of that version leaves it.
fn become_version(world: &mut World, dialect: SimDialect) {
    let old = world.places[0].gateway.clone();
    let new = SimGateway::new(dialect, "gateway-token");
    let (from, to) = (old.dialect().has_entries(), dialect.has_entries());
    let config = old.config();
    new.edit_config(|next| {
        let kept = ["logging", "tools"].map(|key| (key, config[key].clone()));
        for (key, value) in kept {
            next[key] = value;
        }
        next["agents"] = roster(&config, from, to);
        if !config["channels"].is_null() {
            let key = |entries| if entries { "heartbeatVisibility" } else { "heartbeat" };
            next["channels"] = json!({"defaults": {key(to): config["channels"]["defaults"][key(from)]}});
        }
    });
    for agent in old.roster() {
        let mut files: BTreeMap<_, _> = FileName::ALL
            .into_iter()
            .filter_map(|file| Some((file, old.file(&agent, file.as_str())?)))
            .collect();
        if to {
            files.remove(&FileName::Heartbeat);
            if let Some(tools) = files.remove(&FileName::Tools) {
                let agents = files.entry(FileName::Agents).or_default();
                *agents = format!("{agents}\n\n## Tools\n\n### Local notes (migrated from TOOLS.md)\n\n{tools}");
            }
        }
        for (file, text) in files {
            new.edit_file(&agent, file.as_str(), &text);
        }
    }
    let mut baseline = new.config();
    if let Some(entries) = baseline["agents"]["entries"].as_object_mut() {
        entries.retain(|id, _| id == "main" || id == FOREIGN);
    }
    if let Some(list) = baseline["agents"]["list"].as_array_mut() {
        list.retain(|entry| entry["id"] == "main" || entry["id"] == FOREIGN);
    }
    world.replace_gateway(0, new, baseline);
    old.restart();
}

fn roster(config: &Value, from: bool, to: bool) -> Value {
    let entries: Vec<(String, Value)> = if from {
        let entries = config["agents"]["entries"].as_object().unwrap();
        entries.iter().map(|(id, entry)| (id.clone(), entry.clone())).collect()
    } else {
        let list = config["agents"]["list"].as_array().unwrap().iter();
        list.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone()))
            .collect()
    };
    if !to {
        let list = entries.into_iter().map(|(id, mut entry)| {
            entry["id"] = json!(id);
            if id == "main" {
                entry.as_object_mut().unwrap().remove("workspace");
            }
            entry
        });
        return json!({ "list": list.collect::<Vec<_>>() });
    }
    let entries: Map<String, Value> = entries
        .into_iter()
        .map(|(id, mut entry)| {
            entry.as_object_mut().unwrap().remove("id");
            if let Some(heartbeat) = entry["heartbeat"].as_object_mut() {
                heartbeat.remove("includeReasoning");
            }
            if entry["heartbeat"].is_null() {
                entry.as_object_mut().unwrap().remove("heartbeat");
            }
            if id == "main" {
                entry["workspace"] = json!("/sim/state/workspace");
            }
            (id, entry)
        })
        .collect();
    json!({ "ownership": "explicit", "entries": entries })
}

/// An agent's id, and the tokens in its files.
type Tokens = (String, Vec<(FileName, Vec<String>)>);

/// The tokens in the files of every agent of ours.
fn tokens(world: &World, gateway: GatewayId) -> Vec<Tokens> {
    let sim = &world.places[0].gateway;
    let places = world.store.agent_ids().into_iter().map(|agent| {
        let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway).to_string();
        let files = FileName::ALL.into_iter().filter_map(|file| {
            let found = token::extract(&sim.file(&id, file.as_str())?);
            let found: Vec<_> = found
                .tokens()
                .iter()
                .map(|token| token.expose_secret().to_owned())
                .collect();
            (!found.is_empty()).then_some((file, found))
        });
        let files = files.collect();
        (id, files)
    });
    places.collect()
}

#[test]
fn a_gateway_that_is_upgraded_or_downgraded_converges_again_and_its_agents_keep_their_tokens() {
    use SimDialect::{V2026_4_29, V2026_7_1, V2026_9_6};
    for way in [
        vec![V2026_4_29, V2026_7_1],
        vec![V2026_7_1, V2026_9_6],
        vec![V2026_9_6, V2026_7_1],
        vec![V2026_4_29, V2026_9_6, V2026_4_29],
    ] {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(way[0]);
            let board = world.add_board(Some(gateway));
            world.add_agent(gateway, Some(board), true);
            world.add_agent(gateway, Some(board), false);
            world.add_agent(gateway, None, false);
            let replica = world.start(1);
            converge(&world, BOUND).await;
            sleep(Duration::from_secs(40)).await;
            let before = tokens(&world, gateway);
            for dialect in &way[1..] {
                become_version(&mut world, *dialect);
                let begin = Instant::now();
                // The statuses are those of before until the gateway is looked at again.
                sleep(Duration::from_secs(1)).await;
                while !promise::broken(&world).await.is_empty() {
                    assert!(begin.elapsed() < FOUND, "{way:?}: {:#?}", promise::broken(&world).await);
                    sleep(Duration::from_secs(1)).await;
                }
                let after = tokens(&world, gateway);
                for ((id, old), (_, new)) in before.iter().zip(&after) {
                    let [(file, found)] = new.as_slice() else {
                        panic!("{way:?}: {id} has tokens in {} files", new.len())
                    };
                    assert_eq!(*file, dialect.expected().token_file(), "{way:?}");
                    assert_eq!(found, &old[0].1, "{way:?}: {id} keeps its token");
                }
                sleep(Duration::from_secs(40)).await;
                rest(&world, &replica).await;
            }
            replica.stop().await;
        });
    }
}
