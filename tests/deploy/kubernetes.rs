//! The objects for Kubernetes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use openclaw_controller::lab;
use openclaw_controller::serve::HEARTBEAT_PATH;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::support::process::Process;
use crate::support::{Database, page};
use crate::tools::{assert_time_to_stop, at, help, path, printed, text, text_at, texts, texts_at, tool};

const SELECTOR: &str = "app.kubernetes.io/name";
const NAME: &str = "openclaw-controller";
const VALIDATE: &str = "deploy/dev/validate-kubernetes.py";

/// All objects of the base, which are valid.
async fn base() -> &'static [Value] {
    static OBJECTS: OnceCell<Vec<Value>> = OnceCell::const_new();
    OBJECTS.get_or_init(|| valid("base")).await
}

/// All objects of the base and for the Prometheus operator, which are valid.
async fn monitored() -> &'static [Value] {
    static OBJECTS: OnceCell<Vec<Value>> = OnceCell::const_new();
    OBJECTS.get_or_init(|| valid("monitoring")).await
}

/// The objects of a directory, after every one of them was found valid.
async fn valid(directory: &str) -> Vec<Value> {
    let built = kustomize(&path("deploy/kubernetes").join(directory)).await;
    let script = path(VALIDATE);
    let valid = printed("python", &[script.to_str().unwrap()], &[], &built).await;
    serde_json::from_str(&valid).unwrap()
}

/// What kustomize makes of a directory.
async fn kustomize(directory: &Path) -> String {
    printed("kubectl", &["kustomize", directory.to_str().unwrap()], &[], "").await
}

/// The object of this kind and name.
fn object<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    all.iter()
        .find(|one| one["kind"] == kind && text_at(one, "metadata.name").starts_with(name))
        .unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn pod(all: &[Value]) -> &Value {
    at(object(all, "Deployment", NAME), "spec.template.spec")
}

