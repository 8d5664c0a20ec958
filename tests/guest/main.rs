//! What runs as root inside the virtual machines of `cargo xtask vm` and `cargo xtask bench --instructions`.
//!
//! A check that fails panics, and says why. What the host should know goes to files in `/out`.

mod agent;
mod instructions;
mod keep_alive;
mod smoke;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = arguments.split_first().expect("`cargo xtask vm` says what to do");
    match task.as_str() {
        "smoke" => smoke::smoke(rest),
        "instructions" => instructions::measure(rest),
        other => panic!("there is no {other}"),
    }
}

/// Leaves a file for the host.
fn leave(name: &str, lines: &[String]) {
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    std::fs::write(format!("/out/{name}"), text).expect("the host's folder can be written");
}
