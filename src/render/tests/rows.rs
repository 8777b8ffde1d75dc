//! What rows give to templates.

use super::*;

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
