//! `openclaw-controller wake`: asks for a message to agents that has them start.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::out;
use super::reference::References;
use super::run::SCOPE;
use super::select::Which;
use crate::store::{LeaseStore, RequestStore, Requested};

/// The arguments of `wake`.
#[derive(Args, Debug)]
pub(super) struct WakeArgs {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn command(args: WakeArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let which = args.which.selector(&References::load(&store).await?)?;
    let requested = store.request_wake(&which).await?;
    out::line(described(&requested))?;
    if !requested.agents.is_empty() && !store.current(SCOPE).await?.is_some_and(|lease| lease.held) {
        out::note(
            "no controller is running on this database: they are woken once one does (`openclaw-controller run`)",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn described(requested: &Requested) -> String {
    let mut text = match requested.agents.len() {
        0 => "no agent was found, so nothing was requested".to_owned(),
        1 => "a wake was requested for 1 agent".to_owned(),
        count => format!("wakes were requested for {count} agents"),
    };
    if requested.deleting > 0 {
        let _ = write!(text, "; {} being deleted left out", requested.deleting);
    }
    text
}
