//! Real gateways in another network: their devices have to be approved there, and get tokens.

use openclaw_controller::lab::{Network, Options, RealGateway, in_own_network};
use openclaw_controller::model::{ConditionStatus, ConditionType};
use serde_json::{Value, json};

use crate::devices::{a_device_is_let_in_by_its_approval_and_its_token, first_token};
use crate::fixture::{everything_stored, target};
use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};

use ConditionStatus::{False, True};
use ConditionType::Authorized;

fn kept(controller: &Process) -> String {
    let path = controller.device_identity().with_file_name("device.json.tokens");
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The ids of the pairing requests that wait, as the gateway's own CLI lists them.
async fn waiting(gateway: &RealGateway) -> Vec<String> {
    let printed = gateway.operator(&["devices", "list", "--json"]).await.unwrap();
    let json = &printed[printed.find('{').expect("it prints JSON")..];
    let devices: Value = serde_json::from_str(json).unwrap();
    let pending = devices["pending"].as_array().unwrap();
    pending
        .iter()
        .map(|request| request["requestId"].as_str().unwrap().to_owned())
        .collect()
}

/// Approves a device, with the command that the operator was told.
async fn approve(gateway: &RealGateway, request: &str) {
    if gateway.version() == "2026.4.29" {
        // Its own command asks for too little to approve a device that wants `operator.admin`; its Control UI does not.
        let refused = gateway.operator(&["devices", "approve", request]).await.unwrap_err();
        assert!(
            refused.to_string().contains("missing scope: operator.admin"),
            "{refused}"
        );
        let params = json!({ "requestId": request });
        gateway.call("device.pair.approve", &params).await.unwrap();
    } else {
        gateway.operator(&["devices", "approve", request]).await.unwrap();
    }
}

/// The story of a device: it waits, is approved with the command that the operator was told, gets a token, and uses it.
async fn a_device_is_approved_and_gets_a_token(version: &str) {
    let network = Network::new().unwrap();
    let options = Options {
        remote: Some((network.namespace(), Network::FAR)),
        ..Options::default()
    };
    let gateway = RealGateway::start(version, options).await.unwrap();
    let approve = async |request: &str| approve(&gateway, request).await;
    a_device_is_let_in_by_its_approval_and_its_token(&target(gateway.url(), gateway.token()), approve).await;

    let database = Database::migrated().await;
    let organization = database.organization().await;
    let root = gateway.workspace_root().display().to_string();
    let row = database
        .gateway(organization, &gateway.url(), gateway.token(), &root)
        .await;
    let board = database.board(organization, Some(row), "board").await;
    let agent = database.agent(row, Some(board), "Wren", false).await;
    let controller = Process::run(&database.url, &["--log", "debug"]);

    let condition = database
        .gateway_condition(row, Authorized, False, "PairingRequired")
        .await;
    let refused = async || {
        controller
            .metric("openclaw_controller_rpc_total", "outcome=\"PairingRequired\"")
            .await
    };
    eventually("it has asked twice more", PATIENCE, async || {
        (refused().await >= 3.0).then_some(())
    })
    .await;
    let requests = waiting(&gateway).await;
    assert_eq!(requests.len(), 1, "one request however often it asks: {requests:?}");
    let command = format!("`openclaw devices approve {}`", requests[0]);
    let again = database
        .gateway_condition(row, Authorized, False, "PairingRequired")
        .await;
    assert!(again.message.contains(&command), "{}", again.message);
    assert_eq!(again, condition);

    approve(&requests[0]).await;
    database.agent_ready(agent).await;
    database.gateway_condition(row, Authorized, True, "ScopesGranted").await;
    let file: Value = serde_json::from_str(&kept(&controller)).unwrap();
    let first = first_token(&kept(&controller));

    // With the gateway's own token replaced, the device's is what lets it in.
    let connected = async || {
        controller
            .metric("openclaw_controller_rpc_total", "method=\"connect\",outcome=\"ok\"")
            .await
    };
    let before = connected().await;
    gateway.stop().await.unwrap();
    gateway
        .edit_config(|config| config["gateway"]["auth"]["token"] = "another-token-3c".into())
        .unwrap();
    gateway.start_again().await.unwrap();
    eventually("it is let in again", PATIENCE, async || {
        (connected().await > before).then_some(())
    })
    .await;
    database.gateway_ready(row).await;

    // The device's token is taken away, and the row's does not fit: that is what the gateway says, once.
    let device = file["tokens"][0]["device"].as_str().unwrap();
    let params = json!({ "deviceId": device, "role": "operator" });
    gateway.call("device.token.rotate", &params).await.unwrap();
    gateway.restart().await.unwrap();
    database.gateway_condition(row, Authorized, False, "Unauthorized").await;
    assert!(!kept(&controller).contains(&first), "a refused token is not kept");
    // With the right token in the row it goes on, and gets the new one.
    database.execute("UPDATE gateways SET token = 'another-token-3c'").await;
    database.gateway_ready(row).await;
    let second = first_token(&kept(&controller));
    assert_ne!(first, second);

    let stored = everything_stored(&database).await;
    let metrics = controller.page("/metrics").await.1;
    for secret in [&first, &second, gateway.token(), "another-token-3c"] {
        for (place, text) in [("log", &controller.log()), ("database", &stored), ("metrics", &metrics)] {
            assert!(!text.contains(secret), "a token is in the {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_4_29_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in() {
    let name = "remote::on_2026_4_29_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in";
    if !in_own_network(name, &["2026.4.29"]).await.unwrap() {
        a_device_is_approved_and_gets_a_token("2026.4.29").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_7_1_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in() {
    let name = "remote::on_2026_7_1_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in";
    if !in_own_network(name, &["2026.7.1"]).await.unwrap() {
        a_device_is_approved_and_gets_a_token("2026.7.1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_2026_9_6_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in() {
    let name = "remote::on_2026_9_6_a_remote_gateways_operator_approves_the_device_and_its_token_lets_it_in";
    if !in_own_network(name, &["2026.9.6"]).await.unwrap() {
        a_device_is_approved_and_gets_a_token("2026.9.6").await;
    }
}
