//! A WebSocket without a client, for what the client never sends.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::env::{CALL, Env};

/// The scopes that the client asks for.
pub(crate) const SCOPES: [&str; 5] = [
    "operator.read",
    "operator.write",
    "operator.admin",
    "operator.approvals",
    "operator.pairing",
];

/// A connection on which anything can be said.
pub(crate) struct Raw {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The payload of the challenge.
    pub(crate) challenge: Value,
}

impl Raw {
    /// Opens a connection and waits for the challenge.
    pub(crate) async fn open(env: &Env, origin: Option<&str>) -> Self {
        let mut request = format!("ws://{}/", env.host()).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let (ws, _) = connect_async(request).await.unwrap();
        let mut raw = Self {
            ws,
            challenge: Value::Null,
        };
        raw.challenge = raw.until(|frame| frame["event"] == "connect.challenge").await["payload"].take();
        raw
    }

    /// Opens a connection and gets in with these scopes.
    pub(crate) async fn admitted(env: &Env, scopes: &[&str]) -> Self {
        let mut raw = Self::open(env, None).await;
        let params = raw.connect_params(env.token(), scopes);
        let answer = raw.request("connect", params).await;
        // In an order of its own on the oldest.
        let granted = answer["payload"]["auth"]["scopes"].as_array().unwrap();
        let granted: BTreeSet<_> = granted.iter().filter_map(Value::as_str).collect();
        assert_eq!(granted, scopes.iter().copied().collect(), "{}", answer["error"]);
        raw
    }

    /// Parameters of `connect` that every gateway accepts.
    pub(crate) fn connect_params(&self, token: &str, scopes: &[&str]) -> Value {
        let mut seed = [0_u8; 32];
        seed[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        let key = SigningKey::from_bytes(&seed);
        let public = key.verifying_key().to_bytes();
        let id = Sha256::digest(public).iter().fold(String::new(), |mut id, byte| {
            write!(id, "{byte:02x}").unwrap();
            id
        });
        let (nonce, ts) = (self.challenge["nonce"].as_str().unwrap(), &self.challenge["ts"]);
        let scope_list = scopes.join(",");
        let signed = format!("v2|{id}|gateway-client|backend|operator|{scope_list}|{ts}|{token}|{nonce}");
        json!({
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": { "id": "gateway-client", "version": "0", "platform": "linux", "mode": "backend" },
            "role": "operator",
            "scopes": scopes,
            "caps": [],
            "auth": { "token": token },
            "device": {
                "id": id,
                "publicKey": URL_SAFE_NO_PAD.encode(public),
                "signature": URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()),
                "signedAt": ts,
                "nonce": nonce,
            },
        })
    }

    /// Parameters of `connect` as the gateway's own page in a browser would send them, without a device.
    pub(crate) fn control_ui_params(&self, token: &str) -> Value {
        let mut params = self.connect_params(token, &SCOPES);
        params["client"]["id"] = json!("openclaw-control-ui");
        params["client"]["mode"] = json!("ui");
        params.as_object_mut().unwrap().remove("device");
        params
    }

    /// Sends a text as it is.
    pub(crate) async fn send(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.unwrap();
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = uuid::Uuid::new_v4().to_string();
        let frame = json!({ "type": "req", "id": id, "method": method, "params": params });
        self.send(&frame.to_string()).await;
        self.until(|frame| frame["id"] == id).await
    }

    /// The next frame that is wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        if wanted(&frame) {
                            return frame;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("the connection ended: {other:?}"),
                }
            }
        };
        timeout(CALL, search).await.expect("an answer in time")
    }

    /// The code with which the gateway closes.
    pub(crate) async fn close_code(&mut self) -> u16 {
        let search = async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    other => panic!("ended without a close frame: {other:?}"),
                }
            }
        };
        timeout(Duration::from_secs(30), search)
            .await
            .expect("a close frame in time")
    }
}
