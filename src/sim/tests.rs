//! The simulation under the real client, in memory and under a paused clock.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Fault, SimConnector, SimDialect, SimGateway};
use crate::gateway::{Client, Connector, ErrorClass, GatewayError, Target, probe};
use crate::model::{FileName, GatewayAgentId, GatewayId};

const PATCH: Duration = Duration::from_mins(1);

struct Bench {
    connector: SimConnector,
    gateway: SimGateway,
    target: Target,
}

impl Bench {
    fn new(dialect: SimDialect) -> Self {
        let connector = SimConnector::default();
        let gateway = SimGateway::new(dialect, "secret");
        let url = connector.insert("one", gateway.clone());
        let target = Target {
            gateway: GatewayId(Uuid::from_u128(1)),
            url,
            token: Some(SecretString::from("secret")),
            disable_device_pairing: false,
            allow_insecure_tls: false,
        };
        Self {
            connector,
            gateway,
            target,
        }
    }

    async fn connect(&self) -> Result<Client, GatewayError> {
        self.connector.connect(&self.target).await
    }

    async fn client(&self) -> Client {
        self.connect().await.unwrap()
    }
}

fn main_agent() -> GatewayAgentId {
    GatewayAgentId::observed("main")
}

async fn patch_channels(client: &Client) -> Result<(), GatewayError> {
    let config = client.config_get().await.unwrap();
    let key = if client.hello().server_version == "2026.9.6" {
        "heartbeatVisibility"
    } else {
        "heartbeat"
    };
    let patch = json!({ "channels": { "defaults": { key: { "showOk": false } } } });
    client
        .config_patch(&patch, config.hash.as_deref(), &[], PATCH)
        .await
        .map(drop)
}

