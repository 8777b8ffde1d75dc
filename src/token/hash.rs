//! Minting tokens, hashing them, verifying them against stored hashes.

use std::fmt::Write as _;
use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as PhcError, PasswordHasher, PasswordVerifier};
use argon2::{ARGON2ID_IDENT, Argon2, Params};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, PAD_INDIFFERENT, URL_SAFE_NO_PAD};
use rand::Rng as _;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// Characters in a token: 32 bytes as base64 without padding.
const TOKEN_CHARS: usize = 43;
/// Random bytes in a salt: what the existing backend uses, and what RFC 9106 recommends for Argon2.
const SALT_BYTES: usize = 16;
/// PBKDF2 rounds that we write: those of the existing backend, whose verifier reads the number from the hash.
const PBKDF2_ROUNDS: u32 = 200_000;
/// More PBKDF2 rounds than this are refused: five times what is written, about half a second on one core.
const PBKDF2_MAX_ROUNDS: u32 = 1_000_000;
/// A PBKDF2-SHA-256 digest.
const PBKDF2_DIGEST_BYTES: usize = 32;
/// A longer PBKDF2 salt is refused; a common one has 16 bytes.
const PBKDF2_MAX_SALT_BYTES: usize = 64;
/// More Argon2 memory than this is refused: 256 MiB, 13 times the default that we write.
const ARGON2_MAX_KIB: u32 = 256 * 1024;
/// More Argon2 work (memory in KiB times passes) than this is refused: 1 GiB touched, about a second on one core.
const ARGON2_MAX_KIB_PASSES: u64 = 1024 * 1024;
/// More Argon2 lanes than this are refused; the default is 1.
const ARGON2_MAX_LANES: u32 = 16;
/// A longer stored hash is refused unread; the longest in use has about 100 characters.
const MAX_STORED_CHARS: usize = 512;

/// Base64url that accepts padding and its absence, and unused bits that are not zero: what Python's decoder accepts.
const LENIENT: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, PAD_INDIFFERENT.with_decode_allow_trailing_bits(true));

/// A format in which new token hashes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFormat {
    /// A PHC string, `$argon2id$v=19$m=19456,t=2,p=1$…$…`.
    Argon2id,
    /// `pbkdf2_sha256$200000$<salt>$<digest>`, both base64url without padding: the only one that the existing backend
    /// can verify.
    Pbkdf2Sha256,
    /// The same format with a single round, which verifies like any other: simulations mint thousands of tokens.
    #[cfg(feature = "sim")]
    Pbkdf2OneRound,
}

impl FromStr for HashFormat {
    type Err = ParseHashFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "argon2id" => Ok(Self::Argon2id),
            "pbkdf2-sha256" => Ok(Self::Pbkdf2Sha256),
            _ => Err(ParseHashFormatError),
        }
    }
}

/// The name of a hash format is not one of those known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown token hash format; use argon2id or pbkdf2-sha256")]
pub struct ParseHashFormatError;

