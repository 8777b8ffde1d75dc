//! Configs, and what is planned from them.

use serde_json::{Map, Value, json};

use super::assert_presentable;
use crate::gateway::heard;
use crate::model::{Dialect, GatewayAgentId, GatewayPlan, ObservedConfig};
use crate::plan::{GatewayGoal, Refused, RemovalGoal, RosterGoal, plan_gateway};
use crate::sim::SimDialect;

/// Reads the input as what `config.get`, `config.patch` and `config.schema.lookup` answered, and plans from it.
pub(super) fn run(input: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    heard::schema_node(&payload);
    if let Some(config) = heard::patched(&payload).config {
        plan(&config);
    }
    match heard::config(&payload) {
        Ok(config) => plan(&config),
        Err(error) => assert_presentable(&error),
    }
}

/// Plans for every dialect, with agents that are there and agents that are not, some of them to be removed.
fn plan(observed: &ObservedConfig) {
    for dialect in SimDialect::ALL.map(SimDialect::expected) {
        let mut ids: Vec<_> = observed.roster.iter().map(|entry| entry.id.clone()).take(6).collect();
        ids.push(GatewayAgentId::observed("mc-new"));
        ids.sort();
        ids.dedup();
        let goal = |removed: usize| GatewayGoal {
            roster: ids.iter().skip(removed).map(wanted).collect(),
            removals: ids.iter().take(removed).map(unwanted).collect(),
            ..GatewayGoal::default()
        };
        for removed in [0, 2] {
            let plan = plan_gateway(&goal(removed), observed, &dialect);
            assert_eq!(plan, plan_gateway(&goal(removed), observed, &dialect), "the same again");
            names_only(&plan, &ids, &dialect);
        }
        let nothing = plan_gateway(&GatewayGoal::default(), observed, &dialect);
        assert!(nothing.is_empty() && nothing.patch.is_none(), "nothing is wanted");
    }
}

fn wanted(id: &GatewayAgentId) -> RosterGoal {
    let heartbeat = json!({"every": "10m", "target": "last"});
    RosterGoal {
        id: id.clone(),
        name: format!("Agent {id}"),
        workspace: format!("/ws/{id}"),
        heartbeat: Some(heartbeat.as_object().cloned().unwrap_or_default()),
    }
}

fn unwanted(id: &GatewayAgentId) -> RemovalGoal {
    RemovalGoal {
        id: id.clone(),
        why: "it is to go",
        begun: false,
        refused: Refused::No,
    }
}

/// Asserts that a patch names nothing but what is ours: these agents, and the three settings.
fn names_only(plan: &GatewayPlan, ids: &[GatewayAgentId], dialect: &Dialect) {
    let Some(patch) = &plan.patch else { return };
    let keys = |value: &Value, allowed: &[&str]| {
        let map: &Map<String, Value> = value.as_object().expect("an object");
        assert!(map.keys().all(|key| allowed.contains(&key.as_str())), "{patch}");
    };
    keys(patch, &["agents", "tools", "channels"]);
    if let Some(agents) = patch.get("agents") {
        keys(agents, &["list", "entries", "ownership"]);
        let of_list = agents.get("list").and_then(Value::as_array).into_iter().flatten();
        let listed = of_list.map(|entry| (entry["id"].as_str().unwrap_or_default().to_owned(), entry));
        let of_map = agents.get("entries").and_then(Value::as_object).into_iter().flatten();
        let mapped = of_map.map(|(id, entry)| (id.clone(), entry));
        for (id, entry) in listed.chain(mapped) {
            let is_ours = ids.iter().any(|ours| ours.as_str() == id);
            assert!(is_ours || entry == &json!({"id": "main"}), "{patch}");
        }
    }
    if let Some(tools) = patch.get("tools") {
        assert_eq!(tools, &json!({"exec": {"host": "gateway"}}));
    }
    if let Some(channels) = patch.get("channels") {
        let key = dialect.visibility.expect("it has one").key();
        keys(channels, &["defaults"]);
        keys(&channels["defaults"], &[key]);
        keys(&channels["defaults"][key], &["showOk", "showAlerts", "useIndicator"]);
    }
}
