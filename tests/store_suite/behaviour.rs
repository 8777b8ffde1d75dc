//! What every store must do.

use std::time::Duration;

use chrono::{DateTime, Utc};
use openclaw_controller::model::{
    AgentId, BoardId, ConditionStatus, ConditionType, Conditions, Event, EventKind, GatewayAgentId, GatewayId,
    ObjectRef,
};
use openclaw_controller::store::{
    AgentStatusWrite, Candidate, Fence, GatewayStatusWrite, Hint, LeaseStore, Store, StoreError,
};

use super::memory::Memory;
use super::postgres::Postgres;
use super::world::{ORGANIZATION, TTL, World, agent, at, board, fence, gateway, id, next, owner};

macro_rules! every_store {
    ($($name:ident),* $(,)?) => {
        mod in_memory {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Memory::new().await).await; })*
        }
        mod in_postgres {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Postgres::new().await).await; })*
        }
    };
}

every_store!(
    a_snapshot_holds_what_the_rows_say,
    an_agent_belongs_to_the_gateway_of_its_board,
    boards_pause_and_resume,
    generations_count_changes_and_nothing_else,
    a_placement_is_remembered_from_the_first_word_on,
    a_forgotten_placement_starts_anew,
    records_outlive_rows_until_they_are_forgotten,
    a_gateway_status_is_written_once,
    an_agent_status_is_projected_where_it_differs,
    a_promotion_needs_the_hash_that_was_read,
    candidates_wait_until_they_are_dropped,
    a_mismatch_is_noted_once_per_hash,
    events_are_counted_rather_than_repeated,
    nobody_writes_without_the_lease,
    a_lease_changes_hands_with_a_growing_term,
    a_hint_comes_for_a_changed_spec_only,
);

const NEVER: &str = "nothing was to be written";

fn ago(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_000_000 - seconds, 0).unwrap()
}

fn conditions(reason: &str) -> Conditions {
    let mut conditions = Conditions::default();
    let message = format!("because of {reason}");
    conditions.set(ConditionType::Ready, ConditionStatus::False, reason, message, 3, ago(5));
    conditions
}

fn name(text: &str) -> GatewayAgentId {
    GatewayAgentId::observed(text)
}

fn candidate(hash: &str, created: i64) -> Candidate {
    Candidate {
        hash: hash.to_owned(),
        token_sha256: format!("sha-of-{hash}"),
        replaces: None,
        created_at: ago(created),
    }
}

/// A gateway (10) with a board (20), its worker (30) and the gateway's main agent (31).
async fn small_fleet(world: &impl World) {
    world.put_gateway(&gateway(10)).await;
    world.put_board(&board(20, Some(10))).await;
    world.put_agent(&agent(30, Some(20), 10)).await;
    world.put_agent(&agent(31, None, 10)).await;
}

const GATEWAY: GatewayId = GatewayId(uuid::Uuid::from_u128(10));
const WORKER: AgentId = AgentId(uuid::Uuid::from_u128(30));

async fn a_snapshot_holds_what_the_rows_say(world: &impl World) {
    small_fleet(world).await;
    world.put_owner(id(ORGANIZATION), &owner(2)).await;
    let mut early = agent(29, Some(20), 10);
    early.created_at = at(0);
    early.last_seen_at = Some(at(7));
    early.is_board_lead = true;
    early.token_hash = Some("hash".to_owned());
    world.put_agent(&early).await;

    assert!(world.store().load_gateway(GatewayId(id(99))).await.unwrap().is_none());
    let snapshot = world.store().load_gateway(GATEWAY).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", snapshot.gateway), format!("{:?}", gateway(10)));
    assert!(!format!("{snapshot:?}").contains("gateway-secret"));
    assert_eq!(snapshot.owner, Some(owner(2)));
    let boards: Vec<String> = snapshot.boards.values().map(|board| format!("{board:?}")).collect();
    assert_eq!(boards, [format!("{:?}", board(20, Some(10)))]);
    let expected = [early, agent(30, Some(20), 10), agent(31, None, 10)];
    assert_eq!(format!("{:?}", snapshot.agents), format!("{expected:?}"));
    assert_eq!(snapshot.record, openclaw_controller::model::GatewayRecord::default());
    assert!(snapshot.agent_records.is_empty());
    assert_eq!(world.store().list_gateways().await.unwrap(), [GATEWAY]);
    assert!(!world.store().is_existing_installation().await.unwrap());
}

