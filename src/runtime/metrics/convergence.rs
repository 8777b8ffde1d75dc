//! How long it takes until a change has arrived.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::time::Instant;

use super::{ours, registered};
use crate::model::ObjectRef;

/// From a row's commit to its having been read back equal: from the tens of milliseconds of one file to the ten minutes of a
/// resync that found what nobody announced.
const CONVERGENCE_BUCKETS: [f64; 16] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 3_600.0,
];

/// Which objects are known not to match yet, and since when: `openclaw_controller_convergence_seconds` and
/// `openclaw_controller_oldest_unconverged_age_seconds`.
#[derive(Clone, Debug)]
pub struct Convergence {
    seconds: Histogram,
    oldest: OldestCollector,
}

impl Convergence {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "openclaw_controller_convergence_seconds",
                "From a changed row having been noticed to its effect having been read back equal",
            )
            .buckets(CONVERGENCE_BUCKETS.to_vec()),
        )?;
        let oldest = OldestCollector {
            gauge: Gauge::with_opts(ours(
                "oldest_unconverged_age_seconds",
                "For how long the object that has not matched for longest has not matched, also before this process; 0 if all match",
            ))?,
            since: Arc::default(),
        };
        Ok(Self {
            seconds: registered(registry, seconds)?,
            oldest: registered(registry, oldest)?,
        })
    }

    /// The object's desired state is a new one that was committed this long ago. While it has not converged, the first call
    /// counts: further edits do not make the wait shorter.
    pub fn started(&self, object: ObjectRef, ago: Duration) {
        let now = Instant::now();
        let since = now.checked_sub(ago).unwrap_or(now);
        self.oldest.lock().entry(object).or_insert(since);
    }

    /// The object was read back and matches. Returns how long that took, if it had not matched before.
    pub fn converged(&self, object: ObjectRef) -> Option<Duration> {
        let since = self.oldest.lock().remove(&object)?;
        let took = since.elapsed();
        self.seconds.observe(took.as_secs_f64());
        Some(took)
    }

    /// The object is gone, or not this replica's any more.
    pub fn forget(&self, object: ObjectRef) {
        self.oldest.lock().remove(&object);
    }

    /// Forgets all objects, for example because this replica is no longer the one that reconciles.
    pub fn clear(&self) {
        self.oldest.lock().clear();
    }
}

/// Computes the age when it is collected.
#[derive(Clone, Debug)]
struct OldestCollector {
    gauge: Gauge,
    since: Arc<Mutex<HashMap<ObjectRef, Instant>>>,
}

impl OldestCollector {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for OldestCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let oldest = self.lock().values().min().map(Instant::elapsed);
        self.gauge.set(oldest.unwrap_or_default().as_secs_f64());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::AgentId;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_age_grows_until_its_object_has_converged() {
        let convergence = Convergence::register(&Registry::new()).unwrap();
        let age = || {
            convergence.oldest.collect();
            convergence.oldest.gauge.get()
        };
        let [one, two] = [1, 2].map(|n| ObjectRef::Agent(AgentId(Uuid::from_u128(n))));
        assert!(age().abs() < 1e-9);
        convergence.started(one, Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        convergence.started(two, Duration::ZERO);
        convergence.started(one, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((age() - 6.0).abs() < 1e-9, "{}", age());
        assert_eq!(convergence.converged(one), Some(Duration::from_secs(6)));
        assert!((age() - 1.0).abs() < 1e-9, "{}", age());
        assert_eq!(convergence.converged(one), None, "it had already converged");
        convergence.forget(two);
        assert!(age().abs() < 1e-9);
        assert_eq!(convergence.seconds.get_sample_count(), 1);
    }
}
