//! Versions of gateways, for the one setting that compares them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A version as gateways write it: numbers with dots between, `2026.9.6`, with something after them perhaps.
///
/// Nothing is decided by a version that can be found out by asking; this is for the operator's word about the oldest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayVersion {
    numbers: Vec<u64>,
    /// Whether it came before the version of these numbers: `2026.9.6-beta.1`.
    early: bool,
    text: String,
}

impl GatewayVersion {
    /// How a version begins at least: year, month, and number.
    const NUMBERS: usize = 3;

    /// Whether it is older than another one.
    pub fn is_before(&self, other: &Self) -> bool {
        match self.numbers.cmp(&other.numbers) {
            Ordering::Equal => self.early && !other.early,
            ordering => ordering == Ordering::Less,
        }
    }
}

impl FromStr for GatewayVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "must be a version as gateways write it, like 2026.7.1".to_owned();
        let text = text.trim();
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (numbers, rest) = match bare.find(['-', '+']) {
            Some(at) => (&bare[..at], &bare[at..]),
            None => (bare, ""),
        };
        let numbers: Vec<u64> = numbers
            .split('.')
            .map(|number| number.parse().map_err(|_| refused()))
            .collect::<Result<_, _>>()?;
        if numbers.len() != Self::NUMBERS {
            return Err(refused());
        }
        // A word after the hyphen comes before the version itself; a number, as hot fixes have it, after it.
        let early = rest
            .strip_prefix('-')
            .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
        Ok(Self {
            numbers,
            early,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for GatewayVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> GatewayVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        for (older, newer) in [
            ("2026.2.26", "2026.3.1"),
            ("2026.9.6", "2026.10.1"),
            ("2025.12.31", "2026.1.1"),
            ("2026.9.6-beta.1", "2026.9.6"),
            ("2026.9.5", "2026.9.6-beta.1"),
            ("v2026.02.9", "2026.2.26"),
        ] {
            assert!(version(older).is_before(&version(newer)), "{older} {newer}");
            assert!(!version(newer).is_before(&version(older)), "{newer} {older}");
        }
        for (one, other) in [
            ("2026.7.1", "2026.7.1-2"),
            ("2026.7.1", "v2026.07.01"),
            ("2026.7.1", "2026.7.1+b"),
        ] {
            assert!(!version(one).is_before(&version(other)) && !version(other).is_before(&version(one)));
        }
    }

    #[test]
    fn what_is_no_version_is_not_guessed() {
        for text in [
            "",
            "dev",
            "unknown",
            "2026",
            "2026.7",
            "2026.7.x",
            "2026.7.1.4",
            "latest-2026.7.1",
            "-1.2.3",
        ] {
            assert!(text.parse::<GatewayVersion>().is_err(), "{text}");
        }
    }
}
