//! Traps, by name.
