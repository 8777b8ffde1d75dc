//! Every agent of a real gateway gets a new token when asked to.

use crate::binary::{Running, texts};
use crate::fixture::{Agent, Fixture, Shape};

pub(crate) async fn tell(version: &str, shape: Shape) {
    let mut fixture = Fixture::new(version, shape).await;
    let controller = Running::start(&fixture.environment);
    let agents: Vec<Agent> = fixture.fleet().into_iter().cloned().collect();
    for agent in &agents {
        fixture.database.agent_ready(agent.row).await;
    }
    fixture.note_secrets();
    let mut old = Vec::new();
    for agent in &agents {
        old.push(fixture.token(agent).await);
    }
    let (code, text) = fixture.environment.run(&["rotate-token", "--all", "--wait"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(&format!("{} agents have a new token", agents.len())),
        "{text}"
    );
    // Done is what the command says it is: nothing is waited for here.
    for (agent, old) in agents.iter().zip(&old) {
        assert_ne!(fixture.token(agent).await, *old);
    }
    for text in texts(&fixture.gateway.workspace_root(), ".md") {
        assert!(
            !old.iter().any(|old| text.contains(old)),
            "an old token is still in a file"
        );
    }
    for agent in &agents {
        fixture.database.agent_ready(agent.row).await;
    }
    fixture.note_secrets();
    controller.stop().await;
    let shown = std::fs::read_to_string(fixture.environment.log()).unwrap() + &text + &fixture.dump().await;
    assert!(
        !fixture.secrets.iter().any(|secret| shown.contains(secret)),
        "a secret was shown or stored"
    );
    println!("{version}: {} agents have new tokens", agents.len());
}
