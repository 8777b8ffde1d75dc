//! Events as they come.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixture::{Answer, Fleet, ask, get};
use crate::support::{Controller, Options, PATIENCE, eventually};

/// Somebody who follows.
struct Follower {
    head: Answer,
    reader: BufReader<TcpStream>,
}

/// A message: its id, its data, its comments.
#[derive(Debug, Default)]
struct Message {
    id: String,
    data: String,
    comments: String,
}

impl Message {
    fn event(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Follower {
    /// Begins to follow; again if the machine is too busy, but not if too many follow.
    async fn connect(address: SocketAddr, last: Option<&str>) -> Self {
        eventually("somebody may follow, or may not", PATIENCE, async || {
            let follower = Self::connect_once(address, last).await;
            let busy = follower.head.status == 503 && follower.head.header("retry-after") != Some("10");
            (!busy).then_some(follower)
        })
        .await
    }

    async fn connect_once(address: SocketAddr, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request =
            format!("GET /api/v1/events/stream HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = BufReader::new(stream);
        let mut headers = String::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, reader.read_line(&mut line))
                .await
                .expect("a head")
                .unwrap();
            if line.trim().is_empty() {
                break;
            }
            headers.push_str(&line);
        }
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        let head = Answer {
            status,
            headers,
            body: String::new(),
        };
        Self { head, reader }
    }

    /// The next line of the text; the lengths of HTTP's chunks are left out.
    async fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.reader.read_line(&mut line))
                .await
                .expect("a line")
                .unwrap_or(0);
            if read == 0 {
                return None;
            }
            let line = line.trim_end_matches('\n');
            match line.strip_suffix('\r') {
                Some(length) if length.is_empty() || length.bytes().all(|byte| byte.is_ascii_hexdigit()) => {}
                _ => return Some(line.to_owned()),
            }
        }
    }

    /// The next message that is not just a comment; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.any().await?;
            if !message.data.is_empty() {
                return Some(message);
            }
        }
    }

    async fn any(&mut self) -> Option<Message> {
        let mut message = Message::default();
        loop {
            let line = self.line().await?;
            match line.split_once(':') {
                Some(("id", id)) => id.trim().clone_into(&mut message.id),
                Some(("data", data)) => message.data.push_str(data.trim()),
                Some(("", comment)) => message.comments.push_str(comment),
                _ if line.is_empty() => return Some(message),
                _ => {}
            }
        }
    }
}

/// Records an event as the controller does.
async fn happens(fleet: &Fleet, message: &str) {
    sqlx::query(
        "INSERT INTO openclaw_controller.events AS e (object_kind, object_id, kind, reason, message, count, first_seen, last_seen)
         VALUES ('agent', $1, 'Normal', 'Tested', $2, 1, clock_timestamp(), clock_timestamp())
         ON CONFLICT (object_kind, object_id, kind, reason, md5(message)) DO UPDATE
            SET count = e.count + 1, last_seen = excluded.last_seen",
    )
    .bind(fleet.agent.0)
    .bind(message)
    .execute(&fleet.database.pool)
    .await
    .unwrap();
}

