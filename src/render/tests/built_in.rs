//! The files that a dialect gets, from the built-in set above all.

use super::*;

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
                let mut world = World {
                    owner,
                    ..World::new(role)
                };
                if let Some(owner) = &mut world.owner {
                    owner.notes = Some("Notes.".to_owned());
                    world.board.goal_confirmed = true;
                    let keys = [
                        "autonomy_level",
                        "verbosity",
                        "output_format",
                        "update_cadence",
                        "purpose",
                        "personality",
                    ];
                    let keys = keys.into_iter().chain(["custom_instructions"]);
                    world.agent.identity_profile =
                        Some(Ok(keys.map(|key| (key.to_owned(), json!("Given."))).collect()));
                }
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
