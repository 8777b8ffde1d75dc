//! The planner: what has to change, as printable steps.
//!
//! Pure, synchronous, deterministic: no clock, no randomness, no I/O. A plan leaves no choice to whoever applies it.

mod agent;
mod fight;
mod gateway;
mod leads;
mod merge;
mod removal;
mod unmanaged;
mod wake;

pub use agent::{AgentGoal, FilePolicy, ObservedFile, ObservedFiles, plan_agent};
pub use fight::{Differing, Judgement, judge};
pub use gateway::{GatewayGoal, Hold, MAX_NEW_AGENTS_PER_PATCH, RosterGoal, plan_gateway};
pub use leads::{LeadPlan, plan_leads};
pub use removal::{MAX_REMOVALS_AT_ONCE, Refused, RemovalGoal};
pub use unmanaged::find_unmanaged;
pub use wake::{
    CHECK_IN_WITHIN, MAX_WAKES, SECOND_WRITER_PAUSE, WakeDecision, WakeInput, check_in_deadline, decide_wake,
};
