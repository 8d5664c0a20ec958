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
    /// Servers whose TLS is in their own program: Go's, and rustls.
    servers: [String; 2],
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
        let go = run::root().join("target/go-server");
        let tools = Tools::anywhere().map_err(Error::msg)?;
        tools.newer_go("server.go", &go, &[]).map_err(Error::msg)?;
        let servers = [go, Tools::rustls()].map(|program| program.display().to_string());
        Ok(Self { agent, guest: run::root().join("target/release/guest").display().to_string(), servers })
    }

    /// What they know of where they run: everything takes longer than on the host.
    fn variables(&self) -> [(&str, &str); 4] {
        let [go, rustls] = &self.servers;
        [
            ("HTTPMON", &self.agent),
            ("HTTPMON_TEST_PATIENCE", "180"),
            ("HTTPMON_GO_SERVER", go),
            ("HTTPMON_RUSTLS_SERVER", rustls),
        ]
    }
}

/// Checks these kernels, or all. When all were checked for everything, and it held, the page about them is written anew.
pub(crate) fn vm(wanted: &[Series], brief: bool) -> Result<()> {
    let programs = Programs::prepare()?;
    let all = !brief && Series::ALL.iter().all(|series| wanted.is_empty() || wanted.contains(series));
    let mut outcomes = Vec::new();
    for series in Series::ALL {
        if wanted.is_empty() || wanted.contains(&series) {
            outcomes.push(smoke::smoke(series, &programs, brief)?);
        }
    }
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
