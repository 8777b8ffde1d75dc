//! From what was observed to conditions, events and the columns of the rows; written only where something changed.

use super::gateway::{UNAUTHORIZED_PAUSE, session_lost};
use super::leftovers::Unexplained;
use super::memory::Columns;
use super::spec::{AgentSpec, Excluded, GatewaySpec};
use super::wake::{NO_CHECK_IN, is_phase};
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError};
use crate::model::{
    ConditionStatus, ConditionType, Conditions, ConfigChange, EnsureLeads, Event, EventKind, GatewayId, ObjectRef,
};
use crate::runtime::ReconcileError;
use crate::store::{AgentStatusWrite, GatewayStatusWrite, Store, StoreError};

/// Messages in conditions are cut at this many characters: a gateway's answer may be of any length.
const MAX_MESSAGE: usize = 1000;

/// A gateway that could be looked at, and whose config holds what it should.
#[derive(Debug)]
pub(super) struct GatewayOutcome {
    pub(super) server_version: String,
    pub(super) protocol: u32,
    /// How much was left for another patch.
    pub(super) deferred: usize,
    /// How many agents are still to be removed.
    pub(super) removing: usize,
    /// Agents that no row explains.
    pub(super) unexplained: Unexplained,
    /// What the gateway does not know and what was left out for it.
    pub(super) warnings: Vec<String>,
}

/// How far a look at a gateway came.
#[derive(Debug)]
pub(super) enum GatewayFailure {
    /// No connection.
    Connect(GatewayError),
    /// Connected; what it can do could not be learnt.
    Probe(GatewayError),
    /// Its config could not be read or written.
    Config(GatewayError),
    /// It found the patch invalid; nothing was written.
    PatchRefused(GatewayError),
    /// It took the patch and does not hold what the patch said.
    NotKept(String),
    /// It restarts, as predicted.
    Restarting,
    /// The database failed.
    Store(StoreError),
    /// The rows have changed since this look began.
    Outdated,
    /// The tenure ended.
    Cancelled,
}

impl GatewayFailure {
    pub(super) fn not_kept(gateway: GatewayId, count: usize, first: &ConfigChange) -> Self {
        let first = serde_json::to_string(first).unwrap_or_default();
        Self::NotKept(format!(
            "gateway {gateway} took the patch but does not hold {count} of its changes, the first is {first}; \
             something else may be writing its config"
        ))
    }

    /// The error that the work queue is told.
    pub(super) fn into_error(self) -> ReconcileError {
        let (message, at_least) = match self {
            Self::Connect(error) | Self::Probe(error) | Self::Config(error) | Self::PatchRefused(error) => {
                let pause = if is_unauthorized(&error) {
                    Some(UNAUTHORIZED_PAUSE)
                } else {
                    error.retry_after()
                };
                (error.to_string(), pause)
            }
            Self::NotKept(message) => (message, None),
            Self::Restarting => ("the gateway restarts to apply its config".into(), None),
            Self::Store(error) => (error.to_string(), None),
            Self::Outdated => ("the rows have changed meanwhile".into(), None),
            Self::Cancelled => ("cancelled".into(), None),
        };
        match at_least {
            Some(pause) => ReconcileError::new(message).retry_after(pause),
            None => ReconcileError::new(message),
        }
    }
}

/// A condition about to be set.
pub(super) type Finding = (ConditionType, ConditionStatus, &'static str, String);

/// What a look at an agent found.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentReport {
    pub(super) findings: Vec<Finding>,
    /// What the row's `status` has to be from now on, if the look tells.
    pub(super) status: Option<&'static str>,
}

impl AgentReport {
    pub(super) fn set(
        &mut self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.findings.push((kind, status, reason, message.into()));
    }

    /// The first finding that keeps the agent from being ready.
    pub(super) fn obstacle(&self) -> Option<&Finding> {
        self.obstacles().next()
    }

    /// The findings that keep the agent from being ready.
    pub(super) fn obstacles(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|(kind, status, ..)| match kind {
            ConditionType::Paused => *status == ConditionStatus::True,
            // The agent is as desired while its check-in is awaited.
            ConditionType::CheckedIn => *status == ConditionStatus::False,
            _ => *status != ConditionStatus::True,
        })
    }
}

