//! What is wrong with a file by itself, with its place.

use std::fmt::Write;

use openclaw_controller::fleet;

use crate::Desk;

/// Everything that is told of a text, a line each.
fn told(yaml: &str) -> Vec<String> {
    fleet::read(yaml.as_bytes())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn whatever_is_wrong_is_told_with_its_line_and_column() {
    for (yaml, place, words) in [
        ("", "1:1", "empty"),
        ("# nothing\n", "1:1", "empty"),
        ("organizations: [", "1:", "no YAML"),
        ("organizations:\n\t- name: x", "2:", "no YAML"),
        ("version: 2", "1:10", "version 2 of this format is not known"),
        ("version: one", "1:10", "whole number, not text"),
        ("- a", "1:1", "a fleet is a mapping, not a list"),
        (
            "organisations: []",
            "1:1",
            "no field `organisations`; there are: version, templates, organizations",
        ),
        ("organizations: {}", "1:16", "is a list"),
        ("organizations:\n  - name: 7", "2:11", "put it in quotes"),
        ("organizations:\n  - name: yes\n    id: no", "3:9", "\"no\" is no id"),
        (
            "organizations:\n  - id: 00000000-0000-0000-0000-000000000000",
            "2:9",
            "not all zeros",
        ),
        (
            "organizations:\n  - gateways: []",
            "2:5",
            "neither a `name` nor an `id`",
        ),
        (
            "organizations:\n  - name: a\n  - name: a",
            "3:11",
            "a second organization is called \"a\" (the first is in line 2)",
        ),
        (
            "organizations:\n  - name: a\n    name: b",
            "3:5",
            "`name` is given twice",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, max_agents: many}",
            "4:31",
            "whole number",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, max_agents: 99999999999}",
            "4:31",
            "too large",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, goal_confirmed: yes}",
            "4:35",
            "true or false",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, target_date: soon}",
            "4:32",
            "is a date",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, agents: [{name: c, heartbeat_config: 10m}]}",
            "4:56",
            "`heartbeat_config` is a mapping, not text",
        ),
        (
            "organizations:\n  - name: a\n    boards:\n      - {name: b, agents: [{name: c, soul_template: {template: d}}]}",
            "4:64",
            "no template \"d\"",
        ),
        (
            "organizations:\n  - name: a\n    gateways:\n      - {name: b, agents: [{name: c, is_board_lead: true}]}",
            "4:53",
            "leads no board",
        ),
        ("organizations:\n  - name: \"a\\0\"", "2:11", "NUL"),
        ("organizations:\n  - !thing\n    name: a", "", "tags"),
        ("a: &a [*a]", "1:8", "alias"),
        ("a: *b", "1:4", "no YAML"),
        ("version: 1\n---\nversion: 1", "2:1", "second document"),
        ("organizations:\n  - <<: {name: a}", "2:5", "merge keys"),
        ("version: .inf", "1:10", "cannot be stored"),
        ("? [a]\n: b", "1:3", "a key has to be text"),
    ] {
        let told = told(yaml);
        assert!(
            told.iter().any(|line| line.starts_with(place) && line.contains(words)),
            "{yaml:?} is not told at {place} with {words:?}, but {told:#?}"
        );
    }
    let id = "0d000000-0000-4000-8000-000000000001";
    let twice = format!("organizations:\n  - {{name: a, id: {id}}}\n  - {{name: b, id: {id}}}");
    assert!(
        told(&twice)[0].contains("3:19: the organization with this id is given in line 2"),
        "{:?}",
        told(&twice)
    );
    let latin = fleet::read(b"version: 1\n# caf\xe9").unwrap_err();
    assert!(latin[0].to_string().starts_with("2:6: this is no UTF-8"), "{latin:?}");
}

#[test]
fn a_file_that_is_huge_or_becomes_so_by_its_aliases_is_refused_at_once() {
    let begun = std::time::Instant::now();
    // Each line is ten times the one before.
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        writeln!(laughs, "a{n}: &a{n} [{aliases}]").unwrap();
    }
    assert!(
        told(&laughs)[0].contains("values or 64 MiB of text"),
        "{:?}",
        told(&laughs)
    );
    // A long text, many times.
    let text = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(100));
    assert!(told(&text)[0].contains("64 MiB of text"), "{:?}", told(&text));
    // Anchors within anchors, each of which has to be remembered.
    let nested = format!("{}{}{}", "- &a ".repeat(200), "x".repeat(1 << 20), "\n");
    assert!(
        told(&nested)[0].contains("64 MiB of text") || told(&nested)[0].contains("no YAML"),
        "{:?}",
        told(&nested)
    );
    let flow = format!(
        "a: {}{}{}",
        (0..200).map(|n| format!("&a{n} [")).collect::<Vec<_>>().concat(),
        "x".repeat(1 << 20),
        "]".repeat(200)
    );
    assert!(told(&flow)[0].contains("64 MiB of text"), "{:?}", told(&flow));
    // Many small values, and brackets without end.
    let many = format!("a: [{}]", "1,".repeat(1_200_000));
    assert!(told(&many)[0].contains("values or"), "{:?}", told(&many));
    assert!(!told(&format!("a: {}", "[".repeat(1_000_000))).is_empty());
    let large = vec![b'#'; 50 << 20];
    let told = fleet::read(&large).unwrap_err();
    assert!(told[0].message.contains("at most 16 MiB are read"), "{told:?}");
    // Hours, if any of these were followed to its end.
    assert!(begun.elapsed() < std::time::Duration::from_mins(10));
}

