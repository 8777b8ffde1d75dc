//! The tokens that gateways issue to this controller's device, kept in a file beside its key.
//!
//! A device token is worth nothing without the device's key, and goes on working when the gateway's shared token is replaced. It
//! is kept by gateway and role, and used only for the URL it was issued at, by the device it was issued to, and while the row's
//! token is the one with which it was obtained: a row that was changed is what somebody wants now.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::connector::Target;
use crate::model::GatewayId;

/// How long the file may take: nobody waits for a file server to connect to a gateway.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a lock that another process holds is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The largest file that is read, in bytes: room for some ten thousand gateways.
const MOST: u64 = 8 << 20;

/// The file's only form so far.
const VERSION: u32 = 1;

/// Which token is looked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    gateway: GatewayId,
    role: String,
    /// The id of the device that it was issued to.
    device: String,
    /// SHA-256 of the gateway's URL, which may hold secrets, and of the row's token.
    terms: String,
}

impl Key {
    pub(super) fn new(target: &Target, role: &str, device: &str, token: Option<&SecretString>) -> Self {
        let token = token.map_or("", ExposeSecret::expose_secret);
        let mut hash = Sha256::new();
        // Each with its length, so that no two pairs make the same text.
        for part in [target.url.trim(), token] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            gateway: target.gateway,
            role: role.to_owned(),
            device: device.to_owned(),
            terms: URL_SAFE_NO_PAD.encode(hash.finalize()),
        }
    }

    /// Whether the other is in this one's place: there is one entry for each gateway and role.
    fn same_place(&self, other: &Self) -> bool {
        self.gateway == other.gateway && self.role == other.role
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    token: String,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    tokens: Vec<Entry>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            version: VERSION,
            tokens: Vec::new(),
        }
    }
}

/// Where device tokens are kept; nowhere if no file was given. Everything that goes wrong with it is logged, and costs no more than
/// that the row's token is used.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceTokens(Option<Arc<PathBuf>>);

impl DeviceTokens {
    /// Keeps them beside the device's key.
    pub(super) fn beside(identity: &Path) -> Self {
        let mut name = identity.file_name().unwrap_or_default().to_owned();
        name.push(".tokens");
        Self(Some(Arc::new(identity.with_file_name(name))))
    }

    /// The token for these terms, if there is one.
    pub(super) async fn find(&self, key: &Key) -> Option<SecretString> {
        let key = key.clone();
        self.with(move |path| {
            let found = load(path)?.tokens.into_iter().find(|entry| entry.key == key);
            Ok(found.map(|entry| entry.token.into()))
        })
        .await
        .flatten()
    }

    /// Keeps what the gateway issued, in the place of what was there before; writes nothing if that is the same.
    pub(super) async fn keep(&self, key: &Key, issued: Option<&SecretString>) {
        let key = key.clone();
        let issued = issued.cloned();
        self.with(move |path| change(path, &key, issued.as_ref(), None)).await;
    }

    /// Forgets what was issued for this gateway and role, if it is this token: another process may have got another one meanwhile.
    pub(super) async fn forget(&self, key: &Key, refused: &SecretString) {
        let (key, refused) = (key.clone(), refused.clone());
        self.with(move |path| change(path, &key, None, Some(&refused))).await;
    }

    /// Does blocking work on the file, within the deadline.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static) -> Option<T> {
        let path = Arc::clone(self.0.as_ref()?);
        let file = Arc::clone(&path);
        let done = tokio::task::spawn_blocking(move || work(&file));
        let error = match tokio::time::timeout(DEADLINE, done).await {
            Ok(Ok(Ok(done))) => return Some(done),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took longer than {} s", DEADLINE.as_secs()),
        };
        tracing::warn!(
            path = %path.display(), error,
            "the file of device tokens cannot be used; gateways are shown the tokens of their rows instead"
        );
        None
    }
}

/// Reads the file; one that is not there is empty.
fn load(path: &Path) -> io::Result<Contents> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "it has mode {:04o}, so others can read it: delete it, and revoke the device's tokens on the gateways if they may have been read",
            metadata.mode() & 0o7777
        )));
    }
    if metadata.len() > MOST {
        return Err(io::Error::other(format!("it has more than {MOST} bytes")));
    }
    // What serde says may repeat what is in the file.
    let damaged = || io::Error::other("it is damaged, or of a later version: delete it");
    let contents: Contents = serde_json::from_reader(io::BufReader::new(file)).map_err(|_| damaged())?;
    if contents.version != VERSION {
        return Err(damaged());
    }
    Ok(contents)
}

