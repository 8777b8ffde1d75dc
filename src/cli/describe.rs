//! `openclaw-controller describe`: all that is known of one object, and what would change.

mod plan;
mod text;

use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::out;
use super::reference::References;
use super::run::SCOPE;
use super::table::yaml;
use crate::config::{DesiredArgs, ExistenceArgs, Span};
use crate::model::{AgentId, AgentRow, Board, BoardId, GatewayHistory, GatewayId, GatewaySnapshot, ObjectRef};
use crate::store::{LeaseStore, LookupStore, PgStore, Store};
use crate::view::{AgentView, BoardView, Due, EventView, GatewayView, Ready, Retry, TokenView, agent_due, gateway_due};
use plan::Plan;

/// The arguments of `describe`.
#[derive(Args, Debug)]
pub(super) struct DescribeArgs {
    /// What to describe.
    kind: Kind,

    /// Which one: its id, the beginning of that, its name, or its slug.
    name: String,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Whether its gateway is asked what would change.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    plan: When,

    /// How long the gateway may take to answer.
    #[arg(long, value_name = "SPAN", default_value = "15s")]
    timeout: Span,

    /// How many of the last events are shown.
    #[arg(long, value_name = "N", default_value_t = 20)]
    events: usize,

    #[command(flatten, next_help_heading = "For the plan; give them as for `run`")]
    desired: DesiredArgs,

    #[command(flatten)]
    existence: ExistenceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A gateway, with its boards and agents in numbers.
    #[value(alias = "gateways", alias = "gw")]
    Gateway,
    /// A board, with its agents.
    #[value(alias = "boards")]
    Board,
    /// An agent.
    #[value(alias = "agents")]
    Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Sections for people.
    Text,
    /// Everything, as JSON.
    Json,
    /// Everything, as YAML.
    Yaml,
}

/// Whether a gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    /// If something was not as desired when it was last looked at, and there is a device key to introduce ourselves with.
    Auto,
    /// In any case; a device key is made if there is none.
    Always,
    /// Not at all: the database is read alone.
    Never,
}

