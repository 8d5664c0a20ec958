//! What the tests, the demo and the benchmark need, beside Rust: listed in `tests/needs.txt`, installed from there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::run::{self, Command};

/// Tells Debian's maintainer scripts not to start services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs everything. What can't be had is said; the tests that need it are skipped by name.
pub(crate) fn install() {
    if let Err(error) = listed("apt").and_then(debian_packages) {
        eprintln!("Debian's packages can't be installed: {error:#}");
    }
    if let Err(error) = python() {
        eprintln!("the Python environment can't be made: {error:#}");
    }
}

/// Installs what virtual machines need.
pub(crate) fn machines() -> Result<()> {
    debian_packages(listed("vm")?)?;
    // It came with QEMU before 8.0, and is a package of its own since.
    if virtiofsd().is_none() { debian_packages(vec!["virtiofsd".to_owned()]) } else { Ok(()) }
}

/// The program that serves files to virtual machines.
pub(crate) fn virtiofsd() -> Option<&'static Path> {
    let places = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    places.into_iter().map(Path::new).find(|path| path.exists())
}

fn listed(kind: &str) -> Result<Vec<String>> {
    let file = run::root().join("tests/needs.txt");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ').map(str::to_owned))
        .collect())
}

/// Installs what the benchmark needs of Debian's packages. What can't be had is said; the parts that need it fail.
pub(crate) fn benchmark() {
    let wanted = listed("apt").and_then(|tests| Ok([tests, listed("bench")?].concat()));
    if let Err(error) = wanted.and_then(debian_packages) {
        eprintln!("Debian's packages can't be installed: {error:#}");
    }
}

fn debian_packages(wanted: Vec<String>) -> Result<()> {
    let installed = |package: &String| {
        let status =
            run::output(Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]));
        status.is_ok_and(|status| status == "install ok installed")
    };
    let missing: Vec<String> = wanted.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {} of Debian's packages: {}", missing.len(), missing.join(" "));
    let _quiet = NoServices::begin()?;
    run::check(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    run::check(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
            .arg("--option=DPkg::Lock::Timeout=300")
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// While it lives, installed packages start no services.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context(POLICY)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// The Python environment, made anew when the list has changed.
pub(crate) fn python() -> Result<PathBuf> {
    let place = run::root().join(".venv");
    let wanted = listed("pip")?;
    let stamp = place.join("needs.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted.join("\n")) {
        return Ok(place);
    }
    println!("making the Python environment {}: {}", place.display(), wanted.join(" "));
    run::check(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    let pip = place.join("bin/pip");
    run::check(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check"]).args(&wanted))?;
    fs::write(stamp, wanted.join("\n"))?;
    Ok(place)
}

/// The kernel's tracing file system, which the classic form of the hooks needs; unmounted again if it was mounted here.
pub(crate) struct Tracing {
    mounted: bool,
}

const TRACING: &str = "/sys/kernel/tracing";

impl Tracing {
    pub(crate) fn mount() -> Self {
        if Path::new(TRACING).join("events").exists() {
            return Self { mounted: false };
        }
        let mounted = run::check(Command::new("mount").args(["-t", "tracefs", "none", TRACING]));
        if let Err(error) = &mounted {
            eprintln!("tracefs can't be mounted: {error:#}");
        }
        Self { mounted: mounted.is_ok() }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run::check(Command::new("umount").arg(TRACING));
        }
    }
}
