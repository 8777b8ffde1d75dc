//! What the controller is in the middle of when it crashes.

use openclaw_controller::model::{AgentId, ConditionType, EnsureLeads, FileName};
use openclaw_controller::sim::SimDialect;
use serde_json::json;

use crate::fleet::World;
use crate::wakes::{all_check_in, condition, keys};

/// One thing that the controller does from beginning to end.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The rows.
    pub(crate) prepare: fn(&mut World, SimDialect),
    /// What is asked for once the rows have converged; nothing: the controller is watched from its start.
    pub(crate) act: Option<fn(&World)>,
    /// What was asked for and is not done yet, beyond the promise; in the end nothing.
    pub(crate) missing: fn(&World, &Before) -> Vec<String>,
    /// Writes on the gateway, by method, of which a crash may cause more: they repeat nothing that anybody notices.
    pub(crate) repeatable: &'static [&'static str],
    /// How many more writes in the store a crash may cause: a token whose plaintext died with the process is replaced, so
    /// there may be another candidate for each agent that gets one; and a restart that was about to come is written down again.
    pub(crate) more_store_writes: usize,
}

/// What there was before the act.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// The agents' tokens, as their files held them.
    pub(crate) tokens: Vec<(AgentId, String)>,
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "first provisioning",
        prepare: three_agents,
        act: None,
        missing: nothing_more,
        repeatable: &[],
        more_store_writes: 4,
    },
    Scenario {
        name: "update",
        prepare: three_agents,
        act: Some(|world| {
            world.store.edit_agent(worker(world), |row| {
                "Renamed".clone_into(&mut row.name);
                row.soul_template = Some("Be kind, {{ agent_name }}.".into());
                row.heartbeat_config = Some(Ok(json!({ "every": "25m" })));
            });
        }),
        missing: nothing_more,
        repeatable: &[],
        more_store_writes: 0,
    },
    Scenario {
        name: "rotation",
        prepare: three_agents,
        act: Some(|world| {
            let at = world.store.now();
            for agent in world.store.agent_ids() {
                world.store.edit_agent(agent, |row| row.requests.rotate = Some(at));
            }
        }),
        missing: old_tokens,
        repeatable: &[],
        more_store_writes: 3,
    },
    Scenario {
        name: "first provisioning and wake",
        prepare: three_that_check_in,
        act: None,
        missing: wakes,
        repeatable: WAKING,
        more_store_writes: 9,
    },
    Scenario {
        name: "wake",
        prepare: three_that_check_in,
        act: Some(|world| {
            world.store.edit_agent(worker(world), |row| {
                row.soul_template = Some("Be kind, {{ agent_name }}.".into());
            });
        }),
        missing: wakes,
        repeatable: WAKING,
        more_store_writes: 3,
    },
    Scenario {
        name: "delete",
        prepare: three_agents,
        act: Some(|world| {
            let at = world.store.now().naive_utc();
            world
                .store
                .edit_agent(worker(world), |row| row.delete_requested_at = Some(at));
        }),
        missing: nothing_more,
        // Whether the gateway had come to its end is asked for by the same call; there is nothing left to remove then.
        repeatable: &["agents.delete"],
        more_store_writes: 0,
    },
    Scenario {
        name: "delete of most of the config",
        prepare: |world, dialect| {
            let id = world.add_gateway(dialect);
            let board = world.add_board(Some(id));
            let agent = world.add_agent(id, Some(board), false);
            world.store.edit_agent(agent, |row| {
                row.heartbeat_config = Some(Ok(json!({ "every": "10m", "prompt": "Look around. ".repeat(80) })));
            });
        },
        act: Some(|world| {
            let at = world.store.now().naive_utc();
            world
                .store
                .edit_agent(worker(world), |row| row.delete_requested_at = Some(at));
        }),
        missing: nothing_more,
        repeatable: &["agents.delete"],
        more_store_writes: 0,
    },
    Scenario {
        name: "prune",
        prepare: |world, dialect| {
            world.prune = true;
            three_agents(world, dialect);
        },
        act: Some(|world| world.store.delete_agent(worker(world))),
        missing: nothing_more,
        repeatable: &["agents.delete"],
        // The event is recorded before what it tells of is.
        more_store_writes: 1,
    },
    Scenario {
        name: "lead creation, from a cold start",
        prepare: |world, dialect| {
            world.leads = EnsureLeads::All;
            unled_board(world, dialect);
        },
        act: None,
        missing: not_one_lead,
        repeatable: &[],
        more_store_writes: 4,
    },
    Scenario {
        name: "lead creation, once a goal is confirmed",
        prepare: |world, dialect| {
            world.leads = EnsureLeads::Confirmed;
            unled_board(world, dialect);
        },
        act: Some(|world| {
            for board in world.store.board_ids() {
                world.store.edit_board(board, |board| board.goal_confirmed = true);
            }
        }),
        missing: not_one_lead,
        repeatable: &[],
        more_store_writes: 1,
    },
];

