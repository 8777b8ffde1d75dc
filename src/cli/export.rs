//! `openclaw-controller export`: the rows as a file that `apply` takes.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use uuid::Uuid;

use super::out;
use crate::fleet::{self, Rows};

/// The arguments of `export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Only this organization, by name or id; may be given several times.
    #[arg(long, value_name = "NAME|ID")]
    organization: Vec<String>,
}

pub(super) async fn command(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let rows = store.fleet_rows().await?;
    let only = if args.organization.is_empty() {
        None
    } else {
        let ids: Result<BTreeSet<Uuid>, _> = args.organization.iter().map(|name| organization(&rows, name)).collect();
        Some(ids?)
    };
    let exported = fleet::export(&rows, only.as_ref())
        .map_err(|problem| anyhow!("the fleet cannot be written as YAML: {problem}"))?;
    for note in &exported.notes {
        out::note(format_args!("note: {note}"));
    }
    out::print(&exported.yaml)?;
    Ok(ExitCode::SUCCESS)
}

fn organization(rows: &Rows, wanted: &str) -> anyhow::Result<Uuid> {
    let these: Vec<Uuid> = rows
        .organizations
        .iter()
        .filter(|row| row.name.as_deref() == Some(wanted) || row.id.to_string() == wanted.to_lowercase())
        .map(|row| row.id)
        .collect();
    match these[..] {
        [id] => Ok(id),
        [] => {
            let names: Vec<&str> = rows
                .organizations
                .iter()
                .filter_map(|row| row.name.as_deref())
                .take(10)
                .collect();
            bail!("there is no organization {wanted:?}; there are: {}", names.join(", "))
        }
        _ => bail!(
            "{} organizations are called {wanted:?}: give the id of one",
            these.len()
        ),
    }
}
