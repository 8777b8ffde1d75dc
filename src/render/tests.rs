//! Rendering as a whole: what rows, templates and dialects together give.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::model::{
    AgentId, AgentRole, AgentRow, Board, BoardId, Dialect, Effect, FileName, GatewayAgentId, GatewayId, GatewayRow,
    RosterShape, TOKEN_SENTINEL, User, Visibility, session_key,
};
use crate::token::{Extracted, extract, insert, mint};

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(0x1));
const BOARD: BoardId = BoardId(Uuid::from_u128(0x2));
const AGENT: AgentId = AgentId(Uuid::from_u128(0x3));
const ROLES: [AgentRole; 3] = [AgentRole::Worker(BOARD), AgentRole::Lead(BOARD), AgentRole::Main];

pub(super) fn agent(role: AgentRole) -> AgentRow {
    AgentRow {
        id: AGENT,
        board_id: (!role.is_main()).then_some(BOARD),
        gateway_id: GATEWAY,
        name: "Ada <& Co>".to_owned(),
        status: "online".to_owned(),
        session_key: None,
        token_hash: None,
        heartbeat_config: None,
        identity_profile: None,
        identity_template: None,
        soul_template: None,
        delete_requested_at: None,
        last_seen_at: None,
        is_board_lead: role.is_lead(),
        last_provision_error: None,
        created_at: "2026-01-01T00:00:00".parse().unwrap(),
    }
}

/// A gateway with all eight files.
pub(super) fn legacy() -> Dialect {
    Dialect {
        protocol: 3,
        roster: RosterShape::List,
        heartbeat_keys: None,
        visibility: Some(Visibility::Heartbeat),
        retired_files: BTreeSet::new(),
        unlisted_files: BTreeSet::new(),
        channels_effect: Effect::Restart,
        roster_effect: Effect::Hot,
        tools_effect: Effect::Hot,
    }
}

/// A gateway without `TOOLS.md` and `HEARTBEAT.md`.
pub(super) fn modern() -> Dialect {
    let keys = ["every", "target", "model", "prompt", "activeHours"];
    Dialect {
        protocol: 4,
        roster: RosterShape::Entries,
        heartbeat_keys: Some(keys.into_iter().map(str::to_owned).collect()),
        visibility: Some(Visibility::HeartbeatVisibility),
        retired_files: BTreeSet::from([FileName::Tools, FileName::Heartbeat]),
        unlisted_files: BTreeSet::from([FileName::Identity]),
        channels_effect: Effect::None,
        ..legacy()
    }
}

fn gateway() -> GatewayRow {
    GatewayRow {
        id: GATEWAY,
        organization_id: Uuid::from_u128(0x4),
        name: "Gateway".to_owned(),
        url: "ws://localhost:1".to_owned(),
        token: None,
        workspace_root: "/srv/ws/".to_owned(),
        disable_device_pairing: false,
        allow_insecure_tls: false,
        created_at: "2026-01-01T00:00:00".parse().unwrap(),
    }
}

fn board() -> Board {
    Board {
        id: BOARD,
        organization_id: Uuid::from_u128(0x4),
        name: "Launch".to_owned(),
        slug: "launch".to_owned(),
        gateway_id: Some(GATEWAY),
        board_type: "goal".to_owned(),
        objective: Some("Ship it".to_owned()),
        success_metrics: Some(Ok(json!({"users": 100, "words": ["a", "ü"]}))),
        target_date: Some("2026-12-31T18:00:00".parse().unwrap()),
        goal_confirmed: false,
        require_approval_for_done: true,
        require_review_before_done: false,
        block_status_changes_with_pending_approval: false,
        only_lead_can_change_status: false,
        comment_required_for_review: true,
        max_agents: 4,
        paused: false,
    }
}

