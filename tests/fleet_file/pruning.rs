//! What goes with `--prune`, in which order, and what stays.

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::sim::{SimDialect, SimGateway};

use crate::support::contract::Watch;
use crate::support::{Controller, Options};
use crate::{Desk, EXAMPLE};

/// The example on a simulated gateway, whose token is in the database.
fn example(url: &str) -> String {
    EXAMPLE
        .replace("ws://127.0.0.1:18789", url)
        .replace("        token: env:OPENCLAW_GATEWAY_TOKEN_QUAY\n", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_no_longer_names_goes_by_way_of_its_gateway_and_then_for_good() {
    let desk = Desk::new().await;
    let sim = SimGateway::new(SimDialect::V2026_9_6, "the-token");
    let _watch = Watch::simulated(&sim);
    let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let whole = example(&server.url());
    desk.applied(&whole, &[]).await;
    desk.database.execute("UPDATE gateways SET token = 'the-token'").await;
    let agents = "SELECT string_agg(id::text, ' ' ORDER BY name) FROM agents";
    let all = desk.one(agents).await;
    let controller = Controller::start(&desk.database.url, Options::default()).await;
    for agent in all.split(' ') {
        desk.database.agent_ready(AgentId(agent.parse().unwrap())).await;
    }

    // Without the newsletter, and without Wren.
    let (before, after) = whole.split_once("          - name: Wren").unwrap();
    let less = format!(
        "{before}          - name: Pascal{}",
        after.split_once("          - name: Pascal").unwrap().1
    );
    let (before, after) = less.split_once("      - name: Newsletter").unwrap();
    let less = format!("{before}\ntemplates:{}", after.split_once("\ntemplates:").unwrap().1);
    assert!(
        desk.applied(&less, &[]).await.ends_with("nothing to do\n"),
        "nobody asked for it"
    );
    let before = desk.rows().await;
    let dry = desk.applied(&less, &["--prune", "--dry-run"]).await;
    assert_eq!(desk.rows().await, before);
    let pruned = desk.applied(&less, &["--prune"]).await;
    assert_eq!(dry.split("; ").next(), pruned.split("; ").next());
    for line in [
        "- agent Harbour museum / Website / Wren",
        "- agent Harbour museum / Newsletter / Juno",
        "its removal is requested, and the controller takes it from its gateway",
        "! board Harbour museum / Newsletter: stays for now: an agent's row refers to it; prune again",
        "0 to add, 0 to change, 2 to remove; applied",
    ] {
        assert!(pruned.contains(line), "{line} is not in\n{pruned}");
    }
    let gone = desk
        .one("SELECT string_agg(id::text, ' ' ORDER BY name) FROM agents WHERE delete_requested_at IS NOT NULL")
        .await;
    assert_eq!(gone.split(' ').count(), 2);
    for agent in gone.split(' ') {
        let agent = AgentId(agent.parse().unwrap());
        desk.database
            .agent_condition(agent, ConditionType::Deleted, ConditionStatus::True, "Deleted")
            .await;
        assert!(sim.file(&format!("mc-{agent}"), "SOUL.md").is_none());
    }
    // Whoever is back in the file before its row is gone is kept, under its old id.
    let (juno, wren) = gone.split_once(' ').unwrap();
    let back = whole.split_once("      - name: Newsletter").unwrap();
    let back = format!("{}\ntemplates:{}", back.0, back.1.split_once("\ntemplates:").unwrap().1);
    let printed = desk.applied(&back, &["--prune"]).await;
    assert!(
        printed.contains(&format!("~ agent Harbour museum / Website / Wren ({wren})")),
        "{printed}"
    );
    assert!(
        printed.contains(&format!(
            "- agent Harbour museum / Newsletter / Juno ({juno}): its row is deleted"
        )),
        "{printed}"
    );
    assert!(printed.contains("- board Harbour museum / Newsletter"), "{printed}");
    assert_eq!(
        desk.one("SELECT string_agg(name, ' ' ORDER BY name) FROM agents").await,
        "Gatekeeper Marlow Pascal Wren"
    );
    assert_eq!(desk.one("SELECT string_agg(name, ' ') FROM boards").await, "Website");
    assert_eq!(
        desk.one("SELECT count(*)::text FROM openclaw_controller.board_settings")
            .await,
        "0"
    );
    desk.database.agent_ready(AgentId(wren.parse().unwrap())).await;
    assert!(sim.file(&format!("mc-{wren}"), "SOUL.md").is_some());
    desk.agrees().await;

    // Everything, in two steps; the organisation stays.
    let empty = "organizations: [{name: Harbour museum}]";
    let printed = desk.applied(empty, &["--prune"]).await;
    assert!(
        printed.contains("! gateway Harbour museum / Quay: stays for now"),
        "{printed}"
    );
    let left = desk.one(agents).await;
    for agent in left.split(' ') {
        let agent = AgentId(agent.parse().unwrap());
        desk.database
            .agent_condition(agent, ConditionType::Deleted, ConditionStatus::True, "Deleted")
            .await;
    }
    desk.applied(empty, &["--prune"]).await;
    let counts = "SELECT (SELECT count(*) FROM agents) || ' ' || (SELECT count(*) FROM boards) || ' ' || (SELECT count(*) FROM gateways)
                      || ' ' || (SELECT count(*) FROM organizations)";
    assert_eq!(desk.one(counts).await, "0 0 0 1");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_organizations_leads_of_the_controllers_making_and_what_others_refer_to_stay() {
    let desk = Desk::new().await;
    desk.applied(EXAMPLE, &[]).await;
    let other = desk.database.organization().await;
    let gateway = desk.database.gateway(other, "ws://127.0.0.1:1", "t", "/ws").await;
    let board = desk.database.board(other, Some(gateway), "Theirs").await;
    desk.database.agent(gateway, Some(board), "Theirs", false).await;
    // A lead that the controller made for a board without one, and words in a board's chat.
    desk.database
        .execute(
            "INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts)
             SELECT gen_random_uuid(), id, gateway_id, 'Lead Agent', 'online', true, 0, 0 FROM boards WHERE name = 'Newsletter';
             INSERT INTO boards (id, organization_id, name, slug, description, max_agents)
             SELECT gen_random_uuid(), organization_id, 'Old', 'old', '', 1 FROM boards WHERE name = 'Newsletter';
             INSERT INTO board_memory (id, board_id, content, is_chat) SELECT gen_random_uuid(), id, 'hello', true FROM boards
              WHERE name = 'Old';
             INSERT INTO agents (id, board_id, gateway_id, name, status, is_board_lead, lifecycle_generation, wake_attempts,
                                 delete_requested_at)
             SELECT gen_random_uuid(), old.id, new.gateway_id, 'Gone', 'deleting', true, 0, 0, now() FROM boards old, boards new
              WHERE old.name = 'Old' AND new.name = 'Newsletter';
             INSERT INTO openclaw_controller.agent_records (agent_id, conditions)
             SELECT id, '[{\"type\": \"Deleted\", \"status\": \"True\"}]' FROM agents WHERE name = 'Gone'",
        )
        .await;
    let before = desk.rows().await;
    let printed = desk.applied(EXAMPLE, &["--prune"]).await;
    assert!(
        printed.contains("! board Harbour museum / Old: stays for now: an agent's row refers to it"),
        "{printed}"
    );
    // Without it the board would be given another lead.
    assert!(
        printed.contains(
            "! agent Harbour museum / Old / Gone: it is gone from its gateway, and its row goes when its board does"
        ),
        "{printed}"
    );
    assert!(printed.contains("board_memory (1)"), "{printed}");
    assert!(printed.ends_with("nothing to do\n"), "{printed}");
    assert_eq!(desk.rows().await, before);
    desk.database.execute("DELETE FROM board_memory").await;
    let printed = desk.applied(EXAMPLE, &["--prune"]).await;
    assert!(printed.contains("- agent Harbour museum / Old / Gone"), "{printed}");
    assert!(printed.contains("- board Harbour museum / Old"), "{printed}");
    // A lead that the file names takes the place of the other.
    let led = EXAMPLE.replace(
        "- name: Juno",
        "- {name: Isolde, is_board_lead: true}\n          - name: Juno",
    );
    let printed = desk.applied(&led, &["--prune"]).await;
    assert!(printed.contains("name: \"Lead Agent\" -> \"Isolde\""), "{printed}");
    assert_eq!(
        desk.one("SELECT count(*)::text FROM agents WHERE delete_requested_at IS NOT NULL")
            .await,
        "0"
    );
}
