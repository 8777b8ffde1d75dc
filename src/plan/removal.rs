//! Planning which agents are removed from a gateway, and what has to become smaller before.

use serde_json::{Map, Value};

use super::gateway::GatewayGoal;
use crate::model::{
    ConfigChange, ConfigPart, ConfigStep, Dialect, Effect, GatewayAgentId, GatewayPlan, ObservedConfig, RemovalStep,
    RosterEntry,
};

/// How many agents are removed at most before the config is looked at again. Each takes up to 5 s on 2026.9.6, and everything
/// else that the roster needs waits meanwhile.
pub const MAX_REMOVALS_AT_ONCE: usize = 4;

/// Smaller config files than this may shrink as they like: gateways look at those of 512 bytes and more, and what we know of
/// the size is an estimate.
const FREE_BELOW: usize = 480;

/// What remains of a config after one write must be more than half of it: this many twentieths, for the same reason.
const REMAINS: usize = 11;

/// Where an agent's files are: they are removed with it as long as the entry says so.
const KEPT: [&str; 3] = ["id", "workspace", "agentDir"];

/// How a gateway has refused to remove an agent, as long as its config is what it was then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refused {
    /// It has not.
    #[default]
    No,
    /// Its config would have lost too much at once.
    TooMuchAtOnce,
    /// For another reason.
    Otherwise,
}

/// An agent that should not be on a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct RemovalGoal {
    /// Its id.
    pub id: GatewayAgentId,
    /// Why, in a few words.
    pub why: &'static str,
    /// Its removal was begun, and how that ended is not known: it is asked for again even if the agent is not in the config,
    /// because its files may be there yet.
    pub begun: bool,
    /// Whether the gateway has refused to.
    pub refused: Refused,
}

/// Plans the removals. Returns what has to be taken out of entries before, as fields of the patch.
///
/// A gateway refuses a write that loses half of its config. Where an agent's entry is that large, what it holds goes first, by
/// patches that each leave more than half; only where its files are stays until the end.
pub(super) fn plan_removals(
    plan: &mut GatewayPlan,
    goal: &GatewayGoal,
    observed: &ObservedConfig,
    dialect: &Dialect,
) -> Vec<(GatewayAgentId, Map<String, Value>)> {
    let file = observed.sizes.file;
    let mut size = file;
    let mut lightened = Vec::new();
    let effect = dialect.effect(ConfigPart::Roster);
    let held = goal.hold.restarts && effect == Effect::Restart;
    for want in &goal.removals {
        let entry = observed.entry(&want.id);
        if (entry.is_none() && !want.begun) || want.refused == Refused::Otherwise {
            continue;
        }
        if held {
            plan.held_removals.push(RemovalStep {
                id: want.id.clone(),
                why: want.why.into(),
                effect,
            });
            continue;
        }
        let weight = weight(observed, &want.id);
        let refused = want.refused == Refused::TooMuchAtOnce;
        if let Some(entry) = entry
            && (refused || !may_shrink(file, file.saturating_sub(weight)))
        {
            if !lightened.is_empty() {
                plan.removals_deferred += 1;
                continue;
            }
            if let Some((keys, fields)) = lighten(observed, entry, refused) {
                plan.steps.push(ConfigStep {
                    change: ConfigChange::Lighten {
                        id: want.id.clone(),
                        keys,
                    },
                    why: "the gateway does not let go of half of its config at once".into(),
                    effect,
                });
                plan.removals_deferred += 1;
                lightened.push((want.id.clone(), fields));
                continue;
            }
            if refused {
                // Nothing can be done but to wait for the config to grow.
                continue;
            }
        } else if !may_shrink(size, size.saturating_sub(weight)) && !plan.removals.is_empty() {
            // After those that go before it, it would be too much.
            plan.removals_deferred += 1;
            continue;
        }
        if plan.removals.len() == MAX_REMOVALS_AT_ONCE {
            plan.removals_deferred += 1;
            continue;
        }
        plan.removals.push(RemovalStep {
            id: want.id.clone(),
            why: want.why.into(),
            effect,
        });
        size = size.saturating_sub(weight);
    }
    lightened
}

/// How many bytes of the config an agent's entry is; 0 if that is not known.
fn weight(observed: &ObservedConfig, id: &GatewayAgentId) -> usize {
    observed.sizes.entries.get(id).map_or(0, |entry| entry.total)
}

/// Whether a config may become that much smaller in one write.
fn may_shrink(before: usize, after: usize) -> bool {
    before < FREE_BELOW || after * 20 >= before * REMAINS
}

/// What can be taken out of an entry in one write: the names of the keys, and the fields of a patch. `None` if there is nothing.
/// Only as much as is needed, or (`all`) as much as possible.
fn lighten(observed: &ObservedConfig, entry: &RosterEntry, all: bool) -> Option<(Vec<String>, Map<String, Value>)> {
    let sizes = observed.sizes.entries.get(&entry.id)?;
    let file = observed.sizes.file;
    let rest = file.saturating_sub(sizes.total);
    let mut left = file - (file * REMAINS).div_ceil(20).min(file);
    let mut keys: Vec<(&String, usize)> = sizes
        .keys
        .iter()
        .filter(|(key, _)| !KEPT.contains(&key.as_str()))
        .map(|(key, size)| (key, *size))
        .collect();
    keys.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let (mut names, mut fields, mut gone) = (Vec::new(), Map::new(), 0);
    for (key, size) in &keys {
        if *size > left || (!all && !fields.is_empty() && may_shrink(file - gone, rest)) {
            continue;
        }
        left -= size;
        gone += size;
        names.push((*key).clone());
        fields.insert((*key).clone(), Value::Null);
    }
    if fields.is_empty() {
        // All that is left is too large for one write: cut the largest.
        let (key, _) = keys.first()?;
        let (name, value) = cut(entry, key, left)?;
        names.push(name);
        fields.insert((*key).clone(), value);
    }
    Some((names, fields))
}

/// Takes a part of a key's value away: the end of a text, or of the largest text of a heartbeat.
fn cut(entry: &RosterEntry, key: &str, bytes: usize) -> Option<(String, Value)> {
    match key {
        "name" => Some((key.to_owned(), shortened(entry.name.as_deref()?, bytes)?.into())),
        "heartbeat" => {
            let length = |value: &Value| value.to_string().len();
            let (inner, value) = entry
                .heartbeat
                .as_ref()?
                .iter()
                .max_by_key(|(_, value)| length(value))?;
            let value = if length(value) + inner.len() + 32 <= bytes {
                Value::Null
            } else {
                shortened(value.as_str()?, bytes)?.into()
            };
            Some((
                format!("{key}.{inner}"),
                Value::Object(Map::from_iter([(inner.clone(), value)])),
            ))
        }
        _ => None,
    }
}

/// A text without its last bytes, as JSON counts them; at least one character remains.
fn shortened(text: &str, bytes: usize) -> Option<String> {
    let mut length = 0;
    let dropped = text
        .chars()
        .rev()
        .take_while(|c| {
            length += Value::from(c.to_string()).to_string().len() - 2;
            length <= bytes
        })
        .count();
    let kept = text.chars().count().saturating_sub(dropped).max(1);
    let short: String = text.chars().take(kept).collect();
    (short.len() < text.len()).then_some(short)
}

#[cfg(test)]
#[path = "removal/tests.rs"]
mod tests;