fn owner() -> User {
    User {
        id: Uuid::from_u128(0x5),
        email: Some("grace@example.org".to_owned()),
        name: Some(" Grace Hopper ".to_owned()),
        preferred_name: Some(" Amazing Grace".to_owned()),
        pronouns: Some("she/her".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        notes: None,
        context: Some("Likes short answers.".to_owned()),
    }
}

/// Rows to render from, each of which a test may change.
struct World {
    gateway: GatewayRow,
    agent: AgentRow,
    board: Board,
    owner: Option<User>,
}

impl World {
    fn new(role: AgentRole) -> Self {
        Self {
            gateway: gateway(),
            agent: agent(role),
            board: board(),
            owner: Some(owner()),
        }
    }

    fn render(&self, set: &TemplateSet, dialect: &Dialect) -> Rendered {
        let role = self.agent.role();
        let id = GatewayAgentId::derive(role, AGENT, GATEWAY);
        let main = GatewayAgentId::derive(AgentRole::Main, AGENT, GATEWAY);
        let input = RenderInput {
            gateway: &self.gateway,
            agent: &self.agent,
            role,
            gateway_agent_id: &id,
            board: Some(&self.board).filter(|_| !role.is_main()),
            owner: self.owner.as_ref(),
            base_url: "http://control.example:8080",
            main_session_key: &session_key(&main),
        };
        render(set, &input, dialect)
    }

    /// What a row's soul template renders to, or the error of SOUL.md.
    fn soul(&mut self, template: &str) -> Result<String, FileError> {
        self.agent.soul_template = Some(template.to_owned());
        let mut rendered = self.render(&TemplateSet::builtin(), &legacy());
        match rendered.errors.pop() {
            Some(error) => {
                assert_eq!((error.file, rendered.errors.len()), (FileName::Soul, 0), "{error:?}");
                assert_eq!(rendered.files.get(&FileName::Soul), None);
                assert!(rendered.files.len() >= 6, "the other files are rendered");
                Err(error)
            }
            None => Ok(rendered.files.remove(&FileName::Soul).unwrap_or_default()),
        }
    }
}

fn set_of(files: &[(&str, &str)]) -> TemplateSet {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), files);
    TemplateSet::load(dir.path()).unwrap()
}

