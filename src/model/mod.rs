//! The vocabulary everything else speaks: identities, desired and observed state, dialects, plan steps, conditions.
//!
//! Pure data and pure functions. This room knows neither SQL nor JSON-RPC and does no I/O.

mod condition;
mod desired;
mod dialect;
mod file;
mod history;
mod identity;
mod lead;
mod leftover;
mod observed;
mod record;
mod reference;
mod step;
mod sync;
mod unmanaged;
mod version;
mod wake;

pub use condition::{Condition, ConditionStatus, ConditionType, Conditions, FIGHTING_WRITER, RESTART_BUDGET_EXHAUSTED};
pub use desired::{AgentRequests, AgentRow, Board, GatewayRow, GatewaySnapshot, JsonColumn, User};
pub use dialect::{Dialect, Effect, RosterShape, Visibility};
pub use file::{FileName, TOKEN_SENTINEL, break_sentinel};
pub use history::{CausedRestart, ConfigPart, GatewayHistory, Undoing};
pub use identity::{AgentId, AgentRole, BoardId, GatewayAgentId, GatewayId, session_key, slug, workspace_path};
pub use lead::{EnsureLeads, LeadSettings, NewLead};
pub use leftover::{Leftover, LeftoverReason, Traces};
pub use observed::{ConfigSizes, EntrySize, FileContent, FileStat, ObservedConfig, RosterEntry};
pub use record::{AgentRecord, Event, EventKind, GatewayRecord, ObjectRef};
pub use reference::{TokenSetting, VARIABLE_PREFIX, is_variable};
pub use step::{AgentPlan, ConfigChange, ConfigStep, CreationStep, FileStep, FileWrite, GatewayPlan, RemovalStep};
pub use sync::{SyncError, SyncId, SyncOptions, SyncRequest, SyncResult, SyncedAgent};
pub use unmanaged::{Unmanaged, UnmanagedReason};
pub use version::GatewayVersion;
pub use wake::{Wake, WakeRecord, WakeState};
