//! A simulated gateway that speaks the real protocol.
