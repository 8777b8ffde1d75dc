//! The key pair by which gateways know this controller.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use rand::Rng as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The controller's Ed25519 key. Gateways that pair devices know it by [`DeviceIdentity::id`].
pub struct DeviceIdentity {
    key: SigningKey,
    id: String,
    public_key: String,
}

/// Why a device identity could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceIdentityError {
    /// The file or its directory could not be used.
    #[error(
        "cannot {action} the device identity {path}: {source}. Check the path given by --device-identity and its permissions"
    )]
    Io {
        /// `read`, `create` or `write`.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file; its group may if it is root's.
    #[error(
        "the device identity {path} has mode {mode:04o}, so others can read the key: run `chmod 600 {path}`, or delete it and pair anew if it may have been read"
    )]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// The file does not hold a key.
    #[error(
        "the device identity {path} does not hold a key (one line: 32 bytes, base64url). Restore it, or delete it to have a new one made; gateways that pair devices will ask for approval again"
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
}

impl DeviceIdentity {
    /// A new identity that lives only in memory.
    pub fn generate() -> Self {
        let mut seed = [0_u8; 32];
        rand::rng().fill_bytes(&mut seed);
        Self::from_seed(&seed)
    }

    /// The identity in this file; on first use a new one is made and put there, readable by its owner only.
    ///
    /// Several processes may do this at once: all get the same identity. Does blocking file I/O, once at start-up.
    ///
    /// # Errors
    /// When the file cannot be read or made, when others may read it, or when it holds no key.
    pub fn load_or_create(path: &Path) -> Result<Self, DeviceIdentityError> {
        // Twice: the file may be made by another process between our look and our attempt.
        match Self::load(path) {
            Err(DeviceIdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(path)?;
                Self::load(path)
            }
            result => result,
        }
    }

    fn load(path: &Path) -> Result<Self, DeviceIdentityError> {
        let failed = |source| DeviceIdentityError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let about = fs::metadata(path).map_err(failed)?;
        let mode = about.mode() & 0o7777;
        if others_can_use(about.uid(), mode) {
            return Err(DeviceIdentityError::Permissions {
                path: path.to_owned(),
                mode,
            });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        URL_SAFE_NO_PAD
            .decode(text.trim())
            .ok()
            .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
            .map(|seed| Self::from_seed(&seed))
            .ok_or_else(|| DeviceIdentityError::Malformed { path: path.to_owned() })
    }

    /// Writes a new key beside `path` and links it there: the file appears whole or not at all, and never replaces one.
    fn create(path: &Path) -> Result<(), DeviceIdentityError> {
        let failed = |source| DeviceIdentityError::Io {
            action: "create",
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let fresh = Self::generate();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", &fresh.id[..16]));
        let temporary = path.with_file_name(name);
        let write = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            writeln!(file, "{}", URL_SAFE_NO_PAD.encode(fresh.key.to_bytes()))?;
            file.sync_all()?;
            match fs::hard_link(&temporary, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        };
        let result = write().map_err(failed);
        // Left behind it would be litter holding a key that nobody uses.
        let _ = fs::remove_file(&temporary);
        result
    }

    fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = key.verifying_key().to_bytes();
        let id = Sha256::digest(public)
            .iter()
            .fold(String::with_capacity(64), |mut id, byte| {
                use fmt::Write as _;
                let _ = write!(id, "{byte:02x}");
                id
            });
        Self {
            key,
            id,
            public_key: URL_SAFE_NO_PAD.encode(public),
        }
    }

    /// The device id: hex SHA-256 of the public key. Not a secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The `device` block of `connect`, signed for this connection.
    pub(super) fn sign(&self, claim: &Claim<'_>) -> Value {
        let Claim {
            client_id,
            client_mode,
            role,
            scopes,
            signed_at,
            token,
            nonce,
        } = claim;
        let payload = format!(
            "v2|{}|{client_id}|{client_mode}|{role}|{}|{signed_at}|{token}|{nonce}",
            self.id,
            scopes.join(",")
        );
        json!({
            "id": self.id,
            "publicKey": self.public_key,
            "signature": URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes()),
            "signedAt": signed_at,
            "nonce": nonce,
        })
    }
}

/// Whether others than its owner, or than those whom root has given it to, can do anything with a file.
///
/// A group may read what is root's: that is how Kubernetes and systemd hand a secret to a process without rights.
fn others_can_use(owner: u32, mode: u32) -> bool {
    let group_may = if owner == 0 { 0o040 } else { 0 };
    mode & 0o077 & !group_may != 0
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a device vouches for with its signature.
pub(super) struct Claim<'a> {
    pub(super) client_id: &'a str,
    pub(super) client_mode: &'a str,
    pub(super) role: &'a str,
    pub(super) scopes: &'a [&'a str],
    /// The challenge's `ts`, milliseconds since the epoch: by the gateway's clock, so that ours may be wrong.
    pub(super) signed_at: i64,
    /// The gateway's token, or empty.
    pub(super) token: &'a str,
    pub(super) nonce: &'a str,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ed25519_dalek::{Signature, Verifier};

    use super::*;

    #[test]
    fn the_identity_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/device.key");
        let first = DeviceIdentity::load_or_create(&path).unwrap();
        let second = DeviceIdentity::load_or_create(&path).unwrap();
        assert_eq!(first.id(), second.id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn processes_that_start_together_agree_on_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let load = || DeviceIdentity::load_or_create(&path).unwrap().id().to_owned();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        DeviceIdentity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = DeviceIdentity::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("0644") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_group_may_read_a_key_of_roots_and_nothing_more() {
        for (owner, mode, refused) in [
            (0, 0o600, false),
            (0, 0o440, false),
            (0, 0o640, false),
            (0, 0o660, true),
            (0, 0o644, true),
            (1000, 0o600, false),
            (1000, 0o640, true),
            (1000, 0o601, true),
        ] {
            assert_eq!(others_can_use(owner, mode), refused, "{owner} {mode:o}");
        }
    }

    #[test]
    fn a_damaged_key_is_neither_used_nor_replaced_nor_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        DeviceIdentity::load_or_create(&path).unwrap();
        fs::write(&path, "c2VjcmV0").unwrap();
        let error = DeviceIdentity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, DeviceIdentityError::Malformed { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "c2VjcmV0");
    }

    #[test]
    fn the_signature_covers_the_joined_claim() {
        let identity = DeviceIdentity::generate();
        let claim = Claim {
            client_id: "gateway-client",
            client_mode: "backend",
            role: "operator",
            scopes: &["operator.read", "operator.admin"],
            signed_at: 1_795_413_924_450,
            token: "tok",
            nonce: "n-1",
        };
        let device = identity.sign(&claim);
        let payload = format!(
            "v2|{}|gateway-client|backend|operator|operator.read,operator.admin|1795413924450|tok|n-1",
            identity.id()
        );
        let signature = URL_SAFE_NO_PAD.decode(device["signature"].as_str().unwrap()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        identity
            .key
            .verifying_key()
            .verify(payload.as_bytes(), &signature)
            .unwrap();
        assert_eq!(device["id"], identity.id());
        assert_eq!(device["signedAt"], 1_795_413_924_450_i64);
        assert!(!format!("{identity:?}").contains(&URL_SAFE_NO_PAD.encode(identity.key.to_bytes())));
    }
}