fn container(all: &[Value]) -> &Value {
    at(pod(all), "containers.0")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_valid_by_the_schemas_of_kubernetes_and_of_the_prometheus_operator() {
    let kinds = |all: &[Value]| -> BTreeSet<String> { all.iter().map(|one| text_at(one, "kind").to_owned()).collect() };
    let base = base().await;
    let mut expected: BTreeSet<String> = [
        "ConfigMap",
        "Deployment",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(kinds(base), expected);
    let monitored = monitored().await;
    expected.extend(["PrometheusRule".to_owned(), "ServiceMonitor".to_owned()]);
    assert_eq!(kinds(monitored), expected);
    for one in base {
        assert!(monitored.contains(one), "{one:#}");
        if one["kind"] != "Namespace" {
            assert_eq!(text_at(one, "metadata.namespace"), NAME);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_key_is_found_in_every_kind_of_object() {
    let mut wrong = monitored().await.to_vec();
    for one in &mut wrong {
        let inside = if one.get("spec").is_some() { "spec" } else { "metadata" };
        one[inside]["replicaz"] = json!(2);
    }
    // JSON is YAML, and one document each.
    let input: Vec<_> = wrong.iter().map(Value::to_string).collect();
    let script = path(VALIDATE);
    let output = tool("python", &[script.to_str().unwrap()], &[], &input.join("\n---\n")).await;
    let told = texts(&output).1;
    assert!(!output.status.success());
    for one in &wrong {
        let begins = format!("{} {}: ", text_at(one, "kind"), text_at(one, "metadata.name"));
        let line = told
            .lines()
            .find(|line| line.starts_with(&begins) && line.contains("replicaz"));
        assert!(line.is_some(), "{begins}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_run_the_binary_as_its_help_says() {
    let all = base().await;
    let deployment = object(all, "Deployment", NAME);
    assert_eq!(at(deployment, "spec.replicas"), 2);
    let help = help().await;
    let arguments = texts_at(container(all), "args");
    assert_eq!(arguments[0], "run");
    for argument in &arguments[1..] {
        let flag = argument.split('=').next().unwrap();
        assert!(help.contains(flag), "{flag}");
    }
    // The ports that it is told to listen on are those that are named.
    for (flag, name) in [("--listen", "http"), ("--agent-listen", "agents")] {
        let listens = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(&format!("{flag}=0.0.0.0:")));
        assert_eq!(listens.unwrap(), port(all, name).to_string());
    }
    let grace = at(pod(all), "terminationGracePeriodSeconds").as_u64().unwrap();
    assert_time_to_stop(Duration::from_secs(grace), "Kubernetes");
    assert_eq!(texts_at(pod(all), "initContainers.0.args"), ["migrate"]);
}

fn port(all: &[Value], name: &str) -> u64 {
    let ports = at(container(all), "ports").as_array().unwrap();
    let found = ports.iter().find(|port| port["name"] == name);
    at(
        found.unwrap_or_else(|| panic!("there is no port {name}")),
        "containerPort",
    )
    .as_u64()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_metrics_and_check_ins_are_served_where_the_objects_say() {
    let all = monitored().await;
    let database = Database::migrated().await;
    let agents = format!("127.0.0.1:{}", lab::free_port().unwrap());
    let daemon = Process::run(&database.url, &["--no-migrate", "--agent-listen", &agents]);
    daemon.readyz(200, "[+]leader ok: active").await;
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(text_at(container(all), &format!("{probe}.httpGet.port")), "http");
        let path = text_at(container(all), &format!("{probe}.httpGet.path"));
        assert_eq!(daemon.page(path).await.0, 200, "{probe}");
    }
    let endpoint = at(object(all, "ServiceMonitor", NAME), "spec.endpoints.0");
    assert_eq!(text_at(endpoint, "port"), "http");
    assert!(
        daemon
            .page(text_at(endpoint, "path"))
            .await
            .1
            .contains("leader_election_master_status")
    );
    // The agents' port answers check-ins, and shows nothing else.
    let agents = agents.parse().unwrap();
    assert_eq!(page(agents, HEARTBEAT_PATH).await.0, 405, "to be posted");
    assert_eq!(page(agents, text_at(endpoint, "path")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_budget_and_policy_are_about_these_pods_and_their_ports() {
    let all = monitored().await;
    let labels = at(object(all, "Deployment", NAME), "spec.template.metadata.labels");
    assert_eq!(labels[SELECTOR], NAME);
    for (kind, name, selector) in [
        ("Service", "openclaw-controller", "spec.selector"),
        ("Service", "openclaw-controller-agents", "spec.selector"),
        ("PodDisruptionBudget", NAME, "spec.selector.matchLabels"),
        ("NetworkPolicy", NAME, "spec.podSelector.matchLabels"),
        ("Deployment", NAME, "spec.selector.matchLabels"),
    ] {
        assert_eq!(
            at(object(all, kind, name), selector),
            &json!({SELECTOR: NAME}),
            "{kind} {name}"
        );
    }
    for (name, port_name) in [
        ("openclaw-controller", "http"),
        ("openclaw-controller-agents", "agents"),
    ] {
        let service = all
            .iter()
            .find(|one| one["kind"] == "Service" && one["metadata"]["name"] == name)
            .unwrap();
        assert_eq!(at(service, "spec.ports.0.port"), port(all, port_name));
        assert_eq!(text_at(service, "spec.ports.0.targetPort"), port_name);
        // Of the two, Prometheus reads the one that has metrics.
        let monitor = at(object(all, "ServiceMonitor", NAME), "spec.selector.matchLabels");
        let read = monitor
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, value)| &service["metadata"]["labels"][key] == value);
        assert_eq!(read, port_name == "http");
    }
    // A drain leaves one of two.
    assert_eq!(at(object(all, "PodDisruptionBudget", NAME), "spec.minAvailable"), 1);

    let policy = object(all, "NetworkPolicy", NAME);
    let ports = |side: &str| -> BTreeSet<String> {
        at(policy, &format!("spec.{side}"))
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|rule| at(rule, "ports").as_array().unwrap())
            .map(|port| format!("{}/{}", port["port"], port["protocol"]).replace('"', ""))
            .collect()
    };
    assert_eq!(ports("ingress"), ["agents/TCP", "http/TCP"].map(str::to_owned).into());
    let out = ["53/TCP", "53/UDP", "5432/TCP", "18789/TCP", "443/TCP"];
    assert_eq!(ports("egress"), out.map(str::to_owned).into());
    assert_eq!(texts_at(policy, "spec.policyTypes"), ["Ingress", "Egress"]);
    // What agents are told to call is their service.
    let base_url = text_at(object(all, "ConfigMap", NAME), "data.OPENCLAW_CONTROLLER_BASE_URL");
    let called = format!("http://openclaw-controller-agents.{NAME}.svc:{}", port(all, "agents"));
    assert_eq!(base_url, called);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_have_no_rights_nothing_to_write_and_only_their_own_secrets() {
    let all = base().await;
    let pod = pod(all);
    assert_eq!(at(pod, "automountServiceAccountToken"), false);
    assert_eq!(at(pod, "securityContext.runAsNonRoot"), true);
    assert_eq!(at(pod, "securityContext.seccompProfile.type"), "RuntimeDefault");
    // The user of the image, whose group is given the secrets.
    let user = at(pod, "securityContext.runAsUser").as_u64().unwrap();
    assert_eq!(at(pod, "securityContext.fsGroup"), user);
    assert!(text("deploy/docker/Dockerfile").contains(&format!("USER {user}:{user}")));
    let mut mounted = Vec::new();
    for one in ["initContainers.0", "containers.0"] {
        let security = at(at(pod, one), "securityContext");
        assert_eq!(at(security, "readOnlyRootFilesystem"), true);
        assert_eq!(at(security, "allowPrivilegeEscalation"), false);
        assert_eq!(texts_at(security, "capabilities.drop"), ["ALL"]);
        let mounts = at(at(pod, one), "volumeMounts").as_array().unwrap();
        mounted.push(
            mounts
                .iter()
                .map(|mount| text_at(mount, "name").to_owned())
                .collect::<Vec<_>>(),
        );
        for mount in mounts.iter().filter(|mount| mount["name"] != "state") {
            assert_eq!(at(mount, "readOnly"), true);
        }
    }
    assert_eq!(
        mounted,
        [
            vec!["owner".to_owned()],
            ["database", "state", "device", "gateways"].map(str::to_owned).into()
        ]
    );
    // The documentation says how each secret is made, with the key that the file is expected under.
    let documented = text("docs/deploy.md");
    for volume in at(pod, "volumes").as_array().unwrap() {
        let name = text_at(volume, "name");
        if name == "state" {
            continue;
        }
        let secret = text_at(volume, "secret.secretName");
        let (key, file) = match name {
            "device" => ("device.json", "/var/lib/openclaw-controller/device.json".to_owned()),
            "gateways" => ("main", "/etc/openclaw-controller/gateways".to_owned()),
            _ => ("url", format!("/etc/openclaw-controller/{name}/url")),
        };
        // Only what nobody has to have may be missing.
        assert_eq!(volume["secret"]["optional"] == true, name == "gateways");
        let made = format!("kubectl -n {NAME} create secret generic {secret} --from-literal={key}=");
        assert!(documented.contains(&made), "docs/deploy.md does not say: {made}");
        let told = at(pod, "initContainers.0.env.0.value").as_str().into_iter().chain(
            at(container(all), "env")
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|variable| variable["value"].as_str()),
        );
        assert!(told.into_iter().any(|told| told == file), "nothing is told of {file}");
        // Readable by root and the group: the mode that the key is taken with.
        assert_eq!(at(volume, "secret.defaultMode"), 0o440);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_cannot_be_written_and_what_gateways_issue_to_it_is_kept_beside_it_in_memory() {
    let pod = pod(base().await);
    let mounts = at(pod, "containers.0.volumeMounts").as_array().unwrap();
    let mounted = |name: &str| mounts.iter().find(|mount| mount["name"] == name).unwrap();
    let volumes = at(pod, "volumes").as_array().unwrap();
    let state = volumes.iter().find(|volume| volume["name"] == "state").unwrap();
    assert_eq!(text_at(state, "emptyDir.medium"), "Memory");
    let key = Path::new(text_at(mounted("device"), "mountPath"));
    assert_eq!(
        key.parent().unwrap().to_str(),
        Some(text_at(mounted("state"), "mountPath"))
    );
    assert_eq!(
        text_at(mounted("device"), "subPath"),
        key.file_name().unwrap().to_str().unwrap()
    );
    // A mount over another one comes after it.
    let order = |name: &str| mounts.iter().position(|mount| mount["name"] == name);
    assert!(order("state") < order("device"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_in_the_documentation_builds_on_both_directories() {
    let documented = text("docs/deploy.md");
    let overlay = documented
        .split("# kustomization.yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    for directory in ["base", "monitoring"] {
        let place = TempDir::new().unwrap();
        let copied = Command::new("cp")
            .args(["-r", "--parents", "deploy/kubernetes"])
            .arg(place.path())
            .current_dir(path("."))
            .status();
        assert!(copied.await.unwrap().success());
        let chosen = overlay.replace("deploy/kubernetes/base ", &format!("deploy/kubernetes/{directory} "));
        std::fs::write(place.path().join("kustomization.yaml"), chosen).unwrap();
        let to_json = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
        let json = printed("python", &["-c", to_json], &[], &kustomize(place.path()).await).await;
        let all: Vec<Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(
            text_at(object(&all, "ConfigMap", NAME), "data.OPENCLAW_CONTROLLER_BASE_URL"),
            "https://agents.example"
        );
        let image = "registry.example/openclaw-controller:0.1.0";
        assert_eq!(text_at(container(&all), "image"), image);
        assert_eq!(text_at(pod(&all), "initContainers.0.image"), image);
        assert_eq!(
            all.iter().any(|one| one["kind"] == "ServiceMonitor"),
            directory == "monitoring"
        );
        // The pods take the settings that were merged.
        let settings = text_at(object(&all, "ConfigMap", NAME), "metadata.name");
        assert_eq!(text_at(container(&all), "envFrom.0.configMapRef.name"), settings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prometheus_rule_holds_the_rules_of_the_prometheus_directory() {
    let script = path("deploy/kubernetes/prometheusrule.sh");
    let output = Command::new("sh").arg(script).output().await.unwrap();
    let (made, told) = texts(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(
        text("deploy/kubernetes/monitoring/prometheusrule.yaml"),
        made,
        "run: sh deploy/kubernetes/prometheusrule.sh >deploy/kubernetes/monitoring/prometheusrule.yaml"
    );
    // The same groups in the same order, comments and indentation aside.
    let gather = "import json, pathlib, sys, yaml\n\
                  files = sorted(pathlib.Path(sys.argv[1]).glob('*.rules.yaml'))\n\
                  print(json.dumps([g for f in files for g in yaml.safe_load(f.read_text())['groups']]))";
    let directory = path("deploy/prometheus");
    let rules = printed("python", &["-c", gather, directory.to_str().unwrap()], &[], "").await;
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let all = monitored().await;
    assert_eq!(at(object(all, "PrometheusRule", NAME), "spec.groups"), &rules);
}
