//! Gateways that let nobody in whose device was not approved, and what they issue to approved devices.

use std::os::unix::fs::PermissionsExt;

use openclaw_controller::gateway::{ErrorClass, Target};
use openclaw_controller::model::{ConditionStatus, ConditionType, GatewayId};
use serde_json::Value;

use crate::fixture::{Dialer, Gateway, TOKEN, everything_stored, target};
use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};

use ConditionStatus::{False, True};
use ConditionType::Authorized;

/// A controller whose device waits to be approved on a simulated gateway.
struct Waiting {
    gateway: Gateway,
    database: Database,
    row: GatewayId,
    controller: Process,
}

impl Waiting {
    async fn new() -> Self {
        let gateway = Gateway::start().await;
        gateway.sim.pair_devices();
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let row = database
            .gateway(organization, &gateway.server.url(), TOKEN, "/ws")
            .await;
        let controller = Process::run(&database.url, &["--log", "debug"]);
        Self {
            gateway,
            database,
            row,
            controller,
        }
    }

    /// The id of the request that waits, as the operator is told it.
    async fn request(&self) -> String {
        let condition = self
            .database
            .gateway_condition(self.row, Authorized, False, "PairingRequired")
            .await;
        let requests = self.gateway.sim.pairing_requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let command = format!("`openclaw devices approve {}`", requests[0]);
        assert!(condition.message.contains(&command), "{}", condition.message);
        requests[0].clone()
    }

