//! The controller's core under a paused clock, on simulated gateways and rows in memory: thousands of things that go wrong,
//! and after each the promise that the rows and the gateways agree in the end, and stay so without a write.
//!
//! `OPENCLAW_SIMULATION_SEED=n` runs one schedule again, and tells with `RUST_LOG` what the controller did;
//! `OPENCLAW_SIMULATION_SCHEDULES=n` runs another number of them, `OPENCLAW_SIMULATION_FIRST=n` others. A seed fixes everything that is done to the fleet and when;
//! the tokens alone are always new.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a simulation that cannot go on has failed; these say where"
)]

#[path = "simulation/adoption.rs"]
mod adoption;
#[path = "simulation/approval.rs"]
mod approval;
#[path = "contract/mod.rs"]
mod contract;
#[path = "simulation/crash_points.rs"]
mod crash_points;
#[path = "simulation/deadlines.rs"]
mod deadlines;
#[path = "simulation/edits.rs"]
mod edits;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/fights.rs"]
mod fights;
#[path = "simulation/fleet.rs"]
mod fleet;
#[path = "simulation/held.rs"]
mod held;
#[path = "simulation/incompatible.rs"]
mod incompatible;
#[path = "simulation/interrupted.rs"]
mod interrupted;
#[path = "simulation/leads.rs"]
mod leads;
#[path = "simulation/leftovers.rs"]
mod leftovers;
#[path = "simulation/overwritten.rs"]
mod overwritten;
#[path = "simulation/promise.rs"]
mod promise;
#[path = "simulation/regressions.rs"]
mod regressions;
#[path = "simulation/removal.rs"]
mod removal;
#[path = "simulation/restarts.rs"]
mod restarts;
#[path = "simulation/rotation.rs"]
mod rotation;
#[path = "simulation/runner.rs"]
mod runner;
#[path = "simulation/scenarios.rs"]
mod scenarios;
#[path = "simulation/schedule.rs"]
mod schedule;
#[path = "simulation/steady.rs"]
mod steady;
#[path = "simulation/sync_failures.rs"]
mod sync_failures;
#[path = "simulation/sync_meanwhile.rs"]
mod sync_meanwhile;
#[path = "simulation/syncs.rs"]
mod syncs;
#[path = "simulation/upgrade.rs"]
mod upgrade;
#[path = "simulation/wakes.rs"]
mod wakes;
