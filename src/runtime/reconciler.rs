//! What a controller asks of the one who knows how to reconcile.

use std::{
    error::Error,
    fmt::{self, Display},
    future::Future,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::queue::QueueKey;

/// Makes one object's actual state match its desired state.
///
/// It is told which object, never what happened to it: it reads both states afresh and does what is missing. It makes one
/// attempt; when to try again is the queue's business.
pub trait Reconciler: Send + Sync + 'static {
    /// Names an object. Its `Debug` form is what logs show.
    type Key: QueueKey;

    /// Reconciles one object. Never called for the same key twice at once.
    ///
    /// The future may be dropped at any await, at its deadline or when ownership ends: what it leaves behind must be something
    /// from which the next call continues.
    fn reconcile(&self, key: &Self::Key, cx: &Context) -> impl Future<Output = Result<Action, ReconcileError>> + Send;
}

/// What comes after a reconcile that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes or the next resync.
    Done,
    /// Look again after this time, for example because a deadline is pending.
    RequeueAfter(Duration),
}

/// What a reconcile knows about its own run.
#[derive(Clone, Debug)]
pub struct Context {
    /// Fires when the controller is stopping or ownership ends: begin nothing new, come to an end.
    pub cancel: CancellationToken,
    /// Identifies this run in logs.
    pub reconcile_id: Uuid,
}

/// Why a reconcile failed.
#[derive(Debug)]
pub struct ReconcileError {
    message: String,
    at_least: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ReconcileError {
    /// A failure, told in a sentence for people: what happened, to which object, what to do next. It is logged as it is, so it
    /// must hold no secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at_least: None,
            source: None,
        }
    }

    /// A failure that another error tells well enough.
    pub fn from_error(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(error.to_string()).with_source(error)
    }

    /// Keeps the error behind it, for programs; only the message is ever shown.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Asks for at least this long a wait before the next attempt; the backoff may be longer.
    #[must_use]
    pub fn retry_after(mut self, at_least: Duration) -> Self {
        self.at_least = Some(at_least);
        self
    }

    /// The least time to wait, if the failure asked for one.
    pub fn at_least(&self) -> Option<Duration> {
        self.at_least
    }
}

impl Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ReconcileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
