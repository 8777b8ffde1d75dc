//! Agents that are removed, and agents that are left where no row explains them.

use openclaw_controller::model::{Leftover, Wake, WakeState};
use openclaw_controller::store::CheckInStore;

use super::*;

const MAIN: AgentId = AgentId(uuid::Uuid::from_u128(31));

/// What is left on the gateway: id, agent and reason.
async fn left(world: &impl World) -> Vec<(String, AgentId, LeftoverReason)> {
    let traces = world.store().traces(GATEWAY).await.unwrap();
    let of = |leftover: Leftover| (leftover.id.to_string(), leftover.agent, leftover.reason);
    traces.leftovers.into_iter().map(of).collect()
}

async fn request_removal(world: &impl World, agent: AgentId) {
    let mut row = world.agent_row(agent).await;
    row.delete_requested_at = Some(at(5));
    world.put_agent(&row).await;
}

pub(super) async fn what_we_put_somewhere_is_left_there_and_what_we_found_is_not(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    store
        .record_adopted(&fence, &[(MAIN, GATEWAY, name("mc-y"))], ago(1))
        .await
        .unwrap();
    let moved = [(WORKER, LeftoverReason::Moved), (MAIN, LeftoverReason::Moved)];
    store.leave_placement(&fence, &moved).await.unwrap();
    let records = store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    for agent in [WORKER, MAIN] {
        let record = &records[&agent];
        assert!(record.placement.is_none() && !record.created_by_us() && record.first_provisioned_at.is_none());
    }
    assert_eq!(left(world).await, [("mc-x".to_owned(), WORKER, LeftoverReason::Moved)]);
    let mark = world.mark().await;
    store.leave_placement(&fence, &moved).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    // It is known by gateway, whatever becomes of rows, and does not change with what is left there a second time.
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    store
        .leave_placement(&fence, &[(WORKER, LeftoverReason::IdChanged)])
        .await
        .unwrap();
    let all = store.leftovers().await.unwrap();
    assert_eq!(
        (all.len(), all[0].gateway, all[0].reason),
        (1, GATEWAY, LeftoverReason::Moved)
    );
    assert!(store.traces(GatewayId(id(77))).await.unwrap().leftovers.is_empty());
    store
        .forget_traces(&fence, GATEWAY, &[name("mc-x")], &[])
        .await
        .unwrap();
    assert_eq!(left(world).await, []);
}

