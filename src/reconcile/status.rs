//! From what was observed to conditions, events and the columns of the rows; written only where something changed.

use super::fights::{FIGHTING_WRITER, Fights};
use super::memory::Columns;
use super::spec::{AgentSpec, Excluded};
use super::wake::{NO_CHECK_IN, is_phase};
use super::world::World;
use crate::gateway::Connector;
use crate::model::{ConditionStatus, ConditionType, Conditions, Event, EventKind, GatewayId, ObjectRef};
use crate::runtime::ReconcileError;
use crate::store::{AgentStatusWrite, Store, StoreError};

/// Messages in conditions are cut at this many characters: a gateway's answer may be of any length.
const MAX_MESSAGE: usize = 1000;

/// A condition about to be set.
pub(super) type Finding = (ConditionType, ConditionStatus, &'static str, String);

/// What a look at an agent found.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentReport {
    pub(super) findings: Vec<Finding>,
    /// What the row's `status` has to be from now on, if the look tells.
    pub(super) status: Option<&'static str>,
    /// Whether something is wrong with the token that another program may be about to put right.
    pub(super) waits: bool,
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

    /// Files that somebody else fights over are not as desired, or may not stay so.
    pub(super) fn add_fights(&mut self, fights: &Fights) {
        let files = self
            .findings
            .iter_mut()
            .find(|(kind, status, ..)| *kind == ConditionType::FilesSynced && *status == ConditionStatus::True);
        if let Some(finding) = files.filter(|_| !fights.is_empty()) {
            *finding = (
                ConditionType::FilesSynced,
                ConditionStatus::False,
                FIGHTING_WRITER,
                fights.message(),
            );
        }
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
pub(super) fn transition(object: ObjectRef, before: &Conditions, after: &Conditions, doubted: bool) -> Option<Event> {
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
pub(super) fn turned_false(object: ObjectRef, before: &Conditions, after: &Conditions, doubted: bool) -> Vec<Event> {
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

/// Cuts a text that came from outside to a length that fits a condition.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
