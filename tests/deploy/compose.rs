//! Compose: what Docker Compose makes of the file, and its steps without Docker.

use std::time::Duration;

use openclaw_controller::lab::{Postgres, free_port};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, eventually, page};
use crate::tools::{BINARY, assert_time_to_stop, at, path, printed, text, text_at, texts, texts_at, tool};

const SETTINGS: [(&str, &str); 4] = [
    ("POSTGRES_PASSWORD", "the-superusers"),
    ("OWNER_PASSWORD", "the-owners"),
    ("DAEMON_PASSWORD", "the-daemons"),
    ("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test:8081"),
];

/// What Compose makes of the file with these settings.
async fn services(settings: &[(&str, &str)]) -> Value {
    let file = path("deploy/compose.yaml");
    // An `.env` of whoever runs this is not meant.
    let arguments = [
        "--env-file",
        "/dev/null",
        "-f",
        file.to_str().unwrap(),
        "config",
        "--format",
        "json",
    ];
    let printed = printed("docker-compose", &arguments, settings, "").await;
    let config: Value = serde_json::from_str(&printed).unwrap();
    at(&config, "services").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_that_has_no_default_is_asked_for_and_documented() {
    let file = path("deploy/compose.yaml");
    for (missing, _) in SETTINGS {
        let rest: Vec<_> = SETTINGS.iter().copied().filter(|(name, _)| *name != missing).collect();
        let arguments = [
            "--env-file",
            "/dev/null",
            "-f",
            file.to_str().unwrap(),
            "config",
            "--quiet",
        ];
        let output = tool("docker-compose", &arguments, &rest, "").await;
        let told = texts(&output).1;
        assert!(!output.status.success() && told.contains(missing), "{missing}: {told}");
        assert!(text("docs/deploy.md").contains(missing), "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_is_confined_and_gets_the_time_that_it_needs() {
    let services = services(&SETTINGS).await;
    let controller = at(&services, "controller");
    let grace = text_at(controller, "stop_grace_period")
        .strip_suffix('s')
        .unwrap()
        .parse()
        .unwrap();
    assert_time_to_stop(Duration::from_secs(grace), "Compose");
    for name in ["controller", "migrate"] {
        let service = at(&services, name);
        assert_eq!(at(service, "read_only"), true);
        assert_eq!(texts_at(service, "cap_drop"), ["ALL"]);
        assert_eq!(texts_at(service, "security_opt"), ["no-new-privileges:true"]);
        assert_eq!(text_at(service, "build.dockerfile"), "deploy/docker/Dockerfile");
    }
    // Each sees its own role's password alone.
    let shown = at(controller, "environment").to_string();
    assert!(shown.contains("the-daemons") && !shown.contains("the-owners") && !shown.contains("the-superusers"));
    assert_eq!(text_at(controller, "volumes.0.target"), "/var/lib/openclaw-controller");
    // Check-ins come from anywhere, everything else from this machine.
    let ports = at(controller, "ports").as_array().unwrap();
    let open: Vec<_> = ports.iter().filter(|port| port.get("host_ip").is_none()).collect();
    assert_eq!(open.len(), 1);
    let listens = format!("--agent-listen=0.0.0.0:{}", open[0]["target"]);
    assert!(texts_at(controller, "command").contains(&listens), "{listens}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_tokens_come_from_a_file_that_need_not_be_there_and_the_controller_alone_sees_them() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("compose.yaml");
    std::fs::copy(path("deploy/compose.yaml"), &file).unwrap();
    let shown = async || {
        let file = file.to_str().unwrap();
        let arguments = ["--env-file", "/dev/null", "-f", file, "config", "--format", "json"];
        let config: Value = serde_json::from_str(&printed("docker-compose", &arguments, &SETTINGS, "").await).unwrap();
        let services = at(&config, "services").as_object().unwrap().clone();
        let mut seen: Vec<String> = services
            .into_iter()
            .filter(|(_, service)| service.to_string().contains("OPENCLAW_GATEWAY_TOKEN_MAIN"))
            .map(|(name, _)| name)
            .collect();
        seen.sort();
        seen
    };
    assert_eq!(shown().await, [] as [&str; 0]);
    let told = "OPENCLAW_GATEWAY_TOKEN_MAIN=the-gateways-token\n";
    std::fs::write(place.path().join("gateway-tokens.env"), told).unwrap();
    assert_eq!(shown().await, ["controller"]);
    assert!(text("docs/deploy.md").contains("deploy/gateway-tokens.env"));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_steps_lead_from_an_empty_server_to_a_controller_that_is_ready() {
    // A server of its own: these roles have fixed names.
    let server = Postgres::start().await.unwrap();
    let settings = SETTINGS.map(|(name, value)| {
        (
            name,
            if name == "POSTGRES_PASSWORD" {
                server.password()
            } else {
                value
            },
        )
    });
    let services = services(&settings).await;
    server.create_database("mission_control").await.unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let agents = format!("127.0.0.1:{}", free_port().unwrap());
    // In the order in which each waits for the one before.
    let mut before = "postgres";
    for name in ["roles", "migrate", "grants", "controller"] {
        let service = at(&services, name);
        assert!(
            at(service, "depends_on").get(before).is_some(),
            "{name} waits for {before}"
        );
        before = name;
        let mut arguments = texts_at(service, "command");
        let mut command = if arguments[0] == "sh" {
            arguments[1] = arguments[1].replace("/postgres/", &format!("{}/", path("deploy/postgres").display()));
            let mut command = Command::new(arguments.remove(0));
            let bin = server.psql_path();
            let search = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
            command.env("PATH", search).env("PGPORT", server.port().to_string());
            command
        } else {
            Command::new(BINARY)
        };
        for argument in &mut arguments {
            *argument = argument
                .replace("0.0.0.0:8080", &address)
                .replace("0.0.0.0:8081", &agents);
        }
        let state = server.directory().join("state");
        command
            .args(&arguments)
            .env("STATE_DIRECTORY", &state)
            .kill_on_drop(true);
        for (variable, value) in at(service, "environment").as_object().unwrap() {
            let value = value.as_str().unwrap();
            let here = format!("@127.0.0.1:{}/", server.port());
            let value = if variable == "PGHOST" {
                "127.0.0.1".to_owned()
            } else {
                value.replace("@postgres/", &here)
            };
            command.env(variable, value);
        }
        if name == "controller" {
            let mut controller = command.stderr(std::process::Stdio::null()).spawn().unwrap();
            let address = address.parse().unwrap();
            eventually("the controller is ready", PATIENCE, async || {
                let (status, body) = page(address, "/readyz").await;
                (status == 200 && body.contains("active")).then_some(())
            })
            .await;
            controller.kill().await.unwrap();
        } else {
            let output = timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
            let (stdout, stderr) = texts(&output);
            assert!(output.status.success(), "{name}: {stdout}{stderr}");
        }
    }
}
