//! Rows of gateways that lead nowhere, and gateways that misbehave.

use openclaw_controller::lab;
use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::{Fault, Faults};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use ConditionStatus::False;
use ConditionType::{Authorized, Compatible, ConfigSynced, FilesSynced, Reachable};

use crate::doubles::{behind_tls, black_hole, server};
use crate::support::{Controller, Options, PATIENCE, eventually};
use crate::{BadGateway, Case, Fleet, Gateway, TOKEN, check_gateways};

#[tokio::test(flavor = "multi_thread")]
async fn gateway_rows_that_lead_nowhere_say_why_and_heal_when_they_are_corrected() {
    let fleet = Fleet::new().await;
    let (_listener, _fill, hole) = black_hole().await;
    let (_silent, silent) = server(async |stream| stream).await;
    let (_web, web) = server(async |mut stream: TcpStream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        stream
    })
    .await;
    let self_signed = Gateway::start().await;
    let (_tls, tls) = behind_tls(self_signed.sim.clone()).await;
    let plain = Gateway::start().await;
    let refused = lab::free_port().unwrap();

    let cases: [Case<'_, String, &str>; 12] = [
        (
            "empty",
            String::new(),
            TOKEN,
            Reachable,
            "NotConfigured",
            &["not configured for this gateway"],
        ),
        (
            "blank",
            "  ".into(),
            TOKEN,
            Reachable,
            "NotConfigured",
            &["not configured for this gateway"],
        ),
        (
            "malformed",
            "gateway s3cret-in-url".into(),
            TOKEN,
            Reachable,
            "InvalidUrl",
            &["malformed", "ws://host:port"],
        ),
        (
            "scheme",
            "https://gw.example/?token=s3cret-in-url".into(),
            TOKEN,
            Reachable,
            "InvalidUrl",
            &["https", "wss://"],
        ),
        (
            "user",
            "ws://me:s3cret-in-url@127.0.0.1:1".into(),
            TOKEN,
            Reachable,
            "InvalidUrl",
            &["password"],
        ),
        (
            "refused",
            format!("ws://127.0.0.1:{refused}"),
            TOKEN,
            Reachable,
            "ConnectionRefused",
            &["refused", "running"],
        ),
        (
            "unknown host",
            "ws://no-such-host.invalid:1".into(),
            TOKEN,
            Reachable,
            "DnsFailed",
            &["no-such-host.invalid"],
        ),
        (
            "black hole",
            format!("ws://{hole}"),
            TOKEN,
            Reachable,
            "Timeout",
            &["did not accept a connection within"],
        ),
        (
            "silent",
            format!("ws://{silent}"),
            TOKEN,
            Reachable,
            "Timeout",
            &["did not finish the handshake within"],
        ),
        (
            "a web server",
            format!("ws://{web}"),
            TOKEN,
            Reachable,
            "HandshakeFailed",
            &["HTTP 200", "OpenClaw gateway"],
        ),
        (
            "plain port",
            plain.server.url().replace("ws:", "wss:"),
            TOKEN,
            Reachable,
            "TlsFailed",
            &["TLS", "port speaks TLS"],
        ),
        (
            "wrong token",
            plain.server.url(),
            "s3cret-but-wrong",
            Authorized,
            "Unauthorized",
            &["gateway.auth.token"],
        ),
    ];
    let mut bad = Vec::new();
    // Each gets a gateway of its own to be cured with.
    let mut cures = Vec::new();
    for (name, url, token, kind, reason, says) in cases {
        let (id, agent) = fleet.gateway(&url, token).await;
        let healthy = Gateway::start().await;
        let cure = format!("url = '{}', token = '{TOKEN}'", healthy.server.url());
        cures.push(healthy);
        bad.push(BadGateway {
            name,
            id,
            agent,
            kind,
            reason,
            says,
            cure,
        });
    }
    let (id, agent) = fleet.gateway(&format!("wss://{tls}"), TOKEN).await;
    bad.push(BadGateway {
        name: "self-signed",
        id,
        agent,
        kind: Reachable,
        reason: "TlsFailed",
        says: &["certificate", "allow_insecure_tls"],
        cure: "allow_insecure_tls = true".into(),
    });

    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    check_gateways(&fleet, &controller, bad).await;
    let told = fleet.database.everything_told().await;
    for secret in ["s3cret", TOKEN] {
        assert!(!told.contains(secret), "{secret} is in what is told");
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_answer_nonsense_too_much_or_never_say_so_and_heal_by_themselves() {
    let fleet = Fleet::new().await;
    let huge = Fault::HugeFrame(30 << 20);
    let cases: [Case<'_, &str, Fault>; 8] = [
        (
            "nonsense at first",
            "connect",
            Fault::Nonsense,
            Reachable,
            "ProtocolError",
            &["OpenClaw gateway"],
        ),
        (
            "nonsense later",
            "config.get",
            Fault::Nonsense,
            Reachable,
            "ProtocolError",
            &["config.get", "OpenClaw gateway"],
        ),
        // The connection lives on: it is the config that is not understood.
        (
            "an odd config",
            "config.get",
            Fault::OddPayload,
            Compatible,
            "UnknownConfig",
            &["config.get", "Nothing is written to it"],
        ),
        (
            "huge at first",
            "connect",
            huge.clone(),
            Reachable,
            "FrameTooLarge",
            &["bytes"],
        ),
        ("huge later", "config.get", huge, Reachable, "FrameTooLarge", &["bytes"]),
        (
            "never at first",
            "connect",
            Fault::NeverAnswer,
            Reachable,
            "Timeout",
            &["within 15 s"],
        ),
        (
            "never later",
            "config.get",
            Fault::NeverAnswer,
            ConfigSynced,
            "Timeout",
            &["config.get", "30 s"],
        ),
        (
            "never while probing",
            "agents.list",
            Fault::NeverAnswer,
            Compatible,
            "Timeout",
            &["agents.list", "30 s"],
        ),
    ];
    let mut bad = Vec::new();
    let mut gateways = Vec::new();
    for (name, method, fault, kind, reason, says) in cases {
        let gateway = Gateway::start().await;
        gateway.sim.faults().always(method, fault);
        let (id, agent) = fleet.gateway(&gateway.server.url(), TOKEN).await;
        gateways.push(gateway);
        bad.push(BadGateway {
            name,
            id,
            agent,
            kind,
            reason,
            says,
            cure: String::new(),
        });
    }
    let narrow = Gateway::start().await;
    narrow.sim.faults().grant_only(&["operator.read"]);
    let (id, agent) = fleet.gateway(&narrow.server.url(), TOKEN).await;
    gateways.push(narrow);
    bad.push(BadGateway {
        name: "missing scope",
        id,
        agent,
        kind: Authorized,
        reason: "MissingScope",
        says: &["operator.admin", "Approve"],
        cure: String::new(),
    });
    // One that serves its config and is mute about files: the gateway is well and its agent is not.
    let mute = Gateway::start().await;
    mute.sim.faults().always("agents.files.set", Fault::NeverAnswer);
    let (mute_id, mute_agent) = fleet.gateway(&mute.server.url(), TOKEN).await;

    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let condition = fleet
        .database
        .agent_condition(mute_agent, FilesSynced, False, "Timeout")
        .await;
    assert!(condition.message.contains("agents.files.set"), "{}", condition.message);
    fleet.database.gateway_ready(mute_id).await;
    for case in &bad {
        fleet
            .database
            .gateway_condition(case.id, case.kind, False, case.reason)
            .await;
    }
    // `check_gateways` looks once more and then waits for the cure: take the faults away when it has looked.
    let told = fleet.database.everything_told().await;
    assert!(!told.contains(TOKEN), "the token is in what is told");
    let faults: Vec<_> = gateways.iter().chain([&mute]).map(|g| g.sim.faults()).collect();
    let waiting = check_gateways(&fleet, &controller, bad);
    let curing = async {
        // An agent beside them is the sign that everything has been looked at.
        eventually("an agent beside the bad gateways is ready", PATIENCE, async || {
            fleet
                .good
                .sim
                .roster()
                .iter()
                .any(|id| id.starts_with("mc-"))
                .then_some(())
        })
        .await;
        faults.iter().for_each(Faults::clear);
    };
    tokio::join!(waiting, curing);
    fleet.database.agent_ready(mute_agent).await;
    controller.stop().await;
}
