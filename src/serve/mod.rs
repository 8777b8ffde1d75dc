//! HTTP: metrics and probes.
