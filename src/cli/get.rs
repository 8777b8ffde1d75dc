//! `openclaw-controller get`: gateways, boards, agents and events, from the database alone; and agents on gateways that no row
//! explains.

mod condition;
mod items;
mod selection;
mod watch;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::out::{self, plain};
use super::reference::References;
use super::table::{Columns, Item, Output, yaml};
use super::{FAILED, unmanaged};
use crate::config::{ConnectionArgs, Span};
use crate::gateway::RpcMetrics;
use crate::store::Store;
use condition::Wanted;
use selection::Selection;

/// The arguments of `get`.
#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// What to list.
    kind: Kind,

    /// Only these: ids, beginnings of ids, or names; for `events` those of these agents and gateways.
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// How to print: `wide` adds ids and messages, `json` and `yaml` have everything.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Only what belongs to this gateway.
    #[arg(long, value_name = "GATEWAY")]
    gateway: Option<String>,

    /// Only what belongs to this board.
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,

    /// Only gateways or agents of which this condition is so: Ready=False, Paused=True; may be given several times, and all must be.
    #[arg(long, value_name = "TYPE=STATUS")]
    condition: Vec<Wanted>,

    /// Only gateways and agents whose Ready is not True, and boards with such agents.
    #[arg(long)]
    not_ready: bool,

    /// For `events`: only those that need a look.
    #[arg(long)]
    warnings: bool,

    /// For `events`: at most so many, the newest.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// After the list, go on printing what changes, until a signal; json is one object in each line then.
    #[arg(short, long)]
    watch: bool,

    /// With --watch: how often to look although the database announced nothing, at the most: 2s, 1m.
    #[arg(long, value_name = "SPAN", default_value = "2s", requires = "watch")]
    interval: Span,

    #[command(flatten, next_help_heading = "For `unmanaged`, which asks gateways")]
    connections: ConnectionArgs,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Gateways, with their conditions.
    #[value(alias = "gateway", alias = "gw")]
    Gateways,
    /// Boards, with how many of their agents are ready.
    #[value(alias = "board")]
    Boards,
    /// Agents, with their conditions.
    #[value(alias = "agent")]
    Agents,
    /// What happened to gateways and agents, newest last.
    #[value(alias = "event")]
    Events,
    /// Agents on gateways that no row explains.
    Unmanaged,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Gateways => "gateways",
            Self::Boards => "boards",
            Self::Agents => "agents",
            Self::Events => "events",
            Self::Unmanaged => "unmanaged agents",
        }
    }
}

pub(super) async fn command(args: GetArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let store = super::connect_migrated().await?;
    let selection = Selection::of(&args, &References::load(&store).await?)?;
    if args.watch {
        return watch::command(&store, &selection, args.output, args.interval.0).await;
    }
    let mut errors = Vec::new();
    let items = if args.kind == Kind::Unmanaged {
        let connector = args.connections.connector(RpcMetrics::unregistered())?;
        let fleet = store.load_fleet().await?;
        let looks = unmanaged::look(&store, &connector, &fleet, selection.gateway).await?;
        let mut items = Vec::new();
        for look in looks {
            items.extend(look.agents.iter().map(|agent| unmanaged::item(&look.name, agent)));
            if let Some(message) = look.error {
                out::note(format_args!(
                    "error: gateway {} ({}) could not be asked: {}",
                    look.gateway,
                    plain(&look.name),
                    plain(&message)
                ));
                errors.push(json!({"gatewayId": look.gateway, "gatewayName": look.name, "message": message}));
            }
        }
        items
    } else {
        selection.items(&store).await?
    };
    let code = if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    };
    print(args.kind, args.output, items, errors)?;
    Ok(code)
}

fn print(kind: Kind, output: Output, items: Vec<Item>, errors: Vec<Value>) -> anyhow::Result<()> {
    if matches!(output, Output::Json | Output::Yaml) {
        let items: Vec<_> = items.into_iter().map(|item| item.json).collect();
        let mut list = json!({ "items": items });
        if kind == Kind::Unmanaged {
            list["errors"] = errors.into();
        }
        match output {
            Output::Yaml => out::print(&yaml(&list)?)?,
            _ => out::line(serde_json::to_string_pretty(&list)?)?,
        }
        return Ok(());
    }
    if !items.is_empty() {
        out::line(Columns::default().lines(&items, output == Output::Wide))?;
    } else if errors.is_empty() {
        out::note(format_args!("no {} found", kind.plural()));
    }
    Ok(())
}

impl GetArgs {
    /// Refuses what would silently do nothing.
    fn check(&self) -> anyhow::Result<()> {
        let kind = self.kind.plural();
        let only = |given: bool, flag: &str, kinds: &[Kind]| {
            let kinds_text: Vec<_> = kinds.iter().map(|kind| kind.plural()).collect();
            anyhow::ensure!(
                !given || kinds.contains(&self.kind),
                "{flag} says nothing about {kind}; it is for {}",
                kinds_text.join(", ")
            );
            Ok(())
        };
        use Kind::{Agents, Boards, Events, Gateways};
        only(!self.names.is_empty(), "a name", &[Gateways, Boards, Agents, Events])?;
        only(self.board.is_some(), "--board", &[Boards, Agents, Events])?;
        only(!self.condition.is_empty(), "--condition", &[Gateways, Agents])?;
        only(self.not_ready, "--not-ready", &[Gateways, Boards, Agents])?;
        only(self.warnings, "--warnings", &[Events])?;
        only(self.watch, "--watch", &[Gateways, Boards, Agents, Events])
    }
}
