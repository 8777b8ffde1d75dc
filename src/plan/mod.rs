//! The planner: what has to change, as printable steps. Pure, synchronous, deterministic.
