//! Plans of configs: empty once applied, the same for the same input, and nobody else's business left alone.

use openclaw_controller::gateway::heard;
use openclaw_controller::model::{GatewayAgentId, GatewayPlan, ObservedConfig, RosterShape};
use openclaw_controller::plan::{GatewayGoal, plan_gateway};
use openclaw_controller::sim::{SimDialect, merged_config, shown_config};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::shapes::{Case, case};

/// More looks than any case needs: agents are made and removed four at a time, and large entries made smaller before.
const LOOKS: usize = 60;

/// What the client sees of a config file; nothing where it could not be understood.
fn observed(dialect: SimDialect, file: &Value) -> Option<ObservedConfig> {
    heard::config(&shown_config(dialect, file)).ok()
}

/// Where the roster of a config file is.
fn shape(observed: &ObservedConfig, dialect: SimDialect) -> RosterShape {
    observed.shape.unwrap_or(dialect.expected().roster)
}

/// What becomes of a config file by a plan.
fn applied(file: &Value, plan: &GatewayPlan, shape: RosterShape) -> Value {
    let mut file = file.clone();
    for made in &plan.creations {
        let id = made.id.as_str();
        let entry = json!({"name": id, "workspace": made.workspace});
        file = merged_config(&file, &json!({"agents": {"entries": {id: entry}}}));
    }
    if let Some(patch) = &plan.patch {
        file = merged_config(&file, patch);
    }
    for removal in &plan.removals {
        remove(&mut file, &removal.id, shape);
    }
    file
}

fn remove(file: &mut Value, id: &GatewayAgentId, shape: RosterShape) {
    match shape {
        RosterShape::Entries => {
            if let Some(entries) = file.pointer_mut("/agents/entries").and_then(Value::as_object_mut) {
                entries.remove(id.as_str());
            }
        }
        RosterShape::List => {
            if let Some(list) = file.pointer_mut("/agents/list").and_then(Value::as_array_mut) {
                list.retain(|entry| entry["id"] != id.as_str());
            }
        }
    }
}

/// A config file without what is this controller's, given what was there before it came.
fn foreign(file: &Value, before: &ObservedConfig, goal: &GatewayGoal, dialect: SimDialect) -> Value {
    let mut file = file.clone();
    let shape = shape(before, dialect);
    for removal in &goal.removals {
        remove(&mut file, &removal.id, shape);
    }
    for want in &goal.roster {
        if before.entry(&want.id).is_none() {
            remove(&mut file, &want.id, shape);
        }
    }
    let ours = |id: &str| goal.roster.iter().any(|want| want.id.as_str() == id);
    let agents = part(&mut file, "agents");
    match shape {
        RosterShape::Entries => {
            if before.ownership.is_none() {
                agents.remove("ownership");
            }
            let entries = part_of(agents, "entries");
            entries
                .iter_mut()
                .filter(|(id, _)| ours(id))
                .for_each(|(_, entry)| without_fields(entry));
        }
        RosterShape::List => {
            let list = agents.entry("list").or_insert(Value::Null);
            if !list.is_array() {
                *list = json!([]);
            }
            let list = list.as_array_mut().unwrap();
            if before.roster.is_empty() {
                list.retain(|entry| *entry != json!({"id": "main"}));
            }
            // Of two with one id the first is the one that counts.
            let mut seen = Vec::new();
            for entry in list {
                let id = entry["id"].as_str().unwrap().to_owned();
                if ours(&id) && !seen.contains(&id) {
                    without_fields(entry);
                    seen.push(id);
                }
            }
        }
    }
    let exec = part_of(part(&mut file, "tools"), "exec");
    if !before.has_exec_host {
        exec.remove("host");
    }
    let key = dialect.expected().visibility.unwrap().key();
    let had = if key == "heartbeat" {
        &before.heartbeat
    } else {
        &before.heartbeat_visibility
    };
    let visibility = part_of(part_of(part(&mut file, "channels"), "defaults"), key);
    for ours in ["showOk", "showAlerts", "useIndicator"] {
        if !had.contains_key(ours) {
            visibility.remove(ours);
        }
    }
    file
}

fn without_fields(entry: &mut Value) {
    let entry = entry.as_object_mut().unwrap();
    for field in ["name", "workspace", "heartbeat"] {
        entry.remove(field);
    }
}

/// The object under a key; null and nothing count as an empty one.
fn part<'a>(file: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    part_of(file.as_object_mut().unwrap(), key)
}

