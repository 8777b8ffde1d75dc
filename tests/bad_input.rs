//! Bad input: each piece of it is told on its own object, everything beside it converges, and putting it right is enough.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openclaw_controller::lab;
use openclaw_controller::model::{AgentId, BoardId, ConditionStatus, ConditionType, GatewayId};
use openclaw_controller::sim::{Fault, SimDialect, SimGateway, SimServer};
use support::{Controller, Database, Options, PATIENCE, eventually};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;

use ConditionStatus::{False, True};
use ConditionType::{Authorized, Compatible, ConfigSynced, FilesSynced, Reachable, Ready, Registered};

const TOKEN: &str = "the-gateways-token-3f9c";

/// A certificate that nobody has signed but itself, for 127.0.0.1 and localhost, and its key. Made for this test.
const CERTIFICATE: &str = "MIIBuDCCAV+gAwIBAgIUPcgI4EHIo4vtgMn/Pog+StsZXtQwCgYIKoZIzj0EAwIwIzEhMB8GA1UEAwwYc2VsZi1zaWduZWQgdGVz\
dCBnYXRld2F5MCAXDTI2MTEyMzA2NDk0OFoYDzIxMjYxMDMwMDY0OTQ4WjAjMSEwHwYDVQQDDBhzZWxmLXNpZ25lZCB0ZXN0IGdh\
dGV3YXkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATCu8kZYTDcEVwdgMsYPZFXyxbxqhSJ+eq6x3d7CEHkiIpNB4hijelUmzKu\
3iKGAwvEWXC1VXTBmIys4FkSodYZo28wbTAdBgNVHQ4EFgQU275qY54WEcfOCz17a0f6Q2WBXP0wHwYDVR0jBBgwFoAU275qY54W\
EcfOCz17a0f6Q2WBXP0wDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZIzj0EAwIDRwAw\
RAIgUCGJrVXLGH/H0oA1fxxI6gs40pD6doaE8MqqJQ2NYtUCID9Mz7jXYNc64Ip7ToVUxzsTBtlghGhl2JNCDr3hO1Jc";
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgX1mQxQA2GUEK1J/GiAKATPfNtZGq9AXUAm5P0oIPm6ihRANCAATC\
u8kZYTDcEVwdgMsYPZFXyxbxqhSJ+eq6x3d7CEHkiIpNB4hijelUmzKu3iKGAwvEWXC1VXTBmIys4FkSodYZ";

/// A simulated gateway that listens.
struct Gateway {
    sim: SimGateway,
    server: SimServer,
}

impl Gateway {
    async fn start() -> Self {
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self { sim, server }
    }
}

/// The organisation under test, with one gateway and board that are as they should be.
struct Fleet {
    database: Database,
    organization: Uuid,
    good: Gateway,
    gateway: GatewayId,
    board: BoardId,
}

impl Fleet {
    async fn new() -> Self {
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let good = Gateway::start().await;
        let gateway = database.gateway(organization, &good.server.url(), TOKEN, "/ws").await;
        let board = database.board(organization, Some(gateway), "good").await;
        Self {
            database,
            organization,
            good,
            gateway,
            board,
        }
    }

    /// A gateway's row with an agent on it.
    async fn gateway(&self, url: &str, token: &str) -> (GatewayId, AgentId) {
        let gateway = self.database.gateway(self.organization, url, token, "/ws").await;
        let board = self.database.board(self.organization, Some(gateway), "board").await;
        let agent = self.database.agent(gateway, Some(board), "Wren", false).await;
        (gateway, agent)
    }

    /// An agent on the good board, with a column set to an SQL expression.
    async fn agent(&self, name: &str, set: &str) -> AgentId {
        let agent = self.database.agent(self.gateway, Some(self.board), name, false).await;
        if !set.is_empty() {
            self.set_agent(agent, set).await;
        }
        agent
    }

