//! What a client can see of a gateway, asked of the simulated gateways and of the real ones alike.
//!
//! Every check is one function over an [`Env`](env::Env); the macro below turns each into six tests, for example
//! `real_v2026_9_6::a_retired_file_is_refused`. Where versions differ, what is to be expected stands in the table of
//! [`facts`]. A check that passes on a real gateway and fails on its simulation is a mistake of the simulation.
//!
//! The same checks run on real gateways of many more versions by `make test-gateways` (`tests/gateways`).
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a check that cannot go on has failed; these say where"
)]

#[path = "conformance/checks.rs"]
#[macro_use]
mod checks;

#[path = "conformance/agents.rs"]
mod agents;
#[path = "conformance/config.rs"]
mod config;
#[path = "conformance/connect.rs"]
mod connect;
#[path = "contract/mod.rs"]
mod contract;
#[path = "conformance/contract.rs"]
mod contract_tour;
#[path = "conformance/env.rs"]
#[allow(dead_code, reason = "gateways of other versions need the rest")]
mod env;
#[path = "conformance/facts.rs"]
mod facts;
#[path = "conformance/files.rs"]
mod files;
#[path = "conformance/raw.rs"]
mod raw;
#[path = "conformance/sessions.rs"]
mod sessions;

macro_rules! conformance {
    (shared { $($room:ident :: $check:ident,)* } alone { $($alone_room:ident :: $alone:ident,)* }) => {
        conformance!(@kind sim_v2026_4_29 sim V2026_4_29 { $($room::$check,)* } { $($alone_room::$alone,)* });
        conformance!(@kind sim_v2026_7_1 sim V2026_7_1 { $($room::$check,)* } { $($alone_room::$alone,)* });
        conformance!(@kind sim_v2026_9_6 sim V2026_9_6 { $($room::$check,)* } { $($alone_room::$alone,)* });
        conformance!(@kind real_v2026_4_29 real V2026_4_29 { $($room::$check,)* } { $($alone_room::$alone,)* });
        conformance!(@kind real_v2026_7_1 real V2026_7_1 { $($room::$check,)* } { $($alone_room::$alone,)* });
        conformance!(@kind real_v2026_9_6 real V2026_9_6 { $($room::$check,)* } { $($alone_room::$alone,)* });
    };
    (@kind $module:ident $kind:ident $dialect:ident
        { $($room:ident :: $check:ident,)* } { $($alone_room:ident :: $alone:ident,)* }) => {
        mod $module {
            use openclaw_controller::sim::SimDialect;

            use crate::env::Env;

            $(
                #[tokio::test]
                async fn $check() {
                    let env = Env::$kind(SimDialect::$dialect).await;
                    let _others = env.shared().await;
                    crate::$room::$check(&env).await;
                }
            )*
            $(
                #[tokio::test]
                async fn $alone() {
                    let env = Env::$kind(SimDialect::$dialect).await;
                    let _nobody = env.alone().await;
                    crate::$alone_room::$alone(&env).await;
                }
            )*
        }
    };
}

every_check!(conformance);
