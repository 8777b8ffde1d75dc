//! Who may look.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openclaw_controller::config::PageArgs;

use crate::fixture::{Fleet, ask, get, serves};
use crate::support::process::{Process, command};
use crate::support::{Controller, Options, PATIENCE};

const PAGE_TOKEN: &str = "page-token-0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_nobody_looks_without_it_and_metrics_and_probes_stay_open() {
    let fleet = Fleet::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, format!("{PAGE_TOKEN}\n")).unwrap();
    let options = Options {
        page: PageArgs {
            page_token_file: Some(file),
        },
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    let address = controller.address;
    serves(address).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    for path in [
        "/",
        "/agents",
        "/static/page.js",
        "/api/v1/agents",
        "/api/v1/openapi.json",
        "/api/v1/events/stream",
        "/api/v1/x",
    ] {
        let refused = get(address, path).await;
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert!(
            refused.headers.contains("Basic realm=") && refused.headers.contains("Bearer realm="),
            "{refused:?}"
        );
        assert!(refused.body.contains("--page-token-file"), "{refused:?}");
        assert!(!refused.body.contains("Wren"), "{refused:?}");
    }
    for wrong in [
        bearer("wrong"),
        basic("admin:wrong"),
        basic(PAGE_TOKEN),
        "Authorization: Digest x\r\n".to_owned(),
    ] {
        assert_eq!(ask(address, "GET /", &wrong).await.status, 401, "{wrong}");
    }
    for right in [
        bearer(PAGE_TOKEN),
        basic(&format!("admin:{PAGE_TOKEN}")),
        basic(&format!(":{PAGE_TOKEN}")),
    ] {
        for path in ["/", "/api/v1/agents"] {
            let answer = ask(address, &format!("GET {path}"), &right).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.body.contains("Wren"), "{answer:?}");
            assert!(
                !answer.body.contains(PAGE_TOKEN) && !answer.headers.contains(PAGE_TOKEN),
                "the token is shown"
            );
        }
        // A name is as good as an address where a token is asked for.
        let named = format!("Host: fleet.example\r\n{right}");
        assert_eq!(ask(address, "GET /", &named).await.status, 200);
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = get(address, path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.contains(PAGE_TOKEN), "{path} shows the token");
    }
    let guesses = async {
        for _ in 0..20 {
            let answer = ask(address, "GET /api/v1/agents", &bearer("guess")).await;
            if answer.status == 429 {
                return answer;
            }
        }
        panic!("twenty guesses were answered");
    };
    let limited = guesses.await;
    assert!(limited.header("retry-after").is_some(), "{limited:?}");
    assert_eq!(
        ask(address, "GET /", &bearer(PAGE_TOKEN)).await.status,
        200,
        "the right one is still taken"
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_no_web_site_can_read_the_page_through_a_name_of_its_own() {
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let address = controller.address;
    serves(address).await;
    for (host, status) in [
        (format!("localhost:{}", address.port()), 200),
        (address.to_string(), 200),
        ("fleet.example".to_owned(), 421),
        (format!("{address}.fleet.example"), 421),
    ] {
        for path in ["/", "/api/v1/agents"] {
            let answer = ask(address, &format!("GET {path}"), &format!("Host: {host}\r\n")).await;
            assert_eq!(answer.status, status, "{path} for {host}: {answer:?}");
            assert!(status == 200 || answer.body.contains("--page-token-file"), "{answer:?}");
        }
    }
    assert_eq!(
        ask(address, "GET /metrics", "Host: fleet.example\r\n").await.status,
        200
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_used_keeps_the_controller_from_starting_and_is_not_shown() {
    let fleet = Fleet::new().await;
    let url = ("DATABASE_URL", fleet.database.url.as_str());
    for (arguments, environment, told) in [
        (
            &["run"] as &[&str],
            Some(("OPENCLAW_CONTROLLER_PAGE_TOKEN", "hunter2")),
            "can be guessed",
        ),
        (
            &["run", "--page-token-file", "/nonexistent/token"],
            None,
            "/nonexistent/token",
        ),
        (
            &["run", "--page-token-file", "/etc/hostname"],
            Some(("OPENCLAW_CONTROLLER_PAGE_TOKEN", PAGE_TOKEN)),
            "given twice",
        ),
    ] {
        let environment: Vec<_> = [url].into_iter().chain(environment).collect();
        let ended = command(arguments, &environment).await;
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
        assert!(
            !ended.stderr.contains("hunter2") && !ended.stderr.contains(PAGE_TOKEN),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_comes_from_the_environment_as_well_and_is_not_logged() {
    let fleet = Fleet::new().await;
    let environment = [("OPENCLAW_CONTROLLER_PAGE_TOKEN", PAGE_TOKEN)];
    let mut process = Process::run_in(&fleet.database.url, &[], &environment);
    process.logs("serving").await;
    assert_eq!(get(process.address, "/").await.status, 401);
    let right = format!("Authorization: Bearer {PAGE_TOKEN}\r\n");
    let page = ask(process.address, "GET /", &right).await;
    assert_eq!(page.status, 200, "{page:?}");
    process.signal(rustix::process::Signal::TERM);
    process.ended(PATIENCE).await;
    assert!(!process.log().contains(PAGE_TOKEN), "the token is logged");
}
