//! `openclaw-controller pause` and `resume`: a word in the chats of boards.

use std::process::ExitCode;

use clap::Args;

use super::out::{self, plain};
use super::reference::References;
use crate::model::BoardId;
use crate::store::{RequestStore, Store};

/// The arguments of `pause` and of `resume`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct PauseArgs {
    /// This board: its id, the beginning of that, its name or its slug; may be given several times.
    #[arg(long, value_name = "BOARD")]
    board: Vec<String>,

    /// The boards of this gateway; may be given several times.
    #[arg(long, value_name = "GATEWAY")]
    gateway: Vec<String>,

    /// Every board that is on a gateway.
    #[arg(long)]
    all: bool,
}

pub(super) async fn command(args: PauseArgs, paused: bool) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let references = References::load(&store).await?;
    let named = References::each(&args.board, |board| references.board(board))?;
    let gateways = References::each(&args.gateway, |gateway| references.gateway(gateway))?;
    let fleet = store.load_fleet().await?;
    let on_gateways = fleet
        .iter()
        .filter(|snapshot| args.all || gateways.contains(&snapshot.gateway.id))
        .flat_map(|snapshot| {
            let here = move |board: &&_| -> bool { is_on(board, snapshot.gateway.id) };
            snapshot.boards.values().filter(here).map(|board| board.id)
        });
    let boards: Vec<BoardId> = named.into_iter().chain(on_gateways).collect();
    let told = store.set_paused(&boards, paused).await?;
    let is = if paused { "paused" } else { "going on" };
    for id in &boards {
        let all = || fleet.iter().flat_map(|snapshot| snapshot.boards.values());
        let name = all().find(|board| board.id == *id).map(|board| plain(&board.name));
        let agents = fleet
            .iter()
            .flat_map(|snapshot| &snapshot.agents)
            .filter(|agent| agent.board_id == Some(*id))
            .count();
        let already = if told.contains(id) { "" } else { " already" };
        let agents = match agents {
            1 => "1 agent".to_owned(),
            count => format!("{count} agents"),
        };
        out::line(format_args!(
            "board {} ({id}) is{already} {is}, with {agents}",
            name.unwrap_or_else(|| "without a gateway".to_owned())
        ))?;
    }
    if boards.is_empty() {
        out::note("no board was found, so nothing was changed");
    }
    Ok(ExitCode::SUCCESS)
}

fn is_on(board: &crate::model::Board, gateway: crate::model::GatewayId) -> bool {
    board.gateway_id == Some(gateway)
}
