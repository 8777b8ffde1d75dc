//! Stored hashes that cannot be used, and files with more than one token.

use std::time::Duration;

use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType};
use openclaw_controller::token;
use secrecy::ExposeSecret;

use ConditionStatus::False;
use ConditionType::TokenValid;

use crate::Fleet;
use crate::support::{Controller, Options, PATIENCE, eventually};

/// Hashes, and what is said of each.
const BAD: [(&str, &str, &[&str]); 8] = [
    ("unknown", "md5$6a204bd8", &["unknown format", "rotate-token"]),
    ("plain", "hunter2", &["unknown format"]),
    ("salt", "pbkdf2_sha256$200000$*$AAAA", &["rotate-token"]),
    ("digest", "pbkdf2_sha256$200000$c2FsdHNhbHQ$?", &["rotate-token"]),
    (
        "rounds",
        "pbkdf2_sha256$4000000000$c2FsdHNhbHQ$AAAA",
        &["absurd", "not computed"],
    ),
    (
        "no number",
        "pbkdf2_sha256$many$c2FsdHNhbHQ$AAAA",
        &["rounds are not a number"],
    ),
    (
        "memory",
        "$argon2id$v=19$m=4000000,t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        &["absurd"],
    ),
    (
        "parts",
        "pbkdf2_sha256$200000$c2FsdA",
        &["needs rounds, salt and digest"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_cannot_be_used_is_told_on_its_agent_and_a_requested_rotation_heals_it() {
    let fleet = Fleet::new().await;
    let database = &fleet.database;
    let mut agents = Vec::new();
    for (name, ..) in BAD {
        agents.push(fleet.agent(name, "").await);
    }
    let controller = Controller::start(&database.url, Options::default()).await;
    for agent in &agents {
        database.agent_ready(*agent).await;
    }
    let mut tokens = Vec::new();
    for agent in &agents {
        tokens.push(token_of(&fleet, *agent));
    }
    for (agent, (_, hash, _)) in agents.iter().zip(BAD) {
        fleet.set_agent(*agent, &format!("agent_token_hash = '{hash}'")).await;
    }
    for (agent, (name, hash, says)) in agents.iter().zip(BAD) {
        let told = database
            .agent_condition(*agent, TokenValid, False, "UnusableTokenHash")
            .await;
        for words in says {
            assert!(told.message.contains(words), "{name}: {}", told.message);
        }
        assert!(!told.message.contains(hash), "{name}: a hash is nobody's to read");
    }
    fleet.goes_on(&controller).await;
    for (agent, before) in agents.iter().zip(&tokens) {
        assert_eq!(token_of(&fleet, *agent), *before, "the file is left alone");
        let sql = format!(
            "INSERT INTO openclaw_controller.agent_requests (agent_id, rotate_requested_at) VALUES ('{agent}', now())"
        );
        database.execute(&sql).await;
    }
    for (agent, before) in agents.iter().zip(&tokens) {
        database.agent_ready(*agent).await;
        let token = token_of(&fleet, *agent);
        assert_ne!(token, *before);
        let hash = database
            .text(&format!("SELECT agent_token_hash FROM agents WHERE id = '{agent}'"))
            .await;
        let verified = tokio::task::spawn_blocking(move || token::verify(&token.unwrap(), &hash.unwrap()));
        assert_eq!(verified.await.unwrap(), Ok(true));
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_several_tokens_is_put_right_and_keeps_the_one_that_counts() {
    let fleet = Fleet::new().await;
    let database = &fleet.database;
    let (first, last) = (fleet.agent("First", "").await, fleet.agent("Last", "").await);
    let options = Options {
        resync: Duration::from_secs(1),
        ..Options::default()
    };
    let controller = Controller::start(&database.url, options).await;
    for agent in [first, last] {
        database.agent_ready(agent).await;
    }
    let before = [first, last].map(|agent| token_of(&fleet, agent));
    let stranger = token::mint();
    let line = format!("AUTH_TOKEN={}", stranger.expose_secret());
    for (agent, before_ours) in [(first, true), (last, false)] {
        let id = format!("mc-{agent}");
        let text = fleet.good.sim.file(&id, "AGENTS.md").unwrap();
        let text = if before_ours {
            format!("{line}\n\n{text}")
        } else {
            format!("{text}\n- `{line}`\n")
        };
        fleet.good.sim.edit_file(&id, "AGENTS.md", &text);
    }
    for agent in [first, last] {
        eventually("the other token is gone", PATIENCE, async || {
            let text = fleet.good.sim.file(&format!("mc-{agent}"), "AGENTS.md")?;
            (!text.contains(stranger.expose_secret())).then_some(())
        })
        .await;
        database.agent_ready(agent).await;
    }
    let after = [first, last].map(|agent| token_of(&fleet, agent));
    assert_eq!(after, before, "the token that belongs to the hash is kept");
    fleet.goes_on(&controller).await;
    let told = database.everything_told().await;
    assert!(!told.contains(stranger.expose_secret()), "nobody is told of a token");
    controller.stop().await;
}

/// The token in an agent's file.
fn token_of(fleet: &Fleet, agent: AgentId) -> Option<String> {
    let text = fleet.good.sim.file(&format!("mc-{agent}"), "AGENTS.md")?;
    let found = token::extract(&text);
    found.tokens().first().map(|token| token.expose_secret().to_owned())
}