pub(super) async fn a_row_that_is_gone_leaves_what_we_made_for_it(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    store
        .record_adopted(&fence, &[(MAIN, GATEWAY, name("mc-y"))], ago(1))
        .await
        .unwrap();
    let objects = [ObjectRef::Agent(WORKER), ObjectRef::Agent(MAIN)];
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(left(world).await, [], "both have rows");
    world.delete_agent(WORKER).await;
    world.delete_agent(MAIN).await;
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(
        left(world).await,
        [("mc-x".to_owned(), WORKER, LeftoverReason::RowDeleted)]
    );
    let records = store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    assert!(records.is_empty(), "{records:?}");
    let mark = world.mark().await;
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_removal_is_begun_only_while_it_is_wanted(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    store
        .begin_registration(&fence, GATEWAY, &[(MAIN, name("mc-left"))])
        .await
        .unwrap();
    store
        .leave_placement(&fence, &[(MAIN, LeftoverReason::Moved)])
        .await
        .unwrap();
    let asked = [
        (name("mc-x"), Some(WORKER)),
        (name("mc-y"), Some(AgentId(id(99)))),
        (name("mc-left"), None),
        (name("mc-nobody"), None),
    ];
    let begun = store.begin_removal(&fence, GATEWAY, &asked).await.unwrap();
    assert_eq!(begun, [name("mc-left")], "no row asks for the others");
    request_removal(world, WORKER).await;
    let mut begun = store.begin_removal(&fence, GATEWAY, &asked).await.unwrap();
    begun.sort();
    assert_eq!(begun, [name("mc-left"), name("mc-x")]);
    let traces = store.traces(GATEWAY).await.unwrap();
    assert!(traces.is_begun(&name("mc-x")) && traces.is_begun(&name("mc-left")));
    let mark = world.mark().await;
    store.begin_removal(&fence, GATEWAY, &asked).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    store.finish_removal(&fence, GATEWAY, &[name("mc-x")]).await.unwrap();
    let traces = store.traces(GATEWAY).await.unwrap();
    assert_eq!(traces.removed.get(&name("mc-x")), Some(&true), "it is remembered");
    let mark = world.mark().await;
    store.finish_removal(&fence, GATEWAY, &[name("mc-x")]).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    // Once more: it may be there again.
    store.begin_removal(&fence, GATEWAY, &asked[..1]).await.unwrap();
    assert!(store.traces(GATEWAY).await.unwrap().is_begun(&name("mc-x")));
    store
        .forget_traces(&fence, GATEWAY, &[], &[name("mc-x")])
        .await
        .unwrap();
    assert!(!store.traces(GATEWAY).await.unwrap().removed.contains_key(&name("mc-x")));
}

pub(super) async fn a_deleted_agent_has_no_place_no_token_and_no_deadline(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    let (one, two) = (candidate("one", 2), candidate("two", 1));
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    store.add_candidate(&fence, WORKER, &two).await.unwrap();
    assert!(store.promote(&fence, WORKER, Some("one"), &two).await.unwrap());
    let waking = Candidate {
        replaces: Some("two".to_owned()),
        ..candidate("three", 0)
    };
    store.add_candidate(&fence, WORKER, &waking).await.unwrap();
    let wake = Wake {
        attempt: 1,
        reset: false,
        first: true,
        digest: "d".to_owned(),
        asked: None,
    };
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    let begun = state.record.begun(&wake, ago(9), ago(1));
    assert!(store.begin_wake(&fence, WORKER, &state, &begun).await.unwrap());

    assert!(
        !store.complete_removal(&fence, WORKER, GATEWAY).await.unwrap(),
        "nobody asks for it"
    );
    for digest in ["sha-of-one", "sha-of-two", "sha-of-three"] {
        assert!(store.check_in(digest).await.unwrap().is_some(), "{digest}");
    }
    let state = store.wake_state(WORKER).await.unwrap().unwrap();
    let begun = state.record.begun(&wake, ago(8), ago(0));
    assert!(store.begin_wake(&fence, WORKER, &state, &begun).await.unwrap());
    request_removal(world, WORKER).await;
    assert!(
        store.check_in("sha-of-two").await.unwrap().is_some(),
        "it is still there"
    );
    assert!(store.complete_removal(&fence, WORKER, GATEWAY).await.unwrap());

    let row = world.agent_row(WORKER).await;
    assert_eq!((row.status.as_str(), row.token_hash), ("deleting", None));
    assert_eq!(world.wake_columns(WORKER).await.1, None, "no check-in is awaited");
    for digest in ["sha-of-one", "sha-of-two", "sha-of-three"] {
        assert!(store.check_in(digest).await.unwrap().is_none(), "{digest}");
    }
    let tokens = store.token_state(WORKER).await.unwrap();
    assert!(tokens.verified.is_none() && tokens.candidates.is_empty());
    let record = &store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records[&WORKER];
    assert!(record.placement.is_none() && !record.created_by_us());
    assert_eq!(
        (record.wake.deadline, record.wake.counter),
        (None, 2),
        "the counter never goes back"
    );
    assert_eq!(left(world).await, []);
    let mark = world.mark().await;
    assert!(store.complete_removal(&fence, WORKER, GATEWAY).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");

    // Another program writes a token for it: it is nobody's.
    let mut row = world.agent_row(WORKER).await;
    row.token_hash = Some("four".to_owned());
    world.put_agent(&row).await;
    assert!(store.complete_removal(&fence, WORKER, GATEWAY).await.unwrap());
    assert_eq!(world.agent_row(WORKER).await.token_hash, None);
    let WakeState { record, .. } = store.wake_state(WORKER).await.unwrap().unwrap();
    assert_eq!(record.woken_for, None);
}

pub(super) async fn an_agent_that_is_elsewhere_too_is_not_gone_from_there(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let elsewhere = GatewayId(id(77));
    store
        .begin_registration(&fence, elsewhere, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    request_removal(world, WORKER).await;
    assert!(store.complete_removal(&fence, WORKER, GATEWAY).await.unwrap());
    let record = &store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records[&WORKER];
    assert_eq!(record.placement, Some((elsewhere, name("mc-x"))));
    assert!(record.created_by_us());
}
