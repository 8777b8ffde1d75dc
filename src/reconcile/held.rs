//! What of a gateway's config is left as it is although it differs, and which agents that is about.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::fights::{FIGHTING_WRITER, Fights};
use super::restarts::{BUDGET_EXHAUSTED, Spent};
use crate::model::{ConfigChange, Effect, GatewayAgentId, GatewayPlan, RosterShape};
use crate::plan::Hold;

/// What of a gateway's config is not written at present although it differs.
#[derive(Debug, Default)]
pub(super) struct Held {
    fights: Fights,
    /// What waits because it would restart the gateway, in words, and until when.
    restarts: Option<(String, Option<DateTime<Utc>>)>,
}

/// Why an agent's entry in the roster is left as it is although it differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldBack {
    /// The reason for conditions.
    pub(super) reason: &'static str,
    /// What is left as it is, in words.
    pub(super) message: String,
}

impl Held {
    pub(super) fn new(fights: Fights, spent: Option<&Spent>, plan: &GatewayPlan, shape: RosterShape) -> Self {
        Self {
            fights,
            restarts: spent.map(|spent| (spent.message(&would_restart(plan, shape)), spent.until)),
        }
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<DateTime<Utc>> {
        let restarts = self.restarts.as_ref().and_then(|(_, until)| *until);
        self.fights.due().into_iter().chain(restarts).min()
    }

    /// What is not as desired for it, for those who wait for that.
    pub(super) fn waiting(&self) -> Option<String> {
        if self.fights.held().next().is_none() && self.restarts.is_none() {
            return None;
        }
        self.finding().map(|(reason, message)| format!("{reason}: {message}"))
    }

    /// What is wrong, for conditions.
    pub(super) fn finding(&self) -> Option<(&'static str, String)> {
        match (self.fights.is_empty(), &self.restarts) {
            (true, None) => None,
            (true, Some((message, _))) => Some((BUDGET_EXHAUSTED, message.clone())),
            (false, None) => Some((FIGHTING_WRITER, self.fights.message())),
            (false, Some((message, _))) => Some((FIGHTING_WRITER, format!("{}; {message}", self.fights.message()))),
        }
    }
}

/// What of a plan waits because it would restart the gateway.
fn would_restart(plan: &GatewayPlan, shape: RosterShape) -> Vec<String> {
    let restarting = plan.held.iter().filter(|step| step.effect == Effect::Restart);
    let creations = plan
        .held_creations
        .iter()
        .map(|step| format!("the creation of {}", step.id));
    let removals = plan
        .held_removals
        .iter()
        .map(|step| format!("the removal of {}", step.id));
    restarting
        .map(|step| step.change.field(shape))
        .chain(creations)
        .chain(removals)
        .collect()
}

/// The agents whose entries are left as they are although they differ.
pub(super) fn held_back(plan: &GatewayPlan, hold: &Hold, shape: RosterShape) -> HashMap<GatewayAgentId, HeldBack> {
    // By agent: what somebody else insists on, and what would restart the gateway.
    let mut fields: BTreeMap<&GatewayAgentId, [Vec<String>; 2]> = BTreeMap::new();
    let changes = plan.held.iter().map(|step| &step.change);
    for change in changes.filter(|change| !matches!(change, ConfigChange::Lighten { .. })) {
        let Some(id) = change.agent() else { continue };
        let field = change.field(shape);
        let waits = usize::from(!hold.fields.contains(&field));
        fields.entry(id).or_default()[waits].push(field);
    }
    for step in &plan.held_creations {
        let field = format!("the creation of {}", step.id);
        fields.entry(&step.id).or_default()[1].push(field);
    }
    let told = fields.into_iter().map(|(id, [fought, waiting])| {
        let held = if fought.is_empty() {
            HeldBack {
                reason: BUDGET_EXHAUSTED,
                message: format!(
                    "{} would restart the gateway, which was restarted as often as --max-restarts-per-hour allows; its condition \
                     ConfigSynced says until when this waits",
                    waiting.join(", ")
                ),
            }
        } else {
            HeldBack {
                reason: FIGHTING_WRITER,
                message: format!(
                    "something else insists on another {}; the gateway's condition ConfigSynced says when it is tried again",
                    fought.join(", ")
                ),
            }
        };
        (id.clone(), held)
    });
    told.collect()
}
