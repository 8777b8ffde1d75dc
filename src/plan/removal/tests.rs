use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::model::{AgentId, AgentRole, BoardId, ConfigSizes, Effect, EntrySize, GatewayId, RosterShape, Visibility};
use crate::plan::{RosterGoal, plan_gateway};

fn dialect(roster: RosterShape) -> Dialect {
    Dialect {
        protocol: 4,
        roster,
        heartbeat_keys: None,
        visibility: Some(Visibility::Heartbeat),
        retired_files: BTreeSet::new(),
        unlisted_files: BTreeSet::new(),
        channels_effect: Effect::Restart,
        roster_effect: Effect::Hot,
        heartbeat_effect: Effect::Hot,
        ownership_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

fn id(n: u128) -> GatewayAgentId {
    let id = Uuid::from_u128(n);
    GatewayAgentId::derive(AgentRole::Worker(BoardId(id)), AgentId(id), GatewayId(id))
}

fn remove(n: u128) -> RemovalGoal {
    RemovalGoal {
        id: id(n),
        why: "its removal was requested",
        begun: false,
        refused: Refused::No,
    }
}

fn goal(removals: Vec<RemovalGoal>) -> GatewayGoal {
    GatewayGoal {
        removals,
        ..GatewayGoal::default()
    }
}

/// A config with these agents, in either shape.
fn config(shape: RosterShape, agents: &[(GatewayAgentId, Value)]) -> Value {
    let mut config = json!({"gateway": {"mode": "local", "port": 18789, "auth": {"mode": "token", "token": "t"}}});
    match shape {
        RosterShape::Entries => {
            config["agents"]["entries"]["main"] = json!({});
            for (id, entry) in agents {
                config["agents"]["entries"][id.as_str()] = entry.clone();
            }
        }
        RosterShape::List => {
            let with_id = agents.iter().map(|(id, entry)| {
                let mut entry = entry.clone();
                entry["id"] = id.as_str().into();
                entry
            });
            config["agents"]["list"] = [json!({"id": "main"})].into_iter().chain(with_id).collect();
        }
    }
    config
}

fn size(value: &Value) -> usize {
    serde_json::to_string_pretty(value).unwrap().len() + 1
}

/// Every entry of a config's roster, by id.
fn roster(config: &Value) -> Vec<(String, &Value)> {
    if let Some(map) = config.pointer("/agents/entries").and_then(Value::as_object) {
        return map.iter().map(|(id, entry)| (id.clone(), entry)).collect();
    }
    let list = config["agents"]["list"].as_array().unwrap();
    list.iter()
        .map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry))
        .collect()
}

fn without(config: &Value, id: &str, key: Option<&str>) -> Value {
    let mut config = config.clone();
    match (
        config.pointer_mut("/agents/entries").and_then(Value::as_object_mut),
        key,
    ) {
        (Some(map), None) => drop(map.remove(id)),
        (Some(map), Some(key)) => drop(map[id].as_object_mut().unwrap().remove(key)),
        (None, key) => {
            let list = config["agents"]["list"].as_array_mut().unwrap();
            match key {
                None => list.retain(|entry| entry["id"] != id),
                Some(key) => {
                    let entry = list.iter_mut().find(|entry| entry["id"] == id).unwrap();
                    entry.as_object_mut().unwrap().remove(key);
                }
            }
        }
    }
    config
}

fn observe(shape: RosterShape, config: &Value) -> ObservedConfig {
    let file = size(config);
    let mut sizes = ConfigSizes {
        file,
        entries: BTreeMap::new(),
    };
    let mut entries = Vec::new();
    for (id, entry) in roster(config) {
        let keys = entry.as_object().unwrap().keys();
        let keys = keys.map(|key| (key.clone(), file - size(&without(config, &id, Some(key)))));
        let entry_size = EntrySize {
            total: file - size(&without(config, &id, None)),
            keys: keys.collect(),
        };
        sizes.entries.insert(GatewayAgentId::observed(&id), entry_size);
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        entries.push(RosterEntry {
            id: GatewayAgentId::observed(&id),
            name: text("name"),
            workspace: text("workspace"),
            heartbeat: entry.get("heartbeat").and_then(Value::as_object).cloned(),
        });
    }
    ObservedConfig {
        hash: Some("h".into()),
        both_shapes: false,
        written_by: None,
        shape: Some(shape),
        roster: entries,
        ownership: Some("explicit".into()),
        has_exec_host: true,
        heartbeat: Map::new(),
        heartbeat_visibility: Map::new(),
        sizes,
    }
}

/// Merges the fields that a patch has for an entry into it.
fn merge(entry: &mut Value, fields: &Value) {
    for (key, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(entry.as_object_mut().unwrap().remove(key)),
            Value::Object(_) => merge(&mut entry[key], value),
            value => entry[key] = value.clone(),
        }
    }
}