async fn an_agent_belongs_to_the_gateway_of_its_board(world: &impl World) {
    for n in [10, 11] {
        world.put_gateway(&gateway(n)).await;
    }
    world.put_board(&board(20, Some(11))).await;
    world.put_board(&board(21, None)).await;
    // Its row says one gateway, its board another; and one whose board has none.
    world.put_agent(&agent(30, Some(20), 10)).await;
    world.put_agent(&agent(31, Some(21), 10)).await;

    let fleet = world.store().load_fleet().await.unwrap();
    let who = |i: usize| fleet[i].agents.iter().map(|agent| agent.id).collect::<Vec<_>>();
    let which = |i: usize| fleet[i].boards.keys().copied().collect::<Vec<_>>();
    assert_eq!(
        (who(0), which(0)),
        (vec![AgentId(id(31))], vec![BoardId(id(21))]),
        "the first gateway"
    );
    assert_eq!(
        (who(1), which(1)),
        (vec![AgentId(id(30))], vec![BoardId(id(20))]),
        "the second gateway"
    );
    for snapshot in &fleet {
        let alone = world.store().load_gateway(snapshot.gateway.id).await.unwrap().unwrap();
        assert_eq!(format!("{:?}", alone.agents), format!("{:?}", snapshot.agents));
        assert_eq!(alone.boards.len(), snapshot.boards.len());
    }
}

async fn boards_pause_and_resume(world: &impl World) {
    small_fleet(world).await;
    let mut edited = board(20, Some(10));
    for paused in [true, false, true] {
        edited.paused = paused;
        world.put_board(&edited).await;
        let snapshot = world.store().load_gateway(GATEWAY).await.unwrap().unwrap();
        assert_eq!(snapshot.boards[&BoardId(id(20))].paused, paused);
    }
}

async fn generations_count_changes_and_nothing_else(world: &impl World) {
    small_fleet(world).await;
    let fence = fence(world).await;
    let (g, a) = (ObjectRef::Gateway(GATEWAY), ObjectRef::Agent(WORKER));
    let digests =
        |of_gateway: &str, of_agent: &str| vec![(a, GATEWAY, of_agent.to_owned()), (g, GATEWAY, of_gateway.to_owned())];
    // A status may be written before the first generation is counted.
    world
        .store()
        .write_gateway_status(&fence, GATEWAY, &GatewayStatusWrite::default())
        .await
        .unwrap();
    let count = |digests: Vec<_>| {
        let fence = fence.clone();
        async move { world.store().record_generations(&fence, &digests).await.unwrap() }
    };
    assert_eq!(count(digests("1", "1")).await, [(a, 1), (g, 1)]);
    let mark = world.mark().await;
    assert_eq!(count(digests("1", "1")).await, []);
    assert_eq!(count(Vec::new()).await, []);
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(count(digests("1", "2")).await, [(a, 2)]);
    assert_eq!(count(digests("2", "1")).await, [(a, 3), (g, 2)]);

    let snapshot = world.store().load_gateway(GATEWAY).await.unwrap().unwrap();
    assert_eq!(snapshot.record.generation, 2);
    assert_eq!(snapshot.agent_records[&WORKER].generation, 3);
    assert_eq!(snapshot.agent_records[&WORKER].spec_digest.as_deref(), Some("1"));
}

