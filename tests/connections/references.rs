//! Tokens that rows only refer to.

use openclaw_controller::model::{ConditionStatus, ConditionType, GatewayId};
use tempfile::TempDir;

use crate::fixture::{Gateway, TOKEN, everything_stored};
use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};

use ConditionStatus::{False, Unknown};
use ConditionType::{Authorized, Reachable};

/// The environment variable of the right name, and one that no row may have.
const ENVIRONMENT: [(&str, &str); 2] = [
    ("OPENCLAW_GATEWAY_TOKEN_RED", TOKEN),
    ("OPENCLAW_CONTROLLER_SECRET", "s3cret-of-ours"),
];

async fn gateway(database: &Database, organization: uuid::Uuid, url: &str, token: &str) -> GatewayId {
    database.gateway(organization, url, token, "/ws").await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_found_where_rows_may_refer_to_and_nowhere_else() {
    let sim = Gateway::start().await;
    let url = sim.server.url();
    let directory = TempDir::new().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    std::fs::write(directory.path().join("outside"), "s3cret-outside").unwrap();
    std::os::unix::fs::symlink("../outside", tokens.join("leaving")).unwrap();
    std::fs::write(tokens.join("red"), format!("{TOKEN}\n")).unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;

    let mut good = Vec::new();
    for token in ["file:red", "env:OPENCLAW_GATEWAY_TOKEN_RED", TOKEN] {
        good.push(gateway(&database, organization, &url, token).await);
    }
    let mut bad = Vec::new();
    for (token, reason) in [
        ("env:OPENCLAW_CONTROLLER_SECRET", "TokenReferenceRefused"),
        ("env:DATABASE_URL", "TokenReferenceRefused"),
        ("env:s3cret-that-begins-so", "TokenReferenceRefused"),
        ("file:../outside", "TokenReferenceRefused"),
        ("file:leaving", "TokenReferenceRefused"),
        ("file:/etc/hostname", "TokenReferenceRefused"),
        ("env:OPENCLAW_GATEWAY_TOKEN_BLUE", "TokenUnavailable"),
        ("file:blue", "TokenUnavailable"),
    ] {
        bad.push((gateway(&database, organization, &url, token).await, token, reason));
    }
    let dir = tokens.display().to_string();
    let arguments = ["--gateway-token-dir", &dir, "--log", "debug"];
    let controller = Process::run_in(&database.url, &arguments, &ENVIRONMENT);
    for row in &good {
        database.gateway_ready(*row).await;
    }
    for (row, token, reason) in &bad {
        let condition = database.gateway_condition(*row, Authorized, False, reason).await;
        let says = match *reason {
            "TokenReferenceRefused" => &["env:OPENCLAW_GATEWAY_TOKEN_<NAME>", "--gateway-token-dir"][..],
            _ if token.starts_with("env:") => &["OPENCLAW_GATEWAY_TOKEN_BLUE is not set"],
            _ => &["cannot be found", "No such file"],
        };
        for words in says {
            assert!(condition.message.contains(words), "{token}: {}", condition.message);
        }
        let conditions = database.gateway_conditions(*row).await;
        assert_eq!(
            conditions.get(Reachable).unwrap().status,
            Unknown,
            "{token}: nothing was tried"
        );
        let ready = conditions.get(ConditionType::Ready).unwrap();
        assert_eq!((ready.status, ready.reason.as_str()), (False, *reason), "{token}");
    }

    // What is missing is found once it is there, and nothing has to be told to the controller.
    std::fs::write(tokens.join("blue"), TOKEN).unwrap();
    let (blue, ..) = bad.pop().unwrap();
    database.gateway_ready(blue).await;
    // A row that is corrected counts at once.
    let (row, ..) = bad[0];
    database
        .execute(&format!("UPDATE gateways SET token = 'file:red' WHERE id = '{row}'"))
        .await;
    database.gateway_ready(row).await;

    let log = controller.log();
    let told = everything_stored(&database).await;
    let metrics = controller.page("/metrics").await.1;
    for secret in [TOKEN, "s3cret"] {
        for (place, text) in [("log", &log), ("database", &told), ("metrics", &metrics)] {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_file_counts_at_the_next_connection_and_not_before() {
    let sim = Gateway::start().await;
    let tokens = TempDir::new().unwrap();
    let file = tokens.path().join("red");
    std::fs::write(&file, TOKEN).unwrap();
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let row = gateway(&database, organization, &sim.server.url(), "file:red").await;
    let dir = tokens.path().display().to_string();
    let _controller = Process::run_in(&database.url, &["--gateway-token-dir", &dir], &[]);
    database.gateway_ready(row).await;

    // The gateway's token is replaced first: what is open stays open, and the next connection needs the new one.
    sim.sim.replace_token("another-token-77");
    sim.sim.cut_connections();
    let condition = database.gateway_condition(row, Authorized, False, "Unauthorized").await;
    assert!(!condition.message.contains("another-token-77"), "{}", condition.message);
    std::fs::write(&file, "another-token-77\n").unwrap();
    // A refused token backs off; a touched row does not wait for that.
    database.execute("UPDATE gateways SET name = 'Touched'").await;
    database.gateway_ready(row).await;
    eventually("one connection is open", PATIENCE, async || {
        (sim.sim.connections() == 1).then_some(())
    })
    .await;
}
