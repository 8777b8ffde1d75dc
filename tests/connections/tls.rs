//! Certificates, in front of simulated gateways and of real ones.

use std::net::SocketAddr;

use openclaw_controller::gateway::{ErrorClass, Target};
use openclaw_controller::model::{ConditionStatus, ConditionType};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::fixture::{Dialer, Gateway, TOKEN, target};
use crate::proxy::{Manner, Proxy};
use crate::support::Database;
use crate::support::process::{self, Process};

/// What comes of connecting to a gateway behind TLS, certificate by certificate.
pub(crate) async fn certificates_decide(upstream: SocketAddr, token: &str) {
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let (ours, foreign) = (Authority::new("ours"), Authority::new("somebody else's"));
    ours.write(&ca_file);
    let (trusting, plain) = (Dialer::new(Some(&ca_file)), Dialer::new(None));
    let manner = Manner::default;

    let good = Proxy::tls(upstream, ours.issue(&["localhost", "127.0.0.1"]), manner()).await;
    let port = good.address.port();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("wss://{host}:{port}");
        let client = trusting.connect(&target(&url, token)).await.unwrap();
        client.config_get().await.unwrap();
    }

    let elsewhere = Proxy::tls(upstream, ours.issue(&["gateway.example"]), manner()).await;
    let expired = Proxy::tls(upstream, ours.expired(&["localhost"]), manner()).await;
    let unknown = Proxy::tls(upstream, foreign.issue(&["localhost"]), manner()).await;
    for (what, dialer, proxy, says) in [
        ("no CA file", &plain, &good, "--gateway-ca-file"),
        ("another host", &trusting, &elsewhere, "for other names"),
        ("expired", &trusting, &expired, "Renew"),
        ("another CA", &trusting, &unknown, "--gateway-ca-file"),
    ] {
        let row = target(format!("wss://localhost:{}", proxy.address.port()), token);
        let error = dialer.connect(&row).await.unwrap_err();
        let told = error.to_string();
        assert_eq!(
            (error.class(), error.is_transient()),
            (ErrorClass::TlsFailed, false),
            "{what}: {told}"
        );
        assert!(told.contains(says) && !told.contains(token), "{what}: {told}");
        assert_eq!(
            proxy.requests().len(),
            if what == "no CA file" { 2 } else { 0 },
            "{what}: nothing was sent"
        );
        let insecure = Target {
            allow_insecure_tls: true,
            ..row
        };
        dialer.connect(&insecure).await.unwrap();
    }
}

#[tokio::test]
async fn certificates_of_a_private_ca_are_checked_in_every_way() {
    let gateway = Gateway::start().await;
    certificates_decide(gateway.address(), TOKEN).await;
}

