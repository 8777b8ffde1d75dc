//! The list of rules (`RULES.md`) names tests that exist.
#![expect(clippy::expect_used, reason = "a test says by a panic what went wrong")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_rule_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = BTreeSet::new();
    for directory in ["src", "tests"] {
        collect(&root.join(directory), &mut functions);
    }
    let list = fs::read_to_string(root.join("tests/RULES.md")).expect("the list is there");
    let mut rules = 0;
    for line in list.lines().filter(|line| line.starts_with("| ")) {
        let Some((rule, tests)) = line.trim_matches('|').split_once('|') else {
            panic!("a rule without tests: {line}");
        };
        if rule.trim() == "rule" {
            continue;
        }
        rules += 1;
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{rule}: no test");
        for test in tests {
            assert!(functions.contains(test), "{rule}: there is no test {test}");
        }
    }
    assert!(rules > 0, "the list has rules");
}

/// The names of all functions below a directory.
fn collect(directory: &Path, functions: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of the project") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            collect(&path, functions);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split(['(', '<']).next());
            functions.extend(names.map(|name| name.trim().to_owned()));
        }
    }
}
