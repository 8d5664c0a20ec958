//! What runs as root inside the virtual machines of `cargo xtask vm` and `cargo xtask bench --instructions`.
//!
//! A check that fails panics, and says why. What the host should know goes to files in `/out`.

mod instructions;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, rest)) if task == "instructions" => instructions::measure(rest),
        _ => panic!("not for the hand: `cargo xtask vm` runs it"),
    }
}

/// Where the host finds what is written.
const OUT: &str = "/out";