impl<S: Store, C: Connector> World<S, C> {
    /// Writes a gateway's status if it changed.
    pub(super) async fn report_gateway(
        &self,
        spec: &GatewaySpec,
        outcome: &Result<GatewayOutcome, GatewayFailure>,
    ) -> Result<(), ReconcileError> {
        if matches!(
            outcome,
            Err(GatewayFailure::Outdated | GatewayFailure::Cancelled | GatewayFailure::Store(_))
        ) {
            return Ok(());
        }
        let id = spec.id();
        let record = &spec.snapshot.record;
        let last = self
            .state()
            .gateways
            .get(&id)
            .cloned()
            .unwrap_or_else(|| GatewayStatusWrite {
                conditions: record.conditions.clone(),
                server_version: record.server_version.clone(),
                protocol: record.protocol,
            });
        let mut write = last.clone();
        let now = self.now();
        if self.settings.ensure_leads == EnsureLeads::None && self.only.is_none() {
            write.conditions.remove(ConditionType::LeadsEnsured);
        }
        let findings = with_rows(gateway_findings(spec, outcome), self.row_findings(spec));
        for (kind, status, reason, message) in findings {
            write
                .conditions
                .set(kind, status, reason, clip(&message), spec.generation, now);
        }
        if let Ok(outcome) = outcome {
            write.server_version = Some(outcome.server_version.clone());
            write.protocol = i32::try_from(outcome.protocol).ok();
        }
        self.metrics.gateways.record(id, &write.conditions);
        let object = ObjectRef::Gateway(id);
        let doubted = self.state().in_doubt.contains(&object);
        if write != last || doubted {
            self.state().in_doubt.insert(object);
            self.store
                .write_gateway_status(&self.fence, id, &write)
                .await
                .map_err(ReconcileError::from_error)?;
            let events: Vec<_> = transition(object, &last.conditions, &write.conditions, doubted)
                .into_iter()
                .chain(turned_false(object, &last.conditions, &write.conditions, doubted))
                .collect();
            {
                let mut state = self.state();
                state.gateways.insert(id, write);
                state.in_doubt.remove(&object);
            }
            if !events.is_empty() {
                self.store
                    .record_events(&self.fence, &events)
                    .await
                    .map_err(ReconcileError::from_error)?;
            }
        }
        Ok(())
    }