fn write_files(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn the_built_in_set_renders_as_recorded() {
    for role in ROLES {
        for (name, dialect) in [("legacy", legacy()), ("modern", modern())] {
            let rendered = World::new(role).render(&TemplateSet::builtin(), &dialect);
            assert_eq!((&rendered.errors, &rendered.warnings), (&vec![], &vec![]));
            let mut text = String::new();
            for (file, content) in &rendered.files {
                writeln!(text, "=================== {file}\n{content}").unwrap();
            }
            writeln!(
                text,
                "=================== heartbeat prompt\n{:?}",
                rendered.heartbeat_prompt
            )
            .unwrap();
            let role = match role {
                AgentRole::Lead(_) => "lead",
                AgentRole::Worker(_) => "worker",
                AgentRole::Main => "main",
            };
            insta::assert_snapshot!(format!("{role}_{name}"), text);
        }
    }
}

#[test]
fn built_in_files_are_short_and_hold_the_token_in_exactly_one_place_that_can_be_read() {
    for role in ROLES {
        for dialect in [legacy(), modern()] {
            for owner in [Some(owner()), None] {
                let world = World {
                    owner,
                    ..World::new(role)
                };
                let rendered = world.render(&TemplateSet::builtin(), &dialect);
                let expected = FileName::ALL
                    .into_iter()
                    .filter(|file| dialect.has_file(*file) && (*file != FileName::Bootstrap || role.is_lead()));
                assert!(
                    rendered.files.keys().copied().eq(expected),
                    "{:?}",
                    rendered.files.keys()
                );
                let token = mint();
                for (file, text) in &rendered.files {
                    assert!(text.chars().count() < 12_000, "{file} is too long");
                    assert_eq!(text.trim(), text);
                    assert!(!text.contains("\n\n\n"), "{file} has gaps:\n{text}");
                    let count = usize::from(*file == dialect.token_file());
                    assert_eq!(text.matches(TOKEN_SENTINEL).count(), count, "{file}");
                    assert_eq!(text.matches("AUTH_TOKEN=").count(), count, "{file}");
                    let found = extract(&insert(text, &token));
                    assert_eq!(matches!(found, Extracted::One(_)), count == 1, "{file}");
                }
            }
        }
    }
}

#[test]
fn a_gateway_without_tools_and_heartbeat_files_gets_them_as_sections_of_agents() {
    let set = set_of(&[
        ("BOARD_AGENTS.md.j2", "# Agents\n\n## Work"),
        (
            "BOARD_TOOLS.md.j2",
            "# TOOLS.md\n\n- `AUTH_TOKEN={{ auth_token }}`\n\n## Calls\n",
        ),
        ("BOARD_HEARTBEAT.md.j2", "Check in."),
    ]);
    let mut world = World::new(AgentRole::Worker(BOARD));
    let rendered = world.render(&set, &modern());
    assert_eq!(
        rendered.files[&FileName::Agents],
        format!(
            "# Agents\n\n## Work\n\n## Tools\n\n- `AUTH_TOKEN={TOKEN_SENTINEL}`\n\n### Calls\n\n## Heartbeat\n\nCheck in."
        )
    );
    assert!(
        rendered
            .heartbeat_prompt
            .is_some_and(|prompt| prompt.contains("\"Heartbeat\" of AGENTS.md"))
    );

    assert_eq!(world.render(&set, &legacy()).heartbeat_prompt, None);
    assert_eq!(world.render(&set, &legacy()).files[&FileName::Heartbeat], "Check in.");

    world.agent.heartbeat_config = Some(Ok(json!({"prompt": "My own"})));
    let rendered = world.render(&set, &modern());
    assert_eq!(rendered.heartbeat_prompt, None);
    assert!(rendered.files[&FileName::Agents].contains("## Heartbeat"));
}

#[test]
fn a_folded_file_that_fails_keeps_agents_from_being_written_without_it() {
    for (name, good) in [
        ("BOARD_TOOLS.md.j2", 7),
        ("BOARD_HEARTBEAT.md.j2", 7),
        ("BOARD_AGENTS.md.j2", 7),
    ] {
        let set = set_of(&[(name, "{{ nonsense }}")]);
        let world = World::new(AgentRole::Lead(BOARD));
        let rendered = world.render(&set, &modern());
        assert_eq!(rendered.errors.len(), 1);
        assert_eq!(rendered.errors[0].file, FileName::Agents);
        assert!(
            rendered.errors[0].message.starts_with(name),
            "{}",
            rendered.errors[0].message
        );
        assert!(!rendered.files.contains_key(&FileName::Agents));
        assert!(rendered.heartbeat_prompt.is_some(), "a failure changes no heartbeat");
        assert_eq!(world.render(&set, &legacy()).files.len(), good);
    }
}

#[test]
fn a_file_that_a_gateway_retired_without_another_home_is_an_error_for_leads_only() {
    let dialect = Dialect {
        retired_files: BTreeSet::from([FileName::Memory]),
        ..legacy()
    };
    for role in ROLES {
        let rendered = World::new(role).render(&TemplateSet::builtin(), &dialect);
        assert!(!rendered.files.contains_key(&FileName::Memory));
        let reasons: Vec<_> = rendered.errors.iter().map(|error| (error.file, error.reason)).collect();
        let expected: &[_] = if role.is_lead() {
            &[(FileName::Memory, "UnsupportedFile")]
        } else {
            &[]
        };
        assert_eq!(reasons, expected);
    }
}

#[test]
fn every_variable_has_the_value_that_the_rows_give() {
    let worker = AgentRole::Worker(BOARD);
    let id = |n: u128| Uuid::from_u128(n).to_string();
    for (role, variable, expected) in [
        (worker, "agent_name", "Ada <& Co>".to_owned()),
        (worker, "agent_id", id(3)),
        (worker, "session_key", format!("agent:mc-{}:main", id(3))),
        (
            AgentRole::Lead(BOARD),
            "session_key",
            format!("agent:lead-{}:main", id(2)),
        ),
        (
            AgentRole::Main,
            "session_key",
            format!("agent:mc-gateway-{}:main", id(1)),
        ),
        (worker, "main_session_key", format!("agent:mc-gateway-{}:main", id(1))),
        (worker, "base_url", "http://control.example:8080".to_owned()),
        (worker, "auth_token", TOKEN_SENTINEL.to_owned()),
        (worker, "workspace_root", "/srv/ws/".to_owned()),
        (worker, "workspace_path", format!("/srv/ws/workspace-mc-{}", id(3))),
        (worker, "is_main_agent", "false".to_owned()),
        (AgentRole::Main, "is_main_agent", "true".to_owned()),
        (worker, "is_board_lead", "false".to_owned()),
        (AgentRole::Lead(BOARD), "is_board_lead", "true".to_owned()),
        (worker, "user_name", "Grace Hopper".to_owned()),
        (worker, "user_preferred_name", "Amazing".to_owned()),
        (worker, "user_pronouns", "she/her".to_owned()),
        (worker, "user_timezone", "Europe/Berlin".to_owned()),
        (worker, "user_notes", String::new()),
        (worker, "user_context", "Likes short answers.".to_owned()),
        (worker, "identity_role", "Generalist".to_owned()),
        (
            worker,
            "identity_communication_style",
            "direct, concise, practical".to_owned(),
        ),
        (worker, "identity_emoji", ":gear:".to_owned()),
        (worker, "identity_autonomy_level", String::new()),
        (worker, "identity_verbosity", String::new()),
        (worker, "identity_output_format", String::new()),
        (worker, "identity_update_cadence", String::new()),
        (worker, "identity_purpose", String::new()),
        (worker, "identity_personality", String::new()),
        (worker, "identity_custom_instructions", String::new()),
        (worker, "board_id", id(2)),
        (worker, "board_name", "Launch".to_owned()),
        (worker, "board_type", "goal".to_owned()),
        (worker, "board_objective", "Ship it".to_owned()),
        (
            worker,
            "board_success_metrics",
            r#"{"users": 100, "words": ["a", "\u00fc"]}"#.to_owned(),
        ),
        (worker, "board_target_date", "2026-12-31T18:00:00".to_owned()),
        (worker, "board_goal_confirmed", "false".to_owned()),
        (worker, "board_rule_require_approval_for_done", "true".to_owned()),
        (worker, "board_rule_require_review_before_done", "false".to_owned()),
        (worker, "board_rule_comment_required_for_review", "true".to_owned()),
        (
            worker,
            "board_rule_block_status_changes_with_pending_approval",
            "false".to_owned(),
        ),
        (worker, "board_rule_only_lead_can_change_status", "false".to_owned()),
        (worker, "board_rule_max_agents", "4".to_owned()),
        (worker, "directory_role_soul_markdown", String::new()),
        (worker, "directory_role_soul_source_url", String::new()),
    ] {
        let found = World::new(role).soul(&format!("[{{{{ {variable} }}}}]"));
        assert_eq!(found, Ok(format!("[{expected}]")), "{variable}");
    }
}

#[test]
fn user_names_are_made_of_what_there_is() {
    let text = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
    for (preferred, name, email, expected) in [
        ("Amy Ann", "Bo Bee", "c@d.e", "Bo Bee|Amy"),
        ("-", "Bo Bee", "c@d.e", "Bo Bee|Bo"),
        ("  ", " Bo ", "c@d.e", "Bo|Bo"),
        ("-", "-", "c.c@d.e", "c.c@d.e|c.c"),
        ("-", " ", " c@d.e ", "c@d.e|c"),
        ("-", "-", "@d.e", "@d.e|@d.e"),
        ("-", "-", "-", "|"),
    ] {
        let mut world = World::new(AgentRole::Main);
        world.owner = Some(User {
            preferred_name: text(preferred),
            name: text(name),
            email: text(email),
            ..owner()
        });
        assert_eq!(
            world.soul("{{ user_name }}|{{ user_preferred_name }}"),
            Ok(expected.to_owned())
        );
    }
}

#[test]
fn profiles_give_text_and_a_bad_one_fails_only_the_files_that_use_it() {
    let template = "{{ identity_role }}|{{ identity_emoji }}|{{ identity_purpose }}";
    for (profile, expected) in [
        (json!(null), "Generalist|:gear:|"),
        (
            json!({"role": " Tester ", "emoji": "", "purpose": null}),
            "Tester|:gear:|",
        ),
        (
            json!({"role": ["a", " ", "b ", 1, true, 1.0], "purpose": []}),
            "a, b, 1, true, 1.0|:gear:|",
        ),
        (
            json!({"role": 7, "purpose": false, "avatar": {"x": 1}}),
            "7|:gear:|false",
        ),
    ] {
        let mut world = World::new(AgentRole::Main);
        world.agent.identity_profile = Some(Ok(profile.clone()));
        assert_eq!(world.soul(template), Ok(expected.to_owned()), "{profile}");
    }
    for (profile, expected) in [
        (Ok(json!([1])), "is a list, not an object"),
        (Ok(json!("x")), "is a text, not an object"),
        (Err("oops".to_owned()), "cannot be parsed: oops"),
        (Ok(json!({"purpose": {"a": 1}})), "has an object under \"purpose\""),
        (Ok(json!({"purpose": [["a"]]})), "has a list under \"purpose\""),
    ] {
        for template in [
            "{{ identity_purpose }}",
            "{% if identity_purpose %}x{% endif %}",
            "{% if identity_purpose is defined %}x{% endif %}",
            "{{ identity_purpose | default('x') }}",
            "{{ identity_purpose | upper }}",
            "{{ 'a' ~ identity_purpose }}",
            "{% if 'a' in identity_purpose %}x{% endif %}",
        ] {
            let mut world = World::new(AgentRole::Main);
            world.agent.identity_template = Some("x".to_owned());
            world.agent.identity_profile = Some(profile.clone());
            let error = world.soul(template).unwrap_err();
            assert_eq!(error.reason, "InvalidProfile", "{template}: {error:?}");
            assert!(error.message.contains(expected), "{error:?}");
            assert!(error.message.starts_with("agents.soul_template"), "{error:?}");
        }
        let mut world = World::new(AgentRole::Main);
        world.agent.identity_template = Some("x".to_owned());
        world.agent.identity_profile = Some(profile);
        assert_eq!(world.soul("no variable of it"), Ok("no variable of it".to_owned()));
        // Another fault in a template that also names a faulty variable is told as what it is.
        let error = world.soul("{{ nonsense }}{{ identity_purpose }}").unwrap_err();
        assert_eq!(error.reason, "UnknownVariable");
    }
}

#[test]
fn faults_of_other_rows_are_told_where_they_matter() {
    let mut world = World::new(AgentRole::Worker(BOARD));
    for (metrics, expected) in [
        (None, "{}"),
        (Some(Ok(json!([]))), "{}"),
        (Some(Ok(json!([1, 2]))), "[1, 2]"),
    ] {
        world.board.success_metrics = metrics;
        assert_eq!(world.soul("{{ board_success_metrics }}"), Ok(expected.to_owned()));
    }
    world.board.success_metrics = Some(Err("bad".to_owned()));
    world.gateway.workspace_root = "  ".to_owned();
    world.agent.soul_template = None;
    let rendered = world.render(&TemplateSet::builtin(), &legacy());
    let mut reasons: Vec<_> = rendered.errors.iter().map(|error| (error.file, error.reason)).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            (FileName::Agents, "InvalidSuccessMetrics"),
            (FileName::Tools, "NoWorkspaceRoot")
        ]
    );
}

