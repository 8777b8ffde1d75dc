//! The limit on control-plane writes.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::rpc::RpcError;

/// The window in which writes are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts control-plane writes by method and device, in fixed windows that open with the first write.
#[derive(Debug, Default)]
pub(super) struct WriteLimits {
    windows: HashMap<(String, String), (Duration, u32)>,
}

impl WriteLimits {
    /// Counts one write, or refuses it. Writes that fail later count all the same.
    pub(super) fn count(&mut self, method: &str, device: &str, limit: u32, now: Duration) -> Result<(), RpcError> {
        let window = self
            .windows
            .entry((method.to_owned(), device.to_owned()))
            .or_insert((now, 0));
        if now >= window.0 + WINDOW {
            *window = (now, 0);
        }
        if window.1 < limit {
            window.1 += 1;
            return Ok(());
        }
        let wait = (window.0 + WINDOW).saturating_sub(now);
        Err(RpcError::unavailable(format!(
            "rate limit exceeded for {method}; retry after {}s",
            wait.as_millis().div_ceil(1000)
        ))
        .retry_after(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        .details(json!({ "method": method, "limit": format!("{limit} per 60s") })))
    }

    /// Forgets everything, as a restart does.
    pub(super) fn clear(&mut self) {
        self.windows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_write_within_a_minute_is_refused_and_the_first_of_the_next_is_not() {
        let mut limits = WriteLimits::default();
        let at = Duration::from_secs;
        for second in 0..3 {
            limits.count("config.patch", "a", 3, at(second)).unwrap();
        }
        let refused = limits.count("config.patch", "a", 3, at(10)).unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(50_000));
        limits.count("config.patch", "b", 3, at(10)).unwrap();
        limits.count("config.patch", "a", 3, at(60)).unwrap();
    }
}
