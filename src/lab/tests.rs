//! The lab's promises, checked on real servers.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Row};

use super::{Options, Postgres, RealGateway, VERSIONS, processes, shared_postgres};

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

async fn starts_restarts_and_vanishes(version: &str) {
    let gateway = RealGateway::start(version, Options::default()).await.unwrap();
    let directory = gateway.directory().to_owned();
    assert!(gateway.is_running());
    gateway.restart().await.unwrap();
    gateway.kill().await.unwrap();
    assert!(!gateway.is_running());
    assert!(
        tokio::time::timeout(
            Duration::from_secs(5),
            super::handshake::greet(&gateway.url(), gateway.token())
        )
        .await
        .unwrap()
        .is_err()
    );
    gateway.start_again().await.unwrap();
    drop(gateway);
    assert_eq!(processes::tagged(&directory), []);
    assert!(!directory.exists());
}

#[tokio::test]
async fn gateway_2026_4_29_starts_restarts_and_vanishes() {
    starts_restarts_and_vanishes(VERSIONS[0]).await;
}

#[tokio::test]
async fn gateway_2026_7_1_starts_restarts_and_vanishes() {
    starts_restarts_and_vanishes(VERSIONS[1]).await;
}

#[tokio::test]
async fn gateway_2026_9_6_starts_restarts_and_vanishes() {
    starts_restarts_and_vanishes(VERSIONS[2]).await;
}
