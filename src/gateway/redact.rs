//! Making text from a gateway fit to be shown.

/// Longest text from the other side that is passed on, in characters. A validation message of a real gateway has about
/// 100; a log line should hold it and a status page too.
const SHOWN: usize = 600;

/// Makes the text one bounded line: control characters become spaces, a long text is cut.
pub(super) fn clean(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_other_side_becomes_one_bounded_line() {
        assert_eq!(clean("a\nb\u{1b}[31mc"), "a b [31mc");
        assert_eq!(clean(&"é".repeat(700)).chars().count(), 601);
    }
}
