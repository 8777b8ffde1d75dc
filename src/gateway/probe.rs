//! Learning what a gateway can do.

use futures::future::{join_all, try_join, try_join5};

use super::client::Client;
use super::error::{ErrorClass, GatewayError};
use super::methods::SchemaNode;
use crate::model::{Dialect, Effect, FileName, GatewayAgentId, RosterShape, Visibility};

/// The method by which a gateway tells of its config's schema.
const LOOKUP: &str = "config.schema.lookup";

/// The calls without which agents cannot be provisioned.
const NEEDED: [&str; 10] = [
    "agents.delete",
    "agents.files.get",
    "agents.files.list",
    "agents.files.set",
    "agents.list",
    "chat.send",
    "config.get",
    "config.patch",
    "sessions.patch",
    "sessions.reset",
];

/// Learns the gateway's dialect by asking; writes nothing.
///
/// Takes about ten quick calls, so it is done once per connection. What a gateway cannot tell is filled in from what was
/// measured on gateways of its kind.
///
/// # Errors
/// When a call fails for another reason than that the gateway does not know the thing asked for; and
/// [`ErrorClass::UnsupportedGateway`] where agents cannot be provisioned on this gateway at all.
pub async fn probe(client: &Client) -> Result<Dialect, GatewayError> {
    let missing = NEEDED.map(|method| Some(method).filter(|method| !client.hello().offers(method)));
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    if !missing.is_empty() {
        return Err(unsupported(client, &format!("has no {}", missing.join(", "))));
    }
    let (agents, defaults, channels, exec, list) = try_join5(
        lookup(client, "agents"),
        lookup(client, "channels.defaults"),
        lookup(client, "channels"),
        lookup(client, "tools.exec"),
        client.agents_list(),
    )
    .await?;
    let roster = match agents.as_ref().filter(|node| !node.children.is_empty()).map(shapes) {
        Some((true, false)) => RosterShape::List,
        Some((false, true)) => RosterShape::Entries,
        Some((false, false)) => {
            let what = "keeps its agents neither in agents.list nor in agents.entries of its config";
            return Err(unsupported(client, what));
        }
        // Both: the config says which one is in use.
        Some((true, true)) => client.config_get().await?.shape.unwrap_or(RosterShape::Entries),
        // A gateway whose schema does not tell is old, and a fresh old one shows no roster at all.
        None => client.config_get().await?.shape.unwrap_or(RosterShape::List),
    };
    let default_agent = list.default_id.or_else(|| list.ids.first().cloned());
    let (heartbeat, files) = try_join(
        lookup(client, heartbeat_path(roster)),
        file_support(client, default_agent, roster),
    )
    .await?;
    let visibility = visibility(defaults.as_ref(), roster);
    // Measured: a gateway without lookups restarts for whatever is patched; one that has them and does not tell, for channels.
    let untold = if client.hello().offers(LOOKUP) {
        Effect::Hot
    } else {
        Effect::Restart
    };
    let roster_effect = told(agents.as_ref(), Some(roster_key(roster))).unwrap_or(untold);
    Ok(Dialect {
        protocol: client.hello().protocol,
        roster,
        heartbeat_effect: told(heartbeat.as_ref(), None).unwrap_or(roster_effect),
        heartbeat_keys: heartbeat
            .filter(|node| !node.children.is_empty())
            .map(|node| node.children.into_iter().map(|child| child.key).collect()),
        visibility,
        retired_files: files.retired.into_iter().collect(),
        unlisted_files: files.unlisted.into_iter().collect(),
        channels_effect: told(defaults.as_ref(), visibility.map(Visibility::key))
            .or_else(|| told(channels.as_ref(), Some("defaults")))
            // Measured: a gateway that tells nothing restarts.
            .unwrap_or(Effect::Restart),
        roster_effect,
        ownership_effect: agents
            .as_ref()
            .and_then(|agents| agents.child("ownership"))
            .and_then(|ownership| ownership.reload)
            .unwrap_or(roster_effect),
        tools_effect: told(exec.as_ref(), Some("host")).unwrap_or(untold),
    })
}

/// Says by name which gateway cannot be provisioned, and why.
fn unsupported(client: &Client, why: &str) -> GatewayError {
    let version = &client.hello().server_version;
    GatewayError::new(ErrorClass::UnsupportedGateway, format!("OpenClaw {version} {why}"))
}

/// A schema lookup on gateways that may not offer it.
async fn lookup(client: &Client, path: &str) -> Result<Option<SchemaNode>, GatewayError> {
    if client.hello().offers(LOOKUP) {
        client.schema_lookup(path).await
    } else {
        Ok(None)
    }
}

fn roster_key(roster: RosterShape) -> &'static str {
    match roster {
        RosterShape::List => "list",
        RosterShape::Entries => "entries",
    }
}

fn heartbeat_path(roster: RosterShape) -> &'static str {
    match roster {
        RosterShape::List => "agents.list[].heartbeat",
        RosterShape::Entries => "agents.entries.*.heartbeat",
    }
}

/// Whether the schema knows `agents.list`, and `agents.entries`.
fn shapes(agents: &SchemaNode) -> (bool, bool) {
    (agents.child("list").is_some(), agents.child("entries").is_some())
}

/// What the schema tells of a change of the child, or else of the node itself.
fn told(node: Option<&SchemaNode>, child: Option<&str>) -> Option<Effect> {
    let node = node?;
    child
        .and_then(|key| node.child(key))
        .and_then(|child| child.reload)
        .or(node.reload)
}

fn visibility(defaults: Option<&SchemaNode>, roster: RosterShape) -> Option<Visibility> {
    match defaults {
        Some(node) => [Visibility::HeartbeatVisibility, Visibility::Heartbeat]
            .into_iter()
            .find(|visibility| node.child(visibility.key()).is_some()),
        // Gateways with `agents.list` take the setting but leave it out of their schema.
        None => Some(match roster {
            RosterShape::List => Visibility::Heartbeat,
            RosterShape::Entries => Visibility::HeartbeatVisibility,
        }),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct FileSupport {
    retired: Vec<FileName>,
    unlisted: Vec<FileName>,
}

/// Sorts out the files that the list does not name, by asking for each.
async fn file_support(
    client: &Client,
    agent: Option<GatewayAgentId>,
    roster: RosterShape,
) -> Result<FileSupport, GatewayError> {
    let agent = agent.unwrap_or_else(|| GatewayAgentId::observed("main"));
    let listed = match client.files_list(&agent).await {
        Ok(listed) => listed,
        Err(error) if error.class() == ErrorClass::NotFound => return Ok(assumed(roster)),
        Err(error) => return Err(error),
    };
    let asked = FileName::ALL
        .into_iter()
        .filter(|file| !listed.iter().any(|stat| stat.name == file.as_str()));
    let answers = join_all(asked.map(|file| {
        let agent = &agent;
        async move { (file, client.files_get(agent, file).await) }
    }))
    .await;
    let mut support = FileSupport::default();
    for (file, answer) in answers {
        match answer {
            Ok(_) => support.unlisted.push(file),
            Err(error) if error.class() == ErrorClass::UnsupportedFile => support.retired.push(file),
            Err(error) => return Err(error),
        }
    }
    Ok(support)
}

/// What was measured, for a gateway without an agent to ask about.
fn assumed(roster: RosterShape) -> FileSupport {
    match roster {
        RosterShape::List => FileSupport::default(),
        RosterShape::Entries => FileSupport {
            retired: vec![FileName::Tools, FileName::Heartbeat],
            unlisted: vec![FileName::Identity],
        },
    }
}
