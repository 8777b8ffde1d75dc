//! The one patch that carries out the plan for a gateway's config, and what the gateway has against it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::gateway::session_lost;
use super::gateway_status::GatewayFailure;
use super::session::Session;
use super::spec::GatewaySpec;
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError};
use crate::model::{ConfigChange, Effect, GatewayAgentId, GatewayPlan, ObservedConfig};
use crate::runtime::{Context, Priority};
use crate::store::Store;

/// How long a patch may take: a base, and so much for each agent in the roster (measured on 2026.9.6: 0.2 s each for 100, 0.6 s
/// each for 300; doubled for slower machines).
const PATCH_DEADLINE: Duration = Duration::from_mins(1);
const PATCH_DEADLINE_PER_AGENT: Duration = Duration::from_millis(1200);

impl<S: Store, C: Connector> World<S, C> {
    /// Carries out a plan with one patch.
    pub(super) async fn patch(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
        cx: &Context,
    ) -> Result<(), GatewayFailure> {
        let Some(patch) = &plan.patch else { return Ok(()) };
        let added: HashSet<_> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.change {
                ConfigChange::AddAgent { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let new: Vec<_> = spec
            .managed()
            .filter(|agent| added.contains(&agent.gateway_agent_id))
            .map(Arc::clone)
            .collect();
        self.register(spec, plan, &self.known_traces(spec.id()).await?).await?;
        let effect = plan.effect();
        let written = self.about_to_write(session, effect, plan.parts()).await;
        written.map_err(GatewayFailure::Store)?;
        tracing::info!(gateway = %spec.id(), steps = plan.steps.len(), ?effect, "patching the config");
        let roster = u32::try_from(config.roster.len() + added.len()).unwrap_or(u32::MAX);
        let deadline = PATCH_DEADLINE + PATCH_DEADLINE_PER_AGENT.saturating_mul(roster);
        let enough = CancellationToken::new();
        let call = async {
            let answer = session
                .client
                .config_patch(patch, config.hash.as_deref(), &[], deadline)
                .await;
            enough.cancel();
            answer
        };
        let answer = tokio::select! {
            (answer, ()) = future::join(call, self.mint_ahead(spec, session, &new, &enough)) => answer,
            () = cx.cancel.cancelled() => return Err(GatewayFailure::Cancelled),
        };
        let id = spec.id();
        self.answered(id);
        let restarts = |error: &GatewayError| effect == Effect::Restart && error.class() == ErrorClass::Restarting;
        match answer.as_ref().err() {
            // What differs at the next look although it was written was undone by somebody else.
            None => self.config_sent(id, plan, config.shape.unwrap_or(session.dialect.roster)),
            Some(error) if restarts(error) => {
                self.config_sent(id, plan, config.shape.unwrap_or(session.dialect.roster));
            }
            // The gateway says that it has not done it.
            Some(error) if !error.outcome_unknown() && !session_lost(error) => {
                self.not_written(id).await.map_err(GatewayFailure::Store)?;
            }
            Some(_) => {}
        }
        match answer {
            Ok(outcome) => {
                let restarts = self.await_restart(session, outcome.requires_restart).await;
                if restarts.map_err(GatewayFailure::Store)? {
                    return Err(GatewayFailure::Restarting);
                }
                Ok(())
            }
            Err(error) if error.class() == ErrorClass::Invalid => {
                self.refuse_heartbeats(spec, config, patch, &error);
                Err(GatewayFailure::PatchRefused(error))
            }
            Err(error) if restarts(&error) => {
                // Old gateways restart before they answer. The write has happened; the next look reads it back.
                self.sessions.remove(id);
                self.restarted(id).await.map_err(GatewayFailure::Store)?;
                Err(GatewayFailure::Restarting)
            }
            Err(error) => Err(self.config_failure(spec, error)),
        }
    }

    /// Remembers whose heartbeats the gateway refused, so that the next patch goes without them.
    fn refuse_heartbeats(&self, spec: &GatewaySpec, config: &ObservedConfig, patch: &Value, error: &GatewayError) {
        for (path, message) in error.issues() {
            let Some(id) = agent_of_issue(path, config, patch) else {
                continue;
            };
            let Some(agent) = spec.managed().find(|agent| agent.gateway_agent_id == id) else {
                continue;
            };
            let refusal = (agent.digest.clone(), format!("{path}: {message}"));
            self.state().refused_heartbeats.insert(agent.row.id, refusal);
            self.agent_queue.add(agent.row.id, Priority::Change);
        }
    }
}

/// The agent that a validation issue is about: `agents.entries.<id>.…`, or `agents.list.<index>.…` with the index counted in
/// the list as the patch would have left it.
fn agent_of_issue(path: &str, config: &ObservedConfig, patch: &Value) -> Option<GatewayAgentId> {
    let rest = path.strip_prefix("agents.")?;
    if let Some(rest) = rest.strip_prefix("entries.") {
        return rest.split('.').next().map(GatewayAgentId::observed);
    }
    let index: usize = rest.strip_prefix("list.")?.split('.').next()?.parse().ok()?;
    if let Some(entry) = config.roster.get(index) {
        return Some(entry.id.clone());
    }
    let new = patch["agents"]["list"]
        .as_array()?
        .iter()
        .filter_map(|item| item["id"].as_str());
    let mut appended = new.filter(|id| config.roster.iter().all(|entry| entry.id.as_str() != *id));
    appended.nth(index - config.roster.len()).map(GatewayAgentId::observed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::model::{ConfigSizes, RosterEntry};

    fn config(ids: &[&str]) -> ObservedConfig {
        let entry = |id: &&str| RosterEntry {
            id: GatewayAgentId::observed(*id),
            name: None,
            workspace: None,
            heartbeat: None,
        };
        ObservedConfig {
            hash: None,
            shape: None,
            both_shapes: false,
            written_by: None,
            roster: ids.iter().map(entry).collect(),
            ownership: None,
            has_exec_host: true,
            heartbeat: Map::new(),
            heartbeat_visibility: Map::new(),
            sizes: ConfigSizes::default(),
        }
    }

    #[test]
    fn an_issue_is_traced_to_its_agent_by_id_or_by_its_place_in_the_list_after_the_patch() {
        let patch = json!({"agents": {"list": [{"id": "old"}, {"id": "new-1"}, {"id": "new-2"}]}});
        for (path, expected) in [
            ("agents.entries.mc-1.heartbeat.every", Some("mc-1")),
            ("agents.entries.mc-1", Some("mc-1")),
            ("agents.list.0.heartbeat", Some("main")),
            ("agents.list.1.heartbeat.every", Some("old")),
            ("agents.list.2.heartbeat", Some("new-1")),
            ("agents.list.3.heartbeat", Some("new-2")),
            ("agents.list.4.heartbeat", None),
            ("agents.list.x", None),
            ("agents.ownership", None),
            ("channels.defaults", None),
        ] {
            let found = agent_of_issue(path, &config(&["main", "old"]), &patch);
            assert_eq!(found.as_ref().map(GatewayAgentId::as_str), expected, "{path}");
        }
    }
}
