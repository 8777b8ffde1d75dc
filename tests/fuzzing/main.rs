//! Hostile input, and the planner under arbitrary configs and files.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test says by a panic what went wrong")]

mod corpus;
mod memory;
mod planner_files;
mod planner_gateway;
mod shapes;
