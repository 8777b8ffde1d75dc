//! What happened on gateways lately.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use openclaw_controller::model::{CausedRestart, ConfigPart, GatewayHistory, Undoing};

use super::*;

fn restart(minute: i64, foreseen: bool) -> CausedRestart {
    CausedRestart {
        id: 0,
        at: ago(0) + TimeDelta::minutes(minute),
        foreseen,
        parts: [ConfigPart::Channels, ConfigPart::Tools].into(),
    }
}

fn undoing(object: ObjectRef, field: &str, generation: i64, times: usize) -> Undoing {
    let times = (0..times).map(|n| ago(0) + TimeDelta::minutes(n.try_into().unwrap()));
    Undoing {
        object,
        field: field.to_owned(),
        generation,
        times: times.collect(),
        tried_at: ago(-9),
    }
}

async fn history(world: &impl World) -> GatewayHistory {
    world.store().history(GATEWAY).await.unwrap()
}

pub(super) async fn restarts_are_remembered_for_an_hour(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    assert_eq!(history(world).await, GatewayHistory::default());
    let first = store.record_restart(&fence, GATEWAY, &restart(0, true)).await.unwrap();
    let second = store
        .record_restart(&fence, GATEWAY, &restart(59, false))
        .await
        .unwrap();
    assert_ne!(first, second);
    let known = history(world).await.restarts;
    assert_eq!(
        known.iter().map(|restart| restart.id).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(
        known[1],
        CausedRestart {
            id: second,
            ..restart(59, false)
        }
    );
    let elsewhere = store.history(GatewayId(id(77))).await.unwrap();
    assert_eq!(elsewhere, GatewayHistory::default());

    // One that did not come is taken out again, once.
    store.forget_restart(&fence, GATEWAY, second).await.unwrap();
    let mark = world.mark().await;
    store.forget_restart(&fence, GATEWAY, second).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");
    assert_eq!(history(world).await.restarts.len(), 1);

    // The next one takes those of more than an hour before along.
    let third = store.record_restart(&fence, GATEWAY, &restart(60, true)).await.unwrap();
    let left: Vec<_> = history(world).await.restarts.iter().map(|restart| restart.id).collect();
    assert_eq!(left, [third]);
    assert_eq!(
        ConfigPart::ALL.map(|part| ConfigPart::of(part.as_str())),
        ConfigPart::ALL.map(Some)
    );
    let parts: BTreeSet<_> = history(world).await.restarts.remove(0).parts;
    assert_eq!(parts, [ConfigPart::Tools, ConfigPart::Channels].into());
}

pub(super) async fn an_undone_field_has_one_record_which_a_newer_one_replaces(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let of_gateway = undoing(ObjectRef::Gateway(GATEWAY), "tools.exec.host", 1, 1);
    let of_agent = undoing(ObjectRef::Agent(WORKER), "SOUL.md", 4, 2);
    let both = [of_gateway.clone(), of_agent.clone()];
    store.record_undone(&fence, GATEWAY, &both).await.unwrap();
    assert_eq!(history(world).await.undone, both);
    let mark = world.mark().await;
    store.record_undone(&fence, GATEWAY, &both).await.unwrap();
    assert_eq!(world.mark().await, mark, "{NEVER}");

    let newer = undoing(ObjectRef::Agent(WORKER), "SOUL.md", 4, 3);
    store
        .record_undone(&fence, GATEWAY, std::slice::from_ref(&newer))
        .await
        .unwrap();
    assert_eq!(history(world).await.undone, [of_gateway.clone(), newer]);
    store
        .forget_undone(&fence, GATEWAY, &[(ObjectRef::Agent(WORKER), "SOUL.md".to_owned())])
        .await
        .unwrap();
    assert_eq!(history(world).await.undone, [of_gateway]);
}

pub(super) async fn history_goes_with_the_rows_that_it_is_about(world: &impl World) {
    small_fleet(world).await;
    let (fence, store) = (fence(world).await, world.store());
    let of_agent = undoing(ObjectRef::Agent(WORKER), "SOUL.md", 4, 2);
    let gone = undoing(ObjectRef::Agent(AgentId(id(99))), "SOUL.md", 4, 2);
    store
        .record_undone(&fence, GATEWAY, &[of_agent.clone(), gone.clone()])
        .await
        .unwrap();
    store.forget(&fence, &[of_agent.object, gone.object]).await.unwrap();
    assert_eq!(history(world).await.undone, [of_agent], "its row is there yet");

    let elsewhere = GatewayId(id(77));
    store
        .record_restart(&fence, elsewhere, &restart(0, true))
        .await
        .unwrap();
    store.record_undone(&fence, elsewhere, &[gone]).await.unwrap();
    store.forget(&fence, &[ObjectRef::Gateway(elsewhere)]).await.unwrap();
    assert_eq!(store.history(elsewhere).await.unwrap(), GatewayHistory::default());
}
