//! The gateway reconciler: connect, probe, read the config, patch it once if anything differs, read it back, and let the
//! agents in.

use std::sync::Arc;
use std::time::Duration;

use super::compatible::{check_shape, known_dialect, unknown_config};
use super::gateway_status::{GatewayFailure, GatewayOutcome};
use super::held::{Held, held_back};
use super::restarts::RESTART_PAUSE;
use super::session::{SeenRoster, Session};
use super::spec::GatewaySpec;
use super::world::World;
use super::{goal, live};
use crate::gateway::{Connector, ErrorClass, GatewayError, Target};
use crate::model::{ConfigChange, ConfigPart, Effect, GatewayId, GatewayPlan, ObjectRef, ObservedConfig, RosterShape};
use crate::plan::{GatewayGoal, plan_gateway};
use crate::runtime::{Action, Context, DriftKind, Priority, ReconcileError, Reconciler};
use crate::store::Store;

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
        let outcome = match outcome {
            // It was seen to go, and is expected back.
            Err(GatewayFailure::Connect(error)) if world.is_restarting(*key, &error) => Err(GatewayFailure::Restarting),
            outcome => outcome,
        };
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
                let due = outcome.held.due().map(|due| world.until(due));
                let known = world.restart_known_in(*key);
                let again = outcome.unexplained.look_again.into_iter().chain(due).chain(known).min();
                Ok(again.map_or(Action::Done, Action::RequeueAfter))
            }
            // As predicted: no failure, and no reason to back off.
            Err(GatewayFailure::Restarting) => Ok(Action::RequeueAfter(RESTART_PAUSE)),
            Err(GatewayFailure::Outdated) => Ok(Action::RequeueAfter(RELOADING)),
            Err(failure) if let Some(pause) = failure.awaits_approval() => Ok(Action::RequeueAfter(pause)),
            Err(failure) => {
                if matches!(failure, GatewayFailure::Incompatible(_)) {
                    // Nothing is to be written to it, no file either.
                    world.sessions.remove(*key);
                }
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
pub(super) struct Look {
    pub(super) config: ObservedConfig,
    pub(super) plan: GatewayPlan,
    warnings: Vec<String>,
    held: Held,
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
        self.account_for_last_write(id).await.map_err(GatewayFailure::Store)?;
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
            held: look.held,
            warnings: plan.warnings.into_iter().chain(look.warnings).collect(),
        })
    }

    /// Reads the gateway's config, and plans. Whatever becomes of the plan, agents that are in the roster already can have their
    /// files.
    async fn look(&self, spec: &GatewaySpec, session: &Session) -> Result<Look, GatewayFailure> {
        let id = spec.id();
        let config = session.client.config_get().await.map_err(|error| match error.class() {
            // What ends the connection is no config.
            ErrorClass::ProtocolError if session.client.is_closed() => GatewayFailure::Connect(error),
            ErrorClass::ProtocolError => GatewayFailure::Incompatible(unknown_config(&error)),
            _ => self.config_failure(spec, error),
        })?;
        check_shape(&config, &session.dialect).map_err(GatewayFailure::Incompatible)?;
        let dialect = self.foreseen(session).await.map_err(GatewayFailure::Store)?;
        let mut goal = goal::gateway(spec, &dialect, &self.state().refused_heartbeats);
        self.add_removals(spec, &config, &mut goal.gateway).await?;
        let mut plan = plan_gateway(&goal.gateway, &config, &dialect);
        let fights = self.config_fights(spec, session, &config, &plan).await;
        let fights = fights.map_err(GatewayFailure::Store)?;
        goal.gateway.hold.fields.extend(fights.held().map(str::to_owned));
        if !goal.gateway.hold.fields.is_empty() {
            plan = plan_gateway(&goal.gateway, &config, &dialect);
        }
        let spent = self.restarts_spent(id, &plan).await.map_err(GatewayFailure::Store)?;
        if spent.is_some() {
            goal.gateway.hold.restarts = true;
            plan = plan_gateway(&goal.gateway, &config, &dialect);
        }
        self.record_adopted(spec, &config).await?;
        let shape = config.shape.unwrap_or(dialect.roster);
        let news = self
            .sessions
            .set_roster(id, seen(spec, &goal.gateway, &config, &plan, shape));
        for agent in spec.managed().filter(|agent| news.contains(&agent.gateway_agent_id)) {
            // Nothing else would have its status written before the next resync.
            self.agent_queue.add(agent.row.id, Priority::Change);
        }
        self.differs(ObjectRef::Gateway(id), live::of_config(&plan, shape));
        let held = Held::new(fights, spent.as_ref(), &plan, shape);
        Ok(Look {
            config,
            plan,
            warnings: goal.warnings,
            held,
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
        let (effect, parts) = (look.plan.creation_effect(), [ConfigPart::Roster].into());
        let traces = self.known_traces(spec.id()).await?;
        self.register(spec, &look.plan, &traces).await?;
        let written = self.about_to_write(session, effect, parts).await;
        written.map_err(GatewayFailure::Store)?;
        let created = self.create(spec, session, &look.plan).await;
        self.answered(spec.id());
        let (made, refused) = created?;
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
        let (effect, parts) = (look.plan.removal_effect(), [ConfigPart::Roster].into());
        let written = self.about_to_write(session, effect, parts).await;
        written.map_err(GatewayFailure::Store)?;
        let (removed, failure) = self.remove(spec, session, &look.config, &look.plan, cx).await;
        self.answered(spec.id());
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
        self.is_back(&client).await.map_err(GatewayFailure::Store)?;
        let dialect = known_dialect(&client, self.settings.min_gateway_version.as_ref()).await?;
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
fn seen(
    spec: &GatewaySpec,
    goal: &GatewayGoal,
    config: &ObservedConfig,
    plan: &GatewayPlan,
    shape: RosterShape,
) -> SeenRoster {
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
    let changes = plan.steps.iter().map(|step| &step.change);
    let pending = changes
        .filter(|change| !matches!(change, ConfigChange::Lighten { .. }))
        .filter_map(|change| change.agent().cloned())
        .collect();
    let begun = goal.removals.iter().filter(|removal| removal.begun);
    SeenRoster {
        digest: spec.roster_digest.clone(),
        registered,
        pending,
        held: held_back(plan, &goal.hold, shape),
        present: config
            .roster
            .iter()
            .map(|entry| entry.id.clone())
            .chain(begun.map(|removal| removal.id.clone()))
            .collect(),
    }
}
