//! The work queue: which key is reconciled next, and when.

mod pick;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Debug},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::state::State;
use super::{
    backoff::BackoffPolicy,
    metrics::{QueueLevels, QueueMetrics, QueueObserver},
    rate_limit::{Bucket, RateLimit},
};

/// What a key of a [`WorkQueue`] must be; every type that can be is.
pub trait QueueKey: Clone + Eq + Hash + Debug + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Debug + Send + Sync + 'static> QueueKey for T {}

/// Why a key was added, which decides who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A periodic look at everything. It goes after changes, but not for ever: see [`WorkQueue::take`].
    Resync,
    /// Something probably changed.
    Change,
}

/// How a piece of work ended, as far as the queue is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; failures are forgotten.
    Done,
    /// It is done for now and wants to run again after this time; failures are forgotten.
    RequeueAfter(Duration),
    /// It failed: the key goes into failure backoff.
    Retry {
        /// The least time to wait, for example what a server asked for; the backoff may be longer.
        at_least: Option<Duration>,
    },
}

/// A deduplicating queue of keys with priorities, timers and per-key failure backoff.
///
/// Cheap to clone; all clones are the same queue. Its guarantees:
///
/// - A key is never worked on twice at once. One that is added meanwhile runs again afterwards.
/// - A key that was added is handed out until somebody finishes it: a [`Work`] that is dropped unfinished (panic, cancellation)
///   counts as a failure.
/// - Failures are counted per key and generation. During failure backoff [`add`](Self::add) and [`add_after`](Self::add_after)
///   neither run the key early nor count; [`add_fresh`](Self::add_fresh) does, and starts counting afresh.
///
/// There is no task behind it: timers are driven by whoever waits in [`take`](Self::take).
pub struct WorkQueue<K: QueueKey> {
    shared: Arc<Shared<K>>,
}

struct Shared<K: QueueKey> {
    name: &'static str,
    /// Held for a few map operations at a time, never across an await.
    state: Mutex<State<K>>,
    /// One permit is sent whenever a waiting `take` may have something new to hand out or to wait for.
    changed: Notify,
    closed: CancellationToken,
}

impl<K: QueueKey> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: QueueKey> Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl<K: QueueKey> WorkQueue<K> {
    /// An empty queue. `name` is the value of the labels `name` and `controller` of its metrics; `seed` is that of the jitter.
    pub fn new(
        name: &'static str,
        backoff: BackoffPolicy,
        limit: RateLimit,
        metrics: &QueueMetrics,
        seed: u64,
    ) -> Self {
        let shared = Arc::new(Shared {
            name,
            state: Mutex::new(State::new(
                backoff,
                Bucket::new(limit),
                metrics.recorder(name),
                StdRng::seed_from_u64(seed),
            )),
            changed: Notify::new(),
            closed: CancellationToken::new(),
        });
        let observer: Arc<dyn QueueObserver> = shared.clone();
        metrics.observe(name, Arc::downgrade(&observer));
        Self { shared }
    }

    /// The name given to [`new`](Self::new).
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Asks for the key to be worked on as soon as its turn comes; no effect while it is in failure backoff.
    pub fn add(&self, key: K, priority: Priority) {
        self.shared.change(|state, now| state.add(key, priority, now));
    }

    /// Asks for the key to be worked on now because its desired state is a new one: earlier failures are forgotten.
    ///
    /// This ends a failure backoff, a minimum that a failure asked for (`at_least`) included. Whoever must be protected from too
    /// many attempts whatever changes, for example a gateway that locks out clients, needs its own guard.
    pub fn add_fresh(&self, key: K) {
        self.shared.change(|state, now| state.add_fresh(key, now));
    }

    /// Asks for the key to be worked on after a time at the latest: of several times the earliest wins, and a run before then
    /// takes its place. No effect while it is in failure backoff.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.shared.change(|state, now| state.add_after(key, delay, now));
    }

    /// The next piece of work, waiting for one if need be; `None` once [`shutdown`](Self::shutdown) was called.
    ///
    /// Changes go before resyncs, in order of arrival; but a resync that has waited 30 s gets every fourth turn, so that a steady
    /// stream of changes delays it by a bounded time. Cancel safe: a dropped call has taken nothing.
    pub async fn take(&self) -> Option<Work<K>> {
        let shared = &self.shared;
        loop {
            if shared.closed.is_cancelled() {
                return None;
            }
            let changed = shared.changed.notified();
            let wake_at = {
                let mut state = shared.lock();
                let now = Instant::now();
                if let Some((key, failures)) = state.take(now) {
                    // Two adds at the same moment may have left one permit, and this waiter leaves: another one has to see to
                    // what is still there, timers included.
                    if !state.is_idle() {
                        shared.changed.notify_one();
                    }
                    return Some(Work {
                        shared: Arc::clone(shared),
                        key,
                        failures,
                        finished: false,
                    });
                }
                state.next_wake()
            };
            tokio::select! {
                biased;
                () = shared.closed.cancelled() => return None,
                () = changed => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Hands a piece of work back.
    pub fn done(&self, work: Work<K>, outcome: Outcome) {
        work.finish(outcome);
    }

    /// Forgets a key's failures and timers, because its object is gone. A key that was added since stays.
    pub fn forget(&self, key: &K) {
        self.shared.change(|state, now| state.forget(key, now));
    }

    /// How many times in a row the key has failed.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.lock().failures(key)
    }

    /// When a key in failure backoff runs again at the earliest; `None` if it is not in backoff.
    pub fn next_retry(&self, key: &K) -> Option<Instant> {
        self.shared.lock().next_retry(key)
    }

    /// How many keys are ready and not yet taken.
    pub fn len(&self) -> usize {
        let levels = self.shared.levels();
        levels.changes + levels.resyncs
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands out nothing more: every [`take`](Self::take) ends with `None`, at once. Work in hand may still be finished.
    pub fn shutdown(&self) {
        self.shared.closed.cancel();
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<K: QueueKey> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A panic under this lock can only come from a key's own `Hash` or `Eq`: the maps stay usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, f: impl FnOnce(&mut State<K>, Instant)) {
        f(&mut self.lock(), Instant::now());
        self.changed.notify_one();
    }
}

impl<K: QueueKey> QueueObserver for Shared<K> {
    fn levels(&self) -> QueueLevels {
        self.lock().levels(Instant::now())
    }
}

/// A key that was handed out: nobody else gets it until this is finished, by [`WorkQueue::done`] or by being dropped, which
/// counts as a failure.
#[must_use = "dropping work counts as a failure"]
pub struct Work<K: QueueKey> {
    shared: Arc<Shared<K>>,
    key: K,
    failures: u32,
    finished: bool,
}

impl<K: QueueKey> Work<K> {
    /// The key to work on.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// How many times in a row the key had failed when it was handed out.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn finish(mut self, outcome: Outcome) {
        self.finished = true;
        self.shared.change(|state, now| state.finish(&self.key, outcome, now));
    }
}

impl<K: QueueKey> Drop for Work<K> {
    fn drop(&mut self) {
        if !self.finished {
            let outcome = Outcome::Retry { at_least: None };
            self.shared.change(|state, now| state.finish(&self.key, outcome, now));
        }
    }
}

impl<K: QueueKey> Debug for Work<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("queue", &self.shared.name)
            .field("key", &self.key)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
