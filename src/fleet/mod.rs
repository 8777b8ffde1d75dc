//! A fleet as a file: what `apply` reads and `export` writes.
//!
//! [`read`] makes a [`Fleet`] of YAML, in which every value knows its line and column. [`diff`] compares it with [`Rows`] and lists what has to be
//! written, as a [`Plan`] that can be printed ([`describe`]) and carried out (by the store). [`export`] is the way back: a file that changes nothing
//! when it is applied.
//!
//! Pure data and pure functions: nothing in here does I/O or knows SQL.

mod change;
mod check;
mod columns;
mod describe;
mod diff;
mod export;
mod find;
mod model;
mod owners;
mod problem;
mod prune;
mod read;
mod rows;
mod schema;
mod tree;

pub use change::{Action, Cell, Change, FieldChange, Plan, Table};
pub use describe::{describe, summary};
pub use diff::diff;
pub use export::{Exported, export};
pub use model::{
    Agent, Board, Field, Fleet, Gateway, Instant, Marked, Named, Nullable, Organization, Owner, STORED_TOKEN, Text,
};
pub use problem::{Mark, Problem};
pub use read::read;
pub use rows::{AgentRow, BoardRow, GatewayRow, OrganizationRow, Rows};
pub use schema::{SCHEMA_FILE, schema};
pub use tree::MOST_BYTES;
