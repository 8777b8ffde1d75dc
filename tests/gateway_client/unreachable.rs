//! Ways not to reach a gateway; they need none.

use openclaw_controller::gateway::{ErrorClass, Target};
use openclaw_controller::model::GatewayId;
use tokio::net::TcpListener;

use crate::fixture::connect;

fn nowhere(url: impl Into<String>) -> Target {
    Target {
        gateway: GatewayId(uuid::Uuid::nil()),
        url: url.into(),
        token: None,
        disable_device_pairing: false,
        allow_insecure_tls: false,
    }
}

#[tokio::test]
async fn every_way_not_to_reach_a_gateway_has_its_own_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    for (url, class, transient) in [
        (String::new(), ErrorClass::NotConfigured, false),
        ("gateway.example".to_owned(), ErrorClass::InvalidUrl, false),
        (
            "ws://no-such-host.invalid:18789".to_owned(),
            ErrorClass::DnsFailed,
            true,
        ),
        (format!("ws://{closed}"), ErrorClass::ConnectionRefused, true),
    ] {
        let error = connect(&nowhere(url.clone())).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_transient()),
            (class, transient),
            "{url}: {error}"
        );
    }
}

#[tokio::test]
async fn a_web_server_is_no_gateway_and_a_bad_proxy_is_transient() {
    for (status, class, transient) in [
        ("404 Not Found", ErrorClass::HandshakeFailed, false),
        ("502 Bad Gateway", ErrorClass::ProxyUnavailable, true),
        ("503 Service Unavailable", ErrorClass::ProxyUnavailable, true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = connect(&nowhere(format!("ws://{address}"))).await.unwrap_err();
        assert_eq!((error.class(), error.is_transient()), (class, transient), "{error}");
        assert!(error.message().contains(status), "{error}");
        server.await.unwrap();
    }
}
