//! One WebSocket connection.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::config::MAIN;
use super::faults::Fault;
use super::frames::Sender;
use super::gateway::SimGateway;
use super::handshake::{self, Opening};
use super::journal::JournalEntry;
use super::methods::{self, Caller};
use super::rpc::{RpcError, RpcResult};
use super::state::Freeze;

/// How long a client may take until it has sent `connect`.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);

/// The largest message that is taken, in bytes: `policy.maxPayload` of every version.
const MAX_PAYLOAD: usize = 26_214_400;

/// What is to be sent.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A whole frame.
    Frame(String),
    /// An event, which gets the connection's next `seq`.
    Event(&'static str, Value),
    /// A text that no gateway should send: a fault.
    Rubbish(String),
    /// The first half of a frame and no more.
    Cut(String),
    /// An orderly end.
    Close(u16, String),
    /// An end without a word.
    Abort,
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(gateway: SimGateway, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if gateway.lock().is_down() || gateway.faults().refuses_connect() {
        return;
    }
    let Ok(Some((mut ws, opening))) = timeout(HANDSHAKE_DEADLINE, upgrade(&gateway, stream)).await else {
        return;
    };
    let Ok(Some(caller)) = timeout(HANDSHAKE_DEADLINE, admit(&gateway, &mut ws, &opening)).await else {
        return;
    };
    let (sender, receiver) = unbounded_channel();
    let epoch = {
        let mut state = gateway.lock();
        state.connections.insert(opening.id, sender.clone());
        state.epoch
    };
    let connection = Connection {
        gateway: gateway.clone(),
        caller,
        sender,
        epoch,
        id: opening.id,
    };
    connection.run(&mut ws, receiver).await;
    gateway.lock().connections.remove(&opening.id);
}

#[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
async fn upgrade<S>(gateway: &SimGateway, stream: S) -> Option<(WebSocketStream<S>, Opening)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut headers = (None, None);
    let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        headers = (header("origin"), header("host"));
        Ok(response)
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_PAYLOAD))
        .max_frame_size(Some(MAX_PAYLOAD));
    let ws = tokio_tungstenite::accept_hdr_async_with_config(stream, callback, Some(config))
        .await
        .ok()?;
    let (origin, host) = headers;
    let mut state = gateway.lock();
    let opening = Opening {
        nonce: state.unique_id(),
        origin,
        host,
        id: state.next(),
    };
    Some((ws, opening))
}

/// The challenge, `connect` and `hello-ok`; `None` if the client was turned away.
async fn admit<S>(gateway: &SimGateway, ws: &mut WebSocketStream<S>, opening: &Opening) -> Option<Caller>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let challenge = json!({ "nonce": opening.nonce, "ts": gateway.lock().clock.now_ms() });
    let challenge = json!({ "type": "event", "event": "connect.challenge", "payload": challenge });
    send(gateway, opening.id, ws, challenge.to_string()).await?;
    let text = loop {
        match ws.next().await? {
            Ok(Message::Text(text)) => break text,
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    };
    gateway.saw(opening.id, Sender::Client, &text);
    let Ok(request) = serde_json::from_str::<Frame>(&text) else {
        let _ = ws.close(None).await;
        return None;
    };
    let verdict = gateway.faults().decide("connect");
    match verdict.fault {
        Some(Fault::NeverAnswer | Fault::LoseAnswer) => std::future::pending().await,
        Some(Fault::DropBefore | Fault::DropAfter | Fault::CutFrame | Fault::Restart) => return None,
        Some(Fault::Nonsense | Fault::OddPayload) => {
            let _ = ws.send(Message::text("}{ nonsense")).await;
        }
        Some(Fault::HugeFrame(bytes)) => {
            let _ = ws.send(Message::text("x".repeat(bytes))).await;
        }
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Error { .. } | Fault::Overwritten(_)) | None => {}
    }
    let decision = if let Some(Fault::Error {
        code,
        message,
        retry_after_ms,
    }) = verdict.fault
    {
        let mut error = RpcError::new(code, message);
        error.retry_after_ms = retry_after_ms;
        Err((error, 1008))
    } else if request.method.as_deref() == Some("connect") {
        let mut state = gateway.lock();
        handshake::connect(&mut state, &gateway.faults(), opening, &request.params)
    } else {
        let message = "invalid handshake: first request must be connect";
        Err((RpcError::invalid(message), 1008))
    };
    match decision {
        Ok((caller, hello)) => {
            send(gateway, opening.id, ws, response(&request.id, Ok(hello))).await?;
            Some(caller)
        }
        Err((error, code)) => {
            let reason = if code == 1013 {
                "gateway starting".to_owned()
            } else {
                error.message.clone()
            };
            send(gateway, opening.id, ws, response(&request.id, Err(error))).await?;
            let _ = ws.close(Some(close_frame(code, reason))).await;
            None
        }
    }
}

