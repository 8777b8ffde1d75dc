//! The two reconcilers: load, observe, plan, apply, report.
//!
//! Nothing here compares desired with observed state (that is `plan`'s), knows SQL (`store`'s) or JSON-RPC (`gateway`'s).

mod agent;
mod cache;
mod gateway;
mod goal;
mod informer;
mod memory;
mod observe;
mod session;
pub mod spec;
mod status;
mod tokens;
mod world;

pub use agent::AgentReconciler;
pub use gateway::GatewayReconciler;
pub use world::{Clock, Settings, World};
