//! A real Prometheus.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{Guard, Tools, free_port, run};

/// One that scrapes often.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _process: Guard,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes one agent, as job `httpmon`.
    pub fn start(tools: &Tools, target: u16) -> Result<Self, String> {
        Self::configured(
            tools,
            &format!(
                "scrape_configs:\n- job_name: httpmon\n  static_configs:\n  - targets: ['127.0.0.1:{target}']\n"
            ),
        )
    }

    /// With this configuration, after the global part.
    pub fn configured(tools: &Tools, configuration: &str) -> Result<Self, String> {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a directory can be made"));
        let file = folder.path().join("prometheus.yml");
        let global = "global: { scrape_interval: 200ms, evaluation_interval: 200ms }\n";
        fs::write(&file, format!("{global}{configuration}")).expect("the configuration can be written");
        let mut command = Command::new(tools.program("prometheus")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self { port, _process: Guard::start(&mut command), _folder: folder })
    }

    /// What its API says; nothing while it doesn't listen.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Option<serde_json::Value> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--get"]);
        for (name, value) in parameters {
            command.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let output = run(command.arg(format!("http://127.0.0.1:{}/api/v1/{path}", self.port)));
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The series that an expression gives now; an error is said.
    pub fn series(&self, expression: &str) -> Result<Vec<serde_json::Value>, String> {
        let answer = self.api("query", &[("query", expression)]).ok_or("Prometheus doesn't answer")?;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{expression}: {answer}")),
        }
    }

    /// The one value of an expression, once there is one.
    pub fn value(&self, expression: &str) -> Option<f64> {
        let series = self.series(expression).ok()?;
        series.first()?["value"][1].as_str()?.parse().ok()
    }
}
