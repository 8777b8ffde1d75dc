//! Real gateways behind a proxy of ours, and the whole program before one.

use std::net::{Ipv4Addr, SocketAddr};

use openclaw_controller::lab::{Options, RealGateway};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::fixture::everything_stored;
use crate::paths::{a_path_prefix_is_kept, ipv6_is_spoken};
use crate::proxy::{Manner, Proxy};
use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};
use crate::tls::certificates_decide;

fn address(gateway: &RealGateway) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.port()))
}

/// Everything about a URL, on one gateway.
async fn behind_a_proxy(version: &str) {
    let gateway = RealGateway::start(version, Options::default()).await.unwrap();
    certificates_decide(address(&gateway), gateway.token()).await;
    a_path_prefix_is_kept(address(&gateway), gateway.token()).await;
    ipv6_is_spoken(address(&gateway), gateway.token()).await;
}

#[tokio::test]
async fn on_2026_4_29_certificates_paths_and_ipv6_are_as_the_operator_expects() {
    behind_a_proxy("2026.4.29").await;
}

#[tokio::test]
async fn on_2026_9_6_certificates_paths_and_ipv6_are_as_the_operator_expects() {
    behind_a_proxy("2026.9.6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_9_6_an_agent_converges_over_tls_with_a_token_that_the_row_only_refers_to() {
    let gateway = RealGateway::start("2026.9.6", Options::default()).await.unwrap();
    let directory = TempDir::new().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let authority = Authority::new("ours");
    authority.write(&ca_file);
    let manner = Manner {
        prefix: "/gateways/red",
        ..Manner::default()
    };
    let proxy = Proxy::tls(address(&gateway), authority.issue(&["localhost"]), manner).await;
    std::fs::write(tokens.join("red"), format!("{}\n", gateway.token())).unwrap();

    let database = Database::migrated().await;
    let organization = database.organization().await;
    let url = format!("wss://localhost:{}/gateways/red", proxy.address.port());
    let root = gateway.workspace_root().display().to_string();
    let row = database.gateway(organization, &url, "file:red", &root).await;
    let board = database.board(organization, Some(row), "board").await;
    let agent = database.agent(row, Some(board), "Wren", false).await;
    let (ca, dir) = (ca_file.display().to_string(), tokens.display().to_string());
    let arguments = ["--gateway-ca-file", &ca, "--gateway-token-dir", &dir, "--log", "debug"];
    let controller = Process::run(&database.url, &arguments);
    database.agent_ready(agent).await;
    database.gateway_ready(row).await;
    let slug = format!("mc-{agent}");
    let soul = gateway.read_file(&slug, "SOUL.md").unwrap().expect("it has its files");
    assert!(soul.contains("Wren"), "{soul}");
    // An edit of the row arrives over the same connection.
    database
        .execute(&format!(
            "UPDATE agents SET soul_template = 'Be patient.' WHERE id = '{agent}'"
        ))
        .await;
    eventually("the edit arrives", PATIENCE, async || {
        let soul = gateway.read_file(&slug, "SOUL.md").ok()??;
        soul.contains("Be patient.").then_some(())
    })
    .await;
    database.agent_ready(agent).await;
    let stored = everything_stored(&database).await;
    let metrics = controller.page("/metrics").await.1;
    for (place, text) in [("log", controller.log()), ("database", stored), ("metrics", metrics)] {
        assert!(!text.contains(gateway.token()), "the gateway's token is in the {place}");
    }
}
