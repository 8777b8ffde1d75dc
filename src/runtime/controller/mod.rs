//! The loop: takes keys, has them reconciled, tells the queue how it went.

#[cfg(test)]
mod tests;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};
use uuid::Uuid;

use super::{
    metrics::{ControllerMetrics, ReconcileResult},
    queue::{Outcome, Work, WorkQueue},
    reconciler::{Action, Context, ReconcileError, Reconciler},
};

/// Works a queue off with a fixed number of workers.
#[derive(Debug)]
pub struct Controller<R: Reconciler> {
    /// The value of the label `controller`, and the queue's name.
    pub name: &'static str,
    /// Knows how to reconcile.
    pub reconciler: Arc<R>,
    /// What is to be done. Its own clones are how others add to it.
    pub queue: WorkQueue<R::Key>,
    /// How many keys are reconciled at once; at least one.
    pub workers: usize,
    /// How long one reconcile may take. One that takes longer is dropped, and counts as an error.
    pub deadline: Duration,
    /// How long a reconcile that is running when the controller is cancelled may go on before it is dropped.
    pub drain: Duration,
    /// Where it counts.
    pub metrics: Arc<ControllerMetrics>,
}

impl<R: Reconciler> Controller<R> {
    /// Runs until `cancel` fires or the queue is shut down, and then until nothing is running any more.
    ///
    /// There are two ways to stop. Shutting the queue down lets running reconciles come to their own end. Cancelling tells them to
    /// (through [`Context::cancel`]), waits for `drain`, and drops those that are still running. Dropping this future drops
    /// everything at once. In every case keys that were not finished stay in the queue.
    pub async fn run(self, cancel: CancellationToken) {
        let workers = self.workers.max(1);
        let name = self.name;
        self.metrics.set_max_concurrent(name, workers);
        info!(controller = name, workers, "controller started");
        let this = Arc::new(self);
        let mut set = JoinSet::new();
        for _ in 0..workers {
            set.spawn(Arc::clone(&this).worker(cancel.clone()));
        }
        while let Some(ended) = set.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                // A reconcile's panic never gets here; this would be one of the loop itself. The others go on, and so does this.
                error!(
                    controller = name,
                    "a worker panicked outside of any reconcile; starting another one"
                );
                set.spawn(Arc::clone(&this).worker(cancel.clone()));
            }
        }
        this.metrics.set_max_concurrent(name, 0);
        info!(controller = name, "controller stopped");
    }

    async fn worker(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let work = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                work = self.queue.take() => work,
            };
            let Some(work) = work else { return };
            let reconcile_id = Uuid::new_v4();
            let span = info_span!("reconcile", controller = self.name, key = ?work.key(), %reconcile_id);
            self.process(work, reconcile_id, &cancel).instrument(span).await;
        }
    }

    async fn process(&self, work: Work<R::Key>, reconcile_id: Uuid, cancel: &CancellationToken) {
        let active = self.metrics.active(self.name);
        let started = Instant::now();
        let cx = Context {
            cancel: cancel.child_token(),
            reconcile_id,
        };
        let ended = self.attempt(&work, &cx, cancel).await;
        let took = started.elapsed();
        let (result, outcome) = match &ended {
            Ended::Well(Action::Done) => (Some(ReconcileResult::Success), Outcome::Done),
            Ended::Well(Action::RequeueAfter(delay)) => {
                (Some(ReconcileResult::RequeueAfter), Outcome::RequeueAfter(*delay))
            }
            Ended::Failed(error) => (
                Some(ReconcileResult::Error),
                Outcome::Retry {
                    at_least: error.at_least(),
                },
            ),
            Ended::TimedOut | Ended::Panicked(_) => (Some(ReconcileResult::Error), Outcome::Retry { at_least: None }),
            // Nobody's failure: the key waits in the queue for whoever works it off next.
            Ended::Cancelled => (None, Outcome::RequeueAfter(Duration::ZERO)),
        };
        if let Some(result) = result {
            self.metrics.finished(self.name, result, took);
        }
        if let Ended::Panicked(_) = ended {
            self.metrics.panicked(self.name);
        }
        let key = work.key().clone();
        self.queue.done(work, outcome);
        drop(active);
        self.tell(&ended, &key, took);
    }

    /// One reconcile, bounded in time, with panics contained.
    async fn attempt(&self, work: &Work<R::Key>, cx: &Context, cancel: &CancellationToken) -> Ended {
        let reconcile = AssertUnwindSafe(self.reconciler.reconcile(work.key(), cx)).catch_unwind();
        let too_late = async {
            cancel.cancelled().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            biased;
            result = reconcile => match result {
                Ok(Ok(action)) => Ended::Well(action),
                Ok(Err(_)) if cancel.is_cancelled() => Ended::Cancelled,
                Ok(Err(error)) => Ended::Failed(error),
                Err(payload) => Ended::Panicked(panic_message(payload.as_ref())),
            },
            () = too_late => Ended::Cancelled,
            () = tokio::time::sleep(self.deadline) => Ended::TimedOut,
        }
    }

    fn tell(&self, ended: &Ended, key: &R::Key, took: Duration) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match ended {
            Ended::Well(action) => debug!(took_ms, ?action, "reconciled"),
            Ended::Failed(error) => warn!(
                took_ms,
                error = %error,
                failures = self.queue.failures(key),
                retry_in_ms = self.retry_in_ms(key),
                "reconcile failed; it will be tried again"
            ),
            Ended::TimedOut => warn!(
                took_ms,
                failures = self.queue.failures(key),
                retry_in_ms = self.retry_in_ms(key),
                "reconcile did not finish within its deadline of {} s and was dropped; it will be tried again",
                self.deadline.as_secs_f64()
            ),
            Ended::Panicked(message) => error!(
                took_ms,
                panic = message,
                failures = self.queue.failures(key),
                retry_in_ms = self.retry_in_ms(key),
                "reconcile panicked, which is a defect of this program: please report it; it will be tried again"
            ),
            Ended::Cancelled => info!(took_ms, "reconcile was given up because the controller is stopping"),
        }
    }

    fn retry_in_ms(&self, key: &R::Key) -> Option<u64> {
        let wait = self.queue.next_retry(key)?.saturating_duration_since(Instant::now());
        u64::try_from(wait.as_millis()).ok()
    }
}

/// The ways in which one reconcile ends.
enum Ended {
    Well(Action),
    Failed(ReconcileError),
    TimedOut,
    Panicked(String),
    Cancelled,
}

/// What a panic said, if it said it in words.
fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}
