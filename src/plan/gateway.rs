//! Planning a gateway's config: the roster, heartbeats, the tool host and the visibility of heartbeats, as one patch.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::merge::patch_to;
use super::removal::{RemovalGoal, plan_removals};
use crate::model::{
    ConfigChange, ConfigPart, ConfigStep, CreationStep, Dialect, Effect, GatewayAgentId, GatewayPlan, ObservedConfig,
    RosterShape, Visibility,
};

/// How many agents one patch adds at most. The cost of a patch grows with the whole roster (measured on 2026.9.6: 100 new
/// agents 20 s, 300 in one patch 178 s, the same 300 as three patches of 100 151 s).
pub const MAX_NEW_AGENTS_PER_PATCH: usize = 100;

/// How many agents a gateway is asked to make itself before the config is looked at again: each takes 1.5 s on 2026.9.6.
const MAX_CREATIONS_AT_ONCE: usize = 4;

/// The agent that a gateway has while its config lists none. Listing any other agent without it would make that one the
/// gateway's default (measured on 2026.4.29).
const IMPLICIT_AGENT: &str = "main";

/// What the channels' default heartbeat visibility gets where a key is missing.
const VISIBILITY: [(&str, bool); 3] = [("showOk", false), ("showAlerts", true), ("useIndicator", true)];

/// What one roster entry should hold; the heartbeat is already limited to the keys that the dialect knows.
#[derive(Clone, Debug, PartialEq)]
pub struct RosterGoal {
    /// The agent's id on the gateway.
    pub id: GatewayAgentId,
    /// Its name.
    pub name: String,
    /// Its workspace directory.
    pub workspace: String,
    /// Its heartbeat; `None` leaves whatever is there alone (the row's own is invalid).
    pub heartbeat: Option<Map<String, Value>>,
}

/// What a gateway's config should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayGoal {
    /// The agents, oldest first.
    pub roster: Vec<RosterGoal>,
    /// Agents that should not be there. None of them is in `roster`.
    pub removals: Vec<RemovalGoal>,
    /// Agents that were removed from this gateway before.
    pub removed: BTreeSet<GatewayAgentId>,
    /// What is not to be written at present although it differs.
    pub hold: Hold,
}

/// What is not written at present although it differs; it shows in the plan as held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Whatever would restart the gateway.
    pub restarts: bool,
    /// Fields, by their paths ([`ConfigChange::field`]).
    pub fields: BTreeSet<String>,
}

impl Hold {
    fn holds(&self, change: &ConfigChange, effect: Effect, shape: RosterShape) -> bool {
        (self.restarts && effect == Effect::Restart)
            || (!self.fields.is_empty() && self.fields.contains(&change.field(shape)))
    }
}

/// Steps as they are found, those that are held apart.
pub(super) struct Steps<'a> {
    plan: &'a mut GatewayPlan,
    hold: &'a Hold,
    shape: RosterShape,
    dialect: &'a Dialect,
    /// Whether a new agent has to come with `agents.ownership`: then the one is not made without the other.
    lacks_ownership: bool,
}

impl Steps<'_> {
    /// Plans a change. `false` if it is held: then nothing of it may get into the patch.
    pub(super) fn add(&mut self, change: ConfigChange, why: &str) -> bool {
        let brings = match change {
            ConfigChange::AddAgent { .. } if self.lacks_ownership => ConfigChange::SetOwnership.parts(),
            _ => &[],
        };
        let parts = change.parts().iter().chain(brings);
        let effect = parts.map(|part| self.dialect.effect(*part)).max();
        let effect = effect.unwrap_or(Effect::Restart);
        let held = self.hold.holds(&change, effect, self.shape);
        let step = ConfigStep {
            change,
            why: why.into(),
            effect,
        };
        if held {
            self.plan.held.push(step);
        } else {
            self.plan.steps.push(step);
        }
        !held
    }
}

