//! Counting and timing calls.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// The methods that may appear as a label; anything else counts as `other`, so that no caller can grow the label set.
const METHODS: [&str; 15] = [
    "connect",
    "config.get",
    "config.patch",
    "config.schema.lookup",
    "agents.list",
    "agents.create",
    "agents.update",
    "agents.delete",
    "agents.files.list",
    "agents.files.get",
    "agents.files.set",
    "sessions.patch",
    "sessions.reset",
    "sessions.delete",
    "chat.send",
];

/// From a file write on an idle gateway (10 ms) to a patch of 300 agents (3 minutes), in seconds.
const BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
];

/// The metrics of calls to gateways. Cheap to clone; made once and handed to the connector.
#[derive(Clone)]
pub struct RpcMetrics {
    total: IntCounterVec,
    duration: HistogramVec,
}

impl RpcMetrics {
    /// Makes the metrics and registers them: `openclaw_controller_rpc_total{method,outcome}` and
    /// `openclaw_controller_rpc_duration_seconds{method}`. The outcome is `ok` or the reason of an
    /// [`ErrorClass`](super::ErrorClass).
    ///
    /// # Errors
    /// When the registry already holds metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let this = Self::new()?;
        registry.register(Box::new(this.total.clone()))?;
        registry.register(Box::new(this.duration.clone()))?;
        for method in METHODS {
            this.total.with_label_values(&[method, "ok"]);
            this.duration.with_label_values(&[method]);
        }
        Ok(this)
    }

    /// Metrics that nobody scrapes, for tests and one-shot commands.
    ///
    /// # Panics
    /// Never: the names and buckets are constants.
    #[expect(
        clippy::expect_used,
        reason = "the names and buckets are constants, and a test makes them"
    )]
    pub fn unregistered() -> Self {
        Self::new().expect("the metrics' names are valid")
    }

    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            total: IntCounterVec::new(
                Opts::new(
                    "openclaw_controller_rpc_total",
                    "Calls to gateways, by method and outcome (ok, or the reason of the error).",
                ),
                &["method", "outcome"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "openclaw_controller_rpc_duration_seconds",
                    "How long calls to gateways took, by method, waiting for a free place included.",
                )
                .buckets(BUCKETS.to_vec()),
                &["method"],
            )?,
        })
    }

    /// Records one finished call.
    pub(super) fn record(&self, method: &str, outcome: &'static str, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.total.with_label_values(&[method, outcome]).inc();
        self.duration.with_label_values(&[method]).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_are_not_known_share_one_label() {
        let registry = Registry::new();
        let metrics = RpcMetrics::register(&registry).unwrap();
        metrics.record("config.get", "ok", Duration::from_millis(3));
        metrics.record("made.up", "Timeout", Duration::from_secs(3));
        assert_eq!(metrics.total.with_label_values(&["config.get", "ok"]).get(), 1);
        assert_eq!(metrics.total.with_label_values(&["other", "Timeout"]).get(), 1);
        assert!(RpcMetrics::register(&registry).is_err(), "they are registered once");
    }
}
