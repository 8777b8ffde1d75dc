//! Rotations, requests for them, and check-ins.

use openclaw_controller::store::{AgentSelector, CheckInStore, ROTATION_GRACE, RequestStore};

use super::*;

const MAIN: AgentId = AgentId(uuid::Uuid::from_u128(31));

/// A candidate that replaces a hash and answers a request.
fn rotating(hash: &str, replaces: Option<&str>, rotates: Option<DateTime<Utc>>) -> Candidate {
    Candidate {
        replaces: replaces.map(str::to_owned),
        rotates,
        ..candidate(hash, 1)
    }
}

async fn checks_in(world: &impl World, digest: &str) -> bool {
    world.store().check_in(digest).await.unwrap().is_some()
}

pub(super) async fn a_promotion_answers_its_request_and_retires_the_token_before_it(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let one = rotating("one", None, None);
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    let state = store.token_state(WORKER).await.unwrap();
    assert_eq!((state.rotated_for, state.verified.unwrap().since), (None, ago(1)));
    assert!(checks_in(world, "sha-of-one").await);

    let two = rotating("two", Some("one"), Some(ago(9)));
    store.add_candidate(&fence, WORKER, &two).await.unwrap();
    assert_eq!(
        store.token_state(WORKER).await.unwrap().candidates,
        std::slice::from_ref(&two),
        "what it answers is kept"
    );
    let mark = world.mark().await;
    assert!(!store.promote(&fence, WORKER, Some("else"), &two).await.unwrap());
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(store.token_state(WORKER).await.unwrap().rotated_for, None);

    assert!(store.promote(&fence, WORKER, Some("one"), &two).await.unwrap());
    assert_eq!(store.token_state(WORKER).await.unwrap().rotated_for, Some(ago(9)));
    let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
    assert_eq!(snapshot.agent_records[&WORKER].rotated_for, Some(ago(9)));
    assert!(
        checks_in(world, "sha-of-one").await,
        "the agent has not read its new token yet"
    );
    assert!(checks_in(world, "sha-of-two").await);

    // A token that was made without having been asked for leaves the request as it is.
    let three = rotating("three", Some("two"), None);
    assert!(store.promote(&fence, WORKER, Some("two"), &three).await.unwrap());
    assert_eq!(store.token_state(WORKER).await.unwrap().rotated_for, Some(ago(9)));

    world.pass(ROTATION_GRACE).await;
    assert!(!checks_in(world, "sha-of-one").await && !checks_in(world, "sha-of-two").await);
    assert!(checks_in(world, "sha-of-three").await);
    assert_eq!(world.retired().await, 2);
    let four = rotating("four", Some("three"), None);
    assert!(store.promote(&fence, WORKER, Some("three"), &four).await.unwrap());
    assert_eq!(world.retired().await, 1, "what has ended is removed by the next");
    world.delete_agent(WORKER).await;
    assert!(!checks_in(world, "sha-of-four").await);
    store.forget(&fence, &[ObjectRef::Agent(WORKER)]).await.unwrap();
    assert_eq!(world.retired().await, 0);
}

pub(super) async fn a_token_that_was_not_valid_is_not_retired(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let one = rotating("one", None, None);
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    let mut row = world.agent_row(WORKER).await;
    row.token_hash = Some("of another program".to_owned());
    world.put_agent(&row).await;
    assert!(!checks_in(world, "sha-of-one").await, "it is the agent's no longer");
    let two = rotating("two", Some("of another program"), None);
    assert!(
        store
            .promote(&fence, WORKER, Some("of another program"), &two)
            .await
            .unwrap()
    );
    assert!(!checks_in(world, "sha-of-one").await);
    assert_eq!(world.retired().await, 0);
}

pub(super) async fn a_tokens_age_counts_from_when_it_was_first_verified(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let since = async || store.token_state(WORKER).await.unwrap().verified.unwrap().since;
    store.remember_verified(&fence, WORKER, "hash", "sha").await.unwrap();
    let first = since().await;
    store
        .remember_verified(&fence, WORKER, "another hash", "sha")
        .await
        .unwrap();
    assert_eq!(since().await, first, "the same token, hashed anew");
    world.pass(Duration::from_secs(1)).await;
    store
        .remember_verified(&fence, WORKER, "another hash", "new")
        .await
        .unwrap();
    assert!(since().await > first);
}

