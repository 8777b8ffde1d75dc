//! Real gateways of many versions, one after the other: every check of the conformance suite, and one fleet from its cold start
//! to the removal of an agent. A line for each version and check as it goes, a table at the end, and a failure if anything in it
//! is red.
//!
//! `cargo test --features sim --test gateways -- [VERSION…] [--only TEXT]`, or `make test-gateways`. Never part of a plain
//! `cargo test`: it takes half an hour and 5 GB.
//!
//! A version that is not named in the tables of the tests is asked first what it is like, and is then held to that.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a check that cannot go on has failed; these say where"
)]

#[path = "../conformance/checks.rs"]
#[macro_use]
mod checks;

#[path = "../conformance/agents.rs"]
mod agents;
#[path = "../converge_real/binary.rs"]
#[allow(dead_code, reason = "other stories need the rest")]
mod binary;
#[path = "../conformance/config.rs"]
mod config;
#[path = "../conformance/connect.rs"]
mod connect;
#[path = "../conformance/contract.rs"]
mod contract_tour;
#[path = "../conformance/env.rs"]
#[allow(dead_code, reason = "the conformance tests need the rest")]
mod env;
#[path = "../conformance/facts.rs"]
mod facts;
#[path = "../conformance/files.rs"]
mod files;
#[path = "../converge_real/fixture.rs"]
#[allow(dead_code, reason = "other stories need the rest")]
mod fixture;
#[path = "../converge_real/operator.rs"]
mod operator;
#[path = "../converge_real/pausing.rs"]
mod pausing;
#[path = "../conformance/raw.rs"]
mod raw;
#[path = "../converge_real/removal.rs"]
#[allow(dead_code, reason = "the scenario has some steps of it")]
mod removal;
mod report;
mod scenario;
#[path = "../conformance/sessions.rs"]
mod sessions;
#[path = "../converge_real/story.rs"]
#[allow(dead_code, reason = "the scenario has some steps of it")]
mod story;
#[path = "../support/mod.rs"]
mod support;

use support::contract;

use std::pin::Pin;
use std::process::ExitCode;

use clap::Parser;
use openclaw_controller::lab::{Options, RealGateway};

use crate::env::Env;
use crate::facts::{Facts, NAMED};
use crate::report::{Report, guarded};

/// Every check of the conformance suite and one scenario, on real gateways.
#[derive(Parser)]
struct Arguments {
    /// The versions; all that the tests name if none is given.
    versions: Vec<String>,
    /// Only checks with this text in their name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// A gateway as people have it.
fn everyday() -> Options {
    Options {
        state_below_home: true,
        ..Options::default()
    }
}

/// A check by its name.
struct Check {
    name: &'static str,
    run: for<'a> fn(&'a Env) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

macro_rules! list {
    (shared { $($room:ident :: $check:ident,)* } alone { $($alone_room:ident :: $alone:ident,)* }) => {
        [
            $(Check {
                name: concat!(stringify!($room), "::", stringify!($check)),
                run: |env| Box::pin(crate::$room::$check(env)),
            },)*
            $(Check {
                name: concat!(stringify!($alone_room), "::", stringify!($alone)),
                run: |env| Box::pin(crate::$alone_room::$alone(env)),
            },)*
        ]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let versions = if arguments.versions.is_empty() {
        NAMED.map(str::to_owned).to_vec()
    } else {
        arguments.versions
    };
    report::remember_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    runtime.block_on(async {
        let mut report = Report::new(&versions);
        for version in &versions {
            if let Some(facts) = conformance(&mut report, version, &arguments.only).await {
                scenario::play(&mut report, version, &facts, &arguments.only).await;
            }
        }
        report.finish()
    })
}

/// All checks of the conformance suite on one gateway, one after the other. Returns what the gateway is like.
async fn conformance(report: &mut Report, version: &str, only: &str) -> Option<Facts> {
    let checks = every_check!(list);
    let mut checks = checks.iter().filter(|check| check.name.contains(only)).peekable();
    if let Some(facts) = Facts::of(version)
        && checks.peek().is_none()
    {
        return Some(facts);
    }
    let start = async {
        let gateway = RealGateway::start(version, everyday())
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        Env::started(gateway).await
    };
    let env = match guarded(start).await {
        Ok(Ok(env)) => env,
        Ok(Err(error)) => {
            scenario::refusal(report, version, &error).await;
            return None;
        }
        Err(why) => {
            report.red(version, "the gateway starts", &why);
            return None;
        }
    };
    report.told(version, "reports", &env.facts.reports);
    // The differences from the protocol's schema are listed for the versions that are simulated as well.
    let simulated = env.facts.simulated().is_some();
    for check in checks.filter(|check| simulated || !check.name.starts_with("contract_tour::")) {
        let result = guarded((check.run)(&env)).await;
        report.line(version, check.name, result);
    }
    Some(env.facts.clone())
}
