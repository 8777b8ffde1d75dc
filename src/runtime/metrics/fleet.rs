//! Metrics of what is reconciled.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::conditions::HeldBack;
use super::{ConditionGauges, Convergence, ours, registered};
use crate::model::{AgentId, ConditionType, Effect, FIGHTING_WRITER, GatewayId, RESTART_BUDGET_EXHAUSTED};

/// What had drifted on a gateway: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DriftKind {
    /// An agent is missing from the roster, or its name or workspace differs.
    Roster,
    /// An agent's heartbeat differs.
    Heartbeat,
    /// A default that we fill in (tool host, channel visibility, ownership) is missing.
    Defaults,
    /// A managed file differs or is missing.
    File,
    /// Something is there that should be gone.
    Leftover,
}

impl DriftKind {
    const ALL: [Self; 5] = [
        Self::Roster,
        Self::Heartbeat,
        Self::Defaults,
        Self::File,
        Self::Leftover,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Roster => "roster",
            Self::Heartbeat => "heartbeat",
            Self::Defaults => "defaults",
            Self::File => "file",
            Self::Leftover => "leftover",
        }
    }
}

/// How a new generation was discovered: the label `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// A notification announced it.
    Hint,
    /// A resync found it.
    Resync,
}

impl Discovery {
    const ALL: [Self; 2] = [Self::Hint, Self::Resync];

    fn label(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Resync => "resync",
        }
    }
}

/// How a token rotation ended: the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationOutcome {
    /// The new token was promoted.
    Promoted,
    /// The rotation failed; it will be continued.
    Failed,
}

impl RotationOutcome {
    const ALL: [Self; 2] = [Self::Promoted, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Failed => "failed",
        }
    }
}

/// How the sending of a wake ended: the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeOutcome {
    /// The gateway took the message.
    Sent,
    /// It was not sent.
    Failed,
    /// No answer came: it may have been sent.
    Unknown,
}

impl WakeOutcome {
    const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Unknown];

    fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What can be foreseen wrongly. What is applied without a restart is seen as hot, whether or not it had an effect.
const MISPREDICTIONS: [(Effect, Effect); 3] = [
    (Effect::None, Effect::Restart),
    (Effect::Hot, Effect::Restart),
    (Effect::Restart, Effect::Hot),
];

/// Why something of an agent is left as it is.
const HELD_AGENTS: (&str, &[&str]) = ("agent", &[FIGHTING_WRITER]);

/// Why something of a gateway is left as it is.
const HELD_GATEWAYS: (&str, &[&str]) = ("gateway", &[FIGHTING_WRITER, RESTART_BUDGET_EXHAUSTED]);

/// What the reconcilers count, prefix `openclaw_controller_`.
#[derive(Debug)]
pub struct FleetMetrics {
    /// `agents{condition,status}`, and the agents among `held_back{object,reason}`.
    pub agents: ConditionGauges<AgentId>,
    /// `gateways{condition,status}`, and the gateways among `held_back{object,reason}`.
    pub gateways: ConditionGauges<GatewayId>,
    /// `convergence_seconds` and `oldest_unconverged_age_seconds`.
    pub convergence: Convergence,
    drift_detected: IntCounterVec,
    drift_corrected: IntCounterVec,
    restarts_caused: IntCounter,
    mispredictions: IntCounterVec,
    listener_up: IntGauge,
    discoveries: IntCounterVec,
    rotations: IntCounterVec,
    wakes: IntCounterVec,
    checkins_missed: IntCounter,
}

