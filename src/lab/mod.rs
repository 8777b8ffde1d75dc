//! Private Postgres and Prometheus servers, real gateways and a browser for tests, benchmarks and the demo, and the contract of the
//! protocol.
//!
//! Everything the lab starts lives in one temporary directory of its own, listens on a random port of 127.0.0.1, and is
//! watched by a guardian process that ends it and removes the directory when the value is dropped **or** when this process
//! dies in whatever way. A missing prerequisite is installed into [`cache_dir`] (by the scripts in `deploy/dev`) or is an error;
//! it is never a reason to skip something.
//!
//! Linux only: processes are found through `/proc`.

mod browser;
mod gateway;
mod guard;
mod handshake;
mod install;
mod network;
mod port;
mod postgres;
mod processes;
mod prometheus;
mod readiness;
mod shared;

pub use browser::Browser;
pub use gateway::{Options, RealGateway};
pub use install::{CONTRACT, VERSIONS, cache_dir, deploy_tools, jq, openapi_schema, protocol_schema};
pub use network::{Network, in_own_network};
pub use port::free as free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use prometheus::{Prometheus, promtool};
pub use shared::shared_postgres;

#[cfg(test)]
mod tests;