fn patched(config: &Value, patch: &Value) -> Value {
    let mut config = config.clone();
    if let Some(map) = patch.pointer("/agents/entries").and_then(Value::as_object) {
        for (id, fields) in map {
            merge(&mut config["agents"]["entries"][id], fields);
        }
    }
    for fields in patch
        .pointer("/agents/list")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let list = config["agents"]["list"].as_array_mut().unwrap();
        let entry = list.iter_mut().find(|entry| entry["id"] == fields["id"]).unwrap();
        merge(entry, fields);
    }
    config
}

/// Follows the plans until nothing is left to do; every write must be one that gateways take. Returns how many there were.
fn follow(shape: RosterShape, config: &mut Value, goal: &GatewayGoal) -> (usize, usize) {
    let accepted = |before: &Value, after: &Value| {
        let (before, after) = (size(before), size(after));
        assert!(before < 512 || after >= before / 2, "{before} -> {after}");
    };
    let (mut patches, mut removals) = (0, 0);
    for _ in 0..100 {
        let plan = plan_gateway(goal, &observe(shape, config), &dialect(shape));
        if plan.is_empty() {
            return (patches, removals);
        }
        if let Some(patch) = &plan.patch {
            let after = patched(config, patch);
            accepted(config, &after);
            *config = after;
            patches += 1;
            continue;
        }
        for step in &plan.removals {
            let after = without(config, step.id.as_str(), None);
            accepted(config, &after);
            *config = after;
            removals += 1;
        }
    }
    panic!("no end");
}

fn entry(prompt: usize) -> Value {
    json!({
        "name": "Wren",
        "workspace": "/srv/openclaw/workspaces/workspace-mc-0f000000-0000-4000-8000-000000000003",
        "heartbeat": {"every": "10m", "target": "last", "prompt": "x".repeat(prompt)},
    })
}

#[test]
fn an_agent_is_removed_if_it_is_there() {
    for shape in [RosterShape::List, RosterShape::Entries] {
        let config = config(shape, &[(id(1), entry(0)), (id(2), entry(0)), (id(3), entry(0))]);
        let plan = plan_gateway(
            &goal(vec![remove(1), remove(9)]),
            &observe(shape, &config),
            &dialect(shape),
        );
        assert_eq!(
            (plan.patch.as_ref(), plan.removals.len()),
            (None, 1),
            "who is not there needs no step"
        );
        assert_eq!(plan.removals[0].id, id(1));
    }
}

#[test]
fn a_removal_that_was_begun_is_asked_for_again_although_the_config_is_without_the_agent() {
    let config = config(RosterShape::Entries, &[(id(1), entry(0))]);
    let begun = RemovalGoal {
        begun: true,
        ..remove(9)
    };
    let shape = RosterShape::Entries;
    let plan = plan_gateway(&goal(vec![begun]), &observe(shape, &config), &dialect(shape));
    assert_eq!(plan.removals[0].id, id(9));
}

#[test]
fn few_are_removed_at_once_and_the_others_follow() {
    for shape in [RosterShape::List, RosterShape::Entries] {
        let agents: Vec<_> = (1..=30).map(|n| (id(n), entry(0))).collect();
        let mut config = config(shape, &agents);
        let all = goal((1..=30).map(remove).collect());
        let plan = plan_gateway(&all, &observe(shape, &config), &dialect(shape));
        assert_eq!(
            (plan.removals.len(), plan.removals_deferred),
            (MAX_REMOVALS_AT_ONCE, 26)
        );
        assert_eq!(follow(shape, &mut config, &all).1, 30);
        assert_eq!(roster(&config).len(), 1);
    }
}

#[test]
fn an_entry_that_is_most_of_the_config_loses_what_is_in_it_first() {
    for shape in [RosterShape::List, RosterShape::Entries] {
        for (prompt, most) in [(0, 1), (300, 2), (3_000, 5), (1_000_000, 16)] {
            let mut config = config(shape, &[(id(1), entry(prompt))]);
            let (patches, removals) = follow(shape, &mut config, &goal(vec![remove(1)]));
            assert!(patches <= most, "{patches} patches for {prompt} bytes");
            assert_eq!((removals, roster(&config).len()), (1, 1), "{prompt}");
        }
    }
}

#[test]
fn a_long_name_is_no_obstacle_and_a_workspace_stays_until_the_end() {
    for shape in [RosterShape::List, RosterShape::Entries] {
        let mut long = entry(0);
        long["name"] = "ü".repeat(5_000).into();
        let mut config = config(shape, &[(id(1), long)]);
        let workspace = entry(0)["workspace"].clone();
        let goal = goal(vec![remove(1)]);
        for _ in 0..100 {
            let plan = plan_gateway(&goal, &observe(shape, &config), &dialect(shape));
            let Some(patch) = plan.patch else { break };
            config = patched(&config, &patch);
            assert_eq!(roster(&config)[1].1["workspace"], workspace);
        }
        assert_eq!(follow(shape, &mut config, &goal).1, 1);
    }
}

