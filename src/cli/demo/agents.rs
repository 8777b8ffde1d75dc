//! The agents of the demo's simulated gateway, which runs none: whoever is woken checks in, with the token of its own file.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sim::{SimGateway, Woken};

/// How long a model would take to get around to it, roughly.
const THINKING: Duration = Duration::from_secs(2);
/// How long one check-in may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Has woken agents check in at this address.
pub(super) fn play(gateway: &SimGateway, address: SocketAddr) {
    gateway.on_wake(move |Woken { agent, token }| {
        tokio::spawn(async move {
            tokio::time::sleep(THINKING).await;
            let Some(token) = token else { return };
            let result = timeout(DEADLINE, check_in(address, &token))
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {DEADLINE:?}")));
            if let Err(error) = result {
                tracing::debug!(%agent, "the simulated agent could not check in: {error:#}");
            }
        });
    });
}

async fn check_in(address: SocketAddr, token: &SecretString) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.context("nothing listens there")?;
    let request = format!(
        "POST /api/v1/agent/heartbeat HTTP/1.1\r\nHost: {address}\r\nX-Agent-Token: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}",
        token.expose_secret()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "the answer is {status:?}");
    Ok(())
}
