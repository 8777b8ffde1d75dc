//! The gateway reconciler: connect, probe, read the config, patch it once if anything differs, read it back, and let the
//! agents in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::gateway_status::{GatewayFailure, GatewayOutcome};
use super::goal;
use super::session::{SeenRoster, Session};
use super::spec::GatewaySpec;
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError, Target, probe};
use crate::model::{ConfigChange, Effect, GatewayAgentId, GatewayId, GatewayPlan, ObservedConfig};
use crate::plan::{GatewayGoal, plan_gateway};
use crate::runtime::{Action, Context, DriftKind, Priority, ReconcileError, Reconciler};
use crate::store::Store;

/// How long a patch may take: a base, and so much for each agent in the roster (measured on 2026.9.6: 0.2 s each for 100, 0.6 s
/// each for 300; doubled for slower machines).
const PATCH_DEADLINE: Duration = Duration::from_mins(1);
const PATCH_DEADLINE_PER_AGENT: Duration = Duration::from_millis(1200);

/// How long to wait for a predicted restart to begin, so that the agents' file writes do not run into it (measured on 2026.7.1:
/// it begins 3.4 s after the answer).
const RESTART_GRACE: Duration = Duration::from_secs(6);

/// How long to leave a gateway alone that is restarting and did not say how long it takes.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How soon to look again after the rows were seen to have changed: they are being loaded.
const RELOADING: Duration = Duration::from_millis(100);

/// How hard a refused token backs off: a gateway locks an address out for 5 minutes after ten failures in 60 s.
pub(super) const UNAUTHORIZED_PAUSE: Duration = Duration::from_secs(30);

/// Makes one gateway's config match.
pub(super) struct GatewayReconciler<S, C>(pub Arc<World<S, C>>);

impl<S: Store, C: Connector> Reconciler for GatewayReconciler<S, C> {
    type Key = GatewayId;

    async fn reconcile(&self, key: &GatewayId, cx: &Context) -> Result<Action, ReconcileError> {
        let world = &self.0;
        let Some(mut spec) = world.cache.gateway(*key) else {
            world.sessions.remove(*key);
            return Ok(Action::Done);
        };
        let outcome = world.converge_gateway(&mut spec, cx).await;
        world.syncs.gateway_looked_at(*key, &outcome);
        world.report_gateway(&spec, &outcome).await?;
        match outcome {
            Ok(outcome) => {
                world.unpark(&spec);
                if outcome.deferred > 0 || outcome.removing > 0 {
                    // The next patch follows at once; agents that are in already get their files meanwhile.
                    return Ok(Action::RequeueAfter(Duration::ZERO));
                }
                if let Some(error) = world.missing_leads(&spec) {
                    return Err(error);
                }
                Ok(outcome
                    .unexplained
                    .look_again
                    .map_or(Action::Done, Action::RequeueAfter))
            }
            // As predicted: no failure, and no reason to back off.
            Err(GatewayFailure::Restarting) => Ok(Action::RequeueAfter(RESTART_PAUSE)),
            Err(GatewayFailure::Outdated) => Ok(Action::RequeueAfter(RELOADING)),
            Err(failure) if let Some(pause) = failure.awaits_approval() => Ok(Action::RequeueAfter(pause)),
            Err(failure) => {
                if world.sessions.get(*key).is_some() {
                    // What is wrong is the config alone; agents in the roster can have their files.
                    world.unpark(&spec);
                }
                Err(failure.into_error())
            }
        }
    }
}

/// What a gateway's config was seen to be, and what is to be done about it.
struct Look {
    config: ObservedConfig,
    plan: GatewayPlan,
    warnings: Vec<String>,
}

