//! Where a gateway's token is, as its row says it.

/// What the names of environment variables begin with that rows may name.
pub const VARIABLE_PREFIX: &str = "OPENCLAW_GATEWAY_TOKEN_";

/// What a `token` column says. Whatever begins with `env:` or `file:` is a reference, so that nobody has to guess which of
/// them are taken literally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSetting<'a> {
    /// The token itself.
    Literal,
    /// The name of an environment variable.
    Variable(&'a str),
    /// The path of a file.
    File(&'a str),
}

impl<'a> TokenSetting<'a> {
    /// What this text says.
    pub fn of(token: &'a str) -> Self {
        let token = token.trim();
        if let Some(name) = token.strip_prefix("env:") {
            Self::Variable(name)
        } else if let Some(path) = token.strip_prefix("file:") {
            Self::File(path)
        } else {
            Self::Literal
        }
    }

    /// Whether it is a reference that can lead somewhere, so that it is certainly no token and may be shown. What only looks like a
    /// reference may be one.
    pub fn is_plausible(self) -> bool {
        match self {
            Self::Literal => false,
            Self::Variable(name) => is_variable(name),
            Self::File(path) => {
                !path.is_empty() && !path.chars().any(char::is_control) && !path.split('/').any(|part| part == "..")
            }
        }
    }
}

/// Whether rows may name this environment variable.
pub fn is_variable(name: &str) -> bool {
    let plain = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.strip_prefix(VARIABLE_PREFIX).is_some_and(plain)
}
