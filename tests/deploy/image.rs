//! The image: its steps, run without Docker.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Output, Stdio};
use std::time::Duration;

use openclaw_controller::lab;
use openclaw_controller::sim::{SimDialect, SimGateway};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::roles::Roles;
use crate::support::contract::Watch;
use crate::support::{Database, PATIENCE, eventually, page};
use crate::tools::{BINARY, approve, assert_time_to_stop, path, printed, text, texts};

const USER: u32 = 65532;

/// A script of `deploy/docker`, with arguments.
fn script(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg(path("deploy/docker").join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn finished(mut command: Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("it ends").unwrap()
}

/// A root directory, and one for the state that belongs to the image's user.
struct Image {
    directory: TempDir,
}

impl Image {
    async fn make() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = Self { directory };
        for name in ["root", "state"] {
            fs::create_dir(image.path(name)).unwrap();
        }
        let output = finished(script("rootfs.sh", &[BINARY, &image.path("root")])).await;
        let (stdout, stderr) = texts(&output);
        assert!(
            output.status.success() && stdout.is_empty() && stderr.is_empty(),
            "{stdout}{stderr}"
        );
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(image.path("state"), Some(USER), Some(USER)).unwrap();
        }
        image
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// The controller with that root, with nothing of this environment but what is given.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let (root, state) = (self.path("root"), self.path("state"));
        let mut command = script("run-rootfs.sh", &[&[root.as_str(), state.as_str()], arguments].concat());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(environment.iter().copied());
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_converges_a_fleet_as_a_user_without_rights_on_a_root_that_cannot_be_written() {
    let image = Image::make().await;
    let database = Database::empty().await;
    let roles = Roles::make(&database.url).await;
    let sim = SimGateway::new(SimDialect::V2026_9_6, "the-gateways-token");
    let _watch = Watch::simulated(&sim);
    sim.pair_devices();
    let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let organization = database.organization().await;
    // By name: that needs a resolver, which the image brings.
    let url = server.url().replace("127.0.0.1", "localhost");
    let gateway = database
        .gateway(organization, &url, "env:OPENCLAW_GATEWAY_TOKEN_MAIN", "/ws")
        .await;
    let board = database.board(organization, Some(gateway), "Board").await;
    let agent = database.agent(gateway, Some(board), "Wren", false).await;

    let address = format!("127.0.0.1:{}", lab::free_port().unwrap());
    let by_name = roles.daemon_url.replace("@127.0.0.1:", "@localhost:");
    let mut child = image
        .run(
            &["run", "--no-migrate", "--listen", &address],
            &[
                ("DATABASE_URL", &by_name),
                ("OPENCLAW_CONTROLLER_BASE_URL", "http://mission.test"),
                ("OPENCLAW_GATEWAY_TOKEN_MAIN", "the-gateways-token"),
            ],
        )
        .stdout(Stdio::null())
        .stderr(fs::File::create(image.directory.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    approve(&sim).await;
    // Woken, it waits for a check-in, which keeps nothing from being ready.
    database.agent_ready(agent).await;
    let address = address.parse().unwrap();
    let ready = eventually("the image is ready", PATIENCE, async || {
        let (status, body) = page(address, "/readyz").await;
        (status == 200).then_some(body)
    })
    .await;
    assert!(ready.contains("[+]listener ok"), "{ready}");

    // The scripts have become the controller, so this is its process.
    let process = i32::try_from(child.id().unwrap()).unwrap();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Name:"), ["openclaw-contro"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(field("Uid:"), [USER.to_string().as_str(); 4]);
        assert_eq!(field("Groups:"), [] as [&str; 0]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
    }
    // Even root is refused.
    let write = fs::write(format!("/proc/{process}/root/etc/passwd"), "").unwrap_err();
    assert_eq!(write.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let mut state: Vec<_> = fs::read_dir(image.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    state.sort();
    assert_eq!(state, ["device.json", "device.json.tokens", "device.json.tokens.lock"]);

    kill_process(Pid::from_raw(process).unwrap(), Signal::TERM).unwrap();
    let ended = timeout(openclaw_controller::cli::run::stops_within() + PATIENCE, child.wait());
    assert_eq!(ended.await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_holds_the_binary_and_what_it_needs_and_nothing_else() {
    let image = Image::make().await;
    let mut found = Vec::new();
    list(image.directory.path().join("root").as_path(), "", &mut found);
    found.retain(|file| !file.starts_with("/lib"));
    found.sort();
    assert_eq!(
        found,
        [
            "/etc/group",
            "/etc/nsswitch.conf",
            "/etc/passwd",
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/bin/openclaw-controller",
            "/var/lib/openclaw-controller/",
        ]
    );
    let state = fs::metadata(image.directory.path().join("root/var/lib/openclaw-controller")).unwrap();
    assert_eq!(state.mode() & 0o777, 0o700);

    // What cannot be right is told before anything is made of it.
    for (binary, root, says) in [
        ("/no/such/program", image.path("state"), "build it first"),
        (BINARY, image.path("root"), "is not empty"),
        (BINARY, image.path("nowhere"), "make an empty one first"),
    ] {
        let output = finished(script("rootfs.sh", &[binary, &root])).await;
        let told = texts(&output).1;
        assert!(!output.status.success() && told.contains(says), "{told}");
    }
}

/// All files below a directory, and directories that are empty.
fn list(directory: &std::path::Path, prefix: &str, found: &mut Vec<String>) {
    let mut is_empty = true;
    for entry in fs::read_dir(directory).unwrap() {
        is_empty = false;
        let entry = entry.unwrap();
        let name = format!("{prefix}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &name, found);
        } else {
            found.push(name);
        }
    }
    if is_empty {
        found.push(format!("{prefix}/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dockerfile_takes_these_steps_and_none_that_a_linter_minds() {
    let file = path("deploy/docker/Dockerfile");
    printed("hadolint", &[file.to_str().unwrap()], &[], "").await;
    let text = text("deploy/docker/Dockerfile");
    let instructions: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for instruction in [
        "RUN cargo build --release --locked",
        "RUN mkdir /rootfs && sh deploy/docker/rootfs.sh target/release/openclaw-controller /rootfs",
        "FROM scratch",
        "COPY --from=build /rootfs /",
        "USER 65532:65532",
        "STOPSIGNAL SIGTERM",
        "ENTRYPOINT [\"/usr/bin/openclaw-controller\"]",
    ] {
        assert!(instructions.contains(&instruction), "{instruction}");
    }
    // The toolchain is the one that the repository says, or cargo would fetch it anew.
    let toolchain = crate::tools::text("rust-toolchain.toml");
    let version = toolchain
        .split("channel = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        text.contains(&format!("FROM rust:{version}-bookworm AS build")),
        "{version}"
    );
    // Docker's own ten seconds are too short, which is what the documentation of `docker run` is for.
    assert_time_to_stop(Duration::from_secs(30), "docker stop --time 30");
    assert!(crate::tools::text("docs/deploy.md").contains("--stop-timeout 30"));
}
