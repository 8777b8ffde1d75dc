//! Desired state: what a snapshot holds, and what is news.

use super::*;

pub(super) async fn a_snapshot_holds_what_the_rows_say(world: &impl World) {
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

pub(super) async fn an_agent_belongs_to_the_gateway_of_its_board(world: &impl World) {
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

pub(super) async fn boards_pause_and_resume(world: &impl World) {
    small_fleet(world).await;
    let mut edited = board(20, Some(10));
    for paused in [true, false, true] {
        edited.paused = paused;
        world.put_board(&edited).await;
        let snapshot = world.store().load_gateway(GATEWAY).await.unwrap().unwrap();
        assert_eq!(snapshot.boards[&BoardId(id(20))].paused, paused);
    }
}

pub(super) async fn a_hint_comes_for_a_changed_spec_only(world: &impl World) {
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
    "online".clone_into(&mut row.status);
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
