//! A gateway that lets nobody in before the device was approved.

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::SimDialect;
use tokio::time::{Instant, sleep};

use crate::fleet::World;
use crate::promise;
use crate::runner::simulate;

#[test]
fn a_device_that_waits_to_be_approved_asks_every_ten_seconds_writes_nothing_and_is_let_in_within_that() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let id = world.add_gateway(dialect);
            let gateway = world.places[0].gateway.clone();
            gateway.pair_devices();
            let board = world.add_board(Some(id));
            world.add_agent(id, Some(board), false);
            let replica = world.start(1);
            sleep(Duration::from_secs(30)).await;
            let record = world.store.gateway_record(id).unwrap();
            let condition = record.conditions.get(ConditionType::Authorized).unwrap();
            assert_eq!(
                (condition.status, condition.reason.as_str()),
                (ConditionStatus::False, "PairingRequired")
            );
            let requests = gateway.pairing_requests();
            let command = format!("openclaw devices approve {}", requests[0]);
            assert!(condition.message.contains(&command), "{}", condition.message);

            // Half an hour at the operator's door: steady, with the same request, and without a write.
            let looks = || replica.metric("controller_runtime_reconcile_total");
            let failures = replica.metric("controller_runtime_reconcile_errors_total");
            let (writes, before) = (world.store.write_log().len(), looks());
            sleep(Duration::from_mins(30)).await;
            // Resyncs look as well.
            let asked = looks() - before;
            assert!(
                (170.0..230.0).contains(&asked),
                "{asked} times in 180 spans of ten seconds"
            );
            assert_eq!(world.store.write_log()[writes..], [] as [&str; 0]);
            assert_eq!(gateway.pairing_requests(), requests);
            assert!((replica.metric("controller_runtime_reconcile_errors_total") - failures).abs() < 0.5);

            assert!(gateway.approve_device(&requests[0]));
            let approved = Instant::now();
            while !promise::broken(&world).await.is_empty() {
                assert!(approved.elapsed() < Duration::from_secs(30), "{dialect:?}");
                sleep(Duration::from_millis(100)).await;
            }
            replica.stop().await;
        });
    }
}
