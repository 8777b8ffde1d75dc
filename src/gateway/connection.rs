//! One connection: the task that owns the socket, and the requests that wait for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::error::{ErrorClass, GatewayError, milliseconds};
use super::frame::{self, Incoming};
use super::redact::clean;
use crate::model::GatewayId;

/// The largest incoming message that is taken, in bytes. The largest honest answer is a config of several hundred agents,
/// about 1 MB.
pub const MAX_INCOMING: usize = 16 << 20;

/// How long an orderly close may take before the socket is dropped.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Whether it was closed by [`Client::close`](super::Client::close), or by dropping the last handle.
    pub ours: bool,
    /// Whether the gateway said that it restarts (event `shutdown`, or close code 1012).
    pub restart: bool,
    /// How long the gateway expects to be away, if it said so.
    pub restart_expected: Option<Duration>,
    /// What happened, for people.
    pub message: String,
    /// The class of the error that requests on the connection get.
    pub class: ErrorClass,
    /// When it was known to end.
    pub at: Instant,
}

impl CloseReason {
    /// This side closed the connection.
    fn closed_here() -> Self {
        Self {
            ours: true,
            ..Self::new(ErrorClass::ConnectionClosed, "the connection was closed on this side")
        }
    }

    pub(super) fn new(class: ErrorClass, message: impl AsRef<str>) -> Self {
        Self {
            ours: false,
            restart: false,
            restart_expected: None,
            message: clean(message.as_ref()),
            class,
            at: Instant::now(),
        }
    }

    /// The reason as the error of a request on the connection.
    pub(super) fn to_error(&self, outcome_unknown: bool) -> GatewayError {
        GatewayError::new(self.class, &self.message)
            .with_outcome_unknown(outcome_unknown)
            .with_retry_after(self.restart_expected)
    }
}

/// A request on its way to the socket.
pub(super) struct Outgoing {
    pub(super) id: u64,
    pub(super) text: String,
}

struct Pending {
    answer: oneshot::Sender<Result<Value, GatewayError>>,
    /// Whether the request changes something, so that losing its answer matters.
    write: bool,
    /// Whether any of it may have reached the gateway.
    sent: bool,
}

/// What the task and the handles share.
pub(super) struct Core {
    gateway: GatewayId,
    /// Taken out of error messages, should the gateway echo them.
    secrets: Vec<SecretString>,
    /// Requests without an answer yet. Empty for ever once `closed` is set.
    pending: Mutex<HashMap<u64, Pending>>,
    closed: watch::Sender<Option<CloseReason>>,
}

impl Core {
    pub(super) fn new(gateway: GatewayId, secrets: Vec<SecretString>) -> Self {
        Self {
            gateway,
            secrets,
            pending: Mutex::default(),
            closed: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        // A panic while the lock is held cannot leave the map half-changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request; its answer, or the connection's end, comes through the receiver.
    pub(super) fn register(
        &self,
        id: u64,
        write: bool,
    ) -> Result<oneshot::Receiver<Result<Value, GatewayError>>, GatewayError> {
        let mut pending = self.lock();
        // Looked at under the lock: `shut` sets it under the lock too, so that no request is entered after the last answer.
        if let Some(reason) = self.closed.borrow().as_ref() {
            return Err(reason.to_error(false));
        }
        let (answer, receiver) = oneshot::channel();
        pending.insert(
            id,
            Pending {
                answer,
                write,
                sent: false,
            },
        );
        Ok(receiver)
    }

    /// Gives up a request. Says whether it may have taken effect.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.lock()
            .remove(&id)
            .is_some_and(|pending| pending.write && pending.sent)
    }

    /// Marks a request as sent; `false` if nobody waits for it any more, so that it need not be sent at all.
    fn mark_sent(&self, id: u64) -> bool {
        self.lock().get_mut(&id).map(|pending| pending.sent = true).is_some()
    }

    fn answer(&self, id: &str, result: Result<Value, Value>) {
        let Some(pending) = id.parse().ok().and_then(|id: u64| self.lock().remove(&id)) else {
            tracing::debug!(gateway = %self.gateway, "an answer came after nobody waited for it any more");
            return;
        };
        let result = result.map_err(|error| {
            let secrets = self.secrets.iter().map(ExposeSecret::expose_secret);
            secrets.fold(GatewayError::from_response(&error), |told, secret| {
                told.without(Some(secret))
            })
        });
        // The receiver may be gone: a request that was just given up.
        let _ = pending.answer.send(result);
    }

    /// Ends the connection for everybody, once.
    fn shut(&self, reason: &CloseReason) {
        let mut pending = self.lock();
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| reason.clone());
            first
        });
        for (_, request) in pending.drain() {
            let _ = request.answer.send(Err(reason.to_error(request.write && request.sent)));
        }
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.closed.borrow().clone()
    }

    /// Completes when the connection has ended.
    pub(super) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        }
        .unwrap_or_else(|| CloseReason::new(ErrorClass::ConnectionClosed, "the connection's task is gone"))
    }
}

/// Shuts the core even if the task is cancelled with its runtime or panics: nobody may wait for ever.
struct ShutOnDrop<'a>(&'a Core);

