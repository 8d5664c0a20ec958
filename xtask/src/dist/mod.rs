//! `cargo xtask dist`: what is released, in `target/dist`.
//!
//! The same sources, compiler and tools make the same bytes, whenever and by whom: names are sorted, owners are root,
//! and times are `SOURCE_DATE_EPOCH`, or the last commit's.

mod crates;
mod tree;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use self::{
    crates::{Crate, crates, licences},
    tree::Tree,
};
use crate::run::{self, Command};

const MAINTAINER: &str = "httpmon developers <httpmon@localhost.invalid>";
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
const NOTICES: &str = "THIRD-PARTY-LICENSES";
const SERVICE: &str = "deploy/systemd/httpmon.service";
const SOCKET: &str = "deploy/systemd/httpmon.socket";
const CONFIGURATION: &str = "deploy/httpmon.toml";
/// Where Debian's shells look for completions, and which is whose.
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "httpmon.bash", "usr/share/bash-completion/completions/httpmon"),
    ("zsh", "_httpmon", "usr/share/zsh/vendor-completions/_httpmon"),
    ("fish", "httpmon.fish", "usr/share/fish/vendor_completions.d/httpmon.fish"),
];

const DESCRIPTION: &str = "\
HTTP metrics of running services, from eBPF probes
 httpmon watches the socket operations of chosen processes with eBPF probes,
 rebuilds the HTTP exchanges from them and serves Prometheus metrics: requests
 by route and status, durations, time to the first byte, and time spent waiting
 for a free worker. The services are neither changed nor restarted.
 .
 It needs Linux 6.3 or later with BTF.
";

/// What debhelper writes for a service, without what only other init systems need.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("postinst")),
    ("prerm", include_str!("prerm")),
    ("postrm", include_str!("postrm")),
];

/// Makes everything.
pub(crate) fn dist() -> Result<()> {
    let program = run::build()?;
    let folder = run::root().join("target/dist");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let scratch = tempfile::tempdir_in(&folder)?;
    let release = Release::new(program, folder.clone(), scratch.path().to_owned())?;
    release.documents()?;
    let mut made = vec![release.tarball()?, release.package()?, release.bill_of_materials()?];
    drop(scratch);
    made.sort();
    let sums = run::output(Command::new("sha256sum").args(&made).current_dir(&folder))?;
    fs::write(folder.join("SHA256SUMS"), sums)?;
    told(&folder.join("SHA256SUMS"))
}

/// What is made, and from what.
struct Release {
    program: PathBuf,
    folder: PathBuf,
    /// For what is made on the way.
    scratch: PathBuf,
    version: String,
    /// What the program runs on, as the compiler names it.
    triple: String,
    /// The compiler's version.
    rustc: String,
    /// The time that files have, in seconds since 1970.
    time: u64,
    /// What the program contains.
    crates: Vec<Crate>,
}

