//! Where a gateway's token is, when its row does not hold it: in an environment variable or a file of the operator's.
//!
//! Whoever can write a row decides to which host the token is sent. So a row can name only what was put there to be sent to
//! gateways: variables whose names begin with [`VARIABLE_PREFIX`], and files below one directory.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::error::{ErrorClass, GatewayError};
use crate::model::{TokenSetting, VARIABLE_PREFIX, is_variable};

/// The largest token file that is read, in bytes.
const MOST: u64 = 16 << 10;

/// Looks up the tokens that rows refer to.
#[derive(Clone, Debug, Default)]
pub struct TokenReferences {
    /// The directory below which token files lie; without one no file can be named.
    directory: Option<PathBuf>,
}

/// Why the directory of token files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the directory of gateway tokens {path}: {problem}. Check the path given by --gateway-token-dir and its permissions"
)]
pub struct TokenDirError {
    path: PathBuf,
    problem: String,
}

impl TokenReferences {
    /// Files below this directory may be named.
    ///
    /// # Errors
    /// When it is not a directory that can be looked into.
    pub fn below(directory: &Path) -> Result<Self, TokenDirError> {
        let failed = |problem: String| TokenDirError {
            path: directory.to_owned(),
            problem,
        };
        fs::read_dir(directory).map_err(|error| failed(error.to_string()))?;
        // Absolute, because the process may change its directory, and no further: mounted secrets are swapped by symbolic links.
        let directory = std::path::absolute(directory).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            directory: Some(directory),
        })
    }

    /// The token that a row's `token` column stands for, as it is now.
    ///
    /// # Errors
    /// When the column refers to something that it may not refer to, or that is not there.
    pub(super) async fn resolve(&self, token: Option<&SecretString>) -> Result<Option<SecretString>, GatewayError> {
        let Some(token) = token.filter(|token| !token.expose_secret().is_empty()) else {
            return Ok(None);
        };
        match TokenSetting::of(token.expose_secret()) {
            TokenSetting::Literal => Ok(Some(token.clone())),
            TokenSetting::Variable(name) => variable(name).map(Some),
            TokenSetting::File(path) => {
                let (path, this) = (path.to_owned(), self.clone());
                let read = tokio::task::spawn_blocking(move || this.read(&path)).await;
                let read =
                    read.unwrap_or_else(|error| Err(unavailable(format!("the token's file was not read: {error}"))));
                read.map(Some)
            }
        }
    }

    /// Reads a file below the directory; it may be reached over symbolic links that stay there.
    fn read(&self, named: &str) -> Result<SecretString, GatewayError> {
        let Some(directory) = &self.directory else {
            let message = "the gateway's row refers to a file for its token, and no directory of such files was given";
            return Err(GatewayError::new(ErrorClass::TokenReferenceRefused, message)
                .with_advice("Start with --gateway-token-dir, or use env:OPENCLAW_GATEWAY_TOKEN_<NAME> in the row."));
        };
        let outside = || {
            let message = "the gateway's row refers to a token file that is not below --gateway-token-dir";
            GatewayError::new(ErrorClass::TokenReferenceRefused, message)
        };
        let path = Path::new(named);
        let relative = if path.is_absolute() {
            path.strip_prefix(directory).map_err(|_| outside())?
        } else {
            path
        };
        // Before anything is looked at: a row must not be able to find out what exists elsewhere.
        if named.chars().any(char::is_control)
            || relative.as_os_str().is_empty()
            || relative
                .components()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(outside());
        }
        // The name of what is not there is not repeated: it may be a token that only looks like a reference.
        let unseen = |error: std::io::Error| {
            unavailable(format!(
                "the token's file, which the gateway's row names below --gateway-token-dir, cannot be found: {error}"
            ))
        };
        let root = directory.canonicalize().map_err(unseen)?;
        let real = root.join(relative).canonicalize().map_err(unseen)?;
        if !real.starts_with(&root) {
            return Err(outside());
        }
        let shown = relative.display();
        let missing = |error: std::io::Error| unavailable(format!("the token's file {shown} cannot be read: {error}"));
        // Opening a pipe would wait for somebody to write.
        if !fs::metadata(&real).map_err(missing)?.is_file() {
            return Err(unavailable(format!("{shown}, named as the token's file, is no file")));
        }
        let mut text = String::new();
        File::open(&real)
            .and_then(|file| file.take(MOST + 1).read_to_string(&mut text))
            .map_err(missing)?;
        if text.len() as u64 > MOST {
            return Err(unavailable(format!(
                "the token's file {shown} has more than {MOST} bytes"
            )));
        }
        usable(&text, &format!("the token's file {shown}"))
    }
}

fn variable(name: &str) -> Result<SecretString, GatewayError> {
    if !is_variable(name) {
        // Not repeated: it may be a token that only looks like a reference.
        let message = format!(
            "the gateway's row refers to an environment variable whose name does not begin with {VARIABLE_PREFIX}"
        );
        return Err(GatewayError::new(ErrorClass::TokenReferenceRefused, message));
    }
    match std::env::var(name) {
        Ok(token) => usable(&token, &format!("the environment variable {name}")),
        Err(_) => Err(unavailable(format!("the environment variable {name} is not set"))
            .with_advice("Set it where the controller is started, and start the controller again.")),
    }
}

