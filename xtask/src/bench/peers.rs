//! What httpmon is compared with: in-process instrumentation from `PyPI`, each reporting as its users have it report.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use end_to_end::Server;

use super::{
    machine::{self, SERVERS},
    servers::Subject,
    sink::Sink,
};
use crate::run::{self, Command};

/// The servers and the peers, in a Python environment of their own.
#[derive(Debug)]
pub(super) struct Python {
    place: PathBuf,
}

impl Python {
    /// Installs what `xtask/servers/requirements.txt` lists, unless it is there.
    pub(super) fn install() -> Result<Self> {
        let place = run::root().join("target/bench-python");
        let list = sources().join("requirements.txt");
        let wanted = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
        let stamp = place.join("requirements.txt");
        if !fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
            println!("installing {} into {}\n", list.display(), place.display());
            run::check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
            let mut pip = Command::new(place.join("bin/pip"));
            run::check(pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list))?;
            fs::write(stamp, wanted)?;
        }
        Ok(Self { place })
    }

    /// A program of the environment on the servers' core, where the applications are.
    pub(super) fn command(&self, program: &str) -> Command {
        let programs = self.place.join("bin");
        let mut command = machine::on_core(SERVERS, programs.join(program));
        command.current_dir(sources()).env("PYTHONDONTWRITEBYTECODE", "1");
        // `opentelemetry-instrument` looks for what it starts.
        let mut path = programs.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
        command
    }
}

/// Where the servers' sources are.
pub(super) fn sources() -> PathBuf {
    run::root().join("xtask/servers")
}

/// What instruments the Flask application from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Nothing.
    None,
    /// prometheus-flask-exporter, with the directory that its processes share.
    Exporter,
    /// `opentelemetry-instrument`: traces, metrics and logs by OTLP over HTTP.
    OpenTelemetry,
    /// Elastic APM's agent, every transaction sampled, as it comes.
    ElasticApm,
}

/// Gunicorn with the Flask application, two workers with four threads each.
pub(super) fn flask(python: &Python, peer: Peer) -> Result<Subject> {
    let folder = tempfile::tempdir()?;
    let sink = match peer {
        Peer::OpenTelemetry | Peer::ElasticApm => Some(Sink::start()?),
        Peer::None | Peer::Exporter => None,
    };
    let reports_to = sink.as_ref().map(|sink| format!("http://{}", sink.address())).unwrap_or_default();
    let server = Server::other(|address| {
        let mut command = match peer {
            Peer::OpenTelemetry => {
                let mut command = python.command("opentelemetry-instrument");
                command.arg("gunicorn");
                command
            }
            _ => python.command("gunicorn"),
        };
        command.args(["--workers=2", "--worker-class=gthread", "--threads=4"]);
        command.arg(format!("--bind={address}")).arg(match peer {
            Peer::None | Peer::OpenTelemetry => "app:app",
            Peer::Exporter => "with_exporter:app",
            Peer::ElasticApm => "with_apm:app",
        });
        match peer {
            Peer::None => {}
            Peer::Exporter => drop(command.env("PROMETHEUS_MULTIPROC_DIR", folder.path())),
            Peer::OpenTelemetry => {
                command.env("OTEL_SERVICE_NAME", "shop");
                command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &reports_to);
            }
            Peer::ElasticApm => {
                command.env("ELASTIC_APM_SERVICE_NAME", "shop");
                command.env("ELASTIC_APM_SERVER_URL", &reports_to);
            }
        }
        command
    });
    let mut subject = Subject::new(server, "/items/7");
    subject.sink = sink;
    subject.folders.push(folder);
    Ok(subject)
}
