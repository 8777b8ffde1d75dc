//! A level-triggered controller for OpenClaw gateways.
//!
//! Rows in Postgres say which agents should exist; the controller reads them, compares them with what each gateway actually
//! holds, and converges. See `ARCHITECTURE.md` for the map of the modules ("rooms"): each may import only from those listed
//! above it here.

pub mod cli;
pub mod config;
pub mod fleet;
pub mod gateway;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod render;
pub mod runtime;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod token;
pub mod view;

#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "sim")]
pub mod lab;

#[cfg(feature = "sim")]
pub mod fuzz;
