//! A relay in front of a gateway: every frame goes through it as it is, and is shown to a watch.

use std::net::{Ipv4Addr, SocketAddr};

use futures::{SinkExt, StreamExt};
use openclaw_controller::sim::{SeenFrame, Sender};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

use super::Watch;

/// A relay; ends when dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Puts a relay in front of the gateway at this URL.
    pub(crate) async fn start(url: &str, watch: &Watch) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (url, watch) = (url.to_owned(), watch.silent());
        let accepting = tokio::spawn(async move {
            for connection in 1.. {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(carry(stream, url.clone(), watch.clone(), connection));
            }
        });
        Self { address, accepting }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries frames both ways until either side has enough.
async fn carry(stream: TcpStream, url: String, watch: Watch, connection: u64) {
    let Ok((gateway, _)) = connect_async(&url).await else {
        // As if nobody listened.
        return;
    };
    let Ok(client) = accept_async(stream).await else {
        return;
    };
    let (mut to_gateway, mut from_gateway) = gateway.split();
    let (mut to_client, mut from_client) = client.split();
    let show = |sender, message: &Message| {
        if let Message::Text(text) = message {
            watch.look(&SeenFrame {
                connection,
                sender,
                text,
            });
        }
    };
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            show(Sender::Client, &message);
            if to_gateway.send(message).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        while let Some(Ok(message)) = from_gateway.next().await {
            show(Sender::Gateway, &message);
            if to_client.send(message).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
