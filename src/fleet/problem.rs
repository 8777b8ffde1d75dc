//! What is wrong with a file, and where.

use std::fmt;

/// A place in a file; lines and columns are counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something that is wrong with a file. Its text names the object and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub at: Mark,
    /// What.
    pub message: String,
}

impl Problem {
    /// A problem at this place.
    pub fn new(at: Mark, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, printable(&self.message))
    }
}

/// What terminals would act upon is replaced; line breaks and tabs stay.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| {
            if char.is_control() && !matches!(char, '\n' | '\t') {
                char::REPLACEMENT_CHARACTER
            } else {
                char
            }
        })
        .collect()
}
