//! Servers that are no gateways, or not reachable ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openclaw_controller::sim::SimGateway;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate that nobody has signed but itself, for 127.0.0.1 and localhost, and its key. Made for this test.
const CERTIFICATE: &str = "MIIBuDCCAV+gAwIBAgIUPcgI4EHIo4vtgMn/Pog+StsZXtQwCgYIKoZIzj0EAwIwIzEhMB8GA1UEAwwYc2VsZi1zaWduZWQgdGVz\
dCBnYXRld2F5MCAXDTI2MTEyMzA2NDk0OFoYDzIxMjYxMDMwMDY0OTQ4WjAjMSEwHwYDVQQDDBhzZWxmLXNpZ25lZCB0ZXN0IGdh\
dGV3YXkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATCu8kZYTDcEVwdgMsYPZFXyxbxqhSJ+eq6x3d7CEHkiIpNB4hijelUmzKu\
3iKGAwvEWXC1VXTBmIys4FkSodYZo28wbTAdBgNVHQ4EFgQU275qY54WEcfOCz17a0f6Q2WBXP0wHwYDVR0jBBgwFoAU275qY54W\
EcfOCz17a0f6Q2WBXP0wDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDRwAw\
RAIgUCGJrVXLGH/H0oA1fxxI6gs40pD6doaE8MqqJQ2NYtUCID9Mz7jXYNc64Ip7ToVUxzsTBtlghGhl2JNCDr3hO1Jc";
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgX1mQxQA2GUEK1J/GiAKATPfNtZGq9AXUAm5P0oIPm6ihRANCAATC\
u8kZYTDcEVwdgMsYPZFXyxbxqhSJ+eq6x3d7CEHkiIpNB4hijelUmzKu3iKGAwvEWXC1VXTBmIys4FkSodYZ";

/// A port on which a TCP connection is neither accepted nor refused, as behind a firewall that drops packets.
pub(crate) async fn black_hole() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts: once the backlog is full, the kernel drops further attempts.
    let mut fill = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        fill.push(stream);
    }
    (listener, fill, address)
}

/// A server that accepts, does this with each connection, and keeps it open.
pub(crate) async fn server<F: Future<Output = TcpStream> + Send + 'static>(
    answer: impl Fn(TcpStream) -> F + Send + 'static,
) -> (JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(answer(stream).await);
        }
    });
    (task, address)
}

/// The gateway behind a TLS server whose certificate nobody vouches for.
pub(crate) async fn behind_tls(sim: SimGateway) -> (JoinHandle<()>, SocketAddr) {
    let certificate = CertificateDer::from(STANDARD.decode(CERTIFICATE).unwrap());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(STANDARD.decode(KEY).unwrap()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sim) = (acceptor.clone(), sim.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    sim.attach(stream);
                }
            });
        }
    });
    (task, address)
}
