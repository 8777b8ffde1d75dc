//! What commands print. Whoever reads it may stop reading at any time, as `head` does: that ends the command, and is no error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use thiserror::Error;

/// As it should be, or new.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Went wrong, or goes away.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// The titles of sections.
pub(super) const TITLE: Style = Style::new().bold();

/// Why nothing more can be printed.
#[derive(Debug, Error)]
pub(super) enum PrintError {
    /// The reader has gone: it has what it wanted.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Whether an error only says that the reader of standard output has gone.
pub(super) fn reader_has_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PrintError::Closed))
}

/// Prints a text to standard output, with its colours only if that is a terminal that wants them (`NO_COLOR`).
pub(super) fn print(text: &str) -> Result<(), PrintError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a line to standard output.
pub(super) fn line(text: impl Display) -> Result<(), PrintError> {
    print(&format!("{text}\n"))
}

/// Tells something on standard error. If nobody reads that, there is nobody to tell.
pub(super) fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Text from the database or from a gateway, in one line and without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
        {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    text.chars().map(visible).collect()
}

/// The same for a text of several lines, whose ends are kept.
pub(super) fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// A text in a style.
pub(super) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        assert_eq!(plain("a\x1b[2Jb\nc\td\u{202e}e"), "a\u{fffd}[2Jb c d\u{fffd}e");
        assert_eq!(plain_lines("a\x07\nb"), "a\u{fffd}\nb");
        assert_eq!(plain("Ünï 🦀"), "Ünï 🦀");
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_a_disk_that_is_full() {
        let gone: PrintError = io::Error::from(ErrorKind::BrokenPipe).into();
        assert!(reader_has_gone(&gone.into()));
        let full: PrintError = io::Error::from(ErrorKind::StorageFull).into();
        let full = anyhow::Error::from(full);
        assert!(!reader_has_gone(&full));
        assert!(full.to_string().starts_with("cannot write to standard output"));
    }
}
