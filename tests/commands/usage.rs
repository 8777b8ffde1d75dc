//! Help, exit codes, and settings that cannot be used.

use openclaw_controller::lab;
use tempfile::TempDir;

use crate::password;
use crate::support::Database;
use crate::support::process::command;

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_every_command_teaches() {
    let main = command(&["--help"], &[]).await;
    assert_eq!(main.code, Some(0));
    for word in [
        "run",
        "migrate",
        "diff",
        "get",
        "apply",
        "export",
        "rotate-token",
        "sync",
        "demo",
        "DATABASE_URL",
        "Examples:",
    ] {
        assert!(main.stdout.contains(word), "{word} is not in\n{}", main.stdout);
    }
    for (name, words) in [
        (
            "run",
            &[
                "Examples:",
                "Exit code",
                "SIGTERM",
                "OPENCLAW_CONTROLLER_RESYNC_INTERVAL",
                "10m",
            ] as &[_],
        ),
        ("migrate", &["Examples:", "Exit code", "existing installation"]),
        ("diff", &["Examples:", "Exit code 0", "redacted", "--gateway"]),
        ("get", &["Examples:", "Exit code", "wide", "json"]),
        (
            "apply",
            &[
                "Examples:",
                "Exit codes: 0",
                "--dry-run",
                "--prune",
                "--schema",
                "one transaction",
            ],
        ),
        ("export", &["Examples:", "Exit codes: 0", "--organization"]),
        (
            "rotate-token",
            &[
                "Examples:",
                "Exit code",
                "--wait",
                "--agent",
                "--board",
                "--all",
                "ten minutes",
            ],
        ),
        (
            "sync",
            &[
                "Examples:",
                "Exit codes: 0",
                "--rotate-tokens",
                "--include-main",
                "--timeout",
                "[default: 10m]",
                "Only used where no controller runs",
                "--templates-dir",
            ],
        ),
        ("demo", &["Examples:", "--gateway"]),
    ] {
        let help = command(&[name, "--help"], &[]).await;
        assert_eq!(help.code, Some(0));
        // Wherever lines are broken.
        let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(text.contains(word), "{name}: {word} is not in\n{}", help.stdout);
        }
    }
    let help = command(&["run", "--help"], &[]).await.stdout;
    for name in [
        "LISTEN",
        "BASE_URL",
        "RESYNC_INTERVAL",
        "DEVICE_IDENTITY",
        "TEMPLATES_DIR",
        "TOKEN_HASH",
        "TOKEN_MAX_AGE",
        "TOKEN_REPAIR",
        "AGENT_LISTEN",
        "PAGE_TOKEN_FILE",
    ] {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(help.contains(&flag), "{flag} is not in\n{help}");
        assert!(help.contains(&format!("OPENCLAW_CONTROLLER_{name}")), "{name}");
    }
    let version = command(&["--version"], &[]).await;
    assert!(version.stdout.starts_with("openclaw-controller "), "{}", version.stdout);
    assert_eq!(command(&["runn"], &[]).await.code, Some(2));
    assert_eq!(command(&[], &[]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_says_what_it_did_and_what_is_in_the_way() {
    let database = Database::empty().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let first = command(&["migrate"], &environment).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stdout.contains("created all tables"), "{}", first.stdout);
    let second = command(&["migrate"], &environment).await;
    assert_eq!(
        (second.code, second.stdout.as_str()),
        (Some(0), "the database is up to date\n")
    );

    let database = Database::empty().await;
    database.execute("CREATE VIEW agents AS SELECT 1 AS id").await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    for arguments in [&["migrate"] as &[_], &["run", "--listen", "127.0.0.1:0"]] {
        let blocked = command(arguments, &environment).await;
        assert_eq!(blocked.code, Some(2), "{}", blocked.stderr);
        let says = "agents is a view, a table is needed";
        assert!(blocked.stderr.contains(says), "{}", blocked.stderr);
        assert!(blocked.stderr.contains("nothing was changed"), "{}", blocked.stderr);
        assert!(!blocked.stderr.contains(&password(&database.url)));
    }
    let objects = "SELECT string_agg(oid::regclass::text, ' ') FROM pg_class
                    WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'openclaw_controller'))";
    assert_eq!(database.text(objects).await.as_deref(), Some("agents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_named_not_there_or_not_migrated_is_told_without_its_password() {
    let database = Database::empty().await;
    let nowhere = format!("postgres://me:hunter2@127.0.0.1:{}/x", lab::free_port().unwrap());
    let wrong = database.url.replace(&password(&database.url), "hunter2");
    for arguments in [
        &["diff"] as &[_],
        &["get", "agents"],
        &["rotate-token", "--all"],
        &["sync", "--gateway", "6d2f0c1e-0000-4000-8000-000000000001"],
        &["migrate"],
    ] {
        let migrates = arguments == ["migrate"];
        for (url, says) in [
            ("", "DATABASE_URL is not set"),
            ("mysql://me:hunter2@h/d", "postgres://user:password@host"),
            (nowhere.as_str(), "cannot reach the database"),
            (wrong.as_str(), "password authentication failed"),
            (
                database.url.as_str(),
                if migrates {
                    ""
                } else {
                    "run `openclaw-controller migrate`"
                },
            ),
        ] {
            let environment = [("DATABASE_URL", url)];
            let environment = if url.is_empty() { &[] as &[_] } else { &environment };
            let failed = command(arguments, environment).await;
            if says.is_empty() {
                continue;
            }
            assert_eq!(failed.code, Some(2), "{arguments:?} {says}: {}", failed.stderr);
            assert!(failed.stderr.contains(says), "{arguments:?}: {}", failed.stderr);
            assert_eq!(failed.stdout, "");
            for secret in ["hunter2", password(&database.url).as_str()] {
                assert!(!failed.stderr.contains(secret), "{}", failed.stderr);
            }
        }
    }
    // From a file, too.
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, format!("{}\n", database.url)).unwrap();
    let file = file.to_str().unwrap();
    let from_file = command(&["get", "agents"], &[("OPENCLAW_CONTROLLER_DATABASE_URL_FILE", file)]).await;
    assert_eq!(from_file.code, Some(0), "{}", from_file.stderr);
    assert!(from_file.stderr.contains("no agents found"), "{}", from_file.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_refused_before_anything_is_done() {
    let database = Database::empty().await;
    let listen = format!("127.0.0.1:{}", lab::free_port().unwrap());
    for (flag, variable, value, says) in [
        ("--resync-interval", "RESYNC_INTERVAL", "soon", "10m"),
        ("--resync-interval", "RESYNC_INTERVAL", "0s", "longer than nothing"),
        ("--listen", "LISTEN", "everywhere", "invalid socket address"),
        ("--base-url", "BASE_URL", "ftp://x", "http:// or https://"),
        (
            "--base-url",
            "BASE_URL",
            "http://u:hunter2@x",
            "must not hold a password",
        ),
        ("--token-hash", "TOKEN_HASH", "md5", "pbkdf2-sha256"),
        ("--token-max-age", "TOKEN_MAX_AGE", "10m", "an hour at least"),
        ("--token-max-age", "TOKEN_MAX_AGE", "old", "90s"),
        ("--token-repair", "TOKEN_REPAIR", "never", "manual"),
        ("--agent-listen", "AGENT_LISTEN", "everywhere", "invalid socket address"),
        (
            "--templates-dir",
            "TEMPLATES_DIR",
            "/no/such/directory",
            "/no/such/directory",
        ),
        (
            "--device-identity",
            "DEVICE_IDENTITY",
            "/proc/no/such/device",
            "/proc/no/such/device",
        ),
        ("--agent-workers", "AGENT_WORKERS", "0", "1"),
        ("--gateway-workers", "GATEWAY_WORKERS", "many", "invalid"),
        ("--log", "LOG", "a=b=c", "log filter"),
    ] {
        let variable = format!("OPENCLAW_CONTROLLER_{variable}");
        let mut environment = vec![("DATABASE_URL", database.url.as_str())];
        let mut arguments = vec!["run"];
        if flag != "--listen" {
            arguments.extend(["--listen", &listen]);
        }
        let by_flag = command(&[arguments.as_slice(), &[flag, value]].concat(), &environment).await;
        environment.push((&variable, value));
        let by_variable = command(&arguments, &environment).await;
        for failed in [by_flag, by_variable] {
            assert_eq!(failed.code, Some(2), "{flag} {value}: {}", failed.stderr);
            assert!(failed.stderr.contains(says), "{flag} {value}: {}", failed.stderr);
            if flag != "--base-url" {
                assert!(!failed.stderr.contains("hunter2"), "{}", failed.stderr);
            }
        }
    }
    let schemas = "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'openclaw_controller'";
    assert_eq!(database.text(schemas).await.as_deref(), Some("0"), "something was done");
}
