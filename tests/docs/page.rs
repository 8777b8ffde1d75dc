//! Markdown pages: their blocks of code, headings and links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One page of the repository.
pub(crate) struct Page {
    /// Its path from the root of the repository.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    /// What a `#…` can name.
    pub(crate) anchors: BTreeSet<String>,
    pub(crate) links: Vec<Link>,
    /// What stands between backticks in running text.
    pub(crate) spans: Vec<String>,
}

/// A fenced block of code.
pub(crate) struct Block {
    /// The line of its first line of code, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// Where a page leads to.
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages of the repository, in the order of their paths.
pub(crate) fn pages() -> Vec<Page> {
    let pages: Vec<Page> = files(&[""], &["md"])
        .into_iter()
        .map(|path| Page::read(&text(&path), path))
        .collect();
    for known in ["README.md", "docs/commands.md", "docs/runbooks/README.md"] {
        assert!(pages.iter().any(|page| page.path == known), "{known} was not found");
    }
    pages
}

/// All files below some directories that end so, but for what is built or fetched, in the order of their paths.
pub(crate) fn files(directories: &[&str], extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for directory in directories {
        collect(&root().join(directory), extensions, &mut found);
    }
    let mut paths: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect();
    paths.sort();
    paths
}

fn collect(directory: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || ["target", "node_modules", "artifacts", "found"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, found);
        } else if extensions
            .iter()
            .any(|extension| path.extension().is_some_and(|is| is == *extension))
        {
            found.push(path);
        }
    }
}

impl Page {
    fn read(text: &str, path: String) -> Self {
        let mut page = Self {
            path,
            blocks: Vec::new(),
            anchors: BTreeSet::new(),
            links: Vec::new(),
            spans: Vec::new(),
        };
        let mut slugs = BTreeMap::new();
        let mut prose = String::new();
        // The block that is open, and how far it is indented.
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            let indent = line.len() - line.trim_start().len();
            let fence = line.trim_start().strip_prefix("```");
            // Links may go over the end of a line, never into or over a block.
            prose.push('\n');
            match (open.take(), fence) {
                (None, Some(language)) => {
                    let language = language.trim().to_owned();
                    let block = Block {
                        line: number + 1,
                        language,
                        text: String::new(),
                    };
                    open = Some((block, indent));
                }
                (Some((block, _)), Some("")) => page.blocks.push(block),
                (Some((mut block, indented)), _) => {
                    block.text.push_str(line.get(indented.min(indent)..).unwrap());
                    block.text.push('\n');
                    open = Some((block, indented));
                }
                (None, None) => {
                    if let Some(heading) = heading(line) {
                        page.anchors.insert(unique(slug(heading), &mut slugs));
                    }
                    prose.push_str(line);
                }
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", page.path);
        page.links = links(&prose);
        let paragraphs = prose.split("\n\n");
        let spans = paragraphs.flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
        page.spans = spans.map(|span| span.replace('\n', " ")).collect();
        page
    }
}

/// The text of a heading.
fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim())
}

/// What a heading is called in an address, as GitHub makes it.
fn slug(heading: &str) -> String {
    // Of a link only the text is part of it.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replacen('[', "", 1));
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.to_lowercase()
        .chars()
        .filter_map(|char| match char {
            ' ' => Some('-'),
            '-' | '_' => Some(char),
            char => char.is_alphanumeric().then_some(char),
        })
        .collect()
}

/// The same, numbered if there is one like it already.
fn unique(slug: String, seen: &mut BTreeMap<String, usize>) -> String {
    let count = seen.entry(slug.clone()).or_default();
    *count += 1;
    if *count == 1 {
        slug
    } else {
        format!("{slug}-{}", *count - 1)
    }
}

/// Every `[text](target)` outside code, and every `[name]: target`.
fn links(prose: &str) -> Vec<Link> {
    let plain = without_code(prose);
    let mut links = Vec::new();
    for (at, _) in plain.match_indices("](") {
        let target = plain[at + 2..].split(')').next().unwrap();
        let target = target.split_whitespace().next().unwrap_or_default();
        links.push(Link {
            line: line_at(&plain, at),
            target: target.to_owned(),
        });
    }
    let mut at = 0;
    for line in plain.split_inclusive('\n') {
        let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = reference {
            links.push(Link {
                line: line_at(&plain, at),
                target: target.trim().to_owned(),
            });
        }
        at += line.len();
    }
    links
}

fn line_at(text: &str, at: usize) -> usize {
    // Each line of a page begins with its line break here.
    text[..at].matches('\n').count()
}

/// The text with blanks for what stands between backticks, which never goes over the end of a paragraph.
fn without_code(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let mut code = false;
        let chars = paragraph.chars().map(|char| {
            code ^= char == '`';
            if char == '`' || code && char != '\n' { ' ' } else { char }
        });
        chars.collect::<String>()
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn pages_are_read_as_github_reads_them() {
    let page = Page::read(
        "# The `run` page\n\n## Twice\n## Twice\n[a](b.md#c) and `[no](link)`, [over\na line](d.md)\n\n- item\n\n  ```sh\n  one\n    two\n  ```\n\
         ### `--base-url`\n[e]: f.md\n",
        "x.md".to_owned(),
    );
    let anchors: Vec<&str> = page.anchors.iter().map(String::as_str).collect();
    assert_eq!(anchors, ["--base-url", "the-run-page", "twice", "twice-1"]);
    let links: Vec<(usize, &str)> = page
        .links
        .iter()
        .map(|link| (link.line, link.target.as_str()))
        .collect();
    assert_eq!(links, [(5, "b.md#c"), (6, "d.md"), (15, "f.md")]);
    assert_eq!(page.spans, ["run", "[no](link)", "--base-url"]);
    let block = &page.blocks[0];
    assert_eq!((block.line, &*block.language, &*block.text), (11, "sh", "one\n  two\n"));
}
