//! The client against a scripted peer, in memory and under a paused clock.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async_with_config};

use super::*;
use crate::model::GatewayId;

mod connection;
mod handshake;
mod probe;

const TOKEN: &str = "s3cret-gateway-token";
const TICK: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// The gateway's side of a connection.
struct Peer(WebSocketStream<DuplexStream>);

impl Peer {
    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        loop {
            match self.0.next().await.expect("the client is there").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn answer(&mut self, request: &Value, payload: Value) {
        self.say(json!({"type": "res", "id": request["id"], "ok": true, "payload": payload}))
            .await;
    }

    async fn refuse(&mut self, request: &Value, error: Value) {
        self.say(json!({"type": "res", "id": request["id"], "ok": false, "error": error}))
            .await;
    }

    /// Challenges, and hears the client's `connect`.
    async fn challenge(&mut self) -> Value {
        self.say(json!({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n", "ts": 1}}))
            .await;
        let connect = self.hear().await;
        assert_eq!(connect["method"], "connect");
        connect
    }

    async fn welcome(&mut self) {
        let connect = self.challenge().await;
        let hello = json!({
            "type": "hello-ok", "protocol": 4, "server": {"version": "test"},
            "features": {"methods": ["config.get"]},
            "auth": {"role": "operator", "scopes": ["operator.admin"]},
            "policy": {"maxPayload": 1_000_000, "tickIntervalMs": 30_000},
        });
        self.answer(&connect, hello).await;
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.0
            .close(Some(CloseFrame {
                code,
                reason: reason.into(),
            }))
            .await
            .unwrap();
    }
}

fn target() -> Target {
    Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: "ws://peer".to_owned(),
        token: Some(TOKEN.into()),
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

/// Two ends of a WebSocket; each direction holds this many bytes.
async fn sockets(buffer: usize) -> (WebSocketStream<DuplexStream>, Peer) {
    let (near, far) = duplex(buffer);
    let (near, far) = tokio::join!(
        client_async_with_config("ws://peer/", near, Some(websocket_config())),
        accept_async(far)
    );
    (near.unwrap().0, Peer(far.unwrap()))
}

async fn shake(socket: WebSocketStream<DuplexStream>) -> Result<Client, GatewayError> {
    handshake(
        socket,
        &target(),
        &DeviceIdentity::generate(),
        RpcMetrics::unregistered(),
    )
    .await
}

async fn connected() -> (Client, Peer) {
    let (socket, mut peer) = sockets(64 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), peer.welcome());
    (client.unwrap(), peer)
}

/// Sends a request in the background.
fn spawn(
    client: &Client,
    method: &'static str,
    deadline: Duration,
) -> tokio::task::JoinHandle<Result<Value, GatewayError>> {
    let client = client.clone();
    tokio::spawn(async move { client.request(method, json!({}), deadline).await })
}
