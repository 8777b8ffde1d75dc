//! `openclaw-controller apply`: makes the rows say what a file says.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use uuid::Uuid;

use super::out;
use crate::fleet::{self, Problem};
use crate::store::{ApplyError, ApplyOptions, StoreError};

/// More problems than these are not told one by one.
const TOLD: usize = 50;

/// The arguments of `apply`.
#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The file; `-` is standard input.
    #[arg(short, long, value_name = "FILE", required_unless_present = "schema")]
    filename: Option<PathBuf>,

    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Remove what belongs to the file's organizations and is not in the file.
    #[arg(long)]
    prune: bool,

    /// Print the JSON Schema of such files, for editors, and end.
    #[arg(long, conflicts_with_all = ["filename", "dry_run", "prune"])]
    schema: bool,
}

pub(super) async fn command(args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let Some(path) = args.filename.filter(|_| !args.schema) else {
        out::print(&fleet::schema())?;
        return Ok(ExitCode::SUCCESS);
    };
    let bytes = read(&path)?;
    let file = fleet::read(&bytes).map_err(|problems| told(&path, &problems))?;
    let store = super::connect_migrated().await.context("nothing was applied")?;
    let options = ApplyOptions {
        dry_run: args.dry_run,
        prune: args.prune,
    };
    let mut ids: HashMap<usize, Uuid> = HashMap::new();
    let new_id = |key| *ids.entry(key).or_insert_with(Uuid::new_v4);
    let plan = match store.apply_fleet(&file, options, new_id).await {
        Ok(plan) => plan,
        Err(ApplyError::File(problems)) => return Err(told(&path, &problems)),
        // Unlike the controller, this command does not come back by itself.
        Err(ApplyError::Store(StoreError::LockTimeout(what))) => {
            bail!("nothing was applied: {what} is locked by another program; apply again when it has done its work")
        }
        Err(ApplyError::Store(error)) => return Err(anyhow::Error::from(error).context("nothing was applied")),
    };
    out::print(&fleet::describe(&plan))?;
    let summary = fleet::summary(&plan);
    match (plan.is_empty(), args.dry_run) {
        (true, _) => out::line("the database is as the file says: nothing to do")?,
        (false, true) => out::line(format_args!("{summary}; this was a dry run, nothing was written"))?,
        (false, false) => out::line(format_args!("{summary}; applied"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the file, and no more of it than is ever used.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let most = fleet::MOST_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(most).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(bytes)
}

/// Everything that is wrong with a file, a line each.
fn told(path: &Path, problems: &[Problem]) -> anyhow::Error {
    let path = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut text = String::from("nothing was applied:");
    for problem in problems.iter().take(TOLD) {
        let _ = write!(text, "\n{path}:{problem}");
    }
    if let Some(more @ 1..) = problems.len().checked_sub(TOLD) {
        let _ = write!(text, "\nand {more} more");
    }
    anyhow!(text)
}