/// The token without the line break that editors add. Anything else of several lines is no token, and may be something else.
fn usable(text: &str, from: &str) -> Result<SecretString, GatewayError> {
    let token = text.trim_end_matches(['\r', '\n']);
    if token.trim().is_empty() {
        return Err(unavailable(format!("{from} is empty")));
    }
    if token.chars().any(char::is_control) {
        return Err(unavailable(format!("{from} does not hold a token, which has one line")));
    }
    Ok(token.into())
}

fn unavailable(message: String) -> GatewayError {
    GatewayError::new(ErrorClass::TokenUnavailable, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn resolve(references: &TokenReferences, token: &str) -> Result<String, (ErrorClass, String)> {
        references
            .resolve(Some(&token.into()))
            .await
            .map(|token| token.unwrap().expose_secret().to_owned())
            .map_err(|error| (error.class(), error.to_string()))
    }

    #[tokio::test]
    async fn a_token_is_literal_unless_it_begins_like_a_reference() {
        let references = TokenReferences::default();
        for token in ["s3cret", " padded ", "environment", "file", "my:env:X"] {
            assert_eq!(resolve(&references, token).await.unwrap(), token);
        }
        assert!(references.resolve(None).await.unwrap().is_none());
        assert!(references.resolve(Some(&"".into())).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn only_variables_of_the_right_name_can_be_referred_to() {
        let references = TokenReferences::default();
        for name in [
            "PATH",
            "DATABASE_URL",
            VARIABLE_PREFIX,
            "OPENCLAW_GATEWAY_TOKEN",
            "OPENCLAW_GATEWAY_TOKEN_A=B",
            "s3cret",
            "",
        ] {
            let (class, message) = resolve(&references, &format!("env:{name}")).await.unwrap_err();
            assert_eq!(class, ErrorClass::TokenReferenceRefused, "{name}");
            assert!(message.contains("env:OPENCLAW_GATEWAY_TOKEN_<NAME>") && message.contains("--gateway-token-dir"));
            assert!(!message.contains("s3cret"), "{message}");
        }
        let (class, message) = resolve(&references, " env:OPENCLAW_GATEWAY_TOKEN_MISSING\n")
            .await
            .unwrap_err();
        assert_eq!(class, ErrorClass::TokenUnavailable);
        assert!(
            message.contains("OPENCLAW_GATEWAY_TOKEN_MISSING is not set"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn files_are_read_below_the_directory_and_nowhere_else() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("tokens");
        fs::create_dir_all(dir.join("team")).unwrap();
        fs::write(top.path().join("outside"), "s3cret-elsewhere").unwrap();
        fs::write(dir.join("one"), "s3cret-one\r\n\n").unwrap();
        fs::write(dir.join("team/two"), " s3cret two").unwrap();
        symlink("team/two", dir.join("inside")).unwrap();
        symlink(top.path().join("outside"), dir.join("leaving")).unwrap();
        symlink("..", dir.join("up")).unwrap();
        let references = TokenReferences::below(&dir).unwrap();
        let absolute = dir.join("one").display().to_string();
        for (path, token) in [
            ("one", "s3cret-one"),
            ("./one", "s3cret-one"),
            (&absolute, "s3cret-one"),
            ("team/two", " s3cret two"),
            ("inside", " s3cret two"),
        ] {
            let found = resolve(&references, &format!("file:{path}")).await;
            assert_eq!(found.as_deref(), Ok(token), "{path}");
        }
        let around = format!("{}/../outside", dir.display());
        for path in [
            "../outside",
            "team/../../outside",
            "leaving",
            "up/outside",
            "/etc/passwd",
            &around,
            "",
            "/",
            "a\nb",
        ] {
            let (class, message) = resolve(&references, &format!("file:{path}")).await.unwrap_err();
            assert_eq!(class, ErrorClass::TokenReferenceRefused, "{path}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[tokio::test]
    async fn what_is_no_token_says_so_and_what_has_changed_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let references = TokenReferences::below(dir.path()).unwrap();
        let file = dir.path().join("token");
        let (class, message) = resolve(&references, "file:token").await.unwrap_err();
        assert_eq!(class, ErrorClass::TokenUnavailable);
        assert!(message.contains("cannot be found: No such file"), "{message}");
        for (text, says) in [
            (&b""[..], "is empty"),
            (b"\n\n", "is empty"),
            (b"s3cret\nand more", "one line"),
            (b"s3cret\xff", "cannot be read"),
            (&vec![b'a'; 20_000], "bytes"),
        ] {
            fs::write(&file, text).unwrap();
            let (class, message) = resolve(&references, "file:token").await.unwrap_err();
            assert_eq!(class, ErrorClass::TokenUnavailable);
            assert!(message.contains(says) && !message.contains("s3cret"), "{message}");
        }
        for token in ["first", "second"] {
            fs::write(&file, token).unwrap();
            assert_eq!(resolve(&references, "file:token").await.as_deref(), Ok(token));
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(
            resolve(&references, "file:token")
                .await
                .unwrap_err()
                .1
                .contains("is no file")
        );
    }

    #[tokio::test]
    async fn without_a_directory_no_file_can_be_named() {
        let (class, message) = resolve(&TokenReferences::default(), "file:token").await.unwrap_err();
        assert_eq!(class, ErrorClass::TokenReferenceRefused);
        assert!(message.contains("Start with --gateway-token-dir"), "{message}");
        let error = TokenReferences::below(Path::new("/nowhere/at/all"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nowhere/at/all") && error.contains("--gateway-token-dir"),
            "{error}"
        );
    }
}
