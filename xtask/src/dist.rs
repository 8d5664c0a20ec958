//! `cargo xtask dist`: what is released, in `target/dist`.
//!
//! The same sources, compiler and tools make the same bytes, whenever and by whom: names are sorted, owners are root,
//! and times are `SOURCE_DATE_EPOCH`, or the last commit's.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::run::{self, Command};

const MAINTAINER: &str = "httpmon developers <httpmon@localhost.invalid>";
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
const NOTICES: &str = "THIRD-PARTY-LICENSES";
const SERVICE: &str = "deploy/systemd/httpmon.service";
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
const POSTINST: &str = r#"#!/bin/sh
set -e

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
    deb-systemd-helper unmask httpmon.service >/dev/null || true
    # It says yes of a first installation; after that, what the administrator chose stays.
    if deb-systemd-helper --quiet was-enabled httpmon.service; then
        deb-systemd-helper enable httpmon.service >/dev/null || true
    else
        deb-systemd-helper update-state httpmon.service >/dev/null || true
    fi
    if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        if [ -n "$2" ]; then action=restart; else action=start; fi
        deb-systemd-invoke "$action" httpmon.service >/dev/null || true
    fi
    ;;
esac
"#;
const PRERM: &str = r#"#!/bin/sh
set -e

if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop httpmon.service >/dev/null || true
fi
"#;
const POSTRM: &str = r#"#!/bin/sh
set -e

if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
    if command -v deb-systemd-helper >/dev/null; then
        deb-systemd-helper purge httpmon.service >/dev/null || true
    fi
    # The unit's StateDirectory=, and where a dynamic user's really is.
    rm -rf "${DPKG_ROOT:-}/var/lib/httpmon" "${DPKG_ROOT:-}/var/lib/private/httpmon"
fi
"#;

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
        for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
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

/// A directory that becomes a package.
struct Tree(PathBuf);

impl Tree {
    fn put(&self, place: &str, from: &Path) -> Result<()> {
        let to = self.place(place)?;
        fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// All that is in a directory.
    fn put_all(&self, place: &str, from: &Path) -> Result<()> {
        for file in files(from)? {
            let name = file.strip_prefix(from)?.display();
            self.put(&format!("{place}/{name}"), &file)?;
        }
        Ok(())
    }

    fn write(&self, place: &str, text: &str) -> Result<()> {
        let to = self.place(place)?;
        fs::write(&to, text).with_context(|| to.display().to_string())
    }

    fn place(&self, place: &str) -> Result<PathBuf> {
        let to = self.0.join(place);
        let folder = to.parent().with_context(|| format!("{place:?} names no file"))?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(to)
    }

    fn compress(&self, place: &str) -> Result<()> {
        run::check(Command::new("gzip").args(["-9n", "--recursive"]).arg(self.0.join(place)))
    }

    /// Permissions as everyone's, whatever the umask was.
    fn settle(&self) -> Result<()> {
        run::check(Command::new("chmod").args(["--recursive", "u=rwX,go=rX"]).arg(&self.0))
    }

    fn sums(&self) -> Result<String> {
        let files = files(&self.0)?;
        let names = files.iter().map(|file| file.strip_prefix(&self.0)).collect::<Result<Vec<_>, _>>()?;
        run::output(Command::new("md5sum").args(names).current_dir(&self.0))
    }

    fn kibibytes(&self) -> Result<u64> {
        files(&self.0)?.iter().map(|file| Ok(fs::metadata(file)?.len().div_ceil(1024))).sum()
    }
}

/// The files below a directory, in their names' order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A crate in the program.
struct Crate {
    /// cargo's name for it.
    id: String,
    name: String,
    version: String,
    /// An SPDX expression.
    licence: String,
    folder: PathBuf,
    /// SHA-256 of what the registry has; none of httpmon's own crates.
    checksum: Option<String>,
    /// Their ids.
    dependencies: Vec<String>,
}

impl Crate {
    fn is_agent(&self) -> bool {
        self.is_own() && self.name == "monitor"
    }

    fn is_own(&self) -> bool {
        self.checksum.is_none()
    }

    /// Its package URL. httpmon's own are in no registry, and crates of others there have their names.
    fn reference(&self) -> String {
        let Self { name, version, .. } = self;
        if self.is_agent() {
            format!("pkg:generic/httpmon@{version}")
        } else if self.is_own() {
            format!("pkg:generic/httpmon@{version}#{name}")
        } else {
            // Of what a version may contain, `+` alone means something in a URL.
            format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
        }
    }