/// Plans the one patch that takes a gateway's config towards the goal, and the agents to be made before and removed after it.
/// Agents that no goal names, and every key that is not ours, are left as they are; a gateway without any agent of ours is not
/// touched at all.
pub fn plan_gateway(goal: &GatewayGoal, observed: &ObservedConfig, dialect: &Dialect) -> GatewayPlan {
    let mut plan = GatewayPlan::default();
    let shape = observed.shape.unwrap_or(dialect.roster);
    let mut entries: Vec<(GatewayAgentId, Map<String, Value>)> = Vec::new();
    let mut added = 0;
    for want in &goal.roster {
        let is_new = observed.entry(&want.id).is_none();
        if is_new {
            // These gateways remember whom they removed, and take them back by a call of its own only.
            if shape == RosterShape::Entries && goal.removed.contains(&want.id) {
                let step = CreationStep {
                    id: want.id.clone(),
                    workspace: want.workspace.clone(),
                    why: "not in the roster, and was removed from this gateway before".into(),
                    effect: dialect.effect(ConfigPart::Roster),
                };
                if goal.hold.restarts && step.effect == Effect::Restart {
                    plan.held_creations.push(step);
                } else if plan.creations.len() == MAX_CREATIONS_AT_ONCE {
                    plan.deferred += 1;
                } else {
                    plan.creations.push(step);
                }
                continue;
            }
            if added == MAX_NEW_AGENTS_PER_PATCH {
                plan.deferred += 1;
                continue;
            }
        }
        let fields = plan_entry(&mut steps(&mut plan, goal, observed, dialect), want, observed);
        if !fields.is_empty() {
            added += usize::from(is_new);
            entries.push((want.id.clone(), fields));
        }
    }
    entries.extend(plan_removals(&mut plan, goal, observed, dialect));
    let mut patch = Map::new();
    if !entries.is_empty() {
        let mut steps = steps(&mut plan, goal, observed, dialect);
        patch.insert("agents".into(), roster_patch(&mut steps, entries, added, observed));
    }
    let has_agents = !goal.roster.is_empty();
    let mut steps = steps(&mut plan, goal, observed, dialect);
    if has_agents && !observed.has_exec_host && steps.add(ConfigChange::SetExecHost, "tools.exec.host is not set") {
        patch.insert("tools".into(), json!({"exec": {"host": "gateway"}}));
    }
    if has_agents && let Some(visibility) = plan_visibility(&mut steps, observed) {
        patch.insert("channels".into(), visibility);
    }
    if !plan.steps.is_empty() {
        plan.patch = Some(Value::Object(patch));
    }
    plan
}

fn steps<'a>(
    plan: &'a mut GatewayPlan,
    goal: &'a GatewayGoal,
    observed: &ObservedConfig,
    dialect: &'a Dialect,
) -> Steps<'a> {
    let shape = observed.shape.unwrap_or(dialect.roster);
    Steps {
        plan,
        hold: &goal.hold,
        shape,
        dialect,
        lacks_ownership: shape == RosterShape::Entries && observed.ownership.is_none(),
    }
}

/// Compares one roster entry and returns the fields to write, empty if none differ.
fn plan_entry(steps: &mut Steps<'_>, want: &RosterGoal, observed: &ObservedConfig) -> Map<String, Value> {
    let mut fields = Map::new();
    let Some(have) = observed.entry(&want.id) else {
        let heartbeat = want.heartbeat.clone().unwrap_or_default();
        let change = ConfigChange::AddAgent {
            id: want.id.clone(),
            name: want.name.clone(),
            workspace: want.workspace.clone(),
            heartbeat: heartbeat.clone(),
        };
        if steps.add(change, "not in the roster") {
            fields.insert("name".into(), want.name.clone().into());
            fields.insert("workspace".into(), want.workspace.clone().into());
            if want.heartbeat.is_some() {
                fields.insert("heartbeat".into(), heartbeat.into());
            }
        }
        return fields;
    };
    if have.name.as_deref() != Some(&want.name) {
        let change = ConfigChange::SetName {
            id: want.id.clone(),
            from: have.name.clone(),
            to: want.name.clone(),
        };
        if steps.add(change, "the name differs from the row's") {
            fields.insert("name".into(), want.name.clone().into());
        }
    }
    if have.workspace.as_deref() != Some(&want.workspace) {
        let change = ConfigChange::SetWorkspace {
            id: want.id.clone(),
            from: have.workspace.clone(),
            to: want.workspace.clone(),
        };
        if steps.add(change, "the workspace differs") {
            fields.insert("workspace".into(), want.workspace.clone().into());
        }
    }
    if let Some(heartbeat) = &want.heartbeat
        && have.heartbeat.as_ref() != Some(heartbeat)
    {
        let change = ConfigChange::SetHeartbeat {
            id: want.id.clone(),
            from: have.heartbeat.clone(),
            to: heartbeat.clone(),
        };
        if steps.add(change, "the heartbeat differs from the row's") {
            let merge = patch_to(have.heartbeat.as_ref().unwrap_or(&Map::new()), heartbeat);
            fields.insert("heartbeat".into(), merge.into());
        }
    }
    fields
}