impl Release {
    fn new(program: PathBuf, folder: PathBuf, scratch: PathBuf) -> Result<Self> {
        let compiler = run::output(Command::new("rustc").arg("-vV"))?;
        let said = |name: &str| {
            let value = compiler.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::to_owned).with_context(|| format!("rustc -vV says no {name}"))
        };
        let triple = said("host: ")?;
        let crates = crates(&triple)?;
        let version = crates.iter().find(|one| one.is_agent()).context("there is no crate monitor")?;
        let version = version.version.clone();
        Ok(Self {
            program,
            folder,
            scratch,
            version,
            triple,
            rustc: said("release: ")?,
            time: time()?,
            crates,
        })
    }

    /// What the program writes about itself, and the notices, into the scratch directory.
    fn documents(&self) -> Result<()> {
        let manual = self.scratch.join("man");
        fs::create_dir(&manual)?;
        run::check(Command::new(&self.program).arg("man").arg(&manual))?;
        let completions = self.scratch.join("completions");
        fs::create_dir(&completions)?;
        for (shell, name, _) in COMPLETIONS {
            let script = run::output(Command::new(&self.program).args(["completions", shell]))?;
            fs::write(completions.join(name), script)?;
        }
        fs::write(self.scratch.join(NOTICES), self.notices()?)?;
        println!("{NOTICES}: {} crates", self.crates.iter().filter(|one| !one.is_own()).count());
        Ok(())
    }

    /// For any distribution.
    fn tarball(&self) -> Result<String> {
        let name = format!("httpmon-{}-{}", self.version, self.triple);
        let tree = Tree(self.scratch.join(&name));
        let root = run::root();
        tree.put("httpmon", &self.program)?;
        for kind in ["man", "completions"] {
            tree.put_all(kind, &self.scratch.join(kind))?;
        }
        tree.put_all("deploy", &root.join("deploy"))?;
        for file in ["README.md", "CHANGELOG.md"].iter().chain(&LICENCES) {
            tree.put(file, &root.join(file))?;
        }
        tree.put(NOTICES, &self.scratch.join(NOTICES))?;
        tree.settle()?;

        let file = format!("{name}.tar.gz");
        run::check(
            Command::new("tar")
                .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
                .arg(format!("--mtime=@{}", self.time))
                .args(["--use-compress-program=gzip -9n", "--create", "--file"])
                .arg(self.folder.join(&file))
                .arg("--directory")
                .args([&self.scratch, Path::new(&name)]),
        )?;
        told(&self.folder.join(&file))?;
        Ok(file)
    }

    /// For Debian and what comes from it.
    fn package(&self) -> Result<String> {
        let architecture = run::output(Command::new("dpkg").arg("--print-architecture"))?;
        let (version, architecture) = (debian_version(&self.version), architecture.trim());
        let tree = Tree(self.scratch.join("package"));
        let root = run::root();
        tree.put("usr/bin/httpmon", &self.program)?;
        tree.put("usr/lib/systemd/system/httpmon.service", &root.join(SERVICE))?;
        tree.put("etc/httpmon/httpmon.toml", &root.join(CONFIGURATION))?;
        tree.put_all("usr/share/man/man1", &self.scratch.join("man"))?;
        for (_, name, place) in COMPLETIONS {
            tree.put(place, &self.scratch.join("completions").join(name))?;
        }
        tree.put_all("usr/share/httpmon/grafana", &root.join("deploy/grafana"))?;
        tree.put("usr/share/httpmon/systemd/httpmon.socket", &root.join(SOCKET))?;
        tree.put_all("usr/share/httpmon/prometheus", &root.join("deploy/prometheus"))?;
        let documents = "usr/share/doc/httpmon";
        for file in ["README.md", "CHANGELOG.md"].iter().chain(&LICENCES) {
            tree.put(&format!("{documents}/{file}"), &root.join(file))?;
        }
        tree.put(&format!("{documents}/{NOTICES}"), &self.scratch.join(NOTICES))?;
        tree.write(&format!("{documents}/copyright"), &copyright()?)?;
        tree.compress("usr/share/man/man1")?;
        tree.compress(&format!("{documents}/CHANGELOG.md"))?;
        tree.compress(&format!("{documents}/{NOTICES}"))?;

        let sums = tree.sums()?;
        let control = format!(
            "Package: httpmon\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {}\nDepends: {}\nSuggests: prometheus\nSection: net\nPriority: optional\n\
             Description: {DESCRIPTION}",
            tree.kibibytes()?,
            self.libraries()?
        );
        tree.write("DEBIAN/md5sums", &sums)?;
        tree.write("DEBIAN/control", &control)?;
        tree.write("DEBIAN/conffiles", "/etc/httpmon/httpmon.toml\n")?;
        for (name, script) in SCRIPTS {
            tree.write(&format!("DEBIAN/{name}"), script)?;
            fs::set_permissions(tree.0.join("DEBIAN").join(name), fs::Permissions::from_mode(0o755))?;
        }
        tree.settle()?;

        let file = format!("httpmon_{version}_{architecture}.deb");
        run::output(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-Zxz", "--build"])
                .args([&tree.0, &self.folder.join(&file)])
                .env("SOURCE_DATE_EPOCH", self.time.to_string()),
        )?;
        told(&self.folder.join(&file))?;
        Ok(file)
    }

    /// The packages whose libraries the program is linked with, in the versions that it needs.
    fn libraries(&self) -> Result<String> {
        // It wants to be run within a source package.
        let source = Tree(self.scratch.join("source"));
        source.write("debian/control", "Source: httpmon\n\nPackage: httpmon\nArchitecture: any\n")?;
        let said = run::output(
            Command::new("dpkg-shlibdeps").arg("-O").arg("-e").arg(&self.program).current_dir(&source.0),
        )
        .context("the package dpkg-dev has dpkg-shlibdeps")?;
        let libraries = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        libraries.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps found no libraries: {said}"))
    }

    /// What the program contains, as `CycloneDX` 1.5 has it.
    fn bill_of_materials(&self) -> Result<String> {
        let time = run::output(Command::new("date").args([
            "--utc",
            &format!("--date=@{}", self.time),
            "+%Y-%m-%dT%H:%M:%SZ",
        ]))?;
        let (agent, others): (Vec<_>, Vec<_>) = self.crates.iter().partition(|one| one.is_agent());
        let agent = agent.first().context("there is no crate monitor")?;
        let mut program = agent.component();
        program["type"] = json!("application");
        program["name"] = json!("httpmon");
        let references: BTreeMap<_, _> =
            self.crates.iter().map(|one| (one.id.as_str(), one.reference())).collect();
        let dependencies = self.crates.iter().map(|one| {
            let on: Vec<_> = one.dependencies.iter().filter_map(|id| references.get(id.as_str())).collect();
            json!({ "ref": one.reference(), "dependsOn": on })
        });
        let bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "timestamp": time.trim(), "component": program },
            "components": others.iter().map(|one| one.component()).collect::<Vec<_>>(),
            "dependencies": dependencies.collect::<Vec<_>>(),
        });
        let file = format!("httpmon-{}.cdx.json", self.version);
        fs::write(self.folder.join(&file), format!("{}\n", serde_json::to_string_pretty(&bill)?))?;
        told(&self.folder.join(&file))?;
        Ok(file)
    }

    /// The licences and notices that come with the crates, each text once.
    fn notices(&self) -> Result<String> {
        let mut texts: Vec<(String, Vec<String>)> = Vec::new();
        let mut list = String::new();
        for one in self.crates.iter().filter(|one| !one.is_own()) {
            let name = format!("{} {}", one.name, one.version);
            let found = licences(&one.folder).with_context(|| format!("the licences of {name}"))?;
            let lacking = if found.is_empty() { "; the crate comes without its text" } else { "" };
            writeln!(list, "  {name}: {}{lacking}", one.licence)?;
            for text in found {
                match texts.iter_mut().find(|(known, _)| *known == text) {
                    Some((_, names)) if names.contains(&name) => {}
                    Some((_, names)) => names.push(name.clone()),
                    None => texts.push((text, vec![name.clone()])),
                }
            }
        }
        let mut notices = format!(
            "Third-party software in httpmon {}\n\n\
             httpmon itself is under the MIT licence or the Apache License 2.0, at your option. Its program contains\n\
             Rust's standard library ({}; MIT OR Apache-2.0) and the crates below, under the licences that they name.\n\
             Their licences and notices follow, each text once.\n\n{list}",
            self.version, self.rustc
        );
        for (text, names) in texts {
            writeln!(notices, "\n{}\n{}\n\n{text}", "=".repeat(80), names.join(", "))?;
        }
        Ok(notices)
    }
}