/// A wake that was committed and not sent is followed, at its deadline, by one that resets the session first. Messages are
/// not repeated.
const WAKING: &[&str] = &["sessions.patch", "sessions.reset"];

/// A board with a goal, a worker and no lead; and a main agent.
fn unled_board(world: &mut World, dialect: SimDialect) {
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    world.store.edit_board(board, |board| board.board_type = "goal".into());
    world.add_agent(id, Some(board), false);
    world.add_agent(id, None, false);
}

/// Boards that have no lead, or more than one.
fn not_one_lead(world: &World, _: &Before) -> Vec<String> {
    let rows = || {
        world
            .store
            .agent_ids()
            .into_iter()
            .filter_map(|id| world.store.agent(id))
    };
    let leads = |board| {
        rows()
            .filter(|row| row.is_board_lead && row.board_id == Some(board))
            .count()
    };
    let boards = world.store.board_ids().into_iter();
    boards
        .filter_map(|board| Some((board, leads(board))).filter(|(_, leads)| *leads != 1))
        .map(|(board, leads)| format!("board {board} has {leads} leads"))
        .collect()
}

/// A lead, a worker and a main agent on one gateway.
fn three_agents(world: &mut World, dialect: SimDialect) {
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    world.add_agent(id, Some(board), true);
    world.add_agent(id, Some(board), false);
    world.add_agent(id, None, false);
}

/// The same, woken, and they check in.
fn three_that_check_in(world: &mut World, dialect: SimDialect) {
    world.wake = true;
    three_agents(world, dialect);
    all_check_in(world);
}

/// The worker of [`three_agents`].
pub(crate) fn worker(world: &World) -> AgentId {
    let ids = world.store.agent_ids();
    let rows = ids.into_iter().filter_map(|id| world.store.agent(id));
    let mut workers = rows.filter(|row| row.board_id.is_some() && !row.is_board_lead);
    workers.next().unwrap().id
}

fn nothing_more(_: &World, _: &Before) -> Vec<String> {
    Vec::new()
}

/// Agents that got another number of messages than one for their first provisioning and one for each change of their row
/// since, or that have not checked in after the last.
fn wakes(world: &World, _: &Before) -> Vec<String> {
    let wrong = |agent: AgentId| {
        let row = world.store.agent(agent)?;
        let wanted = 1 + usize::from(row.soul_template.is_some());
        let got = keys(world, agent);
        let checked_in =
            condition(world, agent, ConditionType::CheckedIn).is_some_and(|found| found.reason == "CheckedIn");
        (got.len() != wanted || !checked_in)
            .then(|| format!("{agent}: {wanted} messages wanted, got {got:?}, checked in: {checked_in}"))
    };
    world.store.agent_ids().into_iter().filter_map(wrong).collect()
}

/// Agents whose files still hold the tokens that they had before.
fn old_tokens(world: &World, before: &Before) -> Vec<String> {
    let gateway = &world.places[0].gateway;
    let still = |(agent, secret): &(AgentId, String)| {
        let row = world.store.agent(*agent)?;
        let id = row.gateway_agent_id(world.places[0].id);
        let holds = |file: &FileName| {
            let text = gateway.file(id.as_str(), file.as_str());
            text.is_some_and(|text| text.contains(secret))
        };
        let file = FileName::ALL.into_iter().find(holds)?;
        Some(format!("{id}: the old token is still in {file}"))
    };
    before.tokens.iter().filter_map(still).collect()
}
