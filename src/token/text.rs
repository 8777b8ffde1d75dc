//! Finding a token in a file, taking it out, putting it in.

use secrecy::{ExposeSecret as _, SecretString};

use super::hash::is_minted_form;
use crate::model::{TOKEN_SENTINEL, break_sentinel};

/// The name under which the token stands in a file.
const KEY: &str = "AUTH_TOKEN";

/// The tokens found in a text.
#[derive(Clone, Debug)]
pub enum Extracted {
    /// There is none, or only empty values and placeholders.
    None,
    /// There is one, perhaps repeated.
    One(SecretString),
    /// There are several different ones, in the order of the text.
    Several(Vec<SecretString>),
}

impl Extracted {
    /// The tokens found, in the order of the text.
    pub fn tokens(&self) -> &[SecretString] {
        match self {
            Self::None => &[],
            Self::One(token) => std::slice::from_ref(token),
            Self::Several(tokens) => tokens,
        }
    }
}

/// Finds every `AUTH_TOKEN` in a text, in any of the forms found in the field: `AUTH_TOKEN=…` and `AUTH_TOKEN: …`, each
/// also in a list item, behind `export`, and with backticks, quotes or emphasis around the whole, the name or the value.
///
/// The assignment must begin its line: `AUTH_TOKEN` within a sentence or a longer name is not one.
pub fn extract(text: &str) -> Extracted {
    let mut found: Vec<&str> = Vec::new();
    for token in text.split(['\n', '\r']).filter_map(token_in_line) {
        if !found.contains(&token) {
            found.push(token);
        }
    }
    match *found.as_slice() {
        [] => Extracted::None,
        [token] => Extracted::One(SecretString::from(token)),
        _ => Extracted::Several(found.into_iter().map(SecretString::from).collect()),
    }
}

/// Replaces every occurrence of the token by [`TOKEN_SENTINEL`]. A literal sentinel that was in the text already is
/// replaced by something else first: it must not compare equal to a place where the token should be.
pub fn redact(text: &str, token: Option<&str>) -> String {
    let text = break_sentinel(text);
    match token {
        Some(token) if !token.is_empty() => text.replace(token, TOKEN_SENTINEL),
        _ => text,
    }
}

/// Replaces every [`TOKEN_SENTINEL`] by the token: the very last step before a write to a gateway.
pub fn insert(text: &str, token: &SecretString) -> String {
    text.replace(TOKEN_SENTINEL, token.expose_secret())
}

/// The token that a line assigns, if it assigns one.
fn token_in_line(line: &str) -> Option<&str> {
    let rest = without_item_marker(line.trim_start_matches([' ', '\t', '>', '\u{feff}']));
    let rest = rest.trim_start_matches(is_markup);
    let rest = rest
        .strip_prefix("export ")
        .map_or(rest, |rest| rest.trim_start_matches(|c: char| c == ' ' || is_markup(c)));
    let rest = rest.strip_prefix(KEY)?;
    let rest = rest.trim_start_matches(|c: char| c == ' ' || c == '\t' || is_markup(c));
    let (is_assignment, rest) = match rest.chars().next()? {
        '=' => (true, &rest[1..]),
        ':' => (false, &rest[1..]),
        _ => return None,
    };
    let value = rest.trim_start_matches([' ', '\t']);
    let unmarked = value.trim_start_matches(|c: char| c == ' ' || is_markup(c));
    let marked = unmarked.len() < value.len();
    let end = unmarked.find(|c| !is_token_char(c)).unwrap_or(unmarked.len());
    let (token, after) = unmarked.split_at(end);
    // `AUTH_TOKEN: required for every call.` is a sentence: a bare value behind a colon must be all there is.
    let ended = match after.chars().next() {
        None => true,
        Some(' ' | '\t') if is_assignment || marked => true,
        Some(' ' | '\t') => {
            let after = after.trim_start();
            after.is_empty() || after.starts_with(['#', '(', '<'])
        }
        Some(c) => is_markup(c) || matches!(c, ',' | ';' | ')' | '|' | '\\'),
    };
    let token = if marked {
        token
    } else {
        token.trim_end_matches(['.', ':'])
    };
    (ended && !is_placeholder(token)).then_some(token)
}

