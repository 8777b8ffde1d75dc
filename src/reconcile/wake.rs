//! Waking an agent and awaiting its check-in: the decision is `plan`'s, the reads, writes and calls are here.
//!
//! A wake is committed before it is sent, and sent at most once. Whatever becomes of it after that, and however this process
//! ends, its deadline stands in the database: who has not checked in by then is woken again.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::gateway::session_lost;
use super::memory::AgentMemory;
use super::session::Session;
use super::slots::{WAKES_AT_ONCE, WAKES_WITHIN};
use super::spec::{AgentSpec, GatewaySpec};
use super::status::{AgentReport, Finding};
use super::world::World;
use crate::gateway::{Connector, GatewayError};
use crate::model::{ConditionStatus, ConditionType, GatewayId, Wake, WakeRecord, WakeState};
use crate::plan::{MAX_WAKES, SECOND_WRITER_PAUSE, WakeDecision, WakeInput, check_in_deadline, decide_wake};
use crate::runtime::{Priority, ReconcileError, WakeOutcome};
use crate::store::{Store, StoreError};

/// What the row of an agent that was given up says, word for word.
pub(super) const NO_CHECK_IN: &str = "Agent did not check in after wake; max wake attempts reached";

/// How soon to look again after another program was seen to write the row between our read and our write.
const AFTER_A_RACE: Duration = Duration::from_secs(1);

/// How soon to look again at an agent whose wake waits for a sync, whose end tells of itself.
const LOOK_WHILE_HELD: Duration = Duration::from_mins(5);

/// A session's label is at most this long, in the units of UTF-16.
const MAX_LABEL: usize = 512;

/// What is remembered of an agent's wakes.
#[derive(Clone, Default)]
pub(super) struct WakeMemory {
    /// Our record as the database is known to hold it, and for which gateway; no record after a write without an answer.
    known: Option<(GatewayId, Option<WakeRecord>)>,
    /// The digest for which a wake is wanted, and since when.
    wanted: Option<(String, DateTime<Utc>)>,
    /// Whether the agent was seen as its record says since this tenure began: what is different later has changed since.
    seen_unchanged: bool,
    /// Why the wake of this counter could not be sent.
    failure: Option<(i64, String)>,
}

/// What a look at an agent's wakes came to.
enum Step {
    /// There is nothing to do now; look again after that time, if any.
    Done(Option<Finding>, Option<Duration>),
    /// Wake it.
    Begin(WakeState, Wake),
}

impl<S: Store, C: Connector> World<S, C> {
    /// Reports an agent that was looked at, and wakes it if it is to be woken. Returns when to look again.
    pub(super) async fn report_and_wake(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        session: &Session,
        mut report: AgentReport,
    ) -> Result<Option<Duration>, ReconcileError> {
        if !self.is_as_looked_at(gateway, agent) {
            // Whatever has become of it is looked at by itself.
            return Ok(None);
        }
        if self.only.is_some() {
            // Wakes are the business of a controller that stays: what is known of them goes on being shown.
            let shown = agent.record.conditions.get(ConditionType::CheckedIn).is_some();
            let record = self.known_wake(gateway, agent).filter(|_| shown);
            report
                .findings
                .extend(record.map(|record| self.wake_finding(agent, &record)));
            self.report_agent(agent, report).await?;
            return Ok(None);
        }
        let withheld = self.settings.withhold_existing_files && self.existed_before_us(gateway, agent);
        if !self.settings.wake || withheld {
            self.report_agent(agent, report).await?;
            return Ok(None);
        }
        if report.obstacle().is_some() {
            let again = self.follow_wake(gateway, agent, &mut report).await?;
            self.report_agent(agent, report).await?;
            return Ok(again);
        }
        let step = match self.next_step(gateway, agent).await {
            Ok(step) => step,
            Err(error) => {
                self.doubt_wake(gateway, agent);
                self.report_agent(agent, report).await?;
                return Err(ReconcileError::from_error(error));
            }
        };
        let (state, wake) = match step {
            Step::Done(finding, requeue) => {
                report.findings.extend(finding);
                self.report_agent(agent, report).await?;
                return Ok(requeue);
            }
            Step::Begin(state, wake) => (state, wake),
        };
        // Being ready does not wait for a wake.
        let mut before = report.clone();
        before.findings.push(pending("it is about to be woken".to_owned()));
        self.report_agent(agent, before).await?;
        if !self.is_as_looked_at(gateway, agent) {
            return Ok(None);
        }
        let (finding, online, requeue) = self
            .wake(gateway, agent, session, &state, &wake)
            .await
            .map_err(ReconcileError::from_error)?;
        report.findings.push(finding);
        report.status = online.then_some("online");
        self.report_agent(agent, report).await?;
        Ok(Some(requeue))
    }

