//! Hashes, candidates and mismatches.

use super::*;

pub(super) async fn a_promotion_needs_the_hash_that_was_read(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let (one, two) = (candidate("one", 2), candidate("two", 1));
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    let state = store.token_state(WORKER).await.unwrap();
    assert_eq!(state.current_hash.as_deref(), Some("one"));
    assert_eq!(state.verified_current().unwrap().token_sha256, "sha-of-one");

    let mark = world.mark().await;
    assert!(
        !store.promote(&fence, WORKER, None, &two).await.unwrap(),
        "somebody was faster"
    );
    assert!(!store.promote(&fence, WORKER, Some("else"), &two).await.unwrap());
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap(), "done already");
    assert!(
        !store.promote(&fence, AgentId(id(99)), None, &one).await.unwrap(),
        "no row"
    );
    assert_eq!(world.mark().await, mark, "{NEVER}");

    assert!(store.promote(&fence, WORKER, Some("one"), &two).await.unwrap());
    assert_eq!(world.agent_row(WORKER).await.token_hash.as_deref(), Some("two"));
    let mut taken_over = world.agent_row(WORKER).await;
    taken_over.token_hash = Some("three".to_owned());
    world.put_agent(&taken_over).await;
    let state = store.token_state(WORKER).await.unwrap();
    assert!(state.verified.is_some() && state.verified_current().is_none());
    assert!(!format!("{state:?}").contains("two"), "hashes do not stand in logs");
}

pub(super) async fn candidates_wait_until_they_are_dropped(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    for candidate in [candidate("new", 1), candidate("old", 2)] {
        store.add_candidate(&fence, WORKER, &candidate).await.unwrap();
    }
    let mark = world.mark().await;
    store.add_candidate(&fence, WORKER, &candidate("new", 0)).await.unwrap();
    store.drop_candidates(&fence, AgentId(id(31))).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(
        store.token_state(WORKER).await.unwrap().candidates,
        [candidate("old", 2), candidate("new", 1)]
    );

    assert!(store.promote(&fence, WORKER, None, &candidate("new", 1)).await.unwrap());
    assert_eq!(
        store.token_state(WORKER).await.unwrap().candidates.len(),
        2,
        "a late write may still arrive"
    );
    store.drop_candidates(&fence, WORKER).await.unwrap();
    assert_eq!(
        store.token_state(WORKER).await.unwrap().candidates,
        [candidate("new", 1)]
    );
}

pub(super) async fn a_promotion_takes_the_candidates_away_that_it_overtakes(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let hashes = async || {
        let state = store.token_state(WORKER).await.unwrap();
        let hashes: Vec<_> = state.candidates.into_iter().map(|candidate| candidate.hash).collect();
        hashes
    };
    let (one, two) = (candidate("one", 1000), candidate("two", 100));
    for candidate in [&one, &two, &candidate("ancient", 5000), &candidate("recent", 101)] {
        store.add_candidate(&fence, WORKER, candidate).await.unwrap();
    }
    let of_another = candidate("one", 1000);
    store.add_candidate(&fence, AgentId(id(31)), &of_another).await.unwrap();
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    assert_eq!(hashes().await, ["one", "recent", "two"]);
    assert!(!store.promote(&fence, WORKER, None, &two).await.unwrap());
    assert_eq!(hashes().await, ["one", "recent", "two"], "{NEVER}");
    assert!(store.promote(&fence, WORKER, Some("one"), &two).await.unwrap());
    assert_eq!(
        hashes().await,
        ["recent", "two"],
        "what was replaced goes, and a late write of another may still arrive"
    );
    let three = candidate("three", 99);
    store.add_candidate(&fence, WORKER, &three).await.unwrap();
    assert!(store.promote(&fence, WORKER, Some("two"), &three).await.unwrap());
    assert_eq!(hashes().await, ["recent", "three"], "however young it is");
    let others = store.token_state(AgentId(id(31))).await.unwrap().candidates;
    assert_eq!(others, [of_another], "nobody else's");
}

pub(super) async fn a_mismatch_is_noted_once_per_hash(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    assert_eq!(store.token_state(WORKER).await.unwrap().hash_unchanged_since, None);
    let since = store.note_mismatch(&fence, WORKER, None).await.unwrap();
    let mark = world.mark().await;
    assert_eq!(store.note_mismatch(&fence, WORKER, None).await.unwrap(), since);
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(
        store.token_state(WORKER).await.unwrap().hash_unchanged_since,
        Some(since)
    );

    let mut row = agent(30, Some(20), 10);
    row.token_hash = Some("edited".to_owned());
    world.put_agent(&row).await;
    assert_eq!(
        store.token_state(WORKER).await.unwrap().hash_unchanged_since,
        None,
        "it has changed"
    );
    let later = store.note_mismatch(&fence, WORKER, Some("edited")).await.unwrap();
    assert!(later >= since);
    store.remember_verified(&fence, WORKER, "edited", "sha").await.unwrap();
    let state = store.token_state(WORKER).await.unwrap();
    assert_eq!(state.hash_unchanged_since, None, "settled");
    assert_eq!(state.verified_current().unwrap().token_sha256, "sha");
    let mark = world.mark().await;
    store.remember_verified(&fence, WORKER, "edited", "sha").await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}