async fn a_placement_is_remembered_from_the_first_word_on(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let found = AgentId(id(31));
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    store
        .record_adopted(&fence, &[(found, GATEWAY, name("mc-y"))], ago(1))
        .await
        .unwrap();
    let first = store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    assert!(first[&WORKER].created_by_us() && first[&WORKER].first_provisioned_at.is_none());
    assert!(!first[&found].created_by_us());
    assert_eq!(first[&found].first_provisioned_at, Some(ago(1)));
    assert_eq!(first[&found].placement, Some((GATEWAY, name("mc-y"))));

    let mark = world.mark().await;
    let elsewhere = GatewayId(id(77));
    store
        .begin_registration(&fence, elsewhere, &[(WORKER, name("other"))])
        .await
        .unwrap();
    store
        .record_adopted(&fence, &[(found, elsewhere, name("other"))], ago(0))
        .await
        .unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records, first);

    let done = [(WORKER, GATEWAY, name("mc-x"))];
    store.record_first_provisioned(&fence, &done, ago(0)).await.unwrap();
    let record = &store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records[&WORKER];
    assert_eq!(record.first_provisioned_at, Some(ago(0)));
    assert_eq!(record.registering_since, first[&WORKER].registering_since);
}

async fn a_forgotten_placement_starts_anew(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    store
        .begin_registration(&fence, GATEWAY, &[(WORKER, name("mc-x"))])
        .await
        .unwrap();
    store.forget_placement(&fence, &[WORKER]).await.unwrap();
    let record = &store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records[&WORKER];
    assert_eq!((&record.placement, record.created_by_us()), (&None, false));
    let mark = world.mark().await;
    store
        .forget_placement(&fence, &[WORKER, AgentId(id(99))])
        .await
        .unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

async fn records_outlive_rows_until_they_are_forgotten(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let objects = [ObjectRef::Agent(WORKER), ObjectRef::Gateway(GATEWAY)];
    store
        .record_generations(&fence, &objects.map(|object| (object, GATEWAY, "1".to_owned())))
        .await
        .unwrap();
    world.delete_agent(WORKER).await;
    let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
    assert!(snapshot.agents.iter().all(|agent| agent.id != WORKER));
    assert!(snapshot.agent_records.contains_key(&WORKER), "last known here");
    assert!(store.orphans().await.unwrap().is_empty());

    world.delete_gateway(GATEWAY).await;
    assert!(store.load_gateway(GATEWAY).await.unwrap().is_none());
    let orphans = store.orphans().await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].id, orphans[0].record.generation), (GATEWAY, 1));
    assert_eq!(orphans[0].agent_records.keys().copied().collect::<Vec<_>>(), [WORKER]);

    store.forget(&fence, &objects).await.unwrap();
    assert!(store.orphans().await.unwrap().is_empty());

    // What has a row is not forgotten.
    small_fleet(world).await;
    store
        .record_generations(&fence, &objects.map(|object| (object, GATEWAY, "1".to_owned())))
        .await
        .unwrap();
    let mark = world.mark().await;
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

async fn a_gateway_status_is_written_once(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let mut status = GatewayStatusWrite {
        conditions: conditions("Refused"),
        server_version: Some("2026.9.6".to_owned()),
        protocol: Some(4),
    };
    store.write_gateway_status(&fence, GATEWAY, &status).await.unwrap();
    let mark = world.mark().await;
    store.write_gateway_status(&fence, GATEWAY, &status).await.unwrap();
    (status.server_version, status.protocol) = (None, None);
    store.write_gateway_status(&fence, GATEWAY, &status).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    status.conditions = conditions("Gone\0");
    store.write_gateway_status(&fence, GATEWAY, &status).await.unwrap();
    let record = store.load_gateway(GATEWAY).await.unwrap().unwrap().record;
    assert_eq!(
        (record.server_version.as_deref(), record.protocol),
        (Some("2026.9.6"), Some(4))
    );
    let ready = record.conditions.get(ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.reason.as_str(), ready.last_transition_time),
        ("Gone\u{FFFD}", ago(5))
    );
    let mark = world.mark().await;
    store.write_gateway_status(&fence, GATEWAY, &status).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

