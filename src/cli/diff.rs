//! `openclaw-controller diff`: what `run` would change.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use similar::TextDiff;

use super::out::{self, plain, styled};
use super::reference::References;
use super::table::yaml;
use super::{DIFFERENCES, FAILED, run};
use crate::config::{DesiredArgs, ExistenceArgs, TokenHash};
use crate::gateway::RpcMetrics;
use crate::model::{ConfigChange, ConfigStep, Effect};
use crate::reconcile::{self, AgentDiff, FileDiff, GatewayDiff};
use crate::store::Store;

/// The arguments of `diff`.
#[derive(Args, Debug)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    desired: DesiredArgs,

    #[command(flatten)]
    existence: ExistenceArgs,

    /// Only this gateway: its id, the beginning of that, or its name.
    #[arg(long, value_name = "GATEWAY")]
    gateway: Option<String>,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Steps and unified diffs.
    Text,
    /// The same as JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

pub(super) async fn command(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let store = super::connect_migrated().await?;
    let only = match &args.gateway {
        Some(gateway) => Some(References::load(&store).await?.gateway(gateway)?),
        None => None,
    };
    let existing = store.is_existing_installation().await?;
    let templates = run::templates(&args.desired)?;
    let mut settings = run::settings(&args.desired, TokenHash::Auto, std::time::Duration::MAX, existing);
    args.existence.apply(&mut settings, existing);
    let connector = run::connector(&args.desired, RpcMetrics::unregistered())?;
    let mut fleet = store.load_fleet().await?;
    let left = reconcile::left_behind(&fleet);
    fleet.retain(|snapshot| only.is_none_or(|id| snapshot.gateway.id == id));
    let mut diffs = Vec::new();
    for snapshot in fleet {
        diffs.push(reconcile::diff(&store, &connector, &templates, &settings, snapshot, &left).await?);
    }
    match args.output {
        Output::Json => out::line(serde_json::to_string_pretty(&diffs)?)?,
        Output::Yaml => out::print(&yaml(&diffs)?)?,
        Output::Text => out::print(&diffs.iter().map(text).collect::<String>())?,
    }
    Ok(if diffs.iter().any(GatewayDiff::failed) {
        ExitCode::from(FAILED)
    } else if diffs.iter().any(GatewayDiff::differs) {
        ExitCode::from(DIFFERENCES)
    } else {
        ExitCode::SUCCESS
    })
}

