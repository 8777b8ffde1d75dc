//! Arbitrary configs of gateways, with agents of anybody's.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_controller::model::GatewayAgentId;
use openclaw_controller::plan::{GatewayGoal, Refused, RemovalGoal, RosterGoal};
use openclaw_controller::sim::SimDialect;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Agents that goals name.
const OURS: [&str; 6] = ["mc-1", "mc-2", "mc-3", "lead-1", "mc-gateway-1", "mc-4"];

/// Agents that no goal names.
const THEIRS: [&str; 6] = ["main", "scout", "mc-gateway-9", "lead-9", "é b", "a.b"];

/// A gateway's dialect and config file, and what should become of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) dialect: SimDialect,
    pub(crate) file: Value,
    pub(crate) goal: GatewayGoal,
}

/// Any JSON; null is rare enough not to hide what is below it.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        3 => any::<i32>().prop_map(Value::from),
        4 => "[a-z é\n]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            object(&["id", "name", "heartbeat", "token", "a.b", ""], inner),
        ]
    })
}

/// An object with some of these keys.
fn object(keys: &[&str], value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let len = keys.len();
    prop::collection::btree_map(prop::sample::select(keys), value, 0..=len)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
        .boxed()
}

/// A text, an object or nothing, as the config's schema has it.
fn heartbeat() -> impl Strategy<Value = Value> {
    let hours = object(&["start", "end"], "[0-9]{1,2}:00".prop_map(Value::from));
    let value = prop_oneof![
        3 => "[0-9]{1,2}m".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        2 => hours,
        1 => prop::collection::vec("[a-z]{1,3}", 0..3).prop_map(|items| json!(items)),
    ];
    object(&["every", "target", "activeHours", "prompt", "to"], value)
}

/// An entry of the roster, without its id.
fn entry() -> impl Strategy<Value = Value> {
    let extra = object(&["identity", "tools", "model", "agentDir", "x"], anything());
    let name = prop::option::of(prop::sample::select(vec!["One", "Two", ""]));
    let workspace = prop::option::of(prop::sample::select(vec!["/ws/1", "/ws/2"]));
    (extra, name, workspace, prop::option::of(heartbeat())).prop_map(|(mut entry, name, workspace, heartbeat)| {
        for (key, value) in [
            ("name", name.map(Value::from)),
            ("workspace", workspace.map(Value::from)),
            ("heartbeat", heartbeat),
        ] {
            if let Some(value) = value {
                entry[key] = value;
            }
        }
        entry
    })
}

/// The `agents` of a config, in either shape, or without a roster.
fn agents() -> impl Strategy<Value = Value> {
    let ids: Vec<_> = OURS.into_iter().chain(THEIRS).collect();
    let roster = prop::collection::vec((prop::sample::select(ids), entry()), 0..6);
    let rest = object(&["defaults", "other"], anything());
    let ownership = prop::option::of(prop::sample::select(vec!["explicit", "sole"]));
    (rest, ownership, 0..5_u8, roster).prop_map(|(mut agents, ownership, shape, roster)| {
        if let Some(ownership) = ownership {
            agents["ownership"] = ownership.into();
        }
        match shape {
            0 => {}
            1 | 2 => {
                let listed = roster.into_iter().map(|(id, mut entry)| {
                    entry["id"] = id.into();
                    entry
                });
                agents["list"] = listed.collect();
            }
            _ => {
                let entries: Map<_, _> = roster.into_iter().map(|(id, entry)| (id.to_owned(), entry)).collect();
                agents["entries"] = entries.into();
            }
        }
        agents
    })
}

fn tools() -> impl Strategy<Value = Value> {
    let host = prop_oneof![Just(Value::Null), Just(json!("sandbox")), Just(json!("gateway"))];
    let exec = prop_oneof![
        Just(Value::Null),
        object(&["host"], host),
        object(&["security"], anything())
    ];
    prop_oneof![
        Just(Value::Null),
        object(&["exec"], exec),
        object(&["web", "allow"], anything())
    ]
}

fn channels() -> impl Strategy<Value = Value> {
    let flags = object(
        &["showOk", "showAlerts", "useIndicator", "other"],
        any::<bool>().prop_map(Value::from),
    );
    let visibility = prop_oneof![1 => Just(Value::Null), 4 => flags];
    let defaults = (
        object(&["groupPolicy"], anything()),
        object(&["heartbeat", "heartbeatVisibility"], visibility),
    );
    let defaults = defaults.prop_map(|(mut rest, visibility)| {
        merge(&mut rest, visibility);
        rest
    });
    (object(&["slack", "irc"], anything()), prop::option::of(defaults)).prop_map(|(mut channels, defaults)| {
        if let Some(defaults) = defaults {
            channels["defaults"] = defaults;
        }
        channels
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// A config file.
fn file() -> impl Strategy<Value = Value> {
    let rest = object(&["gateway", "logging", "messages", "cron", "plugins"], anything());
    let parts = (
        prop::option::of(agents()),
        prop::option::of(tools()),
        prop::option::of(channels()),
    );
    (rest, parts).prop_map(|(mut file, (agents, tools, channels))| {
        for (key, part) in [("agents", agents), ("tools", tools), ("channels", channels)] {
            if let Some(part) = part {
                file[key] = part;
            }
        }
        file
    })
}

/// What should become of a config.
fn goal() -> impl Strategy<Value = GatewayGoal> {
    let wanted = (
        prop::sample::select(vec!["One", "Two"]),
        prop::sample::select(vec!["/ws/1", "/ws/2"]),
        prop::option::of(heartbeat()),
    );
    let ours = prop::collection::btree_map(prop::sample::select(OURS.to_vec()), wanted, 0..6);
    let removed = prop::collection::btree_set(prop::sample::select(OURS.to_vec()), 0..3);
    (ours, removed.clone(), removed).prop_map(|(ours, removals, removed)| {
        let ours: BTreeMap<_, _> = ours.into_iter().filter(|(id, _)| !removals.contains(id)).collect();
        GatewayGoal {
            roster: ours
                .into_iter()
                .map(|(id, (name, workspace, heartbeat))| RosterGoal {
                    id: GatewayAgentId::observed(id),
                    name: name.to_owned(),
                    workspace: workspace.to_owned(),
                    heartbeat: heartbeat.and_then(|heartbeat| heartbeat.as_object().cloned()),
                })
                .collect(),
            removals: removals
                .into_iter()
                .map(|id| RemovalGoal {
                    id: GatewayAgentId::observed(id),
                    why: "it is to go",
                    begun: false,
                    refused: Refused::No,
                })
                .collect(),
            removed: removed
                .into_iter()
                .map(GatewayAgentId::observed)
                .collect::<BTreeSet<_>>(),
            ..GatewayGoal::default()
        }
    })
}

/// Any config of any dialect, and any goal.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    (prop::sample::select(SimDialect::ALL.to_vec()), file(), goal()).prop_map(|(dialect, file, goal)| Case {
        dialect,
        file,
        goal,
    })
}
