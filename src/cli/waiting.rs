//! What commands that wait for the controller have in common: showing how far it has come, and being interrupted.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::out;

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

    /// Shows on a terminal what is waited for, until it is known how many there are; elsewhere nothing.
    pub(super) fn on_terminal(awaited: &'static str) -> Self {
        let Some(bar) = on_terminal(ProgressBar::no_length(), "{spinner} {msg}, {elapsed}") else {
            return Self::Nothing;
        };
        bar.set_message(awaited);
        Self::Bar(bar)
    }

    fn bar(all: usize, what: &'static str) -> Option<Self> {
        on_terminal(ProgressBar::new(all as u64), &template(what)).map(Self::Bar)
    }

    /// There are so many of these in all.
    pub(super) fn of(&mut self, count: usize, what: &'static str) {
        match self {
            Self::Bar(bar) if bar.length() != Some(count as u64) => {
                bar.set_length(count as u64);
                set_style(bar, &template(what));
            }
            Self::Lines { all, .. } => *all = count,
            Self::Bar(_) | Self::Nothing => {}
        }
    }

    /// So many are done.
    pub(super) fn at(&mut self, done: usize) {
        match self {
            Self::Bar(bar) => bar.set_position(done as u64),
            Self::Lines { what, all, last } => {
                if *last != Some(done) {
                    out::note(format_args!("{done} of {all} {what}"));
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

fn template(what: &str) -> String {
    format!("{{bar:40}} {{pos}} of {{len}} {what}, {{elapsed}}")
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// The bar, if there is a terminal to show it on.
fn on_terminal(bar: ProgressBar, template: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    set_style(&bar, template);
    bar.enable_steady_tick(LOOK_EVERY);
    Some(bar)
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
