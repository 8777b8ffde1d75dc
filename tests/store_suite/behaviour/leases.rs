//! Who may write.

use openclaw_controller::model::NewLead;

use super::*;

pub(super) async fn nobody_writes_without_the_lease(world: &impl World) {
    small_fleet(world).await;
    let old = fence(world).await;
    let store = world.store();
    store.release(&old).await.unwrap();
    let term = store.acquire("all", "b", TTL).await.unwrap().unwrap();
    assert_eq!(term, old.term + 1);
    let wrong_holder = Fence { term, ..old.clone() };
    let mark = world.mark().await;
    for fence in [&old, &wrong_holder] {
        let status = AgentStatusWrite {
            status: Some("online".to_owned()),
            ..AgentStatusWrite::default()
        };
        let event = Event {
            object: ObjectRef::Agent(WORKER),
            kind: EventKind::Normal,
            reason: "R".to_owned(),
            message: String::new(),
        };
        let place = [(WORKER, GATEWAY, name("mc-x"))];
        let digest = [(ObjectRef::Agent(WORKER), GATEWAY, "1".to_owned())];
        let one = candidate("one", 0);
        let lead = NewLead::of(&board(20, Some(10)), GATEWAY, None).unwrap();
        let outcomes = [
            store.record_generations(fence, &digest).await.map(|_| ()),
            store
                .begin_registration(fence, GATEWAY, &[(WORKER, name("mc-x"))])
                .await,
            store.record_adopted(fence, &place, ago(0)).await,
            store.record_first_provisioned(fence, &place, ago(0)).await,
            store.forget_placement(fence, &[WORKER]).await,
            store.forget(fence, &[ObjectRef::Agent(WORKER)]).await,
            store
                .write_gateway_status(fence, GATEWAY, &GatewayStatusWrite::default())
                .await,
            store.write_agent_status(fence, WORKER, &status).await,
            store.add_candidate(fence, WORKER, &one).await,
            store.promote(fence, WORKER, None, &one).await.map(|_| ()),
            store.remember_verified(fence, WORKER, "one", "sha").await,
            store.note_mismatch(fence, WORKER, None).await.map(|_| ()),
            store.drop_candidates(fence, WORKER).await,
            store.record_events(fence, &[event]).await,
            store.leave_placement(fence, &[(WORKER, LeftoverReason::Moved)]).await,
            store
                .begin_removal(fence, GATEWAY, &[(name("mc-x"), Some(WORKER))])
                .await
                .map(|_| ()),
            store.finish_removal(fence, GATEWAY, &[name("mc-x")]).await,
            store.complete_removal(fence, WORKER, GATEWAY).await.map(|_| ()),
            store.forget_traces(fence, GATEWAY, &[name("mc-x")], &[]).await,
            store.create_lead(fence, &lead).await.map(|_| ()),
        ];
        for (i, outcome) in outcomes.into_iter().enumerate() {
            let fenced = StoreError::Fenced {
                scope: "all".to_owned(),
                term: fence.term,
            };
            assert_eq!(outcome, Err(fenced), "write number {i}");
        }
    }
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_lease_changes_hands_with_a_growing_term(world: &impl World) {
    let store = world.store();
    assert_eq!(store.current("all").await.unwrap(), None);
    let first = fence(world).await;
    assert_eq!(first.term, 1);
    assert_eq!(store.acquire("all", "b", TTL).await.unwrap(), None, "held");
    assert_eq!(
        store.acquire("other", "b", TTL).await.unwrap(),
        Some(1),
        "another scope"
    );
    assert!(store.renew(&first, TTL).await.unwrap());
    let info = store.current("all").await.unwrap().unwrap();
    assert_eq!((info.holder.as_deref(), info.term, info.held), (Some("a"), 1, true));

    // The same holder asks again, because the answer was lost: a new term.
    assert_eq!(store.acquire("all", "a", TTL).await.unwrap(), Some(2));
    assert!(!store.renew(&first, TTL).await.unwrap(), "an earlier term");
    store.release(&first).await.unwrap();
    let second = Fence { term: 2, ..first };
    assert!(
        store.current("all").await.unwrap().unwrap().held,
        "released under an earlier term"
    );

    store.release(&second).await.unwrap();
    let info = store.current("all").await.unwrap().unwrap();
    assert_eq!((info.holder, info.term, info.held), (None, 2, false));
    assert!(!store.renew(&second, TTL).await.unwrap(), "a release is final");

    // Expired at once: taken without a release.
    assert_eq!(store.acquire("all", "b", Duration::ZERO).await.unwrap(), Some(3));
    let info = store.current("all").await.unwrap().unwrap();
    assert_eq!((info.holder.as_deref(), info.held), (Some("b"), false));
    assert_eq!(store.acquire("all", "c", TTL).await.unwrap(), Some(4));
}
