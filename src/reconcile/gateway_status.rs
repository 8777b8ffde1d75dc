//! What is told of a gateway: how a look at it ended, and the conditions and events that follow from that.

use std::time::Duration;

use super::compatible::Incompatible;
use super::gateway::{UNAUTHORIZED_PAUSE, session_lost};
use super::held::Held;
use super::leftovers::Unexplained;
use super::spec::GatewaySpec;
use super::status::{Finding, clip, transition, turned_false};
use super::world::World;
use crate::gateway::{Connector, ErrorClass, GatewayError};
use crate::model::{ConditionStatus, ConditionType, ConfigChange, EnsureLeads, GatewayId, ObjectRef};
use crate::runtime::ReconcileError;
use crate::store::{GatewayStatusWrite, Store, StoreError};

/// How often a gateway is asked whether this controller's device was approved meanwhile. Each time keeps the request that the
/// operator sees alive, under the same id; left alone it would be gone after five minutes, and the next one had another id.
const APPROVAL_PAUSE: Duration = Duration::from_secs(10);

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
    /// What is not written at present.
    pub(super) held: Held,
    /// What the gateway does not know and what was left out for it.
    pub(super) warnings: Vec<String>,
}

/// How far a look at a gateway came.
#[derive(Debug)]
pub(super) enum GatewayFailure {
    /// No connection.
    Connect(GatewayError),
    /// Connected; it is none that we write to, whatever it answers.
    Incompatible(Incompatible),
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

    /// How soon to look again where nothing has failed but somebody has yet to let us in.
    pub(super) fn awaits_approval(&self) -> Option<Duration> {
        matches!(self, Self::Connect(error) if error.awaits_approval()).then_some(APPROVAL_PAUSE)
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
            Self::Incompatible(incompatible) => (incompatible.message, incompatible.pause),
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
            if let Err(failure @ GatewayFailure::Connect(error)) = outcome
                && failure.awaits_approval().is_some()
            {
                // Not a failure, so that nobody else says it.
                tracing::warn!(gateway = %id, %error, "the gateway waits for this controller's device to be approved");
            }
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
    let reached = || {
        if spec.snapshot.gateway.is_unverified() {
            let message = "a connection is open, but allow_insecure_tls is set in the gateway's row: its certificate is not checked, \
                           and anybody between can read and change everything";
            return ok(Reachable, "CertificateNotChecked", message);
        }
        ok(Reachable, "Connected", "a connection is open")
    };
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
                None if let Some((reason, message)) = outcome.held.finding() => {
                    findings.extend(failed(ConfigSynced, reason, message));
                }
                None => findings.extend([
                    ok(ConfigSynced, "ReadBackEqual", "the config holds what the rows say"),
                    ok(Ready, "Converged", "everything is as desired"),
                ]),
            }
        }
        Err(GatewayFailure::Connect(error)) if lacks_token(error) => {
            findings.extend(failed(Authorized, error.reason(), error.to_string()));
            findings.extend(unknown(&[Reachable, Compatible, ConfigSynced]));
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
        Err(GatewayFailure::Incompatible(incompatible)) => {
            findings.extend([reached(), authorized()]);
            findings.extend(failed(Compatible, incompatible.reason, incompatible.message.clone()));
            findings.extend(unknown(&[ConfigSynced]));
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

/// Whether there is no token to show, so that nothing was tried.
fn lacks_token(error: &GatewayError) -> bool {
    matches!(
        error.class(),
        ErrorClass::TokenReferenceRefused | ErrorClass::TokenUnavailable
    )
}

/// Whether the gateway was reached and does not let us in.
fn is_unauthorized(error: &GatewayError) -> bool {
    matches!(
        error.class(),
        ErrorClass::Unauthorized | ErrorClass::PairingRequired | ErrorClass::MissingScope
    )
}
