//! URLs with paths and queries, IPv6, and proxies that answer in the gateway's place.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use openclaw_controller::gateway::ErrorClass;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::fixture::{Dialer, Gateway, TOKEN, everything_stored, target};
use crate::proxy::{Manner, Proxy};
use crate::support::Database;
use crate::support::process::Process;

/// A gateway behind a proxy is found by a path below it, over TLS and without.
pub(crate) async fn a_path_prefix_is_kept(upstream: SocketAddr, token: &str) {
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let authority = Authority::new("ours");
    authority.write(&ca_file);
    let dialer = Dialer::new(Some(&ca_file));
    let manner = Manner {
        prefix: "/teams/red/gw",
        ..Manner::default()
    };
    let plain = Proxy::plain(upstream, manner.clone()).await;
    let tls = Proxy::tls(upstream, authority.issue(&["localhost"]), manner).await;
    for (scheme, proxy) in [("ws", &plain), ("wss", &tls)] {
        let at = format!("{scheme}://localhost:{}", proxy.address.port());
        let client = dialer
            .connect(&target(format!("{at}/teams/red/gw/?x=s3cret-in-query#part"), token))
            .await
            .unwrap();
        client.config_get().await.unwrap();
        let error = dialer
            .connect(&target(format!("{at}/teams/blue/gw"), token))
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::HandshakeFailed, "{error}");
        assert_eq!(
            proxy.requests(),
            [
                "GET /teams/red/gw/?x=s3cret-in-query HTTP/1.1",
                "GET /teams/blue/gw HTTP/1.1"
            ]
        );
    }
}

#[tokio::test]
async fn the_path_and_the_query_of_a_url_are_kept() {
    let gateway = Gateway::start().await;
    a_path_prefix_is_kept(gateway.address(), TOKEN).await;
}

/// A gateway that is reached over IPv6, by literal and over TLS.
pub(crate) async fn ipv6_is_spoken(upstream: SocketAddr, token: &str) {
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let authority = Authority::new("ours");
    authority.write(&ca_file);
    let dialer = Dialer::new(Some(&ca_file));
    for identity in [None, Some(authority.issue(&["::1"]))] {
        let scheme = if identity.is_some() { "wss" } else { "ws" };
        let proxy = Proxy::on(Ipv6Addr::LOCALHOST.into(), upstream, identity, Manner::default()).await;
        let client = dialer
            .connect(&target(format!("{scheme}://{}", proxy.address), token))
            .await
            .unwrap();
        client.config_get().await.unwrap();
    }
    let other = Proxy::on(
        Ipv6Addr::LOCALHOST.into(),
        upstream,
        Some(authority.issue(&["127.0.0.1"])),
        Manner::default(),
    )
    .await;
    let error = dialer
        .connect(&target(format!("wss://{}", other.address), token))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::TlsFailed, "{error}");
    assert!(error.to_string().contains("wss://[::1]:"), "{error}");
}

#[tokio::test]
async fn ipv6_literals_are_dialled_and_checked_against_the_certificate() {
    let gateway = Gateway::start().await;
    ipv6_is_spoken(gateway.address(), TOKEN).await;
}

#[tokio::test]
async fn a_proxy_that_answers_for_itself_is_told_from_a_gateway() {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let dialer = Dialer::new(None);
    for (answer, class, transient, says) in [
        ("502 Bad Gateway", ErrorClass::ProxyUnavailable, true, "proxy"),
        (
            "503 Service Unavailable\r\nRetry-After: 7",
            ErrorClass::ProxyUnavailable,
            true,
            "asks to wait 7.0 s",
        ),
        ("504 Gateway Timeout", ErrorClass::ProxyUnavailable, true, "proxy"),
        (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"ops\"",
            ErrorClass::ProxyRefused,
            false,
            "not about the gateway's token",
        ),
        (
            "403 Forbidden",
            ErrorClass::ProxyRefused,
            false,
            "not about the gateway's token",
        ),
        (
            "302 Found\r\nLocation: https://login.example:8443/in?back=s3cret",
            ErrorClass::Redirected,
            false,
            "https://login.example:8443,",
        ),
        (
            "308 Permanent Redirect\r\nLocation: /in?s3cret",
            ErrorClass::Redirected,
            false,
            "not followed",
        ),
        (
            "429 Too Many Requests",
            ErrorClass::RateLimited,
            true,
            "too many connections",
        ),
        (
            "404 Not Found",
            ErrorClass::HandshakeFailed,
            false,
            "leads to an OpenClaw gateway",
        ),
        (
            "200 OK",
            ErrorClass::HandshakeFailed,
            false,
            "leads to an OpenClaw gateway",
        ),
    ] {
        let manner = Manner {
            answer: Some(answer),
            ..Manner::default()
        };
        let proxy = Proxy::plain(nowhere, manner).await;
        let url = format!("ws://{}/?s3cret", proxy.address);
        let error = dialer.connect(&target(url, TOKEN)).await.unwrap_err();
        let told = error.to_string();
        assert_eq!(
            (error.class(), error.is_transient()),
            (class, transient),
            "{answer}: {told}"
        );
        assert!(told.contains(says) && told.contains(&answer[..3]), "{answer}: {told}");
        assert!(!told.contains("s3cret") && !told.contains(TOKEN), "{answer}: {told}");
    }
    // And one whose gateway is not there.
    let proxy = Proxy::plain(nowhere, Manner::default()).await;
    let error = dialer
        .connect(&target(format!("ws://{}", proxy.address), TOKEN))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::ProxyUnavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_of_a_url_is_told_to_the_gateway_and_to_nobody_else() {
    let gateway = Gateway::start().await;
    let manner = Manner {
        prefix: "/gw",
        ..Manner::default()
    };
    let proxy = Proxy::plain(gateway.address(), manner).await;
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let url = format!("ws://{}/gw?key=s3cret-in-query", proxy.address);
    let row = database.gateway(organization, &url, TOKEN, "/ws").await;
    let board = database.board(organization, Some(row), "board").await;
    let agent = database.agent(row, Some(board), "Wren", false).await;
    let controller = Process::run(&database.url, &["--log", "debug"]);
    database.agent_ready(agent).await;
    // Cut off, so that errors are told too.
    drop(proxy);
    gateway.sim.cut_connections();
    database
        .gateway_condition(
            row,
            openclaw_controller::model::ConditionType::Reachable,
            openclaw_controller::model::ConditionStatus::False,
            "ConnectionRefused",
        )
        .await;
    assert!(!controller.log().contains("s3cret"), "{}", controller.log());
    let told = database.everything_told().await;
    assert!(!told.contains("s3cret"), "{told}");
    let stored = everything_stored(&database).await;
    assert_eq!(stored.matches("s3cret").count(), 1, "only in the row itself");
    assert!(!controller.page("/metrics").await.1.contains("s3cret"));
}