#[test]
fn aliases_can_be_used_for_whole_values() {
    let yaml = "organizations:
  - name: Org
    boards:
      - name: One
        agents: &standard
          - {name: Wren, identity_profile: {role: Writer}}
      - name: Two
        agents: *standard
";
    let file = fleet::read(yaml.as_bytes()).unwrap();
    let boards = &file.organizations[0].boards;
    assert_eq!(boards[1].agents[0].name.as_ref().unwrap().value, "Wren");
    assert_ne!(boards[0].agents[0].key, boards[1].agents[0].key, "two agents");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_told_at_once_and_nothing_is_applied() {
    let desk = Desk::new().await;
    let said = desk
        .refused("organizations:\n  - name: a\n    colour: red\n    boards:\n      - nam: b\n        max_agents: lots\n  - name: a\n")
        .await;
    for words in [
        "fleet.yaml:3:5: an organization has no field `colour`",
        "fleet.yaml:5:9: a board has no field `nam`",
        "6:21",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    // What can only be known from the rows, likewise.
    let yaml = "\
organizations:
  - name: Org
    gateways:
      - name: A
        url: https://gateway.example
        workspace_root: /ws
        token: hunter2-the-token
      - name: B
        workspace_root: ' '
      - name: C
        url: ws://me:hunter2@h
        workspace_root: /ws
        token: file:../../etc/passwd
      - name: D
        url: ws://[h
        workspace_root: /ws
        token: in the database; to keep it elsewhere write env:OPENCLAW_GATEWAY_TOKEN_<NAME> or file:<path>
      - name: ''
        url: wss://h/x
        workspace_root: /ws
    boards:
      - name: Board
        gateway: Nowhere
        max_agents: -1
        agents:
          - name: Wren
      - id: 0d000000-0000-4000-8000-000000000001
";
    let said = desk.refused(yaml).await;
    for words in [
        "fleet.yaml:5:14: the URL's scheme is `https`",
        "fleet.yaml:7:16: a token is never in this file",
        "fleet.yaml:8:9: a new gateway needs a `url`",
        "fleet.yaml:9:25: `workspace_root` is a directory",
        "fleet.yaml:11:14: the URL holds a user name or password",
        "fleet.yaml:13:16: a token is never in this file",
        "fleet.yaml:15:14: this is no URL",
        "fleet.yaml:17:16: there is no token in the database that could be kept",
        "fleet.yaml:18:15: a name is not blank",
        "fleet.yaml:23:18: this organization has no gateway \"Nowhere\"",
        "fleet.yaml:24:21: `max_agents` is not negative",
        "fleet.yaml:26:13: this board has no gateway, so no agent can be made for it",
        "fleet.yaml:27:9: there is nothing with this id",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_or_far_too_large_is_told() {
    let desk = Desk::new().await;
    let environment = [("DATABASE_URL", desk.database.url.as_str())];
    let gone = crate::command(&["apply", "-f", "/nowhere/fleet.yaml"], &environment).await;
    assert_eq!(gone.code, Some(2));
    assert!(gone.stderr.contains("cannot read /nowhere/fleet.yaml"), "{gone:?}");
    let directory = crate::command(&["apply", "-f", "/"], &environment).await;
    assert!(
        directory.code == Some(2) && directory.stderr.contains("cannot read /"),
        "{directory:?}"
    );
    let none = crate::command(&["apply", "-f", "-"], &environment).await;
    assert!(
        none.stderr.contains("standard input:1:1: the file is empty"),
        "{none:?}"
    );
    let line = format!("# {}\n", "x".repeat(1022));
    let said = desk.refused(&line.repeat(50 << 10)).await;
    assert!(said.contains("at most 16 MiB are read"), "{said}");
    assert_eq!(crate::command(&["apply"], &environment).await.code, Some(2));
}