#[test]
fn only_as_much_as_is_needed_is_taken_out() {
    let shape = RosterShape::List;
    let config = config(shape, &[(id(1), entry(200))]);
    let plan = plan_gateway(&goal(vec![remove(1)]), &observe(shape, &config), &dialect(shape));
    let [step] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    let ConfigChange::Lighten { keys, .. } = &step.change else {
        panic!("{step:?}")
    };
    assert_eq!(keys, &["heartbeat"], "the name stays");
    assert_eq!((plan.removals.len(), plan.removals_deferred), (0, 1));
}

#[test]
fn what_a_gateway_has_refused_is_lightened_or_waits_for_another_config() {
    let shape = RosterShape::List;
    let large = config(shape, &[(id(1), entry(0)), (id(2), entry(3_000)), (id(3), entry(0))]);
    let refused = |refused| goal(vec![RemovalGoal { refused, ..remove(1) }, remove(3)]);
    let plan = |goal: &GatewayGoal, config: &Value| plan_gateway(goal, &observe(shape, config), &dialect(shape));
    // Against what the sizes say: another count may be right, and the entry can become smaller.
    let first = plan(&refused(Refused::TooMuchAtOnce), &large);
    assert!(matches!(first.steps[0].change, ConfigChange::Lighten { .. }));
    let bare = config(
        shape,
        &[
            (id(1), json!({"workspace": "/w"})),
            (id(3), entry(0)),
            (id(4), entry(0)),
        ],
    );
    for reason in [Refused::TooMuchAtOnce, Refused::Otherwise] {
        let plan = plan(&refused(reason), &bare);
        assert!(plan.steps.is_empty());
        let ids: Vec<_> = plan.removals.iter().map(|step| step.id.clone()).collect();
        assert_eq!(ids, [id(3)], "others are not held up");
    }
}

#[test]
fn a_gateway_that_remembers_a_removal_is_asked_to_make_the_agent_itself() {
    let want = |n| RosterGoal {
        id: id(n),
        name: "Wren".into(),
        workspace: "/w".into(),
        heartbeat: None,
    };
    for shape in [RosterShape::List, RosterShape::Entries] {
        let config = config(shape, &[(id(9), entry(0))]);
        let goal = GatewayGoal {
            roster: vec![want(1), want(2)],
            removed: BTreeSet::from([id(1)]),
            ..GatewayGoal::default()
        };
        let plan = plan_gateway(&goal, &observe(shape, &config), &dialect(shape));
        let made: Vec<_> = plan.creations.iter().map(|step| step.id.clone()).collect();
        let added = plan
            .steps
            .iter()
            .filter(|step| matches!(step.change, ConfigChange::AddAgent { .. }))
            .count();
        match shape {
            RosterShape::Entries => assert_eq!((made, added), (vec![id(1)], 1)),
            RosterShape::List => assert_eq!((made, added), (vec![], 2), "a patch is enough there"),
        }
    }
}

#[test]
fn what_cannot_be_made_without_a_restart_waits_with_all_that_it_needs() {
    let want = |n| RosterGoal {
        id: id(n),
        name: "Wren".into(),
        workspace: "/w".into(),
        heartbeat: None,
    };
    let mut dialect = dialect(RosterShape::Entries);
    let config = config(RosterShape::Entries, &[(id(9), entry(0))]);
    let observed = ObservedConfig {
        ownership: None,
        ..observe(RosterShape::Entries, &config)
    };
    let mut goal = GatewayGoal {
        roster: vec![want(1), want(2)],
        removed: BTreeSet::from([id(1)]),
        ..GatewayGoal::default()
    };
    goal.hold.restarts = true;
    dialect.ownership_effect = Effect::Restart;
    let plan = plan_gateway(&goal, &observed, &dialect);
    let adds = |step: &ConfigStep| matches!(step.change, ConfigChange::AddAgent { .. });
    assert!(!plan.steps.iter().any(adds) && plan.held.iter().any(adds), "{plan:?}");
    assert_eq!((plan.creations.len(), plan.held_creations.len()), (1, 0));

    dialect.roster_effect = Effect::Restart;
    let plan = plan_gateway(&goal, &observed, &dialect);
    assert_eq!((plan.creations.len(), plan.held_creations.len()), (0, 1), "{plan:?}");
    goal.hold.restarts = false;
    let plan = plan_gateway(&goal, &observed, &dialect);
    assert!(plan.restarts() && plan.creation_effect() == Effect::Restart, "{plan:?}");
    let owned = plan.steps.iter().any(|step| step.change == ConfigChange::SetOwnership);
    assert!(owned && plan.steps.iter().any(adds), "{plan:?}");
}