fn part_of<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let part = map.entry(key).or_insert(Value::Null);
    if part.is_null() {
        *part = json!({});
    }
    part.as_object_mut().unwrap()
}

/// What a plan says, without regard to order.
fn sorted(plan: &GatewayPlan) -> Vec<String> {
    let steps = plan.steps.iter().map(|step| json!(step).to_string());
    let creations = plan.creations.iter().map(|step| json!(step).to_string());
    let mut all: Vec<_> = steps.chain(creations).collect();
    all.sort();
    all
}

/// A config file whose list of agents is in another order.
fn reversed(file: &Value) -> Value {
    let mut file = file.clone();
    if let Some(list) = file.pointer_mut("/agents/list").and_then(Value::as_array_mut) {
        list.reverse();
    }
    file
}

/// Whether no id is in the list of agents twice: of two the first counts, so their order matters.
fn is_unambiguous(observed: &ObservedConfig) -> bool {
    let mut ids: Vec<_> = observed.roster.iter().map(|entry| &entry.id).collect();
    ids.sort();
    ids.windows(2).all(|pair| pair[0] != pair[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn plans_come_to_an_end_and_leave_alone_what_is_not_ours(case in case()) {
        let Case { dialect, file, goal } = case;
        let Some(before) = observed(dialect, &file) else { return Ok(()) };
        let shape = shape(&before, dialect);
        let untouched = foreign(&file, &before, &goal, dialect);
        let mut now = file.clone();
        let mut looks = 0;
        loop {
            let seen = observed(dialect, &now);
            prop_assert!(seen.is_some(), "{now} cannot be understood");
            let seen = seen.unwrap();
            let plan = plan_gateway(&goal, &seen, &dialect.expected());
            prop_assert_eq!(plan.patch.is_none(), plan.steps.is_empty());
            if plan.is_empty() {
                break;
            }
            let next = applied(&now, &plan, shape);
            prop_assert_ne!(&next, &now, "a step that changes nothing: {:?}", plan.steps);
            let once_is_enough = plan.creations.is_empty() && plan.deferred == 0 && plan.removals_deferred == 0;
            now = next;
            if once_is_enough {
                let again = plan_gateway(&goal, &observed(dialect, &now).unwrap(), &dialect.expected());
                prop_assert!(again.is_empty(), "{:?} after {:?}", again.steps, plan.patch);
            }
            prop_assert_eq!(&foreign(&now, &before, &goal, dialect), &untouched, "{:?}", plan.patch);
            looks += 1;
            prop_assert!(looks < LOOKS, "it never ends: {:?}", plan.steps);
        }
        // And all that was wanted is there.
        let end = observed(dialect, &now).unwrap();
        for want in &goal.roster {
            let entry = end.entry(&want.id).unwrap();
            prop_assert_eq!(entry.name.as_deref(), Some(&*want.name));
            prop_assert_eq!(entry.workspace.as_deref(), Some(&*want.workspace));
            if want.heartbeat.is_some() {
                prop_assert_eq!(&entry.heartbeat, &want.heartbeat);
            }
        }
        for removal in &goal.removals {
            prop_assert!(end.entry(&removal.id).is_none());
        }
        if goal.roster.is_empty() && goal.removals.is_empty() {
            prop_assert_eq!(now, file, "a gateway without agents of ours is not touched");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_plan_and_another_order_the_same_steps(case in case()) {
        let Case { dialect, file, mut goal } = case;
        let Some(seen) = observed(dialect, &file) else { return Ok(()) };
        let expected = dialect.expected();
        let plan = plan_gateway(&goal, &seen, &expected);
        prop_assert_eq!(json!(plan), json!(plan_gateway(&goal, &seen, &expected)));
        let other = observed(dialect, &reversed(&file)).unwrap();
        // What is removed at once depends on sizes, and so on the order.
        goal.removals.clear();
        if !is_unambiguous(&seen) {
            return Ok(());
        }
        let plan = plan_gateway(&goal, &seen, &expected);
        prop_assert_eq!(sorted(&plan_gateway(&goal, &other, &expected)), sorted(&plan));
        goal.roster.reverse();
        let turned = plan_gateway(&goal, &seen, &expected);
        if plan.deferred == 0 {
            prop_assert_eq!(sorted(&turned), sorted(&plan));
            if shape(&seen, dialect) == RosterShape::Entries {
                prop_assert_eq!(turned.patch, plan.patch);
            }
        }
    }
}
