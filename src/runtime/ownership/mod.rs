//! Who may act: one replica at a time, by a lease in the database.
//!
//! The rest of the program only sees a [`Tenure`]: a fence for its writes and a token that says when to stop. Whether there is one
//! lease for everything or one for each gateway is decided here.

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinError, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, error, info, warn};

use super::metrics::OwnershipMetrics;
use crate::store::{Fence, LeaseStore, StoreError};

/// What is contended for, as whom, and in which rhythm.
///
/// With the default rhythm a replica that dies is replaced after 16 s at most: its lease expires 15 s after the last renewal, and
/// the others look every second. A replica that is stopped in an orderly way is replaced within a second.
#[derive(Clone, Debug)]
pub struct OwnershipConfig {
    /// The lease's scope; `all` as long as there is one lease for everything.
    pub scope: String,
    /// Who we are; unique for each run of the program.
    pub holder: String,
    /// How long a lease lasts after it was last renewed. 15 s.
    pub ttl: Duration,
    /// How long after a renewal the next one is tried. 5 s.
    pub renew_every: Duration,
    /// How often a standby tries to take the lease, and how soon a failed renewal is tried again. 1 s.
    pub poll_every: Duration,
    /// How long before a lease that could not be renewed expires work is told to stop. 4 s, most of which it has for stopping.
    pub stop_before: Duration,
    /// How long work may take to come to an end when the program is stopped; the lease is kept meanwhile. 10 s.
    pub handover: Duration,
}

impl OwnershipConfig {
    /// The default rhythm.
    pub fn new(scope: impl Into<String>, holder: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            holder: holder.into(),
            ttl: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            poll_every: Duration::from_secs(1),
            stop_before: Duration::from_secs(4),
            handover: Duration::from_secs(10),
        }
    }

    /// How long [`Ownership::run`] may take to come to its end after it was told to stop: work that does not stop is dropped, and a
    /// database that does not answer is not waited for.
    pub fn stops_within(&self) -> Duration {
        let asking_for_the_lease = self.ttl / 2;
        let giving_it_back = self.renew_deadline();
        asking_for_the_lease.max(self.handover + self.drop_before()) + giving_it_back
    }

    /// Work that has not stopped this long before the lease expires is dropped: enough for dropping it.
    fn drop_before(&self) -> Duration {
        self.stop_before / 4
    }

    /// How long one attempt to renew may take, so that one that hangs leaves time for another.
    fn renew_deadline(&self) -> Duration {
        self.renew_every.mul_f64(0.4)
    }
}

/// A time during which this replica is the one that acts.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// Every write to the database carries it.
    pub fence: Fence,
    /// Fires when the tenure ends, and always before the lease can expire: stop everything. Work that has not stopped when the
    /// lease is about to expire is dropped.
    pub cancel: CancellationToken,
}

/// Where this replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been told yet.
    Starting,
    /// Another replica acts; this one would take over.
    Standby,
    /// This replica acts, under this term.
    Active {
        /// The lease's term.
        term: i64,
    },
    /// The database does not say who acts; the text says why. Nobody acts here.
    Unknown(String),
    /// The program is being stopped.
    Stopped,
}

/// Contends for a lease, and has work done while it is held.
#[derive(Debug)]
pub struct Ownership {
    config: OwnershipConfig,
    metrics: Arc<OwnershipMetrics>,
    standing: watch::Sender<Standing>,
}

/// Why a lease is not held any more.
enum Lost {
    /// It was taken or released behind our back; nothing may be done under it.
    Taken,
    /// It could not be renewed in time; it may be taken from this instant on.
    Unconfirmed { expires: Instant },
}

/// How the work of a tenure ended.
enum Ended {
    ByItself(Result<(), JoinError>),
    Stopping,
    Lost(Lost),
}

impl Ownership {
    /// Ready to [`run`](Self::run).
    pub fn new(config: OwnershipConfig, metrics: Arc<OwnershipMetrics>) -> Self {
        Self {
            config,
            metrics,
            standing: watch::Sender::new(Standing::Starting),
        }
    }