impl<S: Store, C: Connector> World<S, C> {
    /// Makes the gateway match its spec, which becomes a newer one if leads had to be made.
    async fn converge_gateway(
        &self,
        spec: &mut Arc<GatewaySpec>,
        cx: &Context,
    ) -> Result<GatewayOutcome, GatewayFailure> {
        let id = spec.id();
        self.tidy(spec).await?;
        let session = self.session(spec).await?;
        *spec = self.ensure_leads(Arc::clone(spec)).await?;
        let spec = &**spec;
        let mut look = self.look(spec, &session).await?;
        let refused = self.create_all(spec, &session, &mut look).await?;
        if look.plan.patch.is_some() {
            if look.plan.effect() != Effect::Restart {
                self.unpark(spec);
            }
            count(&look.plan, |kind, count| self.metrics.drift_detected(kind, count));
            let patched = self.patch(spec, &session, &look.config, &look.plan, cx).await;
            if let Err(failure) = patched {
                if matches!(failure, GatewayFailure::PatchRefused(_) | GatewayFailure::Config(_))
                    && self.sessions.get(id).is_some()
                {
                    // What keeps others from being changed keeps nobody from being removed.
                    self.remove_all(spec, &session, &mut look, cx).await?;
                }
                return Err(failure);
            }
            let applied = look.plan;
            look = self.look(spec, &session).await?;
            let repeated: Vec<_> = look
                .plan
                .steps
                .iter()
                .filter(|step| applied.steps.contains(step))
                .collect();
            if !repeated.is_empty() {
                return Err(GatewayFailure::not_kept(id, repeated.len(), &repeated[0].change));
            }
            count(&applied, |kind, count| self.metrics.drift_corrected(kind, count));
        }
        self.remove_all(spec, &session, &mut look, cx).await?;
        let unexplained = self.settle_traces(spec, &look.config).await?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let plan = look.plan;
        Ok(GatewayOutcome {
            server_version: session.client.hello().server_version.clone(),
            protocol: session.client.hello().protocol,
            deferred: plan.deferred.max(usize::from(plan.patch.is_some())) + plan.creations.len(),
            removing: plan.removals.len() + plan.removals_deferred,
            unexplained,
            warnings: plan.warnings.into_iter().chain(look.warnings).collect(),
        })
    }

    /// Reads the gateway's config, and plans. Whatever becomes of the plan, agents that are in the roster already can have their
    /// files.
    async fn look(&self, spec: &GatewaySpec, session: &Session) -> Result<Look, GatewayFailure> {
        let config = session
            .client
            .config_get()
            .await
            .map_err(|error| self.config_failure(spec, error))?;
        let mut goal = goal::gateway(spec, &session.dialect, &self.state().refused_heartbeats);
        self.add_removals(spec, &config, &mut goal.gateway).await?;
        let plan = plan_gateway(&goal.gateway, &config, &session.dialect);
        self.record_adopted(spec, &config).await?;
        self.sessions
            .set_roster(spec.id(), seen(spec, &goal.gateway, &config, &plan));
        Ok(Look {
            config,
            plan,
            warnings: goal.warnings,
        })
    }

    /// Carries out the creations of a plan, and looks at what there is then. Returns what became of those that failed: they
    /// hold up nothing else.
    async fn create_all(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        look: &mut Look,
    ) -> Result<Option<GatewayFailure>, GatewayFailure> {
        if look.plan.creations.is_empty() {
            return Ok(None);
        }
        let traces = self.known_traces(spec.id()).await?;
        self.register(spec, &look.plan, &traces).await?;
        let (made, refused) = self.create(spec, session, &look.plan).await?;
        *look = self.look(spec, session).await?;
        let lost = made.iter().find(|id| look.config.entry(id).is_none());
        Ok(refused.or_else(|| {
            lost.map(|id| {
                let message = format!("the gateway was asked to make {id}, agreed, and does not have it");
                GatewayFailure::NotKept(message)
            })
        }))
    }

