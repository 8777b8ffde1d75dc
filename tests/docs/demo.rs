//! The demo, as the README has a reader start it.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::page::text;
use crate::support::{PATIENCE, page};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_what_the_readme_promises() {
    let makefile = text("Makefile");
    assert!(
        makefile.contains("$(CARGO) run --locked --features sim -- demo "),
        "`make demo` starts something else"
    );
    let home = TempDir::new().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_openclaw-controller"))
        .arg("demo")
        .env("HOME", home.path())
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let last = line.starts_with("Ctrl-C ends");
            printed.push(line);
            if last {
                break;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the demo converges");
    let printed = printed.join("\n");
    assert!(printed.contains("All six agents match their rows after "), "{printed}");
    for agent in ["Juno", "Wren", "Gatekeeper", "Isolde", "Marlow", "Pascal"] {
        assert!(printed.contains(agent), "{agent}: {printed}");
        assert!(text("README.md").contains(agent), "{agent} is not in the README");
    }

    let at = printed
        .split("http://")
        .nth(1)
        .unwrap_or_else(|| panic!("no address: {printed}"));
    let at = at
        .split(|char: char| !(char.is_ascii_digit() || ".:".contains(char)))
        .next()
        .unwrap();
    let address: SocketAddr = at.parse().unwrap_or_else(|error| panic!("{error}: {at}"));
    let (status, shown) = page(address, "/").await;
    assert_eq!(status, 200, "{shown}");
    assert!(shown.contains("Demo gateway") && shown.contains("Wren"), "{shown}");

    kill_process(Pid::from_raw(demo.id().unwrap().cast_signed()).unwrap(), Signal::INT).unwrap();
    // It says what it is ending, to the end.
    let ended = async {
        while lines.next_line().await.unwrap().is_some() {}
        demo.wait().await.unwrap()
    };
    let status = timeout(PATIENCE, ended).await.expect("the demo ends");
    assert_eq!(status.code(), Some(0));
}