/// Puts a token in its place, or takes away what is there; `only`: if it is this token of these terms.
fn change(path: &Path, key: &Key, token: Option<&SecretString>, only: Option<&SecretString>) -> io::Result<()> {
    // Other processes with the same device (`diff`, `sync`) change the file as well. The lock ends with the descriptor.
    let mut lock = path.file_name().unwrap_or_default().to_owned();
    lock.push(".lock");
    let lock = private().append(true).create(true).open(path.with_file_name(lock))?;
    await_lock(&lock)?;
    let mut contents = load(path)?;
    let at = contents.tokens.iter().position(|entry| entry.key.same_place(key));
    let is = |at: usize, token: &SecretString| {
        contents.tokens[at].key == *key && contents.tokens[at].token == token.expose_secret()
    };
    match (at, token) {
        (None, None) => return Ok(()),
        (Some(at), None) if only.is_some_and(|only| !is(at, only)) => return Ok(()),
        (Some(at), Some(token)) if is(at, token) => return Ok(()),
        (Some(at), _) => {
            contents.tokens.swap_remove(at);
        }
        (None, _) => {}
    }
    if let Some(token) = token {
        contents.tokens.push(Entry {
            key: key.clone(),
            token: token.expose_secret().to_owned(),
        });
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        // One that a crash left behind may have any mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().write(true).create_new(true).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&contents)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Left behind it would be litter that holds tokens.
        let _ = fs::remove_file(&temporary);
    })
}

/// Takes the lock, or gives up when nobody waits for it any longer: whoever holds it may be stopped, and each thread that waits for
/// ever is one less for everybody.
fn await_lock(lock: &File) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begin.elapsed() < DEADLINE => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another process keeps it locked")),
        }
    }
}

/// Files that only their owner can read.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(gateway: u128, url: &str, token: &str) -> Key {
        let target = Target {
            gateway: GatewayId(uuid::Uuid::from_u128(gateway)),
            url: url.to_owned(),
            token: None,
            disable_device_pairing: false,
            allow_insecure_tls: false,
        };
        Key::new(&target, "operator", "device", Some(&token.into()))
    }

    async fn found(tokens: &DeviceTokens, key: &Key) -> Option<String> {
        tokens.find(key).await.map(|token| token.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn a_device_token_is_kept_for_its_gateway_its_url_and_the_token_that_obtained_it() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = DeviceTokens::beside(&dir.path().join("device.json"));
        let path = dir.path().join("device.json.tokens");
        let (one, two) = (key(1, "wss://one", "row"), key(2, "wss://two", "row"));
        assert_eq!(found(&tokens, &one).await, None);
        tokens.keep(&one, Some(&"first".into())).await;
        tokens.keep(&two, Some(&"second".into())).await;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(found(&tokens, &one).await.as_deref(), Some("first"));
        assert_eq!(found(&tokens, &two).await.as_deref(), Some("second"));
        for other in [
            key(1, "wss://elsewhere", "row"),
            key(1, "wss://one", "new"),
            key(3, "wss://one", "row"),
        ] {
            assert_eq!(found(&tokens, &other).await, None);
        }
        // Another URL takes the place of the one before.
        let moved = key(1, "wss://elsewhere", "row");
        tokens.keep(&moved, Some(&"third".into())).await;
        assert_eq!(found(&tokens, &one).await, None);
        assert_eq!(found(&tokens, &moved).await.as_deref(), Some("third"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("wss://") && !text.contains("first"), "{text}");
        tokens.keep(&moved, None).await;
        assert_eq!(found(&tokens, &moved).await, None);
        assert_eq!(found(&tokens, &two).await.as_deref(), Some("second"));
    }

    #[tokio::test]
    async fn the_same_token_is_not_written_again_and_only_a_refused_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = DeviceTokens::beside(&dir.path().join("device.json"));
        let path = dir.path().join("device.json.tokens");
        let one = key(1, "wss://one", "row");
        tokens.keep(&one, Some(&"first".into())).await;
        let inode = || fs::metadata(&path).unwrap().ino();
        let before = inode();
        tokens.keep(&one, Some(&"first".into())).await;
        tokens.forget(&one, &"another".into()).await;
        assert_eq!(inode(), before);
        tokens.forget(&one, &"first".into()).await;
        assert_eq!(found(&tokens, &one).await, None);
    }

    #[test]
    fn processes_that_write_together_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.json.tokens");
        let keys: Vec<_> = (0..8).map(|n| key(n, "wss://one", "row")).collect();
        std::thread::scope(|scope| {
            for key in &keys {
                scope.spawn(|| change(&path, key, Some(&"t".into()), None).unwrap());
            }
        });
        assert_eq!(load(&path).unwrap().tokens.len(), keys.len());
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_or_that_is_damaged_is_neither_used_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = DeviceTokens::beside(&dir.path().join("device.json"));
        let path = dir.path().join("device.json.tokens");
        let one = key(1, "wss://one", "row");
        tokens.keep(&one, Some(&"first".into())).await;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(found(&tokens, &one).await, None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(found(&tokens, &one).await.as_deref(), Some("first"));
        fs::write(&path, "damaged").unwrap();
        tokens.keep(&one, Some(&"second".into())).await;
        assert_eq!(found(&tokens, &one).await, None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "damaged");
    }
}