    async fn set_agent(&self, agent: AgentId, set: &str) {
        let sql = format!("UPDATE agents SET {set} WHERE id = '{agent}'");
        self.database.execute(&sql).await;
    }

    async fn set_gateway(&self, gateway: GatewayId, set: &str) {
        let sql = format!("UPDATE gateways SET {set} WHERE id = '{gateway}'");
        self.database.execute(&sql).await;
    }

    /// An agent that is added now, on the good gateway, converges; the controller is ready and never panicked.
    async fn goes_on(&self, controller: &Controller) {
        let agent = self.agent("Beside", "").await;
        self.database.agent_ready(agent).await;
        let (status, text) = controller.page("/readyz").await;
        assert_eq!(status, 200, "{text}");
        let panics = controller.metric("controller_runtime_reconcile_panics_total", "").await;
        assert!(panics.abs() < 0.5, "{panics} panics");
    }
}

/// A name, what two things make it bad, and the condition, the reason and the words by which that is to be told.
type Case<'a, A, B> = (&'a str, A, B, ConditionType, &'a str, &'a [&'a str]);

/// A bad gateway, what is to be told of it, and what puts it right.
struct BadGateway {
    name: &'static str,
    id: GatewayId,
    agent: AgentId,
    kind: ConditionType,
    reason: &'static str,
    /// Words that the message has to hold: what is wrong and what to do about it.
    says: &'static [&'static str],
    /// What to set in the row to put it right.
    cure: String,
}

/// Asserts each bad gateway's conditions, and then that each is healed by its cure alone.
async fn check_gateways(fleet: &Fleet, controller: &Controller, bad: Vec<BadGateway>) {
    for case in &bad {
        let condition = fleet
            .database
            .gateway_condition(case.id, case.kind, False, case.reason)
            .await;
        for words in case.says {
            assert!(
                condition.message.contains(words),
                "{}: {}",
                case.name,
                condition.message
            );
        }
        let conditions = fleet.database.gateway_conditions(case.id).await;
        let ready = conditions.get(Ready).unwrap();
        assert_eq!(
            (ready.status, ready.reason.as_str()),
            (False, case.reason),
            "{}",
            case.name
        );
    }
    fleet.goes_on(controller).await;
    for case in &bad {
        if !case.cure.is_empty() {
            fleet.set_gateway(case.id, &case.cure).await;
        }
    }
    for case in &bad {
        fleet.database.gateway_ready(case.id).await;
        fleet.database.agent_ready(case.agent).await;
    }
}

