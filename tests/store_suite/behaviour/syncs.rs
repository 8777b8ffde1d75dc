//! One-shot syncs: requests, what is noted of them, and their end.

use openclaw_controller::model::{SyncError, SyncOptions, SyncResult, SyncedAgent};
use openclaw_controller::store::{SyncProgress, SyncStore};

use super::*;

const MAIN: AgentId = AgentId(uuid::Uuid::from_u128(31));

fn board_only() -> SyncOptions {
    SyncOptions {
        board: Some(BoardId(id(20))),
        reset_sessions: true,
        ..SyncOptions::default()
    }
}

fn synced(agent: AgentId, message: Option<&str>) -> SyncedAgent {
    SyncedAgent {
        agent,
        updated: message.is_none(),
        error: message.map(|message| SyncError {
            agent_id: Some(agent),
            agent_name: Some("Wren \u{0} \"the first\"".to_owned()),
            board_id: Some(BoardId(id(20))),
            message: message.to_owned(),
        }),
    }
}

pub(super) async fn a_sync_is_asked_for_found_and_answered(world: &impl World) {
    small_fleet(world).await;
    let store = world.store();
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    for (gateway, user, missing) in [(99, None, 99), (10, Some(id(98)), 98)] {
        let options = SyncOptions {
            user,
            ..SyncOptions::default()
        };
        let refused = store.request_sync(GatewayId(id(gateway)), &options).await.unwrap_err();
        assert!(matches!(refused, StoreError::BadData { .. }), "{refused}");
        assert!(refused.to_string().contains(&id(missing).to_string()), "{refused}");
    }
    assert_eq!(store.open_syncs().await.unwrap(), [], "{NEVER}");

    let one = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    assert_eq!(next(&mut hints).await, Hint::Sync);
    let two = store.request_sync(GATEWAY, &SyncOptions::default()).await.unwrap();
    assert_eq!(next(&mut hints).await, Hint::Sync, "one for each request");
    let open = store.open_syncs().await.unwrap();
    assert_eq!(open.iter().map(|request| request.id).collect::<Vec<_>>(), [one, two]);
    assert_eq!((open[0].gateway, &open[0].options), (GATEWAY, &board_only()));
    assert!(open[0].requested_at < open[1].requested_at);
    assert_eq!(store.sync_progress(one).await.unwrap(), Some(SyncProgress::default()));

    let fence = fence(world).await;
    assert!(store.begin_sync(&fence, one, 2).await.unwrap());
    let mark = world.mark().await;
    assert!(store.begin_sync(&fence, one, 2).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");
    for agent in [synced(WORKER, None), synced(MAIN, Some("It was skipped."))] {
        store.finish_sync_agent(&fence, one, &agent).await.unwrap();
    }
    let mark = world.mark().await;
    store
        .finish_sync_agent(&fence, one, &synced(MAIN, Some("It was skipped.")))
        .await
        .unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    let mut done = store.synced_agents(one).await.unwrap();
    done.sort_by_key(|agent| agent.agent);
    assert_eq!(done, [synced(WORKER, None), synced(MAIN, Some("It was skipped."))]);
    let progress = SyncProgress {
        started: true,
        agents: Some(2),
        done: 2,
        result: None,
    };
    assert_eq!(store.sync_progress(one).await.unwrap(), Some(progress));

    let mut result = SyncResult::of(&open[0]);
    result.agents_updated = 1;
    result.errors = done.into_iter().filter_map(|agent| agent.error).collect();
    store.finish_sync(&fence, one, &result).await.unwrap();
    let answered = store.sync_progress(one).await.unwrap().unwrap().result;
    assert_eq!(answered.as_ref(), Some(&result));
    let mark = world.mark().await;
    let other = SyncResult::of(&open[0]);
    store.finish_sync(&fence, one, &other).await.unwrap();
    assert_eq!(world.mark().await, mark, "an answer is not taken back");
    let open = store.open_syncs().await.unwrap();
    assert_eq!(open.iter().map(|request| request.id).collect::<Vec<_>>(), [two]);
}

pub(super) async fn a_session_is_noted_to_be_reset_once_per_request(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let one = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    let two = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    assert_eq!(store.sync_resets(one).await.unwrap(), []);
    assert!(store.begin_sync_reset(&fence, one, WORKER).await.unwrap());
    let mark = world.mark().await;
    assert!(!store.begin_sync_reset(&fence, one, WORKER).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert!(
        store.begin_sync_reset(&fence, two, WORKER).await.unwrap(),
        "another request"
    );
    assert_eq!(store.sync_resets(one).await.unwrap(), [WORKER]);
    assert_eq!(store.synced_agents(one).await.unwrap(), [], "it is not done by that");
    store
        .finish_sync_agent(&fence, one, &synced(WORKER, None))
        .await
        .unwrap();
    assert_eq!(store.sync_resets(one).await.unwrap(), [WORKER]);
    assert_eq!(store.synced_agents(one).await.unwrap(), [synced(WORKER, None)]);
    assert!(store.withdraw_sync(two, false).await.unwrap());
    assert!(
        !store.begin_sync_reset(&fence, two, MAIN).await.unwrap(),
        "nobody wants it any more"
    );
}

pub(super) async fn a_syncs_new_tokens_are_asked_for_once_and_give_way_to_newer_requests(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let rotates = async |agent: AgentId| {
        let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
        let mut agents = snapshot.agents.into_iter();
        agents.find(|row| row.id == agent).unwrap().requests.rotate
    };
    store
        .request_sync_rotation(&fence, ago(5), &[WORKER, AgentId(id(99))])
        .await
        .unwrap();
    assert_eq!((rotates(WORKER).await, rotates(MAIN).await), (Some(ago(5)), None));
    let mark = world.mark().await;
    store.request_sync_rotation(&fence, ago(5), &[WORKER]).await.unwrap();
    store.request_sync_rotation(&fence, ago(6), &[WORKER]).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    store
        .request_sync_rotation(&fence, ago(4), &[WORKER, MAIN])
        .await
        .unwrap();
    assert_eq!(
        (rotates(WORKER).await, rotates(MAIN).await),
        (Some(ago(4)), Some(ago(4)))
    );
}

pub(super) async fn a_user_who_is_named_is_rendered_for_from_then_on(world: &impl World) {
    small_fleet(world).await;
    world.put_owner(id(ORGANIZATION), &owner(40)).await;
    let store = world.store();
    let rendered_for = async || store.load_gateway(GATEWAY).await.unwrap().unwrap().owner.unwrap().id;
    let options = SyncOptions {
        user: Some(id(41)),
        ..SyncOptions::default()
    };
    store.request_sync(GATEWAY, &options).await.unwrap_err();
    let mut elsewhere = gateway(11);
    elsewhere.organization_id = id(2);
    world.put_gateway(&elsewhere).await;
    world.put_owner(id(2), &owner(41)).await;
    assert_eq!(rendered_for().await, id(40));
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    store.request_sync(GATEWAY, &options).await.unwrap();
    let both = [next(&mut hints).await, next(&mut hints).await];
    assert!(
        both.contains(&Hint::Gateway(GATEWAY)) && both.contains(&Hint::Sync),
        "{both:?}"
    );
    assert_eq!(rendered_for().await, id(41));
    store.request_sync(GATEWAY, &SyncOptions::default()).await.unwrap();
    assert_eq!(next(&mut hints).await, Hint::Sync);
    assert_eq!(rendered_for().await, id(41), "it stays so until somebody else is named");
}

pub(super) async fn a_request_is_withdrawn_unless_it_is_answered(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let [one, two, three] = [
        store.request_sync(GATEWAY, &board_only()).await.unwrap(),
        store.request_sync(GATEWAY, &board_only()).await.unwrap(),
        store.request_sync(GATEWAY, &board_only()).await.unwrap(),
    ];
    assert!(store.begin_sync(&fence, two, 1).await.unwrap());
    store
        .finish_sync_agent(&fence, two, &synced(WORKER, None))
        .await
        .unwrap();
    let open = store.open_syncs().await.unwrap();
    store
        .finish_sync(&fence, three, &SyncResult::of(&open[2]))
        .await
        .unwrap();
    assert!(store.withdraw_sync(one, true).await.unwrap());
    assert!(!store.withdraw_sync(one, true).await.unwrap(), "it is gone");
    for over in [one, three] {
        assert!(!store.begin_sync(&fence, over, 1).await.unwrap(), "nobody waits for it");
    }
    assert!(!store.withdraw_sync(two, true).await.unwrap(), "it was taken up");
    assert!(store.withdraw_sync(two, false).await.unwrap());
    assert!(!store.withdraw_sync(three, false).await.unwrap(), "it is answered");
    assert_eq!(store.sync_progress(one).await.unwrap(), None);
    assert_eq!(store.open_syncs().await.unwrap(), []);
    // Whoever was at it writes into the void.
    let mark = world.mark().await;
    store.finish_sync_agent(&fence, two, &synced(MAIN, None)).await.unwrap();
    store.finish_sync(&fence, two, &SyncResult::of(&open[1])).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(store.synced_agents(two).await.unwrap(), []);
}

pub(super) async fn a_sync_is_removed_a_day_after_it_was_asked_for(world: &impl World) {
    small_fleet(world).await;
    let (_, store) = (fence(world).await, world.store());
    let one = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    world.pass(Duration::from_hours(23)).await;
    let two = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    let fence = fence(world).await;
    let mark = world.mark().await;
    store.drop_old_syncs(&fence).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(store.open_syncs().await.unwrap().len(), 2);
    world.pass(Duration::from_hours(2)).await;
    let open = store.open_syncs().await.unwrap();
    assert_eq!(
        open.iter().map(|request| request.id).collect::<Vec<_>>(),
        [two],
        "nobody would expect it any more"
    );
    let fence = super::fence(world).await;
    store.drop_old_syncs(&fence).await.unwrap();
    assert_eq!(store.sync_progress(one).await.unwrap(), None);
    world.pass(Duration::from_hours(24)).await;
    store.request_sync(GATEWAY, &board_only()).await.unwrap();
    assert_eq!(
        store.sync_progress(two).await.unwrap(),
        None,
        "the next one clears up too"
    );
}

pub(super) async fn nobody_carries_out_a_sync_without_the_lease(world: &impl World) {
    small_fleet(world).await;
    let store = world.store();
    let sync = store.request_sync(GATEWAY, &board_only()).await.unwrap();
    let request = store.open_syncs().await.unwrap().remove(0);
    let lost = fence(world).await;
    store.release(&lost).await.unwrap();
    let mark = world.mark().await;
    let fenced = |error: StoreError| assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    fenced(store.begin_sync(&lost, sync, 1).await.unwrap_err());
    fenced(store.begin_sync_reset(&lost, sync, WORKER).await.unwrap_err());
    fenced(store.request_sync_rotation(&lost, ago(1), &[WORKER]).await.unwrap_err());
    fenced(
        store
            .finish_sync_agent(&lost, sync, &synced(WORKER, None))
            .await
            .unwrap_err(),
    );
    fenced(
        store
            .finish_sync(&lost, sync, &SyncResult::of(&request))
            .await
            .unwrap_err(),
    );
    fenced(store.drop_old_syncs(&lost).await.unwrap_err());
    assert_eq!(world.mark().await, mark, "{NEVER}");
}
