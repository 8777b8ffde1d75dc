//! Examples that are no commands: each is read by what it is meant for.

use std::path::Path;

use granit_parser::Parser;
use openclaw_controller::lab;
use serde_json::Value;
use tempfile::TempDir;

use crate::page::pages;
use crate::support::Database;
use crate::support::process::command;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_read_by_what_it_is_meant_for() {
    let database = Database::migrated().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("example");
    let mut problems = Vec::new();
    let mut read = 0;
    for page in pages() {
        for block in &page.blocks {
            let text = &block.text;
            let result = match block.language.as_str() {
                // These are run; a person reads the rest.
                "sh" | "console" | "sql" | "text" | "diff" | "mermaid" => continue,
                "json" => serde_json::from_str::<Value>(text)
                    .map(drop)
                    .map_err(|error| error.to_string()),
                "yaml" => yaml(text, &file, &database).await,
                "promql" => promql(text, &file).await,
                other => Err(format!(
                    "nothing here reads {other:?}: say what the block holds, or have it read"
                )),
            };
            read += 1;
            if let Err(problem) = result {
                problems.push(format!("{}:{}: {problem}", page.path, block.line));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(read > 3, "{read}");
}

/// YAML, which may be a fleet, a configuration of Prometheus, or something else.
async fn yaml(text: &str, file: &Path, database: &Database) -> Result<(), String> {
    for document in text.split("\n---\n") {
        if let Some(Err(error)) = Parser::new_from_str(document).find(Result::is_err) {
            return Err(error.to_string());
        }
        std::fs::write(file, document).unwrap();
        let has = |key: &str| {
            document
                .lines()
                .any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
        };
        if has("organizations") {
            let path = file.to_str().unwrap();
            let taken = command(&["apply", "-f", path, "--dry-run"], &[("DATABASE_URL", &database.url)]).await;
            if taken.code != Some(0) {
                return Err(format!("apply --dry-run does not take it: {}", taken.stderr));
            }
        }
        if has("scrape_configs") {
            promtool(&["check", "config", "--syntax-only", file.to_str().unwrap()]).await?;
        }
    }
    Ok(())
}

/// One expression in each paragraph.
async fn promql(text: &str, file: &Path) -> Result<(), String> {
    let rules: Vec<Value> = text
        .split("\n\n")
        .map(|expression| serde_json::json!({"record": "example", "expr": expression}))
        .collect();
    let rules = serde_json::json!({"groups": [{"name": "examples", "rules": rules}]});
    // JSON is YAML.
    std::fs::write(file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]).await
}

async fn promtool(arguments: &[&str]) -> Result<(), String> {
    let done = tokio::process::Command::new(lab::promtool().await.unwrap())
        .args(arguments)
        .output()
        .await
        .unwrap();
    if done.status.success() {
        return Ok(());
    }
    Err(format!(
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_that_are_wrong_are_found() {
    let database = Database::migrated().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("example");
    for (text, right) in [
        ("version: 1\norganizations: [{name: a}]\n", true),
        ("version: 1\norganizations: [{nam: a}]\n", false),
        ("a: [1\n", false),
        ("a: 1\n---\nb: 2\n", true),
        ("scrape_configs: [{job_name: a}]\n", true),
        ("scrape_configs: [{job: a}]\n", false),
    ] {
        assert_eq!(yaml(text, &file, &database).await.is_ok(), right, "{text}");
    }
    for (text, right) in [("sum(up)\n\nup == 0\n", true), ("sum(up\n", false)] {
        assert_eq!(promql(text, &file).await.is_ok(), right, "{text}");
    }
}
