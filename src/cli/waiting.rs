//! What commands that wait for the controller have in common: showing how far it has come, and being interrupted.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code when the waiting was ended by a signal.
pub(super) const INTERRUPTED: u8 = 130;

/// How often it is looked how far things have come.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Progress for people: a bar on a terminal; else a line for each step, or nothing.
pub(super) enum Shown {
    /// A bar.
    Bar(ProgressBar),
    /// Lines.
    Lines {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        all: usize,
        /// The last number that was told.
        last: Option<usize>,
    },
    /// Nothing.
    Nothing,
}

impl Shown {
    /// Shows how many of `all` there are, on standard error.
    pub(super) fn new(all: usize, what: &'static str) -> Self {
        Self::bar(all, what).unwrap_or(Self::Lines { what, all, last: None })
    }

    /// The same, but shows nothing where there is no terminal.
    pub(super) fn on_terminal(all: usize, what: &'static str) -> Self {
        Self::bar(all, what).unwrap_or(Self::Nothing)
    }

    fn bar(all: usize, what: &'static str) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new(all as u64);
        if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}} of {{len}} {what}, {{elapsed}}")) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(LOOK_EVERY);
        Some(Self::Bar(bar))
    }

    /// There are so many in all.
    pub(super) fn of(&mut self, count: usize) {
        match self {
            Self::Bar(bar) => bar.set_length(count as u64),
            Self::Lines { all, .. } => *all = count,
            Self::Nothing => {}
        }
    }

    /// So many are done.
    pub(super) fn at(&mut self, done: usize) {
        match self {
            Self::Bar(bar) => bar.set_position(done as u64),
            Self::Lines { what, all, last } => {
                if *last != Some(done) {
                    eprintln!("{done} of {all} {what}");
                    *last = Some(done);
                }
            }
            Self::Nothing => {}
        }
    }

    /// The waiting has ended.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Completes when a signal asks this process to end; signals are caught from this call on.
pub(super) fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