/// A stored hash cannot be used, or a new one cannot be made. Holds neither the token nor the hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The hash starts like none of the formats that can be verified.
    #[error("the stored token hash is in an unknown format; expected pbkdf2_sha256$… or $argon2id$…")]
    UnknownFormat,
    /// The hash starts like a known format but breaks its rules.
    #[error("the stored token hash is malformed: {0}")]
    Malformed(&'static str),
    /// Verifying would cost more time or memory than any honest hash does.
    #[error("the stored token hash asks for an absurd {0}; it was not computed")]
    TooExpensive(&'static str),
    /// The hash function itself failed.
    #[error("hashing failed: {0}")]
    Failed(String),
}

/// A new token: 32 random bytes from the operating system, base64url without padding (43 characters).
///
/// # Panics
///
/// If the operating system has no randomness to give, without which nothing here can be secure.
pub fn mint() -> SecretString {
    let mut bytes = [0; TOKEN_BYTES];
    fill_random(&mut bytes);
    SecretString::from(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether a text has the form of a minted token: 43 characters of base64url.
///
/// Only such a token is random enough for its plain SHA-256 to be kept.
pub fn is_minted_form(token: &str) -> bool {
    token.len() == TOKEN_CHARS
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Hex SHA-256 of a token: what is remembered of a verified token, so that it need not be derived again.
///
/// Only for tokens of [minted form](is_minted_form); a guessable secret must not be kept this way.
pub fn fingerprint(token: &str) -> String {
    Sha256::digest(token.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Hashes a token with a fresh salt.
///
/// Takes tens of milliseconds of CPU: call it where blocking is allowed.
///
/// # Errors
///
/// [`TokenError::Failed`] if the memory that Argon2 needs cannot be had.
///
/// # Panics
///
/// As [`mint`] does.
pub fn hash(token: &SecretString, format: HashFormat) -> Result<String, TokenError> {
    let token = token.expose_secret().as_bytes();
    let mut salt = [0; SALT_BYTES];
    fill_random(&mut salt);
    match format {
        HashFormat::Pbkdf2Sha256 => Ok(pbkdf2_text(token, &salt, PBKDF2_ROUNDS)),
        #[cfg(feature = "sim")]
        HashFormat::Pbkdf2OneRound => Ok(pbkdf2_text(token, &salt, 1)),
        HashFormat::Argon2id => Argon2::default()
            .hash_password_with_salt(token, &salt)
            .map(|hash| hash.to_string())
            .map_err(|error| TokenError::Failed(error.to_string())),
    }
}

fn pbkdf2_text(token: &[u8], salt: &[u8], rounds: u32) -> String {
    let digest = derive_pbkdf2(token, salt, rounds);
    format!(
        "pbkdf2_sha256${rounds}${}${}",
        URL_SAFE_NO_PAD.encode(salt),
        URL_SAFE_NO_PAD.encode(digest)
    )
}

/// Whether a token matches a stored hash of either format. The comparison takes the same time wherever the two differ.
///
/// Takes tens of milliseconds of CPU (at most about a second): call it where blocking is allowed.
///
/// # Errors
///
/// If the stored hash is of an unknown format, malformed, or absurdly expensive; nothing is computed then.
pub fn verify(token: &str, stored: &str) -> Result<bool, TokenError> {
    let stored = stored.trim();
    if stored.len() > MAX_STORED_CHARS {
        return Err(TokenError::Malformed("it is too long"));
    }
    if let Some(rest) = stored.strip_prefix("pbkdf2_sha256$") {
        verify_pbkdf2(token, rest)
    } else if stored.starts_with("$argon2id$") {
        verify_argon2id(token, stored)
    } else {
        Err(TokenError::UnknownFormat)
    }
}

fn verify_pbkdf2(token: &str, rest: &str) -> Result<bool, TokenError> {
    let mut parts = rest.split('$');
    let (Some(rounds), Some(salt), Some(digest), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed("pbkdf2_sha256 needs rounds, salt and digest"));
    };
    if rounds.is_empty() || !rounds.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TokenError::Malformed("the rounds are not a number"));
    }
    // Digits that do not fit are a number all the same, and far too large a one.
    let rounds: u32 = rounds.parse().unwrap_or(u32::MAX);
    if rounds == 0 {
        return Err(TokenError::Malformed("no rounds"));
    }
    if rounds > PBKDF2_MAX_ROUNDS {
        return Err(TokenError::TooExpensive("number of PBKDF2 rounds"));
    }
    let salt = LENIENT
        .decode(salt)
        .map_err(|_| TokenError::Malformed("the salt is not base64url"))?;
    let digest = LENIENT
        .decode(digest)
        .map_err(|_| TokenError::Malformed("the digest is not base64url"))?;
    if salt.is_empty() || salt.len() > PBKDF2_MAX_SALT_BYTES {
        return Err(TokenError::Malformed("the salt's length is not between 1 and 64 bytes"));
    }
    if digest.len() != PBKDF2_DIGEST_BYTES {
        return Err(TokenError::Malformed("the digest does not have 32 bytes"));
    }
    let computed = derive_pbkdf2(token.as_bytes(), &salt, rounds);
    Ok(computed.ct_eq(digest.as_slice()).into())
}

fn derive_pbkdf2(token: &[u8], salt: &[u8], rounds: u32) -> [u8; PBKDF2_DIGEST_BYTES] {
    let mut digest = [0; PBKDF2_DIGEST_BYTES];
    match pbkdf2::Params::new(rounds) {
        // Not generic, so that it is compiled within the dependency: fast in a debug build too (20 times).
        Ok(params) => {
            pbkdf2::pbkdf2_hmac_with_params(token, salt, pbkdf2::Algorithm::Pbkdf2Sha256, params, &mut digest);
        }
        // Fewer rounds than that function takes (1,000).
        Err(_) => pbkdf2::pbkdf2_hmac::<Sha256>(token, salt, rounds, &mut digest),
    }
    digest
}

fn verify_argon2id(token: &str, stored: &str) -> Result<bool, TokenError> {
    let parsed = PasswordHash::new(stored).map_err(|_| TokenError::Malformed("it is not a PHC string"))?;
    if parsed.algorithm != ARGON2ID_IDENT {
        return Err(TokenError::UnknownFormat);
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(TokenError::Malformed("it has no salt or no digest"));
    }
    let params = Params::try_from(&parsed).map_err(|_| TokenError::Malformed("its Argon2 parameters are invalid"))?;
    if params.m_cost() > ARGON2_MAX_KIB {
        return Err(TokenError::TooExpensive("amount of Argon2 memory"));
    }
    if u64::from(params.m_cost()) * u64::from(params.t_cost()) > ARGON2_MAX_KIB_PASSES {
        return Err(TokenError::TooExpensive("number of Argon2 passes"));
    }
    if params.p_cost() > ARGON2_MAX_LANES {
        return Err(TokenError::TooExpensive("number of Argon2 lanes"));
    }
    match Argon2::default().verify_password(token.as_bytes(), &parsed) {
        Ok(()) => Ok(true),
        Err(PhcError::PasswordInvalid) => Ok(false),
        Err(PhcError::Version) => Err(TokenError::Malformed("its Argon2 version is unknown")),
        Err(error) => Err(TokenError::Failed(error.to_string())),
    }
}

fn fill_random(bytes: &mut [u8]) {
    UnwrapErr(SysRng).fill_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "u2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM";
    const OTHER: &str = "v2Vx-0kq9_Jt3mBzWcYpLr5aHnDgEs7iFoQ1XvT8KyM";

    /// Hashes of `TOKEN` computed by other programs: Python's hashlib, and OpenSSL's Argon2 through Node.
    const FOREIGN: [&str; 7] = [
        "pbkdf2_sha256$200000$AAECAwQFBgcICQoLDA0ODw$jUh34sQZc258HpRdkXSYwSxt3NDnl6GF-Jqk2B-Dkw8",
        "pbkdf2_sha256$200000$AAECAwQFBgcICQoLDA0ODw==$jUh34sQZc258HpRdkXSYwSxt3NDnl6GF-Jqk2B-Dkw8=",
        "pbkdf2_sha256$200000$__77ABE-P__--wARPj___g$1mrepTeqCNbMBhQKTaS1o81GDCAChurZT2oKUciqMdU",
        "pbkdf2_sha256$200000$__77ABE-P__--wARPj___g==$1mrepTeqCNbMBhQKTaS1o81GDCAChurZT2oKUciqMdU=",
        "pbkdf2_sha256$1$cw$NuDEaSEmvzzezKmF0mmWpSm8ULQ1YcHnuZ5T0OJSkrE",
        "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY",
        "$argon2id$v=19$m=65536,t=3,p=4$AAECAwQFBgcICQoLDA0ODw$FRfxtxTp01SiDmr/trbmzra2LECJHqw1T8JaO2rnNXc",
    ];

    #[test]
    fn hashes_made_by_other_programs_verify() {
        for stored in FOREIGN {
            assert_eq!(verify(TOKEN, stored), Ok(true), "{stored}");
            assert_eq!(verify(OTHER, stored), Ok(false), "{stored}");
        }
    }

    #[test]
    fn what_is_hashed_here_verifies_here_and_has_the_exact_form() {
        let token = SecretString::from(TOKEN);
        let pbkdf2 = hash(&token, HashFormat::Pbkdf2Sha256).unwrap();
        let parts: Vec<&str> = pbkdf2.split('$').collect();
        assert_eq!(parts[..2], ["pbkdf2_sha256", "200000"]);
        assert_eq!((parts.len(), parts[2].len(), parts[3].len()), (4, 22, 43));
        let argon2id = hash(&token, HashFormat::Argon2id).unwrap();
        assert!(argon2id.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{argon2id}");
        for stored in [pbkdf2, argon2id] {
            assert_eq!(verify(TOKEN, &stored), Ok(true));
            assert_eq!(verify(OTHER, &stored), Ok(false));
            assert_ne!(
                stored,
                hash(&token, HashFormat::Pbkdf2Sha256).unwrap(),
                "salts are fresh"
            );
        }
    }

    #[test]
    fn hashes_that_cannot_be_used_are_errors_and_cost_nothing() {
        let digest = "NuDEaSEmvzzezKmF0mmWpSm8ULQ1YcHnuZ5T0OJSkrE";
        for stored in [
            String::new(),
            "plain".to_owned(),
            "pbkdf2_sha1$1$cw$x".to_owned(),
            "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
            "$argon2i$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY".to_owned(),
            "pbkdf2_sha256$".to_owned(),
            "pbkdf2_sha256$1$cw".to_owned(),
            format!("pbkdf2_sha256$1$cw${digest}$more"),
            format!("pbkdf2_sha256$0$cw${digest}"),
            format!("pbkdf2_sha256$-1$cw${digest}"),
            format!("pbkdf2_sha256$+1$cw${digest}"),
            format!("pbkdf2_sha256$1e3$cw${digest}"),
            format!("pbkdf2_sha256$1000001$cw${digest}"),
            format!("pbkdf2_sha256$4294967295$cw${digest}"),
            format!("pbkdf2_sha256$99999999999999999999$cw${digest}"),
            format!("pbkdf2_sha256$1$${digest}"),
            format!("pbkdf2_sha256$1$c+${digest}"),
            format!("pbkdf2_sha256$1$c${digest}"),
            format!("pbkdf2_sha256$1$cw${digest}AAAA"),
            "pbkdf2_sha256$1$cw$NuDE".to_owned(),
            "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw".to_owned(),
            "$argon2id$v=19$m=4294967295,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY".to_owned(),
            "$argon2id$v=19$m=19456,t=4294967295,p=1$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY".to_owned(),
            "$argon2id$v=19$m=19456,t=2,p=1000$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY".to_owned(),
            "$argon2id$v=99$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$obauokWB8MUv33YDm30rPRPAKdtVzvXgphiutG3vpEY".to_owned(),
            "$argon2id$nonsense".to_owned(),
            format!("pbkdf2_sha256$1${}${digest}", "A".repeat(100_000)),
        ] {
            let error = verify(TOKEN, &stored).expect_err(&stored);
            let text = error.to_string();
            assert!(!text.contains(digest) && !text.contains(TOKEN), "{text}");
        }
    }

    #[test]
    fn minted_tokens_are_random_and_of_minted_form() {
        let (a, b) = (mint(), mint());
        assert!(is_minted_form(a.expose_secret()) && is_minted_form(b.expose_secret()));
        assert_ne!(a.expose_secret(), b.expose_secret());
        for text in [
            "",
            "short",
            &"x".repeat(44),
            &"x".repeat(42),
            &format!("{}=", "x".repeat(42)),
            &"ä".repeat(21),
        ] {
            assert!(!is_minted_form(text), "{text}");
        }
    }

    #[test]
    fn fingerprints_are_hex_sha256() {
        assert_eq!(
            fingerprint(TOKEN),
            "723bc133a8b16f02d3f66747d918ceea8b4c6bdc24525ecd6ef1ba4c6ba2cfa4"
        );
    }

    #[test]
    fn formats_have_the_names_of_the_configuration() {
        assert_eq!("argon2id".parse(), Ok(HashFormat::Argon2id));
        assert_eq!("pbkdf2-sha256".parse(), Ok(HashFormat::Pbkdf2Sha256));
        assert_eq!("auto".parse::<HashFormat>(), Err(ParseHashFormatError));
    }
}
