//! A description for people.

use std::fmt::{Display, Write as _};

use chrono::{DateTime, SubsecRound, Utc};
use comfy_table::{Cell, Color, Table};

use super::{Description, View};
use crate::cli::diff;
use crate::cli::out::{TITLE, plain, styled};
use crate::cli::table::{bare, lines};
use crate::model::{ConditionStatus, ConditionType, Conditions, EventKind};
use crate::view::{AgentView, TokenView, ago};

/// Sections, each with its title.
pub(super) fn of(description: &Description, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    match &description.object {
        View::Gateway(view) => {
            let status = &view.status;
            let version = status.server_version.as_deref().unwrap_or("not known yet");
            let protocol = status.protocol.map(|protocol| format!(", protocol {protocol}"));
            field(&mut text, "Gateway", &view.name);
            field(&mut text, "ID", view.id);
            field(&mut text, "URL", &view.url);
            field(&mut text, "Workspace root", &view.workspace_root);
            field(
                &mut text,
                "Version",
                format!("{version}{}", protocol.unwrap_or_default()),
            );
            field(&mut text, "Generation", status.generation);
            field(&mut text, "Boards", view.boards);
            field(
                &mut text,
                "Agents",
                format!("{} of {} ready", view.ready_agents, view.agents),
            );
            let restarts: Vec<_> = description
                .restarts
                .iter()
                .map(|at| at.format("%T").to_string())
                .collect();
            if !restarts.is_empty() {
                field(
                    &mut text,
                    "Restarts",
                    format!("{} (UTC), by changes of its config", restarts.join(", ")),
                );
            }
            for leftover in &view.leftovers {
                field(
                    &mut text,
                    "Leftover",
                    format!("{}, since {}", leftover.id, when(leftover.since, now)),
                );
            }
            conditions(&mut text, &status.conditions, now);
        }
        View::Board(view) => {
            let gateway = view
                .gateway_name
                .as_deref()
                .unwrap_or("none: its agents can only be reported");
            field(&mut text, "Board", &view.name);
            field(&mut text, "ID", view.id);
            field(&mut text, "Slug", &view.slug);
            field(&mut text, "Gateway", gateway);
            field(&mut text, "Type", &view.board_type);
            field(&mut text, "Paused", if view.paused { "yes" } else { "no" });
            let lead = match (&view.lead_name, view.qualifies_for_lead) {
                (Some(name), _) => name.as_str(),
                (None, true) => "none; it qualifies for one",
                (None, false) => "none; it does not qualify for one",
            };
            field(&mut text, "Lead", lead);
            field(
                &mut text,
                "Members",
                format!("{} of {} ready", view.ready_agents, view.agents),
            );
            members(&mut text, &description.members);
        }
        View::Agent(view) => agent(&mut text, view, description.token.as_ref(), now),
    }
    section(&mut text, "Next");
    let _ = writeln!(text, "  tried again: {}", description.next.retry.text());
    for due in &description.next.due {
        let _ = writeln!(text, "  {}: {}", when(due.at, now), plain(&due.what));
    }
    events(&mut text, description, now);
    plan(&mut text, description);
    text
}

fn agent(text: &mut String, view: &AgentView, token: Option<&TokenView>, now: DateTime<Utc>) {
    let status = &view.status;
    field(text, "Agent", &view.name);
    field(text, "ID", view.id);
    field(text, "Role", view.role);
    field(text, "Board", view.board_name.as_deref().unwrap_or("-"));
    field(text, "Gateway", &view.gateway_name);
    field(text, "Gateway agent", &view.gateway_agent_id);
    field(text, "Generation", status.generation);
    let seen = view.last_seen_at.map_or_else(|| "never".to_owned(), |at| when(at, now));
    field(text, "Status", format!("{}, last seen {seen}", view.shown_status));
    if let Some(at) = status.first_provisioned_at {
        field(text, "Provisioned", when(at, now));
    }
    if let Some(at) = status.last_wake_sent_at {
        field(text, "Last wake", when(at, now));
    }
    if let Some(token) = token {
        field(text, "Token", token_text(token, now));
    }
    conditions(text, &status.conditions, now);
}

