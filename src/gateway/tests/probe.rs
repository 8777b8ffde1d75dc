//! Gateways that cannot be provisioned.

use super::*;

/// A client of a gateway that offers these methods.
async fn offering(methods: Value) -> (Client, Peer) {
    let (socket, mut peer) = sockets(64 << 10).await;
    let (client, ()) = tokio::join!(shake(socket), async {
        let connect = peer.challenge().await;
        let hello = json!({
            "protocol": 4, "server": {"version": "2031.1.1"}, "features": {"methods": methods},
            "auth": {"scopes": ["operator.admin"]},
        });
        peer.answer(&connect, hello).await;
    });
    (client.unwrap(), peer)
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_a_call_that_agents_need_is_refused_by_name() {
    let (client, _peer) = offering(json!(["config.get", "config.patch", "agents.list", "chat.send"])).await;
    let error = probe(&client).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::UnsupportedGateway);
    let message = error.to_string();
    assert!(
        message.starts_with("OpenClaw 2031.1.1 has no agents.delete, agents.files.get,"),
        "{message}"
    );
    assert!(!message.contains("config.patch"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_keeps_its_agents_in_a_place_not_known_is_refused_by_name() {
    // One that lists no methods may have them all.
    let (client, mut peer) = offering(json!([])).await;
    let answers = async {
        loop {
            let request = peer.hear().await;
            let answer = match request["method"].as_str().unwrap() {
                "agents.list" => json!({"defaultId": "main", "agents": [{"id": "main"}]}),
                _ if request["params"]["path"] == "agents" => {
                    json!({"children": [{"key": "defaults"}, {"key": "crews"}]})
                }
                _ => json!({"children": []}),
            };
            peer.answer(&request, answer).await;
        }
    };
    let error = tokio::select! {
        result = probe(&client) => result.unwrap_err(),
        () = answers => unreachable!("it answers for ever"),
    };
    assert_eq!(error.class(), ErrorClass::UnsupportedGateway);
    assert!(
        error.message().contains("neither in agents.list nor in agents.entries"),
        "{error}"
    );
}
