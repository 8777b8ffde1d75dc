//! Metrics, built once and handed in: no globals.
//!
//! Names, labels and buckets are those of controller-runtime and client-go wherever they have one, so that dashboards made for
//! them work; what is ours has the prefix `openclaw_controller_`. No name of an agent, board or gateway is ever a label.

mod conditions;
mod controller;
mod convergence;
mod fleet;
mod ownership;
mod queue;

use std::sync::Arc;

use prometheus::{Opts, Registry};

pub use self::{
    conditions::ConditionGauges,
    controller::ControllerMetrics,
    convergence::Convergence,
    fleet::{Discovery, DriftKind, FleetMetrics, RotationOutcome, WakeOutcome},
    ownership::OwnershipMetrics,
    queue::QueueMetrics,
};
pub(super) use self::{
    controller::ReconcileResult,
    queue::{QueueLevels, QueueObserver, QueueRecorder},
};

/// The metrics of this room, together.
#[derive(Clone, Debug)]
pub struct RuntimeMetrics {
    /// Of the work queues.
    pub queue: Arc<QueueMetrics>,
    /// Of the controllers.
    pub controller: Arc<ControllerMetrics>,
    /// Of leadership.
    pub ownership: Arc<OwnershipMetrics>,
}

impl RuntimeMetrics {
    /// Builds and registers them, all at zero for these controllers and this elector.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn register(registry: &Registry, controllers: &[&'static str], elector: &str) -> prometheus::Result<Self> {
        Ok(Self {
            queue: Arc::new(QueueMetrics::register(registry, controllers)?),
            controller: Arc::new(ControllerMetrics::register(registry, controllers)?),
            ownership: Arc::new(OwnershipMetrics::register(registry, elector)?),
        })
    }
}

/// Registers a collector and gives it back.
fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Name and help of one of our own metrics.
fn ours(name: &str, help: &str) -> Opts {
    Opts::new(format!("openclaw_controller_{name}"), help)
}
