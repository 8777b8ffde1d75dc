//! controller-runtime's metrics of the reconcile loop.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::registered;

/// controller-runtime's buckets, in seconds.
const RECONCILE_TIME_BUCKETS: [f64; 40] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5,
    1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
];

/// How a reconcile ended, as controller-runtime names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum ReconcileResult {
    Success,
    Error,
    RequeueAfter,
}

impl ReconcileResult {
    /// All labels. `requeue` (again at once) is part of the vocabulary, but nothing here ends that way.
    const LABELS: [&'static str; 4] = ["success", "error", "requeue", "requeue_after"];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// The metrics of all controllers: `controller_runtime_*`, labelled `controller`.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    total: IntCounterVec,
    errors: IntCounterVec,
    panics: IntCounterVec,
    time: HistogramVec,
    active: IntGaugeVec,
    max_concurrent: IntGaugeVec,
}

impl ControllerMetrics {
    /// Builds and registers them, all at zero for these controllers.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn register(registry: &Registry, controllers: &[&'static str]) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<_> {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<_> {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["controller"])?)
        };
        let metrics = Self {
            total: counter(
                "controller_runtime_reconcile_total",
                "Total number of reconciliations per controller",
                &["controller", "result"],
            )?,
            errors: counter(
                "controller_runtime_reconcile_errors_total",
                "Total number of reconciliation errors per controller",
                &["controller"],
            )?,
            panics: counter(
                "controller_runtime_reconcile_panics_total",
                "Total number of reconciliation panics per controller",
                &["controller"],
            )?,
            time: registered(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "controller_runtime_reconcile_time_seconds",
                        "Length of time per reconciliation per controller",
                    )
                    .buckets(RECONCILE_TIME_BUCKETS.to_vec()),
                    &["controller"],
                )?,
            )?,
            active: gauge(
                "controller_runtime_active_workers",
                "Number of currently used workers per controller",
            )?,
            max_concurrent: gauge(
                "controller_runtime_max_concurrent_reconciles",
                "Maximum number of concurrent reconciles per controller",
            )?,
        };
        for name in controllers {
            for result in ReconcileResult::LABELS {
                metrics.total.with_label_values(&[name, result]);
            }
            metrics.errors.with_label_values(&[name]);
            metrics.panics.with_label_values(&[name]);
            metrics.time.with_label_values(&[name]);
            metrics.active.with_label_values(&[name]);
            metrics.max_concurrent.with_label_values(&[name]);
        }
        Ok(metrics)
    }

    pub(in crate::runtime) fn finished(&self, controller: &str, result: ReconcileResult, took: Duration) {
        self.total.with_label_values(&[controller, result.label()]).inc();
        self.time.with_label_values(&[controller]).observe(took.as_secs_f64());
        if result == ReconcileResult::Error {
            self.errors.with_label_values(&[controller]).inc();
        }
    }

    pub(in crate::runtime) fn panicked(&self, controller: &str) {
        self.panics.with_label_values(&[controller]).inc();
    }

    pub(in crate::runtime) fn set_max_concurrent(&self, controller: &str, workers: usize) {
        self.max_concurrent
            .with_label_values(&[controller])
            .set(i64::try_from(workers).unwrap_or(i64::MAX));
    }

    /// Counts a worker as active for as long as the guard lives, however it ends.
    pub(in crate::runtime) fn active(&self, controller: &str) -> ActiveGuard {
        let gauge = self.active.with_label_values(&[controller]);
        gauge.inc();
        ActiveGuard(gauge)
    }
}

pub(in crate::runtime) struct ActiveGuard(IntGauge);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