/// Cuts off the marker of a list item: `- `, `* `, `+ `, `1. `, `1) `, with an optional check box.
fn without_item_marker(line: &str) -> &str {
    let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    let rest = if digits > 0 {
        line[digits..].strip_prefix(['.', ')'])
    } else {
        line.strip_prefix(['-', '*', '+'])
    };
    let Some(rest) = rest.filter(|rest| rest.starts_with([' ', '\t'])) else {
        return line;
    };
    let rest = rest.trim_start();
    ["[ ] ", "[x] ", "[X] "]
        .iter()
        .find_map(|check_box| rest.strip_prefix(check_box))
        .unwrap_or(rest)
        .trim_start()
}

/// Marks that may surround a name or a value without belonging to it.
fn is_markup(c: char) -> bool {
    matches!(c, '`' | '"' | '\'' | '*')
}

/// What a token may be made of: base64 of both alphabets, and what other generators use.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=' | ':')
}

/// Whether a value stands for a token rather than being one.
fn is_placeholder(value: &str) -> bool {
    // Real tokens first: a random one may well contain one of the words below.
    if is_minted_form(value) && value.bytes().any(|b| b != value.as_bytes()[0]) {
        return false;
    }
    let lower = value.to_ascii_lowercase().replace(['-', '.'], "_");
    let words = lower.trim_matches('_');
    let all_same = words.bytes().all(|b| b == words.as_bytes()[0]);
    all_same
        || matches!(
            words,
            "none" | "null" | "nil" | "todo" | "tbd" | "empty" | "missing" | "unset" | "hidden" | "secret"
        )
        || [
            "your_",
            "placeholder",
            "redacted",
            "changeme",
            "change_me",
            "replace_me",
            "token_here",
            "agent_token",
            "auth_token",
        ]
        .iter()
        .any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM";
    const OTHER: &str = "-_2Vx0kq9Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8Ky_-";

    fn exposed(text: &str) -> Vec<String> {
        let found = extract(text);
        let count_fits = match &found {
            Extracted::None => found.tokens().is_empty(),
            Extracted::One(_) => found.tokens().len() == 1,
            Extracted::Several(_) => found.tokens().len() > 1,
        };
        assert!(count_fits);
        found
            .tokens()
            .iter()
            .map(|token| token.expose_secret().to_owned())
            .collect()
    }

    #[test]
    fn every_form_found_in_the_field_is_read() {
        for form in [
            "AUTH_TOKEN={}",
            "- `AUTH_TOKEN={}`",
            "* `AUTH_TOKEN={}`",
            "1. AUTH_TOKEN={}",
            "  - AUTH_TOKEN={}  ",
            "- [ ] AUTH_TOKEN={}",
            "AUTH_TOKEN: {}",
            "AUTH_TOKEN:{}",
            "- AUTH_TOKEN: {}",
            "AUTH_TOKEN: `{}`",
            "- `AUTH_TOKEN`: `{}`",
            "- **AUTH_TOKEN**: `{}`",
            "- **AUTH_TOKEN:** `{}`",
            "`AUTH_TOKEN: {}`",
            "AUTH_TOKEN = {}",
            "AUTH_TOKEN=\"{}\"",
            "AUTH_TOKEN='{}'",
            "export AUTH_TOKEN={}",
            "- `export AUTH_TOKEN=\"{}\"`",
            "> AUTH_TOKEN={}",
            "\tAUTH_TOKEN={}",
            "AUTH_TOKEN={} # keep it",
            "AUTH_TOKEN: `{}` (keep it to yourself)",
            "AUTH_TOKEN={};",
            "AUTH_TOKEN={}.",
            "\u{feff}AUTH_TOKEN={}",
            "# Tools\r\n\r\n- `AUTH_TOKEN={}`\r\n- `BASE_URL=http://x`\r\n",
            "AUTH_TOKEN={}\r\nAUTH_TOKEN: `{}`",
            "a\rAUTH_TOKEN={}\rb",
        ] {
            for token in [TOKEN, OTHER] {
                assert_eq!(exposed(&form.replace("{}", token)), [token], "{form}");
            }
        }
    }

    #[test]
    fn empty_values_placeholders_and_sentences_hold_no_token() {
        for text in [
            "",
            "AUTH_TOKEN",
            "AUTH_TOKEN=",
            "AUTH_TOKEN: ",
            "- `AUTH_TOKEN=`",
            "AUTH_TOKEN=\"\"",
            "AUTH_TOKEN=\nabc",
            "AUTH_TOKEN=<your token>",
            "AUTH_TOKEN={{ auth_token }}",
            "AUTH_TOKEN=$AUTH_TOKEN",
            "AUTH_TOKEN=${AUTH_TOKEN}",
            "AUTH_TOKEN=$(cat token)",
            "AUTH_TOKEN=your-token-here",
            "AUTH_TOKEN=changeme",
            "AUTH_TOKEN=...",
            "AUTH_TOKEN=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "AUTH_TOKEN=****",
            "AUTH_TOKEN=None",
            "AUTH_TOKEN=__OPENCLAW_REDACTED__",
            "- `AUTH_TOKEN=__OPENCLAW_AGENT_TOKEN__`",
            "AUTH_TOKEN: required for every call",
            "Use AUTH_TOKEN=u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM here",
            "MY_AUTH_TOKEN=u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM",
            "AUTH_TOKENS=u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM",
            "-AUTH",
            "1",
            "12345",
        ] {
            assert!(matches!(extract(text), Extracted::None), "{text:?}");
        }
    }

    #[test]
    fn different_tokens_are_several_in_the_order_of_the_text() {
        let text = format!("AUTH_TOKEN={OTHER}\n- `AUTH_TOKEN={TOKEN}`\nAUTH_TOKEN: {OTHER}\nAUTH_TOKEN=changeme");
        assert_eq!(exposed(&text), [OTHER, TOKEN]);
    }

    #[test]
    fn a_literal_sentinel_never_compares_equal_to_a_token() {
        for text in [
            TOKEN_SENTINEL.to_owned(),
            format!("{TOKEN_SENTINEL}OPENCLAW_AGENT_TOKEN__"),
            format!("__OPENCLAW_AGENT_TOKEN{TOKEN_SENTINEL}"),
            format!("- `AUTH_TOKEN={TOKEN_SENTINEL}`"),
        ] {
            assert!(!redact(&text, None).contains(TOKEN_SENTINEL), "{text}");
            assert!(!redact(&text, Some(TOKEN)).contains(TOKEN_SENTINEL), "{text}");
            assert!(!redact(&text, Some("")).contains(TOKEN_SENTINEL), "{text}");
        }
    }

    #[test]
    fn debug_output_holds_no_token() {
        let found = format!("{:?}", extract(&format!("AUTH_TOKEN={TOKEN}\nAUTH_TOKEN={OTHER}")));
        assert!(!found.contains(TOKEN) && !found.contains(OTHER), "{found}");
    }

    proptest! {
        #[test]
        fn what_was_redacted_can_be_inserted_again(before in ".{0,40}", after in ".{0,40}", token in "[A-Za-z0-9_-]{43}") {
            let text = format!("{before}{token} {token}{after}");
            let redacted = redact(&text, Some(&token));
            prop_assert!(!redacted.contains(&token));
            prop_assert_eq!(insert(&redacted, &SecretString::from(token)), text);
        }

        #[test]
        fn an_inserted_token_is_found_again(
            before in "[a-z \n`#-]{0,40}",
            after in "[a-z \n`#-]{0,40}",
            token in "[A-Za-z0-9_-]{43}",
        ) {
            let file = format!("{before}\n- `AUTH_TOKEN={TOKEN_SENTINEL}`\n{after}");
            let text = insert(&file, &SecretString::from(token.clone()));
            prop_assert_eq!(exposed(&text), [token.clone()]);
            prop_assert_eq!(redact(&text, Some(&token)), file);
        }

        #[test]
        fn no_text_makes_it_crash(text in "([-*> `'\"0-9.]|AUTH_TOKEN|[:=]|export |\\PC){0,12}", token in "\\PC{0,9}") {
            let found = extract(&text);
            prop_assert!(found.tokens().iter().all(|token| !token.expose_secret().is_empty()));
            redact(&text, Some(&token));
        }
    }
}