    /// Carries out the removals of a plan, and looks at what there is then. Agents get their files meanwhile.
    async fn remove_all(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        look: &mut Look,
        cx: &Context,
    ) -> Result<(), GatewayFailure> {
        if look.plan.removals.is_empty() {
            return Ok(());
        }
        self.unpark(spec);
        let (removed, failure) = self.remove(spec, session, &look.config, &look.plan, cx).await;
        if self.sessions.get(spec.id()).is_some() {
            *look = self.look(spec, session).await?;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        // Somebody makes it again as fast as it is removed: that must not become a race.
        if let Some(id) = removed.iter().find(|id| look.config.entry(id).is_some()) {
            let message = format!(
                "gateway {} was asked to remove {id}, agreed, and still has it; something else may be writing its config",
                spec.id()
            );
            return Err(GatewayFailure::NotKept(message));
        }
        Ok(())
    }

    /// The gateway's session; a new one if there is none that serves.
    async fn session(&self, spec: &GatewaySpec) -> Result<Session, GatewayFailure> {
        let row = &spec.snapshot.gateway;
        let target = Target::of(row);
        if let Some(session) = self.sessions.get(row.id) {
            if session.serves(&target) {
                return Ok(session);
            }
            self.sessions.remove(row.id);
        }
        let client = self.connector.connect(&target).await.map_err(GatewayFailure::Connect)?;
        let dialect = probe(&client).await.map_err(GatewayFailure::Probe)?;
        tracing::info!(
            gateway = %row.id,
            server_version = %client.hello().server_version,
            protocol = client.hello().protocol,
            roster = ?dialect.roster,
            "connected"
        );
        let session = Session::new(client, dialect, target);
        self.state().looks += 1;
        self.forget_refusals(row.id);
        self.sessions.insert(row.id, session.clone());
        self.watch(row.id, &session);
        Ok(session)
    }

    /// Has the gateway looked at again when this connection ends.
    fn watch(&self, gateway: GatewayId, session: &Session) {
        let (client, queue) = (session.client.clone(), self.gateway_queue.clone());
        tokio::spawn(async move {
            let reason = client.closed().await;
            if reason.ours {
                // Whoever closed it knows what comes next.
                return;
            }
            tracing::warn!(%gateway, restart = reason.restart, reason = %reason.message, "connection ended");
            let pause = if reason.restart {
                reason.restart_expected.unwrap_or(RESTART_PAUSE)
            } else {
                Duration::ZERO
            };
            queue.add_after(gateway, pause.min(Duration::from_secs(10)));
        });
    }

    /// Carries out a plan with one patch.
    async fn patch(
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
        match answer {
            Ok(outcome) => {
                if effect == Effect::Restart || outcome.requires_restart == Some(true) {
                    let closed = tokio::time::timeout(RESTART_GRACE, session.client.closed())
                        .await
                        .is_ok();
                    if closed {
                        self.metrics.restart_caused();
                        return Err(GatewayFailure::Restarting);
                    }
                }
                Ok(())
            }
            Err(error) if error.class() == ErrorClass::Invalid => {
                self.refuse_heartbeats(spec, config, patch, &error);
                Err(GatewayFailure::PatchRefused(error))
            }
            Err(error) if effect == Effect::Restart && error.class() == ErrorClass::Restarting => {
                // Old gateways restart before they answer. The write has happened; the next look reads it back.
                self.sessions.remove(spec.id());
                self.metrics.restart_caused();
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

    pub(super) fn config_failure(&self, spec: &GatewaySpec, error: GatewayError) -> GatewayFailure {
        if error.outcome_unknown() || session_lost(&error) {
            // What became of it is read back over the next connection.
            self.sessions.remove(spec.id());
        }
        GatewayFailure::Config(error)
    }

    /// Lets the agents in that waited for this gateway.
    fn unpark(&self, spec: &GatewaySpec) {
        for agent in &spec.agents {
            let waited = self.state().parked.remove(&agent.row.id);
            if waited {
                self.agent_queue.add(agent.row.id, Priority::Change);
            }
        }
    }
}

/// Whether this failure means that the connection is gone.
pub(super) fn session_lost(error: &GatewayError) -> bool {
    matches!(
        error.class(),
        ErrorClass::ConnectionClosed | ErrorClass::Restarting | ErrorClass::FrameTooLarge
    )
}

/// Counts a plan's steps by kind.
fn count(plan: &GatewayPlan, report: impl Fn(DriftKind, u64)) {
    for step in &plan.steps {
        let kind = match step.change {
            ConfigChange::AddAgent { .. } | ConfigChange::SetName { .. } | ConfigChange::SetWorkspace { .. } => {
                DriftKind::Roster
            }
            ConfigChange::Lighten { .. } => DriftKind::Leftover,
            ConfigChange::SetHeartbeat { .. } => DriftKind::Heartbeat,
            ConfigChange::SetOwnership | ConfigChange::SetExecHost | ConfigChange::SetVisibility { .. } => {
                DriftKind::Defaults
            }
        };
        report(kind, 1);
    }
}

/// What a config shows of the agents, given what is still to be changed in it.
fn seen(spec: &GatewaySpec, goal: &GatewayGoal, config: &ObservedConfig, plan: &GatewayPlan) -> SeenRoster {
    let registered = goal
        .roster
        .iter()
        .filter(|want| {
            config
                .entry(&want.id)
                .is_some_and(|have| have.workspace.as_ref() == Some(&want.workspace))
        })
        .map(|want| want.id.clone())
        .collect();
    let pending = plan.steps.iter().filter_map(|step| match &step.change {
        ConfigChange::AddAgent { id, .. }
        | ConfigChange::SetName { id, .. }
        | ConfigChange::SetWorkspace { id, .. }
        | ConfigChange::SetHeartbeat { id, .. } => Some(id.clone()),
        ConfigChange::Lighten { .. }
        | ConfigChange::SetOwnership
        | ConfigChange::SetExecHost
        | ConfigChange::SetVisibility { .. } => None,
    });
    let begun = goal.removals.iter().filter(|removal| removal.begun);
    SeenRoster {
        digest: spec.roster_digest.clone(),
        registered,
        pending: pending.collect(),
        present: config
            .roster
            .iter()
            .map(|entry| entry.id.clone())
            .chain(begun.map(|removal| removal.id.clone()))
            .collect(),
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