fn token_text(token: &TokenView, now: DateTime<Utc>) -> String {
    let mut text = match (token.present, token.since) {
        (false, _) => "none yet".to_owned(),
        (true, None) => "of unknown age: no controller has verified it yet".to_owned(),
        (true, Some(since)) => format!("{} old, since {}", ago(now - since), stamp(since)),
    };
    if let Some(at) = token.new_since {
        let _ = write!(text, "; a new one is under way, made {}", when(at, now));
    }
    if let Some(at) = token.mismatch_since {
        let _ = write!(
            text,
            "; the one on the gateway does not match, seen since {}",
            when(at, now)
        );
    }
    text
}

fn members(text: &mut String, members: &[AgentView]) {
    section(text, "Agents");
    let mut table = bare();
    table.set_header(["NAME", "ROLE", "READY", "REASON", "STATUS"]);
    for member in members {
        table.add_row([
            Cell::new(plain(&member.name)),
            Cell::new(member.role),
            status(member.ready.status),
            Cell::new(plain(&member.ready.reason)),
            Cell::new(plain(&member.shown_status)),
        ]);
    }
    indented(text, &table, members.is_empty());
}

fn conditions(text: &mut String, conditions: &Conditions, now: DateTime<Utc>) {
    section(text, "Conditions");
    let mut table = bare();
    table.set_header(["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in conditions.iter() {
        let good = match condition.kind {
            // That it holds is what is wrong.
            ConditionType::Paused | ConditionType::Leftovers => Cell::new(condition.status),
            _ => status(condition.status),
        };
        table.add_row([
            Cell::new(condition.kind),
            good,
            Cell::new(ago(now - condition.last_transition_time)),
            Cell::new(plain(&condition.reason)),
            Cell::new(plain(&condition.message)),
        ]);
    }
    let none = conditions.iter().next().is_none();
    indented(text, &table, none);
}

fn events(text: &mut String, description: &Description, now: DateTime<Utc>) {
    section(text, "Events");
    let with_object = matches!(description.object, View::Board(_));
    let mut table = bare();
    let mut header = vec!["LAST SEEN", "TYPE", "REASON", "COUNT", "MESSAGE"];
    if with_object {
        header.insert(3, "AGENT");
    }
    table.set_header(header);
    for event in &description.events {
        let kind = match event.event_kind {
            EventKind::Normal => Cell::new("Normal"),
            EventKind::Warning => Cell::new("Warning").fg(Color::Yellow),
        };
        let mut row = vec![
            Cell::new(ago(now - event.last_seen)),
            kind,
            Cell::new(plain(&event.reason)),
            Cell::new(event.count),
            Cell::new(plain(&event.message)),
        ];
        if with_object {
            row.insert(3, Cell::new(plain(event.name.as_deref().unwrap_or("-"))));
        }
        table.add_row(row);
    }
    indented(text, &table, description.events.is_empty());
}

fn plan(text: &mut String, description: &Description) {
    section(text, "Plan");
    let plan = &description.plan;
    if let Some(why) = &plan.why {
        let _ = writeln!(text, "  not known: {}", plain(why));
    }
    if let Some(diff) = &plan.diff {
        let shown = diff::text(diff);
        if shown.is_empty() {
            text.push_str("  nothing: the gateway holds what the rows say\n");
        } else {
            for line in shown.lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
}

fn field(text: &mut String, title: &str, value: impl Display) {
    let title = format!("{title}:");
    let _ = writeln!(
        text,
        "{} {}",
        styled(TITLE, format_args!("{title:<15}")),
        plain(&value.to_string())
    );
}

fn section(text: &mut String, title: &str) {
    let _ = writeln!(text, "{}", styled(TITLE, format_args!("{title}:")));
}

fn indented(text: &mut String, table: &Table, is_empty: bool) {
    if is_empty {
        text.push_str("  none\n");
        return;
    }
    for line in lines(table).lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn status(status: ConditionStatus) -> Cell {
    Cell::new(status).fg(match status {
        ConditionStatus::True => Color::Green,
        ConditionStatus::False => Color::Red,
        ConditionStatus::Unknown => Color::Yellow,
    })
}

fn stamp(at: DateTime<Utc>) -> String {
    at.trunc_subsecs(0).format("%F %T UTC").to_string()
}

/// A time, and how far from now that is.
fn when(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at > now {
        format!("in {} ({})", ago(at - now), stamp(at))
    } else {
        format!("{} ago ({})", ago(now - at), stamp(at))
    }
}
