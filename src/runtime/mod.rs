//! What every controller needs and none is about: work queue, backoff, ownership, the loop.
//!
//! Nothing here knows what is reconciled. Time is tokio's, so that all of it can be tested under the paused clock.

mod backoff;
mod controller;
mod metrics;
mod ownership;
mod queue;
mod rate_limit;
mod reconciler;

pub use backoff::BackoffPolicy;
pub use controller::Controller;
pub use metrics::{
    ConditionGauges, ControllerMetrics, Convergence, Discovery, DriftKind, FleetMetrics, OwnershipMetrics,
    QueueMetrics, RotationOutcome, RuntimeMetrics, WakeOutcome,
};
pub use ownership::{Ownership, OwnershipConfig, Standing, Tenure};
pub use queue::{Outcome, Priority, QueueKey, Work, WorkQueue};
pub use rate_limit::RateLimit;
pub use reconciler::{Action, Context, ReconcileError, Reconciler};