#[test]
fn what_existing_templates_use_works_as_in_jinja2() {
    let lead = "{% set lead = (is_board_lead | default(false) | string | lower) in ['true', '1', 'yes'] %}\
                {% if lead %}lead{% elif board_id is defined %}worker{% else %}none{% endif %}";
    for (role, expected) in [
        (AgentRole::Lead(BOARD), "lead"),
        (AgentRole::Worker(BOARD), "worker"),
        (AgentRole::Main, "none"),
    ] {
        assert_eq!(World::new(role).soul(lead), Ok(expected.to_owned()));
    }
    for (template, expected) in [
        ("{{ agent_name }} <b>&</b>", "Ada <& Co> <b>&</b>"),
        ("{{ unknown | default('d') }}", "d"),
        ("{% if unknown is defined %}a{% else %}b{% endif %}", "b"),
        ("{{ identity_purpose | default('d', true) }}", "d"),
        ("{{ false }}{{ none }}", "falseNone"),
        ("{# comment #}a{%- if true %}\nb{%- endif %}", "a\nb"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("  \n a \r\n b \n\n", "a \n b"),
        ("{% for w in ['a','b'] %}{{ loop.index }}{{ w }}{% endfor %}", "1a2b"),
        (
            "{% include 'BOARD_MEMORY.md.j2' ignore missing %}{% include 'nope' ignore missing %}",
            "MEMORY",
        ),
    ] {
        let found = World::new(AgentRole::Worker(BOARD)).soul(template).unwrap();
        if expected == "MEMORY" {
            assert!(found.starts_with("# MEMORY.md"));
        } else if expected == "falseNone" {
            assert_eq!(found.to_lowercase(), "falsenone");
        } else {
            assert_eq!(found, expected, "{template}");
        }
    }
}

#[test]
fn a_bad_template_is_told_by_name_line_and_variable_and_costs_only_its_file() {
    let long = "x".repeat(1024 * 1024 + 1);
    let big = "y".repeat(1024 * 1024);
    for (template, reason, parts) in [
        (
            "a\n{{ foo }}",
            "UnknownVariable",
            &["agents.soul_template, line 2", "`foo`"][..],
        ),
        ("{% if foo %}{% endif %}", "UnknownVariable", &["line 1", "`foo`"]),
        ("{{ agent_name.bar }}", "UnknownVariable", &["bar"]),
        ("a\nb\n{% if %}", "TemplateSyntax", &["agents.soul_template, line 3"]),
        ("{{ 'a", "TemplateSyntax", &["line 1"]),
        ("{{ agent_name | nope }}", "UnknownFilter", &["nope"]),
        ("{{ debug() }}", "UnknownFilter", &["debug"]),
        ("{% include 'nope.j2' %}", "MissingInclude", &["nope.j2"]),
        ("{% include '../../etc/passwd' %}", "MissingInclude", &["etc/passwd"]),
        ("{% include '/etc/passwd' %}", "MissingInclude", &["/etc/passwd"]),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
            "TemplateTooExpensive",
            &["fuel"],
        ),
        ("{{ 'x' * 1000000000 }}", "TemplateTooExpensive", &["line 1"]),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "TemplateTooExpensive",
            &["recursion"],
        ),
        ("{{ 1 + 'a' }}", "TemplateFailed", &["line 1"]),
        (long.as_str(), "TemplateTooLarge", &["1 MiB"]),
    ] {
        let error = World::new(AgentRole::Worker(BOARD)).soul(template).unwrap_err();
        assert_eq!(error.reason, reason, "{template:.80}: {error:?}");
        for part in parts.iter().copied().chain(["agents.soul_template"]) {
            assert!(error.message.contains(part), "{part} is missing in: {}", error.message);
        }
        for value in ["Ada <& Co>", "Launch", TOKEN_SENTINEL] {
            assert!(!error.message.contains(value), "shows a value: {}", error.message);
        }
    }
    // Large but allowed: rendered, with a warning.
    let mut world = World::new(AgentRole::Worker(BOARD));
    assert_eq!(world.soul(&big), Ok(big.clone()));
    let error = world
        .soul(&format!("{{{{ agent_name }}}}{}", &big[16..]))
        .map(|text| text.len());
    assert_eq!(error, Ok(big.len() - 16 + "Ada <& Co>".len()));
}

