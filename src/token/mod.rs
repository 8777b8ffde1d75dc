//! Agent tokens: mint, hash, verify, find in a file, and the rules by which a token becomes valid.
//!
//! Nothing here reads a clock or talks to anything, and nothing here ever puts a token into an error or a `Debug` output:
//! tokens travel as [`SecretString`](secrecy::SecretString), hashes and fingerprints as plain text.

mod decide;
mod hash;
mod text;

pub use decide::{
    Candidate, MemoryToken, MintReason, Rotation, STABLE_FOR, TokenDecision, TokenInput, TokenProblem, VerifiedPair,
    decide,
};
pub use hash::{HashFormat, ParseHashFormatError, TokenError, fingerprint, hash, is_minted_form, mint, verify};
pub use text::{Extracted, extract, insert, redact};
