//! The page as it is sent.

use std::collections::BTreeSet;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::sim::Fault;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::fixture::{Fleet, TOKEN, ask, get};
use crate::support::{Controller, Options, PATIENCE, eventually};

/// What a name can hold at worst.
const HOSTILE: &str = r#"</a><script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_there_is_without_any_script() {
    let fleet = Fleet::new().await;
    let controller = fleet.converged(Options::default()).await;
    let page = get(controller.address, "/").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for shown in [
        "All is as desired",
        "<th scope=\"col\">Agent</th>",
        "Wren",
        "Finch",
        "Harbour",
        "2 of 2",
        "Last events",
        &format!("/agents/{}", fleet.agent),
        &format!("/boards/{}", fleet.board),
        &format!("/gateways/{}", fleet.gateway),
    ] {
        assert!(page.body.contains(shown), "{shown:?} is not in\n{}", page.body);
    }
    // Everything a page links to is there.
    let plain = page.body.replace("&#x2f;", "/").replace("&amp;", "&");
    let links: BTreeSet<_> = plain
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > 12, "{links:?}");
    for link in links.into_iter().filter(|link| link.starts_with('/')) {
        let linked = get(controller.address, link).await;
        assert_eq!(linked.status, 200, "{link}: {linked:?}");
    }
    let agent = get(controller.address, &format!("/agents/{}", fleet.agent)).await;
    for shown in [
        "FilesSynced",
        "TokenValid",
        "Registered",
        "Nothing was found to differ",
        &format!("mc-{}", fleet.agent),
    ] {
        assert!(agent.body.contains(shown), "{shown:?} is not in\n{}", agent.body);
    }
    let found = get(controller.address, "/agents?search=fINCH").await;
    assert!(
        found.body.contains("1 agent found") && !found.body.contains("Wren</a></th>"),
        "{}",
        found.body
    );
    let found = get(controller.address, "/agents?ready=false").await;
    assert!(found.body.contains("0 agents found"), "{}", found.body);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_gateway_is_told_with_its_reason_and_when_it_is_tried_again() {
    let fleet = Fleet::new().await;
    let (broken, agent) = fleet.add_broken().await;
    let controller = fleet.converged(Options::default()).await;
    let kind = ConditionType::Reachable;
    eventually("the gateway is told to be unreachable", PATIENCE, async || {
        let conditions = fleet.database.gateway_conditions(broken).await;
        conditions
            .get(kind)
            .filter(|c| c.status == ConditionStatus::False)
            .map(|_| ())
    })
    .await;
    let path = format!("/gateways/{broken}");
    let page = eventually("a retry is announced", PATIENCE, async || {
        let page = get(controller.address, &path).await;
        page.body.contains("next try in").then_some(page)
    })
    .await;
    assert!(page.body.contains("data-until="), "{}", page.body);
    let overview = get(controller.address, "/").await;
    assert!(
        overview
            .body
            .contains("2 of 4 agents and 1 of 2 gateways are not ready"),
        "{}",
        overview.body
    );
    let filtered = get(controller.address, "/?ready=false").await;
    assert!(
        filtered.body.contains("Lighthouse") && filtered.body.contains("Egret"),
        "{}",
        filtered.body
    );
    assert!(!filtered.body.contains("Finch</a></th>"), "{}", filtered.body);
    let page = get(controller.address, &format!("/agents/{agent}")).await;
    assert!(
        page.body.contains("Waits for its gateway") && page.body.contains("GatewayNotReady"),
        "{}",
        page.body
    );
    // A differing file that cannot be written is named.
    let refused = Fault::Error {
        code: "UNAVAILABLE".to_owned(),
        message: "not now".to_owned(),
        retry_after_ms: None,
    };
    fleet.sim.faults().always("agents.files.set", refused);
    fleet
        .database
        .execute(&format!(
            "UPDATE agents SET soul_template = 'Another soul.' WHERE id = '{}'",
            fleet.agent
        ))
        .await;
    let path = format!("/agents/{}", fleet.agent);
    eventually("what differs is named", PATIENCE, async || {
        let page = get(controller.address, &path).await;
        (page.body.contains("<code>SOUL.md</code>") && page.body.contains("next try in")).then_some(())
    })
    .await;
    fleet.sim.faults().clear();
    eventually("nothing differs any more", PATIENCE, async || {
        get(controller.address, &path)
            .await
            .body
            .contains("Nothing was found to differ")
            .then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_escaped_wherever_they_are_shown() {
    let fleet = Fleet::new().await;
    for table in ["gateways", "boards", "agents"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE {table} SET name = $1")))
            .bind(HOSTILE)
            .execute(&fleet.database.pool)
            .await
            .unwrap();
    }
    fleet
        .database
        .execute(&format!(
            "UPDATE boards SET board_type = '<script>t</script>' WHERE id = '{}'",
            fleet.board
        ))
        .await;
    let controller = fleet.converged(Options::default()).await;
    let search = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect::<String>();
    let paths = [
        "/".to_owned(),
        "/gateways".to_owned(),
        "/boards".to_owned(),
        "/agents".to_owned(),
        "/events".to_owned(),
        format!("/gateways/{}", fleet.gateway),
        format!("/boards/{}", fleet.board),
        format!("/agents/{}", fleet.agent),
        format!("/?search={search}"),
        format!("/agents?search={search}"),
        format!("/agents?{search}=x"),
        "/agents/%3Cscript%3E".to_owned(),
    ];
    for path in &paths {
        let page = get(controller.address, path).await;
        let tags = page.body.matches("<script").count();
        assert_eq!(tags, 1, "{path}: only its own script\n{}", page.body);
        for raw in ["<img src=x", "onerror=alert(2)>", "</a><script>"] {
            assert!(!page.body.contains(raw), "{path} has {raw:?}\n{}", page.body);
        }
    }
    let page = get(controller.address, &paths[7]).await;
    assert!(
        page.body.contains("&lt;script&gt;alert(1)") && page.body.contains("{{ 7*7 }}"),
        "{}",
        page.body
    );
    let api = get(controller.address, &format!("/api/v1/agents/{}", fleet.agent)).await;
    assert_eq!(api.json()["name"], HOSTILE, "programs get the name as it is");
    assert_eq!(api.header("x-content-type-options"), Some("nosniff"));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_what_a_page_could_be_made_to_do() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    crate::fixture::serves(controller.address).await;
    for path in [
        "/",
        "/agents",
        "/agents/x",
        "/static/page.js",
        "/api/v1/agents",
        "/api/v1/nothing",
        "/api/v1/agents?x=1",
    ] {
        let answer = get(controller.address, path).await;
        let policy = answer.header("content-security-policy").unwrap_or_default();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {answer:?}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
    }
    // No page holds anything inline.
    for path in ["/", "/agents", &format!("/agents/{}", fleet.agent)] {
        let body = get(controller.address, path).await.body;
        for inline in [" style=", "<style", " onclick=", "javascript:"] {
            assert!(!body.contains(inline), "{path} has {inline:?}");
        }
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_cannot_be_asked_is_told_with_what_to_do() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    crate::fixture::serves(controller.address).await;
    let nobody = Uuid::new_v4();
    for kind in ["gateway", "board", "agent"] {
        for prefix in ["", "/api/v1"] {
            let missing = get(controller.address, &format!("{prefix}/{kind}s/{nobody}")).await;
            assert_eq!(missing.status, 404, "{missing:?}");
            let told = format!("There is no {kind} {nobody}: its row is gone, or never was");
            assert!(missing.body.contains(&told), "{missing:?}");
            let odd = get(controller.address, &format!("{prefix}/{kind}s/Finch")).await;
            assert_eq!(odd.status, 404, "{odd:?}");
            assert!(odd.body.contains("search=NAME"), "{odd:?}");
        }
    }
    for path in [
        "/api/v1/events/0",
        "/api/v1/events/x",
        "/api/v1/nothing",
        "/api/v1/agents/a/b",
    ] {
        let missing = get(controller.address, path).await;
        assert_eq!(missing.status, 404, "{path}: {missing:?}");
        assert!(
            missing.json()["error"]
                .as_str()
                .is_some_and(|text| text.contains("There is no")),
            "{missing:?}"
        );
    }
    for query in [
        "serach=x",
        "ready=perhaps",
        "limit=0",
        "limit=501",
        "limit=9999999999",
        "offset=-1",
        "board=x",
        "search=%00",
    ] {
        for path in ["/agents", "/api/v1/agents"] {
            let answer = get(controller.address, &format!("{path}?{query}")).await;
            let expected = if query == "search=%00" { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{path}?{query}: {answer:?}");
        }
    }
    for path in ["/", "/agents", "/api/v1/agents"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let answer = ask(controller.address, &format!("{method} {path}"), "Content-Length: 0\r\n").await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}: {answer:?}");
        }
        assert_eq!(ask(controller.address, &format!("HEAD {path}"), "").await.status, 200);
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_by_shows_what_the_database_says_and_says_what_it_cannot_know() {
    let fleet = Fleet::new().await;
    let active = fleet.converged(Options::default()).await;
    let standby = Controller::start(&fleet.database.url, Options::default()).await;
    crate::fixture::serves(standby.address).await;
    eventually("the other one stands by", PATIENCE, async || {
        standby.page("/readyz").await.1.contains("standby").then_some(())
    })
    .await;
    let page = get(standby.address, "/").await;
    assert!(
        page.body.contains("All is as desired") && page.body.contains("This replica stands by"),
        "{}",
        page.body
    );
    let path = format!("/api/v1/agents/{}", fleet.agent);
    let (here, there) = (
        get(active.address, &path).await.json(),
        get(standby.address, &path).await.json(),
    );
    assert!(here["live"].is_object() && there["live"].is_null(), "{here} {there}");
    assert_eq!(here["status"], there["status"]);
    assert_eq!(get(active.address, "/api/v1/status").await.json()["replica"], "active");
    assert_eq!(
        get(standby.address, "/api/v1/status").await.json()["replica"],
        "standby"
    );
    standby.stop().await;
    active.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_a_secret() {
    let fleet = Fleet::new().await;
    let (broken, _) = fleet.add_broken().await;
    let url = "ws://someone:url-password-1f2e@192.0.2.1/";
    let refused = fleet
        .database
        .gateway(fleet.organization, url, "third-token-0c9e", "/ws")
        .await;
    let controller = fleet.converged(Options::default()).await;
    fleet
        .database
        .gateway_condition(refused, ConditionType::Ready, ConditionStatus::False, "InvalidUrl")
        .await;
    fleet
        .database
        .gateway_condition(
            broken,
            ConditionType::Ready,
            ConditionStatus::False,
            "ConnectionRefused",
        )
        .await;
    let password = url::Url::parse(&fleet.database.url)
        .unwrap()
        .password()
        .unwrap()
        .to_owned();
    let mut secrets = vec![
        TOKEN.to_owned(),
        "another-token-5d1b".to_owned(),
        "third-token-0c9e".to_owned(),
        "url-password-1f2e".to_owned(),
        "url-token-77aa".to_owned(),
        password,
    ];
    for id in fleet.sim.roster() {
        for text in fleet.sim.files(&id).values() {
            let found = token::extract(text);
            secrets.extend(found.tokens().iter().map(|token| token.expose_secret().to_owned()));
        }
    }
    let hash = "SELECT agent_token_hash FROM agents WHERE agent_token_hash IS NOT NULL LIMIT 1";
    secrets.push(fleet.database.text(hash).await.unwrap());
    assert!(secrets.len() >= 8, "the agents' tokens are among them");
    let mut paths = vec!["/metrics".to_owned(), "/readyz".to_owned(), "/nothing".to_owned()];
    for kind in ["gateways", "boards", "agents", "events"] {
        for prefix in ["/", "/api/v1/"] {
            paths.push(format!("{prefix}{kind}"));
            paths.push(format!("{prefix}{kind}?search=a"));
        }
        let list = get(controller.address, &format!("/api/v1/{kind}?limit=500"))
            .await
            .json();
        for item in list["items"].as_array().unwrap() {
            let id = item["id"]
                .as_str()
                .map_or_else(|| item["id"].to_string(), str::to_owned);
            paths.push(format!("/api/v1/{kind}/{id}"));
            if kind != "events" {
                paths.push(format!("/{kind}/{id}"));
            }
        }
    }
    paths.extend(
        [
            "/",
            "/api/v1/status",
            "/api/v1/openapi.json",
            "/static/page.js",
            "/api/v1/x",
        ]
        .map(str::to_owned),
    );
    for path in paths {
        let answer = get(controller.address, &path).await;
        for secret in &secrets {
            let shown = answer.headers.contains(secret.as_str()) || answer.body.contains(secret.as_str());
            assert!(!shown, "{path} shows a secret");
        }
    }
    controller.stop().await;
}
