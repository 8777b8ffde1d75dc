//! Hostile input: everything that a gateway can say, read from arbitrary bytes, and what must be true of it all the same.
//!
//! Each target is a plain function that panics where a promise is broken. `fuzz/` hands them to libFuzzer; the tests run them on
//! the corpus in `fuzz/corpus`, and on what [`mutate`] makes of it, with the toolchain that everything else is built with.

#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise is a panic here")]

mod config;
mod file;
mod frame;
pub mod mutate;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its directory in the corpus.
    pub name: &'static str,
    /// Reads one input, and panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 3] = [
    Target {
        name: "frame",
        run: frame::run,
    },
    Target {
        name: "config",
        run: config::run,
    },
    Target {
        name: "file",
        run: file::run,
    },
];

/// Runs the target of this name on one input.
///
/// # Panics
/// There is no such target, or a promise is broken.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(input);
}

/// Asserts that an error can be shown: one line of bounded length, whatever the gateway said.
fn assert_presentable(error: &crate::gateway::GatewayError) {
    let shown = error.to_string();
    assert!(
        shown.chars().count() <= 2000,
        "an error of {} characters",
        shown.chars().count()
    );
    assert!(!shown.chars().any(char::is_control), "control characters in an error");
    assert!(!error.reason().is_empty());
}