    fn kept(&self) -> String {
        let path = self.controller.device_identity().with_file_name("device.json.tokens");
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_to_be_approved_says_how_and_is_let_in_once_it_is() {
    let waiting = Waiting::new().await;
    let request = waiting.request().await;
    waiting
        .controller
        .logs(&format!("openclaw devices approve {request}"))
        .await;
    // It asks again and again, and stays the same request.
    let connects = async || {
        waiting
            .controller
            .metric("openclaw_controller_rpc_total", "outcome=\"PairingRequired\"")
            .await
    };
    eventually("it has asked once more", PATIENCE, async || {
        (connects().await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(waiting.request().await, request);
    assert!(waiting.gateway.sim.approve_device(&request));
    waiting.database.gateway_ready(waiting.row).await;
    waiting
        .database
        .gateway_condition(waiting.row, Authorized, True, "ScopesGranted")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_token_is_kept_privately_preferred_and_given_up_when_it_is_refused() {
    let waiting = Waiting::new().await;
    let sim = &waiting.gateway.sim;
    let request = waiting.request().await;
    sim.approve_device(&request);
    waiting.database.gateway_ready(waiting.row).await;
    let first = sim.device_tokens().remove(0);
    assert!(waiting.kept().contains(&first));
    let path = waiting
        .controller
        .device_identity()
        .with_file_name("device.json.tokens");
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    // The gateway's own token is replaced, and the device's goes on working.
    let connected = async || {
        waiting
            .controller
            .metric("openclaw_controller_rpc_total", "method=\"connect\",outcome=\"ok\"")
            .await
    };
    let before = connected().await;
    sim.replace_token("another-token-91");
    sim.cut_connections();
    eventually("it has connected again", PATIENCE, async || {
        (connected().await > before).then_some(())
    })
    .await;
    // Then the device's is replaced too: neither works, and the row is what is wrong.
    sim.rotate_device_tokens();
    let condition = waiting
        .database
        .gateway_condition(waiting.row, Authorized, False, "Unauthorized")
        .await;
    assert!(
        condition.message.contains("AUTH_TOKEN_MISMATCH"),
        "{}",
        condition.message
    );
    assert!(!waiting.kept().contains(&first), "what was refused is not kept");
    waiting
        .database
        .execute("UPDATE gateways SET token = 'another-token-91'")
        .await;
    waiting.database.gateway_ready(waiting.row).await;
    let second = sim.device_tokens().remove(0);
    assert!(waiting.kept().contains(&second), "the next one is");
    // And a device that was thrown out asks to be let in once more.
    sim.remove_devices();
    let again = waiting.request().await;
    assert_ne!(again, request);

    let log = waiting.controller.log();
    let stored = everything_stored(&waiting.database).await;
    let metrics = waiting.controller.page("/metrics").await.1;
    for secret in [&first, &second, TOKEN, "another-token-91"] {
        for (place, text) in [("log", &log), ("database", &stored), ("metrics", &metrics)] {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
}

/// What every gateway that pairs devices answers to one that it does not know, that it knows, and that shows a token that is not its.
pub(crate) async fn a_device_is_let_in_by_its_approval_and_its_token(row: &Target, approve: impl AsyncFn(&str)) {
    let dialer = Dialer::new(None);
    let mut requests = Vec::new();
    for _ in 0..2 {
        let error = dialer.connect(row).await.unwrap_err();
        let told = error.to_string();
        assert_eq!(
            (error.class(), error.code(), error.is_transient()),
            (ErrorClass::PairingRequired, Some("PAIRING_REQUIRED"), false),
            "{told}"
        );
        assert!(error.awaits_approval(), "{told}");
        let (_, command) = told.split_once("`openclaw devices approve ").expect("the command");
        requests.push(command.split_once('`').unwrap().0.to_owned());
    }
    assert_eq!(requests[0], requests[1], "the same request however often it asks");
    assert_eq!(dialer.device_tokens(), "");
    approve(&requests[0]).await;
    let client = dialer.connect(row).await.unwrap();
    client.config_get().await.unwrap();
    let kept = dialer.device_tokens();
    let issued = first_token(&kept);
    // By the token alone, which the gateway gives once more.
    dialer.connect(row).await.unwrap();
    assert_eq!(dialer.device_tokens(), kept);
    // One that is not its own costs one more connection, and is replaced.
    dialer.set_device_tokens(&kept.replace(&issued, "not-a-token-of-any-device"));
    dialer.connect(row).await.unwrap();
    assert_eq!(first_token(&dialer.device_tokens()), issued);
    // A row without a token is not the row by whose token it was obtained.
    let bare = Target {
        token: None,
        ..row.clone()
    };
    let error = dialer.connect(&bare).await.unwrap_err();
    assert_eq!(error.code(), Some("AUTH_TOKEN_MISSING"), "{error}");
}

/// The first token in the text of a file of device tokens.
pub(crate) fn first_token(kept: &str) -> String {
    let file: Value = serde_json::from_str(kept).unwrap();
    file["tokens"][0]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_simulated_gateway_pairs_devices_as_real_ones_do() {
    let gateway = Gateway::start().await;
    gateway.sim.pair_devices();
    let row = target(gateway.server.url(), TOKEN);
    let approve = async |request: &str| assert!(gateway.sim.approve_device(request));
    a_device_is_let_in_by_its_approval_and_its_token(&row, approve).await;
}

#[tokio::test]
async fn a_device_token_is_shown_only_where_it_was_issued_and_with_the_token_it_was_obtained_by() {
    let gateway = Gateway::start().await;
    gateway.sim.pair_devices();
    let dialer = Dialer::new(None);
    let row = target(gateway.server.url(), TOKEN);
    assert_eq!(
        dialer.connect(&row).await.unwrap_err().class(),
        ErrorClass::PairingRequired
    );
    gateway.sim.approve_device(&gateway.sim.pairing_requests()[0]);
    dialer.connect(&row).await.unwrap();
    let kept = dialer.device_tokens();
    // A row whose token is wrong is told so, whatever the device holds.
    let wrong = target(gateway.server.url(), "wrong");
    assert_eq!(
        dialer.connect(&wrong).await.unwrap_err().class(),
        ErrorClass::Unauthorized
    );
    assert_eq!(dialer.device_tokens(), kept);
    // The same gateway's row with another URL does not get it.
    let elsewhere = Gateway::start().await;
    elsewhere.sim.replace_token("only-by-its-own-token");
    let error = dialer
        .connect(&target(elsewhere.server.url(), TOKEN))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("AUTH_TOKEN_MISMATCH"), "{error}");
    assert_eq!(dialer.device_tokens(), kept);
    dialer.connect(&row).await.unwrap();
    assert_eq!(dialer.device_tokens(), kept);
}
