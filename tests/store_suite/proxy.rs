//! A network between a store and its Postgres that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openclaw_controller::lab::shared_postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::postgres::Postgres;

/// Forwards connections to the tests' server, as long as it is told to.
#[derive(Clone, Default)]
pub(crate) struct Proxy {
    /// Whether notifications are swallowed, as by a pooler that gives each transaction another session.
    pub(crate) deaf: Arc<AtomicBool>,
    /// Whether nothing that the client says arrives any more, while its connections stay open: a frozen machine.
    pub(crate) frozen: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts it; returns the world's URL through it.
    pub(crate) async fn start(&self, world: &Postgres) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let port = shared_postgres().await.port();
        let proxy = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(proxy.clone().requests(from_client, to_server));
                tokio::spawn(proxy.clone().answers(from_server, to_client));
            }
        });
        let url = world.url.replace(&format!(":{port}/"), &format!(":{own}/"));
        format!("{url}?sslmode=disable")
    }

    async fn requests(
        self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 4096];
        loop {
            let n = from.read(&mut buffer).await?;
            if self.frozen.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if n == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..n]).await?;
        }
    }

    async fn answers(
        self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> std::io::Result<()> {
        loop {
            // Each message is a type, and a length that counts itself.
            let mut head = [0; 5];
            from.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length - 4];
            from.read_exact(&mut body).await?;
            if head[0] != b'A' || !self.deaf.load(Ordering::SeqCst) {
                to.write_all(&head).await?;
                to.write_all(&body).await?;
            }
        }
    }
}
