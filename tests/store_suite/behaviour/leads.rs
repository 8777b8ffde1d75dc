//! Rows for board leads.

use openclaw_controller::model::{AgentRow, LeadSettings, NewLead};
use openclaw_controller::store::LeadCreation;
use serde_json::json;

use super::*;

const BOARD: BoardId = BoardId(uuid::Uuid::from_u128(20));

fn lead() -> NewLead {
    let settings = LeadSettings {
        name: Some("Marlow".to_owned()),
        identity: Some(Ok(json!({"purpose": "Arrive.\u{0}"}))),
    };
    NewLead::of(&board(20, Some(10)), GATEWAY, Some(&settings)).unwrap()
}

pub(super) async fn a_lead_is_made_for_a_board_that_has_none(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let LeadCreation::Created(id) = store.create_lead(&fence, &lead()).await.unwrap() else {
        panic!("no lead was made")
    };
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));
    let row = world.agent_row(id).await;
    let expected = lead().row(id, row.created_at);
    assert_eq!(format!("{row:?}"), format!("{expected:?}"));
    assert_eq!(row.board_id, Some(BOARD));
    assert_eq!(row.gateway_id, GATEWAY);
    assert_eq!((row.name.as_str(), row.status.as_str()), ("Marlow", "provisioning"));
    assert_eq!(row.session_key, Some(format!("agent:lead-{BOARD}:main")));
    assert_eq!(world.wake_columns(id).await, (None, None, 0));
    let events = store.list_events(10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event, lead().created(id));
}

pub(super) async fn no_lead_is_made_for_a_board_that_has_one_or_is_elsewhere(world: &impl World) {
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    let (fence, store) = (fence(world).await, world.store());
    let mut there = AgentRow {
        is_board_lead: true,
        delete_requested_at: Some(at(5)),
        ..agent(32, Some(20), 10)
    };
    // Whatever is said of it, it is the board's lead.
    for status in ["deleting", "online"] {
        there.status = status.to_owned();
        world.put_agent(&there).await;
        let mark = world.mark().await;
        assert_eq!(store.create_lead(&fence, &lead()).await, Ok(LeadCreation::Present));
        assert_eq!(world.mark().await, mark, "{NEVER}");
        there.delete_requested_at = None;
    }
    world.delete_agent(there.id).await;
    let mark = world.mark().await;
    let elsewhere = NewLead {
        gateway: GatewayId(id(11)),
        ..lead()
    };
    let gone = NewLead {
        board: BoardId(id(99)),
        ..lead()
    };
    for lead in [elsewhere, gone] {
        assert_eq!(store.create_lead(&fence, &lead).await, Ok(LeadCreation::BoardElsewhere));
    }
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert!(matches!(
        store.create_lead(&fence, &lead()).await,
        Ok(LeadCreation::Created(_))
    ));
}

pub(super) async fn what_is_chosen_for_a_boards_lead_is_loaded_with_its_gateway(world: &impl World) {
    small_fleet(world).await;
    world.put_gateway(&gateway(11)).await;
    world.put_board(&board(21, Some(10))).await;
    let mut hints = world.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    let settings = LeadSettings {
        name: Some("Marlow".to_owned()),
        identity: Some(Ok(json!({"role": "Captain"}))),
    };
    world.put_lead_settings(BOARD, &settings).await;
    assert_eq!(next(&mut hints).await, Hint::Gateway(GATEWAY));
    // For a board that is not there: nobody's.
    world.put_lead_settings(BoardId(id(99)), &settings).await;
    let store = world.store();
    for snapshot in [
        store.load_gateway(GATEWAY).await.unwrap().unwrap(),
        store.reload_gateway(GATEWAY).await.unwrap().unwrap(),
        store.load_fleet().await.unwrap().remove(0),
    ] {
        assert_eq!(snapshot.lead_settings.len(), 1);
        assert_eq!(snapshot.lead_settings[&BOARD], settings);
    }
    let other = store.load_gateway(GatewayId(id(11))).await.unwrap().unwrap();
    assert!(other.lead_settings.is_empty());
}
