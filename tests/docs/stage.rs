//! Where pages are tried out: a database, a simulated gateway, a directory with the files that pages name, and free ports in place of
//! those that pages speak of.

use std::path::Path;

use openclaw_controller::lab::{self, shared_postgres};
use openclaw_controller::sim::{SimDialect, SimGateway, SimServer};
use openclaw_controller::token;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};
use url::Url;

use crate::page::{Page, root, text};
use crate::shell::Shell;
use crate::support::contract::Watch;
use crate::support::{Database, PATIENCE, page as answer};

/// The token of every gateway here.
const TOKEN: &str = "the-gateways-token-3f9c";
/// The password of every database role that a page makes.
pub(crate) const PASSWORD: &str = "only-for-this-test";
/// The gateway of the fleet below.
const GATEWAY: &str = "0d000000-0000-4000-8000-000000000001";

/// The example of a fleet, in which whoever the pages name by an id has that id.
const IDS: [(&str, &str); 8] = [
    ("Quay", GATEWAY),
    ("Website", "0e000000-0000-4000-8000-000000000001"),
    ("Newsletter", "0e000000-0000-4000-8000-000000000002"),
    ("Gatekeeper", "0f000000-0000-4000-8000-000000000001"),
    ("Marlow", "0f000000-0000-4000-8000-000000000002"),
    ("Wren", "0f000000-0000-4000-8000-000000000003"),
    ("Pascal", "0f000000-0000-4000-8000-000000000004"),
    ("Juno", "0f000000-0000-4000-8000-000000000006"),
];

/// What a page finds when a reader begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// With the fleet of `docs/fleet.example.yaml`, which a controller keeps as desired, after these statements.
    WithFleet(&'static str),
    /// With an empty database.
    Empty,
}

impl Begins {
    fn of(page: &str, says: &str) -> Self {
        match page {
            // It is about a gateway called Red, and leads that nobody gave a name.
            "docs/commands.md" => Self::WithFleet(
                "UPDATE gateways SET name = 'Red'; UPDATE openclaw_controller.board_settings SET lead_name = NULL;
                 UPDATE agents SET name = 'Lead Agent' WHERE is_board_lead",
            ),
            // It makes the roles by which the tables are made.
            "docs/deploy.md" => Self::Empty,
            _ => {
                let first = says.lines().find(|line| line.starts_with("export DATABASE_URL="));
                let own = first.is_some_and(|line| line.contains("empty"));
                if own { Self::Empty } else { Self::WithFleet("") }
            }
        }
    }
}

pub(crate) struct Stage {
    /// The database that commands mean at the moment.
    pub(crate) database: Database,
    gateways: Vec<Gateway>,
    directory: TempDir,
    port: u16,
    agent_port: u16,
    path: String,
    /// In which the controller runs that is there from the beginning.
    operator: Option<Shell>,
}

struct Gateway {
    sim: SimGateway,
    server: SimServer,
    _watch: Watch,
}

impl Gateway {
    async fn start() -> Self {
        let sim = SimGateway::new(SimDialect::V2026_9_6, TOKEN);
        let watch = Watch::simulated(&sim);
        let server = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self {
            sim,
            server,
            _watch: watch,
        }
    }

    /// The token of one of its agents.
    fn agent_token(&self) -> Option<String> {
        self.sim.roster().iter().find_map(|agent| {
            let text = self.sim.file(agent, "AGENTS.md")?;
            let found = token::extract(&text);
            Some(found.tokens().first()?.expose_secret().to_owned())
        })
    }
}

impl Stage {
    /// What a page begins with.
    pub(crate) async fn of(page: &Page) -> Self {
        let mut stage = Self::empty().await;
        if let Begins::WithFleet(sql) = Begins::of(&page.path, &text(&page.path)) {
            stage.plant(sql).await;
        }
        stage
    }

    async fn empty() -> Self {
        let directory = TempDir::new().unwrap();
        let gateway = Gateway::start().await;
        for below in ["docs", "deploy"] {
            copy(&root().join(below), &directory.path().join(below));
        }
        copy(&root().join("src/render/builtin"), &directory.path().join("templates"));
        std::fs::create_dir_all(directory.path().join("etc")).unwrap();
        let example = directory.path().join("docs/fleet.example.yaml");
        let fleet = std::fs::read_to_string(&example).unwrap();
        let here = fleet.replace(SAID_URL, &gateway.server.url());
        assert_ne!(fleet, here, "the example names {SAID_URL}");
        std::fs::write(&example, here).unwrap();

        let binary = Path::new(env!("CARGO_BIN_EXE_openclaw-controller"));
        let psql = shared_postgres().await.psql_path();
        let promtool = lab::promtool().await.unwrap();
        let jq = lab::jq().await.unwrap();
        let mut path: Vec<&str> = [binary, &psql, &promtool]
            .iter()
            .map(|program| program.parent().unwrap().to_str().unwrap())
            .collect();
        path.push(jq.to_str().unwrap());
        let usual = std::env::var("PATH").unwrap();
        for program in ["curl", "openssl"] {
            let is_there = std::env::split_paths(&usual).any(|directory| directory.join(program).is_file());
            assert!(
                is_there,
                "pages use {program}, which is not installed: apt-get install {program}"
            );
        }
        path.push(&usual);
        Self {
            database: Database::empty().await,
            gateways: vec![gateway],
            port: lab::free_port().unwrap(),
            agent_port: lab::free_port().unwrap(),
            path: path.join(":"),
            directory,
            operator: None,
        }
    }

