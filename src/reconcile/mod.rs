//! The two reconcilers: load, observe, plan, apply, report.