    /// Writes an agent's status if it changed, in our record and in its row.
    pub(super) async fn report_agent(&self, agent: &AgentSpec, report: AgentReport) -> Result<(), ReconcileError> {
        let id = agent.row.id;
        let (before, known) = {
            let state = self.state();
            let memory = state.agents.get(&id);
            let conditions = memory.and_then(|memory| memory.conditions.clone());
            // Our own writes are newer than the row as it was loaded before them.
            let columns = memory.and_then(|memory| memory.columns.clone());
            let columns = columns
                .filter(|(_, revision)| *revision == agent.revision)
                .map(|(columns, _)| columns);
            (
                conditions.unwrap_or_else(|| agent.record.conditions.clone()),
                columns.unwrap_or_else(|| Columns::of(&agent.row)),
            )
        };
        let mut conditions = before.clone();
        let now = self.now();
        let ready = match report.obstacle() {
            None => (
                ConditionType::Ready,
                ConditionStatus::True,
                "Converged",
                "everything is as desired".to_owned(),
            ),
            Some((kind, _, reason, message)) => (
                ConditionType::Ready,
                ConditionStatus::False,
                *reason,
                format!("{kind}: {message}"),
            ),
        };
        let is_ready = ready.1 == ConditionStatus::True;
        let is_refused = !matches!(ready.2, "Deleting" | "Deleted");
        let problem = match report.obstacle() {
            None => None,
            Some((ConditionType::CheckedIn, ..)) => Some(NO_CHECK_IN.to_owned()),
            Some(_) => Some(clip(&format!("{}: {}", ready.2, ready.3))),
        };
        if !self.settings.wake && self.only.is_none() {
            conditions.remove(ConditionType::CheckedIn);
        }
        let deleted = report
            .findings
            .iter()
            .any(|(kind, status, ..)| *kind == ConditionType::Deleted && *status == ConditionStatus::True);
        if deleted {
            // Nothing of this is true of an agent that is not there.
            use ConditionType::{CheckedIn, FilesSynced, Paused, TokenValid};
            for kind in [FilesSynced, TokenValid, CheckedIn, Paused] {
                conditions.remove(kind);
            }
        } else if agent.excluded != Some(Excluded::Deleting) {
            conditions.remove(ConditionType::Deleted);
        }
        for (kind, status, reason, message) in report.findings.into_iter().chain([ready]) {
            conditions.set(kind, status, reason, clip(&message), agent.generation, now);
        }
        self.metrics.agents.record(id, &conditions);
        let mut want = known.clone();
        match agent.excluded {
            // Nothing of a row that is not managed is ours to set, but the reason why it is not is worth a word in it.
            Some(Excluded::BoardPaused) => {}
            Some(Excluded::Deleting) => {
                want.last_provision_error = problem.filter(|_| is_refused);
                "deleting".clone_into(&mut want.status);
            }
            Some(_) => want.last_provision_error = problem,
            None => {
                want.session_key = Some(agent.session_key.clone());
                if agent.role.is_lead() {
                    want.gateway_id = agent.home;
                }
                want.last_provision_error = problem;
                // A row that another program left in a phase, although the agent has been seen and nothing is left to do.
                if known.status == "deleting" {
                    // Its removal was taken back.
                    "provisioning".clone_into(&mut want.status);
                }
                let in_phase = is_phase(&known.status) || known.status == "deleting";
                if is_ready && in_phase && agent.row.last_seen_at.is_some() {
                    "online".clone_into(&mut want.status);
                }
                if let Some(status) = report.status {
                    status.clone_into(&mut want.status);
                }
            }
        }
        let object = ObjectRef::Agent(id);
        let doubted = self.state().in_doubt.contains(&object);
        let managed = doubted && agent.excluded.is_none();
        let write = AgentStatusWrite {
            session_key: want
                .session_key
                .clone()
                .filter(|_| managed || want.session_key != known.session_key),
            gateway_id: Some(want.gateway_id)
                .filter(|gateway| (managed && agent.role.is_lead()) || *gateway != known.gateway_id),
            last_provision_error: (managed || want.last_provision_error != known.last_provision_error)
                .then(|| want.last_provision_error.clone()),
            status: (report.status.is_some() || want.status != known.status).then(|| want.status.clone()),
            conditions,
        };
        if write.conditions == before && !write.projects() && !doubted {
            return Ok(());
        }
        self.state().in_doubt.insert(object);
        let event = transition(object, &before, &write.conditions, doubted);
        let corrected = write.session_key.as_ref().and(known.session_key.as_ref());
        let moved = write.gateway_id.filter(|gateway| *gateway != known.gateway_id);
        let events: Vec<_> = event
            .into_iter()
            .chain(corrected.map(|had| session_corrected(agent, had)))
            .chain(moved.map(|_| gateway_corrected(agent, known.gateway_id)))
            .collect();
        let written = self.store.write_agent_status(&self.fence, id, &write).await;
        {
            // The record is written before the row's columns, which another program may hold.
            let mut state = self.state();
            let memory = state.agents.entry(id).or_default();
            if matches!(written, Ok(()) | Err(StoreError::LockTimeout(_))) {
                memory.conditions = Some(write.conditions);
            }
            if written.is_ok() {
                memory.columns = Some((want, agent.revision));
                state.in_doubt.remove(&object);
            }
        }
        // What is remembered as written is not told again later, so its event is recorded although the row was held.
        if !events.is_empty() && matches!(written, Ok(()) | Err(StoreError::LockTimeout(_))) {
            self.store
                .record_events(&self.fence, &events)
                .await
                .map_err(ReconcileError::from_error)?;
        }
        written.map_err(ReconcileError::from_error)
    }
}

fn session_corrected(agent: &AgentSpec, had: &str) -> Event {
    Event {
        object: ObjectRef::Agent(agent.row.id),
        kind: EventKind::Warning,
        reason: "SessionKeyCorrected".into(),
        message: clip(&format!(
            "openclaw_session_id was {had:?}; session keys are derived from ids, it is {:?} now",
            agent.session_key
        )),
    }
}

