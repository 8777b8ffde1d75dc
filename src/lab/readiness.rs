//! Waiting for a server that was just started.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout};

/// How long one probe may take: a server that is starting may accept a connection and say nothing.
const PROBE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Repeats `probe` until it succeeds, the `server` ends or `limit` has passed; the error shows the end of the `log`.
pub(super) async fn wait<F, Fut>(what: &str, server: &mut Child, log: &Path, limit: Duration, probe: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match timeout(PROBE, probe()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", PROBE.as_secs()),
        };
        if let Some(status) = server.try_wait()? {
            bail!(
                "{what} ended while starting ({status}); its log ends with:\n{}",
                tail(log)
            );
        }
        if Instant::now() >= deadline {
            let seconds = limit.as_secs();
            bail!(
                "{what} was not ready after {seconds} s (last attempt: {last}); its log ends with:\n{}",
                tail(log)
            );
        }
        sleep(POLL).await;
    }
}

/// The last lines of a log, for an error message.
pub(super) fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
