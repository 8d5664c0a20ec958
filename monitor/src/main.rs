//! The `httpmon` binary.

fn main() {}
