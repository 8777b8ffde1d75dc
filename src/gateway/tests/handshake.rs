//! Connecting.

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_handshake_signs_the_challenge_and_learns_the_policy() {
    let (socket, mut peer) = sockets(64 << 10).await;
    let (client, connect) = tokio::join!(shake(socket), async {
        let connect = peer.challenge().await;
        peer.say(json!({"type": "event", "event": "health", "payload": {}}))
            .await;
        peer.answer(&connect, json!({"protocol": 3, "auth": {"scopes": ["operator.admin"]}}))
            .await;
        connect
    });
    let params = &connect["params"];
    assert_eq!(params["device"]["nonce"], "n");
    assert_eq!(params["auth"]["token"], TOKEN);
    let client = client.unwrap();
    assert_eq!((client.hello().protocol, client.hello().tick_interval), (3, TICK));
    assert!(!format!("{client:?}").contains(TOKEN));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_says_why_and_never_repeats_the_token() {
    for (error, class, wait) in [
        (
            json!({"code": "UNAVAILABLE", "message": "gateway starting; retry shortly", "retryable": true,
                   "retryAfterMs": 500, "details": {"reason": "startup-sidecars"}}),
            ErrorClass::Unavailable,
            Some(Duration::from_millis(500)),
        ),
        (
            json!({"code": "INVALID_REQUEST", "message": format!("unauthorized: {TOKEN} is wrong"),
                   "details": {"code": "AUTH_TOKEN_MISMATCH"}}),
            ErrorClass::Unauthorized,
            None,
        ),
        (
            json!({"code": "INVALID_REQUEST", "message": "protocol mismatch", "details": {"expectedProtocol": 9}}),
            ErrorClass::IncompatibleProtocol,
            None,
        ),
    ] {
        let (socket, mut peer) = sockets(64 << 10).await;
        let (client, ()) = tokio::join!(shake(socket), async {
            let connect = peer.challenge().await;
            peer.refuse(&connect, error).await;
        });
        let error = client.unwrap_err();
        assert_eq!((error.class(), error.retry_after()), (class, wait));
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_answers_connect_costs_the_connect_deadline() {
    let (socket, mut peer) = sockets(64 << 10).await;
    let started = Instant::now();
    let (client, _) = tokio::join!(shake(socket), peer.challenge());
    assert_eq!(client.unwrap_err().class(), ErrorClass::Timeout);
    assert_eq!(started.elapsed().as_secs(), CONNECT_DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_with_nonsense_or_a_closed_door_fails_at_once() {
    let (socket, mut peer) = sockets(64 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), async {
        peer.0.send(Message::text("<html>")).await.unwrap();
    });
    assert_eq!(client.unwrap_err().class(), ErrorClass::ProtocolError);

    let (socket, mut peer) = sockets(64 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), peer.close(CloseCode::Again, "gateway starting"));
    let error = client.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(error.message().contains("1013 gateway starting"), "{error}");

    let (socket, peer) = sockets(64 << 10).await;
    drop(peer);
    let error = shake(socket).await.unwrap_err();
    assert_eq!(
        (error.class(), error.is_transient()),
        (ErrorClass::ConnectionClosed, true)
    );
}
