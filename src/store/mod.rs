//! Postgres: desired state in, status out, leases, notifications, migrations.
//!
//! Other rooms know this one by its traits: [`Store`] (rows and records), [`LeaseStore`] (who may write), [`HintSource`]
//! (what may have changed), [`CheckInStore`] (heartbeats of agents), [`RequestStore`] (what people ask for), [`SyncStore`]
//! (one-shot syncs), [`LookupStore`] (what people mean and what happened to it) and [`ViewStore`] (what people look at). [`PgStore`] is
//! the real thing; `MemoryStore` has the same behaviour without a database, for
//! tests under a paused clock. One list of behavioural tests runs over both.
//!
//! What is ours lives in the schema `openclaw_controller`. Of the tables that belong to the other program, only projections
//! of our state onto a few columns of `agents` are ever written, words that pause boards, where somebody asks for it, and what people say
//! in a fleet file (`PgStore::apply_fleet`).

mod api;
mod checkin;
mod error;
mod hint;
mod lease;
mod lookup;
#[cfg(feature = "sim")]
mod memory;
mod pg;
mod record;
mod request;
mod sync;
mod view;

pub use api::Store;
pub use checkin::{CheckInStore, CheckedIn};
pub use error::StoreError;
pub use hint::{Hint, HintSource};
pub use lease::{Fence, LeaseInfo, LeaseStore};
pub use lookup::{LookupStore, Named};
#[cfg(feature = "sim")]
pub use memory::{MemoryHints, MemoryStore, WakeColumns, WriteFault};
pub use pg::{ApplyError, ApplyOptions, ListenerState, Migrated, PgHints, PgOptions, PgStore};
pub use record::{
    AgentStatusWrite, Candidate, GatewayStatusWrite, LeadCreation, Placement, RecordedEvent, TokenState, VerifiedPair,
};
pub use request::{AgentSelector, RequestStore, Requested, RotationProgress};
pub use sync::{SyncProgress, SyncStore};
pub use view::{
    AgentSummary, BoardSummary, EventFilter, EventPosition, EventSummary, GatewaySummary, Listed, Totals, ViewFilter,
    ViewStore, Window,
};

/// The schema that holds everything of ours.
pub const SCHEMA: &str = "openclaw_controller";

/// For how long a token that was replaced is still taken at a check-in: as long as there is between two heartbeats, for an agent
/// reads its new token at its next one.
pub const ROTATION_GRACE: std::time::Duration = std::time::Duration::from_mins(10);

/// How long a candidate may still be needed once another hash than the one that it was to replace is the agent's: longer than any
/// write can be under way, its connection's death included.
pub const CANDIDATE_LIFETIME: std::time::Duration = std::time::Duration::from_mins(10);

/// The channel on which the triggers send their hints.
pub const CHANNEL: &str = "openclaw_controller";