/// Sends a frame that is meant as it is.
async fn send<S>(gateway: &SimGateway, connection: u64, ws: &mut WebSocketStream<S>, frame: String) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    gateway.saw(connection, Sender::Gateway, &frame);
    ws.send(Message::text(frame)).await.ok()
}

/// Close reasons are limited to 123 bytes by the protocol.
fn close_frame(code: u16, reason: String) -> CloseFrame {
    let reason = match reason.char_indices().find(|(i, c)| i + c.len_utf8() > 123) {
        Some((end, _)) => reason[..end].to_owned(),
        None => reason,
    };
    CloseFrame {
        code: code.into(),
        reason: Utf8Bytes::from(reason),
    }
}

/// A request as it comes in.
#[derive(serde::Deserialize)]
struct Frame {
    #[serde(default)]
    id: Value,
    method: Option<String>,
    #[serde(default)]
    params: Map<String, Value>,
}

/// A connection that has been let in.
struct Connection {
    gateway: SimGateway,
    caller: Caller,
    sender: UnboundedSender<Outgoing>,
    /// The life of the process that the connection belongs to.
    epoch: u64,
    id: u64,
}

impl Connection {
    async fn run<S>(&self, ws: &mut WebSocketStream<S>, mut outgoing: UnboundedReceiver<Outgoing>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let interval = self.gateway.faults().tick();
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut seq = 0_u64;
        loop {
            tokio::select! {
                incoming = ws.next() => match incoming {
                    Some(Ok(Message::Text(text))) => {
                        self.gateway.saw(self.id, Sender::Client, &text);
                        self.receive(&text);
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                out = outgoing.recv() => {
                    let Some(out) = out else { return };
                    if self.put(ws, out, &mut seq).await.is_none() {
                        return;
                    }
                }
                _ = ticks.tick() => {
                    if !self.gateway.faults().is_silent() {
                        let ts = self.gateway.lock().clock.now_ms();
                        if self.put(ws, Outgoing::Event("tick", json!({ "ts": ts })), &mut seq).await.is_none() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Sends one thing; `None` ends the connection.
    async fn put<S>(&self, ws: &mut WebSocketStream<S>, out: Outgoing, seq: &mut u64) -> Option<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match out {
            Outgoing::Frame(text) => send(&self.gateway, self.id, ws, text).await,
            Outgoing::Rubbish(text) => ws.send(Message::text(text)).await.ok(),
            Outgoing::Event(event, payload) => {
                *seq += 1;
                let frame = json!({ "type": "event", "event": event, "payload": payload, "seq": *seq });
                send(&self.gateway, self.id, ws, frame.to_string()).await
            }
            Outgoing::Cut(text) => {
                let raw = ws.get_mut();
                // An unmasked text frame that announces 65,535 bytes and brings half of the text.
                let half = &text.as_bytes()[..text.len() / 2];
                raw.write_all(&[0x81, 126, 0xff, 0xff]).await.ok()?;
                raw.write_all(half).await.ok()?;
                raw.flush().await.ok()?;
                None
            }
            Outgoing::Close(code, reason) => {
                let _ = ws.close(Some(close_frame(code, reason))).await;
                None
            }
            Outgoing::Abort => None,
        }
    }

    /// Takes one request and carries it out in a task of its own, which goes on even if this connection ends: a client that
    /// is gone may still change something.
    fn receive(&self, text: &str) {
        // Whatever is not a request is ignored.
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            return;
        };
        let Some(method) = frame.method else {
            let error = RpcError::invalid("invalid request frame: must have required property 'method'");
            return self.answer(&frame.id, Err(error));
        };
        let verdict = self.gateway.faults().decide(&method);
        let duration = verdict
            .latency
            .unwrap_or_else(|| methods::duration(&self.gateway.lock(), &method));
        let task = Task {
            gateway: self.gateway.clone(),
            caller: self.caller.clone(),
            sender: self.sender.clone(),
            epoch: self.epoch,
            id: frame.id,
            method,
            params: frame.params,
        };
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            task.run(verdict.fault).await;
        });
    }

    fn answer(&self, id: &Value, result: RpcResult) {
        let _ = self.sender.send(Outgoing::Frame(response(id, result)));
    }
}

fn response(id: &Value, result: RpcResult) -> String {
    match result {
        Ok(payload) => json!({ "type": "res", "id": id, "ok": true, "payload": payload }),
        Err(error) => json!({ "type": "res", "id": id, "ok": false, "error": error.to_json() }),
    }
    .to_string()
}

/// A request under way.
struct Task {
    gateway: SimGateway,
    caller: Caller,
    sender: UnboundedSender<Outgoing>,
    epoch: u64,
    id: Value,
    method: String,
    params: Map<String, Value>,
}

impl Task {
    async fn run(self, fault: Option<Fault>) {
        match &fault {
            Some(Fault::DropBefore) => return self.put(Outgoing::Abort),
            Some(Fault::NeverAnswer) => return,
            Some(Fault::Error {
                code,
                message,
                retry_after_ms,
            }) => {
                let mut error = RpcError::new(code.clone(), message.clone());
                error.retry_after_ms = *retry_after_ms;
                return self.put(Outgoing::Frame(response(&self.id, Err(error))));
            }
            Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
            _ => {}
        }
        let overwrite = match &fault {
            Some(Fault::Overwritten(text)) => Some(text.clone()),
            _ => None,
        };
        let Some((answer, restart, freezes)) = self.carry_out(overwrite) else {
            return;
        };
        let fault = if freezes { Some(Fault::LoseAnswer) } else { fault };
        match fault {
            Some(Fault::DropAfter) => self.put(Outgoing::Abort),
            Some(Fault::CutFrame) => self.put(Outgoing::Cut(answer)),
            Some(Fault::Nonsense) => self.put(Outgoing::Rubbish("{\"type\":\"res\",\"nonsense".to_owned())),
            Some(Fault::OddPayload) => self.put(Outgoing::Rubbish(response(&self.id, Ok(json!(["odd"]))))),
            Some(Fault::HugeFrame(bytes)) => self.put(Outgoing::Rubbish("x".repeat(bytes))),
            Some(Fault::LoseAnswer) => {}
            Some(Fault::Restart) => return self.gateway.restart_now(),
            _ if restart.is_some_and(|restart| !restart.answers) => {}
            _ => self.put(Outgoing::Frame(answer)),
        }
        if let Some(restart) = restart {
            self.gateway.restart_after(restart.close_after, restart.down_for);
        }
    }

    /// Carries the request out, unless the process that received it is gone or stands still; `overwrite` is what somebody else
    /// puts into the file that it writes. Answers the response, the restart that it causes, and whether the gateway stands still
    /// from now on.
    fn carry_out(&self, overwrite: Option<String>) -> Option<(String, Option<super::dialect::Restart>, bool)> {
        let mut state = self.gateway.lock();
        if state.epoch != self.epoch || state.frozen || state.count_down(Freeze::Before) {
            return None;
        }
        state.overwrite = overwrite;
        let result = methods::call(&mut state, &self.caller, &self.method, &self.params);
        let entry = JournalEntry::new(&self.method, &self.params, result.is_ok());
        state.journal.push(entry);
        let restart = state.pending_restart.take();
        for (event, payload) in std::mem::take(&mut state.events) {
            for sender in state.connections.values() {
                let _ = sender.send(Outgoing::Event(event, payload.clone()));
            }
        }
        debug_assert!(state.roster().iter().any(|entry| entry.id == MAIN) || !state.dialect.has_entries());
        let freezes = state.count_down(Freeze::After);
        Some((response(&self.id, result), restart, freezes))
    }

    fn put(&self, out: Outgoing) {
        let _ = self.sender.send(out);
    }
}