    /// Follows a wake that is outstanding while something keeps the agent from being woken: a check-in is taken and a deadline
    /// ends all the same. Whoever misses it is shown as offline, and woken again once nothing is in the way. Returns when to look
    /// again.
    pub(super) async fn follow_wake(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        report: &mut AgentReport,
    ) -> Result<Option<Duration>, ReconcileError> {
        if !self.settings.wake || self.only.is_some() {
            return Ok(None);
        }
        let followed = self.outstanding(gateway, agent).await;
        let (finding, again) = followed
            .inspect_err(|_| self.doubt_wake(gateway, agent))
            .map_err(ReconcileError::from_error)?;
        report.findings.extend(finding);
        Ok(again)
    }

    async fn outstanding(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
    ) -> Result<(Option<Finding>, Option<Duration>), StoreError> {
        let id = agent.row.id;
        if self
            .known_wake(gateway, agent)
            .is_some_and(|record| !record.awaits_check_in())
        {
            return Ok((None, None));
        }
        let Some(state) = self.store.wake_state(id).await? else {
            return Ok((None, None));
        };
        self.know_wake(gateway, agent, &state.record);
        let Some(digest) = state
            .record
            .woken_for
            .as_deref()
            .filter(|_| state.record.awaits_check_in())
        else {
            return Ok((None, None));
        };
        let now = self.now();
        // Whatever else is wanted waits.
        let decision = decide_wake(&WakeInput {
            state: &state,
            digest,
            requested: state.record.asked,
            ours: true,
            begun_elsewhere: false,
            now,
            hold_until: None,
            changed_at: None,
        });
        let mut again = None;
        let record = match decision {
            WakeDecision::CheckedIn => {
                let record = state.record.checked_in();
                self.store.end_wake(&self.fence, id, &record, "online").await?;
                record
            }
            WakeDecision::GiveUp => {
                let record = state.record.given_up();
                self.store.end_wake(&self.fence, id, &record, "offline").await?;
                self.metrics.check_in_missed();
                record
            }
            WakeDecision::Adopt(record) => {
                self.store.set_wake_baseline(&self.fence, id, &record).await?;
                record
            }
            WakeDecision::Begin(_) => {
                // Our record keeps the deadline, and with it that the next wake is due.
                self.store.end_wake(&self.fence, id, &state.record, "offline").await?;
                let finding = pending(format!(
                    "it did not check in after wake {} of {MAX_WAKES}; it is woken again once nothing else is in the way",
                    state.record.attempts
                ));
                return Ok((Some(finding), None));
            }
            WakeDecision::Wait { until } => {
                again = Some((until - now).to_std().unwrap_or_default());
                state.record
            }
            WakeDecision::Nothing | WakeDecision::Baseline(_) | WakeDecision::Postpone { .. } => state.record,
        };
        self.know_wake(gateway, agent, &record);
        Ok((Some(self.wake_finding(agent, &record)), again))
    }

