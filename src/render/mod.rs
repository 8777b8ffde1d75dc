//! Templates and the files rendered from them, for a dialect.
//!
//! Rendering is pure: the same rows, templates and dialect give the same text. Where an agent's token goes, the text has
//! [`TOKEN_SENTINEL`](crate::model::TOKEN_SENTINEL); no token ever gets here.

mod engine;
mod files;
mod fold;
mod heartbeat;
mod python;
mod set;
mod variables;

pub use files::{FileError, FileWarning, Rendered, heartbeat_prompt, render};
pub use heartbeat::heartbeat;
pub use set::{TemplateSet, TemplateSetError};
pub use variables::RenderInput;

#[cfg(test)]
mod tests;