/// A gateway's diff for people; empty if there is nothing to say.
pub(super) fn text(diff: &GatewayDiff) -> String {
    let mut out = String::new();
    for lead in &diff.leads {
        let _ = writeln!(
            out,
            "  + lead of board {} ({}): a row {:?}, then {} with its files and a token",
            lead.board,
            lead.board_name,
            lead.name,
            lead.gateway_agent_id()
        );
    }
    for problem in &diff.lead_problems {
        let _ = writeln!(out, "  note: a lead could not be made: {problem}");
    }
    for step in &diff.config.creations {
        let _ = writeln!(
            out,
            "  + agent {}, made by the gateway, workspace {}  ({})",
            step.id, step.workspace, step.why
        );
    }
    if !diff.config.steps.is_empty() {
        let effect = match diff.config.effect() {
            Effect::None => "applied without any effect on what runs",
            Effect::Hot => "applied while the gateway runs",
            Effect::Restart => "the gateway restarts",
        };
        let steps = match diff.config.steps.len() {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        let _ = writeln!(out, "  config: {steps} in one patch, {effect}");
        for step in &diff.config.steps {
            let _ = writeln!(out, "    {}", plain(&config_step(step)));
        }
        if diff.config.deferred > 0 {
            let _ = writeln!(
                out,
                "    ... and {} more agents in the patches after it",
                diff.config.deferred
            );
        }
    }
    for step in &diff.config.held {
        let _ = writeln!(out, "  not now: {}", plain(&config_step(step)));
    }
    for step in &diff.config.held_creations {
        let _ = writeln!(
            out,
            "  not now: + agent {}, made by the gateway  ({})",
            step.id, step.why
        );
    }
    for step in &diff.config.held_removals {
        let _ = writeln!(out, "  not now: - agent {}  ({})", step.id, step.why);
    }
    for step in &diff.config.removals {
        let _ = writeln!(
            out,
            "  - agent {}, with its files and sessions  ({})",
            step.id, step.why
        );
    }
    if diff.config.removals_deferred > 0 {
        let _ = writeln!(out, "    ... and {} more after that", diff.config.removals_deferred);
    }
    for warning in &diff.config.warnings {
        let _ = writeln!(out, "  note: {}", plain(warning));
    }
    for agent in &diff.agents {
        out.push_str(&agent_text(agent));
    }
    if let Some(error) = &diff.error {
        let _ = writeln!(out, "  error: {}", plain(error));
    }
    if out.is_empty() {
        out
    } else {
        format!("gateway {} ({})\n{out}", diff.gateway, plain(&diff.name))
    }
}

fn agent_text(agent: &AgentDiff) -> String {
    let mut out = format!(
        "  agent {} ({}), {}\n",
        agent.agent,
        plain(&agent.name),
        agent.gateway_agent_id
    );
    if let Some(token) = &agent.token {
        let _ = writeln!(out, "    token: {token}");
    }
    for note in &agent.notes {
        let _ = writeln!(out, "    note: {}", plain(note));
    }
    for file in &agent.files {
        out.push_str(&file_text(&agent.gateway_agent_id, file));
    }
    if let Some(error) = &agent.error {
        let _ = writeln!(out, "    error: {}", plain(error));
    }
    out
}

fn file_text(agent: &str, file: &FileDiff) -> String {
    let name = format!("{agent}/{}", file.file);
    let (before, from) = match &file.before {
        Some(text) => (text.as_str(), name.as_str()),
        None => ("", "/dev/null"),
    };
    // Rendered text has no line break at its end, so neither has a file that equals it.
    let ended = |text: &str| {
        if text.is_empty() {
            String::new()
        } else {
            format!("{}\n", text.trim_end_matches('\n'))
        }
    };
    let (before, after) = (ended(before), ended(&file.after));
    let diff = TextDiff::from_lines(&before, &after)
        .unified_diff()
        .header(from, &name)
        .to_string();
    diff.split_inclusive('\n').map(colored).collect()
}

/// A line of a unified diff as terminals are used to show it.
fn colored(line: &str) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let text = plain(text);
    let style = match text.as_bytes().first() {
        Some(b'+') => out::GOOD,
        Some(b'-') => out::BAD,
        _ => return text + end,
    };
    styled(style, text) + end
}

fn config_step(step: &ConfigStep) -> String {
    let change = match &step.change {
        ConfigChange::AddAgent {
            id,
            name,
            workspace,
            heartbeat,
        } => format!(
            "+ agent {id} {name:?}, workspace {workspace}, heartbeat {}",
            serde_json::Value::from(heartbeat.clone())
        ),
        ConfigChange::SetName { id, from, to } => format!("~ agent {id}: name {} -> {to:?}", optional(from.as_ref())),
        ConfigChange::SetWorkspace { id, from, to } => {
            format!("~ agent {id}: workspace {} -> {to:?}", optional(from.as_ref()))
        }
        ConfigChange::SetHeartbeat { id, from, to } => format!(
            "~ agent {id}: heartbeat {} -> {}",
            from.clone()
                .map_or_else(|| "(none)".to_owned(), |from| serde_json::Value::from(from).to_string()),
            serde_json::Value::from(to.clone())
        ),
        ConfigChange::Lighten { id, keys } => format!("- agent {id}: {}", keys.join(", ")),
        ConfigChange::SetOwnership => "+ agents.ownership \"explicit\"".to_owned(),
        ConfigChange::SetExecHost => "+ tools.exec.host \"gateway\"".to_owned(),
        ConfigChange::SetVisibility { path, key, value } => format!("+ {path}.{key} {value}"),
    };
    format!("{change}  ({})", step.why)
}

fn optional(text: Option<&String>) -> String {
    text.map_or_else(|| "(none)".to_owned(), |text| format!("{text:?}"))
}
