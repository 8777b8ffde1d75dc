//! The handle by which everything else talks to a gateway.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{CloseReason, Core, Outgoing, drive};
use super::error::{ErrorClass, GatewayError};
use super::frame;
use super::metrics::RpcMetrics;
use crate::model::GatewayId;

/// How long a call may take unless it says otherwise.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// How many requests may wait for their answers on one connection. Writing files gets no faster beyond it.
const IN_FLIGHT: usize = 8;

/// The methods that change nothing, so that losing their answer loses nothing.
const READS: [&str; 9] = [
    "health",
    "config.get",
    "config.schema.lookup",
    "agents.list",
    "agents.files.list",
    "agents.files.get",
    "sessions.list",
    "chat.history",
    "connect",
];

/// What the gateway said in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol agreed on.
    pub protocol: u32,
    /// The server's version as it calls it; `dev` on some old ones. To be shown, and to be compared only with the
    /// oldest one that the operator wants.
    pub server_version: String,
    /// The methods that it offers; empty if it does not say.
    pub methods: BTreeSet<String>,
    /// The scopes that it granted.
    pub scopes: BTreeSet<String>,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// How often it sends a tick.
    pub tick_interval: Duration,
    /// For how long its process has run, if it says so.
    pub uptime: Option<Duration>,
}

impl Hello {
    /// Whether the gateway offers a method, as far as it says.
    pub fn offers(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

/// A connection to a gateway. Cheap to clone; when the last clone is dropped, the connection is closed.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    gateway: GatewayId,
    hello: Hello,
    core: Arc<Core>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    in_flight: Semaphore,
    next_id: AtomicU64,
    metrics: RpcMetrics,
    cancel: CancellationToken,
    _close_on_drop: DropGuard,
}

/// Gives the request up when its future is dropped, so that it is not sent if it has not been yet.
struct ForgetOnDrop<'a> {
    core: &'a Core,
    id: u64,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.core.forget(self.id);
    }
}

impl Client {
    /// Takes over a socket on which the handshake is done.
    pub(super) fn start<S>(
        socket: WebSocketStream<S>,
        gateway: GatewayId,
        secrets: Vec<SecretString>,
        hello: Hello,
        metrics: RpcMetrics,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let core = Arc::new(Core::new(gateway, secrets));
        let cancel = CancellationToken::new();
        // Not bounded by itself, but by the permits that every sender needs.
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let idle = hello.tick_interval * 2;
        tokio::spawn({
            let (core, cancel) = (Arc::clone(&core), cancel.clone());
            async move { drive(socket, &core, receiver, idle, cancel).await }
        });
        let shared = Shared {
            gateway,
            hello,
            core,
            outgoing,
            in_flight: Semaphore::new(IN_FLIGHT),
            next_id: AtomicU64::new(1),
            metrics,
            _close_on_drop: cancel.clone().drop_guard(),
            cancel,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Which gateway this is.
    pub fn gateway(&self) -> GatewayId {
        self.shared.gateway
    }

    /// What the gateway said in the handshake.
    pub fn hello(&self) -> &Hello {
        &self.shared.hello
    }

    /// Calls a method, and waits for its answer at most until the deadline (waiting for a free place included).
    ///
    /// # Errors
    /// What the gateway answered; or that no answer came. In the latter case [`GatewayError::outcome_unknown`] says whether
    /// the call may have taken effect.
    pub async fn request(&self, method: &str, params: Value, deadline: Duration) -> Result<Value, GatewayError> {
        let started = Instant::now();
        let result = self.attempt(method, &params, started + deadline, deadline).await;
        let outcome = result.as_ref().map_or_else(GatewayError::reason, |_| "ok");
        self.shared.metrics.record(method, outcome, started.elapsed());
        result.map_err(|error| error.during(method))
    }

    async fn attempt(
        &self,
        method: &str,
        params: &Value,
        until: Instant,
        deadline: Duration,
    ) -> Result<Value, GatewayError> {
        let shared = &*self.shared;
        let late = |what: &str| {
            GatewayError::new(
                ErrorClass::Timeout,
                format!("{what} within {:.0} s", deadline.as_secs_f64()),
            )
        };
        let permit = tokio::select! {
            permit = timeout_at(until, shared.in_flight.acquire()) => permit,
            // Those before us get their answers now, but we need not stand in line for ours.
            reason = shared.core.closed() => return Err(reason.to_error(false)),
        };
        let Ok(_permit) = permit else {
            return Err(late(
                "it could not be sent, because too many other calls are waiting for the gateway,",
            ));
        };
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let text = frame::request(&id.to_string(), method, params);
        if text.len() > shared.hello.max_payload {
            return Err(GatewayError::new(
                ErrorClass::Invalid,
                format!(
                    "it has {} bytes; the gateway takes at most {}",
                    text.len(),
                    shared.hello.max_payload
                ),
            ));
        }
        let answer = shared.core.register(id, !READS.contains(&method))?;
        let forget = ForgetOnDrop { core: &shared.core, id };
        // An error means that the task is gone; then the answer says why.
        let _ = shared.outgoing.send(Outgoing { id, text });
        match timeout_at(until, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(shared.core.closed().await.to_error(false)),
            Err(_) => {
                let unknown = forget.core.forget(id);
                Err(late("the gateway did not answer").with_outcome_unknown(unknown))
            }
        }
    }

    /// Completes when the connection has ended, with the reason.
    pub async fn closed(&self) -> CloseReason {
        self.shared.core.closed().await
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.core.close_reason()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Ends the connection, for all clones of the handle. Returns at once; [`Client::closed`] tells when it is done.
    pub fn close(&self) {
        self.shared.cancel.cancel();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("gateway", &self.shared.gateway)
            .field("server_version", &self.shared.hello.server_version)
            .field("closed", &self.close_reason())
            .finish_non_exhaustive()
    }
}
