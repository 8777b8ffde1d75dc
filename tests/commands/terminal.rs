//! What a terminal, a pipe and a shell get to see; and databases that cannot be used.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;

use crate::named::named_fleet;
use crate::support::Database;
use crate::support::process::command;

const BINARY: &str = env!("CARGO_BIN_EXE_openclaw-controller");

/// What a command prints on a terminal.
fn on_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env_clear()
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(other_end)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = Vec::new();
    // A terminal that nobody writes to any more ends with an error.
    let _ = File::from(terminal).read_to_end(&mut text);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_that_want_them() {
    let (fleet, _) = named_fleet().await;
    // Nothing in a name is obeyed.
    fleet
        .database
        .execute("UPDATE agents SET name = E'Wr\\x1b[31men' WHERE name = 'Wren'")
        .await;
    let environment = fleet.environment();
    let with = |variable: &'static str| [environment.as_slice(), &[(variable, "1")]].concat();
    for arguments in [
        &["get", "agents"] as &[_],
        &["describe", "board", "Website", "--plan=never"],
    ] {
        let shown = on_terminal(arguments, &environment);
        assert!(shown.contains("\x1b["), "{shown:?}");
        assert!(!shown.contains("Wr\x1b[31men"), "{shown:?}");
        let plain = on_terminal(arguments, &with("NO_COLOR"));
        assert!(
            plain.contains("Wr\u{fffd}[31men") && !plain.contains('\x1b'),
            "{plain:?}"
        );
        let piped = command(arguments, &environment).await;
        assert!(
            piped.stdout.contains("Website") && !piped.stdout.contains('\x1b'),
            "{piped:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_a_command_quietly() {
    let (fleet, _) = named_fleet().await;
    for arguments in [
        "get agents",
        "get agents -o json",
        "get agents -w -o json",
        "describe agent Wren --plan=never",
        "man",
        "completions bash",
    ] {
        // The reader opens the pipe and has gone before a word is printed.
        let script = format!(
            "mkfifo \"$DIR/pipe\"; (exec 3<\"$DIR/pipe\") & exec 4>\"$DIR/pipe\"; wait; '{BINARY}' {arguments} >&4; echo \"code $?\""
        );
        let directory = TempDir::new().unwrap();
        let done = tokio::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("DIR", directory.path())
            .envs(fleet.environment())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let done = tokio::time::timeout(crate::support::PATIENCE, done)
            .await
            .unwrap()
            .unwrap();
        let (stdout, stderr) = (
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        );
        assert_eq!((stdout.as_str(), stderr.as_str()), ("code 0\n", ""), "{arguments}");
    }
    // Any other trouble with it is told.
    let full = Command::new(BINARY)
        .args(["get", "agents"])
        .env_clear()
        .envs(fleet.environment())
        .stdout(OpenOptions::new().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(2));
    let told = String::from_utf8(full.stderr).unwrap();
    assert!(told.contains("cannot write to standard output: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_man_pages_are_made_of_the_definitions() {
    for (shell, says) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef openclaw-controller"),
        ("fish", "complete -c"),
    ] {
        let script = command(&["completions", shell], &[]).await;
        assert_eq!(script.code, Some(0), "{script:?}");
        for word in [says, "rotate-token", "not-ready"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
    let page = command(&["man"], &[]).await;
    assert!(page.stdout.contains(".TH openclaw-controller 1"), "{}", page.stdout);
    let page = command(&["man", "get"], &[]).await;
    for says in ["\\-\\-condition", "Exit codes"] {
        assert!(page.stdout.contains(says), "{says} is not in\n{}", page.stdout);
    }
    let directory = TempDir::new().unwrap();
    let pages = directory.path().join("man1");
    let written = command(&["man", "--dir", pages.to_str().unwrap()], &[]).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    for page in ["openclaw-controller.1", "openclaw-controller-describe.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    for (arguments, says) in [
        (&["man", "gett"] as &[_], "rotate-token"),
        (&["man", "--dir", "/proc/no"], "/proc/no"),
        (&["completions", "cmd"], "fish"),
    ] {
        let refused = command(arguments, &[]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_too_new_read_only_or_not_permitted_is_told_with_what_to_do() {
    let reads: [&[&str]; 3] = [
        &["get", "agents"],
        &["get", "events"],
        &["describe", "agent", "Wren", "--plan=never"],
    ];
    let writes: [&[&str]; 4] = [
        &["rotate-token", "--all"],
        &["wake", "--all"],
        &["pause", "--board", "Website"],
        &["sync", "--gateway", "Red"],
    ];
    let refused = async |arguments: &[&str], url: &str, says: &[&str]| {
        let refused = command(arguments, &[("DATABASE_URL", url)]).await;
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {refused:?}"
        );
        for says in says {
            assert!(
                refused.stderr.contains(says),
                "{arguments:?}: {says:?} is not in {refused:?}"
            );
        }
    };
    let (fleet, _) = named_fleet().await;
    let Database { url, .. } = &fleet.database;

    // Read-only, as a standby is: what only reads works.
    let name = url::Url::parse(url).unwrap().path().trim_start_matches('/').to_owned();
    let read_only = |on: &str| format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {on}");
    fleet.database.execute(&read_only("on")).await;
    for arguments in reads {
        let read = command(arguments, &[("DATABASE_URL", url)]).await;
        assert_eq!(read.code, Some(0), "{read:?}");
    }
    for arguments in writes {
        refused(arguments, url, &["the database is read-only", "connect to the primary"]).await;
    }
    // Connections that were made meanwhile are read-only for good.
    let execute = async |sql: &str| {
        let sql = format!("BEGIN READ WRITE; {sql}; COMMIT");
        fleet.database.execute(&sql).await;
    };
    execute(&read_only("off")).await;

    // A role that may nothing, and one that may only read.
    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'letters'")).await;
    let mut as_role = url::Url::parse(url).unwrap();
    as_role.set_username(&role).unwrap();
    as_role.set_password(Some("letters")).unwrap();
    for arguments in reads.into_iter().chain(writes) {
        refused(
            arguments,
            as_role.as_str(),
            &["the database refuses: permission denied", "grant that role"],
        )
        .await;
    }
    execute(&format!(
        "GRANT USAGE ON SCHEMA openclaw_controller TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA public, openclaw_controller TO {role}"
    ))
    .await;
    for arguments in reads {
        let read = command(arguments, &[("DATABASE_URL", as_role.as_str())]).await;
        assert_eq!(read.code, Some(0), "{read:?}");
    }
    for arguments in writes {
        refused(
            arguments,
            as_role.as_str(),
            &["the database refuses: permission denied", "grant that role"],
        )
        .await;
    }

    // Too new for this program.
    execute(
        "INSERT INTO openclaw_controller.migrations SELECT (jsonb_populate_record(m, '{\"version\": 999}')).*
               FROM openclaw_controller.migrations m ORDER BY version DESC LIMIT 1",
    )
    .await;
    for arguments in reads.into_iter().chain(writes) {
        refused(arguments, url, &["version 999", "run a newer openclaw-controller"]).await;
    }
    let empty = Database::empty().await;
    for arguments in reads.into_iter().chain(writes) {
        refused(
            arguments,
            &empty.url,
            &["is not migrated", "`openclaw-controller migrate`"],
        )
        .await;
    }
}
