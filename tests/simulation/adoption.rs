//! Gateways that are as they should be before the controller ever saw them, and agents on them that are nobody's business.

use std::collections::BTreeMap;
use std::time::Duration;

use openclaw_controller::model::{ConditionType, EnsureLeads, GatewayAgentId, UnmanagedReason};
use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::store::{MemoryStore, Store};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{FOREIGN, ORGANIZATION, World, edit_entry, entry, owner, put_on};
use crate::removal;
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::{all_check_in, until};

/// What another program, or another life of this one, has left on a gateway: a main agent, a lead and a worker that no row
/// explains, and an agent under the name of one that has a row.
const STRANGERS: [&str; 4] = [
    "mc-gateway-6b1f9d52-6a3e-4e0c-9f53-2f1f5a0d7c11",
    "lead-6b1f9d52-6a3e-4e0c-9f53-2f1f5a0d7c12",
    "mc-6b1f9d52-6a3e-4e0c-9f53-2f1f5a0d7c13",
    "wren",
];

/// Puts the strangers on a gateway, with files and with keys of which this controller knows nothing.
fn put_strangers(world: &mut World) {
    let gateway = world.places[0].gateway.clone();
    for stranger in STRANGERS {
        let id = GatewayAgentId::observed(stranger);
        put_on(&gateway, &id, "Agent 3");
        edit_entry(&gateway, stranger, |entry| {
            entry["heartbeat"] = json!({ "every": "7h", "target": "none" });
            entry["identity"] = json!({ "emoji": "🦉", "name": "  spaces  " });
        });
        gateway.edit_file(stranger, "AGENTS.md", "Not yours.\r\n\r\n");
        gateway.edit_file(stranger, "TOOLS.md", "- `AUTH_TOKEN=its-own`\n");
        world.existing.insert((world.places[0].id, id));
    }
    world.places[0].baseline = gateway.config();
}

/// All of an agent that is on a gateway, as text: its entry, and its files byte for byte.
fn all_of(gateway: &SimGateway, agent: &str) -> (String, BTreeMap<String, String>) {
    let config = gateway.config();
    let entry = entry(&config, agent).map(Value::to_string).unwrap_or_default();
    (entry, gateway.files(agent))
}

fn strangers(gateway: &SimGateway) -> Vec<(String, BTreeMap<String, String>)> {
    let ids = STRANGERS.into_iter().chain([FOREIGN, "main"]);
    ids.map(|id| all_of(gateway, id)).collect()
}

/// Puts another database in the place of the world's: the same rows, and nothing that the controller had written down.
async fn with_a_fresh_database(world: &mut World, fresh: MemoryStore) {
    fresh.set_owner(ORGANIZATION, Some(owner("Robin Keeper")));
    for snapshot in world.store.load_fleet().await.unwrap() {
        fresh.upsert_gateway(snapshot.gateway);
        for board in snapshot.boards.into_values() {
            fresh.upsert_board(board);
        }
        for row in snapshot.agents {
            fresh.upsert_agent(row);
        }
    }
    world.store = fresh;
}

#[test]
fn a_fresh_database_with_the_same_rows_adopts_what_matches_without_a_write_on_the_gateway() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, _) = removal::world(dialect);
            let fresh = MemoryStore::new();
            put_strangers(&mut world);
            let board = world.store.board_ids()[0];
            world.add_existing_worker(0, board);
            world.wake = true;
            all_check_in(&world);
            let first = world.start(1);
            converge(&world, BOUND).await;
            // The agents have been woken, and have checked in.
            sleep(BOUND).await;
            rest(&world, &first).await;
            first.stop().await;
            let (config, journal) = (world.places[0].gateway.config(), world.gateway_write_log());
            let requests = world.places[0].gateway.journal().len();

            with_a_fresh_database(&mut world, fresh).await;
            all_check_in(&world);
            let second = world.start(2);
            until("the second controller has looked at everything", BOUND, || {
                let mut agents = world.store.agent_ids().into_iter();
                let ready = agents.all(|id| {
                    let record = world.store.agent_record(id);
                    record.is_some_and(|record| record.conditions.is_true(ConditionType::Ready))
                });
                ready.then_some(())
            })
            .await;
            converge(&world, BOUND).await;
            rest(&world, &second).await;
            let gateway = &world.places[0].gateway;
            assert!(gateway.journal().len() > requests, "it was looked at");
            assert_eq!(world.gateway_write_log(), journal, "{dialect:?}: nothing was written");
            assert_eq!(gateway.config(), config);
        });
    }
}

#[test]
fn what_no_row_explains_is_listed_and_stays_byte_for_byte_whatever_the_controller_does() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let (mut world, [_, worker, _]) = removal::world(dialect);
            world.store.edit_agent(worker, |row| "Wren".clone_into(&mut row.name));
            put_strangers(&mut world);
            edit_entry(&world.places[0].gateway, "wren", |entry| {
                entry["name"] = json!("Wren");
                entry["workspace"] = json!("/own/wren");
            });
            world.places[0]
                .gateway
                .edit_file("wren", "AGENTS.md", "Not yours.\r\n\r\n");
            world.places[0].baseline = world.places[0].gateway.config();
            let before = strangers(&world.places[0].gateway);
            assert!(
                before
                    .iter()
                    .take(STRANGERS.len())
                    .all(|(entry, files)| { entry.contains("7h") && !files.is_empty() })
            );
            world.prune = true;
            world.leads = EnsureLeads::All;
            let gateway = world.places[0].id;
            let replica = world.start(1);
            converge(&world, BOUND).await;

            // A lead of the controller's making, an edit, a rotation, a removal, a leftover, and somebody's restart.
            world.add_board(Some(gateway));
            converge(&world, BOUND).await;
            let at = world.store.now();
            for agent in world.store.agent_ids() {
                world.store.edit_agent(agent, |row| {
                    row.name.push_str(" the Second");
                    row.soul_template = Some("Be kind, {{ agent_name }}.".into());
                    row.heartbeat_config = Some(Ok(json!({ "every": "25m" })));
                    row.requests.rotate = Some(at);
                });
            }
            converge(&world, BOUND).await;
            removal::request(&world, worker);
            sleep(Duration::from_secs(20)).await;
            converge(&world, BOUND).await;
            world.store.delete_agent(worker);
            let extra = world.add_agent(gateway, world.store.board_ids().first().copied(), false);
            converge(&world, BOUND).await;
            world.store.delete_agent(extra);
            world.places[0].gateway.restart();
            sleep(Duration::from_secs(20)).await;
            converge(&world, BOUND).await;
            // By then it is known whether the last write has restarted the gateway, or somebody else has.
            sleep(Duration::from_secs(25)).await;
            rest(&world, &replica).await;
            assert_eq!(strangers(&world.places[0].gateway), before, "{dialect:?}");

            let writes = (world.gateway_writes(), world.store.writes());
            let found = world.unmanaged(0).await;
            let listed: Vec<_> = found
                .agents
                .iter()
                .map(|agent| (agent.id.as_str(), agent.reason))
                .collect();
            let duplicates = [STRANGERS[1], STRANGERS[2], STRANGERS[0]];
            let expected = duplicates
                .map(|id| (id, UnmanagedReason::Duplicate))
                .into_iter()
                .chain(["main", FOREIGN, "wren"].map(|id| (id, UnmanagedReason::Unmanaged)));
            assert_eq!(listed, expected.collect::<Vec<_>>());
            assert_eq!(found.error, None);
            assert_eq!(
                (world.gateway_writes(), world.store.writes()),
                writes,
                "looking writes nothing"
            );
        });
    }
}
