//! Requests on a connection, and its end.

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn answers_out_of_order_reach_their_requests() {
    let (client, mut peer) = connected().await;
    let calls: Vec<_> = ["config.get", "agents.list", "health"]
        .map(|method| spawn(&client, method, SECOND))
        .into();
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(peer.hear().await);
    }
    for request in heard.iter().rev() {
        peer.answer(request, request["method"].clone()).await;
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap());
    }
    assert_eq!(answers, ["config.get", "agents.list", "health"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_disturbs_nobody_and_a_write_without_answer_has_an_unknown_outcome() {
    let (client, mut peer) = connected().await;
    let started = Instant::now();
    let (read, write) = (
        spawn(&client, "config.get", SECOND),
        spawn(&client, "config.patch", 2 * SECOND),
    );
    let first = peer.hear().await;
    let second = peer.hear().await;
    let (read, write) = (read.await.unwrap().unwrap_err(), write.await.unwrap().unwrap_err());
    assert_eq!(started.elapsed(), 2 * SECOND);
    assert_eq!((read.class(), read.outcome_unknown()), (ErrorClass::Timeout, false));
    assert_eq!((write.class(), write.outcome_unknown()), (ErrorClass::Timeout, true));
    peer.answer(&first, json!("late")).await;
    peer.answer(&second, json!("late")).await;
    peer.answer(&json!({"id": "never asked"}), json!("?")).await;
    let next = spawn(&client, "config.get", SECOND);
    let request = peer.hear().await;
    peer.answer(&request, json!("in time")).await;
    assert_eq!(next.await.unwrap().unwrap(), "in time");
}

#[tokio::test(start_paused = true)]
async fn requests_whose_connection_dies_learn_it_at_once() {
    let (client, mut peer) = connected().await;
    let (read, write) = (
        spawn(&client, "config.get", 60 * SECOND),
        spawn(&client, "agents.files.set", 60 * SECOND),
    );
    peer.hear().await;
    peer.hear().await;
    let started = Instant::now();
    // The first half of a frame, and then nothing more.
    peer.0.get_mut().write_all(&[0x81, 100, b'{']).await.unwrap();
    drop(peer);
    let (read, write) = (read.await.unwrap().unwrap_err(), write.await.unwrap().unwrap_err());
    assert_eq!(
        (read.class(), read.outcome_unknown()),
        (ErrorClass::ConnectionClosed, false)
    );
    assert_eq!(
        (write.class(), write.outcome_unknown()),
        (ErrorClass::ConnectionClosed, true)
    );
    let after = client.request("config.patch", json!({}), SECOND).await.unwrap_err();
    assert_eq!(
        (after.class(), after.outcome_unknown()),
        (ErrorClass::ConnectionClosed, false)
    );
    assert!(started.elapsed() < SECOND && client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_connection_for_everybody() {
    for text in ["not json", r#"{"type":"res","ok":true}"#, "[1]"] {
        let (client, mut peer) = connected().await;
        let call = spawn(&client, "config.get", 60 * SECOND);
        peer.hear().await;
        peer.0.send(Message::text(text)).await.unwrap();
        assert_eq!(
            call.await.unwrap().unwrap_err().class(),
            ErrorClass::ProtocolError,
            "{text}"
        );
        assert_eq!(client.closed().await.class, ErrorClass::ProtocolError);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_30_mb_is_refused_from_its_header_alone() {
    let (client, mut peer) = connected().await;
    let call = spawn(&client, "config.get", 60 * SECOND);
    peer.hear().await;
    let mut header = vec![0x81, 127];
    header.extend_from_slice(&30_000_000_u64.to_be_bytes());
    peer.0.get_mut().write_all(&header).await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.class(), ErrorClass::FrameTooLarge);
    assert!(error.message().contains("30000000"), "{error}");
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn ticks_keep_a_connection_alive_and_silence_for_two_of_them_ends_it() {
    let (client, mut peer) = connected().await;
    for _ in 0..10 {
        tokio::time::sleep(TICK + TICK / 2).await;
        peer.say(json!({"type": "event", "event": "tick", "payload": {"ts": 1}}))
            .await;
    }
    tokio::task::yield_now().await;
    assert!(!client.is_closed());
    let (call, last) = (spawn(&client, "config.patch", 600 * SECOND), Instant::now());
    peer.hear().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.class(), error.outcome_unknown()),
        (ErrorClass::ConnectionClosed, true)
    );
    assert!(error.message().contains("silent for 60 s"), "{error}");
    assert_eq!(last.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn an_announced_restart_is_told_to_whoever_waits() {
    let (client, mut peer) = connected().await;
    let call = spawn(&client, "config.patch", 60 * SECOND);
    peer.hear().await;
    let payload = json!({"reason": "config change", "restartExpectedMs": 1500});
    peer.say(json!({"type": "event", "event": "shutdown", "payload": payload}))
        .await;
    peer.close(CloseCode::Restart, "service restart").await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.class(), error.outcome_unknown()), (ErrorClass::Restarting, true));
    let reason = client.closed().await;
    assert_eq!(
        (reason.restart, reason.restart_expected),
        (true, Some(Duration::from_millis(1500)))
    );
    assert!(reason.message.contains("config change"), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn close_codes_tell_a_restart_from_an_ordinary_end() {
    for (code, restart, class) in [
        (CloseCode::Restart, true, ErrorClass::Restarting),
        (CloseCode::Again, false, ErrorClass::Unavailable),
        (CloseCode::Normal, false, ErrorClass::ConnectionClosed),
        (CloseCode::Policy, false, ErrorClass::ConnectionClosed),
    ] {
        let (client, mut peer) = connected().await;
        peer.close(code, "bye").await;
        let reason = client.closed().await;
        assert_eq!((reason.restart, reason.class), (restart, class), "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_requests_wait_and_a_slow_one_blocks_no_other() {
    let (client, mut peer) = connected().await;
    let slow = spawn(&client, "config.patch", 60 * SECOND);
    let patch = peer.hear().await;
    let calls: Vec<_> = (0..20).map(|_| spawn(&client, "config.get", 60 * SECOND)).collect();
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..7 {
        waiting.push_back(peer.hear().await);
    }
    assert!(
        tokio::time::timeout(SECOND, peer.hear()).await.is_err(),
        "a ninth request was sent"
    );
    for _ in 0..20 {
        let request = waiting.pop_front().unwrap();
        peer.answer(&request, json!(1)).await;
        if let Ok(request) = tokio::time::timeout(SECOND, peer.hear()).await {
            waiting.push_back(request);
        }
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 1);
    }
    peer.answer(&patch, json!({"ok": true})).await;
    assert_eq!(slow.await.unwrap().unwrap()["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_place_fails_in_time_and_was_certainly_not_sent() {
    let (client, mut peer) = connected().await;
    let slow: Vec<_> = (0..8).map(|_| spawn(&client, "config.patch", 30 * SECOND)).collect();
    for _ in 0..8 {
        peer.hear().await;
    }
    let error = client.request("config.patch", json!({}), SECOND).await.unwrap_err();
    assert_eq!((error.class(), error.outcome_unknown()), (ErrorClass::Timeout, false));
    // A place that is free again after a time-out is given to others.
    for call in slow {
        assert!(call.await.unwrap().unwrap_err().outcome_unknown());
    }
    let call = spawn(&client, "config.get", SECOND);
    let request = peer.hear().await;
    peer.answer(&request, json!(1)).await;
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_request_that_was_not_sent_yet_is_never_sent() {
    let (socket, mut peer) = sockets(4 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), peer.welcome());
    let client = client.unwrap();
    // More than the pipe holds, so that the writer stands still until the peer reads.
    let big = tokio::spawn({
        let client = client.clone();
        async move { client.request("big", json!("x".repeat(100_000)), 60 * SECOND).await }
    });
    tokio::time::sleep(SECOND).await;
    let abandoned = client.request("abandoned", json!({}), SECOND).await.unwrap_err();
    assert_eq!(
        (abandoned.class(), abandoned.outcome_unknown()),
        (ErrorClass::Timeout, false)
    );
    let next = spawn(&client, "next", 60 * SECOND);
    for expected in ["big", "next"] {
        let request = peer.hear().await;
        assert_eq!(request["method"], expected);
        peer.answer(&request, json!(1)).await;
    }
    assert!(big.await.unwrap().is_ok() && next.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_sides_that_write_at_once_do_not_wait_for_each_other_for_ever() {
    let (socket, mut peer) = sockets(4 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), peer.welcome());
    let client = client.unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.request("big", json!("x".repeat(500_000)), 10 * SECOND).await }
    });
    peer.say(json!({"type": "event", "event": "health", "payload": "y".repeat(500_000)}))
        .await;
    let request = peer.hear().await;
    peer.answer(&request, json!(1)).await;
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_gateways_limit_is_refused_here_and_the_connection_lives() {
    let (client, mut peer) = connected().await;
    let error = client
        .request("agents.files.set", json!("x".repeat(1_000_001)), SECOND)
        .await
        .unwrap_err();
    assert_eq!((error.class(), error.outcome_unknown()), (ErrorClass::Invalid, false));
    let call = spawn(&client, "config.get", SECOND);
    let request = peer.hear().await;
    peer.answer(&request, json!(1)).await;
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_connection_ends_with_its_last_handle_or_on_close() {
    let (client, mut peer) = connected().await;
    let clone = client.clone();
    drop(client);
    assert!(!clone.is_closed());
    drop(clone);
    assert!(matches!(peer.0.next().await, Some(Ok(Message::Close(_)))));

    let (client, _peer) = connected().await;
    let call = spawn(&client, "config.get", 60 * SECOND);
    tokio::task::yield_now().await;
    client.close();
    assert_eq!(call.await.unwrap().unwrap_err().class(), ErrorClass::ConnectionClosed);
    assert!(!client.closed().await.restart);
}

#[tokio::test(start_paused = true)]
async fn errors_of_typed_methods_name_the_object() {
    let (client, mut peer) = connected().await;
    let agent = crate::model::GatewayAgentId::observed("mc-1");
    let (result, ()) = tokio::join!(client.files_get(&agent, crate::model::FileName::Tools), async {
        let request = peer.hear().await;
        assert_eq!(request["params"], json!({"agentId": "mc-1", "name": "TOOLS.md"}));
        let error = json!({"code": "INVALID_REQUEST", "message": "unsupported file \"TOOLS.md\""});
        peer.refuse(&request, error).await;
    });
    let error = result.err().unwrap();
    assert_eq!(error.class(), ErrorClass::UnsupportedFile);
    assert!(
        error
            .to_string()
            .starts_with("agents.files.get (TOOLS.md of agent mc-1): unsupported file"),
        "{error}"
    );
}
