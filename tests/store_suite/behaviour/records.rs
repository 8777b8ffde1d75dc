//! What we remember, and the status that others see.

use super::*;

pub(super) async fn generations_count_changes_and_nothing_else(world: &impl World) {
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

pub(super) async fn a_placement_is_remembered_from_the_first_word_on(world: &impl World) {
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

    // What was under way elsewhere when the agent left does not bring it back there.
    let late = [(WORKER, elsewhere, name("mc-x")), (WORKER, GATEWAY, name("other"))];
    store.record_first_provisioned(&fence, &late, ago(0)).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    let done = [(WORKER, GATEWAY, name("mc-x"))];
    store.record_first_provisioned(&fence, &done, ago(0)).await.unwrap();
    let record = &store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records[&WORKER];
    assert_eq!(record.first_provisioned_at, Some(ago(0)));
    assert_eq!(record.registering_since, first[&WORKER].registering_since);
}

pub(super) async fn a_forgotten_placement_starts_anew(world: &impl World) {
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

pub(super) async fn records_outlive_rows_until_they_are_forgotten(world: &impl World) {
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

    world.delete_gateway(GATEWAY).await;
    assert!(store.load_gateway(GATEWAY).await.unwrap().is_none());
    let known = async || {
        small_fleet(world).await;
        let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
        let record = snapshot.agent_records.get(&WORKER);
        (snapshot.record.generation, record.map_or(0, |record| record.generation))
    };
    assert_eq!(known().await, (1, 1), "they are known when they come back");
    world.delete_agent(WORKER).await;
    world.delete_gateway(GATEWAY).await;
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(known().await, (0, 0));

    // What has a row is not forgotten.
    store
        .record_generations(&fence, &objects.map(|object| (object, GATEWAY, "1".to_owned())))
        .await
        .unwrap();
    let mark = world.mark().await;
    store.forget(&fence, &objects).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_gateway_status_is_written_once(world: &impl World) {
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

pub(super) async fn an_agent_status_is_projected_where_it_differs(world: &impl World) {
    const OTHER: GatewayId = GatewayId(uuid::Uuid::from_u128(11));
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    let (fence, store) = (fence(world).await, world.store());
    let status = AgentStatusWrite {
        conditions: conditions("Waiting"),
        session_key: Some("agent:x:main".to_owned()),
        gateway_id: Some(OTHER),
        last_provision_error: Some(Some("it broke".to_owned())),
        status: Some("online".to_owned()),
    };
    store.write_agent_status(&fence, WORKER, &status).await.unwrap();
    let row = world.agent_row(WORKER).await;
    assert_eq!(row.session_key.as_deref(), Some("agent:x:main"));
    assert_eq!(row.last_provision_error.as_deref(), Some("it broke"));
    assert_eq!(row.status, "online");
    assert_eq!(row.gateway_id, OTHER);
    let records = store.load_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    assert_eq!(records[&WORKER].conditions, conditions("Waiting"));
    let again = store.reload_gateway(GATEWAY).await.unwrap().unwrap().agent_records;
    let bare = AgentRecord {
        conditions: Conditions::default(),
        ..records[&WORKER].clone()
    };
    assert_eq!(again[&WORKER], bare, "only the conditions are left out");

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

pub(super) async fn events_are_counted_rather_than_repeated(world: &impl World) {
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