#[test]
fn errors_in_an_include_name_both_templates_and_fail_both_files() {
    let set = set_of(&[
        ("BOARD_AGENTS.md.j2", "\n{% include 'shared/part.md.j2' %}"),
        ("BOARD_SOUL.md.j2", "{% include 'shared/part.md.j2' %}"),
        ("BOARD_USER.md.j2", "{% include 'broken.j2' %}"),
        ("shared/part.md.j2", "a\n\n{{ nope }}"),
        ("broken.j2", "\n{% endif %}"),
        ("BOARD_TOOLS.md.j2", "{% include 'BOARD_TOOLS.md.j2' %}"),
    ]);
    let rendered = World::new(AgentRole::Worker(BOARD)).render(&set, &legacy());
    let found: Vec<_> = rendered.errors.iter().map(|error| (error.file, error.reason)).collect();
    assert_eq!(
        found,
        [
            (FileName::Agents, "UnknownVariable"),
            (FileName::Soul, "UnknownVariable"),
            (FileName::Tools, "TemplateTooExpensive"),
            (FileName::User, "TemplateSyntax"),
        ]
    );
    let agents = &rendered.errors[0].message;
    assert!(
        agents.starts_with("shared/part.md.j2, line 3 (included from BOARD_AGENTS.md.j2, line 2)"),
        "{agents}"
    );
    assert!(
        rendered.errors[3].message.starts_with("broken.j2, line 2"),
        "{}",
        rendered.errors[3].message
    );
    assert_eq!(rendered.files.len(), 3, "the rest is rendered");
}

