//! Configuration: flags, environment, defaults.
