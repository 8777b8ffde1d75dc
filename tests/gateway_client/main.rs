//! The gateway client against real gateways of every supported version, one of each for all tests here.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests are tests; clippy knows only functions that carry the attribute"
)]

mod checks;
mod expected;
mod fixture;
mod unreachable;

macro_rules! versions {
    ($($module:ident: $expected:expr;)+) => {$(
        mod $module {
            use tokio::sync::OnceCell;

            use crate::expected::{self, Expected};
            use crate::fixture::Fixture;

            const EXPECTED: Expected = $expected;
            static FIXTURE: OnceCell<Fixture> = OnceCell::const_new();

            versions!(@tests
                the_handshake_grants_every_scope
                probing_learns_the_dialect
                a_fresh_config_holds_no_agent_of_ours
                one_patch_adds_agents_and_is_read_back
                refused_patches_say_why
                too_many_patches_are_told_to_wait
                files_are_set_listed_and_read_back
                a_file_that_somebody_else_changed_is_not_overwritten
                what_does_not_exist_is_told_apart
                sessions_are_labelled_reset_woken_once_and_removed
                an_agent_is_removed_once
                a_wrong_token_is_unauthorized
                a_control_ui_needs_an_operator_who_disabled_pairing
                tls_to_a_plain_gateway_fails_as_tls
                a_restart_ends_the_connection_and_leaves_the_gateway_as_it_was
            );
        }
    )+};
    (@tests $($test:ident)+) => {$(
        #[tokio::test]
        async fn $test() {
            let fixture = FIXTURE.get_or_init(|| Fixture::start(&EXPECTED)).await;
            crate::checks::$test(fixture, &EXPECTED).await;
        }
    )+};
}

versions! {
    v2026_4_29: Expected {
        version: "2026.4.29",
        dialect: expected::dialect_of_2026_4_29,
        hashes: false,
        control_ui_refused: None,
        tells_effect: false,
    };
    v2026_7_1: Expected {
        version: "2026.7.1",
        dialect: expected::dialect_of_2026_7_1,
        hashes: false,
        control_ui_refused: None,
        tells_effect: true,
    };
    v2026_9_6: Expected {
        version: "2026.9.6",
        dialect: expected::dialect_of_2026_9_6,
        hashes: true,
        control_ui_refused: Some(openclaw_controller::gateway::ErrorClass::PairingRequired),
        tells_effect: true,
    };
}