async fn message(follower: &mut Follower) -> (String, Value) {
    loop {
        let message = follower.next().await.expect("the stream goes on");
        let event = message.event();
        if event["reason"] == "Tested" {
            return (message.id, event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen_and_go_on_after_the_last_one_that_came() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let address = controller.address;
    happens(&fleet, "before").await;
    let mut follower = Follower::connect(address, None).await;
    assert_eq!(follower.head.status, 200, "{:?}", follower.head);
    assert_eq!(follower.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(follower.head.header("cache-control"), Some("no-store"));
    let greeting = follower.any().await.unwrap();
    assert!(!greeting.id.is_empty() && greeting.data.is_empty(), "{greeting:?}");
    happens(&fleet, "one").await;
    let (first, event) = message(&mut follower).await;
    assert_eq!(
        (event["message"].as_str(), event["count"].as_i64()),
        (Some("one"), Some(1)),
        "not what was before"
    );
    assert_eq!(event["object"]["id"], fleet.agent.to_string());
    happens(&fleet, "one").await;
    let (again, event) = message(&mut follower).await;
    assert_eq!(
        (event["message"].as_str(), event["count"].as_i64()),
        (Some("one"), Some(2))
    );
    assert_ne!(first, again);
    drop(follower);
    for text in ["two", "three", "four"] {
        happens(&fleet, text).await;
    }
    let mut follower = Follower::connect(address, Some(&again)).await;
    for text in ["two", "three", "four"] {
        assert_eq!(message(&mut follower).await.1["message"], text);
    }
    // Whoever was cut off before the first event goes on from the greeting.
    let mut other = Follower::connect(address, Some(&greeting.id)).await;
    assert_eq!(message(&mut other).await.1["message"], "one");
    for bad in ["x", "1", "1-x", "-5-1"] {
        assert_eq!(Follower::connect(address, Some(bad)).await.head.status, 400, "{bad}");
    }
    // An orderly stop ends the streams, and waits for nobody.
    controller.stop().await;
    while follower.any().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_transaction_ends_late_is_not_lost() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let mut follower = Follower::connect(controller.address, None).await;
    follower.any().await.unwrap();
    let mut late = fleet.database.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO openclaw_controller.events (object_kind, object_id, kind, reason, message, first_seen, last_seen)
         VALUES ('agent', $1, 'Normal', 'Tested', 'late', clock_timestamp(), clock_timestamp())",
    )
    .bind(fleet.agent.0)
    .execute(&mut *late)
    .await
    .unwrap();
    happens(&fleet, "early").await;
    assert_eq!(message(&mut follower).await.1["message"], "early");
    late.commit().await.unwrap();
    assert_eq!(message(&mut follower).await.1["message"], "late");
    happens(&fleet, "last").await;
    assert_eq!(message(&mut follower).await.1["message"], "last", "nothing comes twice");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_says_that_it_is_there() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let mut follower = Follower::connect(controller.address, None).await;
    let kept = async {
        loop {
            if follower.any().await.unwrap().comments.contains("keep-alive") {
                return;
            }
        }
    };
    timeout(PATIENCE, kept).await.expect("a sign of life");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_follow_at_once_and_they_hold_up_nobody() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let address = controller.address;
    let mut followers = Vec::new();
    let refused = loop {
        let follower = Follower::connect(address, None).await;
        if follower.head.status != 200 {
            break follower.head;
        }
        followers.push(follower);
        assert!(followers.len() <= 16, "more than sixteen follow");
    };
    assert_eq!((followers.len(), refused.status), (16, 503), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    // None of them reads; the page, the probes and the controller go on.
    assert_eq!(get(address, "/").await.status, 200);
    assert_eq!(get(address, "/readyz").await.status, 200);
    fleet
        .database
        .execute(&format!(
            "UPDATE agents SET soul_template = 'Another soul.' WHERE id = '{}'",
            fleet.agent
        ))
        .await;
    eventually("an edit arrives meanwhile", PATIENCE, async || {
        let text = fleet.sim.file(&format!("mc-{}", fleet.agent), "SOUL.md")?;
        text.contains("Another soul.").then_some(())
    })
    .await;
    // A place is free again once somebody has gone.
    followers.pop();
    eventually("a place is free", Duration::from_mins(2), async || {
        (Follower::connect(address, None).await.head.status == 200).then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_told_and_comes_back() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    crate::fixture::serves(controller.address).await;
    // What the page reads is out of reach as if the server were too busy to answer.
    let mut held = fleet.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE boards IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .unwrap();
    for path in ["/boards", "/api/v1/boards"] {
        let answer = ask(controller.address, &format!("GET {path}"), "").await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{path}: {answer:?}");
    }
    assert_eq!(get(controller.address, "/metrics").await.status, 200);
    held.rollback().await.unwrap();
    eventually("the page is back", PATIENCE, async || {
        (get(controller.address, "/boards").await.status == 200).then_some(())
    })
    .await;
    controller.stop().await;
}
