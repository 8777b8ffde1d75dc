//! The units under a real systemd, which the test boots for itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use openclaw_controller::lab;
use openclaw_controller::sim::{SimDialect, SimGateway};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::roles::Roles;
use crate::support::contract::Watch;
use crate::support::{Database, PATIENCE, eventually, page};
use crate::tools::{BINARY, approve, path, text, texts};

/// A systemd with the units of `deploy/systemd`.
struct Systemd {
    child: Child,
    pid: String,
}

impl Systemd {
    /// Boots one, with a directory in the place of `/etc/openclaw-controller`.
    async fn boot(etc: &TempDir) -> Self {
        let mut child = Command::new("bash")
            .arg(path("deploy/dev/boot-unit.sh"))
            .arg(BINARY)
            .arg(etc.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, lines.next_line()).await.expect("systemd boots");
        let pid = first
            .unwrap()
            .expect("deploy/dev/boot-unit.sh says on standard error what it lacks");
        let systemd = Self { child, pid };
        eventually("systemd answers", PATIENCE, async || {
            systemd.systemctl(&["show"]).await.status.success().then_some(())
        })
        .await;
        systemd
    }

    async fn systemctl(&self, arguments: &[&str]) -> Output {
        let command = Command::new("nsenter")
            .args(["--target", &self.pid])
            .args(["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"])
            .arg("systemctl")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        timeout(PATIENCE, command).await.expect("systemctl ends").unwrap()
    }

    async fn succeeds(&self, arguments: &[&str]) {
        let output = self.systemctl(arguments).await;
        if output.status.success() {
            return;
        }
        let (stdout, stderr) = texts(&output);
        let (status, _) = texts(
            &self
                .systemctl(&["status", "--full", "--lines=50", "openclaw-controller*"])
                .await,
        );
        panic!("systemctl {arguments:?}: {stdout}{stderr}\n{status}");
    }

    /// One property of the controller's unit.
    async fn property(&self, name: &str) -> String {
        let output = self
            .systemctl(&["show", "--value", "--property", name, "openclaw-controller"])
            .await;
        texts(&output).0.trim().to_owned()
    }

    /// Where the controller's process is seen from here.
    async fn process(&self) -> i32 {
        let inside = self.property("MainPID").await;
        let of_systemd = fs::read_to_string(format!("/proc/{}/task/{}/children", self.pid, self.pid)).unwrap();
        let found = of_systemd.split_whitespace().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))
                .unwrap_or_default();
            ids.split_whitespace().last() == Some(&inside)
        });
        found
            .unwrap_or_else(|| panic!("process {inside} is not there"))
            .parse()
            .unwrap()
    }

    async fn end(mut self) {
        let script = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(script, Signal::TERM).unwrap();
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("systemd ends")
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_migrate_converge_restart_and_stop_under_a_real_systemd() {
    let database = Database::empty().await;
    let roles = Roles::made_once(&database.url).await;
    let address = format!("127.0.0.1:{}", lab::free_port().unwrap());
    let etc = TempDir::new().unwrap();
    let put = |name: &str, text: &str, mode: u32| {
        let file = etc.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    put("database-url", &roles.daemon_url, 0o600);
    put("owner-database-url", &roles.owner_url, 0o600);
    let settings = text("deploy/systemd/environment")
        .replace("127.0.0.1:8080", &address)
        .replace("0.0.0.0:8081", &format!("127.0.0.1:{}", lab::free_port().unwrap()));
    put("environment", &settings, 0o644);
    put(
        "gateway-tokens",
        "OPENCLAW_GATEWAY_TOKEN_MAIN=the-gateways-token\n",
        0o600,
    );

    let systemd = Systemd::boot(&etc).await;
    systemd.succeeds(&["start", "openclaw-controller-migrate"]).await;
    roles.grant(&[]).await;
    let sim = SimGateway::new(SimDialect::V2026_9_6, "the-gateways-token");
    let _watch = Watch::simulated(&sim);
    sim.pair_devices();
    let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let organization = database.organization().await;
    let gateway = database
        .gateway(organization, &server.url(), "env:OPENCLAW_GATEWAY_TOKEN_MAIN", "/ws")
        .await;
    let board = database.board(organization, Some(gateway), "Board").await;
    let agent = database.agent(gateway, Some(board), "Wren", false).await;
    systemd.succeeds(&["start", "openclaw-controller"]).await;
    approve(&sim).await;
    database.agent_ready(agent).await;
    let address = address.parse().unwrap();
    assert_eq!(page(address, "/readyz").await.0, 200);

    let process = systemd.process().await;
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert!(!status.contains("Uid:\t0"), "{status}");
    let kept = |name: &str| {
        fs::read_to_string(format!(
            "/proc/{}/root/var/lib/private/openclaw-controller/{name}",
            systemd.pid
        ))
    };
    let first = kept("device.json").unwrap();
    let issued = sim.device_tokens();
    assert!(kept("device.json.tokens").unwrap().contains(&issued[0]));

    // It dies: systemd brings it back, with the same key.
    kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
    eventually("systemd has restarted it", PATIENCE, async || {
        (systemd.property("NRestarts").await == "1" && page(address, "/readyz").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(kept("device.json").unwrap(), first);
    // What the gateway issued is what it is shown now: nobody has to approve anything again.
    assert_eq!(sim.device_tokens(), issued);
    assert_eq!(sim.pairing_requests(), [] as [&str; 0]);

    systemd.succeeds(&["stop", "openclaw-controller"]).await;
    assert_eq!(systemd.property("Result").await, "success");
    assert_eq!(systemd.property("ExecMainStatus").await, "0");
    systemd.end().await;
}
