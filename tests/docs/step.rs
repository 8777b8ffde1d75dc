//! What the pages have a reader type, command by command.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::page::{Block, Page};

/// One thing to type.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Where: page and line.
    pub(crate) place: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A command, with what the page says that it prints (nothing if it does not say).
    Command { text: String, prints: Vec<String> },
    /// Statements for `psql`.
    Sql(String),
}

/// Everything that a page has a reader type, in its order.
pub(crate) fn steps(page: &Page) -> Vec<Step> {
    page.blocks.iter().flat_map(|block| of_block(page, block)).collect()
}

fn of_block(page: &Page, block: &Block) -> Vec<Step> {
    let at = |line: usize| format!("{}:{}", page.path, block.line + line);
    match block.language.as_str() {
        "sh" => commands(&block.text)
            .into_iter()
            .map(|(line, text)| {
                let prints = Vec::new();
                Step {
                    place: at(line),
                    what: What::Command { text, prints },
                }
            })
            .collect(),
        "console" => typed(&block.text)
            .into_iter()
            .map(|(line, text, prints)| Step {
                place: at(line),
                what: What::Command { text, prints },
            })
            .collect(),
        "sql" => vec![Step {
            place: at(0),
            what: What::Sql(block.text.clone()),
        }],
        _ => Vec::new(),
    }
}

/// The commands of a script, each with the number of its first line, from 0. A command may go over several lines.
fn commands(script: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in script.lines().enumerate() {
        let (first, mut text) = match open.take() {
            Some((first, text)) => (first, text + "\n"),
            None if line.trim().is_empty() || line.trim_start().starts_with('#') => continue,
            None => (number, String::new()),
        };
        text.push_str(line);
        if is_whole(&text) {
            found.push((first, text));
        } else {
            open = Some((first, text));
        }
    }
    // Whatever is wrong with it, the shell will say.
    found.extend(open);
    let parts = found.into_iter().flat_map(|(line, text)| {
        let parts = statements(&text);
        parts.into_iter().map(move |part| (line, part))
    });
    parts.collect()
}

/// The lines after `$ `, each with its number and with what stands below it.
fn typed(session: &str) -> Vec<(usize, String, Vec<String>)> {
    let mut found: Vec<(usize, String, Vec<String>)> = Vec::new();
    for (number, line) in session.lines().enumerate() {
        if let Some(text) = line.strip_prefix("$ ") {
            found.push((number, text.to_owned(), Vec::new()));
        } else if let Some((_, _, prints)) = found.last_mut() {
            prints.push(line.to_owned());
        } else {
            panic!("a session begins with a line that nobody types: {line}");
        }
    }
    found
}

/// Whether the shell would not wait for more.
fn is_whole(text: &str) -> bool {
    if text.ends_with('\\') {
        return false;
    }
    // The shell takes the end of its input for the end of a document.
    let document = text.split("<<").nth(1).filter(|rest| !rest.starts_with('<'));
    if let Some(rest) = document {
        let word = rest
            .trim_start_matches('-')
            .split_whitespace()
            .next()
            .unwrap_or_default();
        let word = word.trim_matches(['\'', '"']);
        if text.lines().last().map(str::trim) != Some(word) {
            return false;
        }
    }
    parses(text)
}

fn parses(text: &str) -> bool {
    let mut shell = Command::new("bash")
        .args(["--noprofile", "--norc", "-n"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    shell.wait().unwrap().success()
}

/// The statements of a line, `a; b`, since the shell tells of the last one only. What asks how the one before ended stays with it.
fn statements(text: &str) -> Vec<String> {
    let parts = outside_quotes(text, ';');
    let separate =
        parts.len() > 1 && !text.contains('\n') && !text.contains("$?") && parts.iter().all(|part| parses(part));
    if separate {
        parts
            .into_iter()
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect()
    } else {
        vec![text.to_owned()]
    }
}

/// Text without the remark at the end of its line.
pub(crate) fn without_remark(text: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (None, '#') if before.is_whitespace() => return text[..at].trim_end(),
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), _) if char == open => quote = None,
            _ => {}
        }
        before = char;
    }
    text.trim_end()
}

/// The words of a command, without the variables that are set for it.
pub(crate) fn without_assignments(command: &str) -> impl Iterator<Item = &str> {
    let words = command.split_whitespace();
    words.skip_while(|word| word.contains('=') && !word.starts_with('-'))
}

/// Text in parts, as separated by a character outside quotes and remarks.
pub(crate) fn outside_quotes(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for char in without_remark(text).chars() {
        match (quote, char) {
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), _) if char == open => quote = None,
            (None, _) if char == separator => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(char);
    }
    parts
}

#[test]
fn scripts_fall_into_commands() {
    let script = "# a remark\none --two  # three; four\nrun -d \\\n  -p 1\nfor a in b c; do\n  echo \"$a\"\ndone >d\n\nget 'a; b' | grep c; wait\n\
                  cat <<EOF >f\ntext; more\nEOF\nfail; echo \"$?\"\n";
    let found = commands(script);
    let expected = [
        (1, "one --two  # three; four"),
        (2, "run -d \\\n  -p 1"),
        (4, "for a in b c; do\n  echo \"$a\"\ndone >d"),
        (8, "get 'a; b' | grep c"),
        (8, "wait"),
        (9, "cat <<EOF >f\ntext; more\nEOF"),
        (12, "fail; echo \"$?\""),
    ];
    let found: Vec<(usize, &str)> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(without_remark("a '#' \"#\" b#c # d"), "a '#' \"#\" b#c");
    assert_eq!(outside_quotes("a | b '|' | c", '|'), ["a ", " b '|' ", " c"]);
    let session = typed("$ a\none\ntwo\n\n$ b\n");
    assert_eq!(
        session[0],
        (
            0,
            "a".to_owned(),
            vec!["one".to_owned(), "two".to_owned(), String::new()]
        )
    );
    assert_eq!(session[1], (4, "b".to_owned(), Vec::new()));
}
