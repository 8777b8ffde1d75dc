//! The commands.

#[cfg(feature = "sim")]
pub mod demo;