/// The `agents` part of the patch.
fn roster_patch(
    steps: &mut Steps<'_>,
    entries: Vec<(GatewayAgentId, Map<String, Value>)>,
    added: usize,
    observed: &ObservedConfig,
) -> Value {
    match steps.shape {
        RosterShape::List => {
            let mut list = Vec::with_capacity(entries.len() + 1);
            if observed.roster.is_empty() {
                list.push(json!({"id": IMPLICIT_AGENT}));
            }
            for (id, mut fields) in entries {
                fields.insert("id".into(), id.as_str().into());
                list.push(fields.into());
            }
            json!({"list": list})
        }
        RosterShape::Entries => {
            let mut agents = Map::new();
            let missing = added > 0 && observed.ownership.is_none();
            if missing && steps.add(ConfigChange::SetOwnership, "a roster of more than one agent needs it") {
                agents.insert("ownership".into(), "explicit".into());
            }
            let entries: Map<_, _> = entries
                .into_iter()
                .map(|(id, fields)| (id.as_str().to_owned(), fields.into()))
                .collect();
            agents.insert("entries".into(), entries.into());
            agents.into()
        }
    }
}

/// The `channels` part of the patch: only the keys that are missing.
fn plan_visibility(steps: &mut Steps<'_>, observed: &ObservedConfig) -> Option<Value> {
    let visibility = steps.dialect.visibility?;
    let have = match visibility {
        Visibility::Heartbeat => &observed.heartbeat,
        Visibility::HeartbeatVisibility => &observed.heartbeat_visibility,
    };
    let mut missing = Map::new();
    for (key, value) in VISIBILITY {
        if have.contains_key(key) {
            continue;
        }
        let change = ConfigChange::SetVisibility {
            path: format!("channels.defaults.{}", visibility.key()),
            key: key.into(),
            value,
        };
        if steps.add(change, "not set") {
            missing.insert(key.into(), value.into());
        }
    }
    (!missing.is_empty()).then(|| json!({"defaults": {visibility.key(): missing}}))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::model::{AgentId, AgentRole, BoardId, ConfigSizes, GatewayId, RosterEntry};

    fn dialect(roster: RosterShape) -> Dialect {
        Dialect {
            protocol: 4,
            roster,
            heartbeat_keys: None,
            visibility: Some(match roster {
                RosterShape::List => Visibility::Heartbeat,
                RosterShape::Entries => Visibility::HeartbeatVisibility,
            }),
            retired_files: BTreeSet::new(),
            unlisted_files: BTreeSet::new(),
            channels_effect: Effect::Restart,
            roster_effect: Effect::Hot,
            heartbeat_effect: Effect::Hot,
            ownership_effect: Effect::Hot,
            tools_effect: Effect::Hot,
        }
    }

    fn agent(n: u128) -> GatewayAgentId {
        let id = Uuid::from_u128(n);
        GatewayAgentId::derive(AgentRole::Worker(BoardId(id)), AgentId(id), GatewayId(id))
    }

    fn heartbeat() -> Map<String, Value> {
        json!({"every": "10m", "target": "last"}).as_object().unwrap().clone()
    }

    fn goal(n: u128) -> RosterGoal {
        RosterGoal {
            id: agent(n),
            name: format!("Agent {n}"),
            workspace: format!("/ws/{n}"),
            heartbeat: Some(heartbeat()),
        }
    }

    fn empty(shape: Option<RosterShape>) -> ObservedConfig {
        ObservedConfig {
            hash: Some("h".into()),
            shape,
            both_shapes: false,
            written_by: None,
            roster: vec![],
            ownership: None,
            has_exec_host: false,
            heartbeat: Map::new(),
            heartbeat_visibility: Map::new(),
            sizes: ConfigSizes::default(),
        }
    }

    fn only(roster: Vec<RosterGoal>) -> GatewayGoal {
        GatewayGoal {
            roster,
            ..GatewayGoal::default()
        }
    }

    /// What a gateway would hold after the plan's steps.
    fn apply(observed: &ObservedConfig, plan: &GatewayPlan, dialect: &Dialect) -> ObservedConfig {
        let mut after = observed.clone();
        for step in &plan.steps {
            match &step.change {
                ConfigChange::AddAgent {
                    id,
                    name,
                    workspace,
                    heartbeat,
                } => after.roster.push(RosterEntry {
                    id: id.clone(),
                    name: Some(name.clone()),
                    workspace: Some(workspace.clone()),
                    heartbeat: Some(heartbeat.clone()),
                }),
                ConfigChange::SetName { id, to, .. } => {
                    after.roster.iter_mut().find(|e| e.id == *id).unwrap().name = Some(to.clone());
                }
                ConfigChange::SetWorkspace { id, to, .. } => {
                    after.roster.iter_mut().find(|e| e.id == *id).unwrap().workspace = Some(to.clone());
                }
                ConfigChange::SetHeartbeat { id, to, .. } => {
                    after.roster.iter_mut().find(|e| e.id == *id).unwrap().heartbeat = Some(to.clone());
                }
                ConfigChange::Lighten { .. } => panic!("nothing is to be removed"),
                ConfigChange::SetOwnership => after.ownership = Some("explicit".into()),
                ConfigChange::SetExecHost => after.has_exec_host = true,
                ConfigChange::SetVisibility { key, value, .. } => {
                    let map = match dialect.visibility.unwrap() {
                        Visibility::Heartbeat => &mut after.heartbeat,
                        Visibility::HeartbeatVisibility => &mut after.heartbeat_visibility,
                    };
                    map.insert(key.clone(), (*value).into());
                }
            }
        }
        after
    }

    #[test]
    fn a_cold_start_is_one_patch_and_planning_again_is_empty() {
        for shape in [RosterShape::List, RosterShape::Entries] {
            let dialect = dialect(shape);
            let goal = only((1..=3).map(goal).collect());
            let observed = empty(None);
            let plan = plan_gateway(&goal, &observed, &dialect);
            assert!(plan.patch.is_some());
            assert_eq!(plan.effect(), Effect::Restart);
            let again = plan_gateway(&goal, &apply(&observed, &plan, &dialect), &dialect);
            assert!(again.is_empty() && again.patch.is_none(), "{again:?}");
        }
    }

    #[test]
    fn the_first_agents_of_a_list_do_not_replace_the_implicit_default() {
        let plan = plan_gateway(
            &only(vec![goal(1)]),
            &empty(Some(RosterShape::List)),
            &dialect(RosterShape::List),
        );
        let list = &plan.patch.unwrap()["agents"]["list"];
        assert_eq!(list[0], json!({"id": "main"}));
        assert_eq!(list[1]["id"], agent(1).as_str());
    }

    #[test]
    fn entries_get_explicit_ownership_only_where_none_is_set() {
        let dialect = dialect(RosterShape::Entries);
        let goal = only(vec![goal(1)]);
        let mut observed = empty(Some(RosterShape::Entries));
        let plan = plan_gateway(&goal, &observed, &dialect);
        assert_eq!(plan.patch.unwrap()["agents"]["ownership"], "explicit");
        observed.ownership = Some("explicit".into());
        let plan = plan_gateway(&goal, &observed, &dialect);
        assert_eq!(plan.patch.unwrap()["agents"].get("ownership"), None);
    }

    #[test]
    fn operators_values_are_never_overridden_and_missing_keys_are_added_one_by_one() {
        let dialect = dialect(RosterShape::List);
        let mut observed = empty(None);
        observed.has_exec_host = true;
        observed.heartbeat.insert("showOk".into(), true.into());
        let patch = plan_gateway(&only(vec![goal(1)]), &observed, &dialect).patch.unwrap();
        assert_eq!(patch.get("tools"), None);
        assert_eq!(
            patch["channels"],
            json!({"defaults": {"heartbeat": {"showAlerts": true, "useIndicator": true}}})
        );
    }

    #[test]
    fn only_the_fields_that_differ_are_written_and_foreign_heartbeat_keys_go() {
        let dialect = dialect(RosterShape::List);
        let want = only(vec![goal(1)]);
        let mut observed = apply(&empty(None), &plan_gateway(&want, &empty(None), &dialect), &dialect);
        let entry = &mut observed.roster[0];
        entry.heartbeat = json!({"every": "1h", "target": "last", "model": "x"})
            .as_object()
            .cloned();
        let plan = plan_gateway(&want, &observed, &dialect);
        assert_eq!(plan.effect(), Effect::Hot);
        assert_eq!(
            plan.patch.unwrap(),
            json!({"agents": {"list": [
                {"id": agent(1).as_str(), "heartbeat": {"every": "10m", "target": "last", "model": null}}
            ]}})
        );
    }

    #[test]
    fn a_patch_adds_at_most_a_hundred_agents_and_says_how_many_are_left() {
        let goal = only((1..=250).map(goal).collect());
        let plan = plan_gateway(&goal, &empty(None), &dialect(RosterShape::Entries));
        assert_eq!(plan.deferred, 150);
        assert_eq!(plan.patch.unwrap()["agents"]["entries"].as_object().unwrap().len(), 100);
    }

    #[test]
    fn a_gateway_without_agents_of_ours_is_left_alone() {
        assert!(plan_gateway(&GatewayGoal::default(), &empty(None), &dialect(RosterShape::List)).is_empty());
    }

    #[test]
    fn an_invalid_heartbeat_leaves_the_one_on_the_gateway_alone() {
        let dialect = dialect(RosterShape::List);
        let mut want = goal(1);
        let mut observed = apply(
            &empty(None),
            &plan_gateway(&only(vec![want.clone()]), &empty(None), &dialect),
            &dialect,
        );
        observed.roster[0].heartbeat = json!({"every": "1h"}).as_object().cloned();
        want.heartbeat = None;
        assert!(plan_gateway(&only(vec![want]), &observed, &dialect).is_empty());
    }
}
