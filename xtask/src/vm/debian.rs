//! Packages fetched and unpacked in the cache, through apt with lists of its own: the host's stay as they are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::run::{self, Command};

/// Where downloads are kept, over all checkouts.
pub(super) fn cache() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|cache| cache.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("httpmon"))
}

/// Apt with the lists of some suites.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let sources = folder.join("apt.sources");
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        ensure!(Path::new(keys).exists(), "{keys} is missing: install debian-archive-keyring");
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {keys}\n",
            mirror()?,
            suites.join(" ")
        );
        fs::write(&sources, text)?;
        for part in ["lists/partial", "apt/archives/partial", "debs", "tree"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let settings = [
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::Lists", folder.join("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", folder.join("apt")),
        ];
        let mut options: Vec<String> =
            settings.iter().map(|(name, value)| format!("--option={name}={}", value.display())).collect();
        for other in ["APT::Sandbox::User=root", "Acquire::Languages=none", "APT::Architecture=amd64"] {
            options.push(format!("--option={other}"));
        }
        let apt = Self { options };
        run::check(&mut apt.command("apt-get", &["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
    }

    /// The packages whose names begin like this.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = run::output(&mut self.command("apt-cache", &["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// What a package depends on.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = run::output(&mut self.command("apt-cache", &["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }
}

/// The folder in the cache that holds the unpacked packages which `choose` names.
pub(super) fn unpacked(
    name: &str,
    suites: &[&str],
    choose: impl FnOnce(&Apt) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let cache = cache()?;
    let folder = cache.join(name);
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let lock = fs::File::create(cache.join(format!("{name}.lock")))?;
    let _one_at_a_time = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if folder.join("complete").exists() {
        return Ok(folder.join("tree"));
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let apt = Apt::new(&folder, suites)?;
    let packages = choose(&apt)?;
    println!("fetching {}", packages.join(" "));
    let debs = folder.join("debs");
    run::check(apt.command("apt-get", &["--quiet=2", "download"]).args(&packages).current_dir(&debs))?;
    let mut names = Vec::new();
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        run::check(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(folder.join("tree")))?;
        names.extend(deb.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    for part in ["lists", "apt", "debs"] {
        fs::remove_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("complete"), names.join("\n"))?;
    Ok(folder.join("tree"))
}

/// Where this host's apt gets Debian from.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("HTTPMON_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let format = "$(LABEL) $(REPO_URI)";
    let targets = run::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian "));
    mirror
        .map(str::to_owned)
        .context("apt has no source of Debian here: name a mirror in HTTPMON_DEBIAN_MIRROR")
}
