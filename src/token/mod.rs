//! Agent tokens: mint, hash, verify, find in a file, and the rules by which a token becomes valid.