/// A port on which a TCP connection is neither accepted nor refused, as behind a firewall that drops packets.
async fn black_hole() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
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
async fn server<F: Future<Output = TcpStream> + Send + 'static>(
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
async fn behind_tls(sim: SimGateway) -> (JoinHandle<()>, SocketAddr) {
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
    let cases: [Case<'_, &str, Fault>; 7] = [
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
            ConfigSynced,
            "ProtocolError",
            &["OpenClaw gateway"],
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
        faults.iter().for_each(openclaw_controller::sim::Faults::clear);
    };
    tokio::join!(waiting, curing);
    fleet.database.agent_ready(mute_agent).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_agents_that_make_no_sense_are_told_on_the_agent_and_nowhere_else() {
    let fleet = Fleet::new().await;
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let hb = |json: &str| format!("heartbeat_config = '{json}'");
    let profile = |json: &str| format!("identity_profile = '{json}'");
    let soul = |template: &str| format!("soul_template = '{template}'");
    let large = |bytes: usize| format!("soul_template = repeat('0123456789abcde ', {})", bytes / 16);
    let cases: [(&str, String, ConditionType, &str, &[&str]); 19] = [
        (
            "list",
            hb("[1]"),
            Registered,
            "InvalidHeartbeat",
            &["is a list, not an object", "every"],
        ),
        (
            "string",
            hb("\"10m\""),
            Registered,
            "InvalidHeartbeat",
            &["is a text, not an object"],
        ),
        (
            "number",
            hb("7"),
            Registered,
            "InvalidHeartbeat",
            &["is a number, not an object"],
        ),
        (
            "nested",
            hb(r#"{"every":{"a":[1]}}"#),
            Registered,
            "InvalidHeartbeat",
            &["\"every\"", "correct the row"],
        ),
        (
            "deep",
            hb(&deep),
            Registered,
            "InvalidHeartbeat",
            &["cannot be parsed", "correct the row"],
        ),
        (
            "infinite",
            hb(r#"{"ackMaxChars":1e999}"#),
            Registered,
            "InvalidHeartbeat",
            &["cannot be parsed"],
        ),
        (
            "nul",
            hb(r#"{"every":"\u0000"}"#),
            Registered,
            "InvalidHeartbeat",
            &["\"every\"", "duration"],
        ),
        (
            "p list",
            profile("[1]"),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a list", "object"],
        ),
        (
            "p string",
            profile("\"x\""),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a text"],
        ),
        (
            "p number",
            profile("7"),
            FilesSynced,
            "InvalidProfile",
            &["identity_profile is a number"],
        ),
        (
            "p nested",
            profile(r#"{"role":{"a":1}}"#),
            FilesSynced,
            "InvalidProfile",
            &["\"role\"", "must be text"],
        ),
        (
            "p deep",
            profile(&deep),
            FilesSynced,
            "InvalidProfile",
            &["cannot be parsed"],
        ),
        (
            "variable",
            soul("{{ nonsense }}"),
            FilesSynced,
            "UnknownVariable",
            &["SOUL", "nonsense", "documented"],
        ),
        (
            "include",
            soul("{% include \"x.j2\" %}"),
            FilesSynced,
            "MissingInclude",
            &["x.j2", "templates directory"],
        ),
        (
            "syntax",
            soul("{% if %}"),
            FilesSynced,
            "TemplateSyntax",
            &["soul_template", "correct the template"],
        ),
        (
            "loop",
            soul("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"),
            FilesSynced,
            "TemplateTooExpensive",
            &["soul_template", "simplify"],
        ),
        (
            "recursion",
            soul("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            FilesSynced,
            "TemplateTooExpensive",
            &["soul_template"],
        ),
        (
            "over 1 MiB",
            large(1_100_000),
            FilesSynced,
            "TemplateTooLarge",
            &["1 MiB", "shorten"],
        ),
        (
            "filter",
            soul("{{ agent_name | pickle }}"),
            FilesSynced,
            "UnknownFilter",
            &["soul_template"],
        ),
    ];
    let mut bad = Vec::new();
    for (name, set, kind, reason, says) in cases {
        bad.push((name, fleet.agent(name, &set).await, kind, reason, says));
    }
    // Valid, and worth a word: longer than a gateway shows, and characters that Postgres cannot keep in text.
    let long = fleet.agent("long", &large(1_000_000)).await;
    let nul = fleet
        .agent(
            "nul",
            r#"heartbeat_config = '{"a\u0000b":"\u0000"}', identity_profile = '{"role":"a\u0000b","x\u0000":{}}'"#,
        )
        .await;
    let other_key = fleet
        .agent("other key", "openclaw_session_id = 'agent:main:main'")
        .await;
    // Places that are taken or do not exist.
    let database = &fleet.database;
    let homeless = database.board(fleet.organization, None, "homeless").await;
    let unplaced = database.agent(fleet.gateway, Some(homeless), "unplaced", false).await;
    let lead = database.agent(fleet.gateway, Some(fleet.board), "lead", true).await;
    let second_lead = database
        .agent(fleet.gateway, Some(fleet.board), "second lead", true)
        .await;
    let main = database.agent(fleet.gateway, None, "main", false).await;
    let second_main = database.agent(fleet.gateway, None, "second main", false).await;

    let controller = Controller::start(&database.url, Options::default()).await;
    for (name, agent, kind, reason, says) in &bad {
        let condition = database.agent_condition(*agent, *kind, False, reason).await;
        for words in *says {
            assert!(condition.message.contains(words), "{name}: {}", condition.message);
        }
        let error = format!("SELECT last_provision_error FROM agents WHERE id = '{agent}'");
        eventually(&format!("{name} is told in the row too"), PATIENCE, async || {
            let error = database.text(&error).await;
            error.filter(|error| error.contains(reason))
        })
        .await;
        // What is well with the agent is done: it is on the gateway, with the files that could be made.
        let id = format!("mc-{agent}");
        eventually(&format!("{name} is there as far as it can be"), PATIENCE, async || {
            let there = fleet.good.sim.roster().contains(&id) && fleet.good.sim.file(&id, "USER.md").is_some();
            there.then_some(())
        })
        .await;
    }
    for (agent, reason, says) in [
        (unplaced, "BoardNotFound", "board not found for agent"),
        (second_lead, "DuplicateAgent", "a board has one lead"),
        (second_main, "DuplicateAgent", "a gateway one main agent"),
    ] {
        let condition = database.agent_condition(agent, Registered, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
    }
    for agent in [nul, other_key, lead, main] {
        database.agent_ready(agent).await;
    }
    let condition = database.agent_condition(long, FilesSynced, True, "FileTooLong").await;
    assert!(condition.message.contains("SOUL.md has"), "{}", condition.message);
    let corrected = format!("SELECT openclaw_session_id FROM agents WHERE id = '{other_key}'");
    assert_eq!(
        database.text(&corrected).await,
        Some(format!("agent:mc-{other_key}:main"))
    );
    let events = format!(
        "SELECT message FROM openclaw_controller.events WHERE reason = 'SessionKeyCorrected' AND object_id = '{other_key}'"
    );
    let event = eventually("an event tells of the corrected key", PATIENCE, async || {
        let found: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(events.clone()))
            .fetch_optional(&database.pool)
            .await
            .unwrap();
        found
    })
    .await;
    assert!(event.contains("agent:main:main"), "{event}");
    assert!(
        fleet.good.sim.file("main", "AGENTS.md").is_none(),
        "the operator's own agent is left alone"
    );
    fleet.goes_on(&controller).await;

    // Putting the rows right is enough.
    for (_, agent, ..) in &bad {
        let cure = "heartbeat_config = NULL, identity_profile = NULL, soul_template = NULL";
        fleet.set_agent(*agent, cure).await;
    }
    database
        .execute(&format!(
            "UPDATE boards SET gateway_id = '{}' WHERE id = '{homeless}';
             UPDATE agents SET is_board_lead = false WHERE id = '{second_lead}';
             UPDATE agents SET board_id = '{}' WHERE id = '{second_main}';",
            fleet.gateway, fleet.board
        ))
        .await;
    let healed = bad.iter().map(|(_, agent, ..)| *agent);
    for agent in healed.chain([unplaced, second_lead, second_main]) {
        database.agent_ready(agent).await;
        let error = format!("SELECT last_provision_error FROM agents WHERE id = '{agent}'");
        eventually("the row tells of no error any more", PATIENCE, async || {
            database.text(&error).await.is_none().then_some(())
        })
        .await;
    }
    database.gateway_ready(fleet.gateway).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_templates_of_a_directory_fail_the_files_that_need_them_and_no_others() {
    let fleet = Fleet::new().await;
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("BOARD_SOUL.md.j2", "{{ nonsense }}");
    write("BOARD_IDENTITY.md.j2", "{% include 'missing.md' %}");
    write("BOARD_USER.md.j2", "{% if %}");
    write(
        "BOARD_MEMORY.md.j2",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    );
    let agent = fleet.agent("Wren", "").await;
    let with_templates = || Options {
        templates_dir: Some(directory.path().to_owned()),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, with_templates()).await;
    let condition = eventually("the agent's files are found wanting", PATIENCE, async || {
        let conditions = fleet.database.agent_conditions(agent).await;
        conditions.get(FilesSynced).filter(|c| c.status == False).cloned()
    })
    .await;
    assert!(condition.message.contains("(and 3 more)"), "{}", condition.message);
    let id = format!("mc-{agent}");
    for (file, there) in [
        ("AGENTS.md", true),
        ("SOUL.md", false),
        ("IDENTITY.md", false),
        ("USER.md", false),
    ] {
        assert_eq!(fleet.good.sim.file(&id, file).is_some(), there, "{file}");
    }
    let (status, text) = controller.page("/readyz").await;
    assert_eq!(status, 200, "{text}");
    controller.stop().await;

    write("BOARD_SOUL.md.j2", "I am {{ agent_name }}.");
    for name in ["BOARD_IDENTITY.md.j2", "BOARD_USER.md.j2", "BOARD_MEMORY.md.j2"] {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    let controller = Controller::start(&fleet.database.url, with_templates()).await;
    fleet.database.agent_ready(agent).await;
    assert_eq!(fleet.good.sim.file(&id, "SOUL.md").as_deref(), Some("I am Wren."));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_workspace_root_or_an_owner_says_so_until_it_has_one() {
    let fleet = Fleet::new().await;
    let database = &fleet.database;
    let rootless = Gateway::start().await;
    let (rootless_id, rootless_agent) = fleet.gateway(&rootless.server.url(), TOKEN).await;
    fleet.set_gateway(rootless_id, "workspace_root = '  '").await;
    let orphaned = Gateway::start().await;
    let nobodys = Uuid::new_v4();
    database
        .execute(&format!(
            "INSERT INTO organizations (id, name) VALUES ('{nobodys}', 'Nobody''s')"
        ))
        .await;
    let orphaned_id = database.gateway(nobodys, &orphaned.server.url(), TOKEN, "/ws").await;
    let board = database.board(nobodys, Some(orphaned_id), "board").await;
    let worker = database.agent(orphaned_id, Some(board), "worker", false).await;
    let main = database.agent(orphaned_id, None, "main", false).await;

    let controller = Controller::start(&database.url, Options::default()).await;
    for (gateway, agent, reason, says) in [
        (
            rootless_id,
            rootless_agent,
            "WorkspaceRootNotConfigured",
            "Set gateways.workspace_root",
        ),
        (orphaned_id, main, "OwnerNotFound", "organization_members"),
    ] {
        let condition = database.gateway_condition(gateway, ConfigSynced, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
        let condition = database.agent_condition(agent, Registered, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
    }
    database.agent_ready(worker).await;
    fleet.goes_on(&controller).await;
    assert_eq!(rootless.sim.writes_of("agents"), 0);
    assert!(!orphaned.sim.roster().contains(&format!("mc-gateway-{orphaned_id}")));

    let user = Uuid::new_v4();
    database
        .execute(&format!(
            "UPDATE gateways SET workspace_root = '/home/ws' WHERE id = '{rootless_id}';
             INSERT INTO users (id, clerk_user_id, email, is_super_admin) VALUES ('{user}', '{user}', 'a@b.c', false);
             INSERT INTO organization_members (id, organization_id, user_id, role, all_boards_read, all_boards_write)
             VALUES ('{}', '{nobodys}', '{user}', 'owner', true, true);",
            Uuid::new_v4()
        ))
        .await;
    for agent in [rootless_agent, main] {
        database.agent_ready(agent).await;
    }
    for gateway in [rootless_id, orphaned_id] {
        database.gateway_ready(gateway).await;
    }
    controller.stop().await;
}

/// What a test may ask of a gateway's journal.
trait Journal {
    /// How many writes concerned methods that begin like this.
    fn writes_of(&self, prefix: &str) -> usize;
}

impl Journal for SimGateway {
    fn writes_of(&self, prefix: &str) -> usize {
        self.journal()
            .iter()
            .filter(|entry| entry.write && entry.method.starts_with(prefix))
            .count()
    }
}
