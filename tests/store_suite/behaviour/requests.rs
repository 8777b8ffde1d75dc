//! What people ask for besides new tokens, and what is read for them.

use openclaw_controller::store::{AgentSelector, LookupStore, Named, RequestStore};

use super::*;

const MAIN: AgentId = AgentId(uuid::Uuid::from_u128(31));
const BOARD: BoardId = BoardId(uuid::Uuid::from_u128(20));

pub(super) async fn wakes_are_requested_beside_new_tokens(world: &impl World) {
    small_fleet(world).await;
    let store = world.store();
    let requests = async || {
        let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
        let worker = snapshot.agents.into_iter().find(|agent| agent.id == WORKER).unwrap();
        worker.requests
    };
    let rotation = store.request_rotation(&AgentSelector::All).await.unwrap();
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let wake = store.request_wake(&AgentSelector::Agents(vec![WORKER])).await.unwrap();
    assert_eq!((wake.agents.as_slice(), wake.deleting), ([WORKER].as_slice(), 0));
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));
    let asked = requests().await;
    assert_eq!((asked.rotate, asked.wake), (Some(rotation.at), Some(wake.at)));
    let again = store.request_wake(&AgentSelector::Boards(vec![BOARD])).await.unwrap();
    assert!(again.at > wake.at, "another time asks once more");
    assert_eq!(requests().await.wake, Some(again.at));

    let mark = world.mark().await;
    let unknown = store
        .request_wake(&AgentSelector::Agents(vec![WORKER, AgentId(id(99))]))
        .await;
    assert!(unknown.unwrap_err().to_string().contains(&id(99).to_string()));
    assert_eq!(world.mark().await, mark, "{NEVER}");
}

pub(super) async fn a_board_is_paused_and_resumed_by_a_word_and_only_where_that_changes_something(world: &impl World) {
    small_fleet(world).await;
    let store = world.store();
    let other = BoardId(id(21));
    world.put_board(&board(21, Some(10))).await;
    let paused = async || {
        let snapshot = store.load_gateway(GATEWAY).await.unwrap().unwrap();
        (snapshot.boards[&BOARD].paused, snapshot.boards[&other].paused)
    };
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    assert_eq!(store.set_paused(&[BOARD], true).await.unwrap(), [BOARD]);
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));
    assert_eq!(paused().await, (true, false));
    assert_eq!(store.set_paused(&[other, BOARD], true).await.unwrap(), [other]);
    assert_eq!(paused().await, (true, true));

    let mark = world.mark().await;
    assert!(store.set_paused(&[BOARD, other], true).await.unwrap().is_empty());
    let unknown = store.set_paused(&[BOARD, BoardId(id(99))], false).await.unwrap_err();
    assert!(unknown.to_string().contains(&id(99).to_string()), "{unknown}");
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(paused().await, (true, true));

    assert_eq!(store.set_paused(&[BOARD, other], false).await.unwrap(), [BOARD, other]);
    assert_eq!(paused().await, (false, false));
    assert!(store.set_paused(&[], true).await.unwrap().is_empty());
}

pub(super) async fn everybody_is_known_by_name_and_place(world: &impl World) {
    small_fleet(world).await;
    let mut lead = agent(35, Some(20), 10);
    lead.is_board_lead = true;
    world.put_agent(&lead).await;
    let names = world.store().names().await.unwrap();
    let expected = [
        Named::Gateway {
            id: GATEWAY,
            name: "gateway 10".to_owned(),
        },
        Named::Board {
            id: BOARD,
            name: "board 20".to_owned(),
            slug: "board-20".to_owned(),
            gateway: Some(GATEWAY),
        },
        named(WORKER, Some(BOARD), format!("mc-{WORKER}")),
        named(MAIN, None, format!("mc-gateway-{GATEWAY}")),
        named(AgentId(id(35)), Some(BOARD), format!("lead-{BOARD}")),
    ];
    assert_eq!(names, expected);
}

fn named(agent: AgentId, board: Option<BoardId>, there: String) -> Named {
    Named::Agent {
        id: agent,
        name: format!("agent {}", agent.0.as_u128()),
        board,
        gateway: GATEWAY,
        gateway_agent_id: GatewayAgentId::observed(there),
    }
}

pub(super) async fn events_are_found_by_what_they_are_about(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let event = |object, reason: &str| Event {
        object,
        kind: EventKind::Normal,
        reason: reason.to_owned(),
        message: "It happened.".to_owned(),
    };
    let (worker, gateway) = (ObjectRef::Agent(WORKER), ObjectRef::Gateway(GATEWAY));
    for (object, reason) in [
        (worker, "One"),
        (gateway, "Two"),
        (ObjectRef::Agent(MAIN), "Three"),
        (worker, "Four"),
    ] {
        store.record_events(&fence, &[event(object, reason)]).await.unwrap();
    }
    let reasons = async |objects: Option<&[ObjectRef]>, limit| {
        let events = store.events_of(objects, limit).await.unwrap();
        let reasons: Vec<_> = events.into_iter().map(|recorded| recorded.event.reason).collect();
        reasons.join(" ")
    };
    assert_eq!(reasons(None, 10).await, "Four Three Two One");
    assert_eq!(reasons(Some(&[worker]), 10).await, "Four One");
    assert_eq!(reasons(Some(&[worker, gateway]), 2).await, "Four Two");
    assert_eq!(reasons(Some(&[]), 10).await, "");
}
