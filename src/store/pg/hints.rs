//! LISTEN: one connection of its own, and "anything may have changed" whenever it was not there.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use super::PgStore;
use crate::model::GatewayId;
use crate::store::{CHANNEL, Hint, HintSource, StoreError};

/// How long a notification of our own may take to come back before the connection counts as deaf.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a quiet connection is asked whether it is still there, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(5);

/// The pause before connecting again: the first, doubled up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// Payloads with this prefix are probes.
const PROBE: &str = "probe:";

/// Payloads with this prefix tell of a request for a sync.
const SYNC: &str = "sync:";

/// Whether notifications arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerState {
    /// Not yet connected for the first time.
    Starting,
    /// A notification of our own came back; changes are noticed at once.
    Up,
    /// Not connected, and why. Changes are noticed by the next resync.
    Down(String),
    /// Connected, but notifications do not arrive: something between us and Postgres swallows them.
    Deaf,
}

/// Hints from the database's triggers.
pub struct PgHints {
    connect: PgConnectOptions,
    connect_timeout: Duration,
    /// Sends the probes: through another connection, as the triggers do.
    sender: PgPool,
    listener: Option<PgListener>,
    /// Ends the probe under way: its payload, and by when it must have come back.
    probe: Option<(String, Instant)>,
    keepalive_at: Instant,
    retry_at: Option<Instant>,
    retry_pause: Duration,
    state: watch::Sender<ListenerState>,
}

impl std::fmt::Debug for PgHints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connect options hold the password.
        f.debug_struct("PgHints")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl PgStore {
    /// Hints from this database. Connects when first asked for one.
    pub fn listen(&self) -> PgHints {
        PgHints {
            connect: self.connect.clone(),
            connect_timeout: self.options.connect_timeout,
            sender: self.pool.clone(),
            listener: None,
            probe: None,
            keepalive_at: Instant::now(),
            retry_at: None,
            retry_pause: RETRY_FIRST,
            state: watch::Sender::new(ListenerState::Starting),
        }
    }
}

/// What woke the listener.
enum Woken {
    Payload(String),
    Lost(String),
    ProbeOverdue,
    KeepaliveDue,
}

impl PgHints {
    /// Whether notifications arrive, as it changes.
    pub fn state(&self) -> watch::Receiver<ListenerState> {
        self.state.subscribe()
    }

    fn lost(&mut self, why: String) {
        self.listener = None;
        self.probe = None;
        self.retry_at = Some(Instant::now() + self.retry_pause);
        self.retry_pause = (self.retry_pause * 2).min(RETRY_LAST);
        self.state.send_replace(ListenerState::Down(why));
    }

    /// Connects, listens, and sends a probe.
    async fn open(&mut self) -> Result<(), StoreError> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
        }
        // Kept if this call is dropped on the way: the next one must not connect more often.
        self.retry_at = Some(Instant::now() + self.retry_pause);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.connect_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(self.connect.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A lost connection is ours to notice and to report.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let deadline = Instant::now() + self.connect_timeout + PROBE_DEADLINE;
        let listener = timeout_at(deadline, listening)
            .await
            .map_err(|_| StoreError::Unreachable(format!("no answer to LISTEN within {:?}", self.connect_timeout)))??;
        let payload = format!("{PROBE}{}", Uuid::new_v4());
        timeout_at(
            deadline,
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(&payload)
                .execute(&self.sender),
        )
        .await
        .map_err(|_| StoreError::Unreachable("no answer to NOTIFY".to_owned()))??;
        self.probe = Some((payload, Instant::now() + PROBE_DEADLINE));
        self.keepalive_at = Instant::now() + KEEPALIVE;
        self.listener = Some(listener);
        Ok(())
    }

    /// Waits for whatever comes first on a connection that is there.
    async fn wait(&mut self) -> Woken {
        let Some(listener) = self.listener.as_mut() else {
            return Woken::Lost("not connected".to_owned());
        };
        let probe_until = self.probe.as_ref().map(|(_, until)| *until);
        let probe_overdue = async {
            match probe_until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            received = listener.try_recv() => match received {
                Ok(Some(notification)) => Woken::Payload(notification.payload().to_owned()),
                Ok(None) => Woken::Lost("the connection was closed".to_owned()),
                Err(error) => Woken::Lost(StoreError::from(error).to_string()),
            },
            () = probe_overdue => Woken::ProbeOverdue,
            () = sleep_until(self.keepalive_at) => Woken::KeepaliveDue,
        }
    }

    /// Asks a quiet connection whether it is still there: a dead peer says nothing.
    async fn keepalive(&mut self) -> Result<(), String> {
        self.keepalive_at = Instant::now() + KEEPALIVE;
        let Some(listener) = self.listener.as_mut() else {
            return Ok(());
        };
        match timeout(KEEPALIVE_DEADLINE, listener.execute("SELECT 1")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::from(error).to_string()),
            Err(_) => Err(format!("no answer within {KEEPALIVE_DEADLINE:?}")),
        }
    }
}

impl HintSource for PgHints {
    async fn next(&mut self) -> Result<Hint, StoreError> {
        loop {
            if self.listener.is_none() {
                if let Err(error) = self.open().await {
                    self.lost(error.to_string());
                    return Err(error);
                }
                // Whatever happened while nobody listened is found by looking at everything.
                return Ok(Hint::Everything);
            }
            match self.wait().await {
                Woken::Payload(payload) => {
                    if self.probe.as_ref().is_some_and(|(probe, _)| *probe == payload) {
                        self.probe = None;
                        self.retry_pause = RETRY_FIRST;
                        self.retry_at = None;
                        self.state.send_replace(ListenerState::Up);
                    } else if let Some(hint) = parse(&payload) {
                        return Ok(hint);
                    }
                }
                Woken::Lost(why) => {
                    tracing::warn!(%why, "lost the connection that listens for changes");
                    self.lost(why);
                    return Ok(Hint::Everything);
                }
                Woken::ProbeOverdue => {
                    self.probe = None;
                    tracing::warn!(
                        "notifications of the database do not arrive, changes are noticed by resyncs only; \
                         is there a connection pooler in transaction mode in between? Connect to Postgres directly"
                    );
                    self.state.send_replace(ListenerState::Deaf);
                }
                Woken::KeepaliveDue => {
                    if let Err(why) = self.keepalive().await {
                        self.lost(why);
                        return Ok(Hint::Everything);
                    }
                }
            }
        }
    }
}

/// What a payload means; `None` for somebody's probe.
fn parse(payload: &str) -> Option<Hint> {
    if payload.starts_with(PROBE) {
        return None;
    }
    if payload.starts_with(SYNC) {
        return Some(Hint::Sync);
    }
    Some(Uuid::try_parse(payload).map_or(Hint::Everything, |id| Hint::Gateway(GatewayId(id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_no_gateway_means_everything() {
        let id = Uuid::from_u128(7);
        assert_eq!(parse(&id.to_string()), Some(Hint::Gateway(GatewayId(id))));
        assert_eq!(parse("*"), Some(Hint::Everything));
        assert_eq!(parse("of a later version"), Some(Hint::Everything));
        assert_eq!(parse("probe:x"), None);
        assert_eq!(parse(&format!("sync:{id}")), Some(Hint::Sync));
    }
}
