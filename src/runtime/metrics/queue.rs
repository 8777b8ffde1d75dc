//! client-go's work queue metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    exponential_buckets,
    proto::MetricFamily,
};

use super::registered;

/// The values of the label `priority`: controller-runtime's numbers for a normal and for a low priority.
const CHANGE: &str = "0";
const RESYNC: &str = "-100";

/// What a queue looks like at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct QueueLevels {
    /// Ready keys that were changed.
    pub(in crate::runtime) changes: usize,
    /// Ready keys that are only looked at again.
    pub(in crate::runtime) resyncs: usize,
    /// For how long the keys in hand have been worked on, added up.
    pub(in crate::runtime) unfinished: Duration,
    /// For how long the oldest key in hand has been worked on.
    pub(in crate::runtime) longest_running: Duration,
}

/// A queue that can be looked at when metrics are collected.
pub(in crate::runtime) trait QueueObserver: Send + Sync {
    fn levels(&self) -> QueueLevels;
}

/// The metrics of all work queues: `workqueue_*`, labelled `name` and `controller` (the same value).
#[derive(Debug)]
pub struct QueueMetrics {
    adds: IntCounterVec,
    retries: IntCounterVec,
    queue_duration: HistogramVec,
    work_duration: HistogramVec,
    levels: LevelCollector,
}

impl QueueMetrics {
    /// Builds and registers them, all at zero for these queues.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn register(registry: &Registry, queues: &[&'static str]) -> prometheus::Result<Self> {
        const LABELS: [&str; 2] = ["name", "controller"];
        // controller-runtime's: 10 ns to 1000 s, by tens.
        let histogram = |name: &str, help: &str| -> prometheus::Result<_> {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(exponential_buckets(1e-8, 10.0, 12)?),
                &LABELS,
            )
        };
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &LABELS);
        let metrics = Self {
            adds: registered(
                registry,
                counter("workqueue_adds_total", "Total number of adds handled by workqueue")?,
            )?,
            retries: registered(
                registry,
                counter(
                    "workqueue_retries_total",
                    "Total number of retries handled by workqueue",
                )?,
            )?,
            queue_duration: registered(
                registry,
                histogram(
                    "workqueue_queue_duration_seconds",
                    "How long in seconds an item stays in workqueue before being requested",
                )?,
            )?,
            work_duration: registered(
                registry,
                histogram(
                    "workqueue_work_duration_seconds",
                    "How long in seconds processing an item from workqueue takes",
                )?,
            )?,
            levels: registered(registry, LevelCollector::new(queues)?)?,
        };
        for name in queues {
            drop(metrics.recorder(name));
        }
        Ok(metrics)
    }

    /// What one queue counts into.
    pub(in crate::runtime) fn recorder(&self, name: &str) -> QueueRecorder {
        let labels = [name, name];
        QueueRecorder {
            adds: self.adds.with_label_values(&labels),
            retries: self.retries.with_label_values(&labels),
            queue_duration: self.queue_duration.with_label_values(&labels),
            work_duration: self.work_duration.with_label_values(&labels),
        }
    }

    /// Looks at this queue from now on whenever metrics are collected, for as long as it exists.
    pub(in crate::runtime) fn observe(&self, name: &'static str, queue: Weak<dyn QueueObserver>) {
        let mut queues = self.levels.lock();
        match queues.iter_mut().find(|observed| observed.name == name) {
            Some(observed) => observed.queues.push(queue),
            None => queues.push(Observed {
                name,
                queues: vec![queue],
            }),
        }
    }
}

/// The counters of one queue.
pub(in crate::runtime) struct QueueRecorder {
    adds: IntCounter,
    retries: IntCounter,
    queue_duration: Histogram,
    work_duration: Histogram,
}

impl QueueRecorder {
    pub(in crate::runtime) fn added(&self) {
        self.adds.inc();
    }

    pub(in crate::runtime) fn retried(&self) {
        self.retries.inc();
    }

    pub(in crate::runtime) fn taken(&self, waited: Duration) {
        self.queue_duration.observe(waited.as_secs_f64());
    }

    pub(in crate::runtime) fn worked(&self, took: Duration) {
        self.work_duration.observe(took.as_secs_f64());
    }
}

/// The queues of one name: more than one only while one replaces the other.
struct Observed {
    name: &'static str,
    queues: Vec<Weak<dyn QueueObserver>>,
}

/// The gauges that are computed when they are collected, from the queues themselves: they cannot drift.
#[derive(Clone)]
struct LevelCollector {
    depth: IntGaugeVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
    queues: Arc<Mutex<Vec<Observed>>>,
}

impl LevelCollector {
    fn new(names: &[&'static str]) -> prometheus::Result<Self> {
        let queues = names.iter().map(|&name| Observed {
            name,
            queues: Vec::new(),
        });
        Ok(Self {
            depth: IntGaugeVec::new(
                Opts::new(
                    "workqueue_depth",
                    "Current depth of workqueue by workqueue and priority",
                ),
                &["name", "controller", "priority"],
            )?,
            unfinished: GaugeVec::new(
                Opts::new(
                    "workqueue_unfinished_work_seconds",
                    "How many seconds of work has been done that is in progress and hasn't been observed by work_duration. \
                     Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at \
                     which this increases.",
                ),
                &["name", "controller"],
            )?,
            longest: GaugeVec::new(
                Opts::new(
                    "workqueue_longest_running_processor_seconds",
                    "How many seconds has the longest running processor for workqueue been running.",
                ),
                &["name", "controller"],
            )?,
            queues: Arc::new(Mutex::new(queues.collect())),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Observed>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LevelCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelCollector").finish_non_exhaustive()
    }
}

impl Collector for LevelCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.depth.desc(), self.unfinished.desc(), self.longest.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for Observed { name, queues } in self.lock().iter_mut() {
            let name = *name;
            queues.retain(|queue| queue.strong_count() > 0);
            let mut sum = QueueLevels::default();
            for levels in queues.iter().filter_map(Weak::upgrade).map(|queue| queue.levels()) {
                sum.changes += levels.changes;
                sum.resyncs += levels.resyncs;
                sum.unfinished += levels.unfinished;
                sum.longest_running = sum.longest_running.max(levels.longest_running);
            }
            for (priority, depth) in [(CHANGE, sum.changes), (RESYNC, sum.resyncs)] {
                self.depth
                    .with_label_values(&[name, name, priority])
                    .set(i64::try_from(depth).unwrap_or(i64::MAX));
            }
            self.unfinished
                .with_label_values(&[name, name])
                .set(sum.unfinished.as_secs_f64());
            self.longest
                .with_label_values(&[name, name])
                .set(sum.longest_running.as_secs_f64());
        }
        [self.depth.collect(), self.unfinished.collect(), self.longest.collect()].concat()
    }
}
