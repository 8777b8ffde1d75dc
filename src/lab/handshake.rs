//! The shortest conversation that proves a gateway ready: TCP, WebSocket, challenge, `connect`, `hello-ok`. (A gateway that says
//! that it speaks another protocol is ready as well.)
//!
//! Deliberately independent of the controller's own client: the lab must be able to tell "the gateway is not up" from "our
//! client is wrong".

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Connects to a gateway on this host and waits for its `hello-ok`.
pub(super) async fn greet(url: &str, token: &str) -> Result<()> {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await?;
    let mut greeted = false;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let frame: Value = serde_json::from_str(&text).context("the gateway sent a frame that is not JSON")?;
        if frame["event"] == "connect.challenge" {
            socket.send(Message::text(connect(token).to_string())).await?;
            greeted = true;
        } else if frame["type"] == "res" {
            ensure!(greeted, "the gateway answered before it was asked");
            // A gateway that wants to know who this is, or has got another token, has started just as well.
            let stranger = matches!(
                frame["error"]["details"]["code"].as_str(),
                Some("PAIRING_REQUIRED" | "DEVICE_IDENTITY_REQUIRED" | "AUTH_TOKEN_MISMATCH")
            );
            // So has one that speaks another protocol than it was asked for.
            let other = frame["error"]["message"] == "protocol mismatch";
            ensure!(
                frame["ok"] == true || stranger || other,
                "connect was refused: {}",
                frame["error"]
            );
            let _ = socket.close(None).await;
            return Ok(());
        }
    }
    bail!("the gateway closed the connection before hello-ok")
}

fn connect(token: &str) -> Value {
    json!({
        "type": "req",
        "id": "lab-1",
        "method": "connect",
        "params": {
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": {
                "id": "gateway-client",
                "mode": "backend",
                "platform": std::env::consts::OS,
                "version": env!("CARGO_PKG_VERSION"),
            },
            "role": "operator",
            "scopes": ["operator.read"],
            "auth": {"token": token},
        }
    })
}
