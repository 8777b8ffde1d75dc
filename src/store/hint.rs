//! Hints that something may have changed. Losing one costs time, never correctness: resyncs find the rest.

use std::future::Future;

use super::StoreError;
use crate::model::GatewayId;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// Rows of this gateway.
    Gateway(GatewayId),
    /// A one-shot sync was asked for.
    Sync,
    /// Anything: hints may have been lost, or the change could not be pinned to a gateway.
    Everything,
}

/// A stream of hints that never ends.
pub trait HintSource: Send + 'static {
    /// Waits for the next hint. Waits without limit: a quiet database gives none.
    ///
    /// May be dropped at any time without losing a hint.
    ///
    /// # Errors
    /// The connection could not be made. Call again: the next call waits a little before it tries again, and the first hint
    /// after a recovery is [`Hint::Everything`].
    fn next(&mut self) -> impl Future<Output = Result<Hint, StoreError>> + Send;
}