#[test]
fn a_literal_sentinel_in_rows_or_templates_is_no_place_for_the_token() {
    let mut world = World::new(AgentRole::Main);
    world.agent.name = format!("x {TOKEN_SENTINEL} y");
    let text = world.soul(&format!("{{{{ agent_name }}}} {TOKEN_SENTINEL}")).unwrap();
    assert!(!text.contains(TOKEN_SENTINEL), "{text}");
    assert_eq!(
        world.soul("{{ auth_token }}{{ auth_token }}").unwrap(),
        TOKEN_SENTINEL.repeat(2)
    );
}

#[test]
fn files_longer_than_what_agents_are_shown_are_warned_of() {
    for (name, file, chars, warned) in [
        ("BOARD_SOUL.md.j2", FileName::Soul, 20_000, false),
        ("BOARD_SOUL.md.j2", FileName::Soul, 20_001, true),
        ("BOARD_USER.md.j2", FileName::User, 4_000, false),
        ("BOARD_USER.md.j2", FileName::User, 4_001, true),
    ] {
        let set = set_of(&[(name, &"ü".repeat(chars))]);
        let rendered = World::new(AgentRole::Main).render(&set, &legacy());
        let found: Vec<_> = rendered
            .warnings
            .iter()
            .map(|warning| (warning.file, warning.reason))
            .collect();
        let expected: &[_] = if warned { &[(file, "FileTooLong")] } else { &[] };
        assert_eq!(found, expected, "{name} {chars}");
        assert_eq!(rendered.files[&file].chars().count(), chars, "written all the same");
    }
    // As agents get it: with a token, which is longer than its sentinel, and emoji counting twice.
    let set = set_of(&[(
        "BOARD_TOOLS.md.j2",
        &format!("{{{{ auth_token }}}}{}", "😀".repeat(9_979)),
    )]);
    let rendered = World::new(AgentRole::Main).render(&set, &legacy());
    assert!(
        rendered.warnings[0].message.contains("20001 characters"),
        "{:?}",
        rendered.warnings
    );
}

