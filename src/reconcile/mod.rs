//! The two reconcilers: load, observe, plan, apply, report.
//!
//! Nothing here compares desired with observed state (that is `plan`'s), knows SQL (`store`'s) or JSON-RPC (`gateway`'s).

mod agent;
mod ahead;
mod apply;
mod cache;
mod compatible;
mod diff;
mod failure;
mod fights;
mod fleet;
mod foresee;
mod gateway;
mod gateway_status;
mod goal;
mod held;
mod history;
mod informer;
mod leads;
mod leftovers;
mod live;
mod memory;
mod observe;
mod patch;
mod placement;
mod removal;
mod restarts;
mod rotation;
mod session;
mod slots;
mod spec;
mod status;
mod sync;
mod tokens;
mod unmanaged;
mod wake;
mod world;

pub use diff::{AgentDiff, FileDiff, GatewayDiff, diff, diff_some, left_behind};
pub use fleet::{AGENT_CONTROLLER, Fleet, GATEWAY_CONTROLLER, Workers};
pub use live::{Difference, Live, LiveObject};
pub use rotation::TokenPolicy;
pub use unmanaged::{UnmanagedAgents, unmanaged};
pub use world::{Clock, Settings};