    /// The fleet, and a controller that has made it as desired. Nobody is woken, since nobody would check in.
    async fn plant(&mut self, sql: &str) {
        let mut shell = self.shell();
        let mut fleet = std::fs::read_to_string(self.directory.path().join("docs/fleet.example.yaml")).unwrap();
        for (name, id) in IDS {
            let named = format!("- name: {name}\n");
            let at = fleet
                .find(&named)
                .unwrap_or_else(|| panic!("the example has no {name}"));
            let indent = at - fleet[..at].rfind('\n').unwrap() + 1;
            let with_id = format!("- id: {id}\n{:indent$}name: {name}\n", "");
            fleet = fleet.replacen(&named, &with_id, 1);
        }
        for (command, input) in [
            ("openclaw-controller migrate", ""),
            ("openclaw-controller apply -f -", &fleet),
        ] {
            let ended = shell.run(command, input).await;
            assert_eq!(ended.complaint(command), None);
        }
        self.database.execute(sql).await;
        shell
            .start_controller("OPENCLAW_CONTROLLER_NO_WAKE=true openclaw-controller run")
            .await;
        self.controller_works(&shell).await.unwrap();
        self.operator = Some(shell);
    }

    /// A shell for a reader.
    pub(crate) fn shell(&self) -> Shell {
        let home = self.directory.path();
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            set("PATH", &self.path),
            set("HOME", home.to_str().unwrap()),
            set("LANG", "C.UTF-8"),
            set("DATABASE_URL", &self.database.url),
            set("OPENCLAW_CONTROLLER_LISTEN", &format!("127.0.0.1:{}", self.port)),
            set("OPENCLAW_GATEWAY_TOKEN_QUAY", TOKEN),
            set("BASE_URL", &format!("http://127.0.0.1:{}", self.port)),
        ];
        if let Some(token) = self.agent_token() {
            environment.push(("AUTH_TOKEN".to_owned(), token));
        }
        Shell::start(home, &environment)
    }

    /// The token of one of the agents.
    pub(crate) fn agent_token(&self) -> Option<String> {
        self.gateways.iter().rev().find_map(Gateway::agent_token)
    }

    /// A command as it has to be typed here.
    pub(crate) async fn as_typed_here(&mut self, command: &str) -> String {
        if command.starts_with("export DATABASE_URL=") {
            if command.contains("empty") {
                self.database = Database::empty().await;
            } else if command.contains("backend") {
                self.backends_database().await;
            }
        }
        let mut text = with_gateway_tokens(&self.with_database(command));
        let token = TOKEN.to_owned();
        let directory = self.directory.path().display();
        let mut here = vec![
            (SAID_URL.to_owned(), self.gateways[0].server.url()),
            ("the gateway''s token".to_owned(), token),
            ("--gateway ID".to_owned(), format!("--gateway {GATEWAY}")),
            (
                "/path/to/the/backend/templates".to_owned(),
                format!("{directory}/templates"),
            ),
            ("/etc/openclaw-controller/".to_owned(), format!("{directory}/etc/")),
        ];
        for host in ["localhost", "127.0.0.1", "0.0.0.0", "controller.example"] {
            for (said, port) in [(8080, self.port), (8081, self.agent_port)] {
                here.push((format!("{host}:{said}"), format!("127.0.0.1:{port}")));
            }
        }
        for (said, is) in here {
            text = text.replace(&said, &is);
        }
        text
    }

    /// The text with this database in place of all that it names.
    fn with_database(&self, text: &str) -> String {
        let mut here = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("postgres://") {
            let end = after
                .find(|char: char| char.is_whitespace() || "'\"".contains(char))
                .unwrap_or(after.len());
            let role = after[..end].split([':', '@']).next().unwrap();
            let mut url = Url::parse(&self.database.url).unwrap();
            // The others are people who may do everything.
            if role.starts_with("openclaw_controller_") {
                url.set_username(role).unwrap();
                url.set_password(Some(PASSWORD)).unwrap();
            }
            here.push_str(before);
            here.push_str(url.as_str());
            rest = &after[end..];
        }
        here + rest
    }

    /// A database as another program has made it, with a fleet of its own on a gateway of its own.
    async fn backends_database(&mut self) {
        self.database = Database::empty().await;
        let gateway = Gateway::start().await;
        let url = gateway.server.url();
        self.gateways.push(gateway);
        let settings = format!(
            "SET demo.gateway_url = '{url}'; SET demo.gateway_token = '{TOKEN}'; SET demo.workspace_root = '/srv/workspaces';"
        );
        let theirs = include_str!("../existing_installation.sql");
        let fleet = include_str!("../../src/cli/demo/seed.sql");
        self.database
            .execute(&format!(
                "{theirs}; DELETE FROM agents; DELETE FROM board_memory; DELETE FROM boards; DELETE FROM gateways; {settings} {fleet}"
            ))
            .await;
    }

    /// Has the controller that is there from the beginning stopped, if it still runs.
    pub(crate) async fn stop_operator(&mut self) -> Result<(), String> {
        match self.operator.take() {
            Some(mut shell) => shell.stop_controller().await,
            None => Ok(()),
        }
    }

    /// Waits until the controller in this shell can work, and has made everything as desired.
    pub(crate) async fn controller_works(&self, shell: &Shell) -> Result<(), String> {
        let address = ([127, 0, 0, 1], self.port).into();
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, body) = answer(address, "/readyz").await;
            let waits_for = if status == 200 {
                self.not_ready().await
            } else {
                Some(body)
            };
            match waits_for {
                None => return Ok(()),
                Some(what) if Instant::now() > end => {
                    return Err(format!("not within {PATIENCE:?}: {what}\n{}", shell.log()));
                }
                Some(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Which gateways and agents are not as desired, of those on gateways that are there. A paused board's agents wait.
    async fn not_ready(&self) -> Option<String> {
        let urls: Vec<String> = self
            .gateways
            .iter()
            .map(|gateway| format!("'{}'", gateway.server.url()))
            .collect();
        let is = |kind: &str| {
            format!("coalesce(r.conditions::jsonb @> '[{{\"type\": \"{kind}\", \"status\": \"True\"}}]', false)")
        };
        let (ready, paused) = (is("Ready"), is("Paused"));
        self.database
            .text(&format!(
                "SELECT string_agg(t.name, ', ') FROM (
                     SELECT g.name FROM gateways g
                       LEFT JOIN openclaw_controller.gateway_records r ON r.gateway_id = g.id
                      WHERE g.url IN ({urls}) AND NOT {ready}
                     UNION ALL
                     SELECT a.name FROM agents a JOIN gateways g ON g.id = a.gateway_id
                       LEFT JOIN openclaw_controller.agent_records r ON r.agent_id = a.id
                      WHERE g.url IN ({urls}) AND NOT {ready} AND NOT {paused}) t",
                urls = urls.join(", ")
            ))
            .await
    }
}

