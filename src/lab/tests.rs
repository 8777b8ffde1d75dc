//! The lab's promises, checked on real servers.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Row};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Options, Postgres, Prometheus, RealGateway, VERSIONS, processes, shared_postgres};

async fn one(url: &str) -> sqlx::Result<i32> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    let mut connection = options.connect().await?;
    let row = sqlx::query("SELECT 1").fetch_one(&mut connection).await?;
    connection.close().await?;
    row.try_get(0)
}

#[tokio::test]
async fn postgres_comes_back_with_its_data_after_a_restart_and_after_a_crash() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres.create_database("kept").await.unwrap();
    assert_eq!(one(&url).await.unwrap(), 1);
    postgres.restart().await.unwrap();
    assert_eq!(one(&url).await.unwrap(), 1);
    postgres.kill9().await.unwrap();
    assert!(one(&url).await.is_err(), "a killed server must not answer");
    postgres.start_again().await.unwrap();
    assert_eq!(one(&url).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dropped_postgres_leaves_no_process_and_no_directory() {
    let postgres = Postgres::start().await.unwrap();
    let directory = postgres.directory().to_owned();
    assert!(directory.exists());
    assert!(
        !processes::tagged(&directory).is_empty(),
        "the running server must be found by its tag"
    );
    drop(postgres);
    assert_eq!(processes::tagged(&directory), []);
    assert!(!directory.exists());
}

/// Two roles in one test: without the variable it starts itself again with it, kills that process, and looks.
#[tokio::test]
async fn a_killed_owner_leaves_no_process_and_no_directory() {
    const ROLE: &str = "OPENCLAW_LAB_TEST_OWNER";
    if std::env::var_os(ROLE).is_some() {
        let postgres = Postgres::start().await.unwrap();
        println!("\ndirectory {}", postgres.directory().display());
        std::future::pending::<()>().await;
    }
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "lab::tests::a_killed_owner_leaves_no_process_and_no_directory",
            "--nocapture",
        ])
        .env(ROLE, "1")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let limit = Duration::from_mins(2);
    let directory = tokio::time::timeout(limit, async {
        loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("the owner ended before it had a server");
            if let Some(directory) = line.strip_prefix("directory ") {
                break PathBuf::from(directory);
            }
        }
    })
    .await
    .unwrap();
    assert!(!processes::tagged(&directory).is_empty());
    owner.kill().await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while directory.exists() || !processes::tagged(&directory).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the guardian of a killed process must end its server and remove the directory");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let postgres = shared_postgres().await;
    let wrong = postgres.url().replace(postgres.password(), "wrong");
    assert!(one(&wrong).await.is_err());
}

#[tokio::test]
async fn fresh_databases_differ() {
    let postgres = shared_postgres().await;
    assert_ne!(
        postgres.fresh_database().await.unwrap(),
        postgres.fresh_database().await.unwrap()
    );
    assert!(postgres.create_database("no\"name").await.is_err());
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let postgres = shared_postgres().await;
    assert!(!format!("{postgres:?}").contains(postgres.password()));
    let options = Options {
        token: Some("s3cret".to_owned()),
        ..Options::default()
    };
    assert!(!format!("{options:?}").contains("s3cret"));
}

#[tokio::test]
async fn prometheus_answers_with_data_or_the_reason_and_vanishes() {
    let configuration = |text: &str| [("prometheus.yaml", text.to_owned())];
    let prometheus = Prometheus::start(&configuration("global: {}")).await.unwrap();
    let directory = prometheus.directory().to_owned();
    let answer = prometheus.ask("query", &[("query", "vector(6) * 7")]).await.unwrap();
    assert_eq!(answer["result"][0]["value"][1], "42");
    let refused = prometheus.ask("query", &[("query", "sum(")]).await.unwrap_err();
    assert!(refused.to_string().contains("parse error"), "{refused:#}");
    assert!(super::promtool().await.unwrap().exists());
    drop(prometheus);
    assert_eq!(processes::tagged(&directory), []);
    assert!(!directory.exists());
    let refused = Prometheus::start(&configuration("nonsense: 1")).await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("field nonsense not found"),
        "{refused:#}"
    );
}

// One version stands for all: the others are started by the tests that need them.
#[tokio::test]
async fn gateway_2026_9_6_starts_restarts_comes_to_rest_and_vanishes() {
    let gateway = RealGateway::start(VERSIONS[2], Options::default()).await.unwrap();
    let directory = gateway.directory().to_owned();
    assert!(gateway.is_running());
    gateway.restart().await.unwrap();
    gateway.at_rest(Duration::from_mins(1)).await.unwrap();
    gateway.kill().await.unwrap();
    assert!(!gateway.is_running());
    let error = gateway.at_rest(Duration::from_mins(1)).await.unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error:#}");
    assert!(
        tokio::time::timeout(
            Duration::from_secs(5),
            super::handshake::greet(&gateway.url(), gateway.token())
        )
        .await
        .unwrap()
        .is_err()
    );
    drop(gateway);
    assert_eq!(processes::tagged(&directory), []);
    assert!(!directory.exists());
}
