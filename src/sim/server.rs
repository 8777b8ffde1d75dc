//! A simulated gateway on a TCP port.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::gateway::SimGateway;

/// A gateway that listens; stops when dropped.
#[derive(Debug)]
pub struct SimServer {
    gateway: SimGateway,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl SimServer {
    /// Listens on an address; port 0 takes a free one.
    pub(super) async fn start(gateway: SimGateway, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn({
            let gateway = gateway.clone();
            async move {
                // An error of one connection is no reason to stop.
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        gateway.attach(stream);
                    }
                }
            }
        });
        Ok(Self {
            gateway,
            address,
            accepting,
        })
    }

    /// `ws://` and the address.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Stops listening and cuts all connections.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.gateway.cut_connections();
    }
}
