//! Who may look at the status page and use the API.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use secrecy::SecretString;

/// The environment variable that holds the token itself.
pub const PAGE_TOKEN: &str = "OPENCLAW_CONTROLLER_PAGE_TOKEN";

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Who may look at the status page and use the API.
#[derive(Args, Clone, Debug, Default)]
pub struct PageArgs {
    /// File that holds the token which the status page and the API want, 16 characters at least; read at the start.
    ///
    /// It is sent as `Authorization: Bearer`, or, by a browser, as the password with any user name. Without a token, whoever reaches
    /// the address of --listen may look. OPENCLAW_CONTROLLER_PAGE_TOKEN can hold the token itself instead. Metrics and probes are open
    /// either way.
    #[arg(long, env = "OPENCLAW_CONTROLLER_PAGE_TOKEN_FILE", value_name = "FILE")]
    pub page_token_file: Option<PathBuf>,
}

impl PageArgs {
    /// The token, if there is one.
    ///
    /// # Errors
    /// There are two, its file cannot be read, or it is one that can be guessed. Never shows it.
    pub fn token(&self) -> anyhow::Result<Option<SecretString>> {
        let variable = std::env::var(PAGE_TOKEN).ok().filter(|token| !token.trim().is_empty());
        self.token_or(variable)
    }

    fn token_or(&self, variable: Option<String>) -> anyhow::Result<Option<SecretString>> {
        let (token, origin) = match (&self.page_token_file, variable) {
            (Some(path), None) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the page's token from {}", path.display()))?;
                (text, path.display().to_string())
            }
            (None, Some(token)) => (token, PAGE_TOKEN.to_owned()),
            (None, None) => return Ok(None),
            (Some(path), Some(_)) => anyhow::bail!(
                "the page's token is given twice, by --page-token-file ({}) and by {PAGE_TOKEN}: remove one of the two",
                path.display()
            ),
        };
        let token = token.trim();
        ensure!(
            token.len() >= SHORTEST,
            "the page's token in {origin} is shorter than {SHORTEST} characters, and can be guessed; make one by \
             `openssl rand -base64 32`"
        );
        ensure!(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "the page's token in {origin} has blanks or characters beyond ASCII, which no header can hold; make one by \
             `openssl rand -base64 32`"
        );
        Ok(Some(token.to_owned().into()))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_comes_from_a_file_or_the_environment_and_cannot_be_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let from = |text: Option<&str>, variable: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let args = PageArgs {
                page_token_file: text.map(|_| path.clone()),
            };
            args.token_or(variable.map(str::to_owned))
        };
        let good = "0123456789abcdef";
        let token = |result: anyhow::Result<Option<SecretString>>| {
            result.unwrap().map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(token(from(None, None)), None);
        assert_eq!(token(from(Some(&format!("{good}\n")), None)).as_deref(), Some(good));
        assert_eq!(token(from(None, Some(good))).as_deref(), Some(good));
        for (text, variable) in [
            (Some("short"), None),
            (Some(""), None),
            (None, Some("hunter2")),
            (Some("two words that are long"), None),
            (Some(good), Some(good)),
        ] {
            let error = format!("{:#}", from(text, variable).unwrap_err());
            assert!(!error.contains("hunter2") && !error.contains(good), "{error}");
        }
        let missing = PageArgs {
            page_token_file: Some(directory.path().join("missing")),
        };
        assert!(missing.token_or(None).is_err());
    }
}