impl FleetMetrics {
    /// Builds and registers them, all at zero.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        use ConditionType::{
            Authorized, CheckedIn, Compatible, ConfigSynced, Deleted, FilesSynced, LeadsEnsured, Leftovers, MainAgent,
            Paused, Reachable, Ready, Registered, TokenValid,
        };
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| -> prometheus::Result<_> {
            let counters = registered(registry, IntCounterVec::new(ours(name, help), &[label])?)?;
            for value in values {
                counters.with_label_values(&[value]);
            }
            Ok(counters)
        };
        let held_back = HeldBack::register(registry, &[HELD_AGENTS, HELD_GATEWAYS])?;
        let drift_kinds = DriftKind::ALL.map(DriftKind::label);
        Ok(Self {
            agents: ConditionGauges::register(
                registry,
                "agents",
                "Agents by condition and status",
                &[Registered, FilesSynced, TokenValid, CheckedIn, Paused, Deleted, Ready],
                (&held_back, HELD_AGENTS),
            )?,
            gateways: ConditionGauges::register(
                registry,
                "gateways",
                "Gateways by condition and status",
                &[
                    Reachable,
                    Authorized,
                    Compatible,
                    ConfigSynced,
                    LeadsEnsured,
                    MainAgent,
                    Leftovers,
                    Ready,
                ],
                (&held_back, HELD_GATEWAYS),
            )?,
            convergence: Convergence::register(registry)?,
            drift_detected: counters(
                "drift_detected_total",
                "Differences found between a gateway and the rows, by kind",
                "kind",
                &drift_kinds,
            )?,
            drift_corrected: counters(
                "drift_corrected_total",
                "Differences put right and read back, by kind",
                "kind",
                &drift_kinds,
            )?,
            restarts_caused: registered(
                registry,
                IntCounter::with_opts(ours(
                    "gateway_restarts_caused_total",
                    "Restarts of gateways that followed a config write of ours",
                ))?,
            )?,
            mispredictions: {
                let counters = registered(
                    registry,
                    IntCounterVec::new(
                        ours(
                            "restart_prediction_mismatches_total",
                            "Config writes that did another thing to the gateway than was foreseen",
                        ),
                        &["predicted", "observed"],
                    )?,
                )?;
                for (predicted, observed) in MISPREDICTIONS {
                    counters.with_label_values(&[predicted.as_str(), observed.as_str()]);
                }
                counters
            },
            listener_up: registered(
                registry,
                IntGauge::with_opts(ours(
                    "listener_up",
                    "Whether notifications from the database are being listened to: 1 yes, 0 no",
                ))?,
            )?,
            discoveries: counters(
                "discoveries_total",
                "Changes of desired state by how they were discovered",
                "source",
                &Discovery::ALL.map(Discovery::label),
            )?,
            rotations: counters(
                "token_rotations_total",
                "Token rotations by outcome",
                "outcome",
                &RotationOutcome::ALL.map(RotationOutcome::label),
            )?,
            wakes: counters(
                "wakes_total",
                "Wakes of agents, by what became of the message",
                "outcome",
                &WakeOutcome::ALL.map(WakeOutcome::label),
            )?,
            checkins_missed: registered(
                registry,
                IntCounter::with_opts(ours(
                    "checkins_missed_total",
                    "Wakes after which the agent did not check in within its deadline",
                ))?,
            )?,
        })
    }

    /// For tests and one-shot commands: metrics that nobody collects.
    ///
    /// # Errors
    /// Never in practice: a new registry knows no other names.
    pub fn unregistered() -> prometheus::Result<Self> {
        Self::register(&Registry::new())
    }

    /// Counts differences that were found.
    pub fn drift_detected(&self, kind: DriftKind, count: u64) {
        self.drift_detected.with_label_values(&[kind.label()]).inc_by(count);
    }

    /// Counts differences that were put right and read back.
    pub fn drift_corrected(&self, kind: DriftKind, count: u64) {
        self.drift_corrected.with_label_values(&[kind.label()]).inc_by(count);
    }

    /// Counts a restart of a gateway that followed a config write of ours.
    pub fn restart_caused(&self) {
        self.restarts_caused.inc();
    }

    /// Counts a config write that did another thing to the gateway than was foreseen.
    pub fn mispredicted(&self, predicted: Effect, observed: Effect) {
        self.mispredictions
            .with_label_values(&[predicted.as_str(), observed.as_str()])
            .inc();
    }

    /// Says whether notifications are being listened to.
    pub fn set_listener_up(&self, up: bool) {
        self.listener_up.set(i64::from(up));
    }

    /// Counts a change of desired state that was discovered.
    pub fn discovered(&self, source: Discovery) {
        self.discoveries.with_label_values(&[source.label()]).inc();
    }

    /// Counts a token rotation that ended.
    pub fn rotated(&self, outcome: RotationOutcome) {
        self.rotations.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts a wake by what became of its message.
    pub fn woke(&self, outcome: WakeOutcome) {
        self.wakes.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts a wake that was not answered in time.
    pub fn check_in_missed(&self) {
        self.checkins_missed.inc();
    }
}
