//! `allow_insecure_tls`: what it lets through is said loudly, and written once.

use openclaw_controller::model::{ConditionStatus, ConditionType};

use crate::certificates::Authority;
use crate::fixture::{Gateway, TOKEN};
use crate::proxy::{Manner, Proxy};
use crate::support::process::Process;
use crate::support::{Database, PATIENCE, eventually};

const WARNING: &str = "allow_insecure_tls is set";

#[tokio::test(flavor = "multi_thread")]
async fn an_unchecked_certificate_is_logged_and_shown_on_the_gateway_and_written_once() {
    let (behind_tls, plain) = (Gateway::start().await, Gateway::start().await);
    let identity = Authority::new("nobody's").issue(&["elsewhere.example"]);
    let proxy = Proxy::tls(behind_tls.address(), identity, Manner::default()).await;
    let database = Database::migrated().await;
    let organization = database.organization().await;
    let url = format!("wss://{}", proxy.address);
    let unchecked = database.gateway(organization, &url, TOKEN, "/ws").await;
    let open = database.gateway(organization, &plain.server.url(), TOKEN, "/ws").await;
    database.execute("UPDATE gateways SET allow_insecure_tls = true").await;
    let controller = Process::run(&database.url, &["--resync-interval", "200ms", "--log-format", "json"]);
    for gateway in [unchecked, open] {
        database.gateway_ready(gateway).await;
    }
    let conditions = database.gateway_conditions(unchecked).await;
    let reachable = conditions.get(ConditionType::Reachable).unwrap();
    assert_eq!(
        (reachable.status, reachable.reason.as_str()),
        (ConditionStatus::True, "CertificateNotChecked")
    );
    assert!(
        reachable.message.contains("allow_insecure_tls"),
        "{}",
        reachable.message
    );
    let conditions = database.gateway_conditions(open).await;
    assert_eq!(conditions.get(ConditionType::Reachable).unwrap().reason, "Connected");

    // Some more looks, and nothing is written, and nothing is connected anew.
    let written = async || {
        let sql = "SELECT string_agg(xmin || ' ' || ctid, ';' ORDER BY ctid) FROM openclaw_controller.gateway_records";
        database.text(sql).await
    };
    let before = written().await;
    let looks = async || {
        controller
            .metric("controller_runtime_reconcile_total", "controller=\"gateway\"")
            .await
    };
    let seen = looks().await;
    eventually("the gateways are looked at several times more", PATIENCE, async || {
        (looks().await > seen + 6.0).then_some(())
    })
    .await;
    assert_eq!(written().await, before);
    let warnings: Vec<_> = controller
        .log_lines()
        .into_iter()
        .filter(|line| line.to_string().contains(WARNING))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let warning = warnings[0].to_string();
    assert!(
        warning.contains(&unchecked.to_string()) && warning.contains("WARN"),
        "{warning}"
    );

    // Checked again once the flag is cleared.
    database.execute("UPDATE gateways SET allow_insecure_tls = false").await;
    database
        .gateway_condition(unchecked, ConditionType::Reachable, ConditionStatus::False, "TlsFailed")
        .await;
}
