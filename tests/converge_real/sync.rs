//! One-shot syncs of a real gateway: by the command alone, and by the controller that runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime};

use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::binary::{Running, texts};
use crate::fixture::{Agent, Fixture, Shape, writes};

/// Syncs, and returns what was printed.
async fn sync(fixture: &Fixture, more: &[&str]) -> Value {
    let id = fixture.row.to_string();
    let begin = Instant::now();
    let (code, text) = fixture
        .environment
        .run(&[&["sync", "--gateway", &id, "-o", "json"], more].concat())
        .await;
    println!("sync {}: {:.1} s", more.join(" "), begin.elapsed().as_secs_f64());
    assert_eq!(code, 0, "{more:?}: {text}");
    let printed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        printed,
        json!({
            "gateway_id": id, "include_main": true, "reset_sessions": more.contains(&"--reset-sessions"),
            "agents_updated": 4, "agents_skipped": 0, "main_updated": true, "errors": [],
        }),
        "{more:?}"
    );
    printed
}

/// When each file below a directory was written.
fn written(directory: &Path, into: &mut BTreeMap<String, SystemTime>) {
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            written(&path, into);
        } else {
            into.insert(
                path.display().to_string(),
                entry.metadata().unwrap().modified().unwrap(),
            );
        }
    }
}

/// What the gateway's disk shows of writes: its config, and when workspace files were written.
fn disk(fixture: &Fixture) -> (Vec<u8>, BTreeMap<String, SystemTime>) {
    let mut files = BTreeMap::new();
    written(&fixture.gateway.workspace_root(), &mut files);
    (fs::read(fixture.gateway.config_path()).unwrap(), files)
}

/// What a sync says of tokens that somebody took away or changed, and that it replaces them only if asked to.
async fn tokens_that_are_lost_or_wrong(fixture: &Fixture) {
    let file = fixture.shape.token_file();
    let edit = async |agent: &Agent, with: &str| {
        let (text, token) = (fixture.file(agent, file).unwrap(), fixture.token(agent).await);
        let text = text.replace(&token, with);
        fixture.gateway.write_file(&agent.slug, file, &text).unwrap();
    };
    let wrong = token::mint();
    edit(&fixture.wren, "").await;
    edit(&fixture.finch, wrong.expose_secret()).await;
    let before = disk(fixture);
    let id = fixture.row.to_string();
    let (code, text) = fixture.environment.run(&["sync", "--gateway", &id, "-o", "json"]).await;
    assert_eq!(code, 1, "{text}");
    let printed: Value = serde_json::from_str(&text).unwrap();
    let said = |agent: &Agent, message: &str| json!({"agent_id": agent.row, "message": message});
    let errors = printed["errors"].as_array().unwrap().iter();
    let errors: Vec<_> = errors
        .map(|error| json!({"agent_id": error["agent_id"], "message": error["message"]}))
        .collect();
    let expected = [
        said(
            &fixture.wren,
            "Skipping agent: unable to read AUTH_TOKEN from TOOLS.md (run with rotate_tokens=true to re-key).",
        ),
        said(
            &fixture.finch,
            "AUTH_TOKEN in TOOLS.md does not match backend token hash (agent auth may be broken).",
        ),
    ];
    assert_eq!(errors, expected);
    assert_eq!(
        (&printed["agents_updated"], &printed["agents_skipped"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(
        disk(fixture),
        before,
        "nobody has a new token, and nothing else differs"
    );
    sync(fixture, &["--rotate-tokens"]).await;
    for agent in [&fixture.wren, &fixture.finch] {
        assert_ne!(fixture.token(agent).await, wrong.expose_secret());
    }
}

pub(crate) async fn tell(version: &str, shape: Shape) {
    let mut fixture = Fixture::new(version, shape).await;
    let agents: Vec<Agent> = fixture.fleet().into_iter().cloned().collect();

    // Nobody runs: the command provisions everybody, and finds nothing to do the next time.
    sync(&fixture, &[]).await;
    for agent in &agents {
        fixture.database.agent_ready(agent.row).await;
        fixture.token(agent).await;
    }
    let (before, starts) = (disk(&fixture), fixture.starts());
    sync(&fixture, &[]).await;
    assert_eq!(disk(&fixture), before, "a sync of what matches writes nothing");
    assert_eq!(fixture.starts(), starts, "and restarts nothing");

    tokens_that_are_lost_or_wrong(&fixture).await;
    let (before, starts) = (disk(&fixture), fixture.starts());

    // A controller runs.
    let controller = Running::start(&fixture.environment);
    fixture.database.gateway_ready(fixture.row).await;
    controller.resyncs(1, agents.len()).await;
    assert_eq!(disk(&fixture), before, "the controller finds nothing to do either");
    fixture.note_secrets();
    let mut old = Vec::new();
    for agent in &agents {
        old.push(fixture.token(agent).await);
    }
    sync(&fixture, &["--rotate-tokens"]).await;
    for (agent, old) in agents.iter().zip(&old) {
        assert_ne!(fixture.token(agent).await, *old);
    }
    for text in texts(&fixture.gateway.workspace_root(), ".md") {
        assert!(!old.iter().any(|old| text.contains(old)), "an old token is in a file");
    }
    let (before, calls) = (disk(&fixture), writes(&controller).await);
    sync(&fixture, &[]).await;
    assert_eq!(writes(&controller).await, calls, "calls that write");
    assert_eq!((disk(&fixture), fixture.starts()), (before, starts));

    let (lead, wren) = (fixture.lead.clone(), fixture.wren.clone());
    fixture
        .gateway
        .write_file(&wren.slug, "MEMORY.md", "Remembered.")
        .unwrap();
    if fixture.file(&lead, "BOOTSTRAP.md").is_some() {
        fixture.gateway.delete_file(&lead.slug, "BOOTSTRAP.md").unwrap();
    }
    sync(&fixture, &["--reset-sessions", "--force-bootstrap", "--overwrite"]).await;
    assert!(fixture.file(&lead, "BOOTSTRAP.md").is_some());
    assert_ne!(fixture.file(&wren, "MEMORY.md").as_deref(), Some("Remembered."));
    fixture
        .gateway
        .write_file(&wren.slug, "MEMORY.md", "Remembered.")
        .unwrap();
    fixture.gateway.delete_file(&lead.slug, "BOOTSTRAP.md").unwrap();
    controller.resyncs(2, agents.len()).await;
    assert_eq!(fixture.file(&lead, "BOOTSTRAP.md"), None, "forced once");
    assert_eq!(
        fixture.file(&wren, "MEMORY.md").as_deref(),
        Some("Remembered."),
        "overwritten once"
    );
    controller.stop().await;
    fixture.note_secrets();
    let shown = fs::read_to_string(fixture.environment.log()).unwrap() + &fixture.dump().await;
    assert!(
        !fixture.secrets.iter().any(|secret| shown.contains(secret)),
        "a secret was shown or stored"
    );
    println!(
        "{version}: one-shot syncs are done, {} restarts in all",
        fixture.starts()
    );
}
