//! An agent with the options that say how it hooks into the kernel.

use std::process::{Command, Stdio};

use end_to_end::{Agent, free_port, run};

/// Options, joined by commas; none leaves the choice to the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a>(pub(super) &'a str);

impl<'a> Way<'a> {
    fn options(self, name: &'a str) -> Vec<&'a str> {
        ["--process-name", name].into_iter().chain(self.0.split(',').filter(|one| !one.is_empty())).collect()
    }

    /// Starts one that watches the processes of this name.
    pub(super) fn start(self, name: &str) -> Agent {
        Agent::start(&self.options(name))
    }

    /// Starts one that must refuse, with exit code 3; the reason that it gives.
    pub(super) fn refusal(self) -> String {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(Agent::program());
        command.args(self.options("gunicorn")).args(["--listen", &listen]).stdin(Stdio::null());
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        let reason = said.lines().find_map(|line| line.strip_prefix("error: "));
        reason.unwrap_or_else(|| panic!("no reason is given: {said}")).to_owned()
    }
}