fn gateway_corrected(agent: &AgentSpec, had: GatewayId) -> Event {
    Event {
        object: ObjectRef::Agent(agent.row.id),
        kind: EventKind::Warning,
        reason: "GatewayCorrected".into(),
        message: format!(
            "gateway_id was {had}; a lead belongs to its board's gateway, it is {} now",
            agent.home
        ),
    }
}

/// The event that goes with a change of `Ready`, in status or in reason.
fn transition(object: ObjectRef, before: &Conditions, after: &Conditions, doubted: bool) -> Option<Event> {
    let ready = after.get(ConditionType::Ready)?;
    let old = before.get(ConditionType::Ready);
    // If the last write is in doubt, so is whether its event was recorded; a repeated one only counts.
    if !doubted && old.is_some_and(|old| old.status == ready.status && old.reason == ready.reason) {
        return None;
    }
    let as_asked = matches!(ready.reason.as_str(), "Deleting" | "Deleted");
    let kind = if ready.status == ConditionStatus::True || as_asked {
        EventKind::Normal
    } else {
        EventKind::Warning
    };
    Some(Event {
        object,
        kind,
        reason: ready.reason.clone(),
        message: ready.message.clone(),
    })
}

/// Events for what is told of a gateway's rows and need not show in `Ready`.
fn turned_false(object: ObjectRef, before: &Conditions, after: &Conditions, doubted: bool) -> Vec<Event> {
    let told = after.get(ConditionType::Ready).map(|ready| ready.reason.as_str());
    [ConditionType::LeadsEnsured, ConditionType::MainAgent]
        .into_iter()
        .filter_map(|kind| after.get(kind))
        .filter(|now| now.status == ConditionStatus::False && Some(now.reason.as_str()) != told)
        .filter(|now| doubted || before.get(now.kind).is_none_or(|old| old.status != now.status))
        .map(|now| Event {
            object,
            kind: EventKind::Warning,
            reason: now.reason.clone(),
            message: now.message.clone(),
        })
        .collect()
}

/// With what is told of a gateway's rows: leads that are missing keep it from being ready, a main agent does not.
fn with_rows(mut findings: Vec<Finding>, rows: Vec<Finding>) -> Vec<Finding> {
    use ConditionStatus::{False, True};
    use ConditionType::{LeadsEnsured, Ready};
    let missing = rows
        .iter()
        .find(|(kind, status, ..)| (*kind, *status) == (LeadsEnsured, False));
    if let Some((kind, _, reason, message)) = missing
        && let Some(ready) = findings
            .iter_mut()
            .find(|(kind, status, ..)| (*kind, *status) == (Ready, True))
    {
        *ready = (Ready, False, reason, format!("{kind}: {message}"));
    }
    findings.extend(rows);
    findings
}

