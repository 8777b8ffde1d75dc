//! What concerns all agents: a directory of templates, an organisation without an owner, a gateway without a root.

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::SimGateway;
use tempfile::TempDir;
use uuid::Uuid;

use ConditionStatus::False;
use ConditionType::{ConfigSynced, FilesSynced, Registered};

use crate::support::{Controller, Options, PATIENCE, eventually};
use crate::{Fleet, Gateway, TOKEN};

#[tokio::test(flavor = "multi_thread")]
async fn broken_templates_of_a_directory_fail_the_files_that_need_them_and_no_others() {
    let fleet = Fleet::new().await;
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("BOARD_SOUL.md.j2", "{{ nonsense }}");
    write("BOARD_IDENTITY.md.j2", "{% include 'missing.md' %}");
    write("BOARD_USER.md.j2", "{% if %}");
    write(
        "BOARD_MEMORY.md.j2",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    );
    let agent = fleet.agent("Wren", "").await;
    let with_templates = || Options {
        templates_dir: Some(directory.path().to_owned()),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, with_templates()).await;
    let condition = eventually("the agent's files are found wanting", PATIENCE, async || {
        let conditions = fleet.database.agent_conditions(agent).await;
        conditions.get(FilesSynced).filter(|c| c.status == False).cloned()
    })
    .await;
    assert!(condition.message.contains("(and 3 more)"), "{}", condition.message);
    let id = format!("mc-{agent}");
    for (file, there) in [
        ("AGENTS.md", true),
        ("SOUL.md", false),
        ("IDENTITY.md", false),
        ("USER.md", false),
    ] {
        assert_eq!(fleet.good.sim.file(&id, file).is_some(), there, "{file}");
    }
    let (status, text) = controller.page("/readyz").await;
    assert_eq!(status, 200, "{text}");
    controller.stop().await;

    write("BOARD_SOUL.md.j2", "I am {{ agent_name }}.");
    for name in ["BOARD_IDENTITY.md.j2", "BOARD_USER.md.j2", "BOARD_MEMORY.md.j2"] {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    let controller = Controller::start(&fleet.database.url, with_templates()).await;
    fleet.database.agent_ready(agent).await;
    assert_eq!(fleet.good.sim.file(&id, "SOUL.md").as_deref(), Some("I am Wren."));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_workspace_root_or_an_owner_says_so_until_it_has_one() {
    let fleet = Fleet::new().await;
    let database = &fleet.database;
    let rootless = Gateway::start().await;
    let (rootless_id, rootless_agent) = fleet.gateway(&rootless.server.url(), TOKEN).await;
    fleet.set_gateway(rootless_id, "workspace_root = '  '").await;
    let orphaned = Gateway::start().await;
    let nobodys = Uuid::new_v4();
    database
        .execute(&format!(
            "INSERT INTO organizations (id, name) VALUES ('{nobodys}', 'Nobody''s')"
        ))
        .await;
    let orphaned_id = database.gateway(nobodys, &orphaned.server.url(), TOKEN, "/ws").await;
    let board = database.board(nobodys, Some(orphaned_id), "board").await;
    let worker = database.agent(orphaned_id, Some(board), "worker", false).await;
    let main = database.agent(orphaned_id, None, "main", false).await;

    let controller = Controller::start(&database.url, Options::default()).await;
    for (gateway, agent, reason, says) in [
        (
            rootless_id,
            rootless_agent,
            "WorkspaceRootNotConfigured",
            "Set gateways.workspace_root",
        ),
        (orphaned_id, main, "OwnerNotFound", "organization_members"),
    ] {
        let condition = database.gateway_condition(gateway, ConfigSynced, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
        let condition = database.agent_condition(agent, Registered, False, reason).await;
        assert!(condition.message.contains(says), "{}", condition.message);
    }
    database.agent_ready(worker).await;
    fleet.goes_on(&controller).await;
    assert_eq!(rootless.sim.writes_of("agents"), 0);
    assert!(!orphaned.sim.roster().contains(&format!("mc-gateway-{orphaned_id}")));

    let user = Uuid::new_v4();
    database
        .execute(&format!(
            "UPDATE gateways SET workspace_root = '/home/ws' WHERE id = '{rootless_id}';
             INSERT INTO users (id, clerk_user_id, email, is_super_admin) VALUES ('{user}', '{user}', 'a@b.c', false);
             INSERT INTO organization_members (id, organization_id, user_id, role, all_boards_read, all_boards_write)
             VALUES ('{}', '{nobodys}', '{user}', 'owner', true, true);",
            Uuid::new_v4()
        ))
        .await;
    for agent in [rootless_agent, main] {
        database.agent_ready(agent).await;
    }
    for gateway in [rootless_id, orphaned_id] {
        database.gateway_ready(gateway).await;
    }
    controller.stop().await;
}

/// What a test may ask of a gateway's journal.
trait Journal {
    /// How many writes concerned methods that begin like this.
    fn writes_of(&self, prefix: &str) -> usize;
}

impl Journal for SimGateway {
    fn writes_of(&self, prefix: &str) -> usize {
        self.journal()
            .iter()
            .filter(|entry| entry.write && entry.method.starts_with(prefix))
            .count()
    }
}
