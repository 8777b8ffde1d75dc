//! Links lead somewhere.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::page::{files, pages, root, text};

#[test]
fn every_link_of_every_page_leads_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&str, _> = pages.iter().map(|page| (page.path.as_str(), &page.anchors)).collect();
    let mut problems = Vec::new();
    let mut links = 0;
    for page in &pages {
        for link in &page.links {
            if ["https://", "http://", "mailto:"]
                .iter()
                .any(|scheme| link.target.starts_with(scheme))
            {
                continue;
            }
            links += 1;
            let (path, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let target = if path.is_empty() {
                page.path.clone()
            } else {
                beside(&page.path, path)
            };
            let place = format!("{}:{}: {}", page.path, link.line, link.target);
            if !root().join(&target).exists() {
                problems.push(format!("{place}: there is no {target}"));
            } else if !anchor.is_empty() {
                match anchors.get(target.as_str()) {
                    None => problems.push(format!("{place}: {target} is no page")),
                    Some(anchors) if !anchors.contains(anchor) => {
                        problems.push(format!("{place}: {target} has no heading of that name"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    assert!(links > 50, "{links}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_page_that_the_program_and_its_deployment_speak_of_is_there() {
    let pages = pages();
    let mut problems = Vec::new();
    let mut found = 0;
    for path in files(
        &["src", "deploy", "migrations", "tests"],
        &["rs", "yaml", "json", "sql", "sh", "html", "service"],
    ) {
        // Where links are made up.
        if path.starts_with("tests/docs/") || path.starts_with("src/render/tests/") {
            continue;
        }
        let text = text(&path);
        let words = text.split(|char: char| !(char.is_alphanumeric() || "./_-#".contains(char)));
        for word in words {
            let Some(at) = word.find("docs/").filter(|_| word.contains(".md")) else {
                continue;
            };
            // The sentence may end there.
            let word = word[at..].trim_end_matches('.');
            let (target, anchor) = word.split_once('#').unwrap_or((word, ""));
            found += 1;
            match pages.iter().find(|page| page.path == target) {
                None => problems.push(format!("{path}: {word} is not there")),
                Some(page) if !anchor.is_empty() && !page.anchors.contains(anchor) => {
                    problems.push(format!("{path}: {word}: no heading of that name"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(found > 20, "{found}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A path as seen from the page that names it.
fn beside(page: &str, path: &str) -> String {
    let mut target = PathBuf::new();
    for component in Path::new(page).parent().unwrap().join(path).components() {
        match component {
            Component::ParentDir => assert!(target.pop(), "{page}: {path} is outside"),
            Component::Normal(name) => target.push(name),
            _ => {}
        }
    }
    target.to_str().unwrap().to_owned()
}