/// The conditions that a look at a gateway gives.
fn gateway_findings(spec: &GatewaySpec, outcome: &Result<GatewayOutcome, GatewayFailure>) -> Vec<Finding> {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType::{Authorized, Compatible, ConfigSynced, Reachable, Ready};
    let ok = |kind, reason, message: &str| (kind, True, reason, message.to_owned());
    let reached = || ok(Reachable, "Connected", "a connection is open");
    let authorized = || {
        ok(
            Authorized,
            "ScopesGranted",
            "the token was accepted and the needed scopes were granted",
        )
    };
    let failed = |kind, reason: &'static str, message: String| {
        let ready = (Ready, False, reason, format!("{kind}: {message}"));
        [(kind, False, reason, message), ready]
    };
    let unknown = |kinds: &[ConditionType]| -> Vec<Finding> {
        kinds
            .iter()
            .map(|&kind| {
                (
                    kind,
                    Unknown,
                    "NotObserved",
                    "an earlier condition does not hold".into(),
                )
            })
            .collect()
    };
    let mut findings = Vec::new();
    match outcome {
        Ok(outcome) => {
            findings.extend([reached(), authorized()]);
            findings.push(if outcome.warnings.is_empty() {
                ok(
                    Compatible,
                    "DialectKnown",
                    "everything that is desired can be expressed on this gateway",
                )
            } else {
                ok(Compatible, "SomethingLeftOut", &outcome.warnings.join("; "))
            });
            findings.push(leftovers(&outcome.unexplained));
            match spec.held_back() {
                Some(excluded) => {
                    findings.extend(failed(ConfigSynced, excluded.reason(), excluded.message().to_owned()));
                }
                None if outcome.deferred > 0 => {
                    let message = format!("{} agents wait for the next patch", outcome.deferred);
                    findings.extend(failed(ConfigSynced, "Patching", message));
                }
                None if outcome.removing > 0 => {
                    let message = format!("{} agents are still to be removed", outcome.removing);
                    findings.extend(failed(ConfigSynced, "Removing", message));
                }
                None => findings.extend([
                    ok(ConfigSynced, "ReadBackEqual", "the config holds what the rows say"),
                    ok(Ready, "Converged", "everything is as desired"),
                ]),
            }
        }
        Err(GatewayFailure::Connect(error)) if is_unauthorized(error) => {
            findings.push(reached());
            findings.extend(failed(Authorized, error.reason(), error.to_string()));
            findings.extend(unknown(&[Compatible, ConfigSynced]));
        }
        Err(GatewayFailure::Connect(error)) if error.class() == ErrorClass::IncompatibleProtocol => {
            findings.push(reached());
            findings.extend(failed(Compatible, error.reason(), error.to_string()));
            findings.extend(unknown(&[Authorized, ConfigSynced]));
        }
        Err(GatewayFailure::Probe(error)) if !session_lost(error) => {
            findings.extend([reached(), authorized()]);
            findings.extend(failed(Compatible, error.reason(), error.to_string()));
            findings.extend(unknown(&[ConfigSynced]));
        }
        Err(GatewayFailure::Connect(error) | GatewayFailure::Probe(error)) => {
            findings.extend(failed(Reachable, error.reason(), error.to_string()));
            findings.extend(unknown(&[Authorized, Compatible, ConfigSynced]));
        }
        Err(GatewayFailure::Config(error)) if session_lost(error) => {
            findings.extend(failed(Reachable, error.reason(), error.to_string()));
            findings.extend(unknown(&[ConfigSynced]));
        }
        Err(GatewayFailure::Restarting) => {
            let message = "the gateway restarts to apply its config".to_owned();
            findings.extend(failed(Reachable, "Restarting", message));
            findings.extend(unknown(&[ConfigSynced]));
        }
        Err(GatewayFailure::Config(error)) => {
            findings.extend([reached(), authorized()]);
            findings.extend(failed(ConfigSynced, error.reason(), error.to_string()));
        }
        Err(GatewayFailure::PatchRefused(error)) => {
            findings.extend([reached(), authorized()]);
            findings.extend(failed(ConfigSynced, "PatchRefused", error.to_string()));
        }
        Err(GatewayFailure::NotKept(message)) => {
            findings.extend([reached(), authorized()]);
            findings.extend(failed(ConfigSynced, "NotKept", message.clone()));
        }
        Err(GatewayFailure::Store(_) | GatewayFailure::Outdated | GatewayFailure::Cancelled) => {}
    }
    findings
}

/// What there is on a gateway that no row explains. It keeps nothing from being ready.
fn leftovers(found: &Unexplained) -> Finding {
    use ConditionStatus::{False, True};
    let ids: Vec<_> = found.there.iter().map(|leftover| leftover.id.as_str()).collect();
    let agents = if ids.len() == 1 {
        "1 agent"
    } else {
        &format!("{} agents", ids.len())
    };
    let (status, reason, message) = match (ids.as_slice(), found.refused.as_slice()) {
        ([], _) => (
            False,
            "NoLeftovers",
            "every agent that this controller made has a row".to_owned(),
        ),
        (ids, []) => (
            True,
            "NotExplained",
            format!(
                "{agents} that this controller made and that no row explains: {}; `run --prune` removes them with their files",
                ids.join(", ")
            ),
        ),
        (ids, refused) => (
            True,
            "DeleteRejected",
            format!(
                "{agents} that no row explains: {}; the gateway refuses to remove {}",
                ids.join(", "),
                refused.join("; ")
            ),
        ),
    };
    (ConditionType::Leftovers, status, reason, message)
}

/// Whether the gateway was reached and does not let us in.
fn is_unauthorized(error: &GatewayError) -> bool {
    matches!(
        error.class(),
        ErrorClass::Unauthorized | ErrorClass::PairingRequired | ErrorClass::MissingScope
    )
}

/// Cuts a text that came from outside to a length that fits a condition.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