pub(super) async fn a_check_in_brings_the_agent_online(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let mut row = world.agent_row(WORKER).await;
    row.last_provision_error = Some("it did not check in".to_owned());
    world.put_agent(&row).await;
    let new = rotating("new", None, None);
    store.add_candidate(&fence, WORKER, &new).await.unwrap();
    let seen = store
        .check_in("sha-of-new")
        .await
        .unwrap()
        .expect("its file may be written");
    assert_eq!(
        (seen.agent, seen.name.as_str(), seen.status.as_str()),
        (WORKER, "agent 30", "online")
    );
    let row = world.agent_row(WORKER).await;
    assert_eq!(row.last_seen_at, Some(seen.last_seen_at.naive_utc()));
    assert_eq!((row.status.as_str(), row.last_provision_error), ("online", None));
    assert_eq!(world.agent_row(MAIN).await.last_seen_at, None, "nobody else's row");

    // Once another hash is the agent's, a candidate for the one before is nobody's token.
    assert!(
        store
            .promote(&fence, WORKER, None, &rotating("other", None, None))
            .await
            .unwrap()
    );
    let mark = world.mark().await;
    for digest in ["sha-of-new", "sha-of-nothing", ""] {
        assert_eq!(store.check_in(digest).await.unwrap(), None, "{digest}");
    }
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_check_in_of_an_agent_that_is_being_deleted_leaves_its_status(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let one = rotating("one", None, None);
    assert!(store.promote(&fence, WORKER, None, &one).await.unwrap());
    let mut row = world.agent_row(WORKER).await;
    "deleting".clone_into(&mut row.status);
    row.delete_requested_at = Some(at(5));
    row.last_provision_error = Some("the gateway is away".to_owned());
    world.put_agent(&row).await;
    let seen = store.check_in("sha-of-one").await.unwrap().expect("the agent exists");
    assert_eq!(seen.status, "deleting");
    let after = world.agent_row(WORKER).await;
    assert_eq!(after.last_seen_at, Some(seen.last_seen_at.naive_utc()));
    assert_eq!(
        (after.status, after.last_provision_error),
        (row.status, row.last_provision_error)
    );
}

pub(super) async fn new_tokens_are_requested_for_agents_that_have_rows(world: &impl World) {
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    world.put_agent(&agent(32, None, 11)).await;
    let mut deleted = agent(33, Some(20), 10);
    deleted.delete_requested_at = Some(at(5));
    world.put_agent(&deleted).await;
    let store = world.store();
    let (board, gateway) = (BoardId(id(20)), GatewayId(id(10)));

    let unknown = [
        (AgentSelector::Agents(vec![WORKER, AgentId(id(99))]), id(99)),
        (AgentSelector::Boards(vec![board, BoardId(id(98))]), id(98)),
        (AgentSelector::Gateways(vec![GatewayId(id(97)), gateway]), id(97)),
    ];
    for (selector, missing) in unknown {
        let error = store.request_rotation(&selector).await.unwrap_err().to_string();
        assert!(error.contains(&missing.to_string()), "{error}");
        assert!(
            !error.contains(&id(20).to_string()) && !error.contains(&id(30).to_string()),
            "{error}"
        );
    }
    let requests = async || {
        let fleet = store.load_fleet().await.unwrap();
        let agents = fleet.into_iter().flat_map(|snapshot| snapshot.agents);
        let mut asked: Vec<_> = agents
            .map(|agent| (agent.id.0.as_u128(), agent.requests.rotate))
            .collect();
        asked.sort_unstable();
        asked
    };
    assert!(requests().await.iter().all(|(_, at)| at.is_none()), "{NEVER}");

    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let one = store
        .request_rotation(&AgentSelector::Agents(vec![WORKER]))
        .await
        .unwrap();
    assert_eq!((one.agents.as_slice(), one.deleting), ([WORKER].as_slice(), 0));
    assert_eq!(next(&mut hints).await, Hint::Gateway(gateway));
    let some = store
        .request_rotation(&AgentSelector::Gateways(vec![gateway]))
        .await
        .unwrap();
    assert_eq!((some.agents.as_slice(), some.deleting), ([WORKER, MAIN].as_slice(), 1));
    assert!(some.at > one.at, "a later request is another one");
    let of_board = store
        .request_rotation(&AgentSelector::Boards(vec![board]))
        .await
        .unwrap();
    assert_eq!(
        (of_board.agents.as_slice(), of_board.deleting),
        ([WORKER].as_slice(), 1)
    );
    let expected = [(30, Some(of_board.at)), (31, Some(some.at)), (32, None), (33, None)];
    assert_eq!(requests().await, expected);
    let all = store.request_rotation(&AgentSelector::All).await.unwrap();
    assert_eq!((all.agents.len(), all.deleting), (3, 1));

    let fence = fence(world).await;
    let done = rotating("new", None, Some(all.at));
    assert!(store.promote(&fence, WORKER, None, &done).await.unwrap());
    let asked = [AgentId(id(99)), MAIN, WORKER];
    let progress = store.rotation_progress(&asked).await.unwrap();
    let progress: Vec<_> = progress
        .iter()
        .map(|agent| (agent.agent, agent.name.as_str(), agent.is_done(all.at)))
        .collect();
    assert_eq!(progress, [(WORKER, "agent 30", true), (MAIN, "agent 31", false)]);
}
