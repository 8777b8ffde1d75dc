//! Rows in a real Postgres converge on real gateways of every supported version, and stay converged.
//!
//! Per version one gateway, one database and one story; the controller is the real binary, at its most talkative, so that
//! everything it says can be searched for secrets at the end.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that cannot go on has failed; these say where"
)]

#[path = "converge_real/adoption.rs"]
mod adoption;
#[path = "converge_real/binary.rs"]
mod binary;
#[path = "converge_real/fixture.rs"]
mod fixture;
#[path = "converge_real/operator.rs"]
mod operator;
#[path = "converge_real/pausing.rs"]
mod pausing;
#[path = "converge_real/removal.rs"]
mod removal;
#[path = "converge_real/rotate_all.rs"]
mod rotate_all;
#[path = "converge_real/rotation.rs"]
mod rotation;
#[path = "converge_real/story.rs"]
mod story;
mod support;
#[path = "converge_real/sync.rs"]
mod sync;

use tokio::sync::Mutex;

/// One gateway at a time: two of them and a controller are more than two cores can serve within anyone's deadline.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

macro_rules! on_real_gateways {
    ($($module:ident $version:literal $shape:ident,)*) => {
        $(mod $module {
            #[tokio::test(flavor = "multi_thread")]
            async fn a_fleet_converges_stays_converged_and_shows_no_secret() {
                let _turn = crate::ONE_AT_A_TIME.lock().await;
                crate::story::tell($version, crate::fixture::Shape::$shape).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn every_agent_gets_a_new_token_when_asked_to_and_the_old_one_is_in_no_file() {
                let _turn = crate::ONE_AT_A_TIME.lock().await;
                crate::rotate_all::tell($version, crate::fixture::Shape::$shape).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_sync_updates_every_agent_and_the_next_one_writes_nothing() {
                let _turn = crate::ONE_AT_A_TIME.lock().await;
                crate::sync::tell($version, crate::fixture::Shape::$shape).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn an_agent_that_is_to_go_goes_with_its_files_and_the_others_stay_as_they_are() {
                let _turn = crate::ONE_AT_A_TIME.lock().await;
                crate::removal::tell($version, crate::fixture::Shape::$shape).await;
            }
        })*
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn v2026_9_6_a_kill_in_the_middle_of_rotating_fifty_tokens_locks_nobody_out() {
    let _turn = ONE_AT_A_TIME.lock().await;
    rotation::tell("2026.9.6", fixture::Shape::Entries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2026_9_6_a_fresh_database_adopts_the_agents_without_a_write_and_others_stay_byte_for_byte() {
    let _turn = ONE_AT_A_TIME.lock().await;
    adoption::tell("2026.9.6", fixture::Shape::Entries).await;
}

on_real_gateways! {
    v2026_4_29 "2026.4.29" List,
    v2026_7_1 "2026.7.1" List,
    v2026_9_6 "2026.9.6" Entries,
}
