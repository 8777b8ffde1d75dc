//! What templates may do, and where they come from.

use super::*;

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
