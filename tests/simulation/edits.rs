//! What people and other programs do to the rows.

use chrono::NaiveDateTime;
use openclaw_controller::model::{AgentId, AgentRow, BoardId, GatewayId};
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::fleet::{ORGANIZATION, owner};
use crate::schedule::Schedule;

impl Schedule {
    pub(crate) fn rows(&self) -> Vec<AgentRow> {
        let ids = self.world.store.agent_ids();
        ids.into_iter().filter_map(|id| self.world.store.agent(id)).collect()
    }

    pub(crate) fn pick_agent(&mut self) -> Option<AgentId> {
        self.world.store.agent_ids().choose(&mut self.rng).copied()
    }

    pub(crate) fn pick_place(&mut self) -> usize {
        self.rng.random_range(0..self.world.places.len())
    }

    pub(crate) fn pick_board(&mut self) -> Option<BoardId> {
        self.world.store.board_ids().choose(&mut self.rng).copied()
    }

    pub(crate) fn edit_rows(&mut self) {
        match self.rng.random_range(0..14) {
            0 | 1 => {
                let place = self.pick_place();
                let gateway = self.world.places[place].id;
                let board = if self.rng.random_bool(0.85) {
                    self.pick_board()
                } else {
                    None
                };
                let lead = board.is_some() && self.rng.random_bool(0.3);
                let agent = self.world.add_agent(gateway, board, lead);
                self.say(format!("insert agent {agent}, board {board:?}, lead {lead}"));
            }
            2 => {
                let place = self.pick_place();
                let gateway = self.world.places[place].id;
                let board = self.world.add_board(Some(gateway));
                self.say(format!("insert board {board}"));
            }
            3..=8 => self.edit_agent(),
            9 => {
                let Some(board) = self.pick_board() else { return };
                let to = if self.rng.random_bool(0.85) {
                    let place = self.pick_place();
                    Some(self.world.places[place].id)
                } else {
                    None
                };
                self.say(format!("move board {board} to {to:?}"));
                self.world.store.edit_board(board, |row| row.gateway_id = to);
            }
            10 => {
                let Some(board) = self.pick_board() else { return };
                let paused = self.rng.random_bool(0.5);
                self.say(format!("board {board} paused={paused}"));
                self.world.store.edit_board(board, |row| row.paused = paused);
            }
            11 => {
                let Some(board) = self.pick_board() else { return };
                self.say(format!("rename board {board}"));
                let name = format!("Board at {:?}", self.begin.elapsed());
                self.world.store.edit_board(board, |row| row.name = name);
            }
            12 => {
                let to = match self.rng.random_range(0..3) {
                    0 => None,
                    n => Some(owner(["Robin Keeper", "Kim Other"][n - 1])),
                };
                self.say(format!("owner {:?}", to.as_ref().and_then(|owner| owner.name.clone())));
                self.world.store.set_owner(ORGANIZATION, to);
            }
            _ => {
                let place = self.pick_place();
                let id = self.world.places[place].id;
                let root = *["/ws", "/elsewhere/", "  "].choose(&mut self.rng).unwrap();
                self.say(format!("gateway {id} workspace_root {root:?}"));
                self.world
                    .store
                    .edit_gateway(id, |row| root.clone_into(&mut row.workspace_root));
            }
        }
    }

    fn edit_agent(&mut self) {
        let Some(agent) = self.pick_agent() else { return };
        let nonce = self.rng.random_range(0..1000);
        let board = self.pick_board();
        let kind = self.rng.random_range(0..16);
        self.say(format!("edit {kind} of agent {agent}"));
        let store = &self.world.store;
        match kind {
            0 | 1 => store.edit_agent(agent, |row| row.name = format!("Renamed {nonce}")),
            // A main agent stays one, and the others get no main agent's place.
            2 | 3 => store.edit_agent(agent, |row| {
                if row.board_id.is_some() {
                    row.board_id = board;
                }
            }),
            4 => store.edit_agent(agent, |row| {
                row.is_board_lead = row.board_id.is_some() && !row.is_board_lead;
            }),
            5 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(
                    json!({ "every": format!("{}m", nonce + 1), "prompt": "Look around." }),
                ));
            }),
            6 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(json!({ "every": "now and then" })));
            }),
            7 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Err("expected value at line 1".into()));
            }),
            // A value that passes our check and not the gateway's, and a key that no gateway knows.
            8 => store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(
                    json!({ "every": "5m", "activeHours": { "start": "whenever" }, "zeal": 7 }),
                ));
            }),
            9 => store.edit_agent(agent, |row| {
                row.identity_profile = Some(Ok(json!({ "role": format!("Role {nonce}"), "emoji": ":fox_face:" })));
            }),
            10 => store.edit_agent(agent, |row| row.identity_profile = Some(Ok(json!("not an object")))),
            11 => store.edit_agent(agent, |row| {
                row.soul_template = Some(format!("I am {{{{ agent_name }}}}, {nonce}."));
            }),
            12 => store.edit_agent(agent, |row| {
                row.identity_template = Some("{{ nobody_knows_this }} {% if".into());
            }),
            13 => store.delete_agent(agent),
            14 => {
                store.edit_agent(agent, |row| {
                    row.delete_requested_at = match row.delete_requested_at {
                        None => Some(NaiveDateTime::default()),
                        Some(_) => None,
                    };
                });
                // What is removed has no files any more.
                let ids = |place: GatewayId| store.agent(agent).map(|row| row.gateway_agent_id(place).to_string());
                self.kept.retain(|(place, id, _), _| ids(*place).as_ref() != Some(id));
            }
            _ => match nonce % 4 {
                0 => store.edit_agent(agent, |row| row.session_key = Some("agent:main:main".into())),
                1 => store.edit_agent(agent, |row| row.token_hash = None),
                2 => store.edit_agent(agent, |row| row.requests.rotate = Some(store.now())),
                _ => store.check_in(agent, store.now().naive_utc()),
            },
        }
    }

    /// Corrects what is invalid; what merely excludes an agent may stay.
    pub(crate) fn correct_rows(&mut self) {
        let store = &self.world.store;
        for row in self.rows() {
            store.edit_agent(row.id, |row| {
                let bad_heartbeat = match &row.heartbeat_config {
                    Some(Ok(value)) => value["every"] == "now and then" || value.get("zeal").is_some(),
                    Some(Err(_)) => true,
                    None => false,
                };
                if bad_heartbeat {
                    row.heartbeat_config = None;
                }
                if matches!(&row.identity_profile, Some(Ok(value)) if !value.is_object()) {
                    row.identity_profile = None;
                }
                if row.identity_template.is_some() {
                    row.identity_template = Some("Corrected.".into());
                }
            });
        }
        for place in &self.world.places {
            store.edit_gateway(place.id, |row| row.token = Some("gateway-token".into()));
        }
    }
}