impl Drop for ShutOnDrop<'_> {
    fn drop(&mut self) {
        self.0.shut(&CloseReason::new(
            ErrorClass::ConnectionClosed,
            "the connection's task was stopped",
        ));
    }
}

/// Runs the connection until it ends: by the gateway, by silence longer than `idle`, by nonsense, or by `cancel`.
pub(super) async fn drive<S>(
    socket: S,
    core: &Core,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    idle: Duration,
    cancel: CancellationToken,
) where
    S: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Send,
{
    let _guard = ShutOnDrop(core);
    let (mut sink, mut source) = socket.split();
    // One task drives both directions at once: were they taken in turn, two sides that both wait to write would wait for ever.
    let reason = tokio::select! {
        reason = read(&mut source, core, idle) => reason,
        reason = write(&mut sink, core, outgoing) => reason,
        () = cancel.cancelled() => CloseReason::closed_here(),
    };
    tracing::debug!(gateway = %core.gateway, reason = %reason.message, restart = reason.restart, "connection ended");
    core.shut(&reason);
    let _ = tokio::time::timeout(CLOSE_DEADLINE, sink.close()).await;
}

async fn read<S>(source: &mut S, core: &Core, idle: Duration) -> CloseReason
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let mut shutdown: Option<CloseReason> = None;
    loop {
        let Ok(message) = tokio::time::timeout(idle, source.next()).await else {
            return shutdown.unwrap_or_else(|| {
                CloseReason::new(
                    ErrorClass::ConnectionClosed,
                    format!(
                        "the gateway was silent for {:.0} s, longer than two of its ticks",
                        idle.as_secs_f64()
                    ),
                )
            });
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(close))) => return ended(shutdown, close.as_ref()),
            Some(Ok(Message::Binary(_))) => {
                return CloseReason::new(ErrorClass::ProtocolError, "the gateway sent a binary message");
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(error)) => return shutdown.unwrap_or_else(|| broken(&error)),
            None => return ended(shutdown, None),
        };
        if text.len() > MAX_INCOMING {
            return too_large(text.len());
        }
        match frame::parse(&text) {
            Ok(Incoming::Response { id, result }) => core.answer(&id, result),
            Ok(Incoming::Event { name, payload }) if name == "shutdown" => {
                shutdown = Some(announced(&payload));
            }
            Ok(Incoming::Event { .. } | Incoming::Unknown) => {}
            Err(error) => return CloseReason::new(error.class(), error.message()),
        }
    }
}

async fn write<S>(sink: &mut S, core: &Core, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) -> CloseReason
where
    S: Sink<Message, Error = WsError> + Unpin,
{
    while let Some(Outgoing { id, text }) = outgoing.recv().await {
        // Marked before the first byte: from here on nobody can say that it did not arrive.
        if !core.mark_sent(id) {
            continue;
        }
        if let Err(error) = sink.send(Message::text(text)).await {
            // The reading side knows better why (a close frame, an announced restart): it gets a moment to say so.
            tokio::time::sleep(CLOSE_DEADLINE).await;
            return broken(&error);
        }
    }
    CloseReason::closed_here()
}

/// What the event `shutdown` says.
fn announced(payload: &Value) -> CloseReason {
    let expected = payload
        .get("restartExpectedMs")
        .and_then(Value::as_f64)
        .and_then(milliseconds);
    let why = payload
        .get("reason")
        .and_then(Value::as_str)
        .unwrap_or("no reason given");
    CloseReason {
        restart: true,
        restart_expected: expected,
        ..CloseReason::new(ErrorClass::Restarting, format!("the gateway is shutting down ({why})"))
    }
}

fn ended(shutdown: Option<CloseReason>, close: Option<&CloseFrame>) -> CloseReason {
    if let Some(announced) = shutdown {
        return announced;
    }
    let Some(close) = close else {
        return CloseReason::new(ErrorClass::ConnectionClosed, "the gateway closed the connection");
    };
    let restart = close.code == CloseCode::Restart;
    let class = match close.code {
        CloseCode::Restart => ErrorClass::Restarting,
        CloseCode::Again => ErrorClass::Unavailable,
        _ => ErrorClass::ConnectionClosed,
    };
    let message = format!(
        "the gateway closed the connection ({} {})",
        u16::from(close.code),
        close.reason
    );
    CloseReason {
        restart,
        ..CloseReason::new(class, message)
    }
}

pub(super) fn broken(error: &WsError) -> CloseReason {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { size, .. }) => too_large(*size),
        WsError::ConnectionClosed | WsError::AlreadyClosed => {
            CloseReason::new(ErrorClass::ConnectionClosed, "the gateway closed the connection")
        }
        WsError::Io(error) => CloseReason::new(ErrorClass::ConnectionClosed, format!("the connection broke: {error}")),
        // The peer vanished without a close frame; tungstenite counts that as a violation of the protocol.
        WsError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            CloseReason::new(
                ErrorClass::ConnectionClosed,
                "the connection broke without a close frame",
            )
        }
        other => CloseReason::new(
            ErrorClass::ProtocolError,
            format!("the gateway broke the WebSocket protocol: {other}"),
        ),
    }
}

fn too_large(size: usize) -> CloseReason {
    CloseReason::new(
        ErrorClass::FrameTooLarge,
        format!("the gateway sent a message of {size} bytes; at most {MAX_INCOMING} are taken"),
    )
}