#[test]
fn an_empty_rendering_is_no_file() {
    let set = set_of(&[
        ("BOARD_MEMORY.md.j2", " {# nothing #}\n"),
        ("BOARD_HEARTBEAT.md.j2", ""),
    ]);
    let rendered = World::new(AgentRole::Main).render(&set, &modern());
    assert!(!rendered.files.contains_key(&FileName::Memory));
    assert!(!rendered.files[&FileName::Agents].contains("## Heartbeat"));
    assert_eq!((rendered.heartbeat_prompt, rendered.errors), (None, vec![]));
}

#[test]
fn a_directory_replaces_the_built_in_set_file_by_file() {
    let set = set_of(&[
        ("BOARD_AGENTS.md.j2", "mine"),
        ("MAIN_SOUL.md.j2", "main's soul"),
        ("README.md", "x"),
    ]);
    let worker = World::new(AgentRole::Worker(BOARD)).render(&set, &legacy()).files;
    let main = World::new(AgentRole::Main).render(&set, &legacy()).files;
    assert_eq!(worker[&FileName::Agents], "mine");
    assert_eq!(
        main[&FileName::Agents],
        "mine",
        "a board template given goes before a built-in one for main agents"
    );
    assert!(worker[&FileName::Soul].starts_with("# SOUL.md"));
    assert_eq!(main[&FileName::Soul], "main's soul");
    assert!(worker[&FileName::Tools].starts_with("# TOOLS.md"));

    let digests = [
        TemplateSet::builtin(),
        set,
        set_of(&[
            ("BOARD_AGENTS.md.j2", "min"),
            ("MAIN_SOUL.md.j2", "emain's soul"),
            ("README.md", "x"),
        ]),
        set_of(&[("BOARD_AGENTS.md.j2", "mine")]),
    ]
    .map(|set| set.digest().to_owned());
    assert_eq!(BTreeSet::from_iter(&digests).len(), digests.len());
    assert_eq!(digests[0], TemplateSet::builtin().digest());
    assert_eq!(digests[0].len(), 64);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_as_a_whole() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path(), &[("set/BOARD_AGENTS.md.j2", "x"), ("outside.j2", "secret")]);
        prepare(&dir.path().join("set"));
        TemplateSet::load(&dir.path().join("set")).unwrap_err().to_string()
    };
    for (prepare, expected) in [
        (
            &(|set: &Path| fs::remove_dir_all(set).unwrap()) as &dyn Fn(&Path),
            "cannot read",
        ),
        (
            &|set| fs::remove_file(set.join("BOARD_AGENTS.md.j2")).unwrap(),
            "holds no template",
        ),
        (
            &|set| fs::write(set.join("a.j2"), vec![b'x'; 1024 * 1024 + 1]).unwrap(),
            "larger than 1 MiB",
        ),
        (&|set| fs::write(set.join("a.j2"), b"\xff").unwrap(), "not UTF-8"),
        (
            &|set| std::os::unix::fs::symlink("../outside.j2", set.join("a.j2")).unwrap(),
            "leads out",
        ),
        (
            &|set| std::os::unix::fs::symlink("..", set.join("up")).unwrap(),
            "leads out",
        ),
        (
            &|set| std::os::unix::fs::symlink("gone.j2", set.join("a.j2")).unwrap(),
            "cannot read",
        ),
        (
            &|set| (0..300).for_each(|n| fs::write(set.join(format!("{n}.j2")), "x").unwrap()),
            "more than 256",
        ),
    ] {
        let error = refused(prepare);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_mounted_config_map_and_other_company_are_read_right() {
    let dir = tempfile::tempdir().unwrap();
    write_files(
        dir.path(),
        &[
            ("..2026_01/BOARD_AGENTS.md.j2", "\u{feff}one\r\ntwo\rthree"),
            (".BOARD_SOUL.md.j2.swp", "x"),
            (".git/BOARD_SOUL.md.j2", "x"),
            ("BOARD_SOUL.md.j2~", "x"),
            ("logo.png", "x"),
        ],
    );
    fs::write(dir.path().join("data.bin"), b"\xff").unwrap();
    std::os::unix::fs::symlink("..2026_01", dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/BOARD_AGENTS.md.j2", dir.path().join("BOARD_AGENTS.md.j2")).unwrap();
    let set = TemplateSet::load(dir.path()).unwrap();
    let files = World::new(AgentRole::Main).render(&set, &legacy()).files;
    assert_eq!(files[&FileName::Agents], "one\ntwo\nthree");
    assert!(files[&FileName::Soul].starts_with("# SOUL.md"));
}