/// Says that a file is there.
fn told(file: &Path) -> Result<()> {
    let size = fs::metadata(file).with_context(|| file.display().to_string())?.len();
    println!("{}: {} KiB", file.display(), size.div_ceil(1024));
    Ok(())
}

fn time() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            run::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(run::root()))
                .context("outside a git repository, SOURCE_DATE_EPOCH tells the files' time")?
        }
    };
    let text = text.trim();
    text.parse().with_context(|| format!("{text:?} is no number of seconds since 1970"))
}

/// In Debian's order what comes after `~` is before the release; `-` begins a packaging's own number.
fn debian_version(version: &str) -> String {
    version.replacen('-', "~", 1)
}

/// Debian's machine-readable form, <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>.
fn copyright() -> Result<String> {
    let text = fs::read_to_string(run::root().join("LICENSE-MIT"))?;
    let holder = text.lines().find_map(|line| line.strip_prefix("Copyright (c) "));
    let holder = holder.context("LICENSE-MIT names no holder")?;
    let permission = text.split_once("\n\n").and_then(|(_, rest)| rest.split_once("\n\n"));
    let (_, permission) = permission.context("LICENSE-MIT has no text")?;
    let indented = permission.trim_end().lines().map(|line| match line.trim_end() {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    });
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: httpmon\n\n\
         Files: *\nCopyright: {holder}\nLicense: Expat or Apache-2.0\n\
         Comment:\n The eBPF programs within may also be used under GPL-2.0: they declare Dual MIT/GPL to the\n \
         kernel. The licences of the crates that the program contains are in {NOTICES}.gz.\n\n\
         License: Expat\n{}\nLicense: Apache-2.0\n \
         The text is in /usr/share/common-licenses/Apache-2.0, and beside this file.\n",
        indented.collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prerelease_is_before_the_release() {
        assert_eq!(debian_version("0.2.0-rc.1"), "0.2.0~rc.1");
        assert_eq!(debian_version("0.2.0"), "0.2.0");
    }
}