/// What is described, as it was loaded.
enum Object<'a> {
    Gateway,
    Board(&'a Board),
    Agent(&'a AgentRow),
}

/// All that is known of an object.
#[derive(Debug, Serialize)]
struct Description {
    #[serde(flatten)]
    object: View,
    /// The agents of a board.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<AgentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenView>,
    /// When a gateway was restarted by a write of ours within the last hour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restarts: Vec<DateTime<Utc>>,
    next: Next,
    events: Vec<EventView>,
    plan: Plan,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum View {
    Gateway(GatewayView),
    Board(BoardView),
    Agent(Box<AgentView>),
}

/// What happens next.
#[derive(Debug, Serialize)]
struct Next {
    /// When what is not as desired is tried again.
    retry: Retry,
    /// What has its time.
    due: Vec<Due>,
}

pub(super) async fn command(args: DescribeArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let references = References::load(&store).await?;
    let fleet = store.load_fleet().await?;
    let (snapshot, object) = match args.kind {
        Kind::Gateway => {
            let id = references.gateway(&args.name)?;
            let snapshot = fleet.iter().find(|snapshot| snapshot.gateway.id == id);
            (snapshot.context("its row has just been removed")?, Object::Gateway)
        }
        Kind::Board => board(&fleet, references.board(&args.name)?)?,
        Kind::Agent => agent(&fleet, references.agent(&args.name)?)?,
    };
    let runs = store.current(SCOPE).await?.is_some_and(|lease| lease.held);
    let known = known(&store, &fleet, snapshot, &object, runs, args.events).await?;
    let description = Description {
        plan: plan::of(&args, &store, &fleet, snapshot, &object).await?,
        ..known
    };
    match args.output {
        Output::Text => out::print(&text::of(&description, Utc::now()))?,
        Output::Json => out::line(serde_json::to_string_pretty(&description)?)?,
        Output::Yaml => out::print(&yaml(&serde_json::to_value(&description)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn board(fleet: &[GatewaySnapshot], id: BoardId) -> anyhow::Result<(&GatewaySnapshot, Object<'_>)> {
    fleet
        .iter()
        .find_map(|snapshot| Some((snapshot, Object::Board(snapshot.boards.get(&id)?))))
        .with_context(|| {
            format!("board {id} is on no gateway and has no agents, so nothing is known of it; set its gateway_id")
        })
}

fn agent(fleet: &[GatewaySnapshot], id: AgentId) -> anyhow::Result<(&GatewaySnapshot, Object<'_>)> {
    fleet
        .iter()
        .find_map(|snapshot| {
            let agent = snapshot.agents.iter().find(|agent| agent.id == id)?;
            Some((snapshot, Object::Agent(agent)))
        })
        .with_context(|| format!("agent {id} belongs to a gateway that has no row"))
}

/// What the database says.
async fn known(
    store: &PgStore,
    fleet: &[GatewaySnapshot],
    snapshot: &GatewaySnapshot,
    object: &Object<'_>,
    runs: bool,
    events: usize,
) -> anyhow::Result<Description> {
    let now = Utc::now();
    let gateway = snapshot.gateway.id;
    let history = store.history(gateway).await?;
    let of_gateway = Ready::of(&snapshot.record.conditions);
    let (view, members, token, restarts, next, about) = match object {
        Object::Gateway => {
            let view = GatewayView::of(snapshot, &store.leftovers().await?);
            let next = Next {
                retry: Retry::of_gateway(&view.ready, runs),
                due: gateway_due(snapshot, &history),
            };
            let restarts = restarts(&history, now);
            (
                View::Gateway(view),
                Vec::new(),
                None,
                restarts,
                next,
                vec![ObjectRef::Gateway(gateway)],
            )
        }
        Object::Board(board) => {
            let of_board = || snapshot.agents.iter().filter(|agent| agent.board_id == Some(board.id));
            let members: Vec<_> = of_board().map(|agent| AgentView::of(snapshot, agent, now)).collect();
            let worst = members.iter().find(|member| !member.ready.is_true());
            let due = of_board().flat_map(|agent| {
                let due = agent_due(snapshot, agent, &history);
                due.into_iter().map(|due| Due {
                    what: format!("{}: {}", agent.name, due.what),
                    ..due
                })
            });
            let next = Next {
                retry: worst.map_or(Retry::NotNeeded, |worst| Retry::of_agent(worst, &of_gateway, runs)),
                due: due.collect(),
            };
            let about = of_board().map(|agent| ObjectRef::Agent(agent.id)).collect();
            let view = BoardView::of(snapshot, board);
            (View::Board(view), members, None, Vec::new(), next, about)
        }
        Object::Agent(agent) => {
            let view = AgentView::of(snapshot, agent, now);
            let token = TokenView::of(&store.token_state(agent.id).await?);
            let next = Next {
                retry: Retry::of_agent(&view, &of_gateway, runs),
                due: agent_due(snapshot, agent, &history),
            };
            let about = vec![ObjectRef::Agent(agent.id)];
            (
                View::Agent(Box::new(view)),
                Vec::new(),
                Some(token),
                Vec::new(),
                next,
                about,
            )
        }
    };
    let names = EventView::names(fleet);
    let recorded = store.events_of(Some(&about), events).await?;
    let mut events: Vec<_> = recorded
        .into_iter()
        .map(|recorded| EventView::of(recorded, &names))
        .collect();
    events.reverse();
    Ok(Description {
        object: view,
        members,
        token,
        restarts,
        next,
        events,
        plan: Plan::not_looked_at("nobody asked for it"),
    })
}

fn restarts(history: &GatewayHistory, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let hour_ago = now - chrono::TimeDelta::hours(1);
    let lately = history.restarts.iter().filter(|restart| restart.at > hour_ago);
    lately.map(|restart| restart.at).collect()
}

impl Object<'_> {
    /// Whether all of it was as desired when it was last looked at.
    fn is_ready(&self, snapshot: &GatewaySnapshot) -> bool {
        let ready = |agent: &AgentRow| AgentView::ready(snapshot, agent.id).is_true();
        match self {
            Self::Gateway => Ready::of(&snapshot.record.conditions).is_true() && snapshot.agents.iter().all(ready),
            Self::Board(_) => snapshot.agents.iter().filter(|agent| self.means(agent)).all(ready),
            Self::Agent(agent) => ready(agent),
        }
    }

    /// Whether an agent of its gateway is meant by it.
    fn means(&self, agent: &AgentRow) -> bool {
        match self {
            Self::Gateway => true,
            Self::Board(board) => agent.board_id == Some(board.id),
            Self::Agent(meant) => agent.id == meant.id,
        }
    }
}

/// The gateway of a snapshot, for messages.
fn gateway_name(snapshot: &GatewaySnapshot) -> (GatewayId, String) {
    (snapshot.gateway.id, out::plain(&snapshot.gateway.name))
}
