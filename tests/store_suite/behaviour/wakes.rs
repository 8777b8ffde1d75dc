//! Wakes and check-ins.

use openclaw_controller::model::{Wake, WakeRecord, WakeState};

use super::*;

fn wake(attempt: i32) -> Wake {
    Wake {
        attempt,
        reset: attempt > 1,
        first: true,
        digest: "digest".to_owned(),
        asked: Some(ago(100)),
    }
}

/// The state after one more wake was begun.
async fn begin(store: &impl Store, fence: &Fence, attempt: i32, sent: i64) -> WakeState {
    let read = store.wake_state(WORKER).await.unwrap().unwrap();
    let begun = read.record.begun(&wake(attempt), ago(sent), ago(sent - 30));
    assert!(store.begin_wake(fence, WORKER, &read, &begun).await.unwrap());
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(state.record, begun);
    state
}

pub(super) async fn a_wake_is_recorded_once_for_what_was_read(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let read = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(read, WakeState::default());
    assert_eq!(store.wake_state(AgentId(id(99))).await.unwrap(), None, "no row");

    let begun = read.record.begun(&wake(1), ago(50), ago(20));
    assert!(store.begin_wake(&fence, WORKER, &read, &begun).await.unwrap());
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(state.record, begun);
    assert_eq!(state.last_wake_sent_at, Some(ago(50)));
    assert_eq!(
        world.wake_columns(WORKER).await,
        (Some(ago(50)), Some(ago(20)), 1),
        "the row shows it"
    );
    let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
    assert_eq!(snapshot.agent_records[&WORKER].wake, begun);

    let mark = world.mark().await;
    let again = state.record.begun(&wake(2), ago(10), ago(0));
    assert!(
        !store.begin_wake(&fence, WORKER, &read, &again).await.unwrap(),
        "neither counter nor row are those that were read"
    );
    let other_counter = WakeState {
        record: WakeRecord {
            counter: 7,
            ..state.record.clone()
        },
        ..state.clone()
    };
    assert!(!store.begin_wake(&fence, WORKER, &other_counter, &again).await.unwrap());
    assert!(!store.begin_wake(&fence, AgentId(id(99)), &state, &again).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");

    // Another program wakes the agent in between.
    world.set_wake_sent(WORKER, ago(5)).await;
    assert!(!store.begin_wake(&fence, WORKER, &state, &again).await.unwrap());
    let after = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(after.foreign_wake(), Some(ago(5)));
    assert_eq!(after.record, state.record);
}

pub(super) async fn an_agent_that_is_to_go_is_not_woken(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let read = store.wake_state(WORKER).await.unwrap().unwrap();
    let begun = read.record.begun(&wake(1), ago(50), ago(20));
    let mut row = world.agent_row(WORKER).await;
    row.delete_requested_at = Some(at(5));
    world.put_agent(&row).await;
    let mark = world.mark().await;
    assert!(!store.begin_wake(&fence, WORKER, &read, &begun).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");
    row.delete_requested_at = None;
    world.put_agent(&row).await;
    assert!(store.begin_wake(&fence, WORKER, &read, &begun).await.unwrap());
}

pub(super) async fn the_end_of_a_wake_is_shown_in_the_row_if_the_wake_is_ours(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    for (attempt, sent) in [(1, 200), (2, 150), (3, 100)] {
        begin(store, &fence, attempt, sent).await;
    }
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!((state.record.counter, state.record.attempts), (3, 3));

    let given_up = state.record.given_up();
    store.end_wake(&fence, WORKER, &given_up, "offline").await.unwrap();
    assert_eq!(store.wake_state(WORKER).await.unwrap().unwrap().record, given_up);
    assert_eq!(world.wake_columns(WORKER).await, (Some(ago(100)), None, 3));
    assert_eq!(world.agent_row(WORKER).await.status, "offline");
    let mark = world.mark().await;
    store.end_wake(&fence, WORKER, &given_up, "offline").await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    let checked_in = given_up.checked_in();
    store.end_wake(&fence, WORKER, &checked_in, "online").await.unwrap();
    assert_eq!(world.wake_columns(WORKER).await, (Some(ago(100)), None, 0));
    assert_eq!(world.agent_row(WORKER).await.status, "online");

    // The row's last wake is another program's: it follows that one.
    begin(store, &fence, 1, 50).await;
    world.set_wake_sent(WORKER, ago(40)).await;
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    store
        .end_wake(&fence, WORKER, &state.record.given_up(), "offline")
        .await
        .unwrap();
    assert!(store.wake_state(WORKER).await.unwrap().unwrap().record.gave_up);
    assert_eq!(world.wake_columns(WORKER).await, (Some(ago(40)), Some(ago(20)), 1));
    assert_eq!(world.agent_row(WORKER).await.status, "online");
}

pub(super) async fn a_baseline_is_recorded_without_a_word_in_the_row(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let before = (world.agent_row(WORKER).await, world.wake_columns(WORKER).await);
    let baseline = WakeRecord::default().settled("digest", None, Some(ago(9)));
    store.set_wake_baseline(&fence, WORKER, &baseline).await.unwrap();
    assert_eq!(store.wake_state(WORKER).await.unwrap().unwrap().record, baseline);
    let after = (world.agent_row(WORKER).await, world.wake_columns(WORKER).await);
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    let mark = world.mark().await;
    store.set_wake_baseline(&fence, WORKER, &baseline).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_forgotten_placement_keeps_the_wakes_counter_only(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    begin(store, &fence, 1, 100).await;
    begin(store, &fence, 2, 50).await;
    store.forget_placement(&fence, &[WORKER]).await.unwrap();
    let record = store.wake_state(WORKER).await.unwrap().unwrap().record;
    assert_eq!((record.counter, record.attempts), (2, 0));
    assert_eq!(
        (record.woken_for.clone(), record.deadline, record.gave_up),
        (None, None, false)
    );
    assert!(!record.awaits_check_in());
    let mark = world.mark().await;
    store.forget_placement(&fence, &[WORKER]).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_hint_comes_for_a_check_in_that_is_awaited_only(world: &impl World) {
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    world.put_agent(&agent(41, None, 11)).await;
    let (fence, store) = (fence(world).await, world.store());
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    // An edit on the other gateway, whose hint comes next if nothing was heard before.
    let nothing_until = async |hints: &mut _, name: &str| {
        let mut row = world.agent_row(AgentId(id(41))).await;
        row.name = name.to_owned();
        world.put_agent(&row).await;
        assert_eq!(next(hints).await, Hint::Gateway(GatewayId(id(11))), "{name}");
    };
    world.heartbeat(WORKER, at(60)).await;
    nothing_until(&mut hints, "nobody was woken").await;

    begin(store, &fence, 1, 100).await;
    nothing_until(&mut hints, "a wake of ours").await;
    world.heartbeat(WORKER, at(70)).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY), "it was awaited");
    world.heartbeat(WORKER, at(80)).await;
    nothing_until(&mut hints, "it had checked in").await;

    let given_up = begin(store, &fence, 3, 50).await.record.given_up();
    store.end_wake(&fence, WORKER, &given_up, "offline").await.unwrap();
    nothing_until(&mut hints, "given up").await;
    world.heartbeat(WORKER, at(90)).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY), "it was offline");
    world.heartbeat(WORKER, at(100)).await;
    nothing_until(&mut hints, "it is online again").await;
}
