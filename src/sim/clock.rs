//! The simulation's clock: tokio's, so that it obeys a paused runtime.

use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since the epoch at which every simulation begins: 2026-11-01T00:00:00Z.
const BEGIN_MS: u64 = 1_793_491_200_000;

/// A clock that starts at a fixed date and advances with tokio's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    begin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        Self { begin: Instant::now() }
    }

    /// Milliseconds since the epoch.
    pub(super) fn now_ms(self) -> u64 {
        BEGIN_MS + u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX - BEGIN_MS)
    }

    /// Time since the simulation began.
    pub(super) fn elapsed(self) -> Duration {
        self.begin.elapsed()
    }
}
