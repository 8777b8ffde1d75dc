//! Agents check in: which tokens are taken, what that does to the row, and what anything else is answered.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says by a panic what went wrong"
)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use openclaw_controller::lab;
use openclaw_controller::model::AgentId;
use openclaw_controller::store::{CheckInStore, PgOptions, PgStore, Store};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::Value;
use support::{Controller, Database, Options, PATIENCE, eventually, page};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATH: &str = "/api/v1/agent/heartbeat";

/// An answer: status, headers as they came, body.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

/// Sends a request with these bytes as head (without the line that ends it) and body.
async fn send(address: SocketAddr, head: &[u8], body: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let end = format!("Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // The server may answer, and close, before it has read everything.
        let _ = stream.write_all(&[head, end.as_bytes(), body].concat()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(Duration::from_secs(30), exchange).await.expect("an answer");
    let (headers, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Answer {
        status: headers
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .unwrap_or_default(),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

async fn beat(address: SocketAddr, token: &str) -> Answer {
    beat_with(address, token, b"").await
}

async fn beat_with(address: SocketAddr, token: &str, body: &[u8]) -> Answer {
    let head = format!("POST {PATH} HTTP/1.1\r\nX-Agent-Token: {token}\r\n");
    send(address, head.as_bytes(), body).await
}

/// A database with one agent, a controller that serves it, and nothing else.
struct Fixture {
    database: Database,
    controller: Controller,
    agent: AgentId,
}

impl Fixture {
    async fn new(options: Options) -> Self {
        let database = Database::migrated().await;
        let organization = database.organization().await;
        let gateway = database.gateway(organization, "", "x", "/ws").await;
        let board = database.board(organization, Some(gateway), "board").await;
        let agent = database.agent(gateway, Some(board), "Wren", false).await;
        let controller = Controller::start(&database.url, options).await;
        eventually("the controller serves", PATIENCE, async || {
            (page(controller.address, "/readyz").await.0 == 200).then_some(())
        })
        .await;
        Self {
            database,
            controller,
            agent,
        }
    }

    fn address(&self) -> SocketAddr {
        self.controller.address
    }

    /// Gives the agent this hash, with the token's digest as the verified one.
    async fn make_current(&self, token: &str, hash: &str) {
        let (agent, digest) = (self.agent, token::fingerprint(token));
        self.database
            .execute(&format!(
                "UPDATE agents SET agent_token_hash = '{hash}' WHERE id = '{agent}';
                 INSERT INTO openclaw_controller.verified_tokens (agent_id, hash, token_sha256)
                 VALUES ('{agent}', '{hash}', '{digest}')
                 ON CONFLICT (agent_id) DO UPDATE SET hash = excluded.hash, token_sha256 = excluded.token_sha256"
            ))
            .await;
    }

    async fn row(&self, column: &str) -> Option<String> {
        let sql = format!("SELECT ({column})::text FROM agents WHERE id = '{}'", self.agent);
        self.database.text(&sql).await
    }

    async fn outcomes(&self, outcome: &str) -> f64 {
        let labels = format!("outcome=\"{outcome}\"");
        self.controller
            .metric("openclaw_controller_checkins_total", &labels)
            .await
    }
}

fn mint() -> String {
    token::mint().expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn current_new_and_retired_tokens_are_taken_and_bring_the_agent_online() {
    let fixture = Fixture::new(Options::default()).await;
    let (old, new) = (mint(), mint());
    fixture.make_current(&old, "hash-old").await;
    let agent = fixture.agent;
    fixture
        .database
        .execute(&format!(
            "UPDATE agents SET status = 'offline', wake_attempts = 3, checkin_deadline_at = now(), last_seen_at = NULL,
                    last_provision_error = 'it did not check in' WHERE id = '{agent}'"
        ))
        .await;
    for body in [b"" as &[u8], b"{\"name\": \"whoever\"}", b"not json"] {
        let answer = beat_with(fixture.address(), &old, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.headers.contains("cache-control: no-store"), "{answer:?}");
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(said["agent_id"], agent.to_string());
        assert_eq!(
            (said["name"].as_str(), said["status"].as_str()),
            (Some("Wren"), Some("online"))
        );
        let seen = "to_char(last_seen_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        assert_eq!(said["last_seen_at"].as_str(), fixture.row(seen).await.as_deref());
    }
    let recent = "abs(extract(epoch FROM last_seen_at - now() AT TIME ZONE 'UTC')) < 60";
    assert_eq!(fixture.row(recent).await.as_deref(), Some("true"));
    assert_eq!(fixture.row("status").await.as_deref(), Some("online"));
    assert_eq!(fixture.row("wake_attempts").await.as_deref(), Some("0"));
    assert_eq!(fixture.row("checkin_deadline_at").await, None);
    assert_eq!(fixture.row("last_provision_error").await, None);

    // Its file may hold the new one already.
    let digest = token::fingerprint(&new);
    fixture
        .database
        .execute(&format!(
            "INSERT INTO openclaw_controller.token_candidates (agent_id, hash, token_sha256, replaces, created_at)
             VALUES ('{agent}', 'hash-new', '{digest}', 'hash-old', now())"
        ))
        .await;
    assert_eq!(beat(fixture.address(), &new).await.status, 200);
    assert_eq!(beat(fixture.address(), &old).await.status, 200);

    // The new one is promoted, the old one retired.
    fixture.make_current(&new, "hash-new").await;
    let retired = token::fingerprint(&old);
    fixture
        .database
        .execute(&format!(
            "INSERT INTO openclaw_controller.retired_tokens VALUES ('{agent}', '{retired}', now() + interval '5 minutes')"
        ))
        .await;
    assert_eq!(beat(fixture.address(), &new).await.status, 200);
    assert_eq!(beat(fixture.address(), &old).await.status, 200);
    fixture
        .database
        .execute("UPDATE openclaw_controller.retired_tokens SET until = now() - interval '1 ms'")
        .await;
    assert_eq!(beat(fixture.address(), &old).await.status, 401);
    assert_eq!(beat(fixture.address(), &new).await.status, 200);

    // A hash of another program: our pair says nothing about it.
    fixture
        .database
        .execute(&format!(
            "UPDATE agents SET agent_token_hash = 'theirs' WHERE id = '{agent}'"
        ))
        .await;
    assert_eq!(beat(fixture.address(), &new).await.status, 401);
    assert!((fixture.outcomes("accepted").await - 8.0).abs() < 0.5);
    assert!((fixture.outcomes("rejected").await - 2.0).abs() < 0.5);
    let told = fixture.database.everything_told().await;
    assert!(!told.contains(&old) && !told.contains(&new));
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_being_deleted_is_known_and_keeps_its_status() {
    let fixture = Fixture::new(Options::default()).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    let agent = fixture.agent;
    fixture
        .database
        .execute(&format!(
            "UPDATE agents SET status = 'deleting', delete_requested_at = now(), wake_attempts = 2 WHERE id = '{agent}'"
        ))
        .await;
    let answer = beat(fixture.address(), &token).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"deleting\""), "{answer:?}");
    assert_eq!(fixture.row("status").await.as_deref(), Some("deleting"));
    assert_eq!(fixture.row("wake_attempts").await.as_deref(), Some("2"));
    assert!(fixture.row("last_seen_at").await.is_some());
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same_and_soon_that_it_is_too_often() {
    let fixture = Fixture::new(Options::default()).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    let mut other = token.clone().into_bytes();
    other[0] = if other[0] == b'A' { b'B' } else { b'A' };
    let head = |lines: &[&[u8]]| {
        let mut head = format!("POST {PATH} HTTP/1.1\r\n").into_bytes();
        for line in lines {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
        head
    };
    let name = b"X-Agent-Token: ";
    let line = |value: &[u8]| [name, value].concat();
    let cases: [(&str, Vec<u8>); 9] = [
        ("missing", head(&[])),
        ("empty", head(&[&line(b"")])),
        ("wrong", head(&[&line(&other)])),
        ("short", head(&[&line(b"secret")])),
        ("huge", head(&[&line(&vec![b'x'; 40_000])])),
        ("not ASCII", head(&[&line("ä".repeat(21).as_bytes())])),
        ("not UTF-8", head(&[&line(&[0xff; 43])])),
        ("repeated", head(&[&line(token.as_bytes()), &line(token.as_bytes())])),
        ("of a statement", head(&[&line(b"' OR token_sha256 <> '")])),
    ];
    let mut first: Option<String> = None;
    for (what, head) in &cases {
        let answer = send(fixture.address(), head, b"").await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(!answer.body.contains(&token), "{what}");
        let all = format!("{}\n{}", answer.headers, answer.body);
        let all: Vec<_> = all.lines().filter(|line| !line.starts_with("date:")).collect();
        let all = all.join("\n");
        assert_eq!(*first.get_or_insert_with(|| all.clone()), all, "{what}");
    }
    let answers = [
        send(fixture.address(), &cases[2].1, b"").await.status,
        send(fixture.address(), &cases[2].1, b"").await.status,
    ];
    // A bucket of ten, which fills again by one in six seconds.
    let mut limited = send(fixture.address(), &cases[2].1, b"").await;
    for _ in 0..20 {
        if limited.status == 429 {
            break;
        }
        limited = send(fixture.address(), &cases[2].1, b"").await;
    }
    assert_eq!(answers[0], 401);
    assert_eq!(limited.status, 429, "{limited:?}");
    assert!(limited.headers.contains("retry-after: "), "{limited:?}");
    assert_eq!(
        beat(fixture.address(), &token).await.status,
        200,
        "one agent that is wrong does not silence the others of its host"
    );
    assert!(fixture.outcomes("limited").await >= 1.0);

    // No header is read that is too large for the server as a whole, and no body that is too large for a check-in.
    let huge = send(fixture.address(), &head(&[&line(&vec![b'x'; 2_000_000])]), b"").await;
    assert!(matches!(huge.status, 0 | 429 | 431), "{huge:?}");
    let large = beat_with(fixture.address(), &token, &vec![b'x'; 65_537]).await;
    assert_eq!(large.status, 413, "{large:?}");
    assert_eq!(
        beat_with(fixture.address(), &token, &vec![b'x'; 65_536]).await.status,
        200
    );
    for method in ["GET", "PUT", "DELETE"] {
        let head = format!("{method} {PATH} HTTP/1.1\r\nX-Agent-Token: {token}\r\n");
        let answer = send(fixture.address(), head.as_bytes(), b"").await;
        assert_eq!(answer.status, 405, "{answer:?}");
        assert!(answer.headers.contains("allow: POST"), "{answer:?}");
    }
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_comes_too_often_is_told_when_to_come_again() {
    let fixture = Fixture::new(Options::default()).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    // As fast as they can, eight at a time: more than twenty a second.
    let limited = eventually("somebody is told to wait", PATIENCE, async || {
        let beats = (0..8).map(|_| beat(fixture.address(), &token));
        let answers = futures::future::join_all(beats).await;
        answers.into_iter().find(|answer| answer.status != 200)
    })
    .await;
    assert_eq!(limited.status, 429, "{limited:?}");
    assert!(limited.headers.contains("retry-after: 1"), "{limited:?}");
    eventually("it is served again", PATIENCE, async || {
        (beat(fixture.address(), &token).await.status == 200).then_some(())
    })
    .await;
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_another_program_holds_is_told_as_a_time_to_come_again() {
    let fixture = Fixture::new(Options::default()).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    let mut other = fixture.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM agents WHERE id = $1 FOR UPDATE")
        .bind(fixture.agent.0)
        .execute(&mut *other)
        .await
        .unwrap();
    let answer = beat(fixture.address(), &token).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains("retry-after: 5"), "{answer:?}");
    other.rollback().await.unwrap();
    assert_eq!(beat(fixture.address(), &token).await.status, 200);
    assert!((fixture.outcomes("error").await - 1.0).abs() < 0.5);
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_listener_for_agents_serves_check_ins_instead_and_nothing_else() {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, lab::free_port().unwrap()));
    let options = Options {
        agent_listen: Some(own),
        ..Options::default()
    };
    let fixture = Fixture::new(options).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    assert_eq!(beat(own, &token).await.status, 200);
    assert_eq!(beat(fixture.address(), &token).await.status, 404);
    for path in ["/metrics", "/readyz", "/healthz", "/"] {
        assert_eq!(page(own, path).await.0, 404, "{path}");
    }
    assert_eq!(page(fixture.address(), "/healthz").await.0, 200);
    fixture.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ins_that_wait_for_held_rows_keep_nobody_else_from_the_database() {
    let fixture = Fixture::new(Options::default()).await;
    let token = mint();
    fixture.make_current(&token, "hash").await;
    let store = PgStore::connect(&fixture.database.url.clone().into(), PgOptions::default())
        .await
        .unwrap();
    let mut other = fixture.database.pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM agents WHERE id = $1 FOR UPDATE")
        .bind(fixture.agent.0)
        .execute(&mut *other)
        .await
        .unwrap();
    let digest = token::fingerprint(&token);
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let (store, digest) = (store.clone(), digest.clone());
            tokio::spawn(async move { store.check_in(&digest).await })
        })
        .collect();
    let blocked = "SELECT (count(*) > 1)::text FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("check-ins wait for the row", PATIENCE, async || {
        (fixture.database.text(blocked).await.as_deref() == Some("true")).then_some(())
    })
    .await;
    assert_eq!(store.load_fleet().await.unwrap().len(), 1);
    assert!(
        !waiting.iter().all(tokio::task::JoinHandle::is_finished),
        "they still wait"
    );
    other.rollback().await.unwrap();
    for check_in in waiting {
        // Those that had no connection in time are told so, and come again.
        let outcome = check_in.await.unwrap();
        assert!(
            outcome.as_ref().is_ok_and(Option::is_some) || outcome.is_err_and(|error| error.is_transient()),
            "a check-in was lost"
        );
    }
    store.close().await;
    fixture.controller.stop().await;
}