async fn an_agent_status_is_projected_where_it_differs(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let status = AgentStatusWrite {
        conditions: conditions("Waiting"),
        session_key: Some("agent:x:main".to_owned()),
        last_provision_error: Some(Some("it broke".to_owned())),
        status: Some("online".to_owned()),
    };
    store.write_agent_status(&fence, WORKER, &status).await.unwrap();
    let row = world.agent_row(WORKER).await;
    assert_eq!(row.session_key.as_deref(), Some("agent:x:main"));
    assert_eq!(row.last_provision_error.as_deref(), Some("it broke"));
    assert_eq!(row.status, "online");
    let records = store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    assert_eq!(records[&WORKER].conditions, conditions("Waiting"));

    let mark = world.mark().await;
    store.write_agent_status(&fence, WORKER, &status).await.unwrap();
    let nothing_said = AgentStatusWrite {
        conditions: conditions("Waiting"),
        ..AgentStatusWrite::default()
    };
    store.write_agent_status(&fence, WORKER, &nothing_said).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    let cleared = AgentStatusWrite {
        last_provision_error: Some(None),
        ..nothing_said
    };
    store.write_agent_status(&fence, WORKER, &cleared).await.unwrap();
    let row = world.agent_row(WORKER).await;
    assert_eq!((row.last_provision_error, row.status.as_str()), (None, "online"));

    // An agent without a row has nothing to project onto.
    store
        .write_agent_status(&fence, AgentId(id(99)), &status)
        .await
        .unwrap();
}

async fn a_promotion_needs_the_hash_that_was_read(world: &impl World) {
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

async fn candidates_wait_until_they_are_dropped(world: &impl World) {
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

async fn a_mismatch_is_noted_once_per_hash(world: &impl World) {
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

async fn events_are_counted_rather_than_repeated(world: &impl World) {
    let (fence, store) = (fence(world).await, world.store());
    let event = |reason: &str| Event {
        object: ObjectRef::Agent(WORKER),
        kind: EventKind::Warning,
        reason: reason.to_owned(),
        // Longer than an index entry can be.
        message: format!("{reason} {}", "because ".repeat(1000)),
    };
    store
        .record_events(&fence, &[event("A"), event("B"), event("A")])
        .await
        .unwrap();
    store.record_events(&fence, &[event("A")]).await.unwrap();
    let events = store.list_events(10).await.unwrap();
    let counts: Vec<_> = events.iter().map(|e| (e.event.clone(), e.count)).collect();
    assert_eq!(counts, [(event("A"), 3), (event("B"), 1)]);
    assert!(events[0].first_seen <= events[0].last_seen);
    assert_eq!(store.list_events(1).await.unwrap().len(), 1);
    let mark = world.mark().await;
    store.record_events(&fence, &[]).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

async fn nobody_writes_without_the_lease(world: &impl World) {
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

async fn a_lease_changes_hands_with_a_growing_term(world: &impl World) {
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

async fn a_hint_comes_for_a_changed_spec_only(world: &impl World) {
    world.put_gateway(&gateway(10)).await;
    world.put_gateway(&gateway(11)).await;
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything, "right after connecting");

    world.put_board(&board(20, Some(10))).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));
    let mut row = agent(30, Some(20), 10);
    world.put_agent(&row).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));

    // A heartbeat, our own status, and a write of the same again: none of them is news.
    row.last_seen_at = Some(at(50));
    row.status = "online".to_owned();
    row.session_key = Some("agent:x:main".to_owned());
    world.put_agent(&row).await;
    world.put_board(&board(20, Some(10))).await;
    let fence = fence(world).await;
    let status = AgentStatusWrite {
        last_provision_error: Some(Some("it broke".to_owned())),
        ..AgentStatusWrite::default()
    };
    world.store().write_agent_status(&fence, WORKER, &status).await.unwrap();
    row.last_provision_error = Some("it broke".to_owned());

    // Moved with its board: both gateways hear of it, and nothing came in between.
    world.put_board(&board(20, Some(11))).await;
    let mut both = [next(&mut hints).await, next(&mut hints).await];
    both.sort_by_key(|hint| format!("{hint:?}"));
    assert_eq!(both, [Hint::Gateway(GATEWAY), Hint::Gateway(GatewayId(id(11)))]);

    row.token_hash = Some("new".to_owned());
    world.put_agent(&row).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GatewayId(id(11))));
    world.delete_agent(WORKER).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GatewayId(id(11))));
}
