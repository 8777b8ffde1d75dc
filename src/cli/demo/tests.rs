use std::sync::Mutex;

use chrono::DateTime;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use super::progress::{changes, converged};
use super::*;
use crate::lab::shared_postgres;
use crate::model::{ConditionStatus, ConditionType, Conditions};

async fn connect(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

fn conditions(held: &[ConditionType]) -> Conditions {
    let mut conditions = Conditions::default();
    for kind in held {
        conditions.set(*kind, ConditionStatus::True, "Done", "", 1, DateTime::UNIX_EPOCH);
    }
    conditions
}

/// A controller that converges by saying so.
#[derive(Default)]
struct Pretender {
    seen: Mutex<Option<DemoTarget>>,
    running: CancellationToken,
}

impl DemoController for Pretender {
    async fn run(&self, target: DemoTarget, shutdown: CancellationToken) -> Result<()> {
        let mut connection = connect(&target.database_url).await;
        *self.seen.lock().unwrap() = Some(target);
        let held = conditions(&[
            ConditionType::Registered,
            ConditionType::FilesSynced,
            ConditionType::TokenValid,
        ]);
        sqlx::query(
            "INSERT INTO openclaw_controller.agent_records (agent_id, conditions) SELECT id, $1::jsonb FROM agents",
        )
        .bind(serde_json::to_string(&held)?)
        .execute(&mut connection)
        .await?;
        self.running.cancel();
        shutdown.cancelled().await;
        Ok(())
    }
}

#[tokio::test]
async fn the_seed_holds_two_boards_with_leads_and_six_agents_with_derived_sessions() {
    let url = shared_postgres().await.fresh_database().await.unwrap();
    migrate(&url).await.unwrap();
    seed::plant(&url, "ws://127.0.0.1:1", "it's secret", "/w")
        .await
        .unwrap();
    let mut connection = connect(&url).await;
    let (agents, leads, mains, boards, wrong): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT board_id) FILTER (WHERE is_board_lead), count(*) FILTER (WHERE board_id IS NULL),
                count(DISTINCT board_id),
                count(*) FILTER (WHERE openclaw_session_id <> CASE
                    WHEN board_id IS NULL THEN 'agent:mc-gateway-' || gateway_id || ':main'
                    WHEN is_board_lead THEN 'agent:lead-' || board_id || ':main'
                    ELSE 'agent:mc-' || id || ':main' END)
           FROM agents",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!((agents, leads, mains, boards, wrong), (6, 2, 1, 2, 0));
    let token: String = sqlx::query_scalar("SELECT token FROM gateways")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(token, "it's secret");
}

#[tokio::test]
async fn the_demo_ends_on_request_and_leaves_nothing() {
    let controller = Pretender::default();
    let shutdown = CancellationToken::new();
    let arguments = DemoArguments {
        gateway: "sim".to_owned(),
    };
    let demo = Box::pin(run(&arguments, &controller, shutdown.clone()));
    let ask = async {
        controller.running.cancelled().await;
        shutdown.cancel();
    };
    let (result, ()) = timeout(Duration::from_mins(2), async { tokio::join!(demo, ask) })
        .await
        .unwrap();
    result.unwrap();
    let target = controller.seen.lock().unwrap().clone().unwrap();
    assert!(!target.device_identity.parent().unwrap().exists());
    assert!(
        target
            .database_url
            .parse::<PgConnectOptions>()
            .unwrap()
            .connect()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn progress_ends_once_every_agent_is_as_its_row_says() {
    let url = shared_postgres().await.fresh_database().await.unwrap();
    migrate(&url).await.unwrap();
    seed::plant(&url, "ws://127.0.0.1:1", "token", "/w").await.unwrap();
    let mut progress = Progress::of(&url).await.unwrap();
    let target = DemoTarget {
        database_url: url,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        base_url: String::new(),
        device_identity: PathBuf::new(),
    };
    let (controller, shutdown) = (Pretender::default(), CancellationToken::new());
    let follow = async {
        let seconds = progress.until_converged().await.unwrap();
        shutdown.cancel();
        seconds
    };
    let both = async { tokio::join!(controller.run(target, shutdown.clone()), follow) };
    let (run, seconds) = timeout(Duration::from_mins(1), both).await.unwrap();
    run.unwrap();
    assert!(seconds > 0.0);
}

#[test]
fn a_fleet_without_agents_has_not_converged() {
    assert!(!converged(&[]));
}

#[test]
fn only_what_moved_is_told() {
    let before = conditions(&[ConditionType::Registered]);
    let mut now = conditions(&[
        ConditionType::Registered,
        ConditionType::FilesSynced,
        ConditionType::TokenValid,
    ]);
    now.set(
        ConditionType::CheckedIn,
        ConditionStatus::False,
        "AwaitingCheckIn",
        "woken once",
        1,
        DateTime::UNIX_EPOCH,
    );
    assert_eq!(
        changes(&before, &now),
        [
            "FilesSynced, TokenValid",
            "CheckedIn=False (AwaitingCheckIn): woken once"
        ]
    );
    assert_eq!(changes(&now, &now), Vec::<String>::new());
}