    /// Decides, and records what needs no wake.
    async fn next_step(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> Result<Step, StoreError> {
        let id = agent.row.id;
        let ours = !self.existed_before_us(gateway, agent);
        if let Some(record) = self.known_wake(gateway, agent)
            && !concerns(&record, agent)
        {
            self.saw_unchanged(agent, &record);
            return Ok(Step::Done(Some(self.wake_finding(agent, &record)), None));
        }
        let Some(state) = self.store.wake_state(id).await? else {
            return Ok(Step::Done(None, None));
        };
        self.know_wake(gateway, agent, &state.record);
        self.saw_unchanged(agent, &state.record);
        let now = self.now();
        let pause = TimeDelta::from_std(SECOND_WRITER_PAUSE).unwrap_or_default();
        let (since, is_new) = self.wanted_since(agent, now);
        let decision = decide_wake(&WakeInput {
            state: &state,
            digest: &agent.own_digest,
            requested: agent.row.requests.wake,
            ours,
            begun_elsewhere: self.settings.second_writer && is_phase(&agent.row.status),
            now,
            hold_until: self.settings.second_writer.then_some(since + pause),
            changed_at: is_new.then_some(since),
        });
        let in_time = |until: DateTime<Utc>| Some((until - now).to_std().unwrap_or_default());
        let (record, requeue) = match decision {
            WakeDecision::Nothing => (state.record, None),
            WakeDecision::Baseline(record) | WakeDecision::Adopt(record) => {
                self.store.set_wake_baseline(&self.fence, id, &record).await?;
                (record, None)
            }
            WakeDecision::CheckedIn => {
                let record = state.record.checked_in();
                self.store.end_wake(&self.fence, id, &record, "online").await?;
                (record, None)
            }
            WakeDecision::GiveUp => {
                let record = state.record.given_up();
                self.store.end_wake(&self.fence, id, &record, "offline").await?;
                self.metrics.check_in_missed();
                (record, None)
            }
            WakeDecision::Wait { until } => (state.record, in_time(until)),
            WakeDecision::Postpone { until } => {
                let finding = pending("another program may be about to wake it".to_owned());
                return Ok(Step::Done(Some(finding), in_time(until)));
            }
            WakeDecision::Begin(_) if self.syncs.holds_wake(gateway.id(), id) => {
                let finding = pending("a wake waits until the sync of the gateway has ended".to_owned());
                return Ok(Step::Done(Some(finding), Some(LOOK_WHILE_HELD)));
            }
            WakeDecision::Begin(wake) => {
                return Ok(match self.wakes.take(gateway.id(), id) {
                    Ok(()) => Step::Begin(state, wake),
                    Err(wait) => {
                        let seconds = WAKES_WITHIN.as_secs();
                        let finding = pending(format!(
                            "a wake waits for its turn: at most {WAKES_AT_ONCE} in {seconds} s on one gateway"
                        ));
                        Step::Done(Some(finding), Some(wait))
                    }
                });
            }
        };
        self.know_wake(gateway, agent, &record);
        self.saw_unchanged(agent, &record);
        Ok(Step::Done(Some(self.wake_finding(agent, &record)), requeue))
    }

    /// Commits a wake and sends it. Returns what to report, whether it was sent, and when to look again.
    async fn wake(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        session: &Session,
        state: &WakeState,
        wake: &Wake,
    ) -> Result<(Finding, bool, Duration), StoreError> {
        let id = agent.row.id;
        // As precise as the database.
        let now = self.now().trunc_subsecs(6);
        let record = state.record.begun(wake, now, check_in_deadline(now));
        // Until the answer is here.
        self.doubt_wake(gateway, agent);
        if !self.store.begin_wake(&self.fence, id, state, &record).await? {
            let finding = pending("another program wrote the row at the same time; looking again".to_owned());
            return Ok((finding, false, AFTER_A_RACE));
        }
        self.know_wake(gateway, agent, &record);
        if wake.attempt > 1 {
            self.metrics.check_in_missed();
        }
        let sent = send(session, agent, wake, record.counter).await;
        let outcome = match &sent {
            Ok(()) => WakeOutcome::Sent,
            Err(error) if error.outcome_unknown() => WakeOutcome::Unknown,
            Err(_) => WakeOutcome::Failed,
        };
        self.metrics.woke(outcome);
        tracing::debug!(agent = %id, attempt = wake.attempt, ?outcome, "woken");
        if let Err(error) = &sent {
            if session_lost(error) {
                self.gateway_queue.add(gateway.id(), Priority::Change);
            }
            let mut state = self.state();
            state.agents.entry(id).or_default().wake.failure = Some((record.counter, error.to_string()));
        }
        let requeue = record.deadline.map(|deadline| deadline - self.now());
        let requeue = requeue.and_then(|left| left.to_std().ok()).unwrap_or_default();
        Ok((self.wake_finding(agent, &record), sent.is_ok(), requeue))
    }

    /// Since when the agent's row has been seen as it is, and whether it was seen otherwise before.
    fn wanted_since(&self, agent: &AgentSpec, now: DateTime<Utc>) -> (DateTime<Utc>, bool) {
        let mut state = self.state();
        let memory = &mut state.agents.entry(agent.row.id).or_default().wake;
        let since = match &memory.wanted {
            Some((digest, since)) if *digest == agent.own_digest => *since,
            _ => {
                memory.wanted = Some((agent.own_digest.clone(), now));
                now
            }
        };
        (since, memory.seen_unchanged)
    }

    /// Notes that the agent's row is as this record says, if it is.
    fn saw_unchanged(&self, agent: &AgentSpec, record: &WakeRecord) {
        if record.woken_for.as_ref() == Some(&agent.own_digest) {
            let mut state = self.state();
            state.agents.entry(agent.row.id).or_default().wake.seen_unchanged = true;
        }
    }

    /// Our record, if it is known without asking the database.
    fn known_wake(&self, gateway: &GatewaySpec, agent: &AgentSpec) -> Option<WakeRecord> {
        let state = self.state();
        match state
            .agents
            .get(&agent.row.id)
            .and_then(|memory| memory.wake.known.as_ref())
        {
            Some((home, record)) if *home == gateway.id() => record.clone(),
            _ => agent.is_placed_on(gateway.id()).then(|| agent.record.wake.clone()),
        }
    }

    fn know_wake(&self, gateway: &GatewaySpec, agent: &AgentSpec, record: &WakeRecord) {
        let mut state = self.state();
        state.agents.entry(agent.row.id).or_default().wake.known = Some((gateway.id(), Some(record.clone())));
    }

    /// What the database holds is not known until it is asked.
    fn doubt_wake(&self, gateway: &GatewaySpec, agent: &AgentSpec) {
        let mut state = self.state();
        state.agents.entry(agent.row.id).or_default().wake.known = Some((gateway.id(), None));
    }

    /// What the record says, as a condition.
    fn wake_finding(&self, agent: &AgentSpec, record: &WakeRecord) -> Finding {
        use ConditionStatus::{False, True, Unknown};
        let (status, reason, message) = if record.deadline.is_some() {
            let state = self.state();
            let failure = state
                .agents
                .get(&agent.row.id)
                .and_then(|memory| memory.wake.failure.as_ref());
            let message = match failure {
                Some((counter, failure)) if *counter == record.counter => format!(
                    "wake {} of {MAX_WAKES} may not have arrived ({failure}); the agent is woken again if it does not check in",
                    record.attempts
                ),
                _ => format!(
                    "woken {} of {MAX_WAKES} times; its check-in is awaited",
                    record.attempts
                ),
            };
            (Unknown, "AwaitingCheckIn", message)
        } else if record.gave_up {
            let message = format!(
                "{NO_CHECK_IN}. Look on the gateway why its run ended (model credentials, the session's history); a check-in, \
                 a change of its row or a request for a wake ends this."
            );
            (False, "NoCheckIn", message)
        } else if record.is_foreign() {
            let message = "another program woke the agent last, and follows its check-in".to_owned();
            (True, "NoWakeOutstanding", message)
        } else if record.sent_at.is_none() {
            let message = "the agent was never woken by this controller".to_owned();
            (True, "NoWakeOutstanding", message)
        } else {
            (True, "CheckedIn", "the agent checked in after its last wake".to_owned())
        };
        (ConditionType::CheckedIn, status, reason, message)
    }
}

/// Whether a row's `status` says that somebody is at work on the agent.
pub(super) fn is_phase(status: &str) -> bool {
    matches!(status, "provisioning" | "updating")
}

/// Whether a check-in of the agent would be news, as far as is known.
pub(super) fn awaits_check_in(memory: Option<&AgentMemory>, agent: &AgentSpec) -> bool {
    match memory.and_then(|memory| memory.wake.known.as_ref()) {
        Some((_, record)) => record.as_ref().is_none_or(WakeRecord::awaits_check_in),
        None => agent.record.wake.awaits_check_in(),
    }
}

/// Whether the database has to be asked: something is wanted or awaited, or the agent that was given up was seen.
fn concerns(record: &WakeRecord, agent: &AgentSpec) -> bool {
    let requested = agent.row.requests.wake;
    let is_wanted = record.woken_for.as_ref() != Some(&agent.own_digest)
        || requested.is_some_and(|requested| record.asked != Some(requested));
    let seen = agent.row.last_seen_at.map(|at| at.and_utc());
    is_wanted || record.deadline.is_some() || (record.gave_up && record.is_answered_by(seen))
}

fn pending(message: String) -> Finding {
    (
        ConditionType::CheckedIn,
        ConditionStatus::Unknown,
        "WakePending",
        message,
    )
}

/// Sends one wake: the session with its label, reset if so decided, then the message, under a key of its own.
async fn send(session: &Session, agent: &AgentSpec, wake: &Wake, counter: i64) -> Result<(), GatewayError> {
    let client = &session.client;
    client.sessions_patch(&agent.session_key, &label(agent)).await?;
    if wake.reset {
        // A session that is not there needs no reset.
        client.sessions_reset(&agent.session_key).await?;
    }
    let key = format!("{}-{counter}", agent.row.id);
    let text = text(&agent.row.name, wake.first);
    client.chat_send(&agent.session_key, &text, true, &key).await.map(drop)
}

/// The session's label: the agent's name, or its id where that is blank.
fn label(agent: &AgentSpec) -> String {
    let name = agent.row.name.trim();
    let label = if name.is_empty() {
        agent.gateway_agent_id.as_str()
    } else {
        name
    };
    let mut length = 0;
    let fits = |c: &char| {
        length += c.len_utf16();
        length <= MAX_LABEL
    };
    label.chars().take_while(fits).collect()
}

/// What a woken agent is told.
fn text(name: &str, first: bool) -> String {
    let done = if first { "provisioned" } else { "updated" };
    format!(
        "Hello {name}. Your workspace has been {done}. Start now: if BOOTSTRAP.md exists, read it first and do what it says; \
         then read AGENTS.md, work by it, and begin your heartbeats."
    )
}