    fn component(&self) -> Value {
        let mut component = json!({
            "type": "library",
            "bom-ref": self.reference(),
            "name": self.name,
            "version": self.version,
            "licenses": [{ "expression": self.licence }],
            "purl": self.reference(),
        });
        if let Some(checksum) = &self.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    }
}

/// What the agent and the kernel object within it are built from, in their names' order.
fn crates(triple: &str) -> Result<Vec<Crate>> {
    let root = run::root();
    let programs = ["--locked", "--features=monitor-ebpf/programs"];
    // cargo metadata resolves for the whole workspace, cargo tree for the crates that are asked for.
    let tree = run::output(
        Command::new("cargo")
            .args(["tree", "--package=monitor", "--package=monitor-ebpf", "--edges=normal"])
            .args(["--prefix=none", "--format={p}", "--target", triple])
            .args(programs)
            .current_dir(&root),
    )?;
    let built: BTreeSet<_> = tree.lines().filter_map(name_and_version).collect();
    let metadata = run::output(
        Command::new("cargo")
            .args(["metadata", "--format-version=1", "--filter-platform", triple])
            .args(programs)
            .current_dir(&root),
    )?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata's answer")?;
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let checksums = checksums(&lock);
    let nodes: BTreeMap<_, _> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (node["id"].as_str(), node)).collect();

    let mut crates = Vec::new();
    for package in list(&metadata["packages"]) {
        let said = |key: &str| {
            let value = package[key].as_str();
            value.map(str::to_owned).with_context(|| format!("{} has no {key}", package["id"]))
        };
        let (name, version, manifest) =
            (said("name")?, said("version")?, PathBuf::from(said("manifest_path")?));
        if !built.contains(&(name.as_str(), version.as_str())) {
            continue;
        }
        let checksum = checksums.get(&(name.as_str(), version.as_str())).map(|sum| (*sum).to_owned());
        ensure!(
            checksum.is_some() || package["source"].is_null(),
            "{name} {version} has no checksum in Cargo.lock"
        );
        crates.push(Crate {
            licence: expression(&said("license")?),
            folder: manifest.parent().context("a manifest is in a directory")?.to_owned(),
            dependencies: normal_dependencies(nodes.get(&package["id"].as_str())),
            id: said("id")?,
            name,
            version,
            checksum,
        });
    }
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    ensure!(
        crates.len() == built.len(),
        "cargo tree has {} crates, cargo metadata {}",
        built.len(),
        crates.len()
    );
    Ok(crates)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// From a line of `cargo tree`, such as `log v0.4.28 (*)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" v")?;
    Some((name, rest.split(' ').next()?))
}

/// The ids of what a node of cargo metadata's graph is built with, in order.
fn normal_dependencies(node: Option<&&Value>) -> Vec<String> {
    let dependencies = node.map_or(&[][..], |node| list(&node["deps"])).iter();
    let normal = dependencies.filter(|one| list(&one["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
    let ids: BTreeSet<_> = normal.filter_map(|one| one["pkg"].as_str()).collect();
    ids.into_iter().map(str::to_owned).collect()
}

/// By name and version, from `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let value = |package: &'_ str, key: &str| -> Option<(usize, usize)> {
        let begin = package.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some((begin, begin + package[begin..].find('"')?))
    };
    let packages = lock.split("[[package]]").skip(1);
    let of = |package, key: &str| value(package, key).map(|(begin, end)| &package[begin..end]);
    packages
        .filter_map(|package| {
            Some(((of(package, "name")?, of(package, "version")?), of(package, "checksum")?))
        })
        .collect()
}

/// Older manifests write `/` where SPDX has `OR`.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// The texts of a crate's licences and notices.
fn licences(folder: &Path) -> Result<Vec<String>> {
    const NAMES: [&str; 6] = ["licen", "copying", "copyright", "notice", "unlicense", "authors"];
    let mut texts = Vec::new();
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !NAMES.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        let path = entry.path();
        let found = if path.is_dir() { files(&path)? } else { vec![path] };
        for file in found {
            let text = fs::read(&file).with_context(|| file.display().to_string())?;
            texts.push(String::from_utf8_lossy(&text).replace("\r\n", "\n").trim_matches('\n').to_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\ndependencies = [\n \"a\",\n]\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"x\"\nchecksum = \"0a\"\n";
        assert_eq!(checksums(lock), [(("a", "2.0.0"), "0a")].into());
    }

    #[test]
    fn lines_of_the_tree_are_read() {
        assert_eq!(name_and_version("serde v1.0.0"), Some(("serde", "1.0.0")));
        assert_eq!(name_and_version("serde_derive v1.0.0 (proc-macro) (*)"), Some(("serde_derive", "1.0.0")));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn old_licence_expressions_become_spdx() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("Apache-2.0 / MIT"), "Apache-2.0 OR MIT");
        assert_eq!(expression("(MIT OR Apache-2.0) AND Unicode-3.0"), "(MIT OR Apache-2.0) AND Unicode-3.0");
    }

    #[test]
    fn a_prerelease_is_before_the_release() {
        assert_eq!(debian_version("0.2.0-rc.1"), "0.2.0~rc.1");
        assert_eq!(debian_version("0.2.0"), "0.2.0");
    }
}
