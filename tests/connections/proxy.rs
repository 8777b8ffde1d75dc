//! A reverse proxy in front of a gateway, as small as it can be: it may end TLS, cut a prefix off paths, or answer for itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::certificates::Identity;

/// What a proxy does.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// What paths begin with that go to the gateway; cut off.
    pub(crate) prefix: &'static str,
    /// Tell the gateway that somebody else is behind the connection.
    pub(crate) forwarded: bool,
    /// Answer this instead of asking the gateway.
    pub(crate) answer: Option<&'static str>,
}

/// A proxy that listens; stops when dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// The first lines of all requests.
    requests: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy on loopback that ends TLS with this certificate.
    pub(crate) async fn tls(upstream: SocketAddr, identity: Identity, manner: Manner) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), upstream, Some(identity), manner).await
    }

    /// A proxy on loopback without TLS.
    pub(crate) async fn plain(upstream: SocketAddr, manner: Manner) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), upstream, None, manner).await
    }

    pub(crate) async fn on(address: IpAddr, upstream: SocketAddr, identity: Option<Identity>, manner: Manner) -> Self {
        let acceptor = identity.map(|(certificate, key)| {
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn({
            let requests = Arc::clone(&requests);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, manner, requests) = (acceptor.clone(), manner.clone(), Arc::clone(&requests));
                    tokio::spawn(async move {
                        match acceptor {
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(stream, upstream, &manner, &requests).await;
                                }
                            }
                            None => serve(stream, upstream, &manner, &requests).await,
                        }
                    });
                }
            }
        });
        Self {
            address,
            requests,
            accepting,
        }
    }

    /// What was asked for so far: method, path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves one connection; whatever goes wrong ends it.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: SocketAddr,
    manner: &Manner,
    requests: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if head.len() < 16_384 => head.push(byte),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some((first, rest)) = head.split_once("\r\n") else {
        return;
    };
    requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(first.to_owned());
    let path = first.split(' ').nth(1).unwrap_or_default();
    let Some(path) = path.strip_prefix(manner.prefix) else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            .await;
        return;
    };
    if let Some(answer) = manner.answer {
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    let Ok(mut gateway) = TcpStream::connect(upstream).await else {
        let _ = stream
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            .await;
        return;
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let forwarded = if manner.forwarded {
        "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
    } else {
        ""
    };
    let head = format!("GET {slash}{path} HTTP/1.1\r\n{forwarded}{rest}");
    if gateway.write_all(head.as_bytes()).await.is_ok() {
        let _ = copy_bidirectional(&mut stream, &mut gateway).await;
    }
}
