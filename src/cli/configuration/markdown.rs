//! Help texts as Markdown.

/// Text as code.
pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Text for a cell of a table: in one line, and without an end of the cell.
pub(super) fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// Help of one sentence loses its full stop on its way; here it gets it back.
pub(super) fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ':', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

/// Prose in which flags, variables, paths and URLs are marked as code, and nothing else is markup.
pub(super) fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(number, part)| if number % 2 == 1 { code(part) } else { words(part) });
    parts.collect()
}

fn words(text: &str) -> String {
    text.split_inclusive(' ').map(word).collect()
}

fn word(word: &str) -> String {
    let core = word.trim_start_matches('(');
    let before = &word[..word.len() - core.len()];
    let core = core.trim_end_matches([' ', '.', ',', ':', ';', ')']);
    let after = &word[before.len() + core.len()..];
    if is_code(core) {
        format!("{before}`{core}`{after}")
    } else {
        word.replace('*', "\\*").replace('<', "\\<")
    }
}

fn is_code(word: &str) -> bool {
    let variable = |word: &str| {
        word.contains('_')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    word.starts_with("--")
        || word.contains("://")
        || word.contains("::")
        || word.starts_with("~/")
        || (word.starts_with('/') && word.len() > 1)
        || variable(word.trim_start_matches('$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_code_and_nothing_else_is_markup() {
        for (text, marked) in [
            ("as --base-url, or (--listen).", "as `--base-url`, or (`--listen`)."),
            (
                "in $STATE_DIRECTORY, in ~/.local/state.",
                "in `$STATE_DIRECTORY`, in `~/.local/state`.",
            ),
            (
                "says /pause: http://x and `a|<b>` at 3 / 4",
                "says `/pause`: `http://x` and `a|<b>` at 3 / 4",
            ),
            ("<b> *bold* FILE", "\\<b> \\*bold\\* FILE"),
        ] {
            assert_eq!(prose(text), marked);
        }
        assert_eq!(cell("a|b\nc"), "a\\|b c");
        assert_eq!(
            (sentence("One"), sentence("Two."), sentence("")),
            ("One.".into(), "Two.".into(), String::new())
        );
    }
}
