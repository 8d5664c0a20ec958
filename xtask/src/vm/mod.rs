//! Virtual machines with stock kernels: what holds on each of them, and what httpmon costs in instructions.

mod debian;
mod expectations;
mod initramfs;
pub(crate) mod instructions;
mod kernels;
mod machine;
mod matrix;
mod smoke;

use std::{env, fs};

use anyhow::{Error, Result, ensure};
use end_to_end::Tools;
pub(crate) use kernels::Series;

use crate::{
    needs,
    run::{self, Command},
};

/// What runs inside.
struct Programs {
    /// httpmon: as built, or that which `HTTPMON` names, as in the tests.
    agent: String,
    /// What makes the checks.
    guest: String,
    /// Servers for it, by the variables that name them.
    servers: Vec<(&'static str, String)>,
}

impl Programs {
    /// Builds them, and installs what they need.
    fn prepare() -> Result<Self> {
        needs::machines()?;
        needs::python()?;
        let agent = match env::var("HTTPMON") {
            Ok(agent) => agent,
            Err(_) => run::build()?.display().to_string(),
        };
        let arguments = ["build", "--release", "--package=end-to-end", "--bin=guest"];
        run::check(Command::new("cargo").args(arguments).current_dir(run::root()))?;
        let guest = run::root().join("target/release/guest").display().to_string();
        Ok(Self { agent, guest, servers: Vec::new() })
    }

    /// Builds the servers whose TLS is in their own program, too.
    fn with_servers(self) -> Result<Self> {
        let go = run::root().join("target/go-server");
        let tools = Tools::anywhere().map_err(Error::msg)?;
        tools.newer_go("server.go", &go, &[]).map_err(Error::msg)?;
        let built = [("HTTPMON_GO_SERVER", go), ("HTTPMON_RUSTLS_SERVER", Tools::rustls())];
        Ok(Self {
            servers: built.map(|(name, program)| (name, program.display().to_string())).into(),
            ..self
        })
    }

    /// What they know of where they run: everything takes longer than on the host.
    fn variables(&self) -> Vec<(&str, &str)> {
        let servers = self.servers.iter().map(|(name, program)| (*name, program.as_str()));
        [("HTTPMON", self.agent.as_str()), ("HTTPMON_TEST_PATIENCE", "180")]
            .into_iter()
            .chain(servers)
            .collect()
    }
}

/// Checks these kernels, or all. When all were checked for everything, and it held, the page about them is written anew.
pub(crate) fn vm(wanted: &[Series], brief: bool) -> Result<()> {
    let programs = Programs::prepare()?.with_servers()?;
    let mut outcomes = Vec::new();
    for series in Series::ALL {
        if wanted.is_empty() || wanted.contains(&series) {
            outcomes.push(smoke::smoke(series, &programs, brief)?);
        }
    }
    let all = !brief && outcomes.len() == Series::ALL.len();
    let releases = |complete| {
        let outcomes = outcomes.iter().filter(|outcome| outcome.complete == complete);
        outcomes.map(|outcome| outcome.release.as_str()).collect::<Vec<_>>().join(", ")
    };
    let failed = releases(false);
    ensure!(failed.is_empty(), "checks failed on {failed}");
    println!("\neverything holds on {}", releases(true));
    if all {
        let page = run::root().join("monitor/docs/kernels.md");
        fs::write(&page, matrix::page(&outcomes))?;
        println!("{} is written", page.display());
    }
    Ok(())
}