#[tokio::test]
async fn a_rotated_ca_counts_from_the_next_connection_on() {
    let gateway = Gateway::start().await;
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    old.write(&ca_file);
    let dialer = Dialer::new(Some(&ca_file));
    let before = Proxy::tls(gateway.address(), old.issue(&["localhost"]), Manner::default()).await;
    let after = Proxy::tls(gateway.address(), new.issue(&["localhost"]), Manner::default()).await;
    let row = |proxy: &Proxy| target(format!("wss://localhost:{}", proxy.address.port()), TOKEN);
    dialer.connect(&row(&before)).await.unwrap();
    assert_eq!(
        dialer.connect(&row(&after)).await.unwrap_err().class(),
        ErrorClass::TlsFailed
    );
    new.write(&ca_file);
    dialer.connect(&row(&after)).await.unwrap();
    assert_eq!(
        dialer.connect(&row(&before)).await.unwrap_err().class(),
        ErrorClass::TlsFailed
    );
    // Somebody who breaks the file locks nobody out.
    std::fs::write(&ca_file, "").unwrap();
    dialer.connect(&row(&after)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_roots_are_trusted_besides_a_private_ca() {
    let directory = TempDir::new().unwrap();
    let (platform, private) = (
        directory.path().join("platform.pem"),
        directory.path().join("private.pem"),
    );
    let (official, ours) = (Authority::new("of the platform"), Authority::new("ours"));
    official.write(&platform);
    ours.write(&private);
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let gateway = Gateway::start().await;
    let mut proxies = Vec::new();
    let mut rows = Vec::new();
    for authority in [&official, &ours] {
        let proxy = Proxy::tls(gateway.address(), authority.issue(&["localhost"]), Manner::default()).await;
        let url = format!("wss://localhost:{}", proxy.address.port());
        rows.push(database.gateway(organization, &url, TOKEN, "/ws").await);
        proxies.push(proxy);
    }
    let environment = [("SSL_CERT_FILE", &*platform.display().to_string())];
    let alone = Process::run_in(&database.url, &[], &environment);
    database.gateway_ready(rows[0]).await;
    database
        .gateway_condition(rows[1], ConditionType::Reachable, ConditionStatus::False, "TlsFailed")
        .await;
    drop(alone);
    let private = private.display().to_string();
    let _both = Process::run_in(&database.url, &["--gateway-ca-file", &private], &environment);
    for row in rows {
        database.gateway_ready(row).await;
    }
}

#[tokio::test]
async fn every_command_that_connects_refuses_to_start_with_an_unusable_ca_file_or_token_directory() {
    let database = Database::migrated().await;
    let directory = TempDir::new().unwrap();
    let garbage = directory.path().join("garbage.pem");
    std::fs::write(&garbage, "garbage").unwrap();
    let (garbage, missing) = (garbage.display().to_string(), "/no/such/place".to_owned());
    let organization = database.organization().await;
    let gateway = database.gateway(organization, "", TOKEN, "/ws").await.to_string();
    let sync = ["sync", "--gateway", &gateway];
    for command in [&["run", "--listen", "127.0.0.1:0"][..], &["diff"], &sync] {
        for (flag, value, says) in [
            ("--gateway-ca-file", &garbage, "holds no certificate"),
            ("--gateway-ca-file", &missing, "cannot read the CA file"),
            ("--gateway-token-dir", &missing, "cannot use the directory"),
            ("--gateway-token-dir", &garbage, "cannot use the directory"),
        ] {
            let arguments = [command, &[flag, value]].concat();
            let ended = process::command(&arguments, &[("DATABASE_URL", &database.url)]).await;
            assert_ne!(ended.code, Some(0), "{arguments:?}");
            let told = ended.stderr;
            assert!(told.contains(says) && told.contains(flag), "{arguments:?}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_and_sync_reach_a_gateway_by_a_private_ca_and_a_token_file_as_run_does() {
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let authority = Authority::new("ours");
    authority.write(&ca_file);
    std::fs::write(directory.path().join("token"), TOKEN).unwrap();
    let gateway = Gateway::start().await;
    let proxy = Proxy::tls(gateway.address(), authority.issue(&["localhost"]), Manner::default()).await;
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let url = format!("wss://localhost:{}", proxy.address.port());
    let row = database.gateway(organization, &url, "file:token", "/ws").await;
    let board = database.board(organization, Some(row), "board").await;
    database.agent(row, Some(board), "Wren", false).await;
    let (ca, dir) = (ca_file.display().to_string(), directory.path().display().to_string());
    let environment = [
        ("DATABASE_URL", &*database.url),
        ("OPENCLAW_CONTROLLER_GATEWAY_CA_FILE", &ca),
        ("OPENCLAW_CONTROLLER_GATEWAY_TOKEN_DIR", &dir),
    ];
    let differs = process::command(&["diff"], &environment).await;
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.stdout.contains("Wren"), "{}", differs.stdout);
    let without = process::command(&["diff"], &environment[..2]).await;
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stdout.contains("--gateway-token-dir"), "{}", without.stdout);
    let gateway = row.to_string();
    let sync = ["sync", "--gateway", &gateway, "--no-include-main"];
    let synced = process::command(&sync, &environment).await;
    assert_eq!(synced.code, Some(0), "{synced:?}");
    for finished in [differs, without, synced] {
        assert!(!finished.stdout.contains(TOKEN) && !finished.stderr.contains(TOKEN));
    }
}
