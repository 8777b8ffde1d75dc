//! What people look at.

use openclaw_controller::model::AgentRole;
use openclaw_controller::store::{EventFilter, EventPosition, Totals, ViewFilter, ViewStore, Window};

use super::*;

const ALL: Window = Window { offset: 0, limit: 100 };

fn met(kinds: &[ConditionType]) -> Conditions {
    let mut conditions = Conditions::default();
    for kind in kinds {
        conditions.set(*kind, ConditionStatus::True, "Converged", "as desired", 3, ago(5));
    }
    conditions
}

async fn reachable(world: &impl World, fence: &Fence, kinds: &[ConditionType]) {
    let status = GatewayStatusWrite {
        conditions: met(kinds),
        server_version: Some("2026.9.6".to_owned()),
        protocol: Some(4),
    };
    world
        .store()
        .write_gateway_status(fence, GATEWAY, &status)
        .await
        .unwrap();
}

async fn agents(world: &impl World, filter: &ViewFilter) -> Vec<String> {
    let listed = world.store().view_agents(filter, ALL).await.unwrap();
    assert_eq!(listed.total, listed.items.len() as u64);
    listed.items.into_iter().map(|agent| agent.name).collect()
}

pub(super) async fn what_is_looked_for_is_found_and_what_is_not_ready_comes_first(world: &impl World) {
    let (fence, store) = (fence(world).await, world.store());
    assert_eq!(store.view_totals().await.unwrap(), Totals::default());
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    let mut lead = agent(32, Some(20), 10);
    lead.is_board_lead = true;
    "Zed 100% <b>".clone_into(&mut lead.name);
    lead.last_seen_at = Some(at(7));
    world.put_agent(&lead).await;
    let mut paused = board(21, None);
    paused.paused = true;
    world.put_board(&paused).await;
    let status = AgentStatusWrite {
        conditions: met(&[ConditionType::Ready]),
        ..AgentStatusWrite::default()
    };
    for n in [30, 31] {
        store.write_agent_status(&fence, AgentId(id(n)), &status).await.unwrap();
    }
    // Nothing of a gateway that cannot be reached is known to be ready.
    assert_eq!(store.view_totals().await.unwrap().agents_ready, 0);
    reachable(world, &fence, &[ConditionType::Reachable, ConditionType::Ready]).await;
    let mark = world.mark().await;
    let totals = Totals {
        gateways: 2,
        gateways_ready: 1,
        boards: 2,
        agents: 3,
        agents_ready: 2,
    };
    assert_eq!(store.view_totals().await.unwrap(), totals);

    let any = ViewFilter::default();
    assert_eq!(agents(world, &any).await, ["Zed 100% <b>", "agent 30", "agent 31"]);
    let found = store.view_agents(&any, Window { offset: 1, limit: 1 }).await.unwrap();
    assert_eq!((found.total, found.items[0].name.as_str()), (3, "agent 30"));
    let beyond = store.view_agents(&any, Window { offset: 9, limit: 1 }).await.unwrap();
    assert_eq!((beyond.total, beyond.items.len()), (3, 0));
    let with = |change: fn(&mut ViewFilter)| {
        let mut filter = ViewFilter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(agents(world, &with(|f| f.ready = Some(false))).await, ["Zed 100% <b>"]);
    assert_eq!(
        agents(world, &with(|f| f.ready = Some(true))).await,
        ["agent 30", "agent 31"]
    );
    assert_eq!(
        agents(world, &with(|f| f.board = Some(BoardId(id(20))))).await,
        ["Zed 100% <b>", "agent 30"]
    );
    assert_eq!(
        agents(world, &with(|f| f.gateway = Some(GatewayId(id(11))))).await,
        [] as [&str; 0]
    );
    assert_eq!(agents(world, &with(|f| f.id = Some(id(31)))).await, ["agent 31"]);
    for (search, names) in [
        ("ZED", &["Zed 100% <b>"] as &[&str]),
        ("0% <B", &["Zed 100% <b>"]),
        ("board 20", &["Zed 100% <b>", "agent 30"]),
        ("gateway 10", &["Zed 100% <b>", "agent 30", "agent 31"]),
        ("agent_30", &[]),
        ("'; DROP TABLE agents; --", &[]),
    ] {
        let filter = ViewFilter {
            search: Some(search.to_owned()),
            ..ViewFilter::default()
        };
        assert_eq!(agents(world, &filter).await, names, "{search}");
    }
    let view = &store
        .view_agents(&with(|f| f.id = Some(id(32))), ALL)
        .await
        .unwrap()
        .items[0];
    assert_eq!(view.role, AgentRole::Lead(BoardId(id(20))));
    assert_eq!(view.board, Some((BoardId(id(20)), Some("board 20".to_owned()))));
    assert_eq!(view.gateway, (GATEWAY, "gateway 10".to_owned()));
    assert_eq!((view.last_seen_at, view.status.as_str()), (Some(at(7)), "provisioning"));
    assert!(view.gateway_conditions.is_true(ConditionType::Reachable));

    let gateways = store.view_gateways(&any, ALL).await.unwrap().items;
    assert_eq!(
        gateways.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(),
        ["gateway 11", "gateway 10"]
    );
    let ours = &gateways[1];
    assert_eq!((ours.boards, ours.agents, ours.agents_ready), (1, 3, 2));
    assert_eq!(
        (ours.server_version.as_deref(), ours.protocol),
        (Some("2026.9.6"), Some(4))
    );
    let boards = store.view_boards(&any, ALL).await.unwrap().items;
    assert_eq!(
        boards.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["board 20", "board 21"]
    );
    assert_eq!((boards[0].agents, boards[0].agents_ready), (2, 1));
    assert_eq!(boards[0].lead, Some((AgentId(id(32)), "Zed 100% <b>".to_owned())));
    assert_eq!(
        (boards[0].paused, boards[1].paused, &boards[1].gateway),
        (false, true, &None)
    );
    assert_eq!(
        store
            .view_boards(&with(|f| f.ready = Some(false)), ALL)
            .await
            .unwrap()
            .total,
        1
    );
    assert_eq!(world.mark().await, mark, "whoever looks writes nothing");
}

pub(super) async fn events_are_found_and_followed(world: &impl World) {
    let (fence, store) = (fence(world).await, world.store());
    small_fleet(world).await;
    assert_eq!(store.view_last_event().await.unwrap(), EventPosition::START);
    let event = |object, kind, reason: &str| Event {
        object,
        kind,
        reason: reason.to_owned(),
        message: format!("{reason} happened"),
    };
    let first = event(ObjectRef::Agent(WORKER), EventKind::Normal, "First");
    let second = event(ObjectRef::Gateway(GATEWAY), EventKind::Warning, "Second");
    let gone = event(ObjectRef::Agent(AgentId(id(99))), EventKind::Normal, "Gone");
    for event in [&first, &second, &gone] {
        store.record_events(&fence, std::slice::from_ref(event)).await.unwrap();
        world.pass(Duration::from_millis(5)).await;
    }
    let any = EventFilter::default();
    let events = store.view_events(&any, ALL).await.unwrap();
    let names: Vec<_> = events.items.iter().map(|view| view.object_name.as_deref()).collect();
    assert_eq!(
        (events.total, names),
        (3, vec![None, Some("gateway 10"), Some("agent 30")])
    );
    let found = async |filter: EventFilter| -> Vec<String> {
        let listed = store.view_events(&filter, ALL).await.unwrap();
        listed
            .items
            .into_iter()
            .map(|view| view.recorded.event.reason)
            .collect()
    };
    let with = |change: fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(found(with(|f| f.warning = Some(true))).await, ["Second"]);
    assert_eq!(
        found(with(|f| f.object = Some(ObjectRef::Agent(WORKER)))).await,
        ["First"]
    );
    let search = |text: &str| EventFilter {
        search: Some(text.to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(found(search("HAPPENED")).await.len(), 3);
    assert_eq!(found(search("gateway 10")).await, ["Second"]);
    let number = events.items[1].id;
    let filter = EventFilter {
        id: Some(number),
        ..EventFilter::default()
    };
    assert_eq!(found(filter).await, ["Second"]);

    let after = async |place, limit| -> Vec<(String, i64)> {
        let views = store.view_events_after(place, limit).await.unwrap();
        let told = views.into_iter().map(|view| view.recorded);
        told.map(|recorded| (recorded.event.reason, recorded.count)).collect()
    };
    let once = |reason: &str| (reason.to_owned(), 1);
    assert_eq!(after(EventPosition::START, 2).await, [once("First"), once("Second")]);
    let place = events.items[1].position();
    assert_eq!(after(place, 9).await, [once("Gone")]);
    store.record_events(&fence, std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(after(place, 9).await, [once("Gone"), ("First".to_owned(), 2)]);
    let last = store.view_last_event().await.unwrap();
    assert_eq!(last.id, events.items[2].id, "it keeps its number");
    assert!(after(last, 9).await.is_empty());
}
