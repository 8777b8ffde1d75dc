//! What is printed: a line per check, and the table at the end.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::time::timeout;

/// When a check is given up: far beyond what any takes on a loaded machine, so that the matrix ends all the same.
const LIMIT: Duration = Duration::from_mins(15);

/// How much of a failure is shown where it happens, in lines, and after the table, in characters.
const LINES: usize = 40;
const CHARACTERS: usize = 200;

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Has panics noted instead of printed, since they belong into the line of their check.
pub(crate) fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("it panicked");
        let place = panic
            .location()
            .map(|at| format!(" ({}:{})", at.file(), at.line()))
            .unwrap_or_default();
        // The first is the reason; others may follow from it.
        last().get_or_insert_with(|| format!("{message}{place}"));
    }));
}

fn last() -> std::sync::MutexGuard<'static, Option<String>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a check: its value, or why it failed.
pub(crate) fn guarded<'a, T: 'a>(check: impl Future<Output = T> + 'a) -> LocalBoxFuture<'a, Result<T, String>> {
    let check = AssertUnwindSafe(check).catch_unwind();
    Box::pin(async move {
        last().take();
        match timeout(LIMIT, check).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(last().take().unwrap_or_else(|| "it panicked".to_owned())),
            Err(_) => Err(format!("not done within {} minutes", LIMIT.as_secs() / 60)),
        }
    })
}

/// One cell of the table.
enum Cell {
    Ok,
    Red,
    NotRun,
    Told(String),
}

/// All that was found out.
pub(crate) struct Report {
    versions: Vec<String>,
    /// The checks in the order in which they were first met.
    rows: Vec<String>,
    cells: BTreeMap<(String, String), Cell>,
    reds: Vec<String>,
    begun: Instant,
    last: Instant,
}

impl Report {
    pub(crate) fn new(versions: &[String]) -> Self {
        Self {
            versions: versions.to_vec(),
            rows: Vec::new(),
            cells: BTreeMap::new(),
            reds: Vec::new(),
            begun: Instant::now(),
            last: Instant::now(),
        }
    }

    /// Prints the line of a check.
    pub(crate) fn line(&mut self, version: &str, check: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.print(version, "ok", check);
                self.set(version, check, Cell::Ok);
            }
            Err(why) => self.red(version, check, &why),
        }
    }

    /// Prints the line of a check that failed.
    pub(crate) fn red(&mut self, version: &str, check: &str, why: &str) {
        self.print(version, "RED", check);
        for line in why.lines().take(LINES) {
            println!("{:>12}{line}", "");
        }
        self.reds.push(format!(
            "{version}  {check}: {}",
            why.lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(CHARACTERS)
                .collect::<String>()
        ));
        self.set(version, check, Cell::Red);
    }

    /// Notes that a check could not be made, for an earlier one has failed.
    pub(crate) fn not_run(&mut self, version: &str, check: &str) {
        self.print(version, "not run", check);
        self.set(version, check, Cell::NotRun);
    }

    /// Notes what a version was found to be like.
    pub(crate) fn told(&mut self, version: &str, what: &str, value: &str) {
        self.print(version, value, what);
        self.set(version, what, Cell::Told(value.to_owned()));
    }

    fn print(&mut self, version: &str, result: &str, check: &str) {
        let seconds = self.last.elapsed().as_secs_f64();
        println!("{version:<14} {result:<10} {seconds:6.1} s  {check}");
        self.last = Instant::now();
    }

    fn set(&mut self, version: &str, row: &str, cell: Cell) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.cells.insert((version.to_owned(), row.to_owned()), cell);
    }

    /// Prints the table.
    pub(crate) fn finish(self) -> ExitCode {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["check"].into_iter().chain(self.versions.iter().map(String::as_str)));
        for row in &self.rows {
            let cells = self.versions.iter().map(|version| {
                match self.cells.get(&(version.clone(), row.clone())) {
                    Some(Cell::Ok) => "ok",
                    Some(Cell::Red) => "RED",
                    Some(Cell::NotRun) => "not run",
                    Some(Cell::Told(value)) => value,
                    None => "–",
                }
                .to_owned()
            });
            table.add_row([row.clone()].into_iter().chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Center);
        }
        println!("\n{table}\n");
        for red in &self.reds {
            println!("RED  {red}");
        }
        let (versions, minutes) = (self.versions.len(), self.begun.elapsed().as_secs() / 60);
        let checks = self
            .cells
            .values()
            .filter(|cell| !matches!(cell, Cell::Told(_)))
            .count();
        let green = self.cells.values().filter(|cell| matches!(cell, Cell::Ok)).count();
        println!("{green} of {checks} checks on {versions} versions are green ({minutes} min)");
        // Nothing was asked for by a name that nothing has: that is no success either.
        if green == checks && checks > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
