//! The page about configuration, and what the program reads from the environment.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_controller::cli::{CONFIGURATION_FILE, configuration};

use crate::page::{files, pages, root, text};

/// Set to have the page written anew (`make docs`).
const WRITE: &str = "WRITE_DOCS";

/// What the lab sets for processes that it starts itself.
const OURS_ALONE: [&str; 1] = ["OPENCLAW_LAB_OWN_NETWORK"];

/// Constants of libraries.
const THEIRS: [(&str, &str); 1] = [("DEFAULT_ENV", "RUST_LOG")];

/// Flags that pages name by themselves and that are every program's, or kubectl's.
const THEIR_FLAGS: [&str; 3] = ["--help", "--version", "--from-file"];

#[test]
fn the_page_about_configuration_is_made_of_the_programs_own_definitions() {
    let made = configuration();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(root().join(CONFIGURATION_FILE), &made).unwrap();
    }
    let kept = text(CONFIGURATION_FILE);
    for (number, (kept, made)) in kept.lines().zip(made.lines()).enumerate() {
        assert_eq!(kept, made, "{CONFIGURATION_FILE}:{}: run `make docs`", number + 1);
    }
    assert_eq!(kept, made, "{CONFIGURATION_FILE}: run `make docs`");
}

#[test]
fn every_variable_that_the_program_reads_is_on_the_page_about_configuration() {
    let page = text(CONFIGURATION_FILE);
    let sources: BTreeMap<String, String> = files(&["src"], &["rs"])
        .into_iter()
        // What tests read is no setting.
        .filter(|path| !path.ends_with("tests.rs") && !path.contains("/tests/"))
        .map(|path| {
            let text = text(&path);
            let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            (path, program)
        })
        .collect();
    let mut variables = BTreeSet::new();
    for (path, source) in &sources {
        for read in ["env::var(", "env::var_os(", "env = "] {
            for (at, _) in source.match_indices(read) {
                let rest = &source[at + read.len()..];
                let argument = rest.split([')', ',', '\n']).next().unwrap().trim();
                let named = named(argument, source, &sources);
                assert!(!named.is_empty(), "{path}: which variable is {argument}?");
                variables.extend(named);
            }
        }
    }
    for script in files(&["deploy/dev"], &["sh"]) {
        variables.extend(words_with_prefix(&text(&script)));
    }
    for expected in [
        "DATABASE_URL",
        "OPENCLAW_CONTROLLER_LISTEN",
        "RUST_LOG",
        "NO_COLOR",
        "OPENCLAW_GATEWAY_TOKEN_",
    ] {
        assert!(
            variables.contains(expected),
            "{expected} was not found in {variables:?}"
        );
    }
    for variable in variables
        .iter()
        .filter(|variable| !OURS_ALONE.contains(&variable.as_str()))
    {
        let ends: &[&str] = if variable.ends_with('_') { &["<"] } else { &["`"] };
        assert!(
            ends.iter().any(|end| page.contains(&format!("`{variable}{end}"))),
            "{variable} is read, and {CONFIGURATION_FILE} does not say what it is for"
        );
    }
}

#[test]
fn no_page_names_a_variable_that_is_not_there() {
    let page = text(CONFIGURATION_FILE);
    let mut found = BTreeSet::new();
    for other in pages() {
        for word in words_with_prefix(&text(&other.path)) {
            assert!(
                page.contains(&format!("`{word}`")),
                "{}: there is no {word}",
                other.path
            );
            found.insert(word);
        }
    }
    assert!(found.len() > 10, "{found:?}");
}

#[test]
fn no_page_names_a_flag_that_is_not_there() {
    let page = text(CONFIGURATION_FILE);
    let is_ours = |flag: &str| {
        let found = page
            .match_indices(flag)
            .map(|(at, _)| page[at + flag.len()..].chars().next());
        // A shorter one is not meant by a longer one.
        found.flatten().any(|next| "` ".contains(next))
    };
    let mut found = BTreeSet::new();
    let mut problems = Vec::new();
    for other in pages().iter().filter(|other| other.path != CONFIGURATION_FILE) {
        for span in &other.spans {
            let ours = span.starts_with("--") || span.starts_with("openclaw-controller ");
            for word in span.split(' ').filter(|word| ours && word.starts_with("--")) {
                let flag = word.split('=').next().unwrap();
                if !is_ours(flag) && !THEIR_FLAGS.contains(&flag) {
                    problems.push(format!("{}: `{span}`: there is no {flag}", other.path));
                }
                found.insert(flag.to_owned());
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(found.len() > 10, "{found:?}");
    for flag in THEIR_FLAGS {
        assert!(found.contains(flag), "no page names {flag} any more");
    }
}

/// All names of variables that begin as our own do.
fn words_with_prefix(text: &str) -> BTreeSet<String> {
    text.split(|char: char| !(char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_'))
        .filter(|word| {
            let rest = word.strip_prefix("OPENCLAW_CONTROLLER_");
            rest.is_some_and(|rest| !rest.is_empty() && !rest.ends_with('_'))
        })
        .map(str::to_owned)
        .collect()
}

/// The variables that are meant by what is given to `env::var`.
fn named(argument: &str, source: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    if let Some(literal) = argument.strip_prefix('"') {
        return [literal.trim_end_matches('"').to_owned()].into();
    }
    let name = argument.rsplit("::").next().unwrap();
    if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
        let theirs = THEIRS.iter().find(|(constant, _)| *constant == name);
        let definition = format!("const {name}: &str = \"");
        let ours = all.values().find_map(|text| text.split_once(&definition));
        let value = theirs.map(|(_, value)| *value).or_else(|| ours?.1.split('"').next());
        return value.map(str::to_owned).into_iter().collect();
    }
    // What the name stands for is given to a function of the same file, or begins as a constant says that it knows.
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices("(\"") {
        let literal = source[at + 2..].split('"').next().unwrap();
        if !source[..at].ends_with('!') && is_variable(literal) {
            found.insert(literal.to_owned());
        }
    }
    let words = source.split(|char: char| !(char.is_ascii_uppercase() || char == '_'));
    for word in words.filter(|word| is_variable(word)).collect::<BTreeSet<_>>() {
        let definition = format!("const {word}: &str = \"");
        let value = all
            .values()
            .find_map(|text| text.split_once(&definition)?.1.split('"').next());
        found.extend(value.filter(|value| is_variable(value)).map(str::to_owned));
    }
    found
}

/// Whether it looks like the name of a variable, or like the beginning of one.
fn is_variable(text: &str) -> bool {
    text.len() > 3
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
