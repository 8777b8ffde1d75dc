//! A database that is new to a gateway whose agents already match, and agents on it that are nobody's business.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use openclaw_controller::model::{ConditionStatus, ConditionType, FileName};
use serde_json::{Value, json};

use crate::binary::{Environment, Running};
use crate::fixture::{Fixture, Shape, writes};
use crate::operator;

/// The main agent of a gateway row that is not there any more.
const ORPHAN: &str = "mc-gateway-6b1f9d52-6a3e-4e0c-9f53-2f1f5a0d7c11";

/// An agent of the operator's own.
const HELPER: &str = "ops-helper";

pub(crate) async fn tell(version: &str, shape: Shape) {
    let fixture = Fixture::new(version, shape).await;
    let controller = Running::start(&fixture.environment);
    let agents = fixture.fleet();
    for agent in agents {
        fixture.database.agent_ready(agent.row).await;
    }
    let strangers = put_strangers(&fixture).await;
    let before = all_of(&fixture, &strangers).await;
    assert!(
        before
            .values()
            .all(|(entry, files)| entry["heartbeat"]["every"] == "24h" && files.len() >= 2)
    );

    // Edits, a rotation and a removal beside them.
    for agent in [&fixture.main, &fixture.lead, &fixture.wren] {
        let edit = "name = name || ' II', soul_template = 'Be kind, {{ agent_name }}.', heartbeat_config = '{\"every\": \"25m\"}'";
        fixture.database.execute(&Fixture::set(agent, edit)).await;
    }
    let (code, text) = fixture.environment.run(&["rotate-token", "--all", "--wait"]).await;
    assert_eq!(code, 0, "{text}");
    for agent in agents {
        fixture.database.agent_ready(agent.row).await;
    }
    fixture
        .database
        .execute(&Fixture::set(&fixture.finch, "delete_requested_at = now()"))
        .await;
    fixture
        .database
        .agent_condition(
            fixture.finch.row,
            ConditionType::Deleted,
            ConditionStatus::True,
            "Deleted",
        )
        .await;
    controller.stop().await;
    assert_eq!(
        all_of(&fixture, &strangers).await,
        before,
        "what no row explains was touched"
    );

    // The same rows, and nothing of what was written down about them.
    let fresh = fixture.database.copy_of_rows().await;
    fresh
        .execute(&format!("DELETE FROM agents WHERE id = '{}'", fixture.finch.row))
        .await;
    let directory = fixture.environment.directory.join("second");
    fs::create_dir_all(&directory).unwrap();
    let environment = Environment {
        database_url: fresh.url.clone(),
        directory,
        templates: None,
        prune: false,
    };
    let listed = listed(&environment).await;
    for (id, reason) in [(ORPHAN, "Duplicate"), (HELPER, "Unmanaged"), ("main", "Unmanaged")] {
        assert_eq!(listed.get(id).map(String::as_str), Some(reason), "{listed:?}");
    }
    assert_eq!(listed.len(), 3, "{listed:?}");
    let (code, text) = environment.run(&["diff"]).await;
    assert_eq!((code, text.as_str()), (0, ""), "nothing is to be done");
    let (config, files) = (fs::read(fixture.gateway.config_path()).unwrap(), workspaces(&fixture));
    let controller = Running::start(&environment);
    fresh.gateway_ready(fixture.row).await;
    let kept: Vec<_> = agents
        .into_iter()
        .filter(|agent| agent.row != fixture.finch.row)
        .collect();
    for agent in &kept {
        fresh.agent_ready(agent.row).await;
    }
    controller.resyncs(2, kept.len()).await;
    assert_eq!(writes(&controller).await, 0, "adopting writes nothing");
    controller.stop().await;
    assert_eq!(
        fs::read(fixture.gateway.config_path()).unwrap(),
        config,
        "the config, byte for byte"
    );
    assert_eq!(workspaces(&fixture), files, "the workspaces, byte for byte");
    println!("{version}: {} agents were adopted without a write", kept.len());
}

/// Puts an agent on the gateway whose row is gone, and one of the operator's own, each with files. Returns their ids and
/// workspace directories.
async fn put_strangers(fixture: &Fixture) -> [(&'static str, PathBuf); 2] {
    let root = fixture.gateway.workspace_root();
    let strangers = [ORPHAN, HELPER].map(|id| (id, root.join(format!("theirs-{id}"))));
    let entries: Vec<_> = strangers
        .iter()
        .map(|(id, workspace)| {
            let entry = json!({
                "name": format!("{id} of old"),
                "workspace": workspace,
                "heartbeat": {"every": "24h", "target": "last"},
                "identity": {"emoji": "🦉"},
            });
            (*id, entry)
        })
        .collect();
    operator::patch(&fixture.gateway, &fixture.shape.roster(&entries)).await;
    for (id, _) in &strangers {
        let files = [
            (FileName::Agents, "Not yours.\r\n\r\n"),
            (FileName::Soul, "- `AUTH_TOKEN=its-own`\n"),
        ];
        operator::write(&fixture.gateway, id, &files).await;
    }
    strangers
}

/// The entries of agents, and their files byte for byte.
async fn all_of(
    fixture: &Fixture,
    agents: &[(&'static str, PathBuf)],
) -> BTreeMap<&'static str, (Value, BTreeMap<PathBuf, Vec<u8>>)> {
    let mut all = BTreeMap::new();
    for (id, workspace) in agents {
        let entry = fixture.entry(id).await.unwrap_or_default();
        all.insert(*id, (entry, files(workspace)));
    }
    all
}

/// All files that agents have on the gateway's disk.
fn workspaces(fixture: &Fixture) -> BTreeMap<PathBuf, Vec<u8>> {
    files(&fixture.gateway.workspace_root())
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// The agents that no row explains, with the reason why each is listed.
async fn listed(environment: &Environment) -> BTreeMap<String, String> {
    let (code, text) = environment.run(&["get", "unmanaged", "-o", "json"]).await;
    assert_eq!(code, 0, "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let item = |item: &Value| {
        let text = |key: &str| item[key].as_str().unwrap().to_owned();
        (text("gatewayAgentId"), text("reason"))
    };
    value["items"].as_array().unwrap().iter().map(item).collect()
}