/// The text with the token of the gateways here wherever a variable is set that holds one.
fn with_gateway_tokens(text: &str) -> String {
    const VARIABLE: &str = "OPENCLAW_GATEWAY_TOKEN_";
    let mut here = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(VARIABLE) {
        let name = rest[at..]
            .find(|char: char| !(char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_'))
            .map_or(rest.len(), |length| at + length);
        here.push_str(&rest[..name]);
        rest = &rest[name..];
        let Some(value) = rest.strip_prefix('=') else { continue };
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |length| length + 2),
            _ => value.find(char::is_whitespace).unwrap_or(value.len()),
        };
        here.push_str("='");
        here.push_str(TOKEN);
        here.push('\'');
        rest = &value[end..];
    }
    here + rest
}

#[test]
fn variables_for_gateways_tokens_hold_the_token_here() {
    for (said, here) in [
        (
            "export OPENCLAW_GATEWAY_TOKEN_A=\"the gateway's token\"  # a",
            "export OPENCLAW_GATEWAY_TOKEN_A='TOKEN'  # a",
        ),
        (
            "OPENCLAW_GATEWAY_TOKEN_B=… openclaw-controller run",
            "OPENCLAW_GATEWAY_TOKEN_B='TOKEN' openclaw-controller run",
        ),
        ("env:OPENCLAW_GATEWAY_TOKEN_C", "env:OPENCLAW_GATEWAY_TOKEN_C"),
    ] {
        assert_eq!(with_gateway_tokens(said), here.replace("TOKEN'", &format!("{TOKEN}'")));
    }
}

/// The gateway's address in pages.
const SAID_URL: &str = "ws://127.0.0.1:18789";

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