#[tokio::test(start_paused = true)]
async fn probing_finds_the_dialect_that_is_simulated() {
    for dialect in SimDialect::ALL {
        let bench = Bench::new(dialect);
        assert_eq!(probe(&bench.client().await).await.unwrap(), dialect.expected());
        assert_eq!(bench.gateway.writes(), 0, "probing writes nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_patch_of_channels_restarts_old_gateways_and_takes_effect_everywhere() {
    for dialect in SimDialect::ALL {
        let bench = Bench::new(dialect);
        let client = bench.client().await;
        let answer = patch_channels(&client).await;
        let config = bench.gateway.config();
        assert!(config.pointer("/channels/defaults").is_some(), "{dialect:?}: written");
        assert_eq!(
            answer.is_ok(),
            dialect != SimDialect::V2026_4_29,
            "{dialect:?}: answered"
        );
        if dialect == SimDialect::V2026_9_6 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!client.is_closed());
            assert_eq!(bench.gateway.restarts(), 0);
            continue;
        }
        let reason = client.closed().await;
        assert!(reason.restart, "{dialect:?}: {reason:?}");
        assert_eq!(bench.gateway.restarts(), 1);
        assert_eq!(
            bench.connect().await.unwrap_err().class(),
            ErrorClass::ConnectionRefused
        );
        while bench.gateway.is_down() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let starting = bench.connect().await.unwrap_err();
        assert!(starting.is_transient(), "{starting}");
        assert_eq!(starting.retry_after(), Some(Duration::from_millis(500)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let config = bench.client().await.config_get().await.unwrap();
        assert_eq!(config.heartbeat.get("showOk"), Some(&json!(false)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_dialect_loses_its_channels_in_an_update_and_restarts_for_it() {
    let bench = Bench::new(SimDialect::V2026_4_29);
    bench.gateway.edit_config(|config| {
        config["agents"] = json!({ "list": [{ "id": "main" }, { "id": "a" }] });
    });
    bench
        .gateway
        .edit_config(|config| config["channels"] = json!({ "defaults": {} }));
    bench.client().await.closed().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let client = bench.client().await;
    let params = json!({ "agentId": "a", "name": "A" });
    client.request("agents.update", params, PATCH).await.unwrap();
    assert!(client.closed().await.restart);
    assert_eq!(bench.gateway.config().get("channels"), None);
    assert_eq!(bench.gateway.restarts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_write_in_place_and_its_outcome_unknown() {
    for fault in [Fault::DropAfter, Fault::CutFrame] {
        let bench = Bench::new(SimDialect::V2026_9_6);
        bench.gateway.faults().inject("agents.files.set", 1, fault.clone());
        let client = bench.client().await;
        let error = client
            .files_set(&main_agent(), FileName::Soul, "text", None)
            .await
            .unwrap_err();
        assert!(error.outcome_unknown(), "{fault:?}: {error}");
        assert_eq!(bench.gateway.file("main", "SOUL.md").as_deref(), Some("text"));
        assert_eq!(bench.gateway.writes(), 1);
        bench.client().await.config_get().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_after_its_client_is_gone_but_not_after_a_restart() {
    let bench = Bench::new(SimDialect::V2026_7_1);
    bench
        .gateway
        .faults()
        .latency("agents.files.set", Duration::from_secs(5));
    for (restart, expected) in [(false, Some("late")), (true, None)] {
        bench.gateway.delete_file("main", "SOUL.md");
        let client = bench.client().await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.files_set(&main_agent(), FileName::Soul, "late", None).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        if restart {
            bench.gateway.restart();
        } else {
            client.close();
        }
        assert!(waiting.await.unwrap().unwrap_err().outcome_unknown());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(bench.gateway.file("main", "SOUL.md").as_deref(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn faults_strike_as_they_were_ordered() {
    let bench = Bench::new(SimDialect::V2026_9_6);
    let faults = bench.gateway.faults();
    let unavailable = Fault::Error {
        code: "UNAVAILABLE".to_owned(),
        message: "temporarily busy".to_owned(),
        retry_after_ms: Some(1500),
    };
    for (fault, expected) in [
        (Fault::DropBefore, ErrorClass::ConnectionClosed),
        (Fault::HugeFrame(17 * 1024 * 1024), ErrorClass::FrameTooLarge),
        (Fault::NeverAnswer, ErrorClass::Timeout),
        (Fault::LoseAnswer, ErrorClass::Timeout),
        (Fault::Restart, ErrorClass::Restarting),
        (unavailable, ErrorClass::Unavailable),
    ] {
        let client = bench.client().await;
        faults.inject("agents.list", 1, fault.clone());
        let error = client.agents_list().await.unwrap_err();
        assert_eq!(error.class(), expected, "{fault:?}: {error}");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    faults.refuse_next_connects(1);
    assert_eq!(
        bench.connect().await.unwrap_err().class(),
        ErrorClass::ConnectionRefused
    );
    faults.grant_only(&["operator.read"]);
    assert_eq!(bench.connect().await.unwrap_err().class(), ErrorClass::MissingScope);
    faults.clear();
    bench.client().await;
}

#[tokio::test(start_paused = true)]
async fn ticks_keep_a_connection_alive_and_their_absence_ends_it() {
    let bench = Bench::new(SimDialect::V2026_7_1);
    let client = bench.client().await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!client.is_closed());
    bench.gateway.faults().stop_ticks();
    let since = Instant::now();
    client.closed().await;
    assert!(since.elapsed() <= Duration::from_secs(61), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_refused_and_never_shown() {
    let bench = Bench::new(SimDialect::V2026_9_6);
    bench.gateway.set_token("another");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = bench.connect().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unauthorized);
    assert!(!format!("{error} {error:?} {:?}", bench.gateway).contains("another"));
}

#[tokio::test(start_paused = true)]
async fn the_journal_counts_writes_and_holds_no_content() {
    let bench = Bench::new(SimDialect::V2026_7_1);
    let client = bench.client().await;
    client
        .files_set(&main_agent(), FileName::Tools, "AUTH_TOKEN=xyz", None)
        .await
        .unwrap();
    client.files_get(&main_agent(), FileName::Tools).await.unwrap();
    let journal = bench.gateway.journal();
    assert_eq!(bench.gateway.writes(), 1);
    assert_eq!(journal.len(), 2);
    assert!(journal[0].write && journal[0].ok && !journal[1].write);
    assert!(!format!("{journal:?}").contains("xyz"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_agent_that_comes_back_by_patch_restarts_the_gateway_again_and_again() {
    let bench = Bench::new(SimDialect::V2026_9_6);
    let patch = |id: &str, name: &str| {
        let entry = json!({ "name": name });
        json!({ "agents": { "ownership": "explicit", "entries": { id: entry } } })
    };
    let send = async |patch: serde_json::Value| {
        let client = bench.client().await;
        let hash = client.config_get().await.unwrap().hash;
        let result = client.config_patch(&patch, hash.as_deref(), &[], PATCH).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        result
    };
    send(patch("a", "A")).await.unwrap();
    assert!(
        bench
            .client()
            .await
            .agents_delete(&GatewayAgentId::observed("a"))
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(bench.gateway.restarts(), 0);
    for (restarts, change) in [patch("a", "A"), patch("b", "B")].into_iter().enumerate() {
        let error = send(change).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        assert_eq!(bench.gateway.restarts(), restarts + 1);
    }
    assert_eq!(bench.gateway.roster(), ["a", "b", "main"], "written all the same");
    // Created anew it lives.
    let client = bench.client().await;
    client.agents_delete(&GatewayAgentId::observed("a")).await.unwrap();
    let params = json!({ "name": "a" });
    client.request("agents.create", params, PATCH).await.unwrap();
    send(patch("a", "Renamed")).await.unwrap();
    bench.client().await.sessions_patch("agent:a:main", "A").await.unwrap();
    assert_eq!(bench.gateway.restarts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_opened_while_it_is_written_is_opened_once_more() {
    let bench = Bench::new(SimDialect::V2026_4_29);
    let client = bench.client().await;
    let refused = Fault::Error {
        code: "INVALID_REQUEST".into(),
        message: "unsafe workspace file \"SOUL.md\"".into(),
        retry_after_ms: None,
    };
    let (agent, faults) = (main_agent(), bench.gateway.faults());
    for method in ["agents.files.get", "agents.files.set"] {
        faults.inject(method, 1, refused.clone());
    }
    client.files_set(&agent, FileName::Soul, "text", None).await.unwrap();
    assert!(client.files_get(&agent, FileName::Soul).await.unwrap().text == "text");
    // One that stays so is none that the gateway opens.
    faults.always("agents.files.get", refused);
    let error = client.files_get(&agent, FileName::Soul).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
}
