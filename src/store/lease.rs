//! Who may write: leases with a term that only grows.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::StoreError;

/// A held lease. Every write carries it and is refused when the lease has moved on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// What the lease is for: `all`, or a gateway's id.
    pub scope: String,
    /// Who holds it; unique for each run of the program.
    pub holder: String,
    /// Which acquisition of the lease this is.
    pub term: i64,
}

/// A lease as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Who holds it, or held it until it expired; `None` after a release.
    pub holder: Option<String>,
    /// The number of times it was acquired.
    pub term: i64,
    /// When it expires or expired, by the database's clock.
    pub expires_at: DateTime<Utc>,
    /// Whether somebody holds it now, by the database's clock.
    pub held: bool,
}

/// Leases, by the database's clock.
pub trait LeaseStore: Send + Sync + 'static {
    /// Takes the lease if nobody holds it, if it has expired, or if this holder has it already; `None` if another has it.
    /// Returns the new term, which is greater than any before it, so writes under an earlier term are refused from now on.
    ///
    /// Waits for writes in flight under the earlier term: once it returns, none of them can still land.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] if such a write takes too long; anything the database answers.
    fn acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<i64>, StoreError>> + Send;

    /// Moves the expiry to `ttl` from now; `false` if the lease has been released or taken. Does not wait for writes.
    fn renew(&self, fence: &Fence, ttl: Duration) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives the lease up, so that another can take it at once. Harmless if it is no longer held.
    fn release(&self, fence: &Fence) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The lease as it stands; `None` if it was never taken.
    fn current(&self, scope: &str) -> impl Future<Output = Result<Option<LeaseInfo>, StoreError>> + Send;
}
