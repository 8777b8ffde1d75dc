//! The listener's connection: lost, found again, and deaf.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openclaw_controller::lab;
use openclaw_controller::model::GatewayId;
use openclaw_controller::store::{Hint, HintSource, ListenerState, Store};

use super::postgres::Postgres;
use super::proxy::Proxy;
use super::world::{World, gateway, id, next};

async fn until(state: &mut tokio::sync::watch::Receiver<ListenerState>, wanted: fn(&ListenerState) -> bool) {
    tokio::time::timeout(Duration::from_secs(20), state.wait_for(wanted))
        .await
        .expect("the state does not come")
        .unwrap();
}

#[tokio::test]
async fn a_restart_of_postgres_is_survived_and_everything_is_looked_at() {
    let server = lab::Postgres::start().await.unwrap();
    let world = Postgres::at(server.fresh_database().await.unwrap()).await;
    world.store.migrate().await.unwrap();
    world.put_gateway(&gateway(10)).await;

    let mut hints = world.store.listen();
    let mut state = hints.state();
    assert_eq!(*state.borrow(), ListenerState::Starting);
    let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
    let listening = tokio::spawn(async move {
        loop {
            if send.send(hints.next().await).is_err() {
                return;
            }
        }
    });
    until(&mut state, |state| *state == ListenerState::Up).await;
    assert_eq!(received.recv().await, Some(Ok(Hint::Everything)));

    server.stop().await.unwrap();
    until(&mut state, |state| matches!(state, ListenerState::Down(_))).await;
    // What happens now is seen by nobody; the loss itself is told, then failures, none of them with the password.
    assert_eq!(received.recv().await, Some(Ok(Hint::Everything)));
    let failure = received.recv().await.unwrap().unwrap_err();
    assert!(failure.is_transient(), "{failure:?}");
    assert!(!format!("{failure} {failure:?}").contains(server.password()));
    let refused = world.store.list_gateways().await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");

    server.start_again().await.unwrap();
    until(&mut state, |state| *state == ListenerState::Up).await;
    let found = async {
        loop {
            if let Some(Ok(hint)) = received.recv().await {
                return hint;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
    assert_eq!(found, Hint::Everything, "looked at again after the recovery");
    assert_eq!(world.store.list_gateways().await.unwrap(), [GatewayId(id(10))]);
    sqlx::query("UPDATE gateways SET name = 'news'")
        .execute(&world.admin)
        .await
        .unwrap();
    let news = tokio::time::timeout(Duration::from_secs(20), received.recv())
        .await
        .unwrap();
    assert_eq!(news, Some(Ok(Hint::Gateway(GatewayId(id(10))))));
    listening.abort();
}

#[tokio::test]
async fn a_session_that_is_terminated_is_replaced() {
    let world = Postgres::new().await;
    let mut hints = world.store.listen();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    world
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        .await;
    assert_eq!(next(&mut hints).await, Hint::Everything, "lost");
    assert_eq!(next(&mut hints).await, Hint::Everything, "found");
    world.put_gateway(&gateway(10)).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GatewayId(id(10))));
}

#[tokio::test]
async fn a_pooler_that_swallows_notifications_is_noticed() {
    let world = Postgres::new().await;
    let proxy = Proxy::default();
    proxy.deaf.store(true, Ordering::SeqCst);
    let store = super::postgres::connect(&proxy.start(&world).await).await;
    let mut hints = store.listen();
    let mut state = hints.state();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let waiting = tokio::spawn(async move { hints.next().await });
    until(&mut state, |state| *state == ListenerState::Deaf).await;
    waiting.abort();
}