    /// Follows where this replica stands, for example for a readiness check.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Contends for the lease until `stop` fires; calls `work` each time it was acquired, and runs what that returns.
    ///
    /// The work runs as a task of its own. It should run until its [`Tenure::cancel`] fires and then come to an end; if it ends
    /// before that, or panics, the lease is given up and contended for again. When `stop` fires, work is told to stop and given
    /// time for it while the lease is still renewed, then the lease is released so that another replica takes over at once.
    pub async fn run<L, W, F>(self, leases: &L, mut work: W, stop: CancellationToken)
    where
        L: LeaseStore,
        W: FnMut(Tenure) -> F + Send,
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some((fence, acquired)) = self.contend(leases, &stop).await {
            info!(
                scope = fence.scope,
                term = fence.term,
                "lease acquired: this replica is active"
            );
            self.metrics.started();
            self.standing.send_replace(Standing::Active { term: fence.term });
            let cancel = CancellationToken::new();
            let tenure = Tenure {
                fence: fence.clone(),
                cancel: cancel.clone(),
            };
            // Whatever happens to this future, the work does not outlive it.
            let task = AbortOnDropHandle::new(tokio::spawn(work(tenure)));
            let ended = self.hold(leases, &fence, acquired, task, &cancel, &stop).await;
            self.metrics.ended();
            // A database that does not renew a lease does not say either who holds it now.
            self.standing.send_replace(match ended {
                Ended::Lost(Lost::Unconfirmed { .. }) => {
                    Standing::Unknown("the lease could not be renewed: the database did not answer".to_owned())
                }
                _ => Standing::Standby,
            });
            self.release(leases, &fence).await;
            pause(self.config.poll_every, &stop).await;
        }
        self.standing.send_replace(Standing::Stopped);
    }

    /// Tries to take the lease until that succeeds; `None` when stopping.
    async fn contend<L: LeaseStore>(&self, leases: &L, stop: &CancellationToken) -> Option<(Fence, Instant)> {
        let OwnershipConfig { scope, holder, ttl, .. } = &self.config;
        while !stop.is_cancelled() {
            let asked = Instant::now();
            // Not given up when stopping: an answer that nobody waits for would leave a lease behind that nobody releases.
            let answer = tokio::time::timeout(*ttl / 2, leases.acquire(scope, holder, *ttl)).await;
            match answer {
                Ok(Ok(Some(term))) => {
                    let fence = Fence {
                        scope: scope.clone(),
                        holder: holder.clone(),
                        term,
                    };
                    if stop.is_cancelled() {
                        self.release(leases, &fence).await;
                        return None;
                    }
                    return Some((fence, asked));
                }
                Ok(Ok(None)) => {
                    if self.moved_to(Standing::Standby) {
                        info!(scope, "another replica is active: standing by");
                    }
                }
                Ok(Err(error)) => self.blind(&error.to_string()),
                Err(_) => self.blind("the database did not answer in time"),
            }
            pause(self.config.poll_every, stop).await;
        }
        None
    }

    /// Sees the work of one tenure through to its end, and tells how that came.
    async fn hold<L: LeaseStore>(
        &self,
        leases: &L,
        fence: &Fence,
        acquired: Instant,
        mut task: AbortOnDropHandle<()>,
        cancel: &CancellationToken,
        stop: &CancellationToken,
    ) -> Ended {
        let keep = self.keep(leases, fence, acquired);
        tokio::pin!(keep);
        let mut ended = tokio::select! {
            biased;
            lost = &mut keep => Ended::Lost(lost),
            () = stop.cancelled() => Ended::Stopping,
            result = &mut task => Ended::ByItself(result),
        };
        cancel.cancel();
        if matches!(ended, Ended::Stopping) {
            info!(
                scope = fence.scope,
                term = fence.term,
                "stopping: finishing work before the lease is released"
            );
            ended = tokio::select! {
                biased;
                lost = &mut keep => Ended::Lost(lost),
                result = &mut task => Ended::ByItself(result),
                () = tokio::time::sleep(self.config.handover) => Ended::Stopping,
            };
        }
        match &ended {
            Ended::ByItself(Ok(())) if stop.is_cancelled() => return ended,
            Ended::ByItself(Ok(())) => {
                warn!(
                    scope = fence.scope,
                    "work ended although the lease is held; giving the lease up"
                );
                return ended;
            }
            Ended::ByItself(Err(error)) => {
                // The panic itself was told by the panic hook.
                error!(
                    scope = fence.scope,
                    panicked = error.is_panic(),
                    "work crashed, which is a defect of this program: please report it; giving the lease up and starting over"
                );
                return ended;
            }
            Ended::Stopping => warn!(
                scope = fence.scope,
                "work did not stop within {} s; dropping it",
                self.config.handover.as_secs_f64()
            ),
            Ended::Lost(Lost::Taken) => {
                self.metrics.lost();
                self.metrics.ended();
                error!(
                    scope = fence.scope,
                    term = fence.term,
                    "another replica took the lease, or it was removed: dropping all work"
                );
            }
            Ended::Lost(Lost::Unconfirmed { expires }) => {
                self.metrics.lost();
                self.metrics.ended();
                error!(
                    scope = fence.scope,
                    term = fence.term,
                    "the lease could not be renewed in time: stopping all work before it expires; check the database"
                );
                let last_call = expires.checked_sub(self.config.drop_before()).unwrap_or(*expires);
                if tokio::time::timeout_at(last_call, &mut task).await.is_ok() {
                    return ended;
                }
                warn!(
                    scope = fence.scope,
                    "work did not stop before the lease expires; dropping it"
                );
            }
        }
        task.abort();
        // An aborted task ends at its next await. One that never gets there must not keep this replica from going on.
        if tokio::time::timeout(self.config.drop_before(), task).await.is_err() {
            error!(
                scope = fence.scope,
                "work does not react to being dropped; writes of it will be refused"
            );
        }
        ended
    }

    /// Renews the lease for as long as that succeeds. Ends early enough for work to be stopped.
    async fn keep<L: LeaseStore>(&self, leases: &L, fence: &Fence, acquired: Instant) -> Lost {
        let config = &self.config;
        // By the monotonic clock and from before the database was asked: its own clock started later.
        let mut confirmed = acquired;
        let mut next = acquired + config.renew_every;
        loop {
            let expires = confirmed + config.ttl;
            let stop_at = confirmed + config.ttl.saturating_sub(config.stop_before);
            tokio::time::sleep_until(next.min(stop_at)).await;
            let asked = Instant::now();
            if asked >= stop_at {
                return Lost::Unconfirmed { expires };
            }
            let deadline = stop_at.min(asked + config.renew_deadline());
            match tokio::time::timeout_at(deadline, leases.renew(fence, config.ttl)).await {
                Ok(Ok(true)) => {
                    debug!(scope = fence.scope, term = fence.term, "lease renewed");
                    confirmed = asked;
                    next = asked + config.renew_every;
                    continue;
                }
                Ok(Ok(false) | Err(StoreError::Fenced { .. })) => return Lost::Taken,
                Ok(Err(error)) => warn!(scope = fence.scope, %error, "cannot renew the lease; trying again"),
                Err(_) => warn!(
                    scope = fence.scope,
                    "cannot renew the lease: the database did not answer in time; trying again"
                ),
            }
            next = asked + config.poll_every;
        }
    }

    async fn release<L: LeaseStore>(&self, leases: &L, fence: &Fence) {
        match tokio::time::timeout(self.config.renew_deadline(), leases.release(fence)).await {
            Ok(Ok(())) => info!(scope = fence.scope, term = fence.term, "lease released"),
            Ok(Err(error)) => warn!(scope = fence.scope, %error, "cannot release the lease; it will expire by itself"),
            Err(_) => warn!(
                scope = fence.scope,
                "cannot release the lease: the database did not answer in time; it will expire by itself"
            ),
        }
    }

    fn blind(&self, why: &str) {
        if self.moved_to(Standing::Unknown(why.to_owned())) {
            warn!(
                scope = self.config.scope,
                "cannot tell which replica is active, trying again: {why}"
            );
        }
    }

    /// Whether this is another standing than before.
    fn moved_to(&self, standing: Standing) -> bool {
        self.standing.send_if_modified(|current| {
            let moved = *current != standing;
            *current = standing;
            moved
        })
    }
}

async fn pause(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}
