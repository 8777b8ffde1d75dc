//! A word in a board's chat pauses its agents, and another one lets them go on.

use std::time::Instant;

use openclaw_controller::model::{ConditionStatus, ConditionType};

use crate::binary::Running;
use crate::fixture::Fixture;
use crate::support::Database;

/// What the file holds while nobody may put it right.
const SCRIBBLE: &str = "Written while the board was paused.\n";

/// While the board of Heron is paused, neither drift nor an edit of its row reaches its files; the others go on.
pub(crate) async fn tell(fixture: &Fixture, controller: &Running) {
    let heron = &fixture.heron;
    let pause = Instant::now();
    say(&fixture.database, fixture, " /PAUSE\n").await;
    paused(fixture, ConditionStatus::True, "BoardPaused").await;
    println!("a board was paused within {:?}", pause.elapsed());
    fixture
        .gateway
        .write_file(&heron.slug, "IDENTITY.md", SCRIBBLE)
        .unwrap();
    let edits = [
        Fixture::set(heron, "soul_template = 'Another soul.'"),
        Fixture::set(&fixture.wren, "soul_template = 'One more soul.'"),
    ];
    fixture.database.execute(&edits.concat()).await;
    fixture
        .file_becomes(&fixture.wren, "SOUL.md", |text| text == "One more soul.")
        .await;
    controller.resyncs(1, fixture.fleet().len()).await;
    assert_eq!(fixture.file(heron, "IDENTITY.md").as_deref(), Some(SCRIBBLE));
    assert_ne!(fixture.file(heron, "SOUL.md").as_deref(), Some("Another soul."));

    // Neither of these is the word.
    say(&fixture.database, fixture, "please /resume").await;
    controller.resyncs(1, fixture.fleet().len()).await;
    assert_eq!(fixture.file(heron, "IDENTITY.md").as_deref(), Some(SCRIBBLE));

    let resume = Instant::now();
    say(&fixture.database, fixture, "/Resume ").await;
    fixture
        .file_becomes(heron, "SOUL.md", |text| text == "Another soul.")
        .await;
    println!("a board went on within {:?}", resume.elapsed());
    fixture
        .file_becomes(heron, "IDENTITY.md", |text| text != SCRIBBLE)
        .await;
    paused(fixture, ConditionStatus::False, "NotPaused").await;
    let back = [heron, &fixture.wren].map(|agent| Fixture::set(agent, "soul_template = NULL"));
    fixture.database.execute(&back.concat()).await;
    for agent in [heron, &fixture.wren] {
        fixture
            .file_becomes(agent, "SOUL.md", |text| text.contains("SOUL.md"))
            .await;
    }
    for agent in fixture.fleet() {
        fixture.database.agent_ready(agent.row).await;
    }
}

async fn paused(fixture: &Fixture, status: ConditionStatus, reason: &str) {
    fixture
        .database
        .agent_condition(fixture.heron.row, ConditionType::Paused, status, reason)
        .await;
}

/// Says something in the chat of Heron's board.
async fn say(database: &Database, fixture: &Fixture, words: &str) {
    let sql = format!(
        "INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
         VALUES (gen_random_uuid(), '{}', '{words}', true, clock_timestamp() AT TIME ZONE 'UTC')",
        fixture.beta
    );
    database.execute(&sql).await;
}
