//! Files that a gateway has retired live on as sections of another.

/// The rank of a folded file's section; headings within it start one below.
const SECTION_RANK: usize = 2;
/// Markdown has no lower rank.
const LOWEST_RANK: usize = 6;

/// Appends a text as a section of this title to a document. The text's own title (a first heading of rank 1) gives way
/// to the section's, and its other headings move below it.
pub(super) fn append_section(document: &mut String, title: &str, text: &str) {
    if !document.is_empty() {
        document.push_str("\n\n");
    }
    document.push_str(&"#".repeat(SECTION_RANK));
    document.push(' ');
    document.push_str(title);
    let body = demote(without_title(text.trim()));
    if !body.is_empty() {
        document.push_str("\n\n");
        document.push_str(&body);
    }
}

/// The text behind its title, or all of it if it has none.
fn without_title(text: &str) -> &str {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(1) = rank(first) {
        return rest.trim();
    }
    match rest.split_once('\n').unwrap_or((rest, "")) {
        (line, rest) if is_title_above(first, line) => rest.trim(),
        _ => text,
    }
}

/// Whether a line is text underlined by the next as a heading of rank 1.
fn is_title_above(line: &str, underline: &str) -> bool {
    let underline = underline.trim_end();
    line.starts_with(char::is_alphanumeric) && underline.len() >= 2 && underline.bytes().all(|b| b == b'=')
}

/// Moves all headings down by as much as makes the highest one rank below the section's. Code blocks stay as they are.
fn demote(text: &str) -> String {
    let mut fence = None;
    let lines: Vec<(&str, Option<usize>)> = text
        .lines()
        .map(|line| {
            let in_code = fence.is_some();
            fence = after_line(fence, line);
            (line, if in_code { None } else { rank(line) })
        })
        .collect();
    let highest = lines.iter().filter_map(|(_, rank)| *rank).min().unwrap_or(LOWEST_RANK);
    let shift = (SECTION_RANK + 1).saturating_sub(highest);
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(line, rank)| match rank {
            Some(rank) if shift > 0 => {
                let heading = line.trim_start().trim_start_matches('#');
                format!("{}{heading}", "#".repeat((rank + shift).min(LOWEST_RANK)))
            }
            _ => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

/// The rank of a heading: up to three blanks, one to six `#`, then a blank or nothing.
fn rank(line: &str) -> Option<usize> {
    let text = line.trim_start_matches(' ');
    let rest = text.trim_start_matches('#');
    let rank = text.len() - rest.len();
    let is_heading = line.len() - text.len() <= 3
        && (1..=LOWEST_RANK).contains(&rank)
        && (rest.is_empty() || rest.starts_with([' ', '\t']));
    is_heading.then_some(rank)
}

/// The fence that is open behind a line, as its character and length, given the one open before it.
fn after_line(open: Option<(char, usize)>, line: &str) -> Option<(char, usize)> {
    let text = line.trim_start();
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'));
    let length = mark.map_or(0, |mark| text.len() - text.trim_start_matches(mark).len());
    match open {
        // Closed by at least as many of the same, and nothing behind them.
        Some((opening, least)) if mark == Some(opening) && length >= least && text.trim_end().len() == length => None,
        Some(_) => open,
        None => mark.filter(|_| length >= 3).map(|mark| (mark, length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut document = "# Doc".to_owned();
        append_section(&mut document, "Tools", text);
        assert_eq!(document, format!("# Doc\n\n{expected}"));
    }

    #[test]
    fn the_title_gives_way_to_the_section_and_headings_move_below_it() {
        check("# TOOLS.md\n\ntext", "## Tools\n\ntext");
        check("# TOOLS.md", "## Tools");
        check("TOOLS\n=====\n\ntext", "## Tools\n\ntext");
        check("text", "## Tools\n\ntext");
        check("# T\n## A\n### B\ntext\n## C", "## Tools\n\n### A\n#### B\ntext\n### C");
        check("# A\n\n# B\n## C", "## Tools\n\n### B\n#### C");
        check("### A\n#### B", "## Tools\n\n### A\n#### B");
        check("# T\n# A\n###### B\n##### C", "## Tools\n\n### A\n###### B\n###### C");
        check("  # T\n   ## A", "## Tools\n\n### A");
    }

    #[test]
    fn what_only_looks_like_a_heading_stays() {
        check(
            "#tag\n####### seven\n    # indented",
            "## Tools\n\n#tag\n####### seven\n    # indented",
        );
        check(
            "## A\n```sh\n# comment\n```\n## B",
            "## Tools\n\n### A\n```sh\n# comment\n```\n### B",
        );
        check(
            "# T\n~~~~\n# c\n~~~\n# c\n```\n~~~~\n## B",
            "## Tools\n\n~~~~\n# c\n~~~\n# c\n```\n~~~~\n### B",
        );
        check("# T\n```\n## never closed", "## Tools\n\n```\n## never closed");
    }

    #[test]
    fn a_section_of_an_empty_document_comes_first() {
        let mut document = String::new();
        append_section(&mut document, "Tools", "text");
        assert_eq!(document, "## Tools\n\ntext");
    }
}
